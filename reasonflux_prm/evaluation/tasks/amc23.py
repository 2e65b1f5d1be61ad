r"""AMC 2023: the 40 problems of AMC 12 A and B whose answers are whole numbers, without their options.

- Data: `math-ai/amc23`, split `test` (columns id, question, answer, url); answers may be numbers such as 27.0. A local
  file has `id, problem, answer`.
- Graded by `math` on the last `\boxed{}`. The same 40 problems as in QwenLM/Qwen2.5-Math, evaluation/data/amc23, at
  a45202bd.
"""

from __future__ import annotations

from reasonflux_prm.evaluation.tasks.base import Task, question_and_answer
from reasonflux_prm.evaluation.tasks.prompts import ask_answer

TASK = Task(
    name="amc23",
    title="AMC 2023",
    source="math-ai/amc23:test",
    licence="contest problems of the MAA",
    sizes=(40,),
    grader="math",
    read=question_and_answer,
    ask=ask_answer,
)
