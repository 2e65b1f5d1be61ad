"""Test problems under the names that their files give them, so that tables of another data set do not say GSM8K."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from reasonflux_prm.evaluation.tasks.base import Task


def named(task: Task, problems: Path) -> Task:
    """Return a task as its file calls it: by the column `source` of the first record, if there is one."""
    with problems.open(encoding="utf-8") as lines:
        source = json.loads(lines.readline() or "{}").get("source", task.name)
    return task if source == task.name else replace(task, name=source, title=source)
