"""Traces from a source into a file of records, in constant memory, surviving a kill at any moment.

What `score` and `label` have in common. Records are appended to `.X.jsonl.partial` chunk by chunk. After each chunk the
file is flushed to the disk and then a journal beside it, replaced in one move, says how many traces and bytes are good.
A run that finds a journal of the same settings and input cuts the partial file to the good bytes, skips the traces that
are done, and goes on; since a chunk depends on nothing before it, the output has the same bytes as that of a run that
was never interrupted. When all is done the partial file takes the output's name. The journal goes last, so a kill at
any point in between is told from a finished run.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from reasonflux_prm.errors import InputError, OutputError, ResumeError
from reasonflux_prm.records import Reject, Trace
from reasonflux_prm.traces.manifest import Manifest, read_manifest, write_manifest
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.run_files import RunFiles, difference
from reasonflux_prm.traces.write import RejectsWriter, json_line, writing

PIPE = "-"


class Record(Protocol):
    """What became of one trace."""

    @property
    def status(self) -> StrEnum:
        """What the counts are made of."""


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Input:
    """What to read; see `traces.read.read_traces`."""

    source: str
    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None

    def files(self) -> list[Path]:
        """Return the local files behind the source; none for a pipe or a data set of the hub."""
        path = Path(self.source)
        if path.is_dir():
            return sorted(file for file in path.rglob("*") if file.is_file())
        return [path] if path.is_file() else []

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this input from another: the arguments, and the names and contents of local files."""
        stamp: dict[str, Any] = {
            "source": self.source,
            "format": self.format,
            "columns": dict(self.columns),
            "limit": self.limit,
        }
        digest = hashlib.sha256()
        for file in self.files():
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
            stamp["digest"] = digest.hexdigest()[:16]
        return stamp

    def read(self, rejects: Callable[[Reject], None] | None) -> Iterator[Trace]:
        """Read the traces."""
        return read_traces(
            self.source, format=self.format, columns=self.columns or None, rejects=rejects, limit=self.limit
        )


@dataclass
class Progress(Generic[R]):
    """How far a run is; the journal holds it. Whatever a subclass adds must be numbers, or counts by name."""

    traces: int = 0
    """Traces that are on the disk."""
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    """Traces by status."""
    bytes: int = 0
    """Length of the partial file that is good."""
    rejects: int = 0
    resumed_traces: int = 0
    """Traces that an earlier, interrupted run had done."""

    def add(self, chunk: Sequence[R], seconds: float) -> None:
        """Count one chunk."""
        self.traces += len(chunk)
        self.counts.update(record.status.value for record in chunk)
        self.seconds += seconds

    def timings(self) -> dict[str, float]:
        """Return the seconds by stage, for the manifest."""
        return {"total": round(self.seconds, 3)}

    def details(self) -> dict[str, Any]:
        """Return what else the manifest should say, as JSON values."""
        return {}

    def saved(self) -> dict[str, Any]:
        """Return the journal's form of this."""
        # asdict would rebuild a counter from its items, that is, count them.
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Self:
        """Return what `saved` gave.

        Raises:
            TypeError, AttributeError: It is something else.
        """
        values: dict[str, Any] = {
            name: Counter(value) if isinstance(value, dict) else value for name, value in saved.items()
        }
        return cls(**values)


P = TypeVar("P", bound=Progress[Any])
Hook = Callable[[list[R], P], None]
"""Called after each chunk, once it is on the disk."""


@dataclass(frozen=True)
class Kind(Generic[R, P]):
    """A kind of run, told by the records it writes."""

    name: str
    """As the manifest has it: `scored`, `labels`."""
    progress: type[P]
    row: Callable[[R], Mapping[str, Any]]
    """A record as one JSON object."""
    place: Callable[[Path, Path], None] | None = None
    """Writes the output from the complete partial file, whole or not at all; None if that file is the output."""


