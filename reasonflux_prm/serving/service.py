"""One PRM that answers many at once: requests are prepared, queued, batched and rendered; no HTTP here.

Three threads share the work. The event loop takes requests and places in the queue; one thread cuts, tokenises and
renders; the batcher's thread owns the model.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from reasonflux_prm.errors import InputError
from reasonflux_prm.prm.base import PRM
from reasonflux_prm.records import ScoredTrace, Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings, TraceWork, Work
from reasonflux_prm.serving.batching import Batcher
from reasonflux_prm.serving.limits import Refusal, Room, ServiceLimits
from reasonflux_prm.serving.metrics import Metrics
from reasonflux_prm.traces.formats import read_row

T = TypeVar("T")
W = TypeVar("W", bound=Work)

AT_A_TIME = 8
"""Records of a request that are cut and tokenised before another request has its turn."""
_LONGEST_RETRY_S = 60
REFUSED = "refused"
"""What becomes of a record that holds no trace; it has no status, since there is no scored record of it."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A record of a request that no trace could be read from."""

    index: int
    """Its place in the request, from 0."""
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request's records."""

    scored: list[ScoredTrace]
    """In order; a record that holds several traces gives several."""
    rejects: list[Unread]


class Service:
    """Scores what requests bring.

    Args:
        prm: A loaded PRM.
        settings: How to score where a request does not say otherwise.
        limits: How much is taken at a time.

    Raises:
        UsageError: A setting is out of its range or makes no sense with this PRM.
    """

    def __init__(self, prm: PRM, settings: EngineSettings | None = None, limits: ServiceLimits | None = None) -> None:
        self.prm, self.limits = prm, limits or ServiceLimits()
        self.engine = Engine(prm, settings)
        self.metrics = Metrics()
        self._batcher = Batcher(self.engine.run, self.engine.pack_tokens, self.limits.wait_s, self.metrics)
        self._hands = ThreadPoolExecutor(1, "reasonflux-prm-text")
        self.room = Room(self.limits.queue_traces, self.limits.queue_tokens, self.retry_after_s)
        self.draining = False
        self._aborted = False
        self._requests: set[asyncio.Task[Any] | None] = set()
        self.metrics.gauge("queue_traces", "Traces that wait or are being scored.", lambda: self.room.traces)
        self.metrics.gauge("queue_tokens", "Tokens that wait or are being scored.", lambda: self.room.tokens)

    # --- what it can do ----------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the PRM answers."""
        return self._batcher.alive

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self.alive and not self.draining

    def retry_after_s(self) -> int:
        """Return the seconds in which what is queued now will be done at the present rate, at least 1."""
        rate = self._batcher.tokens_per_s
        return min(_LONGEST_RETRY_S, max(1, math.ceil(self.room.tokens / rate))) if rate else 1

    def engine_for(self, options: Mapping[str, Any]) -> Engine:
        """Return the engine for a request's own settings, None standing for the service's.

        Raises:
            UsageError: A setting is out of its range or makes no sense with this PRM.
        """
        given = {name: value for name, value in options.items() if value is not None}
        return Engine(self.prm, replace(self.engine.settings, **given)) if given else self.engine

    async def score_rows(
        self, rows: Sequence[Mapping[str, Any]], format: str, options: Mapping[str, Any], render: Callable[[Answer], T]
    ) -> T:
        """Score records of any format that `traces.formats` knows.

        Args:
            rows: The records.
            format: One of `traces.formats.FORMATS`, or `auto`.
            options: Fields of `EngineSettings`, None standing for the service's own.
            render: Makes the answer of what came out, away from the event loop.

        Raises:
            UsageError: An option is out of its range.
            Refusal: There is no room, or the service stops.
        """

        def read(index: int) -> list[Trace]:
            return read_row(rows[index], f"record:{index}", format)

        return await self._score(self.engine_for(options), read, len(rows), render, patient=False)

    async def score_traces(self, make: Callable[[int], Trace], count: int, render: Callable[[Answer], T]) -> T:
        """Score traces, however long the queue is: waits for room where `score_rows` refuses.

        Args:
            make: Makes the trace of an index below `count`, away from the event loop.
            count: Of the traces.
            render: Makes the answer of what came out, away from the event loop.

        Raises:
            Refusal: There never will be room, or the service stops.
        """
        return await self._score(self.engine, lambda index: [make(index)], count, render, patient=True)

    async def read(self, make: Callable[[int], W], count: int, render: Callable[[list[W]], T]) -> T:
        """Read windows of a request's own making.

        Args:
            make: Makes the work of an index below `count`, away from the event loop.
            count: Of the works.
            render: Makes the answer, away from the event loop.

        Raises:
            Refusal: There is no room, or the service stops.
        """
        return await self._answer(lambda index: [make(index)], count, render, patient=False)

    async def _score(
        self,
        engine: Engine,
        read: Callable[[int], list[Trace]],
        count: int,
        render: Callable[[Answer], T],
        *,
        patient: bool,
    ) -> T:
        rejects: list[Unread] = []

        def make(index: int) -> list[TraceWork]:
            try:
                return [engine.prepare(trace) for trace in read(index)]
            except InputError as error:
                rejects.append(Unread(index, str(error)))
                return []

        def finish(works: list[TraceWork]) -> T:
            answer = Answer([engine.record(work) for work in works], rejects)
            counts = Counter(scored.status.value for scored in answer.scored)
            self.metrics.scored(counts + Counter({REFUSED: len(rejects)}))
            return render(answer)

        return await self._answer(make, count, finish, patient=patient)

    async def _answer(
        self, make: Callable[[int], list[W]], count: int, finish: Callable[[list[W]], T], *, patient: bool
    ) -> T:
        works: list[W] = []
        async with self._places(count, patient=patient) as places:
            for start in range(0, count, AT_A_TIME):
                indices = range(start, min(start + AT_A_TIME, count))
                works += await self._away(lambda indices=indices: [work for index in indices for work in make(index)])
                await places(max(count, len(works)), sum(work.tokens for work in works))
            await self._run(works)
            return await self._away(finish, works)

    # --- how ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _places(self, traces: int, *, patient: bool) -> AsyncIterator[Callable[[int, int], Any]]:
        """Hold places for a request: for its traces at once, for its tokens when they are known."""
        held = (0, 0)

        async def change(traces: int, tokens: int) -> None:
            nonlocal held
            # Given back first: two requests that hold some and wait for more could wait for each other.
            self.room.give(*held)
            held = (0, 0)
            if patient:
                await self.room.wait(traces, tokens)
            else:
                self.room.take(traces, tokens)
            held = (traces, tokens)

        if self.draining:
            raise stopping()
        task = asyncio.current_task()
        self._requests.add(task)
        try:
            await change(traces, 0)
            yield change
        except asyncio.CancelledError:
            if self._aborted:
                raise stopping() from None
            raise
        finally:
            self._requests.discard(task)
            self.room.give(*held)

    async def _away(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run something on the thread for texts."""
        return await asyncio.get_running_loop().run_in_executor(self._hands, work, *arguments)

    async def _run(self, works: Sequence[Work]) -> None:
        ticket = self._batcher.submit(works)
        try:
            await ticket.done
        except asyncio.CancelledError:
            self._batcher.drop(ticket)
            raise

    # --- the end -----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take nothing more; what was accepted goes on."""
        self.draining = True

    def abort(self) -> None:
        """Give up what is not done, and say so to whoever waits."""
        self.drain()
        self._aborted = True
        for task in self._requests:
            if task is not None:
                task.cancel()

    def close(self, timeout_s: float = 5.0) -> bool:
        """End the threads; return whether they did in time."""
        self.drain()
        self._hands.shutdown(wait=False, cancel_futures=True)
        return self._batcher.close(timeout_s)


def stopping() -> Refusal:
    """Return what requests are told once the service stops."""
    return Refusal(503, "the service is stopping; ask again when it is back", "ServiceError", 5)
