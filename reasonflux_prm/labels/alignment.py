"""How well thinking steps agree with the response: cosines of a thinking step and the response steps matched to it.

The paper prints

    r_t^align = sim(Phi(s_t), Phi(a_t)),    sim = cosine, Phi = a pretrained text encoder

(arXiv 2506.18896) with one index for both texts, but a thinking trajectory of T steps and a response of M steps rarely
have T = M, and what is done then is not said. The four functions are four readings of a_t; `index` is the literal one.
Each takes unit rows and gives values in [-1, 1] (in practice mostly 0 to 1), higher for better agreement.

T thinking steps, M response steps, d dimensions. Memory is linear in T + M but for `alignment_dtw`, which keeps two
bits for every pair of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Values = NDArray[np.float64]

_ROWS = 128
"""Thinking steps compared with the whole response at once."""
_UNITS = 1 << 20
"""Costs of `alignment_dtw` are whole numbers of 1/_UNITS: sums are exact, so ties are ties on every machine."""


def alignment_max(thinking: Vectors, response: Vectors) -> Values:
    """Return the cosine of each thinking step and the response step that is closest to it.

        r_t = max_j cos(s_t, a_j)

    Departs from the paper's a_t: the order of the response steps plays no role.

    Args:
        thinking: (T, d) unit rows.
        response: (M, d) unit rows, M at least 1.

    Returns:
        (T,)
    """
    highest = [block.max(axis=1) for block in _similarities(thinking, response)]
    return _cosines(np.concatenate(highest) if highest else np.empty(0))


def alignment_index(thinking: Vectors, response: Vectors) -> Values:
    """Return the cosine of each thinking step and the response step of the same number: the paper's equation.

        r_t = cos(s_t, a_min(t, M))

    Thinking steps behind the M-th are compared with the last response step, which the paper leaves open.

    Args and Returns: see `alignment_max`.
    """
    steps = np.arange(len(thinking))
    return _matched(thinking, response, steps, np.minimum(steps, len(response) - 1))


def alignment_proportional(thinking: Vectors, response: Vectors) -> Values:
    """Return the cosine of each thinking step and the response step as far along in its text.

        r_t = cos(s_t, a_ceil(t M / T)),    t = 1 .. T

    With T = M it is the paper's equation.

    Args and Returns: see `alignment_max`.
    """
    steps = np.arange(len(thinking))
    if not len(steps):
        return np.empty(0)
    return _matched(thinking, response, steps, -(-(steps + 1) * len(response) // len(steps)) - 1)


def alignment_dtw(thinking: Vectors, response: Vectors) -> Values:
    """Return the highest cosine of each thinking step and the response steps that dynamic time warping matches to it.

    A path goes from (s_1, a_1) to (s_T, a_M); each move goes on by one step in the thinking, in the response, or in
    both, so it never turns back and leaves out no step. The path P with the smallest sum of 1 - cos is taken (of equal
    ones: both rather than thinking alone rather than response alone), and

        r_t = max over (t, j) in P of cos(s_t, a_j)

    The distance is summed, not the similarity, because every further pair would add to a sum of similarities, and the
    longest path would win. The highest cosine is taken, not the mean, because a path must pass every response step: a
    thinking step is not to blame for what it has to pass. So r_t is never above `alignment_max`.

    Args and Returns: see `alignment_max`.
    """
    if not len(thinking):
        return np.empty(0)
    first, last = _warp(thinking, response)
    counts = last - first + 1
    starts = np.cumsum(counts) - counts
    steps = np.repeat(np.arange(len(thinking)), counts)
    partners = np.arange(counts.sum()) - np.repeat(starts - first, counts)
    highest: Values = np.maximum.reduceat(_matched(thinking, response, steps, partners), starts)
    return highest


ALIGNMENTS: dict[str, Callable[[Vectors, Vectors], Values]] = {
    "alignment_max": alignment_max,
    "alignment_index": alignment_index,
    "alignment_proportional": alignment_proportional,
    "alignment_dtw": alignment_dtw,
}
"""By the name of the term that each gives."""


def _similarities(thinking: Vectors, response: Vectors) -> Iterator[Vectors]:
    for start in range(0, len(thinking), _ROWS):
        yield thinking[start : start + _ROWS] @ response.T


def _matched(thinking: Vectors, response: Vectors, steps: NDArray[np.int64], partners: NDArray[np.int64]) -> Values:
    """Return the cosines of the pairs (steps[i], partners[i])."""
    found = np.empty(len(steps), np.float32)
    for start in range(0, len(steps), _ROWS):
        block = slice(start, start + _ROWS)
        found[block] = np.einsum("nd,nd->n", thinking[steps[block]], response[partners[block]])
    return _cosines(found)


def _cosines(values: NDArray[np.floating]) -> Values:
    # Unit rows in float32 have products a little above 1.
    return np.clip(values.astype(np.float64), -1.0, 1.0)


def _warp(thinking: Vectors, response: Vectors) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last response step that the best path matches to each thinking step, (T,) each."""
    # One row of the table of path costs at a time. Within a row, moves in the response alone add up distances, so the
    # cost at j is the smallest, over the k <= j where the row is entered, of (cost to enter at k) + distances k .. j.
    sideways, both = [], []  # packed bits for each cell: came from the left; entered by a move in both texts
    costs = None
    for block in _similarities(thinking, response):
        for distances in np.rint((1.0 - block.astype(np.float64)) * _UNITS).astype(np.int64):
            until = np.cumsum(distances)
            if costs is None:
                costs = until
                sideways.append(np.packbits(np.arange(len(until)) > 0))
                both.append(np.packbits(np.zeros(len(until), bool)))
                continue
            entry = costs.copy()
            np.minimum(entry[1:], costs[:-1], out=entry[1:])
            diagonal = np.zeros(len(entry), bool)
            diagonal[1:] = costs[:-1] <= costs[1:]
            offsets = entry - (until - distances)
            lowest = np.minimum.accumulate(offsets)
            sideways.append(np.packbits(lowest < offsets))
            both.append(np.packbits(diagonal))
            costs = until + lowest
    return _trace_back(sideways, both, len(response))


def _trace_back(
    sideways: list[NDArray[np.uint8]], both: list[NDArray[np.uint8]], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, last = np.empty(len(both), np.int64), np.empty(len(both), np.int64)
    at = width - 1
    for row in range(len(both) - 1, -1, -1):
        last[row] = at
        while _bit(sideways[row], at):
            at -= 1
        first[row] = at
        at -= _bit(both[row], at)
    return first, last


def _bit(packed: NDArray[np.uint8], index: int) -> int:
    return int(packed[index >> 3]) >> (7 - (index & 7)) & 1
