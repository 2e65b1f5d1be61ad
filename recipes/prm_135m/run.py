"""The embedded PRM from nothing: a student, its samples, labels, training in both layouts, and the tables.

    python -m recipes.prm_135m.run --data DATA -o FOLDER --size gpu

DATA holds `problems/gsm8k_train.jsonl` to learn from, and `problems/gsm8k_test.jsonl`, `problems/svamp.jsonl` and
`steps/mr_gsm8k_first_error.jsonl`, `steps/prmbench.jsonl`, `steps/thought_anchors_mc_values.jsonl` to measure on;
nothing is learnt from these. Each stage is one of our commands or recipes and is skipped where its output is whole, so
the run can be killed and started again. The PRM that ships is the adapter of the causal layout,
`FOLDER/prm-causal/adapter.safetensors`.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

from reasonflux_prm.prm.embedded.install import ensure_base
from reasonflux_prm.traces.write import atomic_path
from reasonflux_prm.training import TrainConfig, train
from recipes.prm_135m.commands import run
from recipes.prm_135m.gold import write_gold
from recipes.prm_135m.sizes import SIZES, Size
from recipes.prm_first.data import main as write_trees
from recipes.student.form import chat_rows, reference_traces
from recipes.student.sft import SFTSettings, teach

TRUTH = "bounded mean(quality!)"
STEP_SETS = {
    "prmbench": "prmbench.jsonl",
    "mr-gsm8k": "mr_gsm8k_first_error.jsonl",
    "thought-anchors": "thought_anchors_mc_values.jsonl",
}
TEST_SETS = {"gsm8k": "gsm8k_test.jsonl", "svamp": "svamp.jsonl"}


def make_gold(data: Path, folder: Path, size: Size) -> tuple[Path, Path]:
    """Write GSM8K train's traces with errors put in, labelled with the truth; return those to learn from, and dev."""
    trees = folder / "trees.jsonl"
    if not trees.exists():
        write_trees([str(data / "problems/gsm8k_train.jsonl"), "-o", str(trees), "--seed", "0"])
    traces = {name: folder / f"gold-{name}.jsonl" for name in ("train", "dev")}
    if not traces["dev"].exists():
        write_gold(
            trees,
            traces["train"],
            traces["dev"],
            problems=size.problems,
            branches=size.branches,
            thinking=False,
            seed=0,
        )
    for name, file in traces.items():
        labels = folder / f"labels-gold-{name}.jsonl"
        run("label", file, "-o", labels, "--steps", "given", "--quality", "recorded", "--formula", TRUTH)
    return folder / "labels-gold-train.jsonl", folder / "labels-gold-dev.jsonl"


def make_student(data: Path, folder: Path, size: Size) -> Path:
    """Teach the student to think and then respond."""
    rows = chat_rows(reference_traces(data / "problems/gsm8k_train.jsonl"))
    teach(ensure_base(), rows, folder / "student", SFTSettings(tokens=size.student_tokens))
    return folder / "student"


def make_sampled(data: Path, folder: Path, student: Path, size: Size) -> Path:
    """Sample the student on GSM8K train, grade, and label: rollouts where they can be paid, else rules."""
    problems = folder / "sampled-problems.jsonl"
    with (data / "problems/gsm8k_train.jsonl").open("rb") as lines, atomic_path(problems) as part:
        part.write_bytes(b"".join(islice(lines, size.sampled_problems)))
    run(
        *("evaluate", "gsm8k", "--problems", problems, "--policy", f"local:{student}", "--n", str(size.samples)),
        *("--temperature", "0.8", "--max-tokens", "320", "--prm", "none", "-o", folder / "sampled.json"),
    )
    judge = ["rollout", "--solver", f"local:{student}", "--rollouts", str(size.rollouts), "--max-tokens", "320"]
    run(
        *(
            "label",
            folder / "sampled.candidates.jsonl",
            "-o",
            folder / "labels-sampled.jsonl",
            "--trajectory",
            "outcome",
        ),
        *("--formula", TRUTH, "--quality", *(judge if size.rollouts else ["rules"])),
    )
    return folder / "labels-sampled.jsonl"


def make_prm(labels: list[Path], dev: Path, folder: Path, layout: str, size: Size) -> Path:
    """Train in one layout; the adapter is written beside the weights."""
    settings: dict[str, Any] = {**size.train, "layout": layout}
    config = TrainConfig(
        data=tuple(map(str, labels)),
        dev=(str(dev),),
        output=str(folder / f"prm-{layout}"),
        adapter=True,
        card_command=f"python -m recipes.prm_135m.run (layout {layout})",
        **settings,
    )
    for result in train(config).record["results"]:
        print(layout, json.dumps(result))
    return folder / f"prm-{layout}"


def measure(data: Path, folder: Path, prm: Path, student: Path | None, size: Size) -> None:
    """Evaluate a PRM: labelled steps, then the best of the student's samples on test problems."""
    limit: list[str] = ["--limit", str(size.test_problems)] if size.test_problems else []
    for name, file in STEP_SETS.items():
        report = folder / f"{prm.name}-{name}.json"
        run("evaluate", name, "--file", data / "steps" / file, "--prm", prm, "-o", report, *limit)
    if student is None:
        return
    sampling = ["--n", str(size.best_of), "--temperature", "0.8", "--max-tokens", "320"]
    for name, file in TEST_SETS.items():
        asked: list[str | Path] = [
            "evaluate",
            name,
            "--problems",
            data / "problems" / file,
            "--policy",
            f"local:{student}",
            *sampling,
        ]
        run(*asked, "--prm", prm, "-o", folder / f"{prm.name}-{name}.json", *limit)


def main() -> None:
    """Parse the command line and run every stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), required=True)
    args = parser.parse_args()
    size, folder = SIZES[args.size], args.output
    folder.mkdir(parents=True, exist_ok=True)
    gold, dev = make_gold(args.data, folder, size)
    labels, student = [gold], None
    if size.student_tokens:
        student = make_student(args.data, folder, size)
        labels.append(make_sampled(args.data, folder, student, size))
    for layout in ("causal", "response_first"):
        measure(args.data, folder, make_prm(labels, dev, folder, layout, size), student, size)


if __name__ == "__main__":
    main()
