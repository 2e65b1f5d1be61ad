"""The methods by name, as settings that a trainer's bridge carries: rollouts in, token advantages out.

| name | a rollout's reward or a token's advantage | needs |
|---|---|---|
| `rule` | r_out | outcome |
| `prm` | r_hat (collapses; kept as a control) | PRM |
| `blend` | (1 - beta) r_out + beta r_hat | both |
| `gated` | r_out (1 - alpha + alpha r_hat) if right, r_out if wrong | both |
| `filtered` | r_out, of rollouts on which outcome and PRM agree | both, group |
| `degenerate` | r_out, but r_hat where all outcomes of the group are equal | both, group |
| `among-right` | r_out, and r_hat among the right | both, group |
| `process` | step rewards from the token's step on, and r_out | both, steps, group |
| `potential` | r_out minus what the PRM thought before the step | both, steps, group |

The first four need one rollout at a time, so they can be a trainer's plain reward function (`ScalarShaping.rewards`);
the trainer then normalises. The rest need the whole group, and go in as advantages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

import numpy as np

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.dense import CREDITS, TEMPERATURE, Credit, Floats, process
from reasonflux_prm.rl.filters import among_right, consistent, filtered, when_degenerate
from reasonflux_prm.rl.normalise import Baseline, Scale, check_names, group_advantages
from reasonflux_prm.rl.potential import check_weight, potential
from reasonflux_prm.rl.rollouts import Rewards, Rollout
from reasonflux_prm.rl.scalar import ALPHA, BETA, Link, blend, check_share, gated


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping(ABC):
    """A method with its settings.

    Raises:
        UsageError: A setting is out of its range (also on construction of each subclass).
    """

    baseline: Baseline = "mean"
    scale: Scale = "group"
    name: ClassVar[str]
    needs_prm: ClassVar[bool] = True
    needs_outcome: ClassVar[bool] = True
    needs_steps: ClassVar[bool] = False
    """Whether the places of steps among the tokens matter."""

    def __post_init__(self) -> None:
        check_names(self.baseline, self.scale)

    @abstractmethod
    def advantages(self, rollouts: Sequence[Rollout]) -> list[Floats]:
        """Return the advantage of every token, (T,) a rollout; zeros for a rollout that lacks what is needed."""

    def unscored(self, rollout: Rollout) -> str | None:
        """Return what the rollout lacks, in a word; None if it lacks nothing."""
        if self.needs_outcome and rollout.outcome is None:
            return "outcome"
        if self.needs_steps and not rollout.known_steps:
            return "steps"
        return "reward" if self.needs_prm and not self.needs_steps and rollout.reward is None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarShaping(Shaping):
    """A method that needs one rollout at a time."""

    @abstractmethod
    def rewards(self, outcomes: Rewards, rewards: Rewards) -> list[float | None]:
        """Return one reward a rollout, before normalisation."""

    def advantages(self, rollouts: Sequence[Rollout]) -> list[Floats]:
        """Return the rewards' advantages, the same for all tokens of a rollout."""
        rewards = self.rewards([r.outcome for r in rollouts], [r.reward for r in rollouts])
        groups = [rollout.group for rollout in rollouts]
        return _spread(group_advantages(rewards, groups, baseline=self.baseline, scale=self.scale), rollouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(ScalarShaping):
    """The verifier alone."""

    name = "rule"
    needs_prm = False

    def rewards(self, outcomes: Rewards, rewards: Rewards) -> list[float | None]:
        """Return the outcomes."""
        return list(outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PRMOnly(ScalarShaping):
    """The PRM alone, as in label-free training. It is known to collapse; watch it with `monitor`."""

    name = "prm"
    needs_outcome = False

    def rewards(self, outcomes: Rewards, rewards: Rewards) -> list[float | None]:
        """Return the PRM's rewards."""
        return list(rewards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend(ScalarShaping):
    """The paper's; see `scalar.blend`."""

    beta: float = BETA
    name = "blend"

    def __post_init__(self) -> None:
        check_names(self.baseline, self.scale)
        check_share("beta", self.beta)

    def rewards(self, outcomes: Rewards, rewards: Rewards) -> list[float | None]:
        """Return the blend."""
        return blend(outcomes, rewards, self.beta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated(ScalarShaping):
    """See `scalar.gated`."""

    alpha: float = ALPHA
    link: Link = "identity"
    name = "gated"

    def __post_init__(self) -> None:
        check_names(self.baseline, self.scale)
        gated([], [], self.alpha, self.link)

    def unscored(self, rollout: Rollout) -> str | None:
        """Return what the rollout lacks; a wrong one needs no reward."""
        if rollout.outcome is not None and rollout.outcome <= 0:
            return None
        return Shaping.unscored(self, rollout)

    def rewards(self, outcomes: Rewards, rewards: Rewards) -> list[float | None]:
        """Return the gated outcomes."""
        return gated(outcomes, rewards, self.alpha, self.link)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered(Shaping):
    """See `filters.consistent`."""

    keep: float = 0.5
    balance: bool = True
    name = "filtered"

    def __post_init__(self) -> None:
        check_names(self.baseline, self.scale)
        check_share("keep", self.keep)

    def advantages(self, rollouts: Sequence[Rollout]) -> list[Floats]:
        """Return the outcomes' advantages among the rollouts that are kept, and 0 for the others."""
        outcomes, rewards, groups = _columns(rollouts)
        kept = consistent(outcomes, rewards, groups, self.keep, balance=self.balance)
        chosen = filtered(outcomes, kept)
        return _spread(group_advantages(chosen, groups, baseline=self.baseline, scale=self.scale), rollouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighted(Shaping):
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_names(self.baseline, self.scale)
        if not self.weight >= 0:
            raise UsageError(f"weight must be at least 0, got {self.weight:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Degenerate(_Weighted):
    """See `filters.when_degenerate`."""

    name = "degenerate"

    def advantages(self, rollouts: Sequence[Rollout]) -> list[Floats]:
        """Return the outcomes' advantages, or those of the rewards in degenerate groups."""
        found = when_degenerate(*_columns(rollouts), weight=self.weight, baseline=self.baseline, scale=self.scale)
        return _spread(found, rollouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AmongRight(_Weighted):
    """See `filters.among_right`."""

    weight: float = 0.5
    name = "among-right"

    def advantages(self, rollouts: Sequence[Rollout]) -> list[Floats]:
        """Return the outcomes' advantages, and those of the rewards among the right."""
        found = among_right(*_columns(rollouts), weight=self.weight, baseline=self.baseline, scale=self.scale)
        return _spread(found, rollouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(Shaping):
    """See `dense.process`."""

    beta: float = BETA
    credit: Credit = "sum"
    temperature: float = TEMPERATURE
    step_cost: float = 0.0
    by_part: bool = False
    name = "process"
    needs_steps = True

    def __post_init__(self) -> None:
        self.advantages([])
        if self.credit != "min" and self.temperature != TEMPERATURE:
            raise UsageError(f"temperature belongs to credit 'min' (credits: {', '.join(CREDITS)}); leave it out")

    def unscored(self, rollout: Rollout) -> str | None:
        """Return what the rollout lacks; at beta 1 no outcome is needed, at beta 0 no step."""
        if self.beta < 1 and rollout.outcome is None:
            return "outcome"
        return "steps" if self.beta > 0 and not rollout.known_steps else None

    def advantages(self, rollouts: Sequence[Rollout]) -> list[Floats]:
        """Return the token advantages."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return process(rollouts, **settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Potential(Shaping):
    """See `rl.potential`."""

    weight: float | None = None
    gamma: float = 1.0
    centre: bool = True
    scale: Scale = "batch"
    name = "potential"
    needs_steps = True

    def __post_init__(self) -> None:
        check_names(self.baseline, self.scale)
        if not 0 < self.gamma <= 1:
            raise UsageError(f"gamma must be in (0, 1], got {self.gamma:g}")
        check_weight(self.weight)

    def advantages(self, rollouts: Sequence[Rollout]) -> list[Floats]:
        """Return the token advantages."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return potential(rollouts, **settings)


SHAPINGS: Final[dict[str, type[Shaping]]] = {
    shaping.name: shaping
    for shaping in (Rule, PRMOnly, Blend, Gated, Filtered, Degenerate, AmongRight, Process, Potential)
}


def open_shaping(name: str, **settings: Any) -> Shaping:
    """Return a method by its name, one of `SHAPINGS`.

    Args:
        name: Its name.
        settings: The fields of its class.

    Raises:
        UsageError: No such method, or it has no such setting.
    """
    if name not in SHAPINGS:
        raise UsageError(f"unknown shaping {name!r}; there are {', '.join(SHAPINGS)}")
    known = [field.name for field in fields(SHAPINGS[name])]
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise UsageError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    return SHAPINGS[name](**settings)


def _columns(rollouts: Sequence[Rollout]) -> tuple[Rewards, Rewards, list[Any]]:
    # A rollout that lacks one of the two is unscored for methods that need both.
    outcomes = [None if rollout.reward is None else rollout.outcome for rollout in rollouts]
    rewards = [None if rollout.outcome is None else rollout.reward for rollout in rollouts]
    return outcomes, rewards, [rollout.group for rollout in rollouts]


def _spread(advantages: Sequence[float], rollouts: Sequence[Rollout]) -> list[Floats]:
    return [np.full(r.tokens, advantage) for advantage, r in zip(advantages, rollouts, strict=True)]
