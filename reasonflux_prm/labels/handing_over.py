"""Bytes from one process to another through a file that both hold, since a pipe copies every byte several times.

The file is written over and over, so it stays in the system's memory, whatever passes through it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reasonflux_prm.traces.write import writing

PLACE_BYTES: Final = 1 << 21
"""Bytes that a place holds; what is longer goes through the pipe."""


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the file, for one message at a time."""

    file: str
    start: int

    def put(self, message: bytes) -> bytes | int:
        """Put a message down.

        Returns:
            Its length, or the message itself if the place does not hold it: what `get` needs.
        """
        if len(message) > PLACE_BYTES:
            return message
        with Path(self.file).open("r+b") as stream:
            stream.seek(self.start)
            return stream.write(message)

    def get(self, put: bytes | int) -> bytes:
        """Return the message that `put` put down."""
        if isinstance(put, bytes):
            return put
        with Path(self.file).open("rb") as stream:
            stream.seek(self.start)
            return stream.read(put)


@contextmanager
def hand_over(beside: Path, count: int) -> Iterator[list[Place]]:
    """Make places in a file beside an output, which is removed in the end.

    Raises:
        OutputError: The file cannot be made.
    """
    file = beside.with_name(f".{beside.name}.passing")
    with writing(file):
        file.write_bytes(b"")
    try:
        yield [Place(str(file), number * PLACE_BYTES) for number in range(count)]
    finally:
        file.unlink(missing_ok=True)
