"""A PRM over many traces: one forward pass a trace, packed, in bounded memory, records out in input order.

Traces are taken in chunks (by count and by tokens). Within a chunk all windows of all traces are packed together; a
chunk's scores do not depend on what stands before or after it, so a run can stop and go on between any two. A trace
that cannot be scored becomes a record with its reason and stops nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from reasonflux_prm.errors import ContextError, InputError, ReasonFluxError, UsageError
from reasonflux_prm.prm.base import PRM
from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.records import PRMIdentity, ScoredTrace, SegmentedTrace, Status, Trace
from reasonflux_prm.scoring.aggregate import aggregate, check_choices
from reasonflux_prm.scoring.packing import pack, plan
from reasonflux_prm.scoring.windows import OVERFLOWS, Fitted, NoRoom, Overflow, Window, fit
from reasonflux_prm.steps.split import split


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How to score; the defaults are right for most uses."""

    aggregation: str | None = None
    """A name in `AGGREGATIONS`; None takes the PRM's own default."""
    alpha: float = 1.0
    """Weight of the trajectory reward in the aggregate; 0 also saves the second reading that some PRMs need for it."""
    overflow: Overflow = "window"
    """What to do with a trace longer than the PRM's context; see `windows.fit`."""
    overlap: float = 0.5
    """Share of a window that the next one repeats, in [0, 1)."""
    context: int | None = None
    """Tokens a reading may have; None takes the PRM's own limit, a larger number is refused."""
    pack_tokens: int | None = None
    """Tokens a forward pass; None chooses by device (1,024 on a CPU, 32,768 on a GPU)."""
    chunk_traces: int = 256
    """Traces in flight, at most."""
    chunk_tokens: int | None = None
    """A chunk is closed once it has so many tokens; None takes 48 packs."""
    steps: str = "adaptive"
    """The step rule for traces that are not cut yet; a name in `steps.split.RULE_NAMES`."""


@dataclass(slots=True)
class Work:
    """Windows on their way through the PRM, and what was read in them."""

    windows: list[Window] = field(default_factory=list)
    status: Status = Status.SCORED
    problem: str | None = None
    """The message behind a status other than SCORED."""
    rewards: dict[int, float] = field(default_factory=dict)
    """What was read, by target."""

    def fail(self, status: Status, problem: str) -> None:
        """Give it up, with a reason."""
        self.status, self.problem, self.windows = status, problem, []

    @property
    def tokens(self) -> int:
        """Tokens that the PRM reads for it."""
        return sum(len(window.tokens) for window in self.windows)


@dataclass(slots=True, kw_only=True)
class TraceWork(Work):
    """One trace on its way through the engine."""

    segmented: SegmentedTrace
    notes: list[str] = field(default_factory=list)


