"""An event loop on a thread of its own, and many requests answered at once on it.

A policy's connections belong to one event loop, but its callers live in many: plain code, a notebook whose loop is
already running, several `asyncio.run` one after another. So the policy owns a loop, and everyone hands work over to it.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from reasonflux_prm.errors import UsageError
from reasonflux_prm.policy.base import Outcome, Request

T = TypeVar("T")

_MOST_S_TO_END = 5.0
"""Seconds that work given up has to clean up after itself."""


class LoopThread:
    """A daemon thread that runs one event loop, started with the first work and ended by `close` or with the process.

    Args:
        name: The thread's name, for debuggers.
        last: What is awaited on the loop before it ends.
    """

    def __init__(self, name: str, last: Callable[[], Awaitable[None]] | None = None) -> None:
        self._name, self._last = name, last
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Callable[[], object] | None = None
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work` from plain code; Ctrl-C meanwhile cancels it.

        Raises:
            UsageError: The thread has been closed.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._running(work))
        try:
            return future.result()
        finally:
            future.cancel()  # does nothing to work that is done

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work` from any event loop; cancelling the caller cancels it.

        Raises:
            UsageError: The thread has been closed.
        """
        loop = self._running(work)
        if loop is asyncio.get_running_loop():
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    def close(self) -> None:
        """Cancel what still runs and end the thread."""
        with self._lock:
            self._closed = True
            end = self._end
        if end is not None:
            end()

    def _running(self, work: Coroutine[Any, Any, T]) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                work.close()
                raise UsageError("this policy is closed; open it again to ask it anything")
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_serve, args=(loop,), name=self._name, daemon=True)
                thread.start()
                # Runs at the end of the process as well, so nothing under way is torn down with the interpreter.
                self._end = weakref.finalize(self, _stop, loop, thread, self._last)
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


def _stop(
    loop: asyncio.AbstractEventLoop, thread: threading.Thread, last: Callable[[], Awaitable[None]] | None
) -> None:
    async def give_up() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=_MOST_S_TO_END) if others else None
        if last is not None:
            await last()

    if thread is threading.current_thread():
        loop.stop()
        return
    asyncio.run_coroutine_threadsafe(give_up(), loop).add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
    thread.join(2 * _MOST_S_TO_END)


async def answer_all(
    ask: Callable[[Request], Awaitable[Outcome]], requests: Sequence[Request], concurrency: int
) -> list[Outcome]:
    """Answer every request, in order, `concurrency` at a time.

    Raises:
        PolicyStopped: A request met it. No other one was started after that, and those under way have come to their
            end, so that what was paid for could be kept.
    """
    outcomes: dict[int, Outcome] = {}
    waiting = iter(enumerate(requests))
    stopped: list[Exception] = []

    async def work() -> None:
        for index, request in waiting:
            if stopped:
                return
            try:
                outcomes[index] = await ask(request)
            except Exception as error:
                stopped.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(requests))):
            group.create_task(work())
    if stopped:
        raise stopped[0]
    return [outcomes[index] for index in range(len(requests))]
