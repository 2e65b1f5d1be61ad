"""Search for the answers of a file of problems, into a file of results, surviving a kill at any moment.

How a run is interrupted and goes on is told in `traces.resumable`: a result is on the disk before the next is taken.
What a policy had written for a problem that was not finished is asked for again, unless a cache keeps it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.evaluation.tasks.base import Problem, Task, load
from reasonflux_prm.evaluation.tasks.custom import TASK as CUSTOM
from reasonflux_prm.records import Reject, Trace
from reasonflux_prm.search.result import SearchResult, SearchStatus
from reasonflux_prm.search.searcher import Searcher
from reasonflux_prm.traces import resumable
from reasonflux_prm.traces.resumable import Input

KIND: Final = "search"


@dataclass(frozen=True)
class ProblemInput(Input):
    """Problems to search for the answers of; see `evaluation.tasks.base.load`."""

    task: Task = CUSTOM

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells this input from another."""
        return {**super().fingerprint(), "task": self.task.name}

    def read(self, rejects: Callable[[Reject], None] | None) -> Iterator[Trace]:
        """Read the problems, as traces of which nothing is written yet."""
        for problem in load(self.task, self.source, limit=self.limit, rejects=rejects):
            yield Trace(problem.id, problem.problem, answer=problem.answer, meta=problem.columns)


@dataclass
class Progress(resumable.Progress[SearchResult]):
    """How far a run is."""

    cost: Counter[str] = field(default_factory=Counter)
    """As `Budget.row`, over all problems."""
    troubles: Counter[str] = field(default_factory=Counter)
    """Over all problems, by `Trouble`."""
    candidates: int = 0
    known: int = 0
    """Picks that are known to be right or wrong."""
    right: int = 0
    capped: int = 0
    """Problems whose search the cap put an end to."""
    drawn: int = 0
    """Samples that an adaptive method drew."""
    most: int = 0
    """Samples that it would have drawn without stopping early."""

    def add(self, chunk: Sequence[SearchResult], seconds: float) -> None:
        """Count one chunk."""
        super().add(chunk, seconds)
        for result in chunk:
            self.cost.update(result.cost)
            self.troubles.update({trouble.value: count for trouble, count in result.troubles.items()})
            self.candidates += len(result.candidates)
            correct = None if result.pick is None else result.pick.correct
            self.known += correct is not None
            self.right += correct is True
            self.capped += result.capped
            self.drawn += int(result.details.get("drawn", 0))
            self.most += int(result.details.get("of", 0))

    def details(self) -> dict[str, Any]:
        """Return what the manifest says besides."""
        counts = {
            "candidates": self.candidates,
            "known": self.known,
            "right": self.right,
            "capped": self.capped,
            "troubles": dict(self.troubles),
            "cost": dict(self.cost),
        }
        return {**counts, "drawn": self.drawn, "drawn_at_most": self.most} if self.most else counts

    @property
    def unpicked(self) -> int:
        """Return the number of problems without a pick."""
        return self.traces - self.counts[SearchStatus.PICKED.value]


Hook = Callable[[list[SearchResult], Progress], None]
"""Called after each result, once it is on the disk."""


def run_search(
    searcher: Searcher, source: ProblemInput, output: Path, *, resume: bool = True, hook: Hook | None = None
) -> Progress:
    """Search for the answers of `source` into `output`; write its manifest and, where input was refused, its rejects.

    Args:
        searcher: Method, policy, PRM.
        source: The problems. A pipe cannot be read twice, so a run from one always starts over.
        output: A `.jsonl` file, or `.jsonl.gz`.
        resume: Go on where an interrupted run of the same settings and input stopped, and do nothing if such a run is
            complete. False starts over and replaces what is there.
        hook: Told of each result.

    Returns:
        The final counts.

    Raises:
        PolicyStopped: The policy answers nothing any more. What is done is kept.
        ResumeError: `output` belongs to a run with other settings or input, or another process is writing it.
        InputError: The source is missing or holds no problem.
        OutputError: The output cannot be written.
    """
    return resumable.run(_job(searcher, source, search_settings(searcher, source)), output, resume=resume, hook=hook)


def stream_search(
    searcher: Searcher,
    source: ProblemInput,
    rejects: Callable[[Reject], None] | None = None,
    hook: Hook | None = None,
) -> Progress:
    """Search to standard output; a pipe cannot be resumed, so nothing is kept.

    Raises:
        PolicyStopped: The policy answers nothing any more.
        InputError: The source is missing or holds no problem; or, without `rejects`, a record is bad.
        BrokenPipeError: Nobody reads on.
    """
    return resumable.stream(_job(searcher, source, {}), rejects, hook)


def search_settings(searcher: Searcher, source: ProblemInput) -> dict[str, Any]:
    """Return everything that the bytes of the output depend on, as JSON values."""
    return dict(json.loads(json.dumps({"search": searcher.identity(), "input": source.fingerprint()})))


def _job(
    searcher: Searcher, source: ProblemInput, settings: Mapping[str, Any]
) -> resumable.Job[SearchResult, Progress]:
    def chunks(traces: Iterator[Trace]) -> Iterator[list[SearchResult]]:
        problems = (Problem(trace.id, trace.problem, trace.answer, trace.meta) for trace in traces)
        for result in searcher.search(problems):
            yield [result]

    return resumable.Job(resumable.Kind(KIND, Progress, SearchResult.row), source, settings, chunks)
