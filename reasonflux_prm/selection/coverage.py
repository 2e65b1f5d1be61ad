"""A few traces that cover many: greedy choice over unit vectors, in memory that grows with the candidates alone.

`facility`: facility location, f(S) = sum over the candidates i of max over j in S of max(0, cos(i, j)); monotone and
submodular, so the greedy choice reaches 1 - 1/e of the best (Nemhauser et al., 1978), and gains only ever fall, so a
gain is computed anew only when it might be the largest (Minoux, 1978). `k-center`: each time the candidate farthest
from all chosen (Gonzalez, 1985). Ties and the first of k-center go to the better-ranked. A candidate without a
direction (NaN) covers nothing and is taken last.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.selection.settings import Coverage

Vectors = NDArray[np.float32]
Allowed = Callable[[int], bool]
"""Whether a candidate may be taken; called once for each, when it would be, and counts it if so."""
_BLOCK = 256
"""Rows of a block of similarities: block by candidates is all that is held at once."""


def cover(vectors: Vectors, number: int, how: Coverage, allowed: Allowed = lambda _: True) -> list[int]:
    """Choose candidates.

    Args:
        vectors: (M, d) unit rows, the best-ranked candidate first; NaN rows have no direction.
        number: How many to choose; fewer are returned if there are fewer that may be.
        how: See the module.
        allowed: Quotas.

    Returns:
        The chosen rows, in the order of choice.
    """
    blank: NDArray[np.bool_] = np.logical_not(np.isfinite(vectors).all(axis=1))
    clean = np.where(blank[:, None], np.float32(0), vectors)
    return (_facility if how == "facility" else _k_center)(clean, blank, number, allowed)


def _facility(vectors: Vectors, blank: NDArray[np.bool_], number: int, allowed: Allowed) -> list[int]:
    covered = np.zeros(len(vectors), np.float32)
    gains = np.concatenate(
        [
            np.maximum(vectors[start : start + _BLOCK] @ vectors.T, 0).sum(axis=1, dtype=np.float64)
            for start in range(0, len(vectors), _BLOCK)
        ]
        or [np.zeros(0)]
    )
    gains[blank] = -1.0
    # By gain, then rank; `round_` says how many were chosen when the gain was computed.
    heap = [(-gain, row, 0) for row, gain in enumerate(gains.tolist())]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < number:
        _, row, round_ = heapq.heappop(heap)
        if round_ == len(chosen) or blank[row]:
            if allowed(row):
                chosen.append(row)
                covered = np.maximum(covered, vectors @ vectors[row])
            continue
        gain = float(np.maximum(vectors @ vectors[row] - covered, 0).sum(dtype=np.float64))
        heapq.heappush(heap, (-gain, row, len(chosen)))
    return chosen


def _k_center(vectors: Vectors, blank: NDArray[np.bool_], number: int, allowed: Allowed) -> list[int]:
    # Of unit vectors the farthest is the one with the least cosine; so far none is chosen, and all are alike.
    nearest = np.full(len(vectors), -2.0, np.float32)
    nearest[blank] = 2.0
    done = np.zeros(len(vectors), bool)
    chosen: list[int] = []
    while len(chosen) < number and not done.all():
        row = int(np.argmin(np.where(done, np.inf, nearest)))
        done[row] = True
        if allowed(row):
            chosen.append(row)
            nearest = np.where(blank, nearest, np.maximum(nearest, vectors @ vectors[row]))
    return chosen
