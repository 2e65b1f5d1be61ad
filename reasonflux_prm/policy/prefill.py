"""Prompts that several rows of a batch share are read once.

The samples of one request have one prompt, and in a search step by step that is all that was written so far: reading it
anew for each of them would cost more than the step.
"""

from __future__ import annotations

from typing import Any

import torch


def shared_past(model: Any, tokens: torch.Tensor, mask: torch.Tensor, at_once: int) -> Any | None:
    """Return the keys and values of all but the last token of every row, for `generate`; None if no two rows are alike.

    Args:
        model: A `transformers` causal language model.
        tokens: (B, T), filled up at the left.
        mask: (B, T), 0 where filled up.
        at_once: Tokens of the prompts to read at once.
    """
    rows, length = tokens.shape
    distinct: dict[tuple[int, ...], int] = {}
    first = [distinct.setdefault(tuple(row), number) for number, row in enumerate(tokens.tolist())]
    if len(distinct) == rows or length < 2:
        return None
    kept = list(distinct.values())
    tokens, mask = tokens[kept], mask[kept]
    places = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    past: Any = None
    chunk = max(1, at_once // len(kept))
    for start in range(0, length - 1, chunk):
        stop = min(start + chunk, length - 1)
        past = model.base_model(
            input_ids=tokens[:, start:stop],
            attention_mask=mask[:, :stop],
            position_ids=places[:, start:stop],
            past_key_values=past,
            use_cache=True,
        ).past_key_values
    if not hasattr(past, "reorder_cache"):
        return None
    place = {number: at for at, number in enumerate(kept)}
    past.reorder_cache(torch.tensor([place[number] for number in first], device=tokens.device))
    return past
