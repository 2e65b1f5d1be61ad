r"""GSM8K: the 1,319 grade-school problems of the test split (arXiv:2110.14168).

- Data: `openai/gsm8k`, configuration `main`, split `test` (columns question, answer); the reference stands behind
  `####` of `answer`. A local file has `id, problem, answer`, with the reference alone or a solution that ends so.
- Graded by `numeric`, on `\boxed{}`, `#### x` or `The answer is x`: every reference is a number. Units and dollar signs
  around it do not matter; openai/grade-school-math (dataset.py at 3101c7d5) compares what follows `####` as text.
"""

from __future__ import annotations

from dataclasses import replace

from reasonflux_prm.evaluation.tasks.base import Problem, Task, question_and_answer
from reasonflux_prm.evaluation.tasks.prompts import ask_answer
from reasonflux_prm.traces.rows import Row


def read(row: Row, seed: int) -> Problem:
    """Read a record; see `Task.read`."""
    problem = question_and_answer(row, seed)
    if problem.answer is None:
        return problem
    return replace(problem, answer=problem.answer.rpartition("####")[2].strip())


TASK = Task(
    name="gsm8k",
    title="GSM8K",
    source="openai/gsm8k:main:test",
    licence="MIT",
    sizes=(1319,),
    grader="numeric",
    read=read,
    ask=ask_answer,
)
