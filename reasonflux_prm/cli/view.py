"""Look at scored or labelled traces: every step coloured by its reward or target, of labels every term.

RECORDS is what `reasonflux-prm score` or `reasonflux-prm label` wrote. Without -o the traces are printed; with it they
become one HTML file that opens anywhere, without a network. The report of `reasonflux-prm evaluate`, a .json file,
becomes a page with the curves of what N buys.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rich.console import Console

from reasonflux_prm.cli.console import say
from reasonflux_prm.cli.options import count
from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.labels.files import is_labelled, labelled_of
from reasonflux_prm.records import Reject
from reasonflux_prm.traces.sources import open_source
from reasonflux_prm.traces.write import scored_of
from reasonflux_prm.viewer.curves import read_curves, write_curves
from reasonflux_prm.viewer.html import write_report
from reasonflux_prm.viewer.records import Record
from reasonflux_prm.viewer.terminal import show


@dataclass(frozen=True, slots=True)
class ViewConfig:
    """The arguments of `view`."""

    records: str
    output: Path | None
    picks: str | None
    ids: frozenset[str]
    limit: int | None
    step_lines: int | None
    title: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `view`."""
    parser.add_argument("records", metavar="RECORDS", help="scored or labelled traces, or - for a pipe; or a report")
    parser.add_argument("-o", "--output", metavar="REPORT.html", help="the HTML file; without it, print")
    parser.add_argument("--picks", metavar="PICKS", help="mark the picks that `reasonflux-prm best-of-n` wrote")
    parser.add_argument("--id", action="append", metavar="ID", help="only the trace of this id; can be repeated")
    parser.add_argument("--limit", type=count, metavar="N", help="the first N traces only")
    parser.add_argument("--step-lines", type=count, metavar="N", help="print at most N lines of a step")
    parser.add_argument("--title", help="heading of the HTML file; default the name of RECORDS")


def run(arguments: argparse.Namespace) -> int:
    """Print or write."""
    if (report := read_curves(arguments.records)) is not None:
        return _view_curves(arguments, report)
    config = ViewConfig(
        arguments.records,
        None if arguments.output is None else Path(arguments.output),
        arguments.picks,
        frozenset(arguments.id or ()),
        arguments.limit,
        arguments.step_lines,
        arguments.title or Path(arguments.records).name,
    )
    picks = _picks(config.picks) if config.picks else None
    chosen = _chosen(config)
    first = next(chosen, None)
    if config.ids and first is None:
        raise InputError(f"{config.records} has no trace with the id {shlex.join(sorted(config.ids))}")
    traces = chain([first] if first else [], chosen)
    if config.output is None:
        show(traces, Console(), picks=picks, step_lines=config.step_lines)
    else:
        written = write_report(traces, config.output, title=config.title, picks=picks)
        size = f"{written.traces:,} traces, {written.steps:,} steps, {written.bytes / 1e6:,.1f} MB"
        say(f"{config.output}: {size}. Next: open it in a browser")
    return 0


def _view_curves(arguments: argparse.Namespace, report: Mapping[str, Any]) -> int:
    """Write the page of a report of `evaluate`."""
    given = [name for name in ("picks", "id", "limit", "step_lines") if getattr(arguments, name)]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{flags}: {arguments.records} is a report of evaluate and holds no traces; leave that out")
    if arguments.output is None:
        raise UsageError(f"{arguments.records} is a report of evaluate, which becomes a page: name it with -o")
    size = write_curves(report, arguments.output, title=arguments.title or Path(arguments.records).name)
    say(f"{arguments.output}: {len(report['curves'])} curves, {size / 1e6:,.1f} MB. Next: open it in a browser")
    return 0


def _chosen(config: ViewConfig) -> Iterator[Record]:
    records = (record for record in _read(config.records) if not config.ids or record.trace.id in config.ids)
    return islice(records, config.limit)


def _read(path: str) -> Iterator[Record]:
    for row in open_source(path):
        if isinstance(row, Reject):
            raise InputError(f"{row.file}:{row.line}: {row.reason}")
        yield labelled_of(row) if is_labelled(row.columns) else scored_of(row)


def _picks(path: str) -> dict[str, str]:
    """Return the picked trace's id of each group."""
    picks: dict[str, str] = {}
    for row in open_source(path):
        if isinstance(row, Reject):
            raise InputError(f"{row.file}:{row.line}: {row.reason}")
        if not {"id", "pick", "pick_id"} <= row.columns.keys():
            raise InputError(f"{row.file}:{row.line}: expected a record that `reasonflux-prm best-of-n` wrote")
        if row.columns["pick_id"] is not None:
            picks[row.columns["id"]] = row.columns["pick_id"]
    return picks
