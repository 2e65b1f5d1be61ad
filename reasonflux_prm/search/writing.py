"""How a policy is asked to write: whole traces, or a step at a time.

A step ends at a stop text (a blank line), at its most tokens, or where the policy ends. A policy that never comes to a
stop is cut off by the most steps and tokens of a trace.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from reasonflux_prm.errors import PolicyError, UsageError
from reasonflux_prm.policy.base import Completion, Message, Outcome, PartlyAnswered, Request
from reasonflux_prm.search.draft import Draft


@dataclass(frozen=True, slots=True)
class Writing:
    """How the policy writes.

    Raises:
        UsageError: A setting is outside its range.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 4096
    """Most tokens of a trace, thinking included."""
    step_tokens: int = 256
    """Most tokens of a step that meets no stop text."""
    max_steps: int = 128
    """Most steps of a trace."""
    stop: tuple[str, ...] = ("\n\n",)
    """Texts that end a step; they belong to it."""
    opening: str = ""
    """What every answer begins with, written for the policy: `<think>` and a line break for one whose chat template
    opens the thinking by itself. Empty leaves the beginning to the policy."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_tokens", "step_tokens", "max_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, and is {getattr(self, name)}")
        if not all(self.stop):
            raise UsageError("a stop text must not be empty")
        self.whole("", 1, 0)

    def row(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**asdict(self), "stop": list(self.stop)}

    def whole(self, asked: str, n: int, seed: int) -> Request:
        """Return the request for whole traces."""
        return Request(
            (Message("user", asked),), n, self.temperature, self.top_p, self.max_tokens, seed=seed, prefix=self.opening
        )

    def step(self, asked: str, draft: Draft, tokens: int, n: int, seed: int) -> Request:
        """Return the request for the next step of a draft for which so many tokens were written."""
        most = min(self.step_tokens, self.max_tokens - tokens)
        return Request(
            (Message("user", asked),),
            n,
            self.temperature,
            self.top_p,
            max(1, most),
            self.stop,
            seed,
            prefix=draft.written,
            raw=True,
        )


def seed_of(seed: int, problem: str, number: int) -> int:
    """Return the seed of a problem's request, from 0 to 2**30 - 1: the same whatever else is asked."""
    digest = blake2b(f"{seed}\0{number}\0{problem}".encode(errors="surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 2


def came(outcome: Outcome, n: int) -> tuple[list[Completion], PolicyError | None]:
    """Return the completions of a request, `n` at most, and what it failed with."""
    if isinstance(outcome, PartlyAnswered):
        return list(outcome.completions[:n]), outcome
    if isinstance(outcome, PolicyError):
        return [], outcome
    return list(outcome[:n]), None


def step_text(completion: Completion) -> str:
    """Return what was written, the stop text that ended it included."""
    return completion.text + (completion.stopped_at or "")


def has_ended(completion: Completion) -> bool:
    """Whether the policy has come to its end with a step; a backend that does not tell is taken to say so."""
    return completion.finish_reason != "length" and not completion.stopped_at


def is_unclear(completion: Completion) -> bool:
    """Whether the backend leaves open if the policy has ended."""
    return completion.finish_reason == "stop" and completion.stopped_at is None
