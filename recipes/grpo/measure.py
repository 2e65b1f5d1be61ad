"""How good a policy is: samples of test problems, graded, with every completion kept as soon as it is there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.intervals import Interval, bootstrap, paired_difference
from reasonflux_prm.evaluation.metrics import weighted_mean
from reasonflux_prm.evaluation.tasks.base import Problem, Task
from reasonflux_prm.evaluation.tasks.sampling import SamplingSettings, write_candidates
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.open import open_policy
from recipes.grpo.sizes import Size


@dataclass(frozen=True, slots=True)
class Graded:
    """The samples of one policy on one test set."""

    right: Mapping[str, list[bool]]
    """By problem, one verdict a sample; an answer that is not stated or not read is wrong."""
    tokens: float
    """Mean of a sample."""
    cut: float
    """Share of samples that were cut off."""


def measure(policy: Path, task: Task, problems: Sequence[Problem], size: Size, seed: int) -> Graded:
    """Sample from a policy, and grade; candidates that are there already are kept."""
    candidates = policy / f"{task.name}.candidates.jsonl"
    if not candidates.is_file():
        local = CachedPolicy(open_policy(f"local:{policy}"), policy / "completions.sqlite")
        settings = SamplingSettings(size.samples, temperature=1.0, top_p=1.0, max_tokens=size.tokens, seed=seed)
        try:
            write_candidates(task, problems, local, settings, candidates)
        finally:
            local.close()
    rows: list[dict[str, Any]] = [json.loads(line) for line in candidates.open(encoding="utf-8")]
    samples = [(row, candidate) for row in rows for candidate in row["candidates"]]
    with open_grader(task.grader) as grader:
        verdicts = grader.grade_many([(candidate["response"], row["answer"]) for row, candidate in samples])
    right: dict[str, list[bool]] = {}
    for (row, _), verdict in zip(samples, verdicts, strict=True):
        right.setdefault(row["id"], []).append(verdict.right)
    tokens = [candidate["completion_tokens"] for _, candidate in samples]
    cut = [candidate["finish_reason"] == "length" for _, candidate in samples]
    return Graded(right, sum(tokens) / len(tokens), sum(cut) / len(cut))


def accuracy(seeds: Sequence[Graded]) -> Interval:
    """Return the accuracy over the samples of all seeds, with its interval by problem."""
    problems, values = _flat(seeds)
    return bootstrap(weighted_mean(values), problems)


def difference(seeds: Sequence[Graded], others: Sequence[Graded]) -> Interval:
    """Return how much higher the accuracy is than that of other seeds on the same problems, with its interval."""
    problems, first = _by_problem(seeds)
    same, second = _by_problem(others)
    assert problems == same
    return paired_difference(weighted_mean(first), weighted_mean(second), problems)


def _flat(seeds: Sequence[Graded]) -> tuple[list[str], list[float]]:
    pairs = [(problem, float(right)) for own in seeds for problem, rights in own.right.items() for right in rights]
    return [problem for problem, _ in pairs], [right for _, right in pairs]


def _by_problem(seeds: Sequence[Graded]) -> tuple[list[str], list[float]]:
    problems = sorted(seeds[0].right)
    rights = [[right for own in seeds for right in own.right[problem]] for problem in problems]
    return problems, [sum(own) / len(own) for own in rights]
