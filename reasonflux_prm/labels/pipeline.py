"""Traces into labels: many under way at once, handed over in the order they came, in constant memory.

An event loop in a thread of its own keeps judge and rater busy. Traces are read and cut in chunks by a second thread
and embedded, a chunk at a time, by a third, so neither ever holds up a request; and since the next chunk's traces wait
for their turn long before the last one of the chunk before is done, nothing is idle at a chunk's end. The number of
traces between reading and handing over is bounded.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Final, Protocol, TypeVar

from reasonflux_prm.errors import InputError, PolicyError, PolicyStopped, ReasonFluxError, UsageError
from reasonflux_prm.labels.combine import combine_all
from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.labels.judges.base import Judge, StepTerms
from reasonflux_prm.labels.stopwatch import Stopwatch
from reasonflux_prm.labels.trajectory.base import TrajectoryRater
from reasonflux_prm.records import LabelledTrace, LabelStatus, SegmentedTrace, Term, Trace
from reasonflux_prm.steps.split import RULE_NAMES, split

SPARE: Final = 0.25
"""Traces in the hands of judge and rater beyond one for each request that may be under way, as a share: while one
trace's answer is read and its next question written, another one asks."""
AHEAD: Final = 8
"""Traces between reading and handing over, for each request that may be under way: so many may be done before the
slowest one holds the others up."""

T = TypeVar("T")


