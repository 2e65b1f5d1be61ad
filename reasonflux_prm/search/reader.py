"""What the PRM says of drafts: each step is read once, behind a past that is kept, where the PRM's family allows it.

`SessionReader` keeps a session (`scoring.session`) for every draft that is still alive: a draft that goes on costs its
new step, and a branch shares the past of the draft it left. `WholeReader` is for PRMs that have no past to keep
(response first, trajectory only, generative verifiers): it reads the whole draft each time, and the counts say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from reasonflux_prm.errors import ContextError
from reasonflux_prm.records import PRMIdentity, ScoredTrace, SegmentedTrace, Status, Trace
from reasonflux_prm.scoring.aggregate import aggregate
from reasonflux_prm.search.budget import Budget
from reasonflux_prm.search.draft import Draft, WrittenStep

if TYPE_CHECKING:
    from reasonflux_prm.scoring.engine import Engine
    from reasonflux_prm.scoring.run import Scorer
    from reasonflux_prm.scoring.session import Session

Score = Callable[[Sequence[SegmentedTrace]], list[ScoredTrace]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the PRM has read of a draft."""

    steps: tuple[WrittenStep, ...] = ()
    rewards: tuple[float | None, ...] = ()
    """One for each step."""
    value: float = -math.inf
    """The aggregate of the rewards, which steers the search; minus infinity where there is none."""
    session: Session | None = None
    """The past; None if the PRM keeps none, or the draft has outgrown its context."""
    record: ScoredTrace | None = None
    """What a reading of the whole draft gave, if that is how it was read."""


class Reader(Protocol):
    """A PRM that follows drafts."""

    keeps_past: bool
    """Whether a step is read once; else the whole draft is read again with each."""

    @property
    def identity(self) -> PRMIdentity:
        """The PRM, as records name it."""

    @property
    def most(self) -> float:
        """The highest reward that a finished trace can have; infinity if there is no such bound."""

    @property
    def probabilities(self) -> bool:
        """Whether values are probabilities, in [0, 1]; as logarithms with the aggregation `product`."""

    def settings(self) -> Mapping[str, Any]:
        """Return what rewards depend on besides the PRM, as JSON values."""

    def begin(self, trace: Trace, budget: Budget) -> Reading:
        """Read a problem."""

    def read(self, trace: Trace, pairs: Sequence[tuple[Reading, Draft]], budget: Budget) -> list[Reading]:
        """Read what each draft adds to what had been read of it; equal drafts from one past are read once."""

    def finish(self, trace: Trace, draft: Draft, reading: Reading, budget: Budget) -> ScoredTrace:
        """Return the finished trace with its rewards, the trajectory's included."""

    def score(self, traces: Sequence[Trace], budget: Budget) -> list[ScoredTrace]:
        """Score whole traces, cut by the step rule."""


def open_reader(scorer: Scorer) -> Reader:
    """Return the reader for a PRM: with a past that is kept where the family has step rewards in reading order."""
    from reasonflux_prm.scoring.engine import Engine

    if isinstance(scorer, Engine) and scorer.prm.spec.has_steps and scorer.prm.spec.layout == "causal":
        return SessionReader(scorer)
    return WholeReader(scorer)


class WholeReader:
    """Reads whole drafts.

    Args:
        scorer: An engine or a generative verifier.
    """

    keeps_past = False

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    @property
    def identity(self) -> PRMIdentity:
        """The PRM, as records name it."""
        return self._scorer.identity

    @property
    def most(self) -> float:
        """The highest reward that a finished trace can have; infinity if there is no such bound."""
        prm = getattr(self._scorer, "prm", None)
        identity = self.identity
        return _most(prm.spec.score_range[1] if prm else 1.0, identity, prm is None or prm.spec.trajectory != "none")

    @property
    def probabilities(self) -> bool:
        """Whether values are probabilities, in [0, 1]; as logarithms with the aggregation `product`."""
        prm = getattr(self._scorer, "prm", None)
        low, high = prm.spec.score_range if prm else (0.0, 1.0)
        return bool(low >= 0 and high <= 1 and self.identity.aggregation != "sum")

    def settings(self) -> Mapping[str, Any]:
        """Return what rewards depend on besides the PRM, as JSON values."""
        return self._scorer.settings_for_manifest()

    def begin(self, trace: Trace, budget: Budget) -> Reading:
        """Read nothing: there is no past to keep."""
        return Reading()

    def read(self, trace: Trace, pairs: Sequence[tuple[Reading, Draft]], budget: Budget) -> list[Reading]:
        """Read every draft from its beginning; those with the same steps once."""
        fresh = {draft.steps: draft for reading, draft in pairs if draft.steps != reading.steps}
        records = self._score_drafts(trace, list(fresh.values()), budget)
        read = {steps: _whole(steps, record) for steps, record in zip(fresh, records, strict=True)}
        return [read.get(draft.steps, reading) for reading, draft in pairs]

    def finish(self, trace: Trace, draft: Draft, reading: Reading, budget: Budget) -> ScoredTrace:
        """Return the last reading, which was of the whole draft."""
        if reading.record is None:
            return self._score_drafts(trace, [draft], budget)[0]
        return replace(reading.record, trace=draft.segmented(trace).trace)

    def score(self, traces: Sequence[Trace], budget: Budget) -> list[ScoredTrace]:
        """Score whole traces, cut by the step rule."""
        return _scored(self._scorer, traces, budget)

    def _score_drafts(self, trace: Trace, drafts: Sequence[Draft], budget: Budget) -> list[ScoredTrace]:
        segmented = [draft.segmented(trace) for draft in drafts]
        # A generative verifier cuts for itself; an engine takes the steps as they were written.
        engine = getattr(self._scorer, "prm", None) is not None
        return _scored(self._scorer, segmented if engine else [one.trace for one in segmented], budget)


