"""What a model has read of the sequences of a batch: the keys and values that the next tokens attend to.

`KeptPast` is one block of memory for the whole batch, in which tokens are written in place, rows that have ended are
dropped, and what was read can be taken out for `policy.prefixes`. It is for models that keep keys and values of one
shape for every token in every layer, as Llama and Qwen do. `ModelsPast` is for all others (sliding windows, states of
linear attention): what the model itself keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers.cache_utils import Cache, DynamicLayer


class Past(Protocol):
    """The past of a batch; its rows are numbered as they stand in it now."""

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read the next token of every row, (B, 1); return the scores of the one after it, (B, V)."""

    def keep(self, rows: Sequence[int]) -> bool:
        """Drop all other rows; False if that cannot be done, and they stay."""

    def written(self, row: int, length: int) -> torch.Tensor | None:
        """Return keys and values (2L, H, T, d) of the last tokens of a row; None if they cannot be taken out."""


def kept_shape(model: Any, device: torch.device) -> tuple[int, int, int] | None:
    """Return (2L, H, d) of a model that `KeptPast` is for; None of any other."""
    with torch.inference_mode():
        past = model.base_model(torch.zeros((1, 1), dtype=torch.long, device=device), use_cache=True).past_key_values
    layers = getattr(past, "layers", [])
    if not layers or any(type(layer) is not DynamicLayer or layer.keys is None for layer in layers):
        return None
    shapes = {tuple(tensor.shape) for layer in layers for tensor in (layer.keys, layer.values)}
    if len(shapes) > 1 or len(next(iter(shapes))) != 4:
        return None
    _, heads, _, size = shapes.pop()
    return 2 * len(layers), heads, size


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """One layer of a `KeptPast`."""

    def __init__(self, past: KeptPast, number: int) -> None:
        super().__init__()
        self._past, self._number = past, number
        self.is_initialized = True

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        block, start = self._past.block, self._past.length
        stop = start + keys.shape[2]
        own = block[2 * self._number : 2 * self._number + 2, :, :, :stop]
        own[0, :, :, start:], own[1, :, :, start:] = keys, values
        return own[0], own[1]

    def get_seq_length(self) -> int:
        return self._past.length


