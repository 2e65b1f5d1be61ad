"""What labelling wants to know of the whole input before the first label: negatives from all of it.

A pass of its own reads the traces once and keeps a sample of their steps. It begins when the first embedding terms are
asked for, so judge and rater are at work meanwhile. A pipe, which can be read only once, is put into a file first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reasonflux_prm.errors import InputError
from reasonflux_prm.labels.embedding_terms import EmbeddingSettings, EmbeddingTerms
from reasonflux_prm.labels.encoder import Encoder
from reasonflux_prm.labels.formula import COHERENCE_TERM
from reasonflux_prm.labels.negatives import SIZE, NegativePool
from reasonflux_prm.records import Reject, SegmentedTrace, Term, Trace
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.resumable import PIPE, Input
from reasonflux_prm.traces.write import writing


@dataclass(frozen=True, slots=True)
class Negatives:
    """Which steps coherence holds a step against."""

    each: int = EmbeddingSettings().negatives
    """Negatives of a step."""
    pool: int = SIZE
    """Steps that are kept of the whole input, at most."""
    seed: int = 0


class InputEmbedding:
    """Embedding terms of traces whose negatives come from the whole of their input.

    Args:
        encoder: What gives the vectors.
        source: The input; it is read a second time.
        steps: The step rule.
        negatives: None leaves coherence out, and the input is not read.
        temperature: tau of coherence.
        kept: The sample is kept here for a run that goes on, until `forget`; None keeps it nowhere.
    """

    def __init__(
        self,
        encoder: Encoder,
        source: Input,
        *,
        steps: str = "adaptive",
        negatives: Negatives | None = Negatives(),
        temperature: float = EmbeddingSettings().temperature,
        kept: Path | None = None,
    ) -> None:
        self._encoder, self._source, self._steps = encoder, source, steps
        self._negatives = negatives
        each = negatives.each if negatives else EmbeddingSettings().negatives
        self._settings = EmbeddingSettings(temperature, each)
        self._kept = kept
        self._terms: EmbeddingTerms | None = None
        self.read = 0
        """Traces that the pass over the input has read so far."""

    def identity(self) -> Mapping[str, Any]:
        """Return what the terms depend on besides the traces, as JSON values."""
        identity: dict[str, Any] = {"encoder": dict(self._encoder.identity())}
        if self._negatives is not None:
            identity |= {"negatives": asdict(self._negatives), "temperature": self._settings.temperature}
        return identity

    def terms(self, batch: Sequence[SegmentedTrace]) -> list[tuple[dict[str, Term], ...]]:
        """Return the terms of every step of each trace; see `EmbeddingTerms.terms`."""
        if self._terms is None:
            pool = NegativePool(0, {}) if self._negatives is None else self._pool(self._negatives)
            self._terms = EmbeddingTerms(self._encoder, pool, self._settings)
        terms = self._terms.terms(batch)
        if self._negatives is None:
            for of_step in (step for of_trace in terms for step in of_trace):
                del of_step[COHERENCE_TERM]
        return terms

    def forget(self) -> None:
        """Remove the sample that was kept for a run that goes on."""
        if self._kept is not None:
            with writing(self._kept):
                for path in self._kept.parent.glob(f"{self._kept.name}-*"):
                    path.unlink()

    def _pool(self, negatives: Negatives) -> NegativePool:
        if self._kept is None:
            return self._drawn(negatives)
        # Under the name of what it depends on, so that the sample of another input is never taken for this one's.
        key = json.dumps([self._source.fingerprint(), self._steps, asdict(negatives)], sort_keys=True)
        path = self._kept.with_name(f"{self._kept.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}")
        try:
            return NegativePool.load(path)
        except InputError:
            pool = self._drawn(negatives)
            pool.save(path)
            return pool

    def _drawn(self, negatives: Negatives) -> NegativePool:
        return NegativePool.build(self._segmented(), negatives.pool, negatives.seed)

    def _segmented(self) -> Iterator[SegmentedTrace]:
        # What cannot be read or cut is told of where it is labelled.
        for trace in self._source.read(lambda _: None):
            self.read += 1
            try:
                yield split(trace, self._steps)
            except InputError:
                continue


@dataclass(frozen=True, slots=True)
class Spooled(Input):
    """A pipe that was put into a file."""

    path: Path = Path()

    def files(self) -> list[Path]:
        """Return the file."""
        return [self.path]

    def read(self, rejects: Callable[[Reject], None] | None) -> Iterator[Trace]:
        """Read the traces; what is refused is told of as coming from the pipe."""

        def refuse(reject: Reject) -> None:
            assert rejects is not None
            rejects(replace(reject, file=PIPE))

        return read_traces(
            self.path,
            format=self.format,
            columns=self.columns or None,
            rejects=None if rejects is None else refuse,
            limit=self.limit,
        )


@contextmanager
def spooled(source: Input, folder: Path) -> Iterator[Input]:
    """Give an input that can be read more than once: of a pipe, a copy in `folder`, which goes with the block.

    Raises:
        OutputError: The copy cannot be written.
    """
    if source.source != PIPE:
        yield source
        return
    # A record without an id is named for its file.
    path = folder / "stdin.jsonl"
    try:
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy, 1 << 20)
        yield Spooled(source.source, source.format, source.columns, source.limit, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
