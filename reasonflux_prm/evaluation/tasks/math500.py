r"""MATH-500: the 500 test problems of MATH that "Let's Verify Step by Step" (arXiv:2305.20050) chose.

- Data: `HuggingFaceH4/MATH-500`, split `test` (columns problem, solution, answer, subject, level, unique_id). A local
  file has `id, problem, answer`.
- Graded by `math` on the last `\boxed{}`: references are LaTeX (tuples, intervals), so texts are not compared.
- The paper's tables 1 to 3 and figure 5 use it (arXiv:2506.18896), as does SCATR (arXiv:2604.16535).
"""

from __future__ import annotations

from reasonflux_prm.evaluation.tasks.base import Task, question_and_answer
from reasonflux_prm.evaluation.tasks.prompts import ask_answer

TASK = Task(
    name="math500",
    title="MATH-500",
    source="HuggingFaceH4/MATH-500:test",
    licence="MIT",
    sizes=(500,),
    grader="math",
    read=question_and_answer,
    ask=ask_answer,
)