@dataclass(frozen=True)
class Job(Generic[R, P]):
    """What is to be done: records of one kind out of one input."""

    kind: Kind[R, P]
    source: Input
    settings: Mapping[str, Any]
    """Everything that the bytes of the output depend on, as JSON values."""
    chunks: Callable[[Iterator[Trace]], Iterator[list[R]]]
    """Turns traces into records, in order; a chunk depends on nothing that stands before it."""
    note: Callable[[P], bool] | None = None
    """Brings into the progress what no record tells (time by stage, cost), after each chunk and when the job stops;
    returns whether a job that stops should remember it even if it has no record yet."""


def run(job: Job[R, P], output: Path, *, resume: bool = True, hook: Hook[R, P] | None = None) -> P:
    """Do a job into a file; write its manifest and, where input was refused, its rejects file.

    Args:
        job: What to do. A pipe cannot be read twice, so a run from one always starts over.
        output: The file; one that ends in `.gz` is compressed.
        resume: Go on where an interrupted run of the same settings and input stopped, and do nothing if such a run is
            complete. False starts over and replaces what is there.
        hook: Told of each chunk.

    Returns:
        The final counts.

    Raises:
        ResumeError: `output` belongs to a run with other settings or input, or another process is writing it.
        InputError: The source is missing or holds no record.
        OutputError: The output cannot be written.
    """
    pipe = job.source.source == PIPE
    if resume and pipe and output.exists():
        raise ResumeError(
            f"{output} exists, and what comes through a pipe cannot be compared with what it was made of; choose "
            "another output or pass --fresh to replace it"
        )
    files = RunFiles(output)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with files.only_writer():
        if not resume or pipe:
            with writing(output):
                files.journal.unlink(missing_ok=True)
        elif files.journal.exists():
            progress = _interrupted(job, files)
            if files.partial.exists():
                _work(job, files, progress, hook)
            else:
                # Killed after the partial file had given way to the output.
                _finish(job, files, progress)
            return progress
        elif (manifest := finished_run(output, job.kind.name, job.settings)) is not None:
            total = sum(manifest.counts.values())
            return job.kind.progress(
                total, counts=Counter(manifest.counts), rejects=manifest.rejects, resumed_traces=total
            )
        progress = job.kind.progress()
        try:
            _work(job, files, progress, hook)
        finally:
            files.forget_empty()
        return progress


def stream(job: Job[R, P], rejects: Callable[[Reject], None] | None = None, hook: Hook[R, P] | None = None) -> P:
    """Do a job to standard output; a pipe cannot be resumed, so nothing is kept.

    Raises:
        InputError: The source is missing or holds no record; or, without `rejects`, a record is bad.
        BrokenPipeError: Nobody reads on.
    """
    progress = job.kind.progress()

    def refuse(reject: Reject) -> None:
        progress.rejects += 1
        if rejects is not None:
            rejects(reject)

    traces = job.source.read(refuse if rejects is not None else None)
    with closing(_timed(job.chunks(traces))) as chunks:
        for chunk, seconds in chunks:
            sys.stdout.buffer.write(_encoded(job.kind, chunk, compress=False))
            sys.stdout.buffer.flush()
            progress.add(chunk, seconds)
            if job.note is not None:
                job.note(progress)
            if hook is not None:
                hook(chunk, progress)
    _refuse_nothing(job, progress)
    return progress


