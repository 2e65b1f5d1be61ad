"""KodCode: synthetic programming problems with pytest functions (arXiv:2503.02951).

- Data: `KodCode/KodCode-Light-RL-10K`, split `train` (columns question_id, question, solution, test, test_info,
  subset), 10,000 problems. KodCode-V1 has the same columns, or `test_code` for `test` in earlier revisions. SCATR
  (arXiv:2604.16535) takes 1,000 problems that are not published (datasets/kodcode_1000.jsonl in
  configs/config_kodcode.yaml of martaknezevic/SCaTR at cc3eb480): take `--limit 1000`, and do not compare with it
  problem by problem. A local file has the same columns.
- Graded by `code` in the style `pytest`, within 10 s, as SCATR does. Solutions that need a package beside the standard
  library fail their own tests here, and their problems are in no number (counted as `reference-unread`).
- Votes say nothing here: two programs are hardly ever the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.evaluation.tasks.base import Problem, Task, problem_of
from reasonflux_prm.evaluation.tasks.programs import read_tests, write_tests
from reasonflux_prm.evaluation.tasks.prompts import ask_program
from reasonflux_prm.grading.code import CodeTask
from reasonflux_prm.traces.columns import Columns
from reasonflux_prm.traces.rows import Row

DECLARATIONS: Final = "declarations"
"""The column of a problem that says what its program has to define, as Python writes it."""
_IMPORTS = re.compile(r"^\s*(?:from\s+solution\s+import|import\s+solution)\b", re.MULTILINE)


def read(row: Row, _seed: int) -> Problem:
    """Read a record; see `Task.read`."""
    columns = Columns(row.columns, row.where)
    tests = columns.take_text(("test", "test_code"))
    if tests is None:
        raise InputError("expected tests in the column test or test_code, got none")
    if not _IMPORTS.search(tests):
        tests = f"from solution import *\n\n{tests}"
    code = CodeTask(tests=tests, style="pytest", solution=columns.take_text(("solution",)))
    declarations = _declarations(columns.take("test_info"))
    problem = problem_of(columns, columns.take_problem(), write_tests(code))
    return replace(problem, columns={**problem.columns, DECLARATIONS: declarations}) if declarations else problem


def ask(problem: Problem) -> str:
    """Ask for a program with the names that the tests import."""
    wanted = problem.columns.get(DECLARATIONS)
    if not wanted:
        tests = read_tests(problem.answer or "")
        wanted = tests.names() if tests else []
    return ask_program(problem, [str(one) for one in wanted])


def _declarations(info: Any) -> list[str]:
    """Return the declarations of a record's functions, or their names where there is none."""
    records = [one for one in info if isinstance(one, Mapping)] if isinstance(info, list) else []
    told = [one.get("function_declaration") or one.get("function_name") for one in records]
    return [one.strip() for one in told if isinstance(one, str) and one.strip()]


TASK = Task(
    name="kodcode",
    title="KodCode (Light RL 10K)",
    source="KodCode/KodCode-Light-RL-10K:train",
    licence="CC BY-NC 4.0",
    sizes=(1000, 10_000),
    grader="code",
    read=read,
    ask=ask,
    votes=False,
)
