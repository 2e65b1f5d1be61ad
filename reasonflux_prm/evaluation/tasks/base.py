"""What a benchmark is: where its problems are, what a policy is asked, and who says whether an answer is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import Reject
from reasonflux_prm.traces.columns import ANSWER, Columns
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a benchmark."""

    id: str
    problem: str
    """As candidates and PRMs are shown it."""
    answer: str | None = None
    """The reference, as the task's grader reads it: an answer, or tests (`tasks.programs.write_tests`)."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What else the record has, for those who write candidates (`subject`, `level`); no text of a solution."""


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark whose candidates are chosen among."""

    name: str
    """As the command line has it."""
    title: str
    source: str | None
    """Where the problems are on the hub, as `traces.sources.open_source` takes it; None if every user has their own."""
    licence: str
    """Of the problems."""
    sizes: tuple[int, ...]
    """How many problems there are, for every published form; empty if any number will do."""
    grader: str
    """A name in `tasks.graders.NAMES`."""
    read: Callable[[Row, int], Problem]
    """Reads a record of the hub or of a local file; the number is a seed, for tasks that shuffle something.

    Raises:
        InputError: The record lacks a column.
    """
    ask: Callable[[Problem], str] | None
    """What a thinking model is asked, in one message; None where candidates can only be recorded."""
    votes: bool = True
    """Whether candidates can give the same answer, so that votes say something."""
    steps: str = "adaptive"
    """The step rule (`steps.split.RULE_NAMES`)."""


def load(
    task: Task,
    source: str | Path | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    rejects: Callable[[Reject], None] | None = None,
) -> list[Problem]:
    """Load the problems of a task.

    Args:
        task: The benchmark.
        source: A file, a directory or a data set; default the task's own place on the hub.
        limit: Take the first so many.
        seed: For tasks that shuffle something (the options of GPQA).
        rejects: Takes each record that is no problem of this task; without it the first such record raises.

    Raises:
        UsageError: The task has no place on the hub, and no source is given.
        InputError: There is no problem in the source, or, without `rejects`, a record is bad.
        MissingExtra: `datasets` is needed and not installed.
        DownloadError: The data set could not be fetched.
    """
    name = source or task.source
    if name is None:
        raise UsageError(f"{task.name} has no problems of its own; name a file or a data set with --problems")
    problems = list(islice(_problems(task, open_source(name), seed, rejects), limit))
    if not problems:
        raise InputError(f"expected problems of {task.title} in {name}, found none")
    return problems


def size_note(task: Task, found: int) -> str | None:
    """Return a sentence if the number of problems is not that of the whole benchmark, else None."""
    if not task.sizes or found in task.sizes:
        return None
    whole = " or ".join(f"{size:,}" for size in task.sizes)
    return f"{found:,} problems, and {task.title} has {whole}: do not report this as a result on {task.title}"


def question_and_answer(row: Row, _seed: int = 0) -> Problem:
    """Read a problem whose text and reference stand in columns of the usual names (`problem`, `question`; `answer`)."""
    columns = Columns(row.columns, row.where)
    return problem_of(columns, columns.take_problem(), columns.take_scalar(ANSWER))


def problem_of(columns: Columns, problem: str, answer: str | None, *, id: str | None = None) -> Problem:
    """Return a problem from what was read of its record; short columns that were not taken come along."""
    own = id or columns.take_id()
    rest = {name: value for name, value in columns.rest().items() if name in _KEPT}
    return Problem(own, problem, answer, rest)


def required(columns: Columns, name: str) -> str:
    """Take a column that must hold text.

    Raises:
        InputError: It does not.
    """
    value = columns.take(name)
    if not isinstance(value, str):
        raise InputError(f"expected text in the column {name}, got {type(value).__name__}")
    return value


_KEPT = frozenset({"subject", "level", "type", "year", "url", "domain", "Subdomain", "High-level domain", "subset"})


def _problems(
    task: Task, rows: Iterator[Row | Reject], seed: int, rejects: Callable[[Reject], None] | None
) -> Iterator[Problem]:
    ids: set[str] = set()
    for row in rows:
        read = row if isinstance(row, Reject) else _read(task, row, seed, ids)
        if isinstance(read, Problem):
            ids.add(read.id)
            yield read
        elif rejects is None:
            raise InputError(f"{read.file}:{read.line}: {read.reason}")
        else:
            rejects(read)


def _read(task: Task, row: Row, seed: int, ids: set[str]) -> Problem | Reject:
    try:
        problem = task.read(row, seed)
    except InputError as error:
        return row.reject(str(error))
    if problem.id in ids:
        return row.reject(f"a problem with the id {problem.id!r} stands above; ids must differ")
    return problem
