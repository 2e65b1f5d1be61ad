"""Texts into unit vectors by a sentence-transformers model: each distinct text once, nothing cut off in silence."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reasonflux_prm.errors import CheckpointError, MissingExtra, UsageError
from reasonflux_prm.labels.embedding_cache import EmbeddingCache
from reasonflux_prm.labels.encoder_files import EMBEDDED, INSTALL, fingerprint, locate_encoder
from reasonflux_prm.policy.model_files import LOADING

log = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Found = Mapping[str, tuple[Vectors, int]]
"""Text to its vector and chunks."""

_BATCH_TOKENS = {"cpu": 1024}
_BATCH_TOKENS_GPU = 16_384
_OVERLAP = 0.25
"""Of a chunk, shared with the next."""
_SPARE_TOKENS = 8
"""Left free in a chunk: a text cut out of another may have a few more tokens than it had there."""
_SMALLEST_WINDOW = 4 * _SPARE_TOKENS
_RULE = "mean of overlapping chunks, 1"
"""How texts longer than the window are encoded; part of the identity, so change it with the code."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of n texts."""

    vectors: Vectors
    """(n, d): unit rows; NaN where a text has no direction, because it is blank or the encoder gives zeros."""
    chunks: NDArray[np.int64]
    """(n,): 1 for a text that the encoder read at once, 0 for a blank one, else the chunks that it was cut into."""


@dataclass(slots=True)
class EncoderCounts:
    """What an encoder has done so far, in texts; distinct within each call."""

    texts: int = 0
    """Asked for, with repeats."""
    distinct: int = 0
    cached: int = 0
    """Found on disk."""
    encoded: int = 0
    chunked: int = 0
    """Of the distinct ones, those longer than the window."""


class Encoder(Protocol):
    """What the embedding terms need of an encoder."""

    def identity(self) -> Mapping[str, Any]:
        """Return what the vectors depend on besides the text, as JSON values."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the texts' vectors, in order."""


