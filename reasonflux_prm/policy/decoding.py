"""The loop that writes: one token a row and round, until every row has come to its end.

Rows that have ended leave the batch, so that the longest text does not hold up the memory and the time of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from reasonflux_prm.policy.past import Past
from reasonflux_prm.policy.sampling import Row, RowSampler

_SHARE_TO_DROP = 8
"""Rows are dropped when one in so many has ended: each time, what the others have read is moved."""


def write(
    past: Past,
    rows: Sequence[Row],
    ends: Collection[int],
    decode: Callable[[list[int]], str],
    device: torch.device,
    *,
    closing: Callable[[], bool],
    ended: Callable[[Row, torch.Tensor | None], None],
) -> None:
    """Write every row.

    Args:
        past: Has read all but the last token of each row's prompt.
        rows: What to write; hold it afterwards.
        ends: Tokens that end a text.
        decode: From tokens to text.
        device: Where the model is.
        closing: Whether to stop at once, with the rows as they are.
        ended: Called for each row that has ended, with the keys and values (2L, H, T, d) of all its tokens but the
            last, or None; a view that is gone when the call is over.
    """
    live = list(rows)
    over = [False] * len(live)
    sampler = RowSampler(live, device)
    tokens = torch.tensor([row.prompt[-1:] for row in live], device=device)
    while not closing():
        chosen = sampler(past.read(tokens))
        for at, (row, token) in enumerate(zip(live, chosen.tolist(), strict=True)):
            if over[at]:
                continue
            row.written.append(token)
            if row.over(ends, decode):
                over[at] = True
                ended(row, past.written(at, len(row.prompt) + len(row.written) - 1))
        kept = [at for at, done in enumerate(over) if not done]
        if not kept:
            return
        tokens = chosen[:, None]
        if (len(live) - len(kept)) * _SHARE_TO_DROP >= len(live) and past.keep(kept):
            live, over = [live[at] for at in kept], [False] * len(kept)
            sampler, tokens = RowSampler(live, device), tokens[kept]
