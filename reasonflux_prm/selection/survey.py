"""The first reading of the pool: every trace into the index, with what speaks against it by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import PRMIdentity, Reject
from reasonflux_prm.selection.duplicates import Signatures
from reasonflux_prm.selection.filters import Gate, Objection
from reasonflux_prm.selection.index import Index
from reasonflux_prm.selection.pool import Pooled, is_named, maker, reward_of
from reasonflux_prm.selection.reasons import Reason
from reasonflux_prm.selection.settings import Selection
from reasonflux_prm.traces.columns import column_list
from reasonflux_prm.traces.sources import open_source

Tick = Callable[[str, int], None]
"""Told what is being done, and how many traces of it are done."""


@dataclass(slots=True)
class Listed:
    """The ids of `--ids`, each with its place in the list."""

    places: Mapping[str, int]
    found: set[str] = field(default_factory=set)

    @property
    def missing(self) -> list[str]:
        """Return the ids that no trace of the pool has, in the order of the list."""
        return [id for id in self.places if id not in self.found]


def read_ids(source: str) -> Listed:
    """Read a list of ids: a text file with one a line, or any source of records with a column `id`.

    Raises:
        InputError: There is no such file, it is empty, or a record has no id.
    """
    if source.endswith(".txt"):
        try:
            with open(source, encoding="utf-8") as stream:
                ids = [line.strip() for line in stream if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"expected {source} to be a text file with an id a line, got: {error}") from error
    else:
        ids = list(_column(source))
    if not ids:
        raise InputError(f"expected ids in {source}, found none")
    return Listed({id: place for place, id in reversed(list(enumerate(ids)))})


def _column(source: str) -> Iterable[str]:
    for row in open_source(source):
        if isinstance(row, Reject):
            raise InputError(
                f"{row.file}:{row.line}: {row.reason} (a list of bare ids, one a line, must be named *.txt)"
            )
        id = row.columns.get("id")
        if not isinstance(id, str | int):
            raise InputError(
                f"{row.file}:{row.line}: expected a column id with a text; the record has {column_list(row.columns)}"
            )
        yield str(id)


def survey(
    pool: Iterable[Pooled],
    index: Index,
    settings: Selection,
    gate: Gate,
    *,
    listed: Listed | None = None,
    signatures: Signatures | None = None,
    tick: Tick | None = None,
) -> None:
    """Read the pool into the index, and freeze it.

    Raises:
        UsageError: The rewards cannot be compared: they are of several PRMs, or combined in several ways, and nothing
            says which count.
        InputError: There is no trace, or none that `--prm` names.
    """
    for place, (pooled, correct) in enumerate(gate.judged(pool)):
        score, against = _scored(pooled, settings, index, listed)
        against = against or gate.objection(pooled.trace, correct)
        reason, detail = against or (Reason.KEPT, "")
        index.append(pooled.trace, correct, score, reason, detail)
        if signatures is not None and against is None:
            signatures.append(place, pooled.trace)
        if tick is not None:
            tick("read", place + 1)
    index.freeze()
    if settings.rewarded:
        _refuse_mixed(index, settings)


def _scored(
    pooled: Pooled, settings: Selection, index: Index, listed: Listed | None
) -> tuple[float | None, Objection | None]:
    """Return what a trace is ranked by, and what speaks against ranking it."""
    trace = pooled.trace
    if listed is not None:
        place = listed.places.get(trace.id)
        if place is None:
            return None, (Reason.NOT_LISTED, "")
        listed.found.add(trace.id)
        return -float(place), None
    if not settings.rewarded:
        length = float(len(trace.thinking) + len(trace.response))
        return {"longest": length, "shortest": -length, "student": None}.get(settings.by, 0.0), None
    scored = pooled.scored
    if scored is None:
        return None, (Reason.UNSCORED, "no PRM has scored it")
    reward, lack = reward_of(scored, settings)
    if scored.reward is None and reward is None:
        return None, (Reason.UNSCORED, lack or "")
    identity = maker(scored.prm)
    index.makers[identity] += 1
    if settings.prm is not None and not is_named(identity, settings.prm):
        return None, (Reason.OTHER_PRM, f"scored by {said(identity)}")
    index.combinations.add((scored.prm.aggregation, scored.prm.alpha))
    return reward, None if reward is not None else (Reason.NO_REWARD, lack or "")


def said(identity: PRMIdentity) -> str:
    """Return a PRM's name as `--prm` takes it."""
    return f"{identity.name}@{identity.revision}"


def _refuse_mixed(index: Index, settings: Selection) -> None:
    makers = {identity: number for identity, number in index.makers.most_common() if _counts(identity, settings)}
    there = ", ".join(f"{said(identity)} ({number:,} traces)" for identity, number in index.makers.most_common())
    if settings.prm is not None and index.makers and not makers:
        raise InputError(f"no trace of the pool was scored by {settings.prm}; there are rewards of {there}")
    if len(makers) > 1:
        raise UsageError(
            f"the pool has rewards of several PRMs, which cannot be compared: {there}. Name the one that counts with "
            "--prm NAME@REVISION; traces of the others are then left out and counted"
        )
    if settings.by != "reward":
        return
    for given, which, at in ((settings.aggregation, "aggregation", 0), (settings.alpha, "alpha", 1)):
        found = sorted({combination[at] for combination in index.combinations}, key=str)
        if given is None and len(found) > 1:
            raise UsageError(
                f"the rewards of the pool were combined with different values of {which} "
                f"({', '.join(map(str, found))}); say which one counts with --{which}: the rewards are then made anew "
                "from the step rewards"
            )


def _counts(identity: PRMIdentity, settings: Selection) -> bool:
    return settings.prm is None or is_named(identity, settings.prm)
