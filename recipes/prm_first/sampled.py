r"""Trees of a policy's own samples, for going on from an adapter that has only seen errors that were put in.

    python -m recipes.prm_first.sampled GSM8K_TRAIN.jsonl CANDIDATES.jsonl -o sampled-trees.jsonl

One tree a problem of which some sample is right: the reference solution in the student's form is the trunk, each sample
a branch from the problem on, cut into steps as scoring cuts it. The trajectory's label, and the response's, is the
verdict on the answer. A thinking step is right as long as every value that the sample has computed so far (what
stands behind an equals sign) is one that the reference solution computes. So another way to the answer counts as wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from reasonflux_prm.labels.judges.base import StepTerms
from reasonflux_prm.labels.judges.rules import FALSE, RulesJudge
from reasonflux_prm.records import Trace
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.write import atomic_path, json_line
from recipes.prm_135m.gold import is_dev
from recipes.prm_135m.samples import graded
from recipes.student.form import reference_traces

_AT_ONCE = 512
"""Samples whose claims are checked together."""
_RESULT = re.compile(r"=\s*\$?(-?\d[\d,]*(?:\.\d+)?)")


def values(text: str) -> list[Fraction]:
    """Return the numbers that stand behind an equals sign, in order."""
    return [Fraction(found.rstrip(",").replace(",", "")) for found in _RESULT.findall(text)]


def computed_by(solution: str, answer: str) -> set[Fraction]:
    """Return the values that a reference solution computes, its answer included."""
    return {*values(solution), *values(f"={answer}")}


def cut(trace: Trace) -> tuple[list[str], list[str]]:
    """Return the texts of a trace's thinking steps and of its response steps, as scoring cuts them."""
    texts: dict[str, list[str]] = {"thinking": [], "response": []}
    for step in split(trace).steps:
        texts[step.part].append(trace.text(step.part)[step.start : step.stop])
    return texts["thinking"], texts["response"]


def branch(sample: Trace, computed: set[Fraction]) -> dict[str, Any] | None:
    """Return a sample as a branch from the problem on.

    Args:
        sample: A graded sample.
        computed: The values of the reference solution.

    Returns:
        The branch in `data.py`'s form, with a label a step; None if it has no thinking, or not one response step.
    """
    thinking, response = cut(sample)
    if not thinking or len(response) != 1:
        return None
    right = 1.0
    labels: list[float] = []
    for text in thinking:
        if any(value not in computed for value in values(text)):
            right = 0.0
        labels.append(right)
    verdict = int(bool(sample.correct))
    return {
        "at": 0,
        "steps": thinking + response,
        "labels": [*labels, float(verdict)],
        "response": len(labels),
        "complete": True,
        "label": verdict,
        "kind": "sample",
    }


def tree(reference: Trace, solution: str, samples: list[Trace], mixed: bool = True) -> dict[str, Any] | None:
    """Return the tree of one problem; None if none of the samples that can be used is wrong, or (`mixed`) right."""
    computed = computed_by(solution, str(reference.answer))
    unique = {(sample.thinking, sample.response): sample for sample in samples}.values()
    branches = [found for sample in unique if (found := branch(sample, computed)) is not None]
    labels = {found["label"] for found in branches}
    if 0 not in labels or (mixed and 1 not in labels):
        return None
    gold, (final,) = cut(reference)
    return {
        "id": reference.id,
        "problem": reference.problem,
        "answer": reference.answer,
        "part": "thinking",
        "gold": gold,
        "final": final,
        "branches": branches,
    }


def labelled(sample: Trace, computed: set[Fraction]) -> Trace | None:
    """Return a graded sample with its steps and their labels, as `branch` labels them; None where that gives none."""
    found = branch(sample, computed)
    if found is None:
        return None
    return replace(sample, steps=split(sample).steps, step_labels=tuple(found["labels"]))


def claims_hold(samples: Iterable[Trace]) -> Iterator[Trace]:
    """Yield the samples of whose claims about numbers none is false: the others a calculator finds."""

    async def judged(judge: RulesJudge, traces: list[Trace]) -> list[StepTerms]:
        return list(await asyncio.gather(*(judge.judge(split(trace)) for trace in traces)))

    rest = iter(samples)
    with RulesJudge() as judge:
        while some := list(islice(rest, _AT_ONCE)):
            for trace, terms in zip(some, asyncio.run(judged(judge, some)), strict=True):
                if not any(step[FALSE].value for step in terms):
                    yield trace


def traces(problems: Path, samples: Iterable[Trace]) -> Iterator[Trace]:
    """Yield the graded samples that can be labelled, with labels."""
    known = {row["id"]: computed_by(row["solution"], row["answer"]) for row in _rows(problems)}
    for sample in samples:
        if found := labelled(sample, known[str(sample.group)]):
            yield found


def trees(problems: Path, samples: Iterable[Trace], mixed: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the trees of all problems that have one; those of a problem come one after another."""
    solutions = {row["id"]: row["solution"] for row in _rows(problems)}
    references = {trace.id: trace for trace in reference_traces(problems)}
    for group, own in groupby(samples, key=lambda trace: str(trace.group)):
        found = tree(references[group], solutions[group], list(own), mixed)
        if found is not None:
            yield found


def _rows(problems: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, problems.open(encoding="utf-8"))


def main() -> None:
    """Write the trees, those of the problems that are set aside first, where training takes its dev set from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", type=Path, help="GSM8K train, with solutions")
    parser.add_argument("candidates", type=Path, help="samples on it, of `recipes.prm_135m.samples`")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--all", action="store_true", help="problems of which no sample is right too")
    parser.add_argument("--claims-hold", action="store_true", help="leave out samples with a false claim about numbers")
    parser.add_argument("--traces", type=Path, help="write the labelled samples here too, as rows of ours")
    args = parser.parse_args()
    every = graded(args.candidates)
    samples = list(claims_hold(every) if args.claims_hold else every)
    if args.traces:
        with atomic_path(args.traces) as unfinished:
            unfinished.write_bytes(b"".join(json_line(trace_row(one)) for one in traces(args.problems, samples)))
    rows = sorted(trees(args.problems, samples, not args.all), key=lambda row: not is_dev(row["id"]))
    with atomic_path(args.output) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    labels = Counter(branch["label"] for row in rows for branch in row["branches"])
    steps = Counter(label for row in rows for branch in row["branches"] for label in branch["labels"][:-1])
    print(f"{len(rows)} trees, {sum(is_dev(row['id']) for row in rows)} of problems set aside, first;")
    print(f"samples right {labels[1]}, wrong {labels[0]}; thinking steps right {steps[1.0]}, wrong {steps[0.0]}")


if __name__ == "__main__":
    main()