class SentenceEncoder:
    """A sentence-transformers model with an optional cache on disk. It may be called from any thread, one at a time."""

    def __init__(self, name: str, model: Any, weights: str, cache: Path | None, batch_tokens: int | None) -> None:
        """Wrap a loaded model; `open_encoder` finds and loads one.

        Args:
            name: For people to read.
            model: A `SentenceTransformer`.
            weights: What tells its weights from others.
            cache: The cache's file, or None for no cache.
            batch_tokens: Tokens of a batch, padding counted; None takes what suits the device.

        Raises:
            CheckpointError: The encoder's window cannot be kept to.
            OutputError: The cache cannot be used.
        """
        self.name = name
        self.counts = EncoderCounts()
        self._model = model
        self._weights = weights
        self._lock = Lock()
        self._tokenizer = _unlimited(getattr(model, "tokenizer", None))
        self._prompt = model.prompts.get(model.default_prompt_name) or "" if model.default_prompt_name else ""
        self._window, self._room = self._limits()
        self._batch_tokens = batch_tokens or _BATCH_TOKENS.get(model.device.type, _BATCH_TOKENS_GPU)
        self.width = int(model.encode(["width"], show_progress_bar=False).shape[1])
        self._cache = EmbeddingCache(cache, json.dumps(self._key(), sort_keys=True), self.width) if cache else None

    def identity(self) -> Mapping[str, Any]:
        """Return what the vectors depend on besides the text, and the encoder's name."""
        return {"name": self.name, "width": self.width, **self._key()}

    def _key(self) -> dict[str, Any]:
        return {"weights": self._weights, "window": self._window, "prompt": self._prompt, "long_texts": _RULE}

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the texts' vectors, in order.

        White space at a text's ends is dropped. A text longer than the encoder's window is cut into overlapping chunks
        of equal length, and its vector is the mean of theirs, weighted by their tokens. A call's new vectors reach the
        cache together, at its end.

        Raises:
            OutputError: The cache cannot be used.
        """
        cleaned = [_clean(text) for text in texts]
        distinct = [text for text in dict.fromkeys(cleaned) if text]
        with self._lock:
            known: Found = self._cache.get(distinct) if self._cache else {}
            fresh = self._encode_new([text for text in distinct if text not in known])
            if self._cache and fresh:
                self._cache.put(fresh)
            self._count(len(texts), known, fresh)
        vectors = np.full((len(texts), self.width), np.nan, np.float32)
        chunks = np.zeros(len(texts), np.int64)
        for row, text in enumerate(cleaned):
            if text:
                vectors[row], chunks[row] = known.get(text) or fresh[text]
        return Encoded(vectors, chunks)

    def close(self) -> None:
        """Let go of the cache."""
        if self._cache:
            self._cache.close()

    def _count(self, texts: int, known: Found, fresh: Found) -> None:
        self.counts.texts += texts
        self.counts.distinct += len(known) + len(fresh)
        self.counts.cached += len(known)
        self.counts.encoded += len(fresh)
        self.counts.chunked += sum(chunks > 1 for found in (known, fresh) for _, chunks in found.values())

    def _encode_new(self, texts: Sequence[str]) -> Found:
        chunks = [self._chunks(text, length) for text, length in zip(texts, self._lengths(texts), strict=True)]
        units = [(length, row, text) for row, parts in enumerate(chunks) for text, length in parts]
        totals = np.zeros((len(texts), self.width), np.float32)
        for batch in self._batches(units):
            lengths, rows, parts = zip(*batch, strict=True)
            vectors = self._model.encode(
                list(parts), batch_size=len(parts), normalize_embeddings=True, show_progress_bar=False
            )
            np.add.at(totals, list(rows), vectors * np.array(lengths, np.float32)[:, None])
        sizes = np.linalg.norm(totals, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            rows_of_one = np.where((sizes > 0) & np.isfinite(sizes), totals / sizes, np.nan).astype(np.float32)
        return {text: (rows_of_one[row], len(chunks[row])) for row, text in enumerate(texts)}

    def _batches(self, units: list[tuple[int, int, str]]) -> Iterator[list[tuple[int, int, str]]]:
        """Yield batches of texts of like lengths, the longest first: what does not fit into memory fails at once."""
        batch: list[tuple[int, int, str]] = []
        for unit in sorted(units, key=lambda unit: -unit[0]):
            if batch and (len(batch) + 1) * batch[0][0] > self._batch_tokens:
                yield batch
                batch = []
            batch.append(unit)
        if batch:
            yield batch

    def _limits(self) -> tuple[int | None, int | None]:
        """Return the encoder's window in tokens, and what of it is left for the text; None if there is no limit."""
        window = self._model.max_seq_length
        if window is None or not math.isfinite(window) or window > 1e9:
            return None, None
        if self._tokenizer is None:
            raise CheckpointError(
                f"the encoder {self.name} reads {window} tokens at once, but its tokenizer does not say where tokens "
                "begin, so longer texts could not be cut without loss; take an encoder that has a tokenizer.json"
            )
        room = int(window) - len(self._tokenizer.encode(self._prompt).ids)
        if room < _SMALLEST_WINDOW:
            raise CheckpointError(
                f"the encoder {self.name} has room for {room} tokens of text at once, which is too little to tell "
                "steps apart; take another"
            )
        return int(window), room

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        if self._tokenizer is None:
            return [len(text) for text in texts]
        return [len(found) for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _chunks(self, text: str, length: int) -> list[tuple[str, int]]:
        """Cut a text of `length` tokens into chunks that fit, each with its tokens (at least 1)."""
        if self._room is None or self._tokenizer is None or length <= self._room:
            return [(text, max(1, length))]
        size = self._room - _SPARE_TOKENS
        spans = self._tokenizer.encode(text, add_special_tokens=False).offsets
        count = math.ceil((length - _OVERLAP * size) / (size - _OVERLAP * size))
        starts = [round(index * (length - size) / (count - 1)) for index in range(count)]
        parts = [text[spans[start][0] : spans[start + size - 1][1]] for start in starts]
        # A part that has even more tokens than were spared is cut again.
        return [
            chunk
            for part, tokens in zip(parts, self._lengths(parts), strict=True)
            for chunk in self._chunks(part, tokens)
        ]


def open_encoder(
    name: str = EMBEDDED,
    cache: Path | None = None,
    device: str | None = None,
    *,
    revision: str | None = None,
    batch_tokens: int | None = None,
) -> SentenceEncoder:
    """Load an encoder.

    Args:
        name: `embedded` (all-MiniLM-L6-v2), a folder that sentence-transformers can load, or a hub id.
        cache: The file that keeps vectors across runs (`embeddings.sqlite` in the cache folder is the usual one).
        device: As torch names it; None takes a GPU if there is one.
        revision: Branch, tag or commit on the hub.
        batch_tokens: Tokens of a batch, padding counted; None takes what suits the device.

    Raises:
        MissingExtra: sentence-transformers, or the embedded encoder's package, is not installed.
        UsageError: There is no such encoder, or an argument is out of its range.
        CheckpointError: It cannot be loaded, or only from pickles.
        DownloadError: It could not be fetched.
        OutputError: The cache cannot be used.
    """
    if batch_tokens is not None and batch_tokens < 1:
        raise UsageError(f"expected batches of at least 1 token, got {batch_tokens}")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtra(f"encoders need sentence-transformers: {INSTALL}") from error
    folder = locate_encoder(name, revision)
    try:
        with _without_bars(), LOADING:
            model = SentenceTransformer(str(folder), device=device, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever transformers and torch make of a broken folder or an unknown device
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"the encoder {name} cannot be loaded from {folder}: {lines[0]}") from error
    return SentenceEncoder(name, model, fingerprint(folder), cache, batch_tokens)


def _clean(text: str) -> str:
    # Half a surrogate pair, which JSON can hold, is in no encoding; tokenizers refuse it.
    return text.strip().encode("utf-8", "replace").decode("utf-8")


def _unlimited(tokenizer: Any) -> Tokenizer | None:
    """Return a tokenizer of its own that cuts and pads nothing, or None where it cannot be had."""
    found = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(found, Tokenizer):
        return None
    copied = Tokenizer.from_str(found.to_str())
    copied.no_truncation()
    copied.no_padding()
    return copied


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for weights that load in a moment."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
