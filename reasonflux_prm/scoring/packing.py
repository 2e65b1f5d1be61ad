"""Windows of many traces into packs: no padding, close to a token budget, the same packs whatever the order."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reasonflux_prm.prm.base import PackedBatch
from reasonflux_prm.scoring.windows import Window


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group items so that each group's lengths add up to at most `budget`; an item longer than that stands alone.

    First fit, longest first: every pack but the last few is nearly full, and the pass that needs most memory comes
    first.
    """
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    packs: list[list[int]] = []
    free: list[int] = []
    for number in order:
        length = lengths[number]
        place = next((p for p, room in enumerate(free) if room >= length), None)
        if place is None:
            packs.append([number])
            free.append(budget - length)
        else:
            packs[place].append(number)
            free[place] -= length
    return packs


def pack(windows: Sequence[Window]) -> PackedBatch:
    """Lay windows end to end."""
    tokens: list[int] = []
    starts = [0]
    reads: list[int] = []
    spans: list[tuple[int, int]] = []
    for window in windows:
        offset = len(tokens)
        tokens.extend(window.tokens)
        starts.append(len(tokens))
        reads.extend(offset + read.position for read in window.reads)
        spans.extend((offset + read.start, offset + read.stop) for read in window.reads)
    return PackedBatch(torch.tensor(tokens, dtype=torch.long), starts, torch.tensor(reads, dtype=torch.long), spans)
