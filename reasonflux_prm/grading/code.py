"""Whether a program is right, by running its tests in the sandbox.

Two styles of tests: `check`, as HumanEval has it (a prompt that the program goes on from, and a function `check`
that takes the program's function), and `pytest`, as KodCode has it (functions `test_...` that import from `solution`).
pytest itself is not needed; `grading.inside.testing` stands in for it.

Tests run in a process of their own, across a pipe from the program, wherever plain values are all that they exchange:
for `check` always, for `pytest` if the task's own solution passes in that way. Otherwise they run beside the program,
in its process. docs/sandbox.md says what a program can fake then.
"""

from __future__ import annotations

import asyncio
import json
import platform
import re
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from reasonflux_prm.grading import inside
from reasonflux_prm.grading.programs import defines, stated_program
from reasonflux_prm.grading.verdict import Grade, Verdict
from reasonflux_prm.sandbox.limits import Limits, Run, RunStatus
from reasonflux_prm.sandbox.sandbox import Sandbox

VERSION: Final = 1
NO_PROGRAM: Final = "no program stated"
TIME_LIMIT_S: Final = 10.0
"""What SCATR's evaluation gives a program (arXiv:2604.16535)."""
_IMPORTED = re.compile(r"^\s*from\s+solution\s+import\s+(\([^)]*\)|[^#\n]*)", re.MULTILINE)
_NAME = re.compile(r"\s*[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class CodeTask:
    """What a program has to do, as tests."""

    tests: str
    style: Literal["check", "pytest"]
    prompt: str = ""
    """`check`: the code that the program goes on from, up to the docstring of its function."""
    entry_point: str = ""
    """`check`: the function's name."""
    solution: str | None = None
    """A program that is right. It shows whether the tests work here, and in which way they can be run."""

    def names(self) -> list[str]:
        """Return what the program has to define."""
        if self.style == "check":
            return [self.entry_point]
        found = _IMPORTED.findall(self.tests)
        return [name.split()[0] for names in found for name in names.strip("()").split(",") if _NAME.match(name)]


class _Way(StrEnum):
    """How a task's tests are run."""

    APART = "apart"
    """In a process of their own."""
    BESIDE = "beside"
    """In the program's process."""
    BROKEN = "broken"
    """Not at all: the task's own solution does not pass."""


class CodeGrader:
    """Judges programs by tests. Safe to use from several threads, and from asyncio by `agrade`."""

    name = "code"

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        """Run programs in `sandbox`; by default one with the time limit of `TIME_LIMIT_S`.

        Raises:
            SandboxUnavailable: Nothing here isolates a program.
        """
        self.sandbox = sandbox or Sandbox(Limits(cpu_s=TIME_LIMIT_S, wall_s=TIME_LIMIT_S))
        self._ways: dict[CodeTask, tuple[_Way, str]] = {}

    def identity(self) -> Mapping[str, Any]:
        """Return what the verdicts depend on. For manifests and cache keys."""
        limits = self.sandbox.limits
        return {
            "grader": self.name,
            "version": VERSION,
            "sandbox": str(self.sandbox.backend),
            "python": platform.python_version(),
            "wall_s": limits.wall_s,
            "cpu_s": limits.cpu_s,
            "memory_mb": limits.memory_mb,
        }

    def grade(self, text: str, task: CodeTask) -> Verdict:
        """Judge the program that a text states.

        Returns:
            `right` if every test passed. `wrong` with the first failure, or the limit that was exceeded, as the reason.
            `unparsed` if no program is stated, if the tests do not work here, or if the sandbox failed.
        """
        return self.grade_program(stated_program(text, task.names()), task)

    def grade_program(self, program: str | None, task: CodeTask) -> Verdict:
        """Judge a program that has been taken out of its text already (None: none is stated); see `grade`."""
        if program is None:
            return Verdict(Grade.UNPARSED, None, NO_PROGRAM)
        way, why = self._way(task)
        if way is _Way.BROKEN:
            return Verdict(Grade.UNPARSED, program, f"the tests fail the task's own solution ({why})")
        verdict = self._test(program, task, way)
        if self.sandbox.isolates:
            return verdict
        return replace(verdict, reason=f"{verdict.reason or 'all tests passed'}; not sandboxed")

    def grade_many(self, pairs: Iterable[tuple[str, CodeTask]], workers: int = 2) -> list[Verdict]:
        """Judge the programs of many texts, `workers` at a time; in order."""
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda pair: self.grade(*pair), pairs))

    async def agrade(self, text: str, task: CodeTask) -> Verdict:
        """Judge the program that a text states, without holding the event loop up; see `grade`."""
        return await asyncio.to_thread(self.grade, text, task)

    def _way(self, task: CodeTask) -> tuple[_Way, str]:
        """Return how to run a task's tests, and if in no way, why not; it depends on no candidate."""
        if task.solution is None:
            return (_Way.APART if task.style == "check" else _Way.BESIDE), ""
        if task not in self._ways:
            self._ways[task] = self._decided(task, task.solution)
        return self._ways[task]

    def _decided(self, task: CodeTask, solution: str) -> tuple[_Way, str]:
        why = ""
        for way in (_Way.APART, _Way.BESIDE) if task.style == "pytest" else (_Way.APART,):
            verdict = self._test(solution, task, way)
            if verdict.right:
                return way, ""
            why = verdict.reason or ""
        return _Way.BROKEN, why

    def _test(self, program: str, task: CodeTask, way: _Way) -> Verdict:
        token = secrets.token_hex(16)
        job = {
            "sources": _sources(program, task),
            "style": task.style,
            "tests": task.tests,
            "prompt": _complete(task.prompt),
            "entry_point": task.entry_point,
            "shared": way is _Way.BESIDE,
            "token": token,
        }
        for _ in range(_TRIES):
            run = self.sandbox.run(_RUNNER, stdin=json.dumps(job), files=_files())
            if run.status is not RunStatus.BROKEN:
                break
        return _verdict(program, task, run, token)


