"""Means of many columns over the same problems with their bootstrap intervals, the problems drawn once for all columns.

Column by column the numbers are those of `intervals.bootstrap` and `intervals.paired_difference`; a table of curves has
hundreds of columns, and drawing the problems anew for each is what would take the time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.intervals import DRAWS, Interval, resample_weights
from reasonflux_prm.evaluation.metrics import Floats


class ResampledMeans:
    """The means of M columns on the data and in each resample.

    Args:
        values: One row a problem, (P, M).
        clusters: The cluster of each problem, (P,).
        draws: Resamples.
        seed: Of the random numbers.
        level: Share of the resamples that an interval holds, in (0, 1).

    Raises:
        UsageError: There is no problem, or an argument is out of its range.
    """

    def __init__(
        self, values: Floats, clusters: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0, level: float = 0.95
    ) -> None:
        if not clusters or draws < 1 or not 0 < level < 1:
            raise UsageError(
                f"expected at least one problem, one draw and a level between 0 and 1, got {len(clusters)} problems, "
                f"{draws} draws and the level {level:g}"
            )
        numbers: dict[Hashable, int] = {}
        members = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
        self._items, self._clusters, self._ends = len(members), len(numbers), [(1 - level) / 2, (1 + level) / 2]
        self._means: Floats = values.mean(axis=0)
        self._resampled: Floats | None = None
        if len(numbers) > 1:
            drawn = resample_weights(members, len(numbers), draws, seed)
            self._resampled = np.concatenate([times @ values / times.sum(axis=1, keepdims=True) for times in drawn])

    def interval(self, column: int, minus: int | None = None) -> Interval:
        """Return the mean of a column, or how much higher it is than another's, taken on the same problems."""
        value = float(self._means[column] - (0.0 if minus is None else self._means[minus]))
        if self._resampled is None:
            return Interval(value, None, None, self._items, self._clusters)
        values = self._resampled[:, column] - (0.0 if minus is None else self._resampled[:, minus])
        low, high = np.quantile(values, self._ends)
        return Interval(value, float(low), float(high), self._items, self._clusters)
