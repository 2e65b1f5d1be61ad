"""Make other targets of the terms in a label file: another formula, another alignment, terms left out.

LABELS is what `reasonflux-prm label` wrote; nothing is asked again. Terms keep their raw values, so a file can be
combined as often as one likes.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from reasonflux_prm.cli.console import next_command, say
from reasonflux_prm.cli.label_options import add_formula, formula_given
from reasonflux_prm.cli.options import add_output
from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.choices import term_names
from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.records import LabelStatus
from reasonflux_prm.traces.resumable import PIPE
from reasonflux_prm.traces.write import side_path


@dataclass(frozen=True, slots=True)
class CombineConfig:
    """The arguments of `label combine`."""

    labels: str
    output: Path
    fresh: bool
    formula: Formula


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `label combine`."""
    parser.add_argument("labels", metavar="LABELS", help="the labels, or - for a pipe")
    add_output(parser, "NEW", "the new labels: a .jsonl, .jsonl.gz or .parquet file")
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="TERM",
        help="leave a term of the formula out: alignment, quality or coherence; can be repeated",
    )
    add_formula(parser)


def run(arguments: argparse.Namespace) -> int:
    """Combine, and say what came of it."""
    formula = formula_given(arguments, None)
    for name in term_names(arguments.drop, formula):
        formula = formula.without(name)
    config = CombineConfig(arguments.labels, Path(arguments.output), arguments.fresh, formula)
    if arguments.output == PIPE:
        raise UsageError("label combine writes a file; give -o a name")
    from reasonflux_prm.labels.recombine import recombine

    done = recombine(
        config.labels, config.output, config.formula, processes=os.cpu_count() or 1, resume=not config.fresh
    )
    if done.finished_before:
        say(f"{config.output} was complete: nothing was left to combine")
    if strays := sum(done.strays.get(name, 0) for name in ("target", "trajectory_target")):
        say(f"{strays:,} targets lie outside [0, 1], as the formula's literal mode allows; bounded keeps them in it")
    counts = ", ".join(f"{number:,} {status}" for status, number in sorted(done.counts.items()) if number)
    page = side_path(config.output, ".html")
    say(f"{config.output}: {counts}, by {config.formula}. {next_command('view', config.output, '-o', page)}")
    return int(done.counts[LabelStatus.LABELLED.value] < done.traces)
