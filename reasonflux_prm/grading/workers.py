"""Functions that may hang, crash or eat all memory, run where that harms nobody: in processes that can be killed.

Computer algebra on what a stranger wrote does all three, and it may sit in C code or swallow the exceptions that
signals raise, so limits are kept from outside: a worker that takes too long is sent SIGKILL, and another takes its
place. Workers are fresh interpreters and no forks: they share neither threads nor memory with the caller, and
`__main__` is not run again in them.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import LifoQueue
from threading import Lock, RLock
from types import TracebackType
from typing import Any, Final

from reasonflux_prm.errors import ReasonFluxError, UsageError

START_S: Final = 120.0
"""Most time that a worker may take to start and import its function, in seconds."""
AHEAD: Final = 256
"""Items that `map` hands out for each worker before the first of them is done: one that hangs holds nobody else up."""

_PROGRAM: Final = Path(__file__).with_name("worker_process.py")
_SETTINGS: Final = {
    # Sets of symbols come in an order that depends on it, and a verdict should not.
    "PYTHONHASHSEED": "0",
    # The processes are the parallelism, and each thread takes address space from the limit.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_DYING_S: Final = 2.0
"""How long a process that closed its pipe is given to end by itself, so that its own exit code can be told."""


class WorkerError(ReasonFluxError, RuntimeError):
    """A worker process could not be started, or could not import its function."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one item."""

    value: Any
    """What the function returned; None if there is an error."""
    error: str | None = None
    """None, or why there is no value: "took longer than 5 s", "the worker died (signal 9)", "ValueError: ..."."""


