"""The graders of tasks by name: those of `grading.graders`, and those that only benchmarks need."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from reasonflux_prm.evaluation.dabstep import DABStepGrader
from reasonflux_prm.evaluation.tasks.programs import ProgramGrader
from reasonflux_prm.grading import graders
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.verdict import Grade, Verdict

NAMES: Final = (*graders.NAMES, "code", "dabstep", "recorded")


class RecordedGrader(Grader):
    """Knows no verdict but the recorded one: whether such an answer is right can only be told elsewhere."""

    name = "recorded"

    def identity(self) -> Mapping[str, Any]:
        """Return the grader's name."""
        return {"grader": self.name}

    def find(self, text: str, reference: str) -> str:
        """Return an empty answer for every text: there is one, and it is not looked at."""
        return ""

    def decide(self, answer: str | None, reference: str) -> Verdict:
        """Return that it could not be told."""
        return Verdict(Grade.UNPARSED, answer, "only the benchmark's own harness can tell")

    def key(self, answer: str) -> Hashable:
        """Return the answer; there are no votes."""
        return answer


def open_task_grader(
    name: str, *, allow_unsafe: bool = False, progress: Callable[[int, int], None] | None = None
) -> Grader:
    """Open a grader by its name, one of `NAMES`; close it when done.

    Args:
        name: The name.
        allow_unsafe: For `code`: run programs with limits only where no sandbox is available.
        progress: For `code`: told after each program how many have been judged, and of how many.

    Raises:
        UsageError: There is none of that name.
        MissingExtra: It needs math-verify, which is not installed.
    """
    if name == "code":
        return ProgramGrader(allow_unsafe=allow_unsafe, progress=progress)
    if name == "dabstep":
        return DABStepGrader()
    if name == "recorded":
        return RecordedGrader()
    return graders.open_grader(name)
