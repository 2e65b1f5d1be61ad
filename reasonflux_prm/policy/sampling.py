"""How sequences of one batch are continued, each by its own settings, in `transformers` generation.

`RowSampler` chooses the next token of every row, `RowStops` ends rows. Random numbers come from a stream of the row's
own, one number a token, so that they do not depend on what a row is batched with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from reasonflux_prm.policy.base import TokenLogprob

_ROWS_AT_ONCE = 64
"""Rows whose distributions are sorted and summed together: bounds the memory that a large vocabulary takes."""


@dataclass(eq=False, slots=True)
class Row:
    """One sequence to write."""

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
    ended: int | None = field(default=None, init=False)
    """After how many tokens it met a stop text."""


class RowSampler:
    """A logits processor that leaves each row one token: the likeliest at temperature 0, else a drawn one.

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
        self._alternatives = max((row.logprobs for row in rows if row.logprobs is not None), default=None)
        # A step's chosen tokens and their logprobs (B, 1), and those of the alternatives, best first (B, k).
        self._seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.broken = torch.zeros(len(rows), dtype=torch.bool, device=device)
        """Rows whose model gave something that is no number."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores (B, V) that are 0 at the chosen tokens and minus infinity elsewhere."""
        self.broken |= scores.isnan().any(dim=-1)
        tokens = scores.argmax(dim=-1)  # (B,)
        if not all(self._greedy):
            numbers = torch.tensor([[row.stream.random()] for row in self._rows], dtype=self._exact).to(self._device)
            for start in range(0, len(self._rows), _ROWS_AT_ONCE):
                some = slice(start, start + _ROWS_AT_ONCE)
                if not all(self._greedy[some]):
                    tokens[some] = self._drawn(scores[some], tokens[some], some, numbers[some])
        if self._alternatives is not None:
            logprobs = scores.log_softmax(dim=-1)
            top = logprobs.topk(min(self._alternatives, scores.shape[1]), dim=-1)
            self._seen.append((tokens[:, None], logprobs.gather(1, tokens[:, None]), top.indices, top.values))
        return torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)

    def logprobs(self, word: Callable[[int], str]) -> list[list[TokenLogprob]] | None:
        """Return every row's tokens with the model's own logprobs (at temperature 1); None if no row asks for any.

        Args:
            word: From a token to its text.
        """
        if not self._seen:
            return None
        parts = (torch.stack(part, dim=1).tolist() for part in zip(*self._seen, strict=True))
        rows = zip(*parts, strict=True)
        return [
            [
                TokenLogprob(word(token), value, tuple((word(one), logprob) for one, logprob in zip(*top, strict=True)))
                for (token,), (value,), *top in zip(*row, strict=True)
            ]
            for row in rows
        ]

    def _drawn(self, scores: torch.Tensor, likeliest: torch.Tensor, some: slice, numbers: torch.Tensor) -> torch.Tensor:
        temperature, top_p = self._temperature[some], self._top_p[some]
        greedy = temperature == 0
        probabilities = (scores / temperature.masked_fill(greedy, 1.0)).softmax(dim=-1)
        if bool((top_p < 1).any()):
            probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
            before = probabilities.cumsum(dim=-1) - probabilities
            drawn = order.gather(1, _drawn_at(probabilities.masked_fill(before >= top_p, 0.0), numbers))
        else:
            drawn = _drawn_at(probabilities, numbers)
        return torch.where(greedy[:, 0], likeliest, drawn[:, 0])


def _drawn_at(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return (B, 1): where the running sum of each row's weights passes its number, in [0, 1), of their sum."""
    sums = weights.to(numbers.dtype).cumsum(dim=-1)
    return torch.searchsorted(sums, numbers * sums[:, -1:], right=True).clamp(max=weights.shape[1] - 1)


class RowStops:
    """A stopping criterion that ends each row at its own limit or stop text, or when nobody waits for it any more.

    Args:
        rows: The batch's rows, in order.
        start: Length of the padded prompts.
        decode: From tokens to text.
        device: Where the model is.
        closing: Whether everything should end.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        start: int,
        decode: Callable[[list[int]], str],
        device: torch.device,
        closing: Callable[[], bool],
    ) -> None:
        self._rows, self._start, self._decode, self._closing = rows, start, decode, closing
        self._limits = torch.tensor([row.limit for row in rows], device=device)
        self._given_up = torch.zeros(len(rows), dtype=torch.bool, device=device)
        self._with_stop = [index for index, row in enumerate(rows) if row.stop]
        # A token is at least one byte, and a text may begin in the middle of one.
        self._tail = max((len(text.encode()) for row in rows for text in row.stop), default=0) + 4

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Return which rows are done, (B,)."""
        written = input_ids.shape[1] - self._start
        done = self._limits <= written
        ended = [index for index in self._with_stop if self._meets_stop(index, input_ids, written)]
        given_up = [index for index, row in enumerate(self._rows) if row.given_up()] if not self._closing() else None
        if given_up is None:
            return torch.ones_like(done)
        if ended or given_up:
            done[ended + given_up] = True
        return done

    def _meets_stop(self, index: int, input_ids: torch.Tensor, written: int) -> bool:
        row = self._rows[index]
        if row.ended is None and written <= row.limit:
            text = self._decode(input_ids[index, -min(written, self._tail) :].tolist())
            if any(stop in text for stop in row.stop):
                row.ended = written
        return row.ended is not None