class WorkerPool:
    """Runs one function on many items, each within limits of time and memory, in processes of its own.

    Safe to use from several threads and from asyncio at once. Workers start when they are first needed, and end with
    `close`, with the `with` block, when the pool is dropped, and when this process ends, however it does.

    Args:
        function: "module:name" of a function from one picklable argument to a picklable result. It is imported in the
            workers; what it prints is dropped.
        size: Worker processes.
        timeout_s: Most time for one item, in seconds of the clock; starting a worker does not count.
        memory_mb: Most address space of a worker, in MiB (not kept by macOS).

    Raises:
        UsageError: A number is out of its range, or `function` is not of that form.
    """

    def __init__(self, function: str, size: int = 2, timeout_s: float = 5.0, memory_mb: int = 2048) -> None:
        if size < 1 or timeout_s <= 0 or memory_mb < 1:
            raise UsageError(
                f"size, timeout_s and memory_mb must be above 0, and are {size}, {timeout_s} and {memory_mb}"
            )
        if not all(function.partition(":")):
            raise UsageError(f'expected a function as "module:name", got {function!r}')
        self.function, self.size, self.timeout_s, self.memory_mb = function, size, timeout_s, memory_mb
        self._forking = Lock()
        self._set_up()

    def run(self, item: Any) -> Result:
        """Run the function on one item, and wait for it.

        Raises:
            WorkerError: A worker could not start or could not import the function.
            UsageError: The pool is closed.
        """
        return self._submit(item).result()

    async def arun(self, item: Any) -> Result:
        """Run the function on one item; see `run`."""
        import asyncio  # which takes longer to import than all of the above

        return await asyncio.wrap_future(self._submit(item))

    def map(self, items: Iterable[Any]) -> Iterator[Result]:
        """Run the function on every item, and yield the results in order.

        A bounded number of items is taken ahead of the result that is waited for. See `run` for what is raised.
        """
        rest = iter(items)
        waiting = deque(self._submit(item) for item in islice(rest, AHEAD * self.size))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(self._submit(item) for item in islice(rest, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """End the workers; what is running or waiting gets an error. More than once is fine."""
        self._end()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set_up(self) -> None:
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="worker-pool")
        workers = [_Worker(self.function, self.memory_mb << 20) for _ in range(self.size)]
        # Last in, first out: a caller who asks one thing at a time pays for the start of one worker.
        self._idle: LifoQueue[_Worker] = LifoQueue()
        for worker in workers:
            self._idle.put(worker)
        self._pid = os.getpid()
        self._end = weakref.finalize(self, _shut_down, self._pid, self._threads, workers)

    def _submit(self, item: Any) -> Future[Result]:
        if self._pid != os.getpid():
            # A fork has none of the threads, and the workers answer its parent.
            with self._forking:
                if self._pid != os.getpid():
                    self._set_up()
        try:
            return self._threads.submit(_run, self._idle, item, self.timeout_s)
        except RuntimeError as error:
            raise UsageError("the worker pool is closed; open another") from error


def _run(idle: LifoQueue[_Worker], item: Any, timeout_s: float) -> Result:
    """Give an item to a worker that has nothing to do; there is one for each thread that may call this."""
    try:
        request = pickle.dumps(item)
    except Exception as error:
        return Result(None, f"the item cannot be pickled ({type(error).__name__}: {error})")
    worker = idle.get()
    try:
        return worker.ask(request, timeout_s)
    finally:
        idle.put(worker)


def _shut_down(pid: int, threads: ThreadPoolExecutor, workers: list[_Worker]) -> None:
    if pid != os.getpid():
        return
    threads.shutdown(wait=False)
    for worker in workers:
        worker.close()


class _Closed(Exception):
    """The pool was closed."""


class _Worker:
    """One process at a time that runs the function; `ask` is called by one thread at a time, `close` by any."""

    def __init__(self, function: str, memory: int) -> None:
        self._function, self._memory = function, memory
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = Lock()
        """Held to read or change the two above."""
        self._using = RLock()
        """Held while the pipes are used. Reentrant, since collecting a dropped pool may close it from anywhere."""

    def ask(self, request: bytes, timeout_s: float) -> Result:
        """Have one pickled item done; a process that does not survive it is replaced when the next one comes."""
        with self._using:
            try:
                value, error, able = _exchange(self._started(), request, time.monotonic() + timeout_s)
            except TimeoutError:
                value, error, able = None, f"took longer than {timeout_s:g} s", False
            except (OSError, EOFError):
                code = self._stop(_DYING_S)
                value, error, able = None, f"the worker died ({_ending(code)})", False
            except _Closed:
                able = False
            except (pickle.UnpicklingError, AttributeError, ImportError) as trouble:
                value, error, able = None, f"the result cannot be read back ({trouble})", False
            if self._closed:
                value, error, able = None, "the worker pool was closed", False
            if not able:
                self._stop()
            return Result(value, error)

    def close(self) -> None:
        """End the process, and start no other."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            # Whoever waits for it sees its pipe close, and lets go of it.
            _kill(process)
        with self._using:
            self._stop()

    def _started(self) -> subprocess.Popen[bytes]:
        """Return the process, which is there and waits for an item.

        Raises:
            WorkerError: It does not start or cannot import the function.
            _Closed: The pool was closed.
        """
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        with self._lock:
            if self._closed:
                raise _Closed
            process = self._process = _spawn()
        try:
            orders = pickle.dumps((self._function, sys.path, self._memory))
            trouble = _exchange(process, orders, time.monotonic() + START_S)
        except (OSError, EOFError) as error:
            late = isinstance(error, TimeoutError)
            code = self._stop(0 if late else _DYING_S)
            if self._closed:
                raise _Closed from error
            why = f"it was not ready within {START_S:g} s" if late else f"it ended at once ({_ending(code)})"
            raise WorkerError(f"a worker process for {self._function} did not start: {why}") from error
        if trouble is not None:
            self._stop()
            raise WorkerError(f"a worker process cannot import {self._function}: {trouble}")
        return process

    def _stop(self, grace_s: float = 0) -> int:
        """Kill the process, unless it ends by itself within `grace_s` seconds, and return its exit code."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
        _kill(process)
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return code


def _spawn() -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(
            # Without -P the folder of the program would come first on the path.
            [sys.executable, "-P", str(_PROGRAM)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_SETTINGS},
            # Of its own, so that Ctrl-C at a terminal ends this process and not, before it, the workers.
            process_group=0,
        )
    except OSError as error:
        raise WorkerError(f"a worker process did not start: {error}; free some memory or processes") from error
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and with it whatever it started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


# --- frames, with a deadline ----------------------------------------------------------------------------------------


def _exchange(process: subprocess.Popen[bytes], request: bytes, deadline: float) -> Any:
    """Send one frame and return what comes back.

    Raises:
        TimeoutError: The deadline passed first.
        OSError: The process is gone.
        EOFError: The process is gone.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    _send(process.stdin.fileno(), len(request).to_bytes(8, "little") + request, deadline)
    source = process.stdout.fileno()
    length = int.from_bytes(_receive(source, 8, deadline), "little")
    return pickle.loads(_receive(source, length, deadline))


def _send(target: int, data: bytes, deadline: float) -> None:
    rest = memoryview(data)
    while rest:
        _wait(target, select.POLLOUT, deadline)
        rest = rest[os.write(target, rest) :]


def _receive(source: int, length: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < length:
        _wait(source, select.POLLIN, deadline)
        if not (chunk := os.read(source, min(length - len(received), 1 << 20))):
            raise EOFError
        received += chunk
    return bytes(received)


def _wait(descriptor: int, event: int, deadline: float) -> None:
    waiter = select.poll()
    waiter.register(descriptor, event)
    left = deadline - time.monotonic()
    if left <= 0 or not waiter.poll(left * 1000):
        raise TimeoutError
