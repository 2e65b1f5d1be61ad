"""How sure a number is: percentile bootstrap intervals, the resampling done by problem.

Items of one problem (its steps, its candidates, its traces) resemble one another, so whole problems are drawn, with
replacement, and never single items (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their
Application, 1997, section 3.8). The ends are the quantiles of the statistic over the resamples (section 5.3).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.metrics import Floats, Statistic

DRAWS = 2000
_CELLS = 1 << 22
"""Weights in memory at once: 32 MiB."""
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic with its interval."""

    value: float | None
    """On the data as it is; None if the statistic has no value there (an AUC without a wrong item)."""
    low: float | None
    high: float | None
    """Ends of the interval; None if there is no value, or only one cluster to draw from."""
    n: int
    """Items."""
    clusters: int
    """Problems."""


def bootstrap(
    statistic: Statistic, clusters: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return a statistic and its percentile interval, resampled by cluster.

    The same clusters, draws and seed give the same resamples whatever the statistic, so intervals of two methods on the
    same items are paired. Resamples in which the statistic has no value are left out.

    Args:
        statistic: See `metrics.Statistic`; called with weights of N items.
        clusters: The cluster of each item, (N,).
        draws: Resamples.
        seed: Of the random numbers.
        level: Share of the resamples that the interval holds, in (0, 1).

    Raises:
        UsageError: There is no item, or an argument is out of its range.
    """
    if not clusters:
        raise UsageError("an interval needs at least one item, got none")
    if draws < 1 or not 0 < level < 1:
        raise UsageError(f"expected at least one draw and a level between 0 and 1, got {draws} and {level:g}")
    numbers: dict[Hashable, int] = {}
    members = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    value = float(statistic(np.ones((1, len(members))))[0])
    if np.isnan(value) or len(numbers) == 1:
        return Interval(None if np.isnan(value) else value, None, None, len(members), len(numbers))
    values = np.concatenate([statistic(weights) for weights in resample_weights(members, len(numbers), draws, seed)])
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(value, None, None, len(members), len(numbers))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(members), len(numbers))


def paired_difference(
    first: Statistic,
    second: Statistic,
    clusters: Sequence[Hashable],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return `first - second` and its interval, both taken on the same items in each resample; see `bootstrap`."""
    return bootstrap(lambda weights: first(weights) - second(weights), clusters, draws=draws, seed=seed, level=level)


def resample_weights(members: NDArray[np.int64], clusters: int, draws: int, seed: int) -> Iterator[Floats]:
    """Yield how often each item was drawn, (D, N) at a time, `draws` rows in all."""
    random = np.random.default_rng(seed)
    rows = max(1, _CELLS // len(members))
    for start in range(0, draws, rows):
        count = min(rows, draws - start)
        drawn = random.integers(clusters, size=(count, clusters)) + clusters * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * clusters).reshape(count, clusters)
        yield times[:, members].astype(np.float64)


def interval_row(interval: Interval) -> dict[str, float | None]:
    """Return a value and its interval as reports write them, rounded to six digits."""
    return {name: rounded(getattr(interval, name)) for name in ("value", "low", "high")}


def rounded(value: float | None) -> float | None:
    """Return a number as reports write it."""
    # The last bits of a sum are the machine's; -0.0 is no number to read.
    return None if value is None else round(value, _DIGITS) + 0.0
