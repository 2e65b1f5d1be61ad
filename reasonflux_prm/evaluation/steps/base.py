"""A step benchmark: where its data is, how a record becomes a trace with labelled steps, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reasonflux_prm.errors import InputError
from reasonflux_prm.evaluation.steps.judged import Judged
from reasonflux_prm.evaluation.steps.report import ALL, Settings, StepReport
from reasonflux_prm.records import Reject, Trace
from reasonflux_prm.traces.formats import read_row
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source

Report = Callable[[Sequence[Judged], Settings, Sequence[Judged] | None], StepReport]
"""Numbers of judged traces; the third are traces of a dev set to choose a threshold on, None without one."""


@dataclass(frozen=True, slots=True)
class StepBenchmark:
    """One benchmark."""

    name: str
    title: str
    sources: tuple[str, ...]
    """Data sets on the hub; empty if it comes as a file only."""
    licence: str
    sizes: Mapping[str, int]
    """Traces of the whole benchmark by scope, or under `ALL` altogether; empty if it has no fixed size."""
    read: Callable[[Row], list[Trace]]
    """A record's traces, with `scope` (and `values`, `gains`) among their columns, and `group` naming the problem.

    Raises InputError for a bad record.
    """
    report: Report
    scopes: tuple[str, ...] = ()
    """Those that a trace can be of; empty if there may be any."""


def read_benchmark(
    benchmark: StepBenchmark,
    sources: Sequence[str],
    rejects: Callable[[Reject], None] | None = None,
    limit: int | None = None,
) -> Iterator[Trace]:
    """Read the traces of a benchmark, in the order of the sources; one that came before is left out.

    Args:
        benchmark: Says how records are read.
        sources: Files, directories or data sets; empty takes the benchmark's own.
        rejects: Takes each bad record, and reading goes on; without it the first one raises.
        limit: So many traces of each source.

    Raises:
        InputError: There is no source, one is missing, or, without `rejects`, a record is bad.
    """
    if not (names := tuple(sources) or benchmark.sources):
        raise InputError(f"{benchmark.title} has no data set on the hub; name its file with --file")
    seen: set[str] = set()
    for name in names:
        taken = 0
        for trace in _traces(benchmark, open_source(name), rejects):
            if limit is not None and taken >= limit:
                break
            if trace.id not in seen:
                seen.add(trace.id)
                taken += 1
                yield trace


def _traces(
    benchmark: StepBenchmark, rows: Iterator[Row | Reject], rejects: Callable[[Reject], None] | None
) -> Iterator[Trace]:
    for row in rows:
        try:
            read = row if isinstance(row, Reject) else [_checked(trace) for trace in benchmark.read(row)]
        except InputError as error:
            assert isinstance(row, Row)
            read = row.reject(str(error))
        if not isinstance(read, Reject):
            yield from read
        elif rejects is None:
            raise InputError(f"{read.file}:{read.line}: {read.reason}")
        else:
            rejects(read)


def _checked(trace: Trace) -> Trace:
    if not trace.steps:
        raise InputError("expected steps in a record of a step benchmark, found none")
    if empty := [
        number for number, step in enumerate(trace.steps) if not trace.text(step.part)[step.start : step.stop].strip()
    ]:
        raise InputError(f"expected text in every step, found none in step {empty[0]} (of {len(trace.steps)}, from 0)")
    return trace


def labelled_trace(row: Row, columns: Mapping[str, Any] | None = None) -> Trace:
    """Read one trace with steps from a record.

    Args:
        row: The record.
        columns: Its columns, where they are other than in the record.

    Raises:
        InputError: It has no format that is known, or more than one trace.
    """
    found = read_row(row.columns if columns is None else columns, row.where)
    if len(found) != 1:
        raise InputError(f"expected one trace in a record of a step benchmark, got {len(found)}")
    return found[0]


def with_scope(trace: Trace, scope: str, **columns: Any) -> Trace:
    """Return a trace with its scope, and with other columns that `judged.judged_of` reads."""
    return replace(trace, meta={**trace.meta, "scope": scope, **columns})


def size_notes(benchmark: StepBenchmark, found: Sequence[Judged]) -> list[str]:
    """Return a sentence if the traces are not those of the whole benchmark."""
    counts: dict[str, int] = {ALL: len(found)}
    for own in found:
        counts[own.scope] = counts.get(own.scope, 0) + 1
    wrong = [
        f"{scope} {counts.get(scope, 0):,} of {size:,}"
        for scope, size in benchmark.sizes.items()
        if counts.get(scope, 0) != size
    ]
    if not wrong:
        return []
    return [
        f"Not the whole benchmark ({', '.join(wrong)} traces): do not report this as a result on {benchmark.title}."
    ]