class Engine:
    """Scores traces with one PRM.

    Args:
        prm: A loaded PRM.
        settings: How to score.

    Raises:
        UsageError: A setting is out of its range or makes no sense with this PRM.
    """

    def __init__(self, prm: PRM, settings: EngineSettings | None = None) -> None:
        self.prm, self.settings = prm, settings or EngineSettings()
        s, spec = self.settings, prm.spec
        if s.overflow not in OVERFLOWS:
            raise UsageError(f"unknown overflow {s.overflow!r}; there are {', '.join(OVERFLOWS)}")
        if not 0 <= s.overlap < 1:
            raise UsageError(f"overlap must be at least 0 and below 1, got {s.overlap:g}")
        if s.context is not None and not 0 < s.context <= spec.context_length:
            raise UsageError(
                f"context must be between 1 and the PRM's {spec.context_length:,} tokens, got {s.context:,}"
            )
        self.aggregation = s.aggregation or spec.aggregation
        check_choices(s.steps, self.aggregation, s.alpha)
        if self.aggregation == "product" and spec.score_range[0] < 0:
            raise UsageError(
                f"a product needs rewards of at least 0, those of {spec.name} start at {spec.score_range[0]:g}; "
                "use --aggregation mean or min"
            )
        if not spec.has_steps and s.alpha == 0:
            raise UsageError(
                f"{spec.name} gives a trajectory reward only, and alpha 0 throws it away; leave alpha at 1"
            )
        for name in ("pack_tokens", "chunk_traces", "chunk_tokens"):
            value = getattr(s, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value:,}")
        self.context = s.context or spec.context_length
        self.pack_tokens = s.pack_tokens or (1024 if prm.decoder.devices[0].type == "cpu" else 32_768)
        self.chunk_tokens = s.chunk_tokens or 48 * self.pack_tokens
        self.identity = PRMIdentity(spec.name, spec.revision, spec.family, spec.layout, self.aggregation, s.alpha)

    def settings_for_manifest(self) -> dict[str, Any]:
        """Return what scores depend on besides the PRM, as JSON values: the settings, with what None was taken for."""
        decoder = self.prm.decoder
        return asdict(self.settings) | {
            "aggregation": self.aggregation,
            "context": self.context,
            "pack_tokens": self.pack_tokens,
            "chunk_tokens": self.chunk_tokens,
            "dtype": str(decoder.dtype).removeprefix("torch."),
            "device": decoder.devices[0].type,
        }

    def score(self, traces: Iterable[Trace | SegmentedTrace]) -> Iterator[ScoredTrace]:
        """Score traces, cut into steps already or not; records come out in input order."""
        for chunk in self.score_chunks(traces):
            yield from chunk

    def score_chunks(self, traces: Iterable[Trace | SegmentedTrace]) -> Iterator[list[ScoredTrace]]:
        """Score traces chunk by chunk; the chunks depend on the traces and the settings only."""
        works: list[TraceWork] = []
        tokens = 0
        for trace in traces:
            work = self.prepare(trace)
            works.append(work)
            tokens += work.tokens
            if len(works) >= self.settings.chunk_traces or tokens >= self.chunk_tokens:
                yield self._finish(works)
                works, tokens = [], 0
        if works:
            yield self._finish(works)

    # --- one chunk ---------------------------------------------------------------------------------------------------

    def prepare(self, trace: Trace | SegmentedTrace) -> TraceWork:
        """Cut a trace into steps and lay its windows out; a trace that cannot be read is work that has failed."""
        if isinstance(trace, Trace):
            try:
                segmented = split(trace, self.settings.steps)
            except InputError as error:
                work = TraceWork(segmented=SegmentedTrace(trace, (), self.settings.steps))
                work.fail(Status.FAILED, str(error))
                return work
        else:
            segmented = trace
        work = TraceWork(segmented=segmented)
        if not any(segmented.text(step).strip() for step in segmented.steps):
            work.fail(Status.NO_STEPS, "neither thinking nor response holds any text")
            return work
        try:
            encoded = self.prm.encode(segmented, trajectory=self.settings.alpha != 0)
            for sequence in encoded.sequences:
                fitted: Fitted = fit(sequence, self.context, self.settings.overflow, self.settings.overlap)
                work.windows.extend(fitted.windows)
                if fitted.note:
                    work.notes.append(fitted.note)
        except NoRoom as error:
            work.fail(Status.NO_ROOM, str(error))
        except ContextError as error:
            work.fail(Status.TOO_LONG, str(error))
        except ReasonFluxError as error:
            work.fail(Status.FAILED, str(error))
        return work

    def _finish(self, works: Sequence[TraceWork]) -> list[ScoredTrace]:
        jobs = [(work, window) for work in works for window in work.windows]
        for numbers in plan([len(window.tokens) for _, window in jobs], self.pack_tokens):
            self.run([jobs[number] for number in numbers])
        return [self.record(work) for work in works]

    def run(self, jobs: Sequence[tuple[Work, Window]]) -> None:
        """Read the windows of one pack; when memory runs out, its halves, down to the one window that is too large."""
        jobs = [(work, window) for work, window in jobs if work.status is Status.SCORED]
        if not jobs:
            return
        rewards = self._forward([window for _, window in jobs])
        if rewards is not None:
            values = iter(rewards)
            for work, window in jobs:
                work.rewards.update((read.target, next(values)) for read in window.reads)
            return
        if len(jobs) == 1:
            work, window = jobs[0]
            work.fail(
                Status.OUT_OF_MEMORY,
                f"a window of {len(window.tokens):,} tokens does not fit in memory; score with a shorter context",
            )
            return
        middle = len(jobs) // 2
        self.run(jobs[:middle])
        self.run(jobs[middle:])

    def _forward(self, windows: Sequence[Window]) -> list[float] | None:
        """Return the rewards at all read positions, or None when memory ran out.

        The error ends here: the frames it holds keep the failed pass's tensors alive, and nothing smaller would fit.
        """
        try:
            rewards: list[float] = self.prm.forward(pack(windows)).tolist()
            return rewards
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _aggregate(
        self, work: TraceWork, step_rewards: Sequence[float | None], trajectory: float | None
    ) -> float | None:
        try:
            reward = aggregate(step_rewards, trajectory, self.aggregation, self.settings.alpha)
        except UsageError as error:
            work.fail(Status.FAILED, str(error))
            return None
        if reward is None:
            work.fail(Status.FAILED, "what is left of the trace has no step that could be read; use --overflow window")
        return reward

    def record(self, work: TraceWork) -> ScoredTrace:
        """Return the record of a trace whose windows have all been read."""
        steps = work.segmented.steps
        step_rewards: list[float | None] = [work.rewards.get(index) for index in range(len(steps))]
        trajectory = work.rewards.get(TRAJECTORY)
        tokens = work.tokens
        if work.status is Status.SCORED and not all(map(math.isfinite, work.rewards.values())):
            bad = sum(not math.isfinite(value) for value in work.rewards.values())
            work.fail(
                Status.NOT_FINITE, f"{bad} of {len(work.rewards)} rewards are NaN or infinite; try --dtype float32"
            )
        reward: float | None = None
        if work.status is Status.SCORED:
            raw = [value for value in step_rewards if value is not None]
            if trajectory is not None:
                trajectory = self.prm.finish_trajectory(raw, trajectory)
            finished = iter(self.prm.finish(raw))
            step_rewards = [None if value is None else next(finished) for value in step_rewards]
            reward = self._aggregate(work, step_rewards, trajectory)
        if reward is None:
            step_rewards, trajectory = [None] * len(steps), None
        return ScoredTrace(
            trace=work.segmented.trace,
            status=work.status,
            steps=steps,
            step_rewards=tuple(step_rewards),
            trajectory_reward=trajectory,
            reward=reward,
            prm=self.identity,
            tokens=tokens,
            overflow="; ".join(work.notes) or None,
            note=work.problem,
        )


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a class for a GPU that is full; its CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def score_traces(
    prm: PRM, traces: Iterable[Trace | SegmentedTrace], settings: EngineSettings | None = None
) -> Iterator[ScoredTrace]:
    """Score traces with a PRM; see `Engine`."""
    return Engine(prm, settings).score(traces)
