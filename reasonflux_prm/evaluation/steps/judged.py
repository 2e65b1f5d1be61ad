"""Labelled steps as the step benchmarks see them: rewards of a PRM and of trivial ways beside what is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.first_error import Rewards
from reasonflux_prm.records import ScoredTrace, Status

PRM: Final = "PRM"
EARLIER: Final = "earlier step"
SHORTER: Final = "shorter step"
BASELINES: Final = (EARLIER, SHORTER)
"""Rewards that need no PRM: minus the step's position, minus its length in characters."""
WAYS: Final = (PRM, *BASELINES)


@dataclass(frozen=True, slots=True)
class Judged:
    """One trace; every row has one entry a step."""

    id: str
    cluster: str
    """The problem: what is resampled together."""
    scope: str
    """Subset or category; empty if there is none."""
    rewards: Mapping[str, tuple[float | None, ...]]
    """By way, one of `WAYS`; None where the PRM gave none."""
    labels: tuple[bool | None, ...]
    """True for a good step, False for a wrong one, None where nobody looked."""
    values: tuple[float | None, ...] = ()
    """Success rate of continuations from after the step; empty without."""
    gains: tuple[float | None, ...] = ()
    """The same, less that from before the step."""
    redundant: tuple[bool | None, ...] | None = None
    """Whether each step is redundant, as a judge with a label of its own for that says; None without such a judge."""
    is_scored: bool = True

    @property
    def first_error(self) -> int | None:
        """Return the index of the first wrong step; None if no step is wrong."""
        return self.labels.index(False) if False in self.labels else None

    @property
    def locates(self) -> bool:
        """Whether the labels say where the first error is, or that there is none."""
        first = self.first_error
        return bool(self.labels) and None not in (self.labels if first is None else self.labels[:first])


def judged_of(traces: Iterable[ScoredTrace], threshold: float = 0.5) -> list[Judged]:
    """Put the rewards of steps beside what came with the records.

    Args:
        traces: Scored with the step rule `given`, as `steps.base.read_benchmark` reads them: `group` names the problem,
            the columns `scope`, `values` and `gains` what else is known.
        threshold: A label of at least this is good.

    Raises:
        UsageError: No trace that was scored has a step reward: the PRM gives none.
    """
    found = [_judged(scored, threshold) for scored in traces]
    if found and not any(own.is_scored for own in found):
        raise UsageError(f"none of {len(found):,} traces could be scored; the file of scored traces says why")
    if found and not any(r is not None for own in found for r in own.rewards[PRM]):
        raise UsageError("the PRM gives no step rewards, and these benchmarks are about steps; name another one")
    return found


def _judged(scored: ScoredTrace, threshold: float) -> Judged:
    trace = scored.trace
    at = {(s.part, s.start): r for s, r in zip(scored.steps, scored.step_rewards, strict=True)}
    ok = scored.status is Status.SCORED
    return Judged(
        id=trace.id,
        cluster=trace.group or trace.problem.strip(),
        scope=str(trace.meta.get("scope") or ""),
        rewards={
            PRM: tuple(at.get((s.part, s.start)) if ok else None for s in trace.steps),
            EARLIER: tuple(-float(index) for index in range(len(trace.steps))),
            SHORTER: tuple(-float(step.stop - step.start) for step in trace.steps),
        },
        labels=tuple(None if label is None else label >= threshold for label in trace.step_labels),
        values=tuple(trace.meta.get("values") or ()),
        gains=tuple(trace.meta.get("gains") or ()),
        is_scored=ok,
    )


def steps_with_labels(traces: Sequence[Judged], way: str) -> tuple[list[float], list[bool], list[str]]:
    """Return reward, label and cluster of every step that has a label and a reward of the PRM.

    The steps are the same whatever the way, so that ways can be compared.
    """
    rows = [
        (own.rewards[way][index], label, own.cluster)
        for own in traces
        for index, label in enumerate(own.labels)
        if label is not None and own.rewards[PRM][index] is not None
    ]
    return [r for r, _, _ in rows if r is not None], [y for _, y, _ in rows], [c for _, _, c in rows]


def rewards_of(traces: Sequence[Judged], way: str) -> list[Rewards]:
    """Return the step rewards of each trace."""
    return [own.rewards[way] for own in traces]
