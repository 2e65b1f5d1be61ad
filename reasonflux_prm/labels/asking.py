"""How judges and raters ask a policy: seeds that a rerun repeats, faults as values, several requests under way at once.

A seed is derived from the request itself. The same question has the same seed in every run, so a cache answers it, and
the control attempts at a problem are asked for once however many traces the problem has.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from reasonflux_prm.errors import PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy.base import Completion, Message, PartlyAnswered, Policy, Request

T = TypeVar("T")

_SEEDS = 2**30
"""Seeds stay below 31 bits with room to count on: some backends refuse more, or add the sample's index."""
_RETRY_TEMPERATURE = 0.5
"""A repeated question is asked at this temperature at least: greedy decoding would tend to the same fault."""


@dataclass(frozen=True, slots=True)
class Asker:
    """A policy with the settings of one kind of request."""

    policy: Policy
    temperature: float
    max_tokens: int
    seed: int = 0
    """Base seed; another one draws other samples."""

    def __post_init__(self) -> None:
        # A setting out of range is refused now, and not with the first trace.
        Request((Message("user", ""),), temperature=self.temperature, max_tokens=self.max_tokens)

    async def ask(
        self,
        messages: tuple[Message, ...],
        *,
        n: int = 1,
        attempt: int = 0,
        max_tokens: int | None = None,
        prefix: str = "",
    ) -> list[Completion] | PolicyError:
        """Ask once; `attempt` tells repeated questions apart, and from 1 on they are asked at some temperature.

        `prefix` is what the assistant has already written, see `policy.base.Request`.

        Returns:
            The completions, or what went wrong. Where some of the `n` have come, the others are not waited for.

        Raises:
            PolicyStopped: no request will succeed from here on.
        """
        request = Request(
            messages,
            n=n,
            temperature=max(self.temperature, _RETRY_TEMPERATURE) if attempt else self.temperature,
            max_tokens=max_tokens or self.max_tokens,
            seed=seed_of(self.seed, attempt, (*messages, Message("assistant", prefix)) if prefix else messages),
            prefix=prefix,
        )
        try:
            outcome = await self.policy.ask(request)
        except PolicyStopped:
            raise
        except Exception as error:  # whatever one request runs into must not stop its neighbours
            return error if isinstance(error, PolicyError) else PolicyError(f"{type(error).__name__}: {error}")
        if isinstance(outcome, PartlyAnswered) and outcome.completions:
            return list(outcome.completions)
        return outcome or PolicyError(f"policy {self.policy.name!r} gave no completion")

    def identity(self) -> dict[str, Any]:
        """Return what answers depend on besides the prompts."""
        return {
            "policy": dict(self.policy.identity()),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }


def seed_of(base: int, attempt: int, messages: tuple[Message, ...]) -> int:
    """Return a request's seed, in [0, 2**30)."""
    key = json.dumps([base, attempt, [[message.role, message.content] for message in messages]])
    return int.from_bytes(hashlib.sha256(key.encode("ascii")).digest()[:8], "big") % _SEEDS


async def ask_until(
    asker: Asker,
    question: Callable[[], tuple[Message, ...]],
    first: Completion | PolicyError,
    take: Callable[[Completion], str | None],
    again: Callable[[str], tuple[Message, ...]],
    *,
    retries: int,
    attempt: int = 0,
    max_tokens: int | None = None,
) -> str | None:
    """Offer answers to `take` until it wants no more, asking again at most `retries` times.

    An answer that falls short is followed by a repair turn in the same conversation; after a request that failed, or an
    empty answer, the conversation starts afresh. Each request has a new seed.

    Args:
        asker: Whom to ask.
        question: The conversation to start with, for what is missing at the time.
        first: The answer to it that is at hand.
        take: Uses an answer; returns None once nothing is missing, or else what is, as a clause.
        again: The repair turn for what `take` missed.
        retries: Most further requests.
        attempt: A number that no other further request for this question has: tells its samples apart.
        max_tokens: Most tokens to write in each, by default the asker's.

    Returns:
        None, or what was missing at last.

    Raises:
        PolicyStopped: no request will succeed from here on.
    """
    answer, conversation, left = first, question(), retries
    while True:
        if isinstance(answer, PolicyError):
            missing, conversation = f"the request failed: {answer}", question()
        elif (said := take(answer)) is None:
            return None
        else:
            cut = " (cut off at max_tokens)" if answer.finish_reason == "length" else ""
            if answer.text.strip():
                missing, conversation = said + cut, (*conversation, Message("assistant", answer.text), *again(said))
            else:
                missing, conversation = "the answer is empty" + cut, question()
        if not left:
            return missing
        left -= 1
        attempt += 1
        answer = one_of(await asker.ask(conversation, attempt=attempt, max_tokens=max_tokens))


def answers_of(outcome: list[Completion] | PolicyError, n: int) -> Sequence[Completion | PolicyError]:
    """Return what each of `n` samples starts from: its completion, or the error that all of them met."""
    return [outcome] * n if isinstance(outcome, PolicyError) else outcome[:n]


def review_temperature(chosen: float | None, samples: int) -> float:
    """Return the temperature of a judge's reviews; by default 0 for one and 0.7 for several.

    Raises:
        UsageError: several reviews at temperature 0, which would be copies of one.
    """
    if samples > 1 and chosen == 0:
        raise UsageError(f"{samples} reviews at temperature 0 are copies of one; leave the temperature out or raise it")
    if chosen is None:
        return 0.7 if samples > 1 else 0.0
    return chosen


def one_of(outcome: list[Completion] | PolicyError) -> Completion | PolicyError:
    """Return the first completion, or the error."""
    return outcome if isinstance(outcome, PolicyError) else outcome[0]


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all at once and return their results in order.

    The first exception cancels the others, waits until they have ended, and passes through as it is: none goes on
    asking for a run that has stopped.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
