"""From an index of the pool to the traces that are kept: duplicates, threshold, the student, quotas, the number.

The order is that of `reasons.Reason`: a trace that is left out early fills no quota later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.selection.coverage import Vectors, cover
from reasonflux_prm.selection.duplicates import Signatures, drop_duplicates
from reasonflux_prm.selection.index import Index, Places
from reasonflux_prm.selection.reasons import Reason
from reasonflux_prm.selection.settings import Selection

AMONG = 10
"""Candidates for each trace that diversity is to choose, if nothing else is said,"""
MOST = 20_000
"""and how many there are at most: their vectors are held, and compared with each other."""

Surprise = Callable[[Places], NDArray[np.float64]]
"""Rank-surprisal ratios of traces, NaN where the student cannot read one; see `student`."""
Encode = Callable[[Places], Vectors]
"""Vectors of traces."""


def choose(
    index: Index,
    settings: Selection,
    signatures: Signatures | None = None,
    surprise: Surprise | None = None,
    encode: Encode | None = None,
) -> None:
    """Say of every trace that nothing speaks against yet whether it is kept, and give the kept ones their ranks.

    Args:
        index: Frozen; its codes and ranks are written.
        settings: What is asked.
        signatures: Of the traces, where near-duplicates are to go.
        surprise: Has the student read traces, where it has a say.
        encode: Encodes traces, where diversity is asked for.
    """
    if not settings.filters.duplicates:
        drop_duplicates(index)
    if signatures is not None:
        signatures.drop_near(index)
    if settings.threshold is not None:
        alive = index.ranked()
        index.drop(alive[index.score[alive] < settings.threshold], Reason.BELOW)
    ranked = index.ranked()
    number = _number(settings, len(ranked))
    if surprise is not None:
        _ask_student(index, settings, surprise)
        ranked = index.ranked()
    quota = _Quota(index, settings)
    if encode is None:
        kept = _walk(ranked, number, quota, index)
    else:
        kept = _cover(ranked, number, quota, index, settings, encode)
    index.rank[kept] = np.arange(1, len(kept) + 1)


def _number(settings: Selection, alive: int) -> int:
    if settings.top is not None:
        return settings.top
    return alive if settings.share is None else max(1, round(settings.share * alive)) if alive else 0


def _ask_student(index: Index, settings: Selection, surprise: Surprise) -> None:
    """Blend the student's part into the scores of the candidates, and leave out all others."""
    from reasonflux_prm.selection.student import blended

    assert settings.student is not None  # Selection.check
    ranked = index.ranked()
    if settings.candidates is not None:
        index.drop(ranked[settings.candidates :], Reason.NOT_READ)
        ranked = ranked[: settings.candidates]
    ratios = surprise(ranked)
    index.drop(ranked[~np.isfinite(ratios)], Reason.STUDENT)
    ranked, ratios = ranked[np.isfinite(ratios)], ratios[np.isfinite(ratios)]
    weight = 1.0 if settings.by == "student" else settings.student.weight
    index.score = index.reward.copy()
    index.score[ranked] = blended(index.reward[ranked], ratios, weight)


class _Quota:
    """Counts values of columns; a trace is let in if none of its values is full."""

    def __init__(self, index: Index, settings: Selection) -> None:
        self._limits = [(index.quota[column], most) for column, most in settings.quotas.items()]
        self._taken: list[Counter[int]] = [Counter() for _ in self._limits]

    def admits(self, place: int) -> bool:
        """Whether a trace is let in; it is counted if it is."""
        keys = [int(values[place]) for values, _ in self._limits]
        limits = zip(keys, self._taken, self._limits, strict=True)
        if any(taken[key] >= most for key, taken, (_, most) in limits):
            return False
        for key, taken in zip(keys, self._taken, strict=True):
            taken[key] += 1
        return True


def _walk(ranked: Places, number: int, quota: _Quota, index: Index) -> Places:
    """Keep the best-ranked that the quotas let in."""
    kept: list[int] = []
    full: list[int] = []
    for place in ranked.tolist():
        if len(kept) == number:
            break
        (kept if quota.admits(place) else full).append(place)
    index.drop(np.array(full, np.int64), Reason.QUOTA)
    index.drop(ranked[len(kept) + len(full) :], Reason.RANK)
    return np.array(kept, np.int64)


def _cover(ranked: Places, number: int, quota: _Quota, index: Index, settings: Selection, encode: Encode) -> Places:
    """Keep those of the best-ranked that cover the others, as far as the quotas let them in."""
    assert settings.diversity is not None  # Selection.check
    most = settings.candidates or max(number, min(AMONG * number, MOST))
    index.drop(ranked[most:], Reason.NOT_READ)
    ranked = ranked[:most]
    full: list[int] = []

    def allowed(row: int) -> bool:
        if quota.admits(int(ranked[row])):
            return True
        full.append(row)
        return False

    rows = cover(encode(ranked), number, settings.diversity.how, allowed)
    left = np.ones(len(ranked), bool)
    left[rows] = False
    index.drop(ranked[left], Reason.RANK)
    index.drop(ranked[full], Reason.QUOTA)
    return ranked[rows]
