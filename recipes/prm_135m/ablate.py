"""Train every variant with several seeds, and tabulate what each reaches on problems that no variant saw.

    python -m recipes.prm_135m.ablate TREES.jsonl -o FOLDER --size cpu

Stages write files below FOLDER and are skipped where these are whole, so a run that was killed goes on. Traces of all
variants are the same; only labels, objective, layout or input differ. A variant's figure is the area under the ROC
curve of its step rewards (right against wrong steps) and of its trajectory reward on the set-aside problems, with a
bootstrap interval by problem for the first seed, and the range over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasonflux_prm.records import Trace
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import atomic_path, json_line
from reasonflux_prm.training import TrainConfig, train
from recipes.prm_135m.commands import run
from recipes.prm_135m.gold import write_gold
from recipes.prm_135m.sizes import SIZES, Size
from recipes.prm_135m.variants import VARIANTS, Variant

TRUTH = "bounded mean(quality!)"
FIGURES = ("step AUC", "trajectory AUC")


def make_traces(trees: Path, folder: Path, size: Size) -> None:
    """Write the traces to learn from and to measure on, and the first once more as responses without thinking."""
    train_file, dev_file = folder / "train.jsonl", folder / "dev.jsonl"
    if not dev_file.exists():
        write_gold(trees, train_file, dev_file, problems=size.problems, branches=size.branches, thinking=True, seed=0)
    with atomic_path(folder / "train-response.jsonl") as part:
        rows = (json_line(trace_row(as_response(trace))) for trace in read_traces(train_file))
        part.write_bytes(b"".join(rows))


def as_response(trace: Trace) -> Trace:
    """Return a trace whose thinking steps are steps of the response."""
    gap = "\n\n" if trace.response else ""
    shift = len(trace.thinking) + len(gap)
    moved = [
        replace(step, part="response")
        if step.part == "thinking"
        else replace(step, start=step.start + shift, stop=step.stop + shift)
        for step in trace.steps
    ]
    text = trace.thinking + gap + trace.response
    return replace(trace, thinking="", response=text, steps=tuple(moved), thinking_closed=True)


def make_labels(variant: Variant, folder: Path) -> Path:
    """Label the traces as a variant asks; each judge is asked once, and formulas recombine what it said."""
    traces = "train-response" if variant.response_only else "train"
    judged = folder / f"labels-{traces}-{variant.judge}.jsonl"
    run("label", folder / f"{traces}.jsonl", "-o", judged, "--steps", "given", "--quality", variant.judge)
    labels = folder / f"labels-{variant.name}.jsonl"
    run("label", "combine", judged, "-o", labels, "--formula", variant.formula)
    return labels


def make_dev_labels(folder: Path) -> Path:
    """Label the set-aside traces with the truth."""
    labels = folder / "labels-dev.jsonl"
    run(
        "label", folder / "dev.jsonl", "-o", labels, "--steps", "given", "--quality", "recorded", "--formula", TRUTH
    )  # fmt: skip
    return labels


def train_variant(
    variant: Variant,
    labels: Path,
    dev: Path,
    folder: Path,
    seed: int,
    size: Size,
    recipe: str = "recipes.prm_135m.ablate",
) -> dict[str, Any]:
    """Train one variant with one seed, and return its figures."""
    settings: dict[str, Any] = {**size.train, **(variant.settings or {})}
    if variant.name in ("trajectory-only",):
        settings["select"] = "loss"
    config = TrainConfig(
        data=(str(labels),),
        output=str(folder / "prms" / f"{variant.name}-{seed}"),
        dev=(str(dev),),
        cache=str(folder / "activations"),
        seed=seed,
        trackers=("none",),
        card_command=f"python -m {recipe} (variant {variant.name}, seed {seed})",
        **settings,
    )
    record = train(config).record
    # The weights are half a gigabyte each, and nothing else is done with them.
    (Path(config.output) / "model.safetensors").unlink(missing_ok=True)
    return {
        "variant": variant.name,
        "seed": seed,
        "traces": record["data"]["train"]["traces"],
        "step_targets": record["data"]["train"]["step_targets"],
        "results": record["results"],
    }


def ablate(trees: Path, folder: Path, size: Size, names: Sequence[str]) -> list[dict[str, Any]]:
    """Run all stages for the named variants; what is done already is taken from the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    make_traces(trees, folder, size)
    dev = make_dev_labels(folder)
    rows: list[dict[str, Any]] = []
    for variant in VARIANTS:
        if variant.name not in names:
            continue
        labels = make_labels(variant, folder)
        for seed in size.seeds:
            kept = folder / "figures" / f"{variant.name}-{seed}.json"
            if not kept.exists():
                found = train_variant(variant, labels, dev, folder, seed, size)
                kept.parent.mkdir(exist_ok=True)
                with atomic_path(kept) as part:
                    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            rows.append(json.loads(kept.read_text("utf-8")))
    return rows


def table(
    rows: Sequence[dict[str, Any]], variants: Sequence[Variant] = VARIANTS, figures: Sequence[str] = FIGURES
) -> str:
    """Return the figures as a Markdown table, a row a variant."""
    heads = [cell for name in figures for cell in (name, "over seeds")]
    lines = [f"| variant | what is changed | {' | '.join(heads)} |", "|" + "---|" * (2 + len(heads))]
    for variant in variants:
        own = [row for row in rows if row["variant"] == variant.name]
        if own:
            cells = [cell for name in figures for cell in _cells(own, name)]
            lines.append(f"| {' | '.join([variant.name, variant.changed, *cells])} |")
    return "\n".join(lines) + "\n"


def _cells(rows: Sequence[dict[str, Any]], name: str) -> tuple[str, str]:
    found = [result for row in rows for result in row["results"] if result["name"] == name]
    if not found:
        return "", ""
    values = [result["value"] for result in found]
    first = found[0]
    interval = f"{first['value']:.3f} ({first['low']:.3f} to {first['high']:.3f})"
    return interval, f"{min(values):.3f} to {max(values):.3f}"


def main() -> None:
    """Parse the command line, run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path, help="what recipes.prm_first.data wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), default="cpu")
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    rows = ablate(args.trees, args.output, SIZES[args.size], args.variants)
    with atomic_path(args.output / "ablations.json") as part:
        part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
