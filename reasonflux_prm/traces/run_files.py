"""The files of a run: its output, what stands beside it while it is made, and the right to write them.

`.X.jsonl.partial` holds the records so far, `.X.jsonl.journal` how many of its bytes are good, `.X.jsonl.lock` keeps a
second run away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from reasonflux_prm.errors import ResumeError
from reasonflux_prm.traces.write import atomic_path, writing


class RunFiles:
    """The output, and what stands beside it while it is made."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.partial = output.with_name(f".{output.name}.partial")
        self.journal = output.with_name(f".{output.name}.journal")
        self.lock = output.with_name(f".{output.name}.lock")

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Keep a second run away from the output; the system takes the lock back from a process that dies.

        Raises:
            ResumeError: Another process is writing the output.
        """
        lock = FileLock(self.lock)
        with writing(self.output):
            self._acquire(lock)
        try:
            yield
        finally:
            with suppress(OSError):
                self.lock.unlink()
            lock.release()

    def _acquire(self, lock: FileLock) -> None:
        """Lock the file that has the lock's name.

        The run that held it before removed it. Who had opened it just then would lock a file without a name, and the
        next one a new file of that name; so what has the name must be the same file before and after.
        """
        while True:
            self.lock.touch()
            before = self._inode()
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise ResumeError(
                    f"another process is writing {self.output}; wait for it, or choose another output"
                ) from error
            if before is not None and self._inode() == before:
                return
            lock.release()

    def _inode(self) -> int | None:
        try:
            return self.lock.stat().st_ino
        except FileNotFoundError:
            return None

    @contextmanager
    def appending(self, good: int) -> Iterator[IO[bytes]]:
        """Open the partial file behind its good bytes."""
        with writing(self.output):
            stream = self.partial.open("r+b" if good else "wb")
        try:
            with writing(self.output):
                stream.truncate(good)
                stream.seek(good)
            yield stream
        finally:
            # What counts is on the disk already; closing would try once more to write what could not be written.
            with suppress(OSError):
                stream.close()

    def append(self, stream: IO[bytes], data: bytes) -> int:
        """Write behind the good bytes, put them onto the disk, and return how many are good now."""
        with writing(self.output):
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            return stream.tell()

    def write_journal(self, settings: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Replace the journal in one move."""
        with atomic_path(self.journal) as part, writing(self.journal):
            part.write_text(json.dumps({"settings": settings, "progress": progress}), encoding="utf-8")

    def remove_journal(self) -> None:
        """Remove the journal, if there is one."""
        with writing(self.output):
            self.journal.unlink(missing_ok=True)

    def forget_empty(self) -> None:
        """Leave nothing behind a run that failed before its first record, unless its journal has something to tell."""
        with suppress(OSError):
            if self.partial.stat().st_size == 0 and not self.journal.exists():
                self.partial.unlink()


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return the first setting in which two runs differ, with both values, or None."""
    for name in sorted(set(old) | set(new)):
        a, b = old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if found := difference(a, b, f"{prefix}{name}."):
                return found
        elif a != b:
            return f"{prefix}{name} ({a!r}, now {b!r})"
    return None
