"""Programs as answers and tests as references, so that code is graded like everything else.

The reference of a problem is a text everywhere (`Trace.answer`, candidates files); for code it is the tests, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cached_property, lru_cache
from typing import Any

from reasonflux_prm.errors import SandboxUnavailable
from reasonflux_prm.grading.code import TIME_LIMIT_S, CodeGrader, CodeTask
from reasonflux_prm.grading.grader import Grader, Pair
from reasonflux_prm.grading.programs import stated_program
from reasonflux_prm.grading.verdict import NO_ANSWER, REFERENCE_UNREAD, Grade, Verdict
from reasonflux_prm.sandbox.limits import Limits
from reasonflux_prm.sandbox.sandbox import Sandbox

_NO_SANDBOX = f"{REFERENCE_UNREAD}: its tests cannot be run without a sandbox"
_BROKEN = "the tests fail the task's own solution"
"""How `grading.code` begins to say that it is the tests' fault."""


def write_tests(tests: CodeTask) -> str:
    """Return tests as a reference; `read_tests` reads it back."""
    return json.dumps({name: value for name, value in asdict(tests).items() if value}, ensure_ascii=False)


@lru_cache(maxsize=4096)
def read_tests(reference: str) -> CodeTask | None:
    """Return the tests that a reference holds; None if it holds none."""
    try:
        fields = json.loads(reference)
        tests = CodeTask(**fields)
    except (ValueError, TypeError):
        return None
    texts = [value for value in fields.values() if not isinstance(value, str)]
    return tests if not texts and tests.style in ("check", "pytest") else None


class ProgramGrader(Grader):
    """Runs programs against their tests, in the sandbox.

    Where there is no sandbox nothing is run: candidates keep the verdicts that came with them, and a problem that has
    none cannot be judged, as if its reference did not parse.

    Args:
        workers: Programs at a time.
        allow_unsafe: Run programs with limits only where no sandbox is available.
        progress: Told after each program how many have been judged, and of how many.
    """

    name = "code"

    def __init__(
        self, workers: int = 2, *, allow_unsafe: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._workers, self._allow_unsafe, self._progress = workers, allow_unsafe, progress
        self.unavailable: str | None = None
        """Why there is no sandbox; None if there is one, or if nothing had to be run."""

    def identity(self) -> Mapping[str, Any]:
        """Return what the verdicts depend on; nothing is said of the sandbox where there is none."""
        return {"grader": self.name} if self._code is None else self._code.identity()

    def find(self, text: str, reference: str) -> str | None:
        """Return the program that a text states; None if it states none."""
        tests = read_tests(reference)
        return stated_program(text, tests.names() if tests else ())

    def decide(self, answer: str | None, reference: str) -> Verdict | None:
        """Return the verdict where nothing has to be run."""
        if read_tests(reference) is None:
            return Verdict(Grade.UNPARSED, answer, f"{REFERENCE_UNREAD}: it holds no tests")
        if self._code is None:
            return Verdict(Grade.UNPARSED, answer, _NO_SANDBOX)
        return Verdict(Grade.UNPARSED, None, NO_ANSWER) if answer is None else None

    def settle(self, pairs: Iterable[Pair]) -> Iterator[Verdict]:
        """Yield the verdicts of programs, in order, several of them running at a time."""
        pairs = list(pairs)
        with ThreadPoolExecutor(self._workers) as pool:
            for number, verdict in enumerate(pool.map(self._run, pairs), start=1):
                if self._progress:
                    self._progress(number, len(pairs))
                yield verdict

    async def asettle(self, pair: Pair) -> Verdict:
        """Return the verdict of a program, without holding the event loop up."""
        return await asyncio.to_thread(self._run, pair)

    def key(self, answer: str) -> Hashable:
        """Return the program: two are the same if their texts are."""
        return answer

    @cached_property
    def _code(self) -> CodeGrader | None:
        try:
            sandbox = Sandbox(Limits(cpu_s=TIME_LIMIT_S, wall_s=TIME_LIMIT_S), allow_unsafe=self._allow_unsafe)
            return CodeGrader(sandbox)
        except SandboxUnavailable as error:
            self.unavailable = str(error)
            return None

    def _run(self, pair: Pair) -> Verdict:
        answer, reference = pair
        tests = read_tests(reference)
        if self._code is None or tests is None or answer is None:
            raise ValueError("expected a program, tests and a sandbox, which `decide` sees to")
        verdict = self._code.grade(_fenced(answer), tests)
        if (verdict.reason or "").startswith(_BROKEN):
            return replace(verdict, answer=answer, reason=f"{REFERENCE_UNREAD}: {verdict.reason}")
        return replace(verdict, answer=answer)


def _fenced(program: str) -> str:
    """Return a program as the one block of a text, whatever fences stand in the program itself."""
    longest = max((len(run) for run in re.findall(r"[`~]+", program)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{program}\n{fence}"
