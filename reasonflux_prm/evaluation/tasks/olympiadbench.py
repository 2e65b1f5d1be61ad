r"""OlympiadBench: the open-ended English competition problems in mathematics that have no picture (arXiv:2402.14008).

- Data: `Hothan/OlympiadBench`, configuration `OE_TO_maths_en_COMP`, split `train` (columns id, question, context,
  final_answer (a list), unit, is_multiple_answer, error, subfield): 674 problems; copies of OpenBMB/OlympiadBench
  elsewhere have 675. A local file has `id, problem, answer`. A `context` (what several questions share) goes before the
  question.
- Graded by `math` on `\boxed{}`: several answers are one list, and their order does not matter. The benchmark allows an
  error on some numbers (column `error`); we do not, so those are graded more strictly here than by
  inference/code/math_judger.py of OpenBMB/OlympiadBench at cbacd1ad.
"""

from __future__ import annotations

from typing import Any

from reasonflux_prm.evaluation.tasks.base import Problem, Task, problem_of, question_and_answer, required
from reasonflux_prm.evaluation.tasks.prompts import ask_answer
from reasonflux_prm.traces.columns import Columns
from reasonflux_prm.traces.rows import Row


def read(row: Row, seed: int) -> Problem:
    """Read a record; see `Task.read`."""
    if "final_answer" not in row.columns:
        return question_and_answer(row, seed)
    columns = Columns(row.columns, row.where)
    question, context = required(columns, "question"), columns.take("context")
    problem = f"{context.strip()}\n\n{question}" if isinstance(context, str) and context.strip() else question
    return problem_of(columns, problem, _answer(columns.take("final_answer")))


def _answer(final: Any) -> str | None:
    if isinstance(final, list):
        return ", ".join(str(one) for one in final) or None
    return None if final is None else str(final)


TASK = Task(
    name="olympiadbench",
    title="OlympiadBench (OE_TO_maths_en_COMP)",
    source="Hothan/OlympiadBench:OE_TO_maths_en_COMP:train",
    licence="Apache-2.0 (the authors' repository: MIT)",
    sizes=(674, 675),
    grader="math",
    read=read,
    ask=ask_answer,
)