class SessionReader:
    """Reads each step once.

    Args:
        engine: The PRM and its settings. A draft that outgrows the PRM's context is read in windows from then on, as
            the engine's `overflow` has it.
    """

    keeps_past = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._whole = WholeReader(engine)

    @property
    def identity(self) -> PRMIdentity:
        """The PRM, as records name it."""
        return self._engine.identity

    @property
    def most(self) -> float:
        """The highest reward that a finished trace can have; infinity if there is no such bound."""
        return self._whole.most

    @property
    def probabilities(self) -> bool:
        """Whether values are probabilities, in [0, 1]; as logarithms with the aggregation `product`."""
        return self._whole.probabilities

    def settings(self) -> Mapping[str, Any]:
        """Return what rewards depend on besides the PRM, as JSON values."""
        return self._engine.settings_for_manifest()

    def begin(self, trace: Trace, budget: Budget) -> Reading:
        """Read the problem."""
        from reasonflux_prm.scoring.session import Session

        try:
            session = Session(self._engine.prm, trace.problem)
        except ContextError:
            return Reading()
        budget.charge_prm(session.tokens)
        return Reading(session=session)

    def read(self, trace: Trace, pairs: Sequence[tuple[Reading, Draft]], budget: Budget) -> list[Reading]:
        """Read the steps that are new; what equal drafts add to one past is read once."""
        branches: dict[tuple[int, tuple[WrittenStep, ...]], _Branch] = {}
        order: list[tuple[int, tuple[WrittenStep, ...]]] = []
        for reading, draft in pairs:
            key = (id(reading), draft.steps)
            order.append(key)
            if key not in branches:
                branches[key] = self._branch(trace, reading, draft, budget)
        self._extend(list(branches.values()), budget)
        lost = [branch for branch in branches.values() if branch.session is None and branch.new]
        if lost:
            again = [(Reading(), branch.draft) for branch in lost]
            for branch, reading in zip(lost, self._whole.read(trace, again, budget), strict=True):
                branch.reading = reading
        done = {key: self._reading(branch) for key, branch in branches.items()}
        return [done[key] for key in order]

    def finish(self, trace: Trace, draft: Draft, reading: Reading, budget: Budget) -> ScoredTrace:
        """Return the finished trace; the trajectory's reward is read now, if it has any weight."""
        session = reading.session
        if session is None or not reading.steps:
            return self._whole.finish(trace, draft, reading, budget)
        segmented = draft.segmented(trace)
        held = session.tokens
        try:
            trajectory, extra = self._trajectory(segmented, session)
        except ContextError:
            return self._whole.finish(trace, draft, Reading(), budget)
        budget.charge_prm(extra)
        identity, rewards = self.identity, reading.rewards
        finite = all(reward is not None and math.isfinite(reward) for reward in (*rewards, trajectory or 0.0))
        reward = aggregate(rewards, trajectory, identity.aggregation, identity.alpha) if finite else None
        return ScoredTrace(
            trace=segmented.trace,
            status=Status.SCORED if reward is not None else Status.NOT_FINITE,
            steps=segmented.steps,
            step_rewards=rewards if finite else (None,) * len(rewards),
            trajectory_reward=trajectory if finite else None,
            reward=reward,
            prm=identity,
            tokens=held + extra,
            note=None if finite else "a reward is NaN or infinite; try --dtype float32",
        )

    def score(self, traces: Sequence[Trace], budget: Budget) -> list[ScoredTrace]:
        """Score whole traces, cut by the step rule."""
        return self._whole.score(traces, budget)

    def _branch(self, trace: Trace, reading: Reading, draft: Draft, budget: Budget) -> _Branch:
        """Return a branch of the reading's past that the draft's new steps can be added to."""
        known = len(reading.steps)
        if draft.steps == reading.steps:
            return _Branch(draft, reading, reading.session, ())
        if draft.steps[:known] != reading.steps:
            # Steps turned out to be thinking when `</think>` came: they are read anew.
            reading, known = self.begin(trace, budget), 0
        session = reading.session.fork() if reading.session is not None else None
        return _Branch(draft, reading, session, draft.steps[known:])

    def _extend(self, branches: Sequence[_Branch], budget: Budget) -> None:
        """Read the first new step of every branch in one pass, then the second where there is one."""
        for number in range(max((len(branch.new) for branch in branches), default=0)):
            ready = [branch for branch in branches if branch.session is not None and len(branch.new) > number]
            self._append(ready, number, budget)

    def _append(self, branches: Sequence[_Branch], number: int, budget: Budget) -> None:
        from reasonflux_prm.scoring.session import append_to

        sessions = [branch.session for branch in branches if branch.session is not None]
        held = sum(session.tokens for session in sessions)
        steps = [branch.new[number] for branch in branches]
        try:
            append_to(sessions, [text for _, text in steps], [part for part, _ in steps])
        except ContextError:
            if len(branches) == 1:
                branches[0].session = None
                return
            for branch in branches:
                self._append([branch], number, budget)
            return
        budget.charge_prm(sum(session.tokens for session in sessions) - held)

    def _reading(self, branch: _Branch) -> Reading:
        if branch.session is None or not branch.new:
            return branch.reading
        rewards: tuple[float | None, ...] = tuple(branch.session.step_rewards)
        return Reading(branch.draft.steps, rewards, _value(rewards, self.identity), branch.session)

    def _trajectory(self, segmented: SegmentedTrace, session: Session) -> tuple[float | None, int]:
        """Return the trajectory's reward, and the tokens that it took beyond the steps'."""
        prm, settings = self._engine.prm, self._engine.settings
        if settings.alpha == 0:
            return None, 0
        if (marker := prm.trajectory_piece()) is not None:
            return session.trajectory(), len(marker.tokens)
        if (sequence := prm.trajectory_sequence(segmented.trace)) is None:
            return None, 0
        from reasonflux_prm.scoring.packing import pack
        from reasonflux_prm.scoring.windows import fit

        windows = fit(sequence, self._engine.context, settings.overflow, settings.overlap).windows
        read = float(prm.forward(pack(windows))[-1])
        return prm.finish_trajectory(session.rewards, read), sum(len(window.tokens) for window in windows)


