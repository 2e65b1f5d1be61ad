"""Rewards of a group into advantages: a baseline is taken off, and the rest is scaled.

    A_i = (r_i - b_i) / (s + eps)

| baseline | b_i | source |
|---|---|---|
| `mean` | mean of the group, the rollout itself included | GRPO, arXiv:2402.03300, section 4.1 |
| `leave-one-out` | mean of the group's other rollouts: independent of the rollout, so the gradient stays unbiased; \
G/(G-1) times the above | RLOO, arXiv:2402.14740 |
| `none` | 0 | |

| scale | s | source |
|---|---|---|
| `group` | standard deviation of the group | GRPO |
| `batch` | standard deviation of all rollouts about their groups' means: no problem weighs more than another | \
cf. REINFORCE++-baseline, arXiv:2501.03262 |
| `none` | s + eps = 1: dividing by the group's deviation favours problems that are nearly always or nearly never \
solved | Dr. GRPO, arXiv:2503.20783 |

Standard deviations have Bessel's correction and eps is 1e-4, as in TRL 1.16 (trainer/grpo_trainer.py), whose
advantages `mean` with `group` equals. Unscored rollouts (None) are in no statistic and get advantage 0; so does a
rollout whose group has no other scored one, but for the baseline `none`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.rollouts import Rewards, members

Baseline = Literal["mean", "leave-one-out", "none"]
Scale = Literal["group", "batch", "none"]
BASELINES: Final = get_args(Baseline)
SCALES: Final = get_args(Scale)
EPS: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and deviation of a list of numbers."""

    count: int
    mean: float
    """0 without numbers."""
    squares: float
    """Sum of squared deviations from the mean."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Moments:
        """Return the moments of some numbers."""
        if not values:
            return cls(0, 0.0, 0.0)
        mean = math.fsum(values) / len(values)
        return cls(len(values), mean, math.fsum((value - mean) ** 2 for value in values))

    @property
    def std(self) -> float:
        """Standard deviation with Bessel's correction; 0 of fewer than two numbers."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0


def group_advantages(
    rewards: Rewards,
    groups: Sequence[Hashable],
    *,
    baseline: Baseline = "mean",
    scale: Scale = "group",
    eps: float = EPS,
) -> list[float]:
    """Return the advantage of every rollout; see the head of this module.

    Args:
        rewards: (B,); None is unscored.
        groups: (B,) the problem of each rollout, in any order.
        baseline: What is taken off.
        scale: What the rest is divided by.
        eps: Added to the divisor.

    Raises:
        UsageError: Unknown name, or lengths differ.
    """
    check_names(baseline, scale)
    if len(rewards) != len(groups):
        raise UsageError(f"expected one group for each reward, got {len(groups)} and {len(rewards)}")
    found = members(groups)
    moments = [Moments.of(known(rewards[i] for i in group)) for group in found]
    pooled = pooled_std(moments)
    advantages = [0.0] * len(rewards)
    for group, own in zip(found, moments, strict=True):
        for i in group:
            reward = rewards[i]
            if reward is not None:
                taken = reward - baseline_of(reward, own, baseline) if own.count > 1 or baseline == "none" else 0.0
                advantages[i] = taken / divisor(own.std, pooled, scale, eps)
    return advantages


def baseline_of(reward: float, own: Moments, baseline: Baseline) -> float:
    """Return what is taken off a reward that is one of a group's `own.count`."""
    if baseline == "none":
        return 0.0
    if baseline == "leave-one-out" and own.count > 1:
        return (own.mean * own.count - reward) / (own.count - 1)
    return own.mean


def divisor(own: float, pooled: float, scale: Scale, eps: float) -> float:
    """Return what advantages are divided by, from the deviation of the group and that of the batch."""
    return {"group": own + eps, "batch": pooled + eps, "none": 1.0}[scale]


def pooled_std(moments: Iterable[Moments]) -> float:
    """Return the deviation of all numbers about the means of their groups."""
    sizable = [own for own in moments if own.count > 1]
    freedom = sum(own.count - 1 for own in sizable)
    return math.sqrt(math.fsum(own.squares for own in sizable) / freedom) if freedom else 0.0


def known(rewards: Iterable[float | None]) -> list[float]:
    """Return the rewards that there are."""
    return [reward for reward in rewards if reward is not None]


def check_names(baseline: str, scale: str) -> None:
    """Refuse a baseline or a scale that does not exist."""
    if baseline not in BASELINES:
        raise UsageError(f"unknown baseline {baseline!r}; there are {', '.join(BASELINES)}")
    if scale not in SCALES:
        raise UsageError(f"unknown scale {scale!r}; there are {', '.join(SCALES)}")
