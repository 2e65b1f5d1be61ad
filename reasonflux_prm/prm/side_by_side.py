"""Attention of many short sequences by few calls, for GPUs, on which starting a call takes longer than running it.

Sequences of like length are laid side by side, filled up at the end to the length of the longest. Attention is causal,
so no token of a sequence attends to what fills it up, and no mask is needed; what the filling attends to is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_FILLED: Final = 1.25
"""Tokens of a group, filled up, over its tokens."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences that follow one another."""

    start: int
    stop: int
    """Their tokens."""
    rows: Tensor
    """(B, L) int64: which token stands where; the filling repeats a sequence's last token."""
    places: Tensor
    """(stop - start,) int64: where in B * L each token stands."""


def groups(starts: Sequence[int], device: torch.device) -> list[Group]:
    """Return the sequences in groups of like length, in order.

    Args:
        starts: Offsets at which the sequences start, and T.
        device: Where attention runs.
    """
    found = []
    for spans in _runs([(a, b) for a, b in pairwise(starts) if b > a]):
        longest = max(b - a for a, b in spans)
        begin = torch.tensor([a for a, _ in spans])[:, None]
        lengths = torch.tensor([b - a for a, b in spans])[:, None]
        columns = torch.arange(longest)[None]
        places = (columns < lengths).flatten().nonzero()[:, 0]
        rows = begin + torch.minimum(columns, lengths - 1)
        found.append(Group(spans[0][0], spans[-1][1], rows.to(device), places.to(device)))
    return found


def _runs(spans: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    run: list[tuple[int, int]] = []
    longest = tokens = 0
    for start, stop in spans:
        length = stop - start
        if run and max(longest, length) * (len(run) + 1) > _MOST_FILLED * (tokens + length):
            yield run
            run, longest, tokens = [], 0, 0
        run.append((start, stop))
        longest, tokens = max(longest, length), tokens + length
    if run:
        yield run


def attend(q: Tensor, k: Tensor, v: Tensor, own: Sequence[Group]) -> Tensor:
    """Attend within each sequence, causally.

    Args:
        q: (T, heads, head_dim).
        k: (T, kv_heads, head_dim).
        v: As `k`.
        own: From `groups`.

    Returns:
        (T, heads, head_dim).
    """
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    shared = q.shape[1] // k.shape[1]
    # Flash attention, in half precision, reads keys that heads share once; the kernel for float32 must be shown copies.
    grouped = shared > 1 and q.dtype != torch.float32
    for group in own:
        rows = group.rows.to(q.device)
        keys, values = k[rows], v[rows]
        if shared > 1 and not grouped:
            keys, values = (x.repeat_interleave(shared, dim=2) for x in (keys, values))
        found = F.scaled_dot_product_attention(
            q[rows].transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            is_causal=True,
            enable_gqa=grouped,
        )
        out[group.start : group.stop] = found.transpose(1, 2).flatten(0, 1)[group.places.to(q.device)]
    return out
