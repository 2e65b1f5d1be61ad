"""How the sequences of one batch go on, each by its own settings.

`RowSampler` chooses the next token of every row, `Row.over` says where a row ends. Random numbers come from a stream of
the row's own, one number a token, so that they do not depend on what a row is batched with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch

_ROWS_AT_ONCE, _ENTRIES_AT_ONCE = 64, 2**26
"""Rows, or on a GPU entries, of the distributions that are sorted and summed together: bounds the memory they take."""
_LIKELIEST = 512
"""Tokens that are looked at first for `top_p`; sorting all of a large vocabulary takes as long as the model."""

Seen = tuple[int, float, tuple[tuple[int, float], ...]]
"""A token that was chosen, its logprob, and the alternatives with theirs, best first."""


@dataclass(eq=False, slots=True)
class Row:
    """One sequence to write, and what was written."""

    prompt: list[int]
    limit: int
    """Most tokens to write."""
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    logprobs: int | None
    """Alternatives to report, as `Request.top_logprobs`."""
    given_up: Callable[[], bool]
    stream: random.Random
    """Its random numbers."""
    written: list[int] = field(default_factory=list, init=False)
    seen: list[Seen] = field(default_factory=list, init=False)
    """One for each token written, if any row of the batch asks for logprobs."""
    broken: bool = field(default=False, init=False)
    """Whether the model gave something that is no number."""

    def over(self, ends: Collection[int], decode: Callable[[list[int]], str]) -> bool:
        """Whether the row ends with the last token written: at an end token, its limit or a stop text, or given up."""
        if len(self.written) >= self.limit or self.written[-1] in ends or self.broken or self.given_up():
            return True
        if not self.stop:
            return False
        # A token is at least one byte, and a text may begin in the middle of one.
        tail = max(len(text.encode()) for text in self.stop) + 4
        text = decode(self.written[-tail:])
        return any(stop in text for stop in self.stop)

    def reset(self) -> None:
        """Forget what was written."""
        self.written, self.seen, self.broken = [], [], False


class RowSampler:
    """Chooses each row's next token: the likeliest at temperature 0, else a drawn one.

    Args:
        rows: The batch's rows, in order.
        device: Where the model is.
    """

    def __init__(self, rows: Sequence[Row], device: torch.device) -> None:
        self._rows = rows
        self._device = device
        # MPS has no float64.
        self._exact = torch.float32 if device.type == "mps" else torch.float64
        self._temperature = torch.tensor([[row.temperature] for row in rows], device=device)
        self._top_p = torch.tensor([[row.top_p] for row in rows], device=device)
        self._greedy = [row.temperature == 0 for row in rows]
        self._is_cut = [row.top_p < 1 for row in rows]
        self._alternatives = max((row.logprobs for row in rows if row.logprobs is not None), default=None)

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the chosen tokens (B,) from scores (B, V)."""
        tokens = scores.argmax(dim=-1)
        if not all(self._greedy):
            numbers = torch.tensor([[row.stream.random()] for row in self._rows], dtype=self._exact).to(self._device)
            on_gpu = self._device.type == "cuda"
            at_once = max(1, _ENTRIES_AT_ONCE // scores.shape[1]) if on_gpu else _ROWS_AT_ONCE
            for start in range(0, len(self._rows), at_once):
                some = slice(start, start + at_once)
                if not all(self._greedy[some]):
                    tokens[some] = self._drawn(scores[some], tokens[some], some, numbers[some])
        for row, broken in zip(self._rows, scores.isnan().any(dim=-1).tolist(), strict=True):
            row.broken |= broken
        if self._alternatives is not None:
            self._note(scores, tokens)
        return tokens

    def _note(self, scores: torch.Tensor, tokens: torch.Tensor) -> None:
        """Keep the model's own logprobs (at temperature 1)."""
        assert self._alternatives is not None
        logprobs = scores.log_softmax(dim=-1)
        top = logprobs.topk(min(self._alternatives, scores.shape[1]), dim=-1)
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        noted = zip(self._rows, *(own.tolist() for own in (tokens, chosen, top.indices, top.values)), strict=True)
        for row, token, value, others, values in noted:
            if row.logprobs is not None:
                row.seen.append((token, value, tuple(zip(others, values, strict=True))[: row.logprobs]))

    def _drawn(self, scores: torch.Tensor, likeliest: torch.Tensor, some: slice, numbers: torch.Tensor) -> torch.Tensor:
        temperature, top_p = self._temperature[some], self._top_p[some]
        greedy = temperature == 0
        probabilities = (scores.float() / temperature.masked_fill(greedy, 1.0)).softmax(dim=-1)
        if any(self._is_cut[some]):
            probabilities, order = _descending(probabilities, top_p)
            before = probabilities.cumsum(dim=-1) - probabilities
            drawn = order.gather(1, _drawn_at(probabilities.masked_fill(before >= top_p, 0.0), numbers))
        else:
            drawn = _drawn_at(probabilities, numbers)
        return torch.where(greedy[:, 0], likeliest, drawn[:, 0])


def _descending(probabilities: torch.Tensor, top_p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the likeliest tokens in order, (B, k) each: as many as `top_p` can need."""
    if probabilities.shape[1] > _LIKELIEST:
        some, order = probabilities.topk(_LIKELIEST, dim=-1)
        if bool((some.sum(dim=-1, keepdim=True) > top_p).all()):
            return some, order
    return probabilities.sort(dim=-1, descending=True, stable=True)


def _drawn_at(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return (B, 1): where the running sum of each row's weights passes its number, in [0, 1), of their sum."""
    sums = weights.to(numbers.dtype).cumsum(dim=-1)
    return torch.searchsorted(sums, numbers * sums[:, -1:], right=True).clamp(max=weights.shape[1] - 1)
