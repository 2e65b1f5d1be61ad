"""The program that each worker of `grading.workers` runs.

It is started as a file of its own, so it imports nothing but the standard library until it is told its function. What
goes through its pipes are frames: eight bytes with the length, then a pickle. The first frame in says what to do
(`Orders`), the first frame out is None or why that cannot be done; from then on one item in, one `Reply` out, until
the pipe closes.
"""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

Orders = tuple[str, list[str], int]
"""The function as "module:name", the parent's `sys.path`, and the most address space in bytes."""
Reply = tuple[Any, str | None, bool]
"""The value, the error (one sentence, None if there is none), and whether this worker can go on."""

_MAX_MESSAGE = 500
_DEATH_SIGNAL_OPTION = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def write_frame(stream: IO[bytes], frame: bytes) -> None:
    """Write one frame to a worker's pipe."""
    stream.write(len(frame).to_bytes(8, "little") + frame)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes:
    """Read one frame.

    Raises:
        EOFError: The pipe was closed.
    """
    header = stream.read(8)
    length = int.from_bytes(header, "little")
    if len(header) < 8 or len(frame := stream.read(length)) < length:
        raise EOFError
    return frame


def sentence(error: BaseException) -> str:
    """Return what an exception says, even if it cannot say it."""
    try:
        said = str(error)
    except BaseException:
        said = ""
    name = type(error).__name__
    return f"{name}: {said}"[:_MAX_MESSAGE] if said else name


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Do as the first frame says with every frame that follows."""
    name, path, memory = pickle.loads(read_frame(requests))
    sys.path[:] = path
    try:
        function = _imported(name)
    except BaseException as error:
        write_frame(replies, pickle.dumps(sentence(error)))
        return
    if sys.platform != "darwin":  # which has this limit and does not keep it
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    write_frame(replies, pickle.dumps(None))
    able = True
    while able:
        frame, able = _answer(function, read_frame(requests))
        write_frame(replies, frame)


def _imported(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), attribute)
    return function


def _answer(function: Callable[[Any], Any], request: bytes) -> tuple[bytes, bool]:
    """Return the reply as a frame, and whether this worker can go on."""
    try:
        reply: Reply = function(pickle.loads(request)), None, True
    except MemoryError:
        # What was cut off half way, in whichever library, cannot be trusted with the next item.
        reply = None, "needed more memory than it may have", False
    except BaseException as error:
        reply = None, sentence(error), True
    try:
        return pickle.dumps(reply), reply[2]
    except MemoryError:
        return pickle.dumps((None, "needed more memory than it may have", False)), False
    except BaseException as error:
        return pickle.dumps((None, f"the result cannot be pickled ({sentence(error)})", True)), True


def _die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies: it may be busy and not read its pipe.

    To the kernel the parent is a thread: one of the pool's own, which end when the pool is closed or dropped.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    parent = os.getppid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL_OPTION, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Serve the pipes that this process was started with; what its function prints goes nowhere."""
    _die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    with suppress(EOFError, BrokenPipeError):
        serve(requests, replies)
    # No atexit, no joining of threads that the function may have left: nobody waits for this process.
    os._exit(0)


if __name__ == "__main__":
    main()
