"""How good a policy is: samples of test problems, graded; both are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.intervals import Interval, bootstrap, paired_difference
from reasonflux_prm.evaluation.metrics import weighted_mean
from reasonflux_prm.evaluation.tasks.base import Problem, Task
from reasonflux_prm.evaluation.tasks.sampling import SamplingSettings, write_candidates
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.base import Policy
from reasonflux_prm.traces.write import atomic_path
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


def measure(policy: Policy, folder: Path, task: Task, problems: Sequence[Problem], size: Size, seed: int) -> None:
    """Sample from a policy and grade, into two files of a folder; candidates that are there already are graded."""
    candidates = folder / f"{task.name}.candidates.jsonl"
    if not candidates.is_file():
        settings = SamplingSettings(size.samples, temperature=1.0, top_p=1.0, max_tokens=size.tokens, seed=seed)
        tally = write_candidates(task, problems, policy, settings, candidates)
        if tally.came < tally.asked:
            candidates.unlink()
            raise RuntimeError(f"samples are missing: {tally}")
    rows: list[dict[str, Any]] = [json.loads(line) for line in candidates.open(encoding="utf-8")]
    samples = [(row, candidate) for row in rows for candidate in row["candidates"]]
    with open_grader(task.grader) as grader:
        verdicts = grader.grade_many([(candidate["response"], row["answer"]) for row, candidate in samples])
    right: dict[str, list[bool]] = {}
    for (row, _), verdict in zip(samples, verdicts, strict=True):
        right.setdefault(row["id"], []).append(verdict.right)
    tokens = [candidate["completion_tokens"] for _, candidate in samples]
    cut = [candidate["finish_reason"] == "length" for _, candidate in samples]
    found = Graded(right, sum(tokens) / len(tokens), sum(cut) / len(cut))
    with atomic_path(_path(folder, task.name)) as part:
        part.write_text(json.dumps(asdict(found)) + "\n", "utf-8")


def measured(folder: Path, task: str) -> Graded | None:
    """Return what `measure` has found; None if it has not been done."""
    path = _path(folder, task)
    return Graded(**json.loads(path.read_text("utf-8"))) if path.is_file() else None


def _path(folder: Path, task: str) -> Path:
    return folder / f"{task}.graded.json"


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
