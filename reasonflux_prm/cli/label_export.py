"""Write labels as training rows of other tools: prompt, completions and labels, one row a trace.

LABELS is what `reasonflux-prm label` wrote. A step without a target is joined to the next one that has one, and what
follows the last target is left out; the last line counts both.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from reasonflux_prm.cli.console import say
from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.export import FORMS, THRESHOLD, Form, export_labels
from reasonflux_prm.labels.files import read_labelled
from reasonflux_prm.traces.resumable import PIPE


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """The arguments of `label export`."""

    labels: str
    output: Path
    form: Form
    threshold: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `label export`."""
    parser.add_argument("labels", metavar="LABELS", help="the labels, or - for a pipe")
    parser.add_argument(
        "-o", "--output", required=True, metavar="ROWS", help="a .jsonl, .jsonl.gz or .parquet file, which is replaced"
    )
    parser.add_argument(
        "--as",
        dest="form",
        default="trl",
        choices=FORMS,
        help="trl: labels are true or false, as TRL's trainer of PRMs takes them and Math-Shepherd has them; soft: "
        "labels are the targets, with the trajectory's beside them; default trl",
    )
    parser.add_argument(
        "--threshold", type=float, metavar="X", help=f"a step of this target or more is true; default {THRESHOLD}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, and say what came of it."""
    config = ExportConfig(arguments.labels, Path(arguments.output), cast(Form, arguments.form), arguments.threshold)
    if arguments.output == PIPE:
        raise UsageError("label export writes a file; give -o a name")
    if config.form == "soft" and config.threshold is not None:
        raise UsageError("--threshold makes true and false of targets, which --as soft keeps as they are; leave it out")
    threshold = THRESHOLD if config.threshold is None else config.threshold
    done = export_labels(read_labelled(config.labels), config.output, config.form, threshold=threshold)
    left = "".join(f", {number:,} {what} left out" for what, number in sorted(done.left_out.items()))
    joined = f", {done.joined:,} steps without a target joined to the next" if done.joined else ""
    say(f"{config.output}: {done.rows:,} rows, {done.steps:,} labels{joined}{left}. Next: train on it")
    return 0
