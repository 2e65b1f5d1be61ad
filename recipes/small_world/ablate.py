"""What each part of training a PRM buys, in the small world, where a PRM of a laptop learns to tell right from wrong.

    python -m recipes.small_world.ablate FOLDER -o OUT        # FOLDER of recipes.small_world.run, up to `label`

Every variant learns from the same samples of the student and is measured on samples of other problems, whose steps and
answers are labelled with the truth. A variant changes one thing of `full`. Stages are skipped where their output is
whole; `--share 0/2` and `--share 1/2` are two halves of the trainings, to be run side by side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from reasonflux_prm.records import Trace
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import atomic_path, json_line
from recipes.prm_135m.ablate import as_response, table, train_variant
from recipes.prm_135m.sizes import Size
from recipes.prm_135m.variants import Variant
from recipes.small_world.base import STEP, TRACE

LEARNT: Final = 3000
DEV: Final = 1600
SEEDS: Final = (0, 1, 2)


class Lesson(NamedTuple):
    """A variant, and what it does to a trace before it is learnt."""

    variant: Variant
    change: Callable[[Trace], Trace | None] = lambda trace: trace


def by_outcome(trace: Trace) -> Trace:
    """Give all steps the verdict on the answer."""
    return replace(trace, step_labels=(float(bool(trace.correct)),) * len(trace.steps))


def response_alone(trace: Trace) -> Trace | None:
    """Leave the thinking out; None where nothing is left."""
    pairs = [pair for pair in zip(trace.steps, trace.step_labels or (), strict=True) if pair[0].part == "response"]
    if not pairs:
        return None
    return replace(trace, thinking="", steps=tuple(step for step, _ in pairs), step_labels=tuple(y for _, y in pairs))


LESSONS: Final = (
    Lesson(Variant("full", "nothing: the truth of every step and of the answer, causal layout")),
    Lesson(Variant("step-only", "no trajectory reward is learnt", settings={"lambda_final": 0.0})),
    Lesson(Variant("trajectory-only", "no step rewards are learnt", settings={"lambda_step": 0.0})),
    Lesson(Variant("outcome", "all steps have the answer's label"), by_outcome),
    Lesson(Variant("response-first", "the response stands before the thinking", settings={"layout": "response_first"})),
    Lesson(Variant("as-response", "thinking steps are learnt as steps of a response"), as_response),
    Lesson(Variant("response-only", "the thinking is left out"), response_alone),
    Lesson(Variant("mse", "squared error instead of cross entropy", settings={"loss": "mse"})),
)


def write(traces: Iterator[Trace], output: Path, change: Callable[[Trace], Trace | None]) -> None:
    """Write traces as they are learnt."""
    with atomic_path(output) as part:
        kept = (found for trace in traces if (found := change(trace)) is not None)
        part.write_bytes(b"".join(json_line(trace_row(trace)) for trace in kept))


def figures(folder: Path, lesson: Lesson, seed: int) -> Path:
    """Return where the figures of one training are kept."""
    return folder / f"figures-{lesson.variant.name}-{seed}.json"


def ablate(world: Path, folder: Path, share: tuple[int, int]) -> list[dict[str, Any]]:
    """Train what is not yet trained of this share, and return all figures that there are."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "base": str(world / "student"), "separator": STEP, "marker": TRACE, "learning_rate": 1e-3, "epochs": 2.0,
        "batch_tokens": 8192, "loss": "bce", "outcome_targets": True,
    }  # fmt: skip
    size = Size(problems=0, branches=0, seeds=SEEDS, train=settings)
    source, dev = world / "truth-student.jsonl", folder / "dev.jsonl"
    if not dev.exists():
        write(islice(read_traces(source), LEARNT, LEARNT + DEV), dev, lambda trace: trace)
    trainings = [(lesson, seed) for lesson in LESSONS for seed in SEEDS]
    for lesson, seed in trainings[share[0] :: share[1]]:
        kept, learnt = figures(folder, lesson, seed), folder / f"learnt-{lesson.variant.name}.jsonl"
        if kept.exists():
            continue
        if not learnt.exists():
            write(islice(read_traces(source), LEARNT), learnt, lesson.change)
        found = train_variant(lesson.variant, learnt, dev, folder, seed, size, "recipes.small_world.ablate")
        with atomic_path(kept) as part:
            part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    paths = [figures(folder, lesson, seed) for lesson, seed in trainings]
    return [json.loads(path.read_text("utf-8")) for path in paths if path.exists()]


def main() -> None:
    """Parse the command line, run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="folder of recipes.small_world.run")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--share", default="0/1", help="of the trainings: the first of two halves is 0/2")
    args = parser.parse_args()
    number, parts = map(int, args.share.split("/"))
    rows = ablate(args.world, args.output, (number, parts))
    print(table(rows, [lesson.variant for lesson in LESSONS], ("step AUC", "trajectory AUC", "best of N")))


if __name__ == "__main__":
    main()
