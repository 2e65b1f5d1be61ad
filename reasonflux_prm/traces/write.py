"""Traces and scores out: rows on disk, whole files or none, and the records that were refused.

A file is written beside its place and moved there when it is complete and on the disk, so that no reader ever meets
half of it.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from reasonflux_prm.errors import InputError, OutputError, ReasonFluxError
from reasonflux_prm.records import PRMIdentity, Reject, ScoredTrace, Status
from reasonflux_prm.traces.columns import column_list
from reasonflux_prm.traces.native import is_native, is_scored, native, read_steps, step_row, trace_row
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import DATA_SUFFIXES, REJECTS_SUFFIX, open_source

# JSON allows these inside a text, but many readers take them for the end of a line.
_LINE_ENDS = str.maketrans({"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def json_line(record: Mapping[str, Any]) -> bytes:
    r"""Return a record as one line of JSON, in UTF-8, its columns in the order that they have.

    Raises:
        InputError: The record holds NaN or infinity, half a surrogate pair, or something that JSON has no form for.

    Example:
        >>> json_line({"id": "a", "reward": 0.5})
        b'{"id": "a", "reward": 0.5}\n'
    """
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        return text.translate(_LINE_ENDS).encode("utf-8") + b"\n"
    except (ValueError, TypeError) as error:
        raise InputError(f"expected the record {record.get('id', '')!r} to fit into JSON, got: {error}") from error


def side_path(output: Path, ending: str) -> Path:
    """Return the path of a file beside an output: `X.jsonl` and `.manifest.json` give `X.manifest.json`."""
    suffixes = (*DATA_SUFFIXES, output.suffix)
    name = next((output.name.removesuffix(s) for s in suffixes if s and output.name.endswith(s)), output.name)
    return output.with_name(name + ending)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the system's refusals to write in the block into one error that names `path`.

    Raises:
        OutputError: The disk is full, there is no permission, or the like.
    """
    try:
        yield
    except ReasonFluxError:
        raise
    except OSError as error:
        raise _output_error(path, error) from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, and put that file in the place of `path` if the block ends without an error.

    The directory is made if it is not there. Whatever happens, `path` holds the old file or the new one, whole. Two
    runs must not write the same output at the same time.

    Yields:
        A path in the same directory, which the block has to write.

    Raises:
        OutputError: The file could not be written.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            yield part
        except ReasonFluxError:
            raise
        except OSError as error:
            # The block does more than write, so only what must come from the disk is taken for its fault.
            if error.errno in _FULL:
                raise _output_error(target, error) from error
            raise
        with writing(target):
            _sync(part)
            part.replace(target)
            _sync(target.parent)
    finally:
        part.unlink(missing_ok=True)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _output_error(path: str | Path, error: OSError) -> OutputError:
    remedy = "free some space, or choose an output on another disk" if error.errno in _FULL else "choose another output"
    return OutputError(f"expected to write {path}, got: {error.strerror or error}; {remedy}")


_SYNC_EVERY_S = 0.5


@contextmanager
def synced_meanwhile(stream: IO[bytes]) -> Iterator[None]:
    """Have the system put a file onto the disk while the block writes it, so that the sync at its end has little left.

    Raises:
        OSError: The disk refused what had been written.
    """
    refused: list[OSError] = []
    done = threading.Event()
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has the latter alone

    def work() -> None:
        try:
            while not done.wait(_SYNC_EVERY_S):
                sync(stream.fileno())
        except OSError as error:
            refused.append(error)  # the system tells it once: the sync at the end would not hear of it

    thread = threading.Thread(target=work, name="sync", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if refused:
        raise refused[0]


def _sync(path: Path) -> None:
    """Have the system put a file, or the names in a directory, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RejectsWriter:
    """Writes refused records to `X.rejects.jsonl` beside the output `X.jsonl`; pass it as `rejects` to `read_traces`.

    The file appears as a whole when the block ends without an error, and only if there are rejects; one of an earlier
    run goes.

    Args:
        output: The output's path.

    Example:
        ```python
        with RejectsWriter("scored.jsonl") as rejects:
            for trace in read_traces("traces.jsonl", rejects=rejects):
                ...
        print(rejects.count, rejects.path)
        ```
    """

    def __init__(self, output: str | Path) -> None:
        self.path = side_path(Path(output), REJECTS_SUFFIX)
        self.count = 0
        self._stack = ExitStack()
        self._stream: IO[bytes] | None = None

    def __call__(self, reject: Reject) -> None:
        """Write one reject."""
        with writing(self.path):
            if self._stream is None:
                self._stream = self._stack.enter_context(self._stack.enter_context(atomic_path(self.path)).open("wb"))
            self._stream.write(json_line(asdict(reject)))
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        if error is None and self.count == 0:
            with writing(self.path):
                self.path.unlink(missing_ok=True)


def scored_row(scored: ScoredTrace) -> dict[str, Any]:
    """Return a scored trace as a row: what the PRM says, then the trace's own columns.

    `read_scored` reads it back to an equal one.
    """
    return {
        "id": scored.trace.id,
        "status": scored.status.value,
        "steps": [
            {**step_row(step), "reward": reward} for step, reward in zip(scored.steps, scored.step_rewards, strict=True)
        ],
        "trajectory_reward": scored.trajectory_reward,
        "reward": scored.reward,
        "prm": asdict(scored.prm),
        "tokens": scored.tokens,
        "overflow": scored.overflow,
        "note": scored.note,
        **trace_row(scored.trace),
    }


def read_scored(path: str | Path) -> Iterator[ScoredTrace]:
    """Read scored traces back, in order and in constant memory.

    Args:
        path: A file of scored rows, or any other source that `traces.sources.open_source` takes.

    Raises:
        InputError: The source is not there, or a record is not a scored trace.
    """
    for row in open_source(path):
        if isinstance(row, Reject):
            raise InputError(f"{row.file}:{row.line}: {row.reason}")
        yield scored_of(row)


def scored_of(row: Row) -> ScoredTrace:
    """Return the scored trace that a row holds.

    Raises:
        InputError: It holds none.
    """
    try:
        return _scored(row)
    except (InputError, KeyError, TypeError, ValueError) as error:
        reason = error if isinstance(error, InputError) else f"expected a scored trace, got a wrong {error}"
        raise InputError(f"{row.file}:{row.line}: {reason}") from error


def _scored(row: Row) -> ScoredTrace:
    columns = row.columns
    if not (is_scored(columns) and is_native(columns)):
        raise InputError(f"expected a row that `reasonflux-prm score` wrote; the record has {column_list(columns)}")
    trace = native(columns, row.where)[0]
    return ScoredTrace(
        trace=trace,
        status=Status(columns["status"]),
        steps=read_steps(columns["steps"], {"thinking": trace.thinking, "response": trace.response}, "steps"),
        step_rewards=tuple(_reward(step["reward"]) for step in columns["steps"]),
        trajectory_reward=_reward(columns["trajectory_reward"]),
        reward=_reward(columns["reward"]),
        prm=PRMIdentity(**columns["prm"]),
        tokens=columns["tokens"],
        overflow=columns["overflow"],
        note=columns["note"],
    )


def _reward(value: Any) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise InputError(f"expected rewards to be numbers or null, got {value!r}")
