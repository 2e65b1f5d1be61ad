"""The benchmarks, each in a file of its own. To add one, write its file and put it into the list."""

from __future__ import annotations

from typing import Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.tasks import (
    aime24,
    aime25,
    amc23,
    custom,
    dabstep,
    gpqa,
    gsm8k,
    humaneval,
    kodcode,
    math500,
    olympiadbench,
    scienceagentbench,
    svamp,
)
from reasonflux_prm.evaluation.tasks.base import Task

TASKS: Final[tuple[Task, ...]] = (
    aime24.TASK,
    aime25.TASK,
    math500.TASK,
    gpqa.TASK,
    amc23.TASK,
    gsm8k.TASK,
    svamp.TASK,
    olympiadbench.TASK,
    humaneval.TASK,
    kodcode.TASK,
    scienceagentbench.TASK,
    dabstep.TASK,
    custom.TASK,
)


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        UsageError: There is none.
    """
    for task in TASKS:
        if task.name == name:
            return task
    raise UsageError(f"unknown task {name!r}; there are {', '.join(task.name for task in TASKS)}")
