"""What a PRM's rewards tell apart within a problem: the area under the ROC curve, and how often each rank is right.

A PRM can order a problem's candidates well and still choose badly: where its highest reward is an outlier's, rank 1 is
right less often than rank 4, and best-of-N falls as N grows, while a vote weighted by the same rewards gains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reasonflux_prm.evaluation.candidates import ProblemCandidates
from reasonflux_prm.evaluation.intervals import DRAWS, Interval, interval_row
from reasonflux_prm.evaluation.metrics import Floats, auc
from reasonflux_prm.evaluation.resampled_means import ResampledMeans


@dataclass(frozen=True, slots=True)
class Ranks:
    """One PRM's rewards, within problems."""

    prm: str
    right: tuple[Interval, ...]
    """Share of the candidates with the highest reward of their problem that are right, with the second highest, and so
    on, as far as every problem has candidates. Equal rewards share their ranks; without a reward is last."""
    area: Interval | None
    """Mean over problems of the share of (right, wrong) pairs that the rewards order rightly, ties counted half; of
    problems that have both with rewards. None if there are none."""

    def row(self) -> dict[str, Any]:
        """Return these as JSON values."""
        return {
            "prm": self.prm,
            "area_within_problems": None if self.area is None else interval_row(self.area),
            "problems_with_both": 0 if self.area is None else self.area.n,
            "right": [interval_row(own) for own in self.right],
        }


def ranks_of(
    problems: Sequence[ProblemCandidates], prm: str, *, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> Ranks:
    """Return what the rewards of a PRM tell apart within problems.

    Args:
        problems: At least one. A verdict that is unknown counts as not right.
        prm: The PRM's name.
        draws: Resamples of the bootstrap, by cluster of problems.
        seed: Of the resamples.
        level: Of the intervals.
    """
    depth = min(problem.n for problem in problems)
    by_rank = np.array([_by_rank(problem, prm)[:depth] for problem in problems])
    means = ResampledMeans(by_rank, [problem.cluster for problem in problems], draws=draws, seed=seed, level=level)
    areas = [(problem.cluster, area) for problem in problems if (area := _area(problem, prm)) is not None]
    mean: Interval | None = None
    if areas:
        clusters, values = zip(*areas, strict=True)
        column = np.array(values)[:, None]
        mean = ResampledMeans(column, clusters, draws=draws, seed=seed, level=level).interval(0)
    return Ranks(prm, tuple(means.interval(rank) for rank in range(depth)), mean)


def _rewards(problem: ProblemCandidates, prm: str) -> Sequence[float | None]:
    return problem.rewards.get(prm, (None,) * problem.n)


def _by_rank(problem: ProblemCandidates, prm: str) -> Floats:
    """Return how right each rank is, (n,): the mean over the orders of candidates with equal rewards."""
    scores = np.array([-math.inf if reward is None else reward for reward in _rewards(problem, prm)])
    right = np.array([verdict is True for verdict in problem.correct], dtype=np.float64)
    _, inverse, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    shares: Floats = np.bincount(inverse, right) / counts
    return np.repeat(shares, counts)


def _area(problem: ProblemCandidates, prm: str) -> float | None:
    pairs = [(r, verdict is True) for r, verdict in zip(_rewards(problem, prm), problem.correct, strict=True)]
    known = [(reward, right) for reward, right in pairs if reward is not None]
    return auc(*zip(*known, strict=True)) if known else None
