"""Prompts read into keys and values: each distinct one once, and of it only what no earlier text began with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from reasonflux_prm.policy.past import KeptPast
from reasonflux_prm.policy.prefixes import Prefixes

_SLACK = 16
"""Prompts are read together if the longest has at most twice as many new tokens as the shortest, and so many more."""

_Prompt = tuple[int, ...]


class PromptReader:
    """Reads prompts, and remembers them.

    Args:
        model: A `transformers` causal language model that `past.KeptPast` is for.
        shape: Its (2L, H, d), from `past.kept_shape`.
        pad: A token to fill up with.
        at_once: Most tokens to read in one pass.
        most_bytes: What is remembered may take so much; see `Prefixes`.
        device: Where the model is.
    """

    def __init__(
        self, model: Any, shape: tuple[int, int, int], pad: int, at_once: int, most_bytes: int, device: torch.device
    ) -> None:
        self._model, self._pad, self._at_once, self._device = model, pad, at_once, device
        self.shape = shape
        self.prefixes = Prefixes(most_bytes)

    def read(self, prompts: Sequence[Sequence[int]]) -> list[list[torch.Tensor]]:
        """Return each prompt's keys and values in pieces, (2L, H, T, d) each, in order."""
        known = {prompt: self.prefixes.find(prompt) for prompt in dict.fromkeys(map(tuple, prompts))}
        missing = {prompt: len(prompt) - sum(piece.shape[2] for piece in own) for prompt, own in known.items()}
        for group in self._groups(missing):
            for prompt, piece in zip(group, self._read(group, known, missing), strict=True):
                known[prompt].append(piece)
                self.prefixes.add(prompt, piece)
        return [known[tuple(prompt)] for prompt in prompts]

    def _groups(self, missing: dict[_Prompt, int]) -> Iterator[list[_Prompt]]:
        """Yield prompts to read together: all rows of a pass read as many tokens as the one with most to read."""
        group: list[_Prompt] = []
        most = 0
        for prompt, new in sorted(missing.items(), key=lambda item: -item[1]):
            if new and group and (2 * new + _SLACK < most or (len(group) + 1) * most > self._at_once):
                yield group
                group = []
            if new:
                most = most if group else new
                group.append(prompt)
        if group:
            yield group

    def _read(
        self, group: list[_Prompt], known: dict[_Prompt, list[torch.Tensor]], missing: dict[_Prompt, int]
    ) -> Iterator[torch.Tensor]:
        most = missing[group[0]]
        filled = [max(0, most - len(prompt)) for prompt in group]
        tokens = [[self._pad] * fill + [*prompt[-most:]] for fill, prompt in zip(filled, group, strict=True)]
        before = [list(_first(known[prompt], len(prompt) - most)) for prompt in group]
        past = KeptPast(self._model, self.shape, before, most, self._device)
        past.read_unscored(
            torch.tensor(tokens, device=self._device), torch.tensor(filled, device=self._device), self._at_once
        )
        for row, prompt in enumerate(group):
            yield past.written(row, missing[prompt]).clone()


def _first(pieces: Sequence[torch.Tensor], length: int) -> Iterator[torch.Tensor]:
    """Yield the pieces of the first `length` tokens; none if that is below 1."""
    for piece in pieces:
        if length > 0:
            yield piece[:, :, :length]
        length -= piece.shape[2]