class KeptPast:
    """The past of a batch in one block of memory.

    Args:
        model: A `transformers` causal language model.
        shape: (2L, H, d), from `kept_shape`.
        rows: For each row the pieces, each (2L, H, T, d), of what is known of it already, in order.
        room: Tokens that may still come.
        device: Where the model is.
    """

    def __init__(
        self,
        model: Any,
        shape: tuple[int, int, int],
        rows: Sequence[Sequence[torch.Tensor]],
        room: int,
        device: torch.device,
    ) -> None:
        known = [sum(piece.shape[2] for piece in pieces) for pieces in rows]
        self.length = max(known)
        """Tokens of the longest row; shorter ones are filled up at the left."""
        layers, heads, size = shape
        self.block = torch.empty((layers, len(rows), heads, self.length + room, size), dtype=model.dtype, device=device)
        self._mask = torch.ones((len(rows), self.length + room), dtype=torch.long, device=device)
        for row, (pieces, own) in enumerate(zip(rows, known, strict=True)):
            at = self.length - own
            self._mask[row, :at] = 0
            # Nothing attends there, but a product of zero and what is no number is none.
            self.block[:, row, :, :at] = 0
            for piece in pieces:
                self.block[:, row, :, at : at + piece.shape[2]] = piece
                at += piece.shape[2]
        self._model = model
        self._places = torch.tensor([[own] for own in known], device=device)
        self._cache = Cache(layers=[_Layer(self, number) for number in range(layers // 2)])

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read the next token of every row, (B, 1); return the scores of the one after it, (B, V)."""
        scores: torch.Tensor = self._forward(self._model, tokens).logits[:, -1]
        return scores

    def read_unscored(self, tokens: torch.Tensor, filled: torch.Tensor, at_once: int) -> None:
        """Read tokens (B, T) of which the first `filled` (B,) of every row are filled up, and no part of it."""
        rows, count = tokens.shape
        self._mask[:, self.length : self.length + count] = torch.arange(count, device=tokens.device) >= filled[:, None]
        self._places = self._places - filled[:, None]
        chunk = max(1, at_once // rows)
        for start in range(0, count, chunk):
            self._forward(self._model.base_model, tokens[:, start : start + chunk])

    def keep(self, rows: Sequence[int]) -> bool:
        """Drop all other rows. `rows` ascend, so that moving one in place overwrites none that is needed."""
        for to, row in enumerate(rows):
            if to != row:
                self.block[:, to, :, : self.length] = self.block[:, row, :, : self.length]
        self.block = self.block[:, : len(rows)]
        self._mask, self._places = self._mask[list(rows)], self._places[list(rows)]
        return True

    def written(self, row: int, length: int) -> torch.Tensor:
        """Return keys and values (2L, H, T, d) of the last tokens of a row, a view."""
        return self.block[:, row, :, self.length - length : self.length]

    def _forward(self, model: Any, tokens: torch.Tensor) -> Any:
        stop = self.length + tokens.shape[1]
        places = self._places + torch.arange(tokens.shape[1], device=tokens.device)
        found = model(
            input_ids=tokens,
            attention_mask=self._mask[:, :stop],
            position_ids=places.clamp(min=0),
            past_key_values=self._cache,
            use_cache=True,
        )
        self.length, self._places = stop, self._places + tokens.shape[1]
        return found


class ModelsPast:
    """The past of a batch as the model keeps it; prompts that are the same are read once.

    Args:
        model: A `transformers` causal language model.
        prompts: Of every row, all that is to be read before the first `read`.
        pad: A token to fill up with.
        at_once: Tokens of the prompts to read at once.
        device: Where the model is.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], pad: int, at_once: int, device: torch.device
    ) -> None:
        self._model, self._past = model, None
        distinct: dict[tuple[int, ...], int] = {}
        first = [distinct.setdefault(tuple(prompt), len(distinct)) for prompt in prompts]
        length = max(map(len, distinct))
        filled = [length - len(prompt) for prompt in distinct]
        tokens = torch.tensor(
            [[pad] * fill + [*prompt] for fill, prompt in zip(filled, distinct, strict=True)], dtype=torch.long
        )
        mask = torch.tensor(
            [[0] * fill + [1] * len(prompt) for fill, prompt in zip(filled, distinct, strict=True)], dtype=torch.long
        )
        tokens, self._mask = tokens.to(device), mask.to(device)
        self._places = (self._mask.cumsum(dim=-1) - 1).clamp(min=0)
        chunk = max(1, at_once // len(distinct))
        for start in range(0, length, chunk):
            stop = min(start + chunk, length)
            self._past = model.base_model(
                input_ids=tokens[:, start:stop],
                attention_mask=self._mask[:, :stop],
                position_ids=self._places[:, start:stop],
                past_key_values=self._past,
                use_cache=True,
            ).past_key_values
        self._places = self._places[:, -1:] if length else torch.full((len(distinct), 1), -1, device=device)
        self.keep(first)

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read the next token of every row, (B, 1); return the scores of the one after it, (B, V)."""
        self._mask = torch.cat([self._mask, torch.ones_like(tokens)], dim=1)
        self._places = self._places + 1
        found = self._model(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=self._places,
            past_key_values=self._past,
            use_cache=True,
        )
        self._past = found.past_key_values
        scores: torch.Tensor = found.logits[:, -1]
        return scores

    def keep(self, rows: Sequence[int]) -> bool:
        """Drop all other rows, and take a row as often as it is named."""
        index = torch.tensor(list(rows), device=self._mask.device)
        if self._past is not None:
            self._past.reorder_cache(index)
        self._mask, self._places = self._mask[index], self._places[index]
        return True

    def written(self, row: int, length: int) -> None:
        """Return None: what such a model keeps cannot be taken apart."""
        return