@dataclass(slots=True)
class _Branch:
    """A draft on its way to be read."""

    draft: Draft
    reading: Reading
    session: Session | None
    new: tuple[WrittenStep, ...]


def _scored(scorer: Scorer, traces: Iterable[Trace | SegmentedTrace], budget: Budget) -> list[ScoredTrace]:
    given: Any = iter(traces)
    records = [record for chunk in scorer.score_chunks(given) for record in chunk]
    budget.charge_prm(sum(record.tokens for record in records))
    return records


def _whole(steps: tuple[WrittenStep, ...], record: ScoredTrace) -> Reading:
    rewards = record.step_rewards if len(record.step_rewards) == len(steps) else (None,) * len(steps)
    known = [reward for reward in record.step_rewards if reward is not None]
    # Without step rewards there is only what the trajectory so far is worth as a whole.
    value = _value(known, record.prm) if known else record.reward
    return Reading(steps, rewards, -math.inf if value is None else value, None, record)


def _value(rewards: Sequence[float | None], identity: PRMIdentity) -> float:
    if not all(reward is not None and math.isfinite(reward) for reward in rewards):
        return -math.inf
    value = aggregate(rewards, None, identity.aggregation, 0.0)
    return -math.inf if value is None else value


def _most(highest: float, identity: PRMIdentity, trajectory: bool) -> float:
    """Return the highest aggregate of rewards that are at most `highest`."""
    if identity.aggregation == "sum" or not math.isfinite(highest):
        return math.inf
    if identity.aggregation == "product":
        return 0.0 if highest <= 1 and identity.alpha >= 0 else math.inf
    return highest + max(0.0, identity.alpha) * highest * trajectory
