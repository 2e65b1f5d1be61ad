"""A limit on what may be spent, in requests, tokens or money, and a policy that keeps to it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reasonflux_prm.errors import PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy.base import Outcome, PartlyAnswered, Policy, Request
from reasonflux_prm.policy.loop import LoopThread, answer_all
from reasonflux_prm.policy.usage import estimated_prompt, usage_of

Prices = tuple[float, float]
"""Money for a million tokens read, and for a million tokens written, in whatever currency the budget is in."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent; None where there is no limit.

    Raises:
        UsageError: A limit or price below 0, or a limit in money without prices.
    """

    requests: int | None = None
    """Calls of the policy. One call is one request, also where the backend has to ask a server several times for it."""
    tokens: int | None = None
    """Tokens read and written together."""
    money: float | None = None
    prices: Prices | None = None

    def __post_init__(self) -> None:
        for name, limit in (("requests", self.requests), ("tokens", self.tokens), ("money", self.money)):
            if limit is not None and not limit >= 0:
                raise UsageError(f"a budget's {name} must be at least 0, and are {limit}")
        if self.prices is not None and not all(price >= 0 for price in self.prices):
            raise UsageError(f"prices must be at least 0, and are {self.prices}")
        if self.money is not None and self.prices is None:
            raise UsageError("a budget in money needs the prices of a million tokens read and of a million written")


@dataclass(frozen=True, slots=True)
class Spent:
    """What requests have cost, or would cost."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    """Requests whose tokens are our estimate, because the server counts none."""
    failed: int = 0
    """Requests that failed. A server may charge for some of them; tokens are counted only of what came."""
    money: float | None = None
    """None without prices."""

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens

    def __str__(self) -> str:
        money = "" if self.money is None else f", {self.money:,.4g} in money"
        estimated = f" ({self.estimated:,} requests by estimate)" if self.estimated else ""
        failed = f", {self.failed:,} requests failed" if self.failed else ""
        return f"{self.requests:,} requests, {self.tokens:,} tokens{estimated}{money}{failed}"


def cost(prompt_tokens: int, completion_tokens: int, prices: Prices | None) -> float | None:
    """Return what tokens cost; None without prices."""
    return None if prices is None else (prompt_tokens * prices[0] + completion_tokens * prices[1]) / 1e6


def estimate(requests: Iterable[Request], prices: Prices | None = None) -> Spent:
    """Estimate the most that requests can cost: prompts by their bytes, each completion as long as it may become."""
    count = read = written = 0
    for request in requests:
        count += 1
        read += estimated_prompt(request)
        written += request.n * request.max_tokens
    return Spent(count, read, written, estimated=count, money=cost(read, written, prices))


class BudgetedPolicy:
    """A policy that stops when a budget is spent.

    A request is started only if what is known of its cost beforehand (one request, and its prompt) still fits beside
    what is spent and what is under way. What it writes is known when it is done, so the last ones to be answered can go
    over: by at most `concurrency` requests' `n * max_tokens`.

    Put a cache around it, not inside: answers from the cache are free.

    Args:
        policy: What answers.
        budget: The most to spend; by default no limit, and what is spent is counted only.
    """

    def __init__(self, policy: Policy, budget: Budget | None = None) -> None:
        self._policy = policy
        self._budget = budget or Budget()
        self._lock = threading.Lock()
        self._spent = Spent(money=cost(0, 0, self._budget.prices))
        self._under_way = Spent()
        self._stopped = ""
        self._loop = LoopThread("budget")

    @property
    def name(self) -> str:
        """The model's name."""
        return self._policy.name

    @property
    def concurrency(self) -> int:
        """As the policy inside."""
        return self._policy.concurrency

    @property
    def spent(self) -> Spent:
        """What has been spent so far; requests under way are counted when they end."""
        with self._lock:
            return self._spent

    def identity(self) -> Mapping[str, Any]:
        """Return the identity of the policy inside: a budget changes no answer."""
        return self._policy.identity()

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer every request, in order.

        Raises:
            PolicyStopped: The budget is spent, or the policy inside has stopped.
        """
        return self._loop.run(answer_all(self.ask, requests, self.concurrency))

    async def ask(self, request: Request) -> Outcome:
        """Answer one request.

        Raises:
            PolicyStopped: The budget is spent, or the policy inside has stopped.
        """
        known = estimated_prompt(request)
        self._start(known)
        outcome: Outcome | None = None
        try:
            outcome = await self._policy.ask(request)
        finally:
            self._end(request, known, outcome)
        return outcome

    def close(self) -> None:
        """Close the policy inside."""
        self._loop.close()
        self._policy.close()

    def _start(self, known: int) -> None:
        budget = self._budget
        with self._lock:
            requests = self._spent.requests + self._under_way.requests + 1
            tokens = self._spent.tokens + self._under_way.tokens + known
            money = (self._spent.money or 0.0) + (cost(self._under_way.tokens + known, 0, budget.prices) or 0.0)
            over = [
                f"{limit:,} {name}"
                for name, limit, wanted in (
                    ("requests", budget.requests, requests),
                    ("tokens", budget.tokens, tokens),
                    ("in money", budget.money, money),
                )
                if limit is not None and wanted > limit
            ]
            # Stays stopped: a smaller request must not slip through after a larger one was refused.
            self._stopped = self._stopped or " and ".join(over)
            if self._stopped:
                raise PolicyStopped(
                    f"the budget of {self._stopped} is reached (so far {self._spent}); what is done is kept: raise the "
                    "budget and run the same command again to go on"
                )
            self._under_way = replace(
                self._under_way,
                requests=self._under_way.requests + 1,
                prompt_tokens=self._under_way.prompt_tokens + known,
            )

    def _end(self, request: Request, known: int, outcome: Outcome | None) -> None:
        """Count what a request has taken; `outcome` is None if it was stopped or given up."""
        completions = outcome.completions if isinstance(outcome, PartlyAnswered) else outcome
        used = usage_of(request, completions) if completions and not isinstance(completions, PolicyError) else None
        with self._lock:
            self._under_way = replace(
                self._under_way,
                requests=self._under_way.requests - 1,
                prompt_tokens=self._under_way.prompt_tokens - known,
            )
            spent = self._spent
            if used is None:
                self._spent = replace(spent, requests=spent.requests + 1, failed=spent.failed + 1)
                return
            read, written = spent.prompt_tokens + used.prompt_tokens, spent.completion_tokens + used.completion_tokens
            self._spent = Spent(
                requests=spent.requests + 1,
                prompt_tokens=read,
                completion_tokens=written,
                estimated=spent.estimated + used.estimated,
                failed=spent.failed + isinstance(outcome, PolicyError),
                money=cost(read, written, self._budget.prices),
            )
