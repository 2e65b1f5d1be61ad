"""The terms that need no judge: alignment and coherence of every step, from one embedding of each distinct text.

Texts are stripped of white space at their ends before they are encoded or compared. Blank steps, which a response of
nothing but line breaks has, are passed over: they have no terms, and the step behind follows the step before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.labels.alignment import ALIGNMENTS, Vectors
from reasonflux_prm.labels.coherence import NEGATIVES, TEMPERATURE, coherence
from reasonflux_prm.labels.encoder import Encoded, Encoder
from reasonflux_prm.labels.formula import ALIGNMENT_TERMS, COHERENCE_TERM
from reasonflux_prm.labels.negatives import NegativePool
from reasonflux_prm.records import SegmentedTrace, Term

BLANK = "the step is blank"
NO_DIRECTION = "the encoder gives this step no direction"
RESPONSE_STEP = "a response step is what thinking steps are aligned to"
NO_RESPONSE = "there is no response to align with"
NO_PROBLEM = "the first step follows the problem, which is blank"
ODD_NEIGHBOUR = "the encoder gives the problem, or a negative, no direction"

_DECIMALS = 6
"""Of a value: float32 embeddings carry no more, and what follows would depend on which texts shared a batch."""
_ROWS = 256
"""Steps whose negatives are in memory at once."""


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """What the terms depend on besides the texts, the encoder and the pool."""

    temperature: float = TEMPERATURE
    """tau of coherence, above 0."""
    negatives: int = NEGATIVES
    """Negatives for each step. Values of coherence for different numbers are not comparable."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0 and self.negatives >= 1):
            raise UsageError(
                "coherence needs a temperature above 0 and at least 1 negative, got "
                f"temperature={self.temperature} and negatives={self.negatives}"
            )


class EmbeddingTerms:
    """Alignment in all its modes, and coherence, of many traces; raw values, see `alignment` and `coherence`.

    Coherence runs over all steps of a trace in reading order: the first step follows the problem, the first response
    step follows the last thinking step. A value of a step longer than the encoder's window says so in its reason.
    """

    def __init__(self, encoder: Encoder, pool: NegativePool, settings: EmbeddingSettings | None = None) -> None:
        """Take an encoder, and the pool that negatives are drawn from; the pool is encoded at the first call."""
        self.encoder = encoder
        self.pool = pool
        self.settings = settings or EmbeddingSettings()
        self._negatives: Vectors | None = None

    def identity(self) -> Mapping[str, Any]:
        """Return what the terms depend on besides the traces, as JSON values."""
        return {
            "encoder": self.encoder.identity(),
            "negatives": {"each": self.settings.negatives, **self.pool.identity()},
            "temperature": self.settings.temperature,
        }

    def terms(self, batch: Sequence[SegmentedTrace]) -> list[tuple[dict[str, Term], ...]]:
        """Return the terms of every step, of each trace, by name; all names, for every step.

        Memory grows with the distinct texts of the batch (a vector each), so give some hundred traces at a time.

        Raises:
            OutputError: The encoder's cache cannot be used.
        """
        if self._negatives is None:
            self._negatives = self.encoder.encode(self.pool.texts).vectors
        rows: dict[str, int] = {}
        for segmented in batch:
            for text in _texts(segmented):
                rows.setdefault(text, len(rows))
        encoded = self.encoder.encode(list(rows))
        return [self._trace_terms(segmented, rows, encoded) for segmented in batch]

    def _trace_terms(
        self, segmented: SegmentedTrace, rows: Mapping[str, int], encoded: Encoded
    ) -> tuple[dict[str, Term], ...]:
        problem, *texts = _texts(segmented)
        index = np.array([rows[text] for text in texts], np.int64)
        vectors = encoded.vectors[index] if len(index) else np.empty((0, encoded.vectors.shape[1]), np.float32)
        sound = np.isfinite(vectors[:, 0])  # a row is a unit vector, or NaN throughout
        lacks = [None if ok else NO_DIRECTION if text else BLANK for ok, text in zip(sound, texts, strict=True)]
        columns = self._alignments(segmented, vectors, sound)
        columns[COHERENCE_TERM] = self._coherence(segmented, encoded.vectors[rows[problem]], vectors, sound)
        notes = [_note(chunks) for chunks in encoded.chunks[index].tolist()]
        return tuple(
            {name: Term(None, lack) if lack else _term(column[step], notes[step]) for name, column in columns.items()}
            for step, lack in enumerate(lacks)
        )

    def _alignments(
        self, segmented: SegmentedTrace, vectors: Vectors, sound: NDArray[np.bool_]
    ) -> dict[str, list[float | str]]:
        """Return, by term, a value or the reason why there is none for each step."""
        thinks = np.array([step.part == "thinking" for step in segmented.steps], bool)
        thinking, response = np.flatnonzero(thinks & sound), np.flatnonzero(~thinks & sound)
        columns: dict[str, list[float | str]] = {}
        for name in ALIGNMENT_TERMS:
            columns[name] = [NO_RESPONSE if thinking_step else RESPONSE_STEP for thinking_step in thinks]
            if len(response):
                values = ALIGNMENTS[name](vectors[thinking], vectors[response])
                for step, value in zip(thinking.tolist(), values.tolist(), strict=True):
                    columns[name][step] = value
        return columns

    def _coherence(
        self, segmented: SegmentedTrace, problem: NDArray[np.float32], vectors: Vectors, sound: NDArray[np.bool_]
    ) -> list[float | str]:
        steps = np.flatnonzero(sound)
        try:
            drawn = self.pool.draw(segmented, self.settings.negatives)[steps]
        except InputError as error:
            return [str(error)] * len(sound)
        assert self._negatives is not None
        before = np.concatenate([problem[None], vectors[steps]])[: len(steps)]
        column: list[float | str] = [ODD_NEIGHBOUR] * len(sound)
        if len(steps) and not segmented.trace.problem.strip():
            column[steps[0]] = NO_PROBLEM
        for start in range(0, len(steps), _ROWS):
            block = slice(start, start + _ROWS)
            true = np.einsum("sd,sd->s", before[block], vectors[steps[block]])
            others = np.einsum("sd,snd->sn", before[block], self._negatives[drawn[block]])
            values = coherence(true, others, self.settings.temperature)
            for step, value in zip(steps[block].tolist(), values.tolist(), strict=True):
                if np.isfinite(value):
                    column[step] = value
        return column


def _texts(segmented: SegmentedTrace) -> list[str]:
    """Return the problem and the steps, as they are encoded."""
    return [segmented.trace.problem.strip(), *(segmented.text(step).strip() for step in segmented.steps)]


def _note(chunks: int) -> str | None:
    return None if chunks <= 1 else f"longer than the encoder's window: the mean of {chunks} chunks"


def _term(value: float | str, note: str | None) -> Term:
    return Term(None, value) if isinstance(value, str) else Term(round(value, _DECIMALS), note)
