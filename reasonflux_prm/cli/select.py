"""Choose traces to train a student on, and write them as it reads them.

POOL is what `reasonflux-prm score` wrote; for orders that need no PRM, any source of traces. It is read twice and never
held. What is left out is counted by the first reason that speaks against it. SFT_DATA is a .jsonl, .jsonl.gz or
.parquet file, or else a folder that `datasets.load_dataset` reads; its card says how it was made.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from reasonflux_prm.cli.console import LINE_EVERY_S, next_command, say
from reasonflux_prm.cli.select_options import add_select_flags, export_of, pool_of, selection_of
from reasonflux_prm.errors import UsageError
from reasonflux_prm.selection.export import Export
from reasonflux_prm.selection.hub import CARD, check_name, push
from reasonflux_prm.selection.settings import Selection
from reasonflux_prm.traces.resumable import PIPE, Input
from reasonflux_prm.traces.sources import REJECTS_SUFFIX
from reasonflux_prm.traces.write import side_path
from reasonflux_prm.viewer.html import write_report
from reasonflux_prm.viewer.records import Chosen

if TYPE_CHECKING:
    from reasonflux_prm.selection.run import Outcome
    from reasonflux_prm.selection.sampled import Seen


@dataclass(frozen=True, slots=True)
class SelectConfig:
    """The arguments of `select`."""

    source: Input
    output: Path
    fresh: bool
    settings: Selection
    export: Export
    report: Path | None
    push: str | None
    private: bool
    given: tuple[str, ...]
    """As they were typed, for the card."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `select`."""
    parser.add_argument("pool", metavar="POOL", help="scored traces, or traces; - is a pipe")
    parser.add_argument(
        "-o", "--output", required=True, metavar="SFT_DATA", help="the training rows: a file or a folder"
    )
    parser.add_argument("--fresh", action="store_true", help="replace an output of other settings or another pool")
    add_select_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Choose, and say what came of it."""
    config = SelectConfig(
        source=pool_of(arguments, arguments.pool),
        output=Path(arguments.output),
        fresh=arguments.fresh,
        settings=selection_of(arguments),
        export=export_of(arguments),
        report=None if arguments.report is None else Path(arguments.report),
        push=arguments.push,
        private=arguments.private,
        given=tuple(arguments.given),
    )
    if arguments.output == PIPE:
        raise UsageError("select writes a file and its card; give -o a name")
    from reasonflux_prm.selection.run import Extras, run_selection  # imports numpy, and --help should not

    if config.push is not None:
        check_name(config.push)
    elif config.private:
        raise UsageError("--private goes with --push, which is not there")
    with ExitStack() as stack:
        source = _from_pipe(config.source, stack)
        extras = Extras(
            dropped=arguments.dropped,
            license=arguments.license,
            command=shlex.join(["reasonflux-prm", "select", *config.given]),
            look=None if config.report is None else lambda seen: _report(config, seen),
            look_at=arguments.report_traces,
        )
        outcome = run_selection(
            source, config.output, config.settings, config.export, extras, fresh=config.fresh, tick=_Ticks()
        )
    _tell(config, outcome)
    if config.push is not None:
        say(f"{outcome.path} is at {push(config.push, _files(config, outcome), private=config.private)}")
    return int(outcome.rejects > 0 or outcome.counts.get("unscored", 0) > 0)


def _from_pipe(source: Input, stack: ExitStack) -> Input:
    """Put what comes through a pipe into a file: the pool is read twice."""
    if source.source != PIPE:
        return source
    path = Path(stack.enter_context(TemporaryDirectory())) / "stdin.jsonl"
    with path.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream)
    return Input(str(path), source.format, source.columns, source.limit)


class _Ticks:
    """Says how it goes on, every ten seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, done: int) -> None:
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            say(f"{done:,} {what}")


def _report(config: SelectConfig, seen: Iterator[Seen]) -> None:
    assert config.report is not None
    chosen = (Chosen(one.scored, one.outcome, one.detail or None) for one in seen)
    written = write_report(chosen, config.report, title=f"{config.output.name}: kept and dropped")
    say(f"{config.report}: {written.traces:,} traces of the pool, {written.bytes / 1e6:,.1f} MB")


def _tell(config: SelectConfig, outcome: Outcome) -> None:
    """Say what came of it; the last line says what to do next."""
    if outcome.done_before:
        say(f"{outcome.path} was complete: nothing was left to do")
    for line in _remarks(config, outcome):
        say(line)
    dropped = ", ".join(f"{number:,} {reason}" for reason, number in outcome.counts.items() if reason != "kept")
    refused = (
        f"; {outcome.rejects:,} refused (see {side_path(outcome.path, REJECTS_SUFFIX)})" if outcome.rejects else ""
    )
    pool = sum(outcome.counts.values())
    said = f"{config.output}: {outcome.kept:,} of {pool:,} traces kept" + (f"; left out: {dropped}" if dropped else "")
    say(f"{said}{refused}. {_next(config)}")


def _remarks(config: SelectConfig, outcome: Outcome) -> Iterator[str]:
    if outcome.asked is not None and outcome.kept < outcome.asked:
        yield f"{outcome.asked:,} were asked for, and {outcome.kept:,} are all that is left of the pool"
    if missing := outcome.missing_ids:
        more = ", ..." if len(missing) > 5 else ""
        yield f"{len(missing):,} ids of {config.settings.ids} are not in the pool: {', '.join(missing[:5])}{more}"
    if outcome.unthinking and config.export.template.name != "response":
        yield f"{outcome.unthinking:,} of the kept traces have no thinking; their thinking marks stand around nothing"
    if outcome.longest_tokens is not None and outcome.longest_tokens > 1024:
        yield (
            f"the longest row has {outcome.longest_tokens:,} tokens, and TRL's SFTTrainer cuts at max_length=1024 "
            "unless told otherwise"
        )


def _next(config: SelectConfig) -> str:
    if config.report is None:
        again = [
            *(word for word in config.given if word != "--fresh"),
            "--report",
            str(side_path(config.output, ".html")),
        ]
        return next_command("select", *again)
    return f"Next: open {config.report} in a browser, and train on it"


def _files(config: SelectConfig, outcome: Outcome) -> dict[str, Path]:
    """Return what is uploaded: data, card and manifest."""
    manifest = side_path(outcome.path, ".manifest.json")
    return {outcome.path.name: outcome.path, CARD: outcome.card, manifest.name: manifest}
