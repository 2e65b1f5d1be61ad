"""Flags that say how policies are asked: limits, a budget, the cache; and the policies that they make of names."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from reasonflux_prm.cli.options import count
from reasonflux_prm.errors import UsageError

if TYPE_CHECKING:
    from reasonflux_prm.policy.base import Policy
    from reasonflux_prm.policy.budget import BudgetedPolicy, Prices
    from reasonflux_prm.policy.cache import CachedPolicy
    from reasonflux_prm.policy.open import PolicySettings

SPEC: Final = "MODEL@URL|local:FOLDER|vllm:FOLDER"
_ENDPOINT: Final = ("concurrency", "requests_per_minute", "tokens_per_minute", "timeout")


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """How policies are asked; None takes the default."""

    concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float | None = None
    budget_requests: int | None = None
    budget_tokens: int | None = None
    budget_money: float | None = None
    prices: Prices | None = None
    cache: str | None = None


class Policies:
    """Policies by name, each opened once, behind a budget and the cache of completions. A context manager.

    Args:
        config: How they are asked.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._open: dict[str, tuple[CachedPolicy, BudgetedPolicy]] = {}

    def open(self, spec: str) -> Policy:
        """Return the policy of a name.

        Raises:
            UsageError: There is no such policy, or a flag does not go with it.
            MissingExtra: What it needs is not installed.
            PolicyStopped: There is no such local model, or the cache cannot be used.
        """
        if spec not in self._open:
            from reasonflux_prm.policy.budget import Budget, BudgetedPolicy
            from reasonflux_prm.policy.cache import CachedPolicy
            from reasonflux_prm.policy.open import open_policy
            from reasonflux_prm.storage import cache_folder

            config = self._config
            budget = Budget(config.budget_requests, config.budget_tokens, config.budget_money, config.prices)
            path = Path(config.cache) if config.cache else cache_folder() / "completions.sqlite"
            budgeted = BudgetedPolicy(open_policy(spec, _settings(spec, config)), budget)
            self._open[spec] = CachedPolicy(budgeted, path), budgeted
        return self._open[spec][0]

    @property
    def concurrency(self) -> int:
        """Requests that keep all policies busy; 0 without any."""
        return sum(cached.concurrency for cached, _ in self._open.values())

    def cost(self) -> dict[str, float]:
        """Return what has been taken so far, by name; money only with prices."""
        total: dict[str, float] = {}
        for cached, budgeted in self._open.values():
            spent = budgeted.spent
            counts = {
                "requests": spent.requests,
                "failed": spent.failed,
                "prompt_tokens": spent.prompt_tokens,
                "completion_tokens": spent.completion_tokens,
                "estimated": spent.estimated,
                "cached_completions": cached.hits,
                **({} if spent.money is None else {"money": spent.money}),
            }
            for name, value in counts.items():
                total[name] = total.get(name, 0) + value
        return total

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for cached, _ in self._open.values():
            cached.close()


def _settings(spec: str, config: PolicyConfig) -> PolicySettings:
    """Return the backend's settings that the flags make."""
    from reasonflux_prm.policy.open import PolicySettings

    if spec.startswith(("local:", "vllm:")):
        given = [name for name in _ENDPOINT if getattr(config, name) is not None]
        if given:
            flags = ", ".join("--" + name.replace("_", "-") for name in given)
            raise UsageError(f"{flags} goes with a served policy (MODEL@URL), and not with {spec}; leave it out")
        return PolicySettings()
    return PolicySettings(
        concurrency=config.concurrency,
        timeout_s=config.timeout,
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
    )


def said_cost(cost: Mapping[str, float]) -> str:
    """Return what was taken, in words, as in `1,204 requests, 3.1 million tokens, 4.20 in money`."""
    tokens = cost.get("prompt_tokens", 0) + cost.get("completion_tokens", 0)
    parts = [f"{cost.get('requests', 0):,.0f} requests", f"{_round(tokens)} tokens"]
    if failed := cost.get("failed"):
        parts.append(f"{failed:,.0f} failed")
    if "money" in cost:
        parts.append(f"{cost['money']:,.2f} in money")
    if hits := cost.get("cached_completions"):
        parts.append(f"{hits:,.0f} answers from the cache")
    return ", ".join(parts)


def add_policies(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `PolicyConfig`."""
    group = parser.add_argument_group("policies")
    group.add_argument("--concurrency", type=count, metavar="N", help="requests under way at a time; default 8")
    group.add_argument("--requests-per-minute", type=positive, metavar="N", help="start at most N requests a minute")
    group.add_argument(
        "--tokens-per-minute", type=positive, metavar="N", help="read and write at most N tokens a minute"
    )
    group.add_argument(
        "--timeout", type=positive, metavar="S", help="seconds for one attempt at a request; default 600"
    )
    group.add_argument("--budget-requests", type=count, metavar="N", help="stop after N requests of each policy")
    group.add_argument("--budget-tokens", type=count, metavar="N", help="stop after N tokens of each policy")
    group.add_argument("--budget-money", type=positive, metavar="X", help="stop after X in money for each policy")
    group.add_argument(
        "--prices",
        type=prices,
        metavar="READ,WRITTEN",
        help="money for a million tokens read and for a million written; what is spent is then told",
    )
    group.add_argument(
        "--cache",
        metavar="FILE",
        help="keeps every completion, so that none is paid for twice; default completions.sqlite in the cache folder",
    )


def policies_of(arguments: argparse.Namespace) -> PolicyConfig:
    """Return what the flags of `add_policies` say."""
    return PolicyConfig(**{field.name: getattr(arguments, field.name) for field in fields(PolicyConfig)})


def positive(text: str) -> float:
    """Read a number above 0."""
    return _number(text, lambda value: value > 0, "a number above 0")


def prices(text: str) -> tuple[float, float]:
    """Read two prices, as in `2.5,10`."""
    read, comma, written = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"expected two prices as in 2.5,10, got {text!r}")
    expected = "two prices of 0 or more, as in 2.5,10"
    return _number(read, lambda value: value >= 0, expected), _number(written, lambda value: value >= 0, expected)


def _number(text: str, good: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (good(value) and value < float("inf")):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def _round(tokens: float) -> str:
    return f"{tokens / 1e6:,.1f} million" if tokens >= 1e6 else f"{tokens:,.0f}"
