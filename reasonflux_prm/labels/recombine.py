"""A label file with the targets of another formula: nothing is asked, encoded or split again."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.labels.combine import combine_all, out_of_range
from reasonflux_prm.labels.files import KIND, labelled_of, labelled_row
from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.labels.handing_over import Place, hand_over
from reasonflux_prm.labels.label_lines import AnotherForm, Combined, combine_label_lines
from reasonflux_prm.labels.tables import written_rows
from reasonflux_prm.records import LabelledTrace, Reject
from reasonflux_prm.traces.manifest import Manifest, read_manifest, write_manifest
from reasonflux_prm.traces.resumable import PIPE, Input, finished_run
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source
from reasonflux_prm.traces.write import json_line

BATCH_BYTES: Final = 1 << 20
"""Rows that are combined together; a longer row has a batch of its own."""
_AHEAD: Final = 3
"""Batches that each process has waiting or done."""


@dataclass
class Recombined:
    """What became of the rows of a label file."""

    counts: Counter[str] = field(default_factory=Counter)
    """By status."""
    strays: Counter[str] = field(default_factory=Counter)
    """Of a literal formula: targets outside [0, 1], and raw values outside their range; see `combine.out_of_range`."""
    finished_before: bool = False
    """Whether the output was there already."""

    @property
    def traces(self) -> int:
        """Return the number of rows."""
        return sum(self.counts.values())


def recombine(source: str, output: Path, formula: Formula, *, processes: int = 1, resume: bool = True) -> Recombined:
    """Write a label file with the targets that a formula makes of its terms.

    Args:
        source: A file of labels (JSON lines, also in gzip, or Parquet), or `-`.
        output: A `.jsonl`, `.jsonl.gz` or `.parquet` file, written whole or not at all, and its manifest.
        formula: From terms to targets.
        processes: Processes that work at once; with more than one, a script needs its `__main__` guard.
        resume: Do nothing if the output of the same formula and source is there; False replaces what is there.

    Raises:
        InputError: The source is not there, is empty, or a record is no label.
        ResumeError: The output is there and was made of something else.
        OutputError: The output cannot be written.
    """
    done = Recombined()
    # The source's digest is read out of all of it: beside the work, unless there is an output to compare with.
    with ThreadPoolExecutor(1) as aside:
        described = aside.submit(_settings, source, formula)
        if resume and source != PIPE and output.exists():
            manifest = finished_run(output, KIND, described.result())
            if manifest is not None:
                return Recombined(Counter(manifest.counts), finished_before=True)
        with written_rows(output) as stream:
            for encoded, counts, strays in _combined(_rows(source), str(formula), processes, output):
                stream.write(encoded)
                done.counts += counts
                done.strays += strays
            if not done.traces:
                raise InputError(f"expected labels in {source}, found none")
            settings = described.result()
    details = {"out_of_range": dict(done.strays)} if done.strays else {}
    write_manifest(Manifest(KIND, dict(sorted(done.counts.items())), settings, details=details), output)
    return done


def _settings(source: str, formula: Formula) -> dict[str, Any]:
    """Return what the output depends on: what the source says of itself, and the formula."""
    try:
        labels = dict(read_manifest(Path(source)).settings.get("labels", {}))
    except InputError:
        labels = {}
    return {"labels": {**labels, "formula": str(formula)}, "combined_from": Input(source).fingerprint()}


# --- rows, many at a time ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that came as lines."""

    file: str
    first: int
    """The number of the first row."""
    lines: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Span:
    """Rows between two offsets of a file, which whoever combines them reads."""

    file: str
    start: int
    stop: int

    def read(self, first: int = 1) -> Batch:
        """Return the rows, numbered from `first`."""
        with Path(self.file).open("rb") as stream:
            stream.seek(self.start)
            return Batch(self.file, first, BytesIO(stream.read(self.stop - self.start)).readlines())

    def first(self) -> int:
        """Return the number of the first row."""
        with Path(self.file).open("rb") as stream:
            left, ends = self.start, 0
            while left:
                block = stream.read(min(left, BATCH_BYTES))
                left -= len(block)
                ends += block.count(b"\n")
        return 1 + ends


