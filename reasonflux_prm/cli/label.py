"""Make reward labels of traces: alignment, quality and coherence of every step, and the trajectory's reward.

TRACES is a file (JSON lines, also in gzip, or Parquet), a directory, a data set (org/name) or - for a pipe. One record
a trace comes out, in the order of the input, with every term's raw value and the targets that a formula makes of them.
Without other flags nothing is asked of anybody: steps are checked by rules, and traces by their final answer. Killed at
any moment and started again, the run goes on where it stopped, and no policy is asked twice.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from reasonflux_prm.cli.console import next_command, say, say_reject
from reasonflux_prm.cli.label_options import LabelConfig, add_label_flags, label_of
from reasonflux_prm.cli.label_parts import Parts, dry_run
from reasonflux_prm.cli.label_progress import LabellingProgress, Now
from reasonflux_prm.cli.options import add_input, add_output, count, input_of
from reasonflux_prm.cli.policies import PolicyConfig, add_policies, policies_of, said_cost
from reasonflux_prm.cli.running import trace_sizes
from reasonflux_prm.errors import PolicyStopped, UsageError
from reasonflux_prm.records import LabelStatus
from reasonflux_prm.traces.resumable import PIPE, Input
from reasonflux_prm.traces.sources import REJECTS_SUFFIX
from reasonflux_prm.traces.write import side_path


@dataclass(frozen=True, slots=True)
class LabelCommand:
    """The arguments of `label`."""

    source: Input
    output: str
    fresh: bool
    dry_run: bool
    inspect: int | None
    label: LabelConfig
    policies: PolicyConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `label`."""
    parser.add_argument("traces", metavar="TRACES", help="what to label")
    add_output(parser, "LABELS", "the labels: a .jsonl, .jsonl.gz or .parquet file, or - for standard output")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print one real prompt and what the run could cost, and ask nobody anything",
    )
    parser.add_argument(
        "--inspect", type=count, metavar="N", help="print the first N labelled traces with every term when all is done"
    )
    add_label_flags(parser)
    add_input(parser)
    add_policies(parser)


def run(arguments: argparse.Namespace) -> int:
    """Label, and say what came of it."""
    command = LabelCommand(
        input_of(arguments, arguments.traces),
        arguments.output,
        arguments.fresh,
        arguments.dry_run,
        arguments.inspect,
        label_of(arguments),
        policies_of(arguments),
    )
    if command.inspect is not None and command.output == PIPE:
        raise UsageError("--inspect prints to standard output, where the labels go; give -o a file")
    command.label.check()
    with ExitStack() as stack:
        if command.dry_run:
            return dry_run(command.source, command.label, command.policies, stack)
        return _label(command, stack)


def _label(command: LabelCommand, stack: ExitStack) -> int:
    from reasonflux_prm.labels.first_pass import spooled

    output = None if command.output == PIPE else Path(command.output)
    beside = Path(stack.enter_context(TemporaryDirectory())) / "spool" if output is None else _hidden(output, "spool")
    source = stack.enter_context(spooled(command.source, beside))
    # Before any model is loaded: a mistyped name should not take seconds to be noticed.
    sizes = trace_sizes(source)
    kept = None if output is None else _hidden(output, "negatives")
    parts = stack.enter_context(Parts(command.label, command.policies, source, kept))
    labeller, cost = parts.labeller, parts.cost

    def now() -> Now:
        return Now(labeller.finished, parts.drawn_from, cost())

    from reasonflux_prm.labels.run import run_labelling, stream_labelling

    if output is None:
        with LabellingProgress(now, sizes) as shown:
            progress = stream_labelling(labeller, source, say_reject, shown, cost)
        say(f"{_counts(progress.counts, progress.rejects, None)}{_paid(progress.cost)}.")
        return int(progress.unlabelled > 0 or progress.rejects > 0)
    try:
        with LabellingProgress(now, sizes) as shown:
            progress = run_labelling(labeller, source, output, resume=not command.fresh, hook=shown, cost=cost)
    except (KeyboardInterrupt, PolicyStopped):
        say(f"{output}: what is labelled and answered so far is kept; the same command goes on from there")
        raise
    parts.forget()
    if progress.resumed_traces == progress.traces > 0:
        say(f"{output} was complete: nothing was left to label")
    elif progress.resumed_traces:
        say(f"{progress.resumed_traces:,} of {progress.traces:,} traces had been labelled before the interruption")
    if command.inspect is not None:
        _inspect(output, command.inspect)
    if strays := sum(progress.strays.get(name, 0) for name in ("target", "trajectory_target")):
        say(f"{strays:,} targets lie outside [0, 1], as the formula's literal mode allows; bounded keeps them in it")
    page = side_path(output, ".html")
    told = f"{_counts(progress.counts, progress.rejects, output)}{_paid(progress.cost)}"
    say(f"{output}: {told}. {next_command('view', output, '-o', page)}")
    return int(progress.unlabelled > 0 or progress.rejects > 0)


def _inspect(output: Path, number: int) -> None:
    from reasonflux_prm.labels.files import read_labelled
    from reasonflux_prm.viewer.terminal import show

    show(read_labelled(output), Console(), limit=number)


def _counts(by_status: dict[str, int], rejects: int, output: Path | None) -> str:
    """Return the number of traces by status and of refused records, labelled ones first."""
    labelled = LabelStatus.LABELLED.value
    others = {status: number for status, number in sorted(by_status.items()) if number and status != labelled}
    parts = [f"{number:,} {status}" for status, number in {labelled: by_status.get(labelled, 0), **others}.items()]
    if rejects:
        where = f" (see {side_path(output, REJECTS_SUFFIX)})" if output else ""
        parts.append(f"{rejects:,} refused{where}")
    return ", ".join(parts)


def _paid(cost: dict[str, float]) -> str:
    return f"; {said_cost(cost)}" if cost else ""


def _hidden(output: Path, ending: str) -> Path:
    return output.with_name(f".{output.name}.{ending}")
