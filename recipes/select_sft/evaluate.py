"""Greedy accuracy of a student on GSM8K test and SVAMP, a verdict a problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.evaluation.tasks import find_task
from reasonflux_prm.evaluation.tasks.base import load
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.base import Message, Request
from reasonflux_prm.policy.open import open_policy
from recipes.select_sft.sizes import Size

TASKS = {"gsm8k": "gsm8k_test.jsonl", "svamp": "svamp.jsonl"}


def evaluate(student: Path, data: Path, size: Size, backend: str) -> dict[str, Any]:
    """Return, by benchmark, which problems a student answers right, in their order.

    Args:
        student: Its folder.
        data: The folder of the benchmarks' files, `TASKS`.
        size: Problems, and tokens of an answer.
        backend: `local` or `vllm`.
    """
    policy = open_policy(f"{backend}:{student}")
    found: dict[str, Any] = {}
    try:
        for name, file in TASKS.items():
            task = find_task(name)
            problems = load(task, data / file, limit=size.tests)
            # As in training: the problem, and no word more.
            requests = [
                Request((Message("user", problem.problem),), temperature=0.0, max_tokens=size.max_tokens)
                for problem in problems
            ]
            answers = ["" if isinstance(one, PolicyError) else one[0].text for one in policy.generate(requests)]
            with open_grader(task.grader) as grader:
                pairs = [(text, str(problem.answer)) for text, problem in zip(answers, problems, strict=True)]
                right = [verdict.right for verdict in grader.grade_many(pairs)]
            found[name] = {"right": right, "answered": sum(bool(text.strip()) for text in answers)}
    finally:
        policy.close()
    return found
