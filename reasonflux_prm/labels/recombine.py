"""A label file with the targets of another formula: nothing is asked, encoded or split again.

Most of a row stays as it is (the trace, and every term), and to decode and encode it would take ten times as long as
all the rest. So a row in the form that `label` writes is taken apart only where something changes or is needed: the
targets, the values of the formula's terms, status, formula and note. Inside a JSON text every quotation mark has a
backslash before it, so what is looked for, which has bare ones, is never found in a text. A row in any other form is
decoded as a whole.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.labels.combine import TRAJECTORY_TERM, combine_all, out_of_range
from reasonflux_prm.labels.files import KIND, labelled_of, labelled_row
from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.labels.tables import written_rows
from reasonflux_prm.records import LabelledTrace, LabelStatus, Reject, Term, Trace
from reasonflux_prm.traces.manifest import Manifest, read_manifest, write_manifest
from reasonflux_prm.traces.resumable import PIPE, Input, finished_run
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source
from reasonflux_prm.traces.write import json_line

BATCH_BYTES: Final = 1 << 20
"""Rows that are combined together; a longer row has a batch of its own."""
_AHEAD: Final = 3
"""Batches that each process has waiting or done."""

_TEXT = rb'"(?:[^"\\]|\\.)*"'
_HEAD = re.compile(rb'\{"id": (%s), "status": "([a-z-]+)", "steps": \[' % _TEXT)
_FOOT = re.compile(rb'\}, "formula": %s, "note": (null|%s)(?=[,}])' % (_TEXT, _TEXT))
_TARGET = b'}, "target": '
_KEPT = (LabelStatus.NO_STEPS.value, LabelStatus.FAILED.value)
_STATUSES = frozenset(status.value for status in LabelStatus)
_NO_TRACE = Trace("", "")
_COMMON = {b"null": Term(None), b"0.0": Term(0.0), b"1.0": Term(1.0)}


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
    settings = _settings(source, formula)
    if resume and source != PIPE and (manifest := finished_run(output, KIND, settings)) is not None:
        return Recombined(Counter(manifest.counts), finished_before=True)
    done = Recombined()
    with written_rows(output) as stream:
        for encoded, counts, strays in _combined(_batches(source), str(formula), processes):
            stream.write(encoded)
            done.counts += counts
            done.strays += strays
        if not done.traces:
            raise InputError(f"expected labels in {source}, found none")
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

Batch = tuple[str, int, Sequence[bytes]]
"""The file, the number of the first row, and rows as lines."""
Outcome = tuple[bytes, Counter[str], Counter[str]]


def _combined(batches: Iterator[Batch], formula: str, processes: int) -> Iterator[Outcome]:
    work = partial(combine_lines, formula)
    first = list(islice(batches, processes))
    if processes == 1 or len(first) < processes:
        yield from map(work, first)
        yield from map(work, batches)
        return
    # Fresh interpreters: a fork would share locks with the threads of numpy.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[Outcome]] = deque(pool.submit(work, batch) for batch in first)
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) >= _AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _batches(source: str) -> Iterator[Batch]:
    lines: list[bytes] = []
    size, first = 0, 1
    for number, line in enumerate(_lines(source), start=1):
        lines.append(line)
        size += len(line)
        if size >= BATCH_BYTES:
            yield source, first, lines
            lines, size, first = [], 0, number + 1
    if lines:
        yield source, first, lines


def _lines(source: str) -> Iterator[bytes]:
    """Yield the lines of a source; blank ones too, so that numbers are right."""
    if source == PIPE:
        yield from sys.stdin.buffer
        return
    path = Path(source)
    if not path.is_file():
        raise InputError(f"expected {source} to be a file of labels, but there is no such file")
    with path.open("rb") as stream:
        magic = stream.peek(4)[:4]
        if magic == b"PAR1":
            yield from _table_lines(source)
        elif magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield from unpacked
        else:
            yield from stream


def _table_lines(source: str) -> Iterator[bytes]:
    for row in open_source(source):
        if isinstance(row, Reject):
            raise InputError(f"{row.file}:{row.line}: {row.reason}")
        yield json_line(row.columns)


def combine_lines(formula: str, batch: Batch) -> Outcome:
    """Return rows with the targets of a formula, their counts by status, and what is out of its range.

    Raises:
        InputError: A row is no label.
    """
    parsed = Formula.parse(formula)
    file, first, lines = batch
    parts: list[_Parts | None] = []
    labels: list[LabelledTrace] = []
    for number, line in enumerate(lines, start=first):
        if line.strip():
            part = _parts(line)
            parts.append(part)
            labels.append(part.label(parsed.terms) if part else _decoded(line, file, number))
    counts: Counter[str] = Counter()
    strays: Counter[str] = Counter()
    encoded = []
    for part, label in zip(parts, combine_all(labels, parsed), strict=True):
        counts[label.status.value] += 1
        if parsed.mode == "literal":
            strays += out_of_range(label)
        encoded.append(part.joined(label) if part else json_line(labelled_row(label)))
    return b"".join(encoded), counts, strays


def _decoded(line: bytes, file: str, number: int) -> LabelledTrace:
    try:
        columns = json.loads(line)
    except ValueError as error:
        raise InputError(f"{file}:{number}: expected a label as one JSON object, got: {error}") from error
    if not isinstance(columns, dict):
        raise InputError(f"{file}:{number}: expected a label as one JSON object, got {type(columns).__name__}")
    return labelled_of(Row(file, number, columns))


# --- one row ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Parts:
    """A row, taken apart where something changes."""

    line: bytes
    id: bytes
    status: str
    pieces: list[bytes]
    """What stands between `id, status` and `formula`, cut at every target. So piece i has the terms of step i, and the
    last but one those of the trajectory; each piece but the first begins with the target of the one before."""
    foot: int
    """Where `formula` begins."""
    note: bytes
    rest: int
    """Where the trace's own columns begin."""

    def label(self, names: Sequence[str]) -> LabelledTrace:
        """Return a label with the terms of these names, and no trace."""
        keys = [(name, _key(name)) for name in names]
        *steps, trajectory, _ = self.pieces
        step_terms = tuple(_terms(piece, keys) for piece in steps)
        nothing = (None,) * len(step_terms)
        status = LabelStatus(self.status)
        trajectory_terms = _terms(trajectory, [(TRAJECTORY_TERM, _key(TRAJECTORY_TERM))])
        return LabelledTrace(_NO_TRACE, status, (), step_terms, nothing, trajectory_terms, None, "")

    def joined(self, label: LabelledTrace) -> bytes:
        """Return the row with a label's targets, status, formula and note; see `combine` for what keeps its own."""
        formula = json.dumps(label.formula).encode()
        rest = self.line[self.rest :]
        if self.status in _KEPT:
            return b"".join([self.line[: self.foot], b', "formula": ', formula, b', "note": ', self.note, rest])
        joined = [b'{"id": ', self.id, b', "status": "', label.status.value.encode(), b'", "steps": [', self.pieces[0]]
        for piece, target in zip(self.pieces[1:], (*label.targets, label.trajectory_target), strict=True):
            joined += _TARGET, b"null" if target is None else repr(target).encode(), piece[piece.index(b"}") :]
        note = b"null" if label.note is None else json.dumps(label.note).encode()
        return b"".join([*joined, b', "formula": ', formula, b', "note": ', note, rest])


def _parts(line: bytes) -> _Parts | None:
    """Take a row apart; None if it has not the form that `label` writes."""
    head = _HEAD.match(line)
    foot = head and _FOOT.search(line, head.end())
    if not head or not foot or head[2].decode() not in _STATUSES:
        return None
    # The foot's first brace closes the trajectory.
    between = line[head.end() : foot.start() + 1]
    pieces = between.split(_TARGET)
    if len(pieces) != 2 + between.count(b'{"part": "'):
        return None
    return _Parts(line, head[1], head[2].decode(), pieces, foot.start() + 1, foot[1], foot.end())


def _key(name: str) -> bytes:
    return b'"%s": {"value": ' % name.encode()


def _terms(piece: bytes, keys: Sequence[tuple[str, bytes]]) -> dict[str, Term]:
    terms = {}
    for name, key in keys:
        at = piece.find(key)
        if at >= 0:
            at += len(key)
            value = piece[at : piece.index(b",", at)]
            terms[name] = _COMMON.get(value) or Term(float(value))
    return terms
