"""Score and rank packaged sample traces, and show what to run next.

Writes scored.jsonl, picks.jsonl and report.html into one folder, which is replaced. The samples are several candidates
for each of some problems, written by a small model; some are wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reasonflux_prm.cli.best_of_n import Tally, write_picks
from reasonflux_prm.cli.console import say
from reasonflux_prm.cli.options import ScoringConfig
from reasonflux_prm.cli.running import counts, score_file, trace_sizes
from reasonflux_prm.records import ScoredTrace
from reasonflux_prm.scoring.run import Input
from reasonflux_prm.search.best_of_n import Pick, pick_all, pick_one
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.write import read_scored
from reasonflux_prm.viewer.html import write_report
from reasonflux_prm.viewer.terminal import visible

SAMPLES = files("reasonflux_prm") / "data" / "demo.jsonl"


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """The arguments of `demo`."""

    output: Path
    prm: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    parser.add_argument("-o", "--output", default="demo-out", metavar="FOLDER", help="default demo-out")
    parser.add_argument(
        "--prm", default="embedded", metavar="NAME|HUB_ID|FOLDER", help="the PRM, as in `score`; default embedded"
    )


def run(arguments: argparse.Namespace) -> int:
    """Score, pick, write the report, and print the picks."""
    config = DemoConfig(Path(arguments.output), arguments.prm)
    scored, picks, report = (config.output / name for name in ("scored.jsonl", "picks.jsonl", "report.html"))
    scorer = ScoringConfig(prm=config.prm).scorer()
    with as_file(SAMPLES) as path:
        source = Input(str(path))
        progress = score_file(scorer, source, scored, fresh=True, sizes=trace_sizes(source))
    tally, chosen = Tally(), list(pick_all(read_scored(scored)))
    settings = {"method": "prm", "scoring": dict(read_manifest(scored).settings)}
    write_picks(tally, chosen, picks, settings, fresh=True)
    marked = {pick.id: pick.pick_id for pick in chosen if pick.pick_id is not None}
    write_report(read_scored(scored), report, title="reasonflux-prm demo", picks=marked)
    _show(chosen, _groups(scored), Console())
    say(f"{scored}: {counts(progress, scored)}. {picks}: {tally}.")
    print(
        f"\nNext: open {report} in a browser, or look at the picks in the terminal:\n"
        f"    reasonflux-prm view {scored} --picks {picks} --limit 4\n"
        "Your own traces and candidates:\n"
        "    reasonflux-prm score TRACES.jsonl -o scored.jsonl\n"
        "    reasonflux-prm best-of-n CANDIDATES.jsonl -o picks.jsonl"
    )
    return int(progress.unscored > 0 or progress.rejects > 0)


def _groups(scored: Path) -> list[list[ScoredTrace]]:
    return [list(members) for _, members in groupby(read_scored(scored), key=lambda record: record.trace.group)]


def _show(picks: Sequence[Pick], groups: Sequence[Sequence[ScoredTrace]], console: Console) -> None:
    """Print what was picked of each problem, and how that compares with a random pick and with a majority vote."""
    table = Table("problem", "pick", "its answer", "is", "candidates that are right")
    random = 0.0
    for pick, group in zip(picks, groups, strict=True):
        right = sum(record.trace.correct is True for record in group)
        random += right / len(group)
        problem = " ".join(visible(group[0].trace.problem).split())
        answer = pick.answers[pick.pick] if pick.pick is not None else None
        table.add_row(
            Text(problem if len(problem) <= 60 else problem[:59] + "…"),
            "none" if pick.pick is None else f"#{pick.pick} of {len(group)}",
            Text(visible(answer or "-")),
            {True: "right", False: "wrong", None: "-"}[pick.correct],
            f"{right} of {len(group)}",
        )
    console.print(table)
    by_prm = sum(pick.correct is True for pick in picks)
    by_vote = sum(pick_one(group, "majority").correct is True for group in groups)
    console.print(
        f"Right: {by_prm} of {len(picks)} picked by the PRM, {by_vote} by majority vote, {random:.1f} on average by "
        "chance.",
        highlight=False,
    )
