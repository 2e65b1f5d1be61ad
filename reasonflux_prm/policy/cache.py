"""A policy with a durable cache: what has been answered once is never asked again, not even after a kill.

Every completion is on the disk before it is returned. Failures are not kept, so they are asked again the next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from reasonflux_prm.errors import PolicyError, PolicyStopped
from reasonflux_prm.policy.base import Completion, Outcome, PartlyAnswered, Policy, Request
from reasonflux_prm.policy.completion_store import CompletionStore, Row, request_key
from reasonflux_prm.policy.loop import LoopThread, answer_all


class CachedPolicy:
    """Answer from a file what it holds, and ask the policy for the rest.

    Completions are stored under the policy's identity, the messages, the sampling settings, the seed and the sample's
    index. So a request with n = 8 after the same one with n = 4 asks for four more (with the seed moved on by four),
    and what is shared with other runs, other processes included, is paid for once.

    Within a process, equal requests under way at the same time share one call. A call is given up when nobody waits
    for it any more. A stop of the policy is passed on only when the calls under way have come back, so that what was
    paid for is kept whatever the caller does then.

    Args:
        policy: What answers; `BudgetedPolicy` belongs inside, as answers from the cache are free.
        path: The SQLite file, on a local disk; created if missing.

    Raises:
        PolicyStopped: The file cannot be used.
    """

    def __init__(self, policy: Policy, path: Path) -> None:
        self._policy = policy
        self._identity = policy.identity()
        self._store = CompletionStore(path)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="completions")
        self._loop = LoopThread("cache")
        self.hits = 0
        """Completions that cost no call: from the file, or shared with an equal request under way."""
        self.misses = 0
        """Completions that the policy was asked for."""
        # The rest belongs to the loop's thread.
        self._calls: dict[bytes, _Call] = {}
        self._open = 0
        self._none_open = asyncio.Event()
        self._unwritten: list[tuple[list[Row], asyncio.Future[list[Completion]]]] = []
        self._writing: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self._policy.name

    @property
    def concurrency(self) -> int:
        """As the policy inside."""
        return self._policy.concurrency

    def identity(self) -> Mapping[str, Any]:
        """Return the identity of the policy inside: a cache changes no answer."""
        return self._identity

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer every request, in order.

        Raises:
            PolicyStopped: The policy inside has stopped, or the file cannot be used.
        """
        return self._loop.run(answer_all(self._answer, requests, self.concurrency))

    async def ask(self, request: Request) -> Outcome:
        """Answer one request.

        Raises:
            PolicyStopped: The policy inside has stopped, or the file cannot be used.
        """
        return await self._loop.call(self._answer(request))

    def close(self) -> None:
        """Close the file and the policy inside; requests under way are given up."""
        self._loop.close()
        self._writer.shutdown(wait=True)
        self._store.close()
        self._policy.close()

    async def _answer(self, request: Request) -> Outcome:
        key = request_key(self._identity, request)
        while (call := self._calls.get(key)) is not None:
            outcome = await call.wait()
            if isinstance(outcome, PolicyError):
                return outcome
            if len(outcome) >= request.n:
                self.hits += request.n
                return outcome[: request.n]
        had = self._store.read(key, request.n)
        self.hits += len(had)
        if len(had) == request.n:
            return had
        self.misses += request.n - len(had)
        call = _Call(asyncio.create_task(self._call(request, key, had)), lambda: self._calls.pop(key, None))
        self._calls[key] = call
        return await call.wait()

    async def _call(self, request: Request, key: bytes, had: list[Completion]) -> Outcome:
        """Ask for the samples that are missing, store them, and return all."""
        have = len(had)
        seed = None if request.seed is None else request.seed + have
        self._open += 1
        self._none_open.clear()
        try:
            outcome = await self._policy.ask(replace(request, n=request.n - have, seed=seed))
            completions = outcome.completions if isinstance(outcome, PartlyAnswered) else outcome
            if isinstance(completions, PolicyError):
                return completions
            kept = await self._keep([Row(key, have + index, one) for index, one in enumerate(completions)])
            return outcome if isinstance(outcome, PolicyError) else [*had, *kept]
        except PolicyStopped as stop:
            stopped = stop
        finally:
            self._open -= 1
            if not self._open:
                self._none_open.set()
        await self._none_open.wait()
        raise stopped

    async def _keep(self, rows: list[Row]) -> list[Completion]:
        """Return once the rows are on the disk; those that come while others are being written are written together."""
        written: asyncio.Future[list[Completion]] = asyncio.get_running_loop().create_future()
        self._unwritten.append((rows, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await written

    async def _write(self) -> None:
        while self._unwritten:
            batch, self._unwritten = self._unwritten, []
            rows = [row for rows, _ in batch for row in rows]
            try:
                kept = await asyncio.get_running_loop().run_in_executor(self._writer, self._store.write, rows)
            except PolicyStopped as error:
                for _, written in batch:
                    if not written.done():
                        written.set_exception(error)
                continue
            rest = iter(kept)
            for rows, written in batch:
                stored = list(islice(rest, len(rows)))
                if not written.done():
                    written.set_result(stored)


class _Call:
    """A call of the policy that several requests may wait for; when the last of them is cancelled, so is the call."""

    def __init__(self, task: asyncio.Task[Outcome], over: Callable[[], object]) -> None:
        self._task, self._over = task, over
        self._waiting = 0
        task.add_done_callback(self._ended)

    async def wait(self) -> Outcome:
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                # Now and not when it has ended, or a newcomer would wait for a call that is being given up.
                self._forget()
                self._task.cancel()

    def _ended(self, task: asyncio.Task[Outcome]) -> None:
        self._forget()
        if not task.cancelled():
            task.exception()  # seen, if only here

    def _forget(self) -> None:
        over, self._over = self._over, lambda: None
        over()