_TRIES = 2
"""A sandbox may fail for want of memory or processes on the machine, which passes."""
_RUNNER = "from reasonflux_prm.grading.inside.runner import main\nmain()\n"


@cache
def _files() -> Mapping[str, str]:
    """Return the package that runs inside, under the name by which its modules import each other."""
    folder = Path(str(inside.__file__)).parent
    place = inside.__name__.replace(".", "/")
    return {f"{place}/{path.name}": path.read_text("utf-8") for path in folder.glob("*.py")}


def _sources(program: str, task: CodeTask) -> list[str]:
    if task.style == "pytest":
        return [program]
    if defines(program, [task.entry_point]):
        # The prompt's imports and helpers first: a program need not repeat them.
        return [_complete(task.prompt), program]
    return [f"{task.prompt.rstrip()}\n{program}\n"]


@cache
def _complete(prompt: str) -> str:
    """Return a prompt as code that can be run: the function at its end needs a body, if only a docstring."""
    try:
        compile(prompt, "<prompt>", "exec", dont_inherit=True)
    except SyntaxError:
        return f"{prompt.rstrip()}\n    pass\n"
    return prompt


def _verdict(program: str, task: CodeTask, run: Run, token: str) -> Verdict:
    if run.status is RunStatus.BROKEN:
        return Verdict(Grade.UNPARSED, program, run.reason)
    try:
        said = json.loads(run.stdout)
    except ValueError:
        said = {}
    if run.status is not RunStatus.OK or not said:
        return Verdict(Grade.WRONG, program, run.reason or "the tests did not come to their end")
    if said.get("token") == token:
        return Verdict(Grade.RIGHT, program)
    if "unsupported" in said:
        # If the task's own solution passes, it is the program that does what the tests cannot deal with.
        return Verdict(Grade.UNPARSED if task.solution is None else Grade.WRONG, program, said["unsupported"])
    failure = said.get("failure", {})
    where = f" at `{failure['line']}`" if failure.get("line") else ""
    return Verdict(Grade.WRONG, program, f"{failure.get('test') or 'the tests'}{where}: {failure.get('error')}")
