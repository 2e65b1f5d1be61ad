"""A policy's samples on problems with known answers, graded, as traces with step labels.

    python -m recipes.prm_135m.samples GSM8K_TRAIN.jsonl --policy STUDENT -o sampled --n 8

The label of every step is the verdict on its trace's answer: one Monte-Carlo rollout of the value of the prefix that
ends with the step, for the price of sampling (k = 1 of the judge `rollout`; what Cobbe et al., arXiv:2110.14168, train
verifiers on). Over a problem's samples these average to the share of continuations that end right.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from reasonflux_prm.evaluation.tasks import gsm8k
from reasonflux_prm.evaluation.tasks.base import Task, load
from reasonflux_prm.evaluation.tasks.sampling import SamplingSettings, write_candidates
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.open import PolicySettings, open_policy
from reasonflux_prm.records import Trace
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import atomic_path, json_line
from recipes.prm_135m.gold import is_dev

TEMPERATURE = 0.8
MAX_TOKENS = 320
_AT_ONCE = 4096
"""Traces that are graded together."""


def sample(
    task: Task,
    problems: Path,
    policy: str,
    output: Path,
    n: int,
    limit: int | None,
    seed: int = 0,
    at_once: int | None = None,
) -> None:
    """Write `n` samples of each problem as candidates, `at_once` together; a file that is there is kept."""
    if output.exists():
        return
    settings = SamplingSettings(n, TEMPERATURE, 1.0, MAX_TOKENS, seed)
    # On a GPU two stages may sample side by side.
    opened = open_policy(policy, PolicySettings(batch_sequences=1536 if torch.cuda.is_available() else at_once))
    try:
        print(write_candidates(task, load(task, problems, limit=limit), opened, settings, output), flush=True)
    finally:
        opened.close()


def graded(candidates: Path) -> Iterator[Trace]:
    """Yield the samples with their verdicts; an answer that is not stated or not read is wrong."""
    traces = iter(read_traces(candidates))
    with open_grader(gsm8k.TASK.grader) as grader:
        while some := list(islice(traces, _AT_ONCE)):
            verdicts = grader.grade_many([(trace.response, str(trace.answer)) for trace in some])
            for trace, verdict in zip(some, verdicts, strict=True):
                yield replace(trace, correct=verdict.right)


def with_steps(trace: Trace, rule: str = "adaptive") -> Trace:
    """Return a graded trace with its steps, cut by the rule that it will be scored by, and their labels."""
    steps = split(trace, rule).steps
    return replace(trace, steps=steps, step_labels=(float(bool(trace.correct)),) * len(steps))


def write_labelled(candidates: Path, train: Path, dev: Path, *, dev_problems: int) -> dict[str, int]:
    """Grade candidates and write them as labelled traces, those of set-aside problems apart.

    Args:
        candidates: What `sample` wrote.
        train: Where to write the traces to learn from.
        dev: Where to write those of problems that `gold.is_dev` sets aside.
        dev_problems: The first so many of these; the rest is left out.

    Returns:
        Counts of traces, and of right ones, of both.
    """
    counts = dict.fromkeys(("train", "train_right", "dev", "dev_right", "without_text"), 0)
    dev_groups: set[str] = set()
    with ExitStack() as open_files:
        parts = {
            "train": open_files.enter_context(atomic_path(train)),
            "dev": open_files.enter_context(atomic_path(dev)),
        }
        streams = {side: open_files.enter_context(part.open("wb")) for side, part in parts.items()}
        for trace in graded(candidates):
            group = str(trace.group)
            side = "dev" if is_dev(group) else "train"
            if side == "dev" and len(dev_groups | {group}) > dev_problems:
                continue
            if not (trace.thinking.strip() or trace.response.strip()):
                counts["without_text"] += 1
                continue
            if side == "dev":
                dev_groups.add(group)
            counts[side] += 1
            counts[f"{side}_right"] += bool(trace.correct)
            streams[side].write(json_line(trace_row(with_steps(trace))))
    return counts


def main() -> None:
    """Sample, and write the labelled traces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", type=Path, help="GSM8K train, JSON lines with id, problem, answer")
    parser.add_argument("--policy", type=Path, required=True, help="folder of the student")
    parser.add_argument("-o", "--output", type=Path, required=True, help="stem: OUTPUT.candidates.jsonl, -train, -dev")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--limit", type=int, help="first so many problems")
    parser.add_argument("--dev-problems", type=int, default=300)
    args = parser.parse_args()
    stem: Path = args.output
    candidates = stem.with_name(f"{stem.name}.candidates.jsonl")
    sample(gsm8k.TASK, args.problems, f"local:{args.policy}", candidates, args.n, args.limit)
    train, dev = (stem.with_name(f"{stem.name}-{side}.jsonl") for side in ("train", "dev"))
    print(json.dumps(write_labelled(candidates, train, dev, dev_problems=args.dev_problems)))


if __name__ == "__main__":
    main()
