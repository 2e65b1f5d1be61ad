"""Score a file of traces into a file of scored traces, in constant memory, surviving a kill at any moment.

Records are appended to `.X.jsonl.partial` chunk by chunk. After each chunk the file is flushed to the disk and then a
journal beside it, replaced in one move, says how many traces and bytes are good. A run that finds a journal of the same
settings and input cuts the partial file to the good bytes, skips the traces that are done, and goes on; since a chunk
depends on nothing before it, the output has the same bytes as that of a run that was never interrupted. When all is
done the partial file takes the output's name. The journal goes last, so a kill at any point in between is told from a
finished run.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from filelock import FileLock, Timeout

from reasonflux_prm.errors import InputError, ResumeError
from reasonflux_prm.records import PRMIdentity, Reject, ScoredTrace, Status, Trace
from reasonflux_prm.traces.manifest import Manifest, read_manifest, write_manifest
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import RejectsWriter, atomic_path, json_line, scored_row, writing

KIND = "scored"
PIPE = "-"


class Scorer(Protocol):
    """What turns traces into scored traces: `engine.Engine`, or `generative_run.GenerativeScorer`."""

    @property
    def identity(self) -> PRMIdentity:
        """The PRM, as the records name it."""

    def score_chunks(self, traces: Iterable[Trace]) -> Iterator[list[ScoredTrace]]:
        """Score traces chunk by chunk, in order; a chunk depends on nothing that stands before it."""

    def settings_for_manifest(self) -> dict[str, Any]:
        """Return what else the records depend on, as JSON values."""


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
        stamp: dict[str, Any] = {**asdict(self), "columns": dict(self.columns)}
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


@dataclass(slots=True)
class Progress:
    """How far a run is; the journal holds it."""

    traces: int = 0
    """Traces that are on the disk."""
    tokens: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    """Traces by status."""
    bytes: int = 0
    """Length of the partial file that is good."""
    rejects: int = 0
    resumed_traces: int = 0
    """Traces that an earlier, interrupted run had done."""

    def add(self, chunk: list[ScoredTrace], seconds: float) -> None:
        """Count one chunk."""
        self.traces += len(chunk)
        self.tokens += sum(scored.tokens for scored in chunk)
        self.counts.update(scored.status.value for scored in chunk)
        self.seconds += seconds

    @property
    def unscored(self) -> int:
        """Return the number of traces without a reward."""
        return self.traces - self.counts[Status.SCORED.value]


Hook = Callable[[list[ScoredTrace], Progress], None]
"""Called after each chunk, once it is on the disk."""


def run_scoring(
    scorer: Scorer, source: Input, output: Path, *, resume: bool = True, hook: Hook | None = None
) -> Progress:
    """Score `source` into `output` and write its manifest and, where input was refused, its rejects file.

    Args:
        scorer: PRM and settings.
        source: What to read. A pipe cannot be read twice, so a run from one always starts over.
        output: A `.jsonl` file, or `.jsonl.gz`.
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
    if resume and source.source == PIPE and output.exists():
        raise ResumeError(
            f"{output} exists, and what comes through a pipe cannot be compared with what it was made of; choose "
            "another output or pass --fresh to replace it"
        )
    settings = scoring_settings(scorer, source)
    files = _Files(output)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with _only_writer(output):
        if not resume or source.source == PIPE:
            with writing(output):
                files.journal.unlink(missing_ok=True)
        elif files.journal.exists():
            progress = _interrupted(files, settings)
            if not files.partial.exists():
                # Killed after the partial file had taken the output's name.
                _finish(files, settings, progress)
                return progress
            _score(scorer, source, files, settings, progress, hook)
            return progress
        elif (manifest := finished_run(output, KIND, settings)) is not None:
            total = sum(manifest.counts.values())
            return Progress(total, counts=Counter(manifest.counts), rejects=manifest.rejects, resumed_traces=total)
        progress = Progress()
        try:
            _score(scorer, source, files, settings, progress, hook)
        finally:
            _unlink_if_empty(files.partial)
        return progress


def stream_scoring(
    scorer: Scorer, source: Input, rejects: Callable[[Reject], None] | None = None, hook: Hook | None = None
) -> Progress:
    """Score `source` to standard output; a pipe cannot be resumed, so nothing is kept.

    Raises:
        InputError: The source is missing or holds no record; or, without `rejects`, a record is bad.
        BrokenPipeError: Nobody reads on.
    """
    progress = Progress()

    def refuse(reject: Reject) -> None:
        progress.rejects += 1
        if rejects is not None:
            rejects(reject)

    traces = source.read(refuse if rejects is not None else None)
    for chunk in _counted(scorer.score_chunks(traces), progress):
        sys.stdout.buffer.write(_encoded(chunk, compress=False))
        sys.stdout.buffer.flush()
        if hook is not None:
            hook(chunk, progress)
    _refuse_nothing(progress, source)
    return progress


def scoring_settings(scorer: Scorer, source: Input) -> dict[str, Any]:
    """Return everything that the bytes of the output depend on, as JSON values."""
    settings = {
        "prm": asdict(scorer.identity),
        "engine": scorer.settings_for_manifest(),
        "input": source.fingerprint(),
    }
    return dict(json.loads(json.dumps(settings)))


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
    if difference := _difference({"kind": manifest.kind, **manifest.settings}, {"kind": kind, **settings}):
        raise ResumeError(
            f"{output} belongs to a run with another {difference}; choose another output, or pass --fresh to replace it"
        )
    return manifest


