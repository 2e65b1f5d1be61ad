"""Train a PRM: labels in, a folder out that `--prm` takes, and that transformers and vLLM load as it is.

LABELS are files that `label` wrote, or steps with recorded labels (PRM800K, Math-Shepherd, TRL rows, ProcessBench and
the like). Killed at any moment and started again, the run goes on from its last checkpoint. On several GPUs start it
with `torchrun --nproc-per-node N -m reasonflux_prm.cli.main train ...`, or with `accelerate launch`.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reasonflux_prm.cli.console import next_command, say
from reasonflux_prm.cli.options import add_output
from reasonflux_prm.cli.train_options import add_train_flags, train_config
from reasonflux_prm.training import train

if TYPE_CHECKING:
    from reasonflux_prm.training.run import Prepared, Trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    parser.add_argument("labels", nargs="+", metavar="LABELS", help="what to learn from")
    add_output(parser, "DIR", "the PRM's folder")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show one batch in colour (tokens, step ends, targets), and train nothing",
    )
    add_train_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, and say what came of it."""
    config = train_config(arguments)
    config.check()
    if arguments.dry_run:
        from reasonflux_prm.cli.train_view import show_batch
        from reasonflux_prm.training.run import prepare

        prepared = prepare(config)
        show_batch(prepared)
        say(_planned(prepared))
        return int(bool(prepared.data.rejects))
    from reasonflux_prm.cli.train_progress import TrainingProgress

    main = os.environ.get("RANK", "0") == "0"
    try:
        with TrainingProgress() as shown:
            trained = train(replace(config, fresh=arguments.fresh), shown if main else None)
    except KeyboardInterrupt:
        say(f"{config.output}: the last checkpoint is kept; the same command goes on from there")
        raise
    if main:
        _conclude(trained, config.data[0])
    return int(bool(trained.record.get("refused")))


def _conclude(trained: Trained, source: str) -> None:
    record, folder = trained.record, trained.folder
    if trained.was_complete:
        say(f"{folder} was complete: nothing was left to train")
    for result in record.get("results", ()):
        if result["value"] is not None:
            ends = f" ({result['low']:.3f} to {result['high']:.3f})" if result["low"] is not None else ""
            items = f"{result['n']:,} items of {result['clusters']:,} problems"
            say(f"{result['name']}: {result['value']:.3f}{ends}, {items}")
    if not record or "data" not in record:
        return
    if not record["data"]["train"]["trajectory_targets"]:
        say("no trace had a trajectory target, so this PRM scores steps only")
    refused = f", {record['refused']:,} refused (see {folder / 'run' / 'rejects.jsonl'})" if record["refused"] else ""
    left = sum(record["left_out"].values())
    told = f"{record['data']['train']['traces']:,} traces, {record['steps']:,} steps"
    told += f", {left:,} records left out" if left else ""
    out = Path("scored.jsonl")
    say(f"{folder}: {told}{refused}. {next_command('score', source, '-o', out, '--prm', folder)}")


def _planned(prepared: Prepared) -> str:
    data, config = prepared.data, prepared.config
    left = {**data.left_out, **({"refused": len(data.rejects)} if data.rejects else {})}
    told = ", ".join(f"{number:,} {reason}" for reason, number in left.items())
    train, packs = data.train, prepared.accumulate * prepared.processes
    return (
        f"{train.traces:,} traces of {len(train.groups):,} problems to train on ({train.tokens:,} tokens, "
        f"{train.step_targets.total():,} step and {train.trajectory_targets.total():,} trajectory targets), "
        f"{data.dev.traces:,} to evaluate on{f', left out: {told}' if told else ''}. Optimizer steps for "
        f"{config.epochs:g} epochs: {prepared.steps:,}, of {packs:,} packs each. Without --dry-run they are trained."
    )
