"""The pool: scored traces or plain ones, read as often as needed and always in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import PRMIdentity, Reject, ScoredTrace, Status, Trace
from reasonflux_prm.scoring.aggregate import aggregate
from reasonflux_prm.selection.settings import Selection
from reasonflux_prm.traces.formats import read_row
from reasonflux_prm.traces.native import is_scored
from reasonflux_prm.traces.resumable import Input
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source
from reasonflux_prm.traces.write import scored_of

Rejects = Callable[[Reject], None]


@dataclass(frozen=True, slots=True)
class Pooled:
    """One trace of the pool."""

    trace: Trace
    scored: ScoredTrace | None = None
    """None if no PRM has seen it."""


def is_scored_pool(source: Input) -> bool:
    """Whether the first record that can be read is a scored trace.

    Raises:
        InputError: The source is not there.
    """
    rows = open_source(source.source)
    return next((is_scored(row.columns) for row in rows if isinstance(row, Row)), False)


def read_pool(source: Input, rejects: Rejects) -> Iterator[Pooled]:
    """Read the pool.

    In a pool of scored traces a record without a score is read as a plain trace.

    Args:
        source: Any source but a pipe, which cannot be read twice.
        rejects: Takes what cannot be read.

    Raises:
        InputError: There is nothing to read.
        UsageError: The records are scored traces, and the source says how to read plain ones.
    """
    if not is_scored_pool(source):
        return map(Pooled, source.read(rejects))
    if source.format != "auto" or source.columns:
        raise UsageError(
            f"{source.source} holds scored traces, which are read in one way only; leave --input-format and --map out"
        )
    return islice(_scored(source.source, rejects), source.limit)


def _scored(source: str, rejects: Rejects) -> Iterator[Pooled]:
    for row in open_source(source):
        if isinstance(row, Reject):
            rejects(row)
            continue
        try:
            found = [_of_row(row)] if is_scored(row.columns) else map(Pooled, read_row(row.columns, row.where))
        except InputError as error:
            rejects(row.reject(str(error)))
            continue
        yield from found


def _of_row(row: Row) -> Pooled:
    scored = scored_of(row)
    return Pooled(scored.trace, scored)


# --- rewards ---------------------------------------------------------------------------------------------------------


def maker(identity: PRMIdentity) -> PRMIdentity:
    """Return what tells the PRMs apart whose rewards must not be mixed: all but how the steps were combined."""
    return PRMIdentity(identity.name, identity.revision, identity.family, identity.layout, "", 0.0)


def is_named(identity: PRMIdentity, name: str) -> bool:
    """Whether a PRM is the one that `NAME` or `NAME@REVISION` means."""
    return name in (identity.name, f"{identity.name}@{identity.revision}")


def reward_of(scored: ScoredTrace, settings: Selection) -> tuple[float | None, str | None]:
    """Return the reward that a scored trace is ranked by, or None and what it lacks.

    `reward` is the stored aggregate, or, where alpha or an aggregation is given, the aggregate made anew from the
    stored step rewards and trajectory reward; what is not given is as recorded. `response-reward` is the aggregate (the
    mean, if none is named) of the response's step rewards alone. The PRM had still read the thinking before them.

    Raises:
        UsageError: A product of negative rewards.
    """
    if scored.status is not Status.SCORED:
        return None, scored.note or scored.status.value
    if settings.by == "response-reward":
        response = [
            reward for step, reward in zip(scored.steps, scored.step_rewards, strict=True) if step.part == "response"
        ]
        value = aggregate(response, None, settings.aggregation or "mean")
        return value, None if value is not None else "no step of the response has a reward"
    if settings.alpha is None and settings.aggregation is None:
        return scored.reward, None if scored.reward is not None else "the record says scored, and has no reward"
    if settings.alpha and scored.trajectory_reward is None:
        return None, f"there is no trajectory reward to weigh with alpha {settings.alpha:g}"
    alpha = scored.prm.alpha if settings.alpha is None else settings.alpha
    how = settings.aggregation or scored.prm.aggregation
    value = aggregate(scored.step_rewards, scored.trajectory_reward, how, alpha)
    return value, None if value is not None else "neither a step nor the trajectory has a reward"