def _combined(rows: Iterator[Batch | Span], formula: str, processes: int, output: Path) -> Iterator[Combined]:
    first = list(islice(rows, processes))
    if processes == 1 or len(first) < processes:
        yield from map(partial(combine_rows, formula), chain(first, rows))
        return
    # Fresh interpreters: a fork would share locks with the threads of numpy.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    with hand_over(output, _AHEAD * processes) as places, pool:
        free, waiting = deque(places), deque[tuple[Place, Future[_PutDown]]]()
        for some in chain(first, rows):
            place = free.popleft()
            waiting.append((place, pool.submit(_combine_into, place, formula, some)))
            if not free:
                yield _oldest(waiting, free)
        while waiting:
            yield _oldest(waiting, free)


_PutDown = tuple[bytes | int, Counter[str], Counter[str]]
"""As `Combined`, with the length of the rows where they lie at a place."""


def _oldest(waiting: deque[tuple[Place, Future[_PutDown]]], free: deque[Place]) -> Combined:
    place, future = waiting.popleft()
    put, counts, strays = future.result()
    encoded = place.get(put)
    free.append(place)
    return encoded, counts, strays


def _combine_into(place: Place, formula: str, rows: Batch | Span) -> _PutDown:
    encoded, counts, strays = combine_rows(formula, rows)
    return place.put(encoded), counts, strays


def _rows(source: str) -> Iterator[Batch | Span]:
    """Yield the rows of a source; blank ones too, so that numbers are right."""
    path = Path(source)
    if source == PIPE:
        yield from _batches(source, sys.stdin.buffer)
        return
    if not path.is_file():
        raise InputError(f"expected {source} to be a file of labels, but there is no such file")
    with path.open("rb") as stream:
        magic = stream.peek(4)[:4]
        if magic == b"PAR1":
            yield from _batches(source, _table_lines(source))
        elif magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield from _batches(source, unpacked)
        else:
            yield from _spans(source, stream)


def _spans(source: str, stream: IO[bytes]) -> Iterator[Span]:
    size = stream.seek(0, os.SEEK_END)
    start = 0
    while start < size:
        stream.seek(start + BATCH_BYTES - 1)
        stream.readline()
        stop = min(stream.tell(), size)
        yield Span(source, start, stop)
        start = stop


def _batches(source: str, lines: Iterable[bytes]) -> Iterator[Batch]:
    held: list[bytes] = []
    size, first = 0, 1
    for number, line in enumerate(lines, start=1):
        held.append(line)
        size += len(line)
        if size >= BATCH_BYTES:
            yield Batch(source, first, held)
            held, size, first = [], 0, number + 1
    if held:
        yield Batch(source, first, held)


def _table_lines(source: str) -> Iterator[bytes]:
    for row in open_source(source):
        if isinstance(row, Reject):
            raise InputError(f"{row.file}:{row.line}: {row.reason}")
        yield json_line(row.columns)


def combine_rows(formula: str, rows: Batch | Span) -> Combined:
    """Return rows with the targets of a formula, their counts by status, and what is out of its range.

    Raises:
        InputError: A row is no label.
    """
    if isinstance(rows, Batch):
        return _combine(formula, rows)
    try:
        return _combine(formula, rows.read())
    except InputError:
        # Only the error's message needs the rows' numbers, which nobody has counted.
        return _combine(formula, rows.read(rows.first()))


def _combine(formula: str, batch: Batch) -> Combined:
    parsed = Formula.parse(formula)
    with suppress(AnotherForm):
        return combine_label_lines([line for line in batch.lines if line.strip()], parsed)
    labels = list(combine_all(_decoded(batch), parsed))
    counts = Counter(label.status.value for label in labels)
    stray: Counter[str] = Counter()
    if parsed.mode == "literal":
        stray = sum(map(out_of_range, labels), stray)
    return b"".join(json_line(labelled_row(label)) for label in labels), counts, stray


def _decoded(batch: Batch) -> Iterator[LabelledTrace]:
    for number, line in enumerate(batch.lines, start=batch.first):
        if not line.strip():
            continue
        try:
            columns = json.loads(line)
        except ValueError as error:
            raise InputError(f"{batch.file}:{number}: expected a label as one JSON object, got: {error}") from error
        if not isinstance(columns, dict):
            found = type(columns).__name__
            raise InputError(f"{batch.file}:{number}: expected a label as one JSON object, got {found}")
        yield labelled_of(Row(batch.file, number, columns))
