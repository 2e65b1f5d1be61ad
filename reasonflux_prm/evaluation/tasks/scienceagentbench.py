"""ScienceAgentBench: 102 tasks of data-driven science, each to be solved by a program (arXiv:2410.05080).

- Candidates are recorded trajectories of agents, one thought, code and observation a step (rule `turn`), as in DataPRM
  (arXiv:2604.24198, table 2), which chooses among N = 4, 8 and 16 of them on the 78 tasks that train no model.
- Whether a program succeeds is for the benchmark's own containers to say (OSU-NLP-Group/ScienceAgentBench,
  evaluation/harness): it needs the data sets, gold programs and a judge that looks at figures. So trajectories bring
  their verdict: `correct`, or the harness's `success_rate` with `--map correct=success_rate`. One without is in no
  number.
- Data: `osunlp/ScienceAgentBench`, split `validation` (columns instance_id, task_inst, domain_knowledge, domain); the
  gold programs are not on the hub.
"""

from __future__ import annotations

from reasonflux_prm.evaluation.tasks.base import Problem, Task, problem_of, question_and_answer, required
from reasonflux_prm.traces.columns import Columns
from reasonflux_prm.traces.rows import Row


def read(row: Row, seed: int) -> Problem:
    """Read a record; see `Task.read`."""
    if "task_inst" not in row.columns:
        return question_and_answer(row, seed)
    columns = Columns(row.columns, row.where)
    return problem_of(columns, required(columns, "task_inst"), None, id=columns.take_scalar(("instance_id",)))


TASK = Task(
    name="scienceagentbench",
    title="ScienceAgentBench",
    source="osunlp/ScienceAgentBench:validation",
    licence="CC BY 4.0",
    sizes=(78, 102),
    grader="recorded",
    read=read,
    ask=None,
    votes=False,
    steps="turn",
)
