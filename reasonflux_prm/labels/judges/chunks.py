"""Which steps a judge sees together: the whole trace, or overlapping chunks of one that is too long.

Every step is scored once, in the chunk where the most of what came before it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Chunk:
    """Positions in the list of a trace's shown steps: `earlier` and `later` are context around those to score."""

    earlier: range
    scored: range
    later: range


def chunk_steps(costs: Sequence[int], room: int, overlap: int, most: int) -> list[Chunk]:
    """Divide steps into chunks.

    Args:
        costs: Estimated tokens of each step.
        room: Most tokens of a chunk's steps, context counted. A single step that is longer has a chunk of its own.
        overlap: Tokens of context to leave room for before and behind the steps to score. What room a chunk has left
            over is filled with earlier steps too.
        most: Most steps to score in a chunk.

    Returns:
        Chunks whose `scored` follow one another and cover all steps.
    """
    sums = [0, *accumulate(costs)]
    chunks: list[Chunk] = []
    start = 0
    while start < len(costs):
        # What the trace does not have before its first or behind its last step needs no room.
        before = min(overlap, sums[start])
        stop = start + 1
        while stop < len(costs) and stop - start < most:
            behind = min(overlap, sums[-1] - sums[stop + 1])
            if before + sums[stop + 1] - sums[start] + behind > room:
                break
            stop += 1
        left = room - (sums[stop] - sums[start])
        later = _last_within(costs, stop, min(overlap, left - before))
        first = _first_within(costs, start, left - (sums[later] - sums[stop]))
        chunks.append(Chunk(range(first, start), range(start, stop), range(stop, later)))
        start = stop
    return chunks


def chunk_of_one(costs: Sequence[int], position: int, room: int, overlap: int) -> Chunk:
    """Return the chunk that scores a single step, with as much context as fits."""
    left = room - costs[position]
    later = _last_within(costs, position + 1, min(overlap, left))
    first = _first_within(costs, position, left - sum(costs[position + 1 : later]))
    return Chunk(range(first, position), range(position, position + 1), range(position + 1, later))


def _first_within(costs: Sequence[int], stop: int, room: int) -> int:
    """Return where the longest run of steps that ends before `stop` and fits into `room` starts."""
    start = stop
    while start > 0 and costs[start - 1] <= room:
        start -= 1
        room -= costs[start]
    return start


def _last_within(costs: Sequence[int], start: int, room: int) -> int:
    """Return where the longest run of steps from `start` that fits into `room` stops."""
    stop = start
    while stop < len(costs) and costs[stop] <= room:
        room -= costs[stop]
        stop += 1
    return stop
