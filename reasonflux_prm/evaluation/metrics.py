"""Statistics of weighted items, and the labelled steps of scored traces.

A statistic takes weights, one for each of N items, in many resamples at once: (D, N) in, (D,) out. With all weights 1
it is the plain statistic; with the number of times each item was drawn it is that of a bootstrap resample, so
`intervals` needs to know nothing of what it resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasonflux_prm.errors import UsageError
from reasonflux_prm.records import ScoredTrace, Status

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Weights (D, N), each 0 or more, to values (D,); NaN where the statistic has no value."""


def weighted_mean(values: ArrayLike) -> Statistic:
    """Return the statistic `mean of values`.

    Args:
        values: (N,).

    Raises:
        UsageError: There is no value, or not in one row.
    """
    items = _row(values, "values")

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            mean: Floats = weights @ items / weights.sum(axis=1)
        return mean

    return statistic


def weighted_auc(scores: ArrayLike, labels: ArrayLike) -> Statistic:
    """Return the statistic `share of (right, wrong) pairs that the scores order rightly`, ties counted half.

    It is the area under the ROC curve, and the Mann-Whitney U divided by the number of pairs. It has no value without
    a right and a wrong item.

    Args:
        scores: (N,) higher for more likely right.
        labels: (N,) true or 1 for right, false or 0 for wrong.

    Raises:
        UsageError: There is no item, the lengths differ, a score is not finite, or a label is neither 0 nor 1.
    """
    values, right = _row(scores, "scores"), _row(labels, "labels")
    if len(values) != len(right):
        raise UsageError(f"expected one label for each score, got {len(values)} scores and {len(right)} labels")
    if not np.isfinite(values).all():
        raise UsageError("expected finite scores, got NaN or infinity; leave out what could not be scored")
    if not np.isin(right, (0, 1)).all():
        raise UsageError("expected labels of 0 and 1; leave out the items without one")
    order = np.argsort(values, kind="stable")
    _, ties = np.unique(values[order], return_index=True)
    right = right[order]

    def statistic(weights: Floats) -> Floats:
        sorted_weights = weights[:, order]
        good = np.add.reduceat(sorted_weights * right, ties, axis=1)
        bad = np.add.reduceat(sorted_weights * (1 - right), ties, axis=1)
        below = np.cumsum(bad, axis=1) - bad
        pairs = good.sum(axis=1) * bad.sum(axis=1)
        with np.errstate(invalid="ignore"):
            share: Floats = (good * (below + bad / 2)).sum(axis=1) / pairs
        return share

    return statistic


def auc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Return the area under the ROC curve; None without a right and a wrong item. See `weighted_auc`."""
    statistic = weighted_auc(scores, labels)
    value = float(statistic(np.ones((1, np.size(scores))))[0])
    return None if np.isnan(value) else value


@dataclass(frozen=True, slots=True)
class LabelledSteps:
    """One trace whose steps came with the record: what the PRM says of each, and what is known of it."""

    trace: ScoredTrace
    rewards: tuple[float | None, ...]
    """One for each of `trace.trace.steps`; None where the PRM gave none."""
    labels: tuple[bool | None, ...]
    """True for a good step, False for a wrong one, None where nobody looked."""

    @property
    def first_error(self) -> int | None:
        """Return the index of the first wrong step; None if no step is wrong."""
        return self.labels.index(False) if False in self.labels else None

    def known(self) -> list[tuple[int, float, bool]]:
        """Return index, reward and label of the steps that have both."""
        rows = enumerate(zip(self.rewards, self.labels, strict=True))
        return [(index, r, y) for index, (r, y) in rows if r is not None and y is not None]


def labelled_steps(traces: Iterable[ScoredTrace], threshold: float = 0.5) -> list[LabelledSteps]:
    """Put the rewards of the step rule `given` beside the labels that came with the record.

    Traces that are not scored or came without labels are left out. A step is found by where it begins, so steps that
    were split further give the reward of their first part: use the rule `given`.

    Args:
        traces: Scored with the step rule `given`.
        threshold: A label of at least this is good.
    """
    found = []
    for scored in traces:
        trace = scored.trace
        if scored.status is not Status.SCORED or not trace.step_labels:
            continue
        rewards = {(s.part, s.start): r for s, r in zip(scored.steps, scored.step_rewards, strict=True)}
        labels = tuple(None if label is None else label >= threshold for label in trace.step_labels)
        found.append(LabelledSteps(scored, tuple(rewards.get((s.part, s.start)) for s in trace.steps), labels))
    return found


def _row(values: ArrayLike | Sequence[float], what: str) -> Floats:
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or not row.size:
        raise UsageError(f"expected {what} as one row of at least one number, got the shape {row.shape}")
    return row
