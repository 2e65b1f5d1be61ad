"""Statistics of labelled steps that benchmarks of PRMs are made of; see `metrics.Statistic` for what a statistic is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.metrics import Floats, Statistic


def weighted_spearman(x: ArrayLike, y: ArrayLike) -> Statistic:
    """Return the statistic `Spearman's rank correlation`, ties having their mean rank.

    An item of weight w stands for w items of equal value. There is no value where one of the two is constant.

    Args:
        x: (N,) finite.
        y: (N,) finite.

    Raises:
        UsageError: There is no item, the lengths differ, or a value is not finite.
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise UsageError(f"expected two rows of equal length, got the shapes {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UsageError("expected finite values, got NaN or infinity; leave out what could not be scored")
    orders = [_order(first), _order(second)]

    def statistic(weights: Floats) -> Floats:
        a, b = (_ranks(weights, *order) for order in orders)
        total = weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b = (own - (weights * own).sum(axis=1, keepdims=True) / total for own in (a, b))
            spread = np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1))
            found: Floats = (weights * a * b).sum(axis=1) / np.where(spread > 0, spread, np.nan)
        return found

    return statistic


def _order(values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the group of equal values that each item belongs to, by rising value, and where each group begins."""
    order = np.argsort(values, kind="stable")
    _, starts, which = np.unique(values[order], return_index=True, return_inverse=True)
    groups = np.empty(len(values), dtype=np.int64)
    groups[order] = which
    return groups, starts


def _ranks(weights: Floats, groups: NDArray[np.int64], starts: NDArray[np.int64]) -> Floats:
    order = np.argsort(groups, kind="stable")
    mass = np.add.reduceat(weights[:, order], starts, axis=1)
    # The mean rank of a group of mass m that stands behind a mass b is b + (m + 1) / 2.
    ranks: Floats = (np.cumsum(mass, axis=1) - mass + (mass + 1) / 2)[:, groups]
    return ranks


def weighted_f1(counts: ArrayLike, *, negative: bool = False) -> Statistic:
    """Return the statistic `F1 over all steps`.

    It is 2 TP / (2 TP + FP + FN), 0 where nothing is found, and has no value where there is nothing to find and nothing
    was claimed.

    Args:
        counts: (N, 4) steps of each trace: right and taken for right (TP), wrong and taken for right (FP), wrong and
            taken for wrong (TN), right and taken for wrong (FN).
        negative: F1 of wrong steps, TN and FN and FP in the places of TP and FP and FN.
    """
    table = np.asarray(counts, dtype=np.float64)
    hit = 2 if negative else 0

    def statistic(weights: Floats) -> Floats:
        total = weights @ table
        with np.errstate(invalid="ignore", divide="ignore"):
            f1: Floats = 2 * total[:, hit] / (2 * total[:, hit] + total[:, 1] + total[:, 3])
        return f1

    return statistic


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Return the plain mean of statistics; it has no value where one of them has none.

    Raises:
        UsageError: There is none.
    """
    if not statistics:
        raise UsageError("expected at least one statistic to take the mean of, got none")

    def statistic(weights: Floats) -> Floats:
        mean: Floats = np.mean([own(weights) for own in statistics], axis=0)
        return mean

    return statistic


def on_items(statistic: Statistic, items: Sequence[int]) -> Statistic:
    """Return a statistic of some items as one of all N, so that means and differences resample the same problems.

    Args:
        statistic: Of as many items as there are numbers.
        items: Their numbers among the N.
    """
    chosen = np.asarray(items, dtype=np.int64)

    def restricted(weights: Floats) -> Floats:
        return statistic(weights[:, chosen])

    return restricted
