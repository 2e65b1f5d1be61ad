"""DABStep: 450 questions on a payment company's data, easy and hard, answered by agents (arXiv:2506.23719).

- Candidates are recorded trajectories of agents, one thought, code and observation a step (rule `turn`), as in DataPRM
  (arXiv:2604.24198, table 2). The answer is the response: the trajectory's `final_answer`; with the leaderboard's
  files, `--map response=agent_answer,thinking=reasoning_trace,group=task_id`.
- Data: `adyen/DABstep`, configuration `tasks`, split `default` (columns task_id, question, guidelines, level, answer):
  450 questions whose answers are withheld; `adyen/DABstep:tasks:dev` has ten with answers. A question goes together
  with its guidelines, which say in what form to answer.
- Graded by `dabstep`, the benchmark's own rules (`evaluation.dabstep`).
"""

from __future__ import annotations

from reasonflux_prm.evaluation.tasks.base import Problem, Task, problem_of, question_and_answer, required
from reasonflux_prm.traces.columns import Columns
from reasonflux_prm.traces.rows import Row


def read(row: Row, seed: int) -> Problem:
    """Read a record; see `Task.read`."""
    if "guidelines" not in row.columns:
        return question_and_answer(row, seed)
    columns = Columns(row.columns, row.where)
    problem = f"{required(columns, 'question').strip()}\n\n{required(columns, 'guidelines').strip()}".strip()
    # Withheld answers are empty texts.
    answer = columns.take_scalar(("answer",)) or None
    return problem_of(columns, problem, answer, id=columns.take_scalar(("task_id",)))


TASK = Task(
    name="dabstep",
    title="DABStep",
    source="adyen/DABstep:tasks:default",
    licence="CC BY 4.0",
    sizes=(450,),
    grader="dabstep",
    read=read,
    ask=None,
    steps="turn",
)
