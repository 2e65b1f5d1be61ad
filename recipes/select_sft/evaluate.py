"""Greedy accuracy of a student on GSM8K test and SVAMP, a verdict a problem."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.evaluation.tasks import find_task
from reasonflux_prm.evaluation.tasks.base import Problem, load
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.base import Message, Policy, Request
from recipes.select_sft.sizes import Size
from recipes.student.tests import named

TASKS = {"gsm8k": "gsm8k_test.jsonl", "svamp": "svamp.jsonl"}
"""By the task's name, its file; results have the names of the files' problems (`recipes.student.tests`)."""
GRADER = "numeric"
"""Of all tasks."""


def load_tests(data: Path, size: Size) -> dict[str, list[Problem]]:
    """Return the problems of each benchmark in `TASKS`, from the folder of their files."""
    tests = [(named(find_task(name), data / file), data / file) for name, file in TASKS.items()]
    return {task.name: list(load(task, file, limit=size.tests)) for task, file in tests}


def evaluate(policy: Policy, problems: Mapping[str, list[Problem]], size: Size) -> dict[str, Any]:
    """Return, by benchmark, which problems are answered right, in order, and how many at all or only in part."""
    # As in training: the problem, and no word more. All at once, as the policy sorts by length.
    asked = [
        Request((Message("user", problem.problem.strip()),), temperature=0.0, max_tokens=size.max_tokens)
        for own in problems.values()
        for problem in own
    ]
    outcomes = iter(policy.generate(asked))
    found: dict[str, Any] = {}
    for name, own in problems.items():
        answers = [None if isinstance(one, PolicyError) else one[0] for one in islice(outcomes, len(own))]
        pairs = [(one.text if one else "", str(problem.answer)) for one, problem in zip(answers, own, strict=True)]
        with open_grader(GRADER) as grader:
            right = [verdict.right for verdict in grader.grade_many(pairs)]
        found[name] = {
            "right": right,
            "answered": sum(bool(text.strip()) for text, _ in pairs),
            "cut": sum(one is not None and one.finish_reason == "length" for one in answers),
        }
    return found
