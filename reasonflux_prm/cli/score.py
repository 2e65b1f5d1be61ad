"""Score traces: a reward for every step, for the trajectory, and for the trace as a whole.

TRACES is a file (JSON lines, also in gzip, or Parquet), a directory, a data set (org/name) or - for a pipe. One record
a trace comes out, in the order of the input, as JSON lines. Killed at any moment and started again, the run goes on
where it stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from reasonflux_prm.cli.console import ScoringProgress, next_command, say, say_reject
from reasonflux_prm.cli.options import (
    ScoringConfig,
    add_check,
    add_input,
    add_output,
    add_scoring,
    input_of,
    scoring_of,
)
from reasonflux_prm.cli.running import counts, score_file, trace_sizes
from reasonflux_prm.scoring.run import PIPE, Input, stream_scoring
from reasonflux_prm.traces.write import side_path


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """The arguments of `score`."""

    source: Input
    output: str
    fresh: bool
    scoring: ScoringConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `score`."""
    parser.add_argument("traces", metavar="TRACES", help="what to score")
    add_output(parser, "SCORED", "the scored traces: a .jsonl or .jsonl.gz file, or - for standard output")
    add_input(parser)
    add_scoring(parser)
    add_check(parser)


def run(arguments: argparse.Namespace) -> int:
    """Score, and say what came of it."""
    source = input_of(arguments, arguments.traces)
    config = ScoreConfig(source, arguments.output, arguments.fresh, scoring_of(arguments))
    # Before the PRM is loaded: a mistyped name should not take seconds to be noticed.
    sizes = trace_sizes(config.source)
    scorer = config.scoring.scorer()
    if config.output == PIPE:
        with ScoringProgress(sizes) as shown:
            progress = stream_scoring(scorer, config.source, say_reject, shown)
        say(f"{counts(progress)}.")
    else:
        output = Path(config.output)
        progress = score_file(scorer, config.source, output, fresh=config.fresh, sizes=sizes)
        report = side_path(output, ".html")
        say(f"{output}: {counts(progress, output)}. {next_command('view', output, '-o', report)}")
    return int(progress.unscored > 0 or progress.rejects > 0)