class StepEncoder(Protocol):
    """What gives the terms that need no judge: `embedding_terms.EmbeddingTerms`."""

    def identity(self) -> Mapping[str, Any]:
        """Return what the terms depend on besides the traces, as JSON values."""

    def terms(self, batch: Sequence[SegmentedTrace]) -> list[tuple[dict[str, Term], ...]]:
        """Return the terms of every step of each trace."""


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How traces are labelled; raises UsageError if a number is out of its range."""

    steps: str = "adaptive"
    """The step rule, a name in `steps.split.RULE_NAMES`."""
    concurrency: int = 8
    """Requests that judge and rater together may have under way; changes no label."""
    chunk_traces: int = 64
    """Most traces that are read, embedded and handed over together."""
    chunk_characters: int = 500_000
    """A chunk is closed by the trace that brings it to so many characters, too."""

    def __post_init__(self) -> None:
        if self.steps not in RULE_NAMES:
            raise UsageError(f"unknown step rule {self.steps!r}; there are {', '.join(RULE_NAMES)}")
        if min(self.concurrency, self.chunk_traces, self.chunk_characters) < 1:
            raise UsageError(
                "concurrency, chunk_traces and chunk_characters must be at least 1, and are "
                f"{self.concurrency}, {self.chunk_traces} and {self.chunk_characters}"
            )


class Labeller:
    """Makes labels of traces: the terms that are asked for, and the targets that a formula makes of them.

    A trace that cannot be labelled is a record with a reason, and costs its neighbours nothing.

    Args:
        formula: From terms to targets.
        embedding: Alignment and coherence; None leaves them out.
        judge: Quality of the steps; None leaves it out.
        rater: The trajectory's reward; None leaves it out.
        settings: How.

    Raises:
        UsageError: There is nothing to label with.
    """

    def __init__(
        self,
        formula: Formula,
        *,
        embedding: StepEncoder | None = None,
        judge: Judge | None = None,
        rater: TrajectoryRater | None = None,
        settings: LabelSettings | None = None,
    ) -> None:
        if embedding is None and judge is None and rater is None:
            raise UsageError("a label needs at least one of alignment, coherence, quality and the trajectory's reward")
        self.formula, self.embedding, self.judge, self.rater = formula, embedding, judge, rater
        self.settings = settings or LabelSettings()
        self.stages = Stopwatch()
        """Seconds during which each stage had work, so far."""
        self.finished = 0
        """Traces that are labelled so far; not all of them may have been handed over."""

    def identity(self) -> dict[str, Any]:
        """Return everything that labels depend on besides the traces, as JSON values."""
        parts = {"embedding": self.embedding, "quality": self.judge, "trajectory": self.rater}
        return {
            "formula": str(self.formula),
            "steps": self.settings.steps,
            "chunk_traces": self.settings.chunk_traces,
            "chunk_characters": self.settings.chunk_characters,
            **{name: None if part is None else dict(part.identity()) for name, part in parts.items()},
        }

    def label(self, traces: Iterable[Trace]) -> Iterator[LabelledTrace]:
        """Label traces, in their order; see `label_chunks`."""
        return chain.from_iterable(self.label_chunks(traces))

    def label_chunks(self, traces: Iterable[Trace]) -> Generator[list[LabelledTrace], None, None]:
        """Label traces, `chunk_traces` at a time, in their order; a chunk depends on nothing before it.

        Closing the generator gives up what is under way. `traces` is read by another thread.

        Raises:
            PolicyStopped: No request of a policy will succeed from here on. All chunks that could be completed have
                been handed over, and all requests that were under way have come to their end.
            ReasonFluxError: The machine failed us, or a part of the labeller was set up wrongly.
        """
        yield from _Pass(self, iter(traces)).chunks()


@dataclass(frozen=True, slots=True)
class _Cut:
    """A trace and its steps, or why it has none to label."""

    segmented: SegmentedTrace
    status: LabelStatus = LabelStatus.LABELLED
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Fault:
    """What one part of the labeller ran into with one trace."""

    part: str
    error: Exception

    @property
    def stops(self) -> bool:
        """Whether later traces will run into it too: a request or a record may be at fault alone, the machine not."""
        alone = isinstance(self.error, PolicyError | InputError) and not isinstance(self.error, PolicyStopped)
        return isinstance(self.error, ReasonFluxError) and not alone

    def __str__(self) -> str:
        kind = "" if isinstance(self.error, ReasonFluxError) else f"{type(self.error).__name__}: "
        return f"{self.part}: {kind}{self.error}"


class _Pass:
    """One pass over traces."""

    def __init__(self, labeller: Labeller, traces: Iterator[Trace]) -> None:
        self._labeller, self._traces = labeller, traces
        settings = labeller.settings
        self._ready: queue.SimpleQueue[list[LabelledTrace] | BaseException | None] = queue.SimpleQueue()
        self._cut: asyncio.Queue[list[asyncio.Task[LabelledTrace]] | None] = asyncio.Queue()
        self._most_held = max(AHEAD * settings.concurrency, settings.chunk_traces)
        self._held = 0
        """Traces that are read and not handed over."""
        self._room = asyncio.Event()
        self._at_work = asyncio.Semaphore(settings.concurrency + max(4, int(SPARE * settings.concurrency)))
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="label-read")
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="label-embed")
        self._read_error: Exception | None = None
        self._stopped: Exception | None = None
        """What no later trace will get past either."""
        self._loop = asyncio.new_event_loop()
        self._work_task = self._loop.create_task(self._work())
        self._thread = threading.Thread(target=self._run, name="label", daemon=True)

    def chunks(self) -> Generator[list[LabelledTrace], None, None]:
        self._thread.start()
        try:
            while (got := self._ready.get()) is not None:
                if isinstance(got, BaseException):
                    raise got
                self._tell(partial(self._release, len(got)))
                yield got
        finally:
            self._tell(self._work_task.cancel)
            self._thread.join()

    def _tell(self, what: Callable[[], object]) -> None:
        # A loop that has made its last chunk is gone, and need not be told.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what)

    # --- in the loop's thread ---

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work_task)
        except BaseException as error:
            self._ready.put(error)
        else:
            self._ready.put(None)
        finally:
            self._loop.close()

    async def _work(self) -> None:
        feeder = asyncio.create_task(self._feed())
        try:
            while (tasks := await self._cut.get()) is not None:
                # All of them, so that none is given up because of another.
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                labels = [_good(outcome) for outcome in outcomes]
                self._ready.put(list(combine_all(labels, self._labeller.formula)))
            await feeder
        finally:
            await self._end(feeder)

    async def _end(self, feeder: asyncio.Task[None]) -> None:
        """Leave nothing running: after a stop the others come to their end, else they are given up."""
        feeder.cancel()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if self._stopped is None:
            for task in others:
                task.cancel()
        # Those that have failed already are asked for as well, or asyncio would complain that nobody did.
        waiting = [self._cut.get_nowait() or [] for _ in range(self._cut.qsize())]
        try:
            await asyncio.gather(*others, feeder, *chain.from_iterable(waiting), return_exceptions=True)
        finally:
            self._reader.shutdown()
            self._encoder.shutdown()

    async def _feed(self) -> None:
        """Read traces and set their labels going, as far as there is room."""
        try:
            while self._stopped is None:
                while self._held >= self._most_held:
                    self._room.clear()
                    await self._room.wait()
                chunk = await self._loop.run_in_executor(self._reader, self._read)
                if not chunk:
                    break
                self._held += len(chunk)
                encoded = asyncio.create_task(self._encode(chunk))
                self._cut.put_nowait(
                    [asyncio.create_task(self._label(cut, index, encoded)) for index, cut in enumerate(chunk)]
                )
        finally:
            self._cut.put_nowait(None)

    def _release(self, traces: int) -> None:
        self._held -= traces
        self._room.set()

    async def _label(self, cut: _Cut, index: int, encoded: asyncio.Task[list[StepTerms | _Fault]]) -> LabelledTrace:
        labeller, judged, rated = self._labeller, None, None
        if cut.status is LabelStatus.LABELLED:
            async with self._at_work:
                if self._stopped is not None:
                    raise self._stopped
                judge = None if labeller.judge is None else labeller.judge.judge
                rate = None if labeller.rater is None else labeller.rater.rate
                judged, rated = await asyncio.gather(
                    self._asked("quality", judge, cut.segmented), self._asked("trajectory", rate, cut.segmented)
                )
        embedded = (await encoded)[index]
        for part in (judged, rated, embedded):
            if isinstance(part, _Fault) and part.stops:
                raise part.error
        labeller.finished += 1
        return _assembled(cut, [embedded, judged], rated)

    async def _asked(
        self, part: str, ask: Callable[[SegmentedTrace], Awaitable[T]] | None, segmented: SegmentedTrace
    ) -> T | _Fault | None:
        if ask is None:
            return None
        with self._labeller.stages(part):
            try:
                return await ask(segmented)
            except Exception as error:  # whatever one trace runs into must not stop its neighbours
                return self._fault(part, error)

    async def _encode(self, chunk: Sequence[_Cut]) -> list[StepTerms | _Fault]:
        """Return the embedding terms of each trace; a trace that breaks the encoder costs no other one its terms."""
        embedding = self._labeller.embedding
        if embedding is None:
            return [()] * len(chunk)

        def encode(batch: Sequence[SegmentedTrace]) -> list[StepTerms]:
            with self._labeller.stages("embedding"):
                return list(embedding.terms(batch))

        batch = [cut.segmented for cut in chunk]
        try:
            return list(await self._loop.run_in_executor(self._encoder, encode, batch))
        except Exception as error:
            fault = self._fault("embedding", error)
            if len(chunk) == 1 or fault.stops:
                return [fault] * len(chunk)
        return [(await self._encode([cut]))[0] for cut in chunk]

    def _fault(self, part: str, error: Exception) -> _Fault:
        fault = _Fault(part, error)
        if fault.stops and self._stopped is None:
            self._stopped = error
        return fault

    # --- in the reader's thread ---

    def _read(self) -> list[_Cut]:
        """Read and cut a chunk; an error behind some good traces is raised once they are on their way."""
        if self._read_error is not None:
            raise self._read_error
        settings = self._labeller.settings
        chunk: list[_Cut] = []
        characters = 0
        with self._labeller.stages("reading"):
            try:
                for trace in islice(self._traces, settings.chunk_traces):
                    chunk.append(_cut(trace, settings.steps))
                    characters += len(trace.problem) + len(trace.thinking) + len(trace.response)
                    if characters >= settings.chunk_characters:
                        break
            except Exception as error:
                if not chunk:
                    raise
                self._read_error = error
        return chunk


def _good(outcome: LabelledTrace | BaseException) -> LabelledTrace:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _cut(trace: Trace, rule: str) -> _Cut:
    try:
        segmented = split(trace, rule)
    except InputError as error:
        return _Cut(SegmentedTrace(trace, (), rule), LabelStatus.FAILED, str(error))
    if not any(segmented.text(step).strip() for step in segmented.steps):
        return _Cut(segmented, LabelStatus.NO_STEPS, "neither thinking nor response holds any text")
    return _Cut(segmented)


def _assembled(
    cut: _Cut,
    of_steps: Sequence[StepTerms | _Fault | None],
    of_trajectory: Mapping[str, Term] | _Fault | None,
) -> LabelledTrace:
    """Put together what the parts of the labeller said of one trace; targets are made later, of many at once."""
    steps = cut.segmented.steps
    status, faults = cut.status, [str(part) for part in (*of_steps, of_trajectory) if isinstance(part, _Fault)]
    terms: list[dict[str, Term]] = [{} for _ in steps]
    if status is LabelStatus.LABELLED:
        for part in of_steps:
            if isinstance(part, _Fault) or not part:
                continue
            if len(part) != len(steps):
                faults.append(f"expected terms for {len(steps)} steps, got them for {len(part)}")
                continue
            for mine, more in zip(terms, part, strict=True):
                mine.update(more)
    return LabelledTrace(
        trace=cut.segmented.trace,
        status=LabelStatus.FAILED if faults else status,
        steps=steps,
        step_terms=tuple(terms),
        targets=(None,) * len(steps),
        trajectory_terms={} if isinstance(of_trajectory, _Fault) or of_trajectory is None else of_trajectory,
        trajectory_target=None,
        formula="",
        note="; ".join(faults) or cut.note,
    )
