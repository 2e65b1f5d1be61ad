"""Reads what a process writes, without ever holding more than a limit."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO

_CHUNK = 1 << 16


@dataclass(slots=True)
class Stream:
    """One pipe that is read to its end, and the start of what came."""

    pipe: IO[bytes]
    limit: int
    """Bytes kept; all above are read and thrown away."""
    kept: bytearray = field(default_factory=bytearray)
    overflowed: bool = False

    def take(self, chunk: bytes) -> None:
        """Keep what there is room for."""
        room = self.limit - len(self.kept)
        self.kept += chunk[:room]
        self.overflowed |= len(chunk) > room


def pump(
    streams: Sequence[Stream], stdin: IO[bytes], text: bytes, process: int, deadline: float, stop: Callable[[], None]
) -> bool:
    """Write `text` to `stdin` and read all `streams` to their ends.

    Args:
        streams: Read at the same time, so that none blocks the process.
        stdin: Closed after `text`, or when nobody reads it.
        text: What the process gets to read.
        process: Its number. The streams may outlive it, in the hands of what it started.
        deadline: In seconds of `time.monotonic`.
        stop: Ends all that holds the streams; called when a stream overflows, or the process ends. Reading goes on.

    Returns:
        False if the deadline passed before the streams ended.
    """
    waiting = memoryview(text)
    with selectors.DefaultSelector() as selector, open(os.pidfd_open(process), "rb", buffering=0) as end:
        for stream in streams:
            os.set_blocking(stream.pipe.fileno(), False)
            selector.register(stream.pipe, selectors.EVENT_READ, stream)
        os.set_blocking(stdin.fileno(), False)
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(end, selectors.EVENT_READ)
        while any(isinstance(key.data, Stream) for key in selector.get_map().values()):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for key, _ in selector.select(left):
                if isinstance(key.data, Stream):
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    key.data.take(chunk)
                    if key.data.overflowed:
                        stop()
                    continue
                if key.fileobj is end:
                    selector.unregister(end)
                    stop()
                    continue
                with contextlib.suppress(BrokenPipeError):
                    waiting = waiting[os.write(key.fd, waiting[:_CHUNK]) :]
                    if waiting:
                        continue
                selector.unregister(stdin)
                stdin.close()
    return True