# --- a run ---------------------------------------------------------------------------------------------------------


class _Files:
    """The output, and what stands beside it while it is made."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.partial = output.with_name(f".{output.name}.partial")
        self.journal = output.with_name(f".{output.name}.journal")


@contextmanager
def _only_writer(output: Path) -> Iterator[None]:
    """Keep a second run away from the output; the system takes the lock back from a process that dies."""
    path = output.with_name(f".{output.name}.lock")
    lock = FileLock(path)
    with writing(output):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ResumeError(f"another process is writing {output}; wait for it, or choose another output") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def _score(
    scorer: Scorer, source: Input, files: _Files, settings: Mapping[str, Any], progress: Progress, hook: Hook | None
) -> None:
    """Score what is left, and finish; `progress` goes along."""
    output = files.output
    with ExitStack() as stack:
        rejects = stack.enter_context(RejectsWriter(output))
        traces = source.read(rejects)
        _skip(traces, progress.traces)
        stream = stack.enter_context(_appending(files.partial, progress.bytes, output))
        for chunk in _counted(scorer.score_chunks(traces), progress):
            with writing(output):
                stream.write(_encoded(chunk, compress=output.suffix == ".gz"))
                stream.flush()
                os.fsync(stream.fileno())
                progress.bytes = stream.tell()
            progress.rejects = rejects.count
            _write_journal(files.journal, settings, progress)
            if hook is not None:
                hook(chunk, progress)
        progress.rejects = rejects.count
        _refuse_nothing(progress, source)
        _write_journal(files.journal, settings, progress)
    _finish(files, settings, progress)


@contextmanager
def _appending(partial: Path, good: int, output: Path) -> Iterator[IO[bytes]]:
    """Open the partial file behind its good bytes."""
    with writing(output):
        stream = partial.open("r+b" if good else "wb")
    try:
        with writing(output):
            stream.truncate(good)
            stream.seek(good)
        yield stream
    finally:
        # What counts is on the disk already; closing would try once more to write what could not be written.
        with suppress(OSError):
            stream.close()


def _finish(files: _Files, settings: Mapping[str, Any], progress: Progress) -> None:
    """Give the partial file its name, unless it has it, and say so."""
    with writing(files.output):
        if files.partial.exists():
            files.partial.replace(files.output)
    counts = {status: number for status, number in sorted(progress.counts.items()) if number}
    timings = {"scoring": round(progress.seconds, 3)}
    write_manifest(Manifest(KIND, counts, settings, progress.rejects, timings), files.output)
    with writing(files.output):
        files.journal.unlink(missing_ok=True)


def _interrupted(files: _Files, settings: Mapping[str, Any]) -> Progress:
    """Return how far an interrupted run of the same settings came, once its files fit its journal."""
    try:
        content = json.loads(files.journal.read_text("utf-8"))
        saved = Progress(**{**content["progress"], "counts": Counter(content["progress"]["counts"])})
        difference = _difference(content["settings"], settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResumeError(f"{files.journal} is damaged ({error}); pass --fresh to start over") from error
    if difference:
        raise ResumeError(
            f"{files.output}: an interrupted run with another {difference} is there; finish it with its own settings, "
            "or pass --fresh to start over"
        )
    written = files.partial if files.partial.exists() else files.output
    size = written.stat().st_size if written.exists() else 0
    if size < saved.bytes or (written is files.output and size != saved.bytes):
        raise ResumeError(
            f"{written} has {size:,} bytes, but its journal says {saved.bytes:,}; pass --fresh to start over"
        )
    saved.resumed_traces = saved.traces
    return saved


def _write_journal(journal: Path, settings: Mapping[str, Any], progress: Progress) -> None:
    with atomic_path(journal) as part, writing(journal):
        # asdict would rebuild the counter from its items, that is, count them.
        saved = {**asdict(progress), "counts": dict(progress.counts)}
        part.write_text(json.dumps({"settings": settings, "progress": saved}), encoding="utf-8")


def _skip(traces: Iterator[Trace], number: int) -> None:
    skipped = sum(1 for _ in islice(traces, number))
    if skipped < number:
        raise ResumeError(
            f"the input has {skipped} traces, but {number} were scored before the interruption; pass --fresh to start "
            "over"
        )


def _counted(chunks: Iterator[list[ScoredTrace]], progress: Progress) -> Iterator[list[ScoredTrace]]:
    """Pass chunks on and count them, with the time each took."""
    started = time.monotonic()
    for chunk in chunks:
        progress.add(chunk, time.monotonic() - started)
        yield chunk
        started = time.monotonic()


def _encoded(chunk: list[ScoredTrace], *, compress: bool) -> bytes:
    lines = b"".join(json_line(scored_row(scored)) for scored in chunk)
    # Members of a gzip file may follow one another; without a time stamp the same records give the same bytes.
    return gzip.compress(lines, mtime=0) if compress else lines


def _refuse_nothing(progress: Progress, source: Input) -> None:
    if progress.traces == 0 and progress.rejects == 0:
        raise InputError(f"expected traces in {source.source}, found none")


def _unlink_if_empty(path: Path) -> None:
    """Leave nothing behind a run that failed before its first record."""
    with suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return the first setting in which two runs differ, with both values, or None."""
    for name in sorted(set(old) | set(new)):
        a, b = old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if difference := _difference(a, b, f"{prefix}{name}."):
                return difference
        elif a != b:
            return f"{prefix}{name} ({a!r}, now {b!r})"
    return None
