"""Which traces share an n-gram of words with a problem of a benchmark.

Texts are compared as words (`words.words`). A benchmark problem of at least n words is found in a text if n of its
words in a row are; one of fewer words, if all of them are, in a row; one of fewer than `SHORTEST` words only if the
text's problem is the same, since "compute 2 + 3" stands in many texts. n = 13 is GPT-3's (arXiv:2005.14165, appendix
C). Phrases that many contest problems end with can be as long as that, so what was found is named in every drop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.evaluation.tasks import TASKS, custom, find_task
from reasonflux_prm.evaluation.tasks.base import Problem, Task, load
from reasonflux_prm.records import Reject, Trace
from reasonflux_prm.selection.words import words

SHORTEST = 6


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Problems that must not be trained on."""

    name: str
    problems: Sequence[Problem]
    unread: int = 0
    """Records of its source that were no problems."""


@dataclass(frozen=True, slots=True)
class Hit:
    """What a text shares with a benchmark."""

    benchmark: str
    problem: str
    """The problem's id."""
    words: str

    def __str__(self) -> str:
        return f"{self.benchmark} {self.problem}: {self.words!r}"


def load_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """Load benchmarks by name.

    Args:
        names: Each `NAME` (a task of `evaluation.tasks`, from its place on the hub), `NAME=SOURCE` (the same from a
            file or data set), or `SOURCE` (problems of your own).

    Raises:
        UsageError: A task has no place on the hub, or there is neither such a task nor such a source.
        InputError: A source has no problems.
        MissingExtra, DownloadError: A data set could not be read.
    """
    return [_load(name) for name in names]


def _load(given: str) -> Benchmark:
    name, _, source = given.partition("=")
    known = {task.name for task in TASKS}
    if name in known:
        return _read(find_task(name), name, source or None)
    if source:
        raise UsageError(f"unknown benchmark {name!r}; there are {', '.join(sorted(known))}, or a file of problems")
    if not Path(given).exists() and "/" not in given:
        raise UsageError(
            f"{given!r} is neither a benchmark ({', '.join(sorted(known))}) nor a file or data set of problems"
        )
    return _read(custom.TASK, Path(given).name, given)


def _read(task: Task, name: str, source: str | None) -> Benchmark:
    refused: list[Reject] = []
    problems = load(task, source, rejects=refused.append)
    return Benchmark(name, problems, len(refused))


class Contamination:
    """The n-grams of benchmarks.

    Args:
        benchmarks: The problems.
        n: Words of an n-gram.
        whole: Look into thinking and response too.

    Raises:
        InputError: A benchmark has a problem without a word.
    """

    def __init__(self, benchmarks: Sequence[Benchmark], n: int, *, whole: bool = False) -> None:
        self._n, self._whole = n, whole
        self._grams: dict[str, tuple[str, str]] = {}
        self._short: dict[int, dict[str, tuple[str, str]]] = {}
        """By their number of words: problems of fewer than n."""
        self._same: dict[str, tuple[str, str]] = {}
        for benchmark in benchmarks:
            for problem in benchmark.problems:
                self._add(benchmark.name, problem)

    def _add(self, benchmark: str, problem: Problem) -> None:
        found, name = words(problem.problem), (benchmark, problem.id)
        if not found:
            raise InputError(f"expected problems made of words in {benchmark}, got {problem.problem!r} ({problem.id})")
        self._same.setdefault(" ".join(found), name)
        if len(found) >= self._n:
            for gram in _grams(found, self._n):
                self._grams.setdefault(gram, name)
        elif len(found) >= SHORTEST:
            self._short.setdefault(len(found), {}).setdefault(" ".join(found), name)

    def find(self, trace: Trace) -> Hit | None:
        """Return the first n-gram of a trace that a benchmark has, None if there is none."""
        problem = words(trace.problem)
        if name := self._same.get(whole := " ".join(problem)):
            return Hit(*name, whole)
        parts = [problem, words(trace.thinking), words(trace.response)] if self._whole else [problem]
        tables = [(self._n, self._grams), *self._short.items()]
        for part in parts:
            for length, table in tables:
                hit = next((gram for gram in _grams(part, length) if gram in table), None) if table else None
                if hit is not None:
                    return Hit(*table[hit], hit)
        return None


def _grams(found: Sequence[str], n: int) -> Iterator[str]:
    return (" ".join(found[start : start + n]) for start in range(len(found) - n + 1))
