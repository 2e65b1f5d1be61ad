r"""SVAMP: word problems with one unknown, varied so that shallow reading fails (arXiv:2103.07191).

- Data: `ChilleD/SVAMP`, split `test` (columns ID, Body, Question, Equation, Answer, Type): 300 of the 1,000 problems,
  the other 700 being its `train`. The 1,000 together, as QwenLM/Qwen2.5-Math and the authors have them, are a local
  file with `id, problem, answer`. Say which of the two was used: the numbers differ.
- Graded by `numeric` on `\boxed{}`.
"""

from __future__ import annotations

from reasonflux_prm.evaluation.tasks.base import Problem, Task, problem_of, question_and_answer, required
from reasonflux_prm.evaluation.tasks.prompts import ask_answer
from reasonflux_prm.traces.columns import Columns
from reasonflux_prm.traces.rows import Row


def read(row: Row, seed: int) -> Problem:
    """Read a record; see `Task.read`."""
    if "Body" not in row.columns:
        return question_and_answer(row, seed)
    columns = Columns(row.columns, row.where)
    body, question = required(columns, "Body").strip(), required(columns, "Question").strip()
    # Some bodies have no full stop; the question goes on in the same line all the same.
    joined = f"{body}{'' if body.endswith(('.', ',', '?', '!')) else '.'} {question}"
    return problem_of(columns, joined, columns.take_scalar(("Answer",)), id=columns.take_scalar(("ID",)))


TASK = Task(
    name="svamp",
    title="SVAMP",
    source="ChilleD/SVAMP:test",
    licence="MIT",
    sizes=(300, 1000),
    grader="numeric",
    read=read,
    ask=ask_answer,
)
