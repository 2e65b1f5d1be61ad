"""What both views show: a trace with a number for every step, be it a PRM's reward or a label's target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from reasonflux_prm.records import LabelledTrace, LabelStatus, PRMIdentity, ScoredTrace, Status, Step, Term, Trace


@dataclass(frozen=True, slots=True)
class Chosen:
    """A scored trace that was chosen for something, or was not."""

    scored: ScoredTrace
    outcome: str
    """`KEPT`, or why not."""
    detail: str | None = None

    @property
    def trace(self) -> Trace:
        """The trace."""
        return self.scored.trace


KEPT = "kept"
Record = ScoredTrace | LabelledTrace | Chosen


@dataclass(frozen=True, slots=True)
class Shown:
    """One scored or labelled trace."""

    trace: Trace
    status: str
    good: bool
    """Whether it was scored, or labelled."""
    steps: tuple[Step, ...]
    values: tuple[float | None, ...]
    """Step rewards, or targets."""
    trajectory: float | None
    """The trajectory's reward, or its target."""
    overall: float | None
    """The reward of a scored trace; the mean target of a labelled one. None if the trace is not good."""
    note: str | None
    maker: PRMIdentity | str
    """The PRM, or the formula."""
    step_terms: tuple[Mapping[str, Term], ...] = ()
    """For each step of a labelled trace; empty for a scored one."""
    trajectory_terms: Mapping[str, Term] | None = None
    """Of a labelled trace; None for a scored one."""
    tokens: int = 0
    """Read by the PRM; 0 for labels."""
    overflow: str | None = None
    outcome: str | None = None
    """Of a trace that was or was not chosen: `KEPT`, or why not."""

    @property
    def labelled(self) -> bool:
        """Whether it is a label."""
        return self.trajectory_terms is not None


def shown(records: Iterable[Record]) -> Iterator[Shown]:
    """Return what is shown of each record."""
    return map(shown_of, records)


def shown_of(record: Record) -> Shown:
    """Return what is shown of a record."""
    if isinstance(record, Chosen):
        notes = (record.detail, record.scored.note)
        note = "; ".join(note for note in notes if note) or None
        return replace(shown_of(record.scored), outcome=record.outcome, note=note)
    if isinstance(record, LabelledTrace):
        known = [target for target in record.targets if target is not None]
        return Shown(
            trace=record.trace,
            status=record.status.value,
            good=record.status is LabelStatus.LABELLED,
            steps=record.steps,
            values=record.targets,
            trajectory=record.trajectory_target,
            overall=sum(known) / len(known) if known and record.status is LabelStatus.LABELLED else None,
            note=record.note,
            maker=record.formula,
            step_terms=record.step_terms,
            trajectory_terms=record.trajectory_terms,
        )
    return Shown(
        trace=record.trace,
        status=record.status.value,
        good=record.status is Status.SCORED,
        steps=record.steps,
        values=record.step_rewards,
        trajectory=record.trajectory_reward,
        overall=record.reward if record.status is Status.SCORED else None,
        note=record.note,
        maker=record.prm,
        tokens=record.tokens,
        overflow=record.overflow,
    )
