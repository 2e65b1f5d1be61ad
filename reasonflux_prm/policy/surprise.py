"""How a causal language model reads what others wrote: the rank and the surprisal of every token of a turn.

One model, from a folder or the hub, by transformers. Short turns are read in batches, long ones piece by piece behind a
cache, so that the scores over the vocabulary never take more than `batch_tokens` rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.policy.model_files import ModelFiles

log = logging.getLogger(__name__)

CLIP: Final = 100
"""Largest rank that counts: the 0.5% of tokens that nobody would have thought of must not decide alone."""
BATCH_TOKENS: Final = {"cpu": 1024, "cuda": 8192}
DTYPES: Final = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Reading:
    """A turn as the model reads it behind its prompt."""

    tokens: int
    ranks: float
    """Sum over the tokens of their ranks, each from 1 to `CLIP`."""
    surprisal: float
    """Sum over the tokens of -log p, in nats."""


class SurpriseReader:
    """A model that reads turns. It is loaded when it first reads.

    Args:
        model: A folder, or an id on the hub.
        device: As torch names it; None takes a GPU if there is one.
        dtype: One of `DTYPES`.
        batch_tokens: Tokens that are read at once; None takes what suits the device.

    Raises:
        MissingExtra: transformers is not installed.
        UsageError: There is no such dtype.
        PolicyStopped: There is no such model.
    """

    def __init__(
        self, model: str, *, device: str | None = None, dtype: str = "float32", batch_tokens: int | None = None
    ) -> None:
        import torch

        if dtype not in DTYPES:
            raise UsageError(f"unknown dtype {dtype!r}; there are {', '.join(DTYPES)}")
        self._files = ModelFiles(model)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._dtype = dtype
        self._batch_tokens = batch_tokens or BATCH_TOKENS.get(self._device.type, BATCH_TOKENS["cpu"])
        self._model: Any = None

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self._files.name

    def identity(self) -> Mapping[str, Any]:
        """Return what the readings depend on besides the texts."""
        return {**self._files.identity(), "dtype": self._dtype, "clip": CLIP}

    def in_chat(self, problem: str, message: Mapping[str, str]) -> tuple[str, str] | None:
        """Return prompt and turn as the model's chat template writes them.

        None if it has no chat template, or one that does not begin the conversation as it begins the prompt.
        """
        tokenizer = self._files.tokenizer
        if not tokenizer.chat_template:
            return None
        asked = [{"role": "user", "content": problem}]
        prompt = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
        whole = str(tokenizer.apply_chat_template([*asked, dict(message)], tokenize=False))
        return (prompt, whole[len(prompt) :]) if whole.startswith(prompt) and len(whole) > len(prompt) else None

    def read(self, pairs: Sequence[tuple[str, str]]) -> list[Reading | None]:
        """Read turns, each behind its prompt.

        Args:
            pairs: Prompt and turn. Control tokens in them are control tokens.

        Returns:
            In order; None where prompt and turn do not fit into the context, the turn has no token, or the model gives
            what is no number.

        Raises:
            PolicyStopped: The model cannot be loaded.
        """
        rows = [self._tokens(*pair) for pair in pairs]
        found: list[Reading | None] = [None] * len(rows)
        good = [i for i, (prompt, turn) in enumerate(rows) if prompt and turn and len(prompt + turn) <= self._context]
        for batch in _batches(good, [len(prompt + turn) for prompt, turn in rows], self._batch_tokens):
            readings = self._read_batch([rows[i] for i in batch])
            for i, reading in zip(batch, readings, strict=True):
                found[i] = reading
        return found

    @property
    def _context(self) -> int:
        return self._files.context

    def _tokens(self, prompt: str, turn: str) -> tuple[list[int], list[int]]:
        tokenizer = self._files.tokenizer
        head = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        begin = tokenizer.bos_token_id
        if begin is not None and getattr(tokenizer, "add_bos_token", False) and head[:1] != [begin]:
            head = [begin, *head]
        return head, list(tokenizer(turn, add_special_tokens=False)["input_ids"])

    def _load(self) -> None:
        self._model = self._files.load(self._dtype, self._device)

    def _read_batch(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[Reading | None]:
        """Read rows padded on the right, which causal attention never sees; a long one comes alone, in pieces."""
        import torch

        if self._model is None:
            self._load()
        longest = max(len(prompt) + len(turn) for prompt, turn in rows)
        pad = self._files.pad_token
        tokens = torch.tensor([[*p, *t, *[pad] * (longest - len(p) - len(t))] for p, t in rows], device=self._device)
        ranks = torch.zeros(len(rows), dtype=torch.float64)
        surprisal = torch.zeros(len(rows), dtype=torch.float64)
        places = torch.arange(1, longest, device=self._device)
        begins = torch.tensor([len(prompt) for prompt, _ in rows], device=self._device)[:, None]
        ends = torch.tensor([len(prompt) + len(turn) for prompt, turn in rows], device=self._device)[:, None]
        counted = (places >= begins) & (places < ends)
        for start, logits in self._scores(tokens):
            stop = min(start + logits.shape[1], longest - 1)
            scores = logits[:, : stop - start].float()
            target = tokens[:, start + 1 : stop + 1, None]
            own = scores.gather(2, target)
            rank = (1 + (scores > own).sum(2)).clamp(max=CLIP)
            nll = scores.logsumexp(2) - own[..., 0]
            here = counted[:, start:stop]
            ranks += (rank * here).sum(1).double().cpu()
            # Where nothing is counted a padding row may hold anything.
            surprisal += torch.where(here, nll, 0).sum(1).double().cpu()
        readings = zip(rows, ranks.tolist(), surprisal.tolist(), strict=True)
        return [Reading(len(turn), r, s) if 0 <= s < float("inf") else None for (_, turn), r, s in readings]

    def _scores(self, tokens: Any) -> Iterator[tuple[int, Any]]:
        """Yield (start, logits (B, t, V)) of pieces of at most `batch_tokens` tokens in all."""
        import torch

        rows, longest = tokens.shape
        piece = max(1, self._batch_tokens // rows)
        past = None
        with torch.inference_mode():
            for start in range(0, longest - 1, piece):
                part = tokens[:, start : min(start + piece, longest - 1)]
                whole = start == 0 and part.shape[1] == longest - 1
                out = self._model(input_ids=part, past_key_values=past, use_cache=not whole)
                past = None if whole else out.past_key_values
                yield start, out.logits


def _batches(rows: Sequence[int], lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield rows of like lengths whose padded tokens fit; a longer one alone."""
    batch: list[int] = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