def finished_run(output: Path, kind: str, settings: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest of a complete run of the same kind and settings, None if there is no output yet.

    Raises:
        ResumeError: There is an output that another run or another program wrote.
    """
    if not output.exists():
        return None
    try:
        manifest = read_manifest(output)
    except InputError as error:
        raise ResumeError(
            f"{output} exists and no finished run wrote it ({error}); choose another output, or pass --fresh to "
            "replace it"
        ) from error
    if changed := difference({"kind": manifest.kind, **manifest.settings}, {"kind": kind, **settings}):
        raise ResumeError(
            f"{output} belongs to a run with another {changed}; choose another output, or pass --fresh to replace it"
        )
    return manifest


# --- a run ---------------------------------------------------------------------------------------------------------


def _work(job: Job[R, P], files: RunFiles, progress: P, hook: Hook[R, P] | None) -> None:
    """Do what is left, and finish; `progress` goes along."""
    try:
        _append_rest(job, files, progress, hook)
    except BaseException:
        if job.note is not None and (job.note(progress) or progress.traces):
            with suppress(OutputError):
                files.write_journal(job.settings, progress.saved())
        raise
    _finish(job, files, progress)


def _append_rest(job: Job[R, P], files: RunFiles, progress: P, hook: Hook[R, P] | None) -> None:
    with ExitStack() as stack:
        rejects = stack.enter_context(RejectsWriter(files.output))
        traces = job.source.read(rejects)
        _skip(traces, progress.traces)
        stream = stack.enter_context(files.appending(progress.bytes))
        # Closed before the files are, because chunks may be made by a thread that still reads.
        for chunk, seconds in stack.enter_context(closing(_timed(job.chunks(traces)))):
            encoded = _encoded(job.kind, chunk, compress=files.output.suffix == ".gz")
            progress.bytes = files.append(stream, encoded)
            progress.add(chunk, seconds)
            progress.rejects = rejects.count
            if job.note is not None:
                job.note(progress)
            files.write_journal(job.settings, progress.saved())
            if hook is not None:
                hook(chunk, progress)
        progress.rejects = rejects.count
        _refuse_nothing(job, progress)
        files.write_journal(job.settings, progress.saved())


def _finish(job: Job[R, P], files: RunFiles, progress: P) -> None:
    """Make the output of the partial file, unless that is done, and say so."""
    with writing(files.output):
        if files.partial.exists():
            if job.kind.place is None:
                files.partial.replace(files.output)
            else:
                job.kind.place(files.partial, files.output)
                files.partial.unlink()
    counts = {status: number for status, number in sorted(progress.counts.items()) if number}
    timings, details = progress.timings(), progress.details()
    write_manifest(
        Manifest(job.kind.name, counts, job.settings, progress.rejects, timings, details=details), files.output
    )
    files.remove_journal()


def _interrupted(job: Job[R, P], files: RunFiles) -> P:
    """Return how far an interrupted run of the same settings came, once its files fit its journal."""
    try:
        content = json.loads(files.journal.read_text("utf-8"))
        saved = job.kind.progress.restored(content["progress"])
        changed = difference(content["settings"], job.settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResumeError(f"{files.journal} is damaged ({error}); pass --fresh to start over") from error
    if changed:
        raise ResumeError(
            f"{files.output}: an interrupted run with another {changed} is there; finish it with its own settings, "
            "or pass --fresh to start over"
        )
    written = files.partial if files.partial.exists() else files.output
    size = written.stat().st_size if written.exists() else 0
    if written is files.partial:
        good = size >= saved.bytes
    else:
        # An output that was written from the partial file has a length of its own.
        good = size == saved.bytes if job.kind.place is None else size > 0
    if not good:
        raise ResumeError(
            f"{written} has {size:,} bytes, but its journal says {saved.bytes:,}; pass --fresh to start over"
        )
    saved.resumed_traces = saved.traces
    return saved


def _skip(traces: Iterator[Trace], number: int) -> None:
    skipped = sum(1 for _ in islice(traces, number))
    if skipped < number:
        raise ResumeError(
            f"the input has {skipped} traces, but {number} were done before the interruption; pass --fresh to start "
            "over"
        )


def _timed(chunks: Iterator[list[R]]) -> Generator[tuple[list[R], float], None, None]:
    """Pass chunks on, with the seconds that each took."""
    started = time.monotonic()
    try:
        for chunk in chunks:
            yield chunk, time.monotonic() - started
            started = time.monotonic()
    finally:
        if isinstance(chunks, Generator):
            chunks.close()


def _encoded(kind: Kind[R, P], chunk: Iterable[R], *, compress: bool) -> bytes:
    lines = b"".join(json_line(kind.row(record)) for record in chunk)
    # Members of a gzip file may follow one another; without a time stamp the same records give the same bytes.
    return gzip.compress(lines, mtime=0) if compress else lines


def _refuse_nothing(job: Job[R, P], progress: Progress[Any]) -> None:
    if progress.traces == 0 and progress.rejects == 0:
        raise InputError(f"expected traces in {job.source.source}, found none")
