"""Finding the first wrong step of a trace, as ProcessBench asks for it (arXiv:2412.06559, section 3).

A trace is judged by where its first step below a threshold is: right if that is the labelled step, or if there is none
in a trace without errors. The threshold belongs to the PRM and must not be chosen on the traces that are reported on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.metrics import Floats, Statistic

Rewards = Sequence[float | None]
"""The step rewards of one trace; a step without one is never taken for wrong."""


def predict(rewards: Rewards, threshold: float) -> int | None:
    """Return the index of the first step whose reward is below the threshold; None if there is none."""
    return next((index for index, r in enumerate(rewards) if r is not None and r < threshold), None)


def lowest(rewards: Rewards) -> int | None:
    """Return the index of the step with the least reward, the first of several; needs no threshold.

    It is for traces that are known to have an error: it always names one.
    """
    known = [(reward, index) for index, reward in enumerate(rewards) if reward is not None]
    return min(known)[1] if known else None


def hits(rewards: Sequence[Rewards], first_errors: Sequence[int | None], threshold: float) -> list[bool]:
    """Return for each trace whether it is judged rightly.

    Args:
        rewards: The step rewards of each trace.
        first_errors: For each trace the index of the first wrong step, None if no step is wrong.
        threshold: A step with a reward below it is taken for wrong.

    Raises:
        UsageError: The lengths differ.
    """
    _check(rewards, first_errors)
    return [predict(own, threshold) == first for own, first in zip(rewards, first_errors, strict=True)]


def weighted_f1(hit: Sequence[bool], first_errors: Sequence[int | None]) -> Statistic:
    """Return the statistic `harmonic mean of the accuracies on traces with and without an error`.

    It is ProcessBench's headline, and has no value where one of the two kinds is missing.

    Args:
        hit: What `hits` returned.
        first_errors: What it was given.
    """
    right = np.array([first is None for first in first_errors], dtype=np.float64)
    found = np.array(hit, dtype=np.float64)

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            a = weights @ (found * (1 - right)) / (weights @ (1 - right))
            b = weights @ (found * right) / (weights @ right)
        return _harmonic(a, b)

    return statistic


def choose_threshold(rewards: Sequence[Rewards], first_errors: Sequence[int | None]) -> float:
    """Return the threshold with the highest F1 on development traces, exactly; the lowest if several have it.

    Each trace is judged rightly for one interval of thresholds: above the reward of its first wrong step, and not above
    any reward before it. Only the upper ends of these intervals need to be tried.

    Raises:
        UsageError: The lengths differ, or the traces do not include some with and some without an error.
    """
    _check(rewards, first_errors)
    right = np.array([first is None for first in first_errors])
    if right.all() or not right.any():
        raise UsageError("a threshold is chosen on traces with and without errors, got only one of the two kinds")
    low, high = np.array([_interval(*pair) for pair in zip(rewards, first_errors, strict=True)]).T
    # Above every reward all thresholds are alike, and infinity would be no number to write down.
    top = max((r for own in rewards for r in own if r is not None), default=0.0)
    tried = np.unique(np.minimum(high, np.nextafter(top, math.inf)))
    hit = (low < tried[:, None]) & (tried[:, None] <= high)
    f1 = _harmonic(hit[:, ~right].mean(axis=1), hit[:, right].mean(axis=1))
    return float(tried[int(f1.argmax())])


def _harmonic(a: Floats, b: Floats) -> Floats:
    """Return the harmonic means; 0 of two zeros."""
    mean: Floats = 2 * a * b / np.where(a + b == 0, 1.0, a + b)
    return mean


def _interval(rewards: Rewards, first_error: int | None) -> tuple[float, float]:
    """Return (low, high): the trace is judged rightly if low < threshold <= high."""
    before = rewards if first_error is None else rewards[:first_error]
    high = min((r for r in before if r is not None), default=math.inf)
    if first_error is None:
        return -math.inf, high
    at = rewards[first_error]
    return (math.inf if at is None else at), high


def _check(rewards: Sequence[Rewards], first_errors: Sequence[int | None]) -> None:
    if len(rewards) != len(first_errors):
        raise UsageError(
            f"expected one first error (or None) for each trace, got {len(first_errors)} for {len(rewards)} traces"
        )
