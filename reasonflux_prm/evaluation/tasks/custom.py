"""Problems of your own: any file or data set with a problem and a reference answer in columns of the usual names.

Graded by `auto`, which picks the grader by the reference: a letter, a long text, or mathematics.
"""

from __future__ import annotations

from reasonflux_prm.evaluation.tasks.base import Task, question_and_answer
from reasonflux_prm.evaluation.tasks.prompts import ask_answer

TASK = Task(
    name="custom",
    title="problems of your own",
    source=None,
    licence="yours",
    sizes=(),
    grader="auto",
    read=question_and_answer,
    ask=ask_answer,
)
