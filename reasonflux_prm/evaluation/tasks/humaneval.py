"""HumanEval: 164 Python functions to finish, with tests (arXiv:2107.03374).

- Data: `openai/openai_humaneval`, split `test` (columns task_id, prompt, canonical_solution, test, entry_point). A
  local file has the same columns.
- Graded by `code` in the style `check`: the function is handed to the `check` of the tests, within 10 s, as in SCATR
  (arXiv:2604.16535). openai/human-eval gives 3 s.
- Votes say nothing here: two programs are hardly ever the same.
"""

from __future__ import annotations

from reasonflux_prm.evaluation.tasks.base import Problem, Task, problem_of, required
from reasonflux_prm.evaluation.tasks.programs import write_tests
from reasonflux_prm.evaluation.tasks.prompts import ask_completion
from reasonflux_prm.grading.code import CodeTask
from reasonflux_prm.traces.columns import Columns
from reasonflux_prm.traces.rows import Row


def read(row: Row, _seed: int) -> Problem:
    """Read a record; see `Task.read`."""
    columns = Columns(row.columns, row.where)
    prompt = required(columns, "prompt" if "prompt" in row.columns else "problem")
    tests = CodeTask(
        tests=required(columns, "test"),
        style="check",
        prompt=prompt,
        entry_point=required(columns, "entry_point"),
        solution=columns.take_text(("canonical_solution",)),
    )
    return problem_of(columns, prompt, write_tests(tests), id=columns.take_scalar(("task_id",)))


TASK = Task(
    name="humaneval",
    title="HumanEval",
    source="openai/openai_humaneval:test",
    licence="MIT",
    sizes=(164,),
    grader="code",
    read=read,
    ask=ask_completion,
    votes=False,
)
