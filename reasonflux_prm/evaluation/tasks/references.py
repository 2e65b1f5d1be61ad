"""Reference answers for recorded candidates that came without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from reasonflux_prm.errors import InputError
from reasonflux_prm.evaluation.tasks.base import Problem, Task
from reasonflux_prm.evaluation.tasks.programs import read_tests
from reasonflux_prm.records import ScoredTrace, Trace
from reasonflux_prm.traces.rows import Row


class References:
    """Finds the reference of a candidate: its own, that of the same problem among known ones, or, for code, its tests.

    Known problems are the same by their text, or else by their id, which is the candidates' group. Multiple choice goes
    by the text alone, because under the same id the options may stand in another order.

    Args:
        task: The benchmark.
        grader: The name of the grader that reads references.
        problems: Known problems; may be empty.
    """

    def __init__(self, task: Task, grader: str, problems: Sequence[Problem]) -> None:
        self._task, self._code = task, grader == "code"
        self._by_text = {problem.problem.strip(): problem.answer for problem in problems}
        self._by_id = {} if grader == "choice" else {problem.id: problem.answer for problem in problems}
        self._last: tuple[str | None, str, str | None] | None = None

    def complete(self, candidates: Iterable[ScoredTrace | Trace]) -> Iterator[ScoredTrace | Trace]:
        """Pass candidates on, with a reference where one can be had."""
        for candidate in candidates:
            trace = candidate.trace if isinstance(candidate, ScoredTrace) else candidate
            answer = self._reference(trace)
            if answer == trace.answer:
                yield candidate
            elif isinstance(candidate, ScoredTrace):
                yield replace(candidate, trace=replace(trace, answer=answer))
            else:
                yield replace(trace, answer=answer)

    def _reference(self, trace: Trace) -> str | None:
        if trace.answer is not None and not (self._code and read_tests(trace.answer) is None):
            return trace.answer
        # Candidates of one problem stand together, and share one text then.
        if self._last is None or self._last[:2] != (trace.group, trace.problem):
            self._last = trace.group, trace.problem, self._look_up(trace)
        return self._last[2]

    def _look_up(self, trace: Trace) -> str | None:
        known = self._by_text.get(trace.problem.strip()) or self._by_id.get(trace.group or trace.id)
        if known is not None or not self._code:
            return known
        columns = {"id": trace.group or trace.id, "problem": trace.problem, **trace.meta}
        try:
            return self._task.read(Row("", 0, columns), 0).answer
        except InputError:
            return None
