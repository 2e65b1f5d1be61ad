r"""AIME 2025: 30 problems whose answers are whole numbers from 0 to 999.

- Data: `math-ai/aime25`, split `test` (columns id, problem, answer), both contests in one table. A local file has
  `id, problem, answer`.
- Graded by `math` on the last `\boxed{}`, as `aime24`. Some references carry a degree sign; the grader drops it.
- The paper's tables 1 to 3 use it (arXiv:2506.18896).
"""

from __future__ import annotations

from reasonflux_prm.evaluation.tasks.base import Task, question_and_answer
from reasonflux_prm.evaluation.tasks.prompts import ask_answer

TASK = Task(
    name="aime25",
    title="AIME 2025",
    source="math-ai/aime25:test",
    licence="contest problems of the MAA",
    sizes=(30,),
    grader="math",
    read=question_and_answer,
    ask=ask_answer,
)
