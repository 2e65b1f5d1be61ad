r"""AIME 2024: 30 problems whose answers are whole numbers from 0 to 999.

- Data: `HuggingFaceH4/aime_2024`, split `train` (columns id, problem, solution, answer, url, year), as
  huggingface/lighteval has it. A local file has `id, problem, answer`.
- Graded by `math` on the last `\boxed{}`: answers such as 073 and 73 are the same, and so is an expression that has the
  value. lighteval compares with math-verify too.
- The paper's tables 1 to 3 and figure 5 use it (arXiv:2506.18896), as does SCATR (arXiv:2604.16535).
"""

from __future__ import annotations

from reasonflux_prm.evaluation.tasks.base import Task, question_and_answer
from reasonflux_prm.evaluation.tasks.prompts import ask_answer

TASK = Task(
    name="aime24",
    title="AIME 2024",
    source="HuggingFaceH4/aime_2024:train",
    licence="contest problems of the MAA",
    sizes=(30,),
    grader="math",
    read=question_and_answer,
    ask=ask_answer,
)
