"""The flags of `train`, and the configuration that they are turned into."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import fields
from typing import Any

from reasonflux_prm.cli.options import add_input, count
from reasonflux_prm.training.config import (
    CACHE_TYPES,
    EMBEDDED_BASE,
    LAYOUTS,
    LOSSES,
    METHODS,
    METRICS,
    OVERFLOWS,
    TRACKERS,
    WEIGHTINGS,
    TrainConfig,
)


def train_config(arguments: argparse.Namespace) -> TrainConfig:
    """Return what the flags say."""
    given = vars(arguments)
    named = {field.name: given[field.name] for field in fields(TrainConfig) if field.name in given}
    named["data"], named["dev"] = tuple(arguments.labels), tuple(arguments.dev)
    named["columns"] = arguments.map
    named["extra"] = dict(arguments.extra)
    named["trackers"] = None if arguments.trackers is None else tuple(arguments.trackers.split(","))
    named["card_command"] = shlex.join(["reasonflux-prm", *sys.argv[1:]])
    return TrainConfig(**named)


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `TrainConfig`."""
    add_input(parser)
    _add_data(parser.add_argument_group("data"))
    _add_objective(parser.add_argument_group("objective"))
    _add_method(parser.add_argument_group("what is trained"))
    _add_optimisation(parser.add_argument_group("optimisation"))
    _add_run(parser.add_argument_group("evaluation and run"))


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--base",
        default=EMBEDDED_BASE,
        help="the language model to start from, or a PRM in our own format to go on from: a folder or a hub id; "
        f"default {EMBEDDED_BASE}, the one under the embedded PRM",
    )
    group.add_argument("--dev", nargs="+", default=(), metavar="LABELS", help="files of labels to evaluate on")
    _number(group, "--dev-share", 0.05, "without --dev: this share of the problems is set aside; 0 for none")
    group.add_argument(
        "--outcome-targets",
        action="store_true",
        help="take a trace's recorded verdict as trajectory target where a label has none",
    )
    group.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="causal",
        help="causal: problem, thinking, response; response_first: the response before the thinking, which is then "
        "scored given the response; default causal",
    )
    group.add_argument("--separator", metavar="TOKEN", help="control token that closes a step; default an unused one")
    group.add_argument("--marker", metavar="TOKEN", help="control token that ends the input; default an unused one")
    group.add_argument("--context", type=count, metavar="N", help="tokens of the longest sequence; default the base's")
    group.add_argument(
        "--overflow",
        choices=OVERFLOWS,
        default="window",
        help="a longer trace is cut into windows that overlap, each target in one of them, or refused and counted; "
        "default window",
    )


def _add_objective(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--loss", choices=LOSSES, default="mse", help="mse as the paper, or bce on soft targets")
    group.add_argument(
        "--weighting",
        choices=WEIGHTINGS,
        default="trace",
        help="trace: a step counts 1/T of its trace, as the paper; step: every step counts the same; default trace",
    )
    _number(group, "--lambda-step", 1.0, "weight of the step rewards")
    _number(group, "--lambda-final", 1.0, "weight of the trajectory reward")
    _number(group, "--lambda-pair", 0.0, "weight of the Bradley-Terry term between traces of one problem")
    _number(group, "--pair-margin", 0.0, "trajectory targets that differ by no more than this make no pair")


def _add_method(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--method",
        choices=METHODS,
        default="full",
        help="full: all weights; lora: low-rank changes, merged when saved; frozen: the top layers and the head, over "
        "activations of the lower layers that are computed once (for CPUs); default full",
    )
    group.add_argument("--train-layers", type=_whole, metavar="N", help="frozen: layers to train, 0 the head alone; 2")
    group.add_argument("--cache-type", choices=CACHE_TYPES, default="float16", help="frozen: how activations are kept")
    group.add_argument("--cache", metavar="FOLDER", help="frozen: keep activations here, for other runs on this data")
    group.add_argument("--lora-rank", type=count, default=16, metavar="R", help="default 16")
    _number(group, "--lora-alpha", 32.0, "LoRA's scale is this by its rank")
    group.add_argument("--lora-layers", type=count, metavar="N", help="adapt the top N layers only; default all")
    group.add_argument(
        "--adapter", action="store_true", help="also write adapter.safetensors, the small change of the embedded base"
    )


def _add_optimisation(group: argparse._ArgumentGroup) -> None:
    _number(group, "--epochs", 3.0, "passes over the data")
    group.add_argument(
        "--batch-tokens",
        type=count,
        default=16_384,
        metavar="N",
        help="tokens of an optimizer step, all processes together; default 16384",
    )
    group.add_argument(
        "--pack-tokens", type=count, metavar="N", help="tokens of a forward pass; default 2048 on a CPU, 16384 on a GPU"
    )
    group.add_argument(
        "--lr", dest="learning_rate", type=float, metavar="X", help="peak; default full 1e-5, lora 2e-4, frozen 1e-4"
    )
    _number(group, "--head-rate-factor", 10.0, "the head learns at this times the rate of the rest")
    _number(group, "--weight-decay", 0.0, "of matrices")
    _number(group, "--warmup", 0.05, "share of the steps")
    group.add_argument("--schedule", default="linear", metavar="NAME", help="of the learning rate; default linear")
    _number(group, "--max-grad-norm", 1.0, "gradients are clipped to this norm; 0 leaves them")
    group.add_argument("--seed", type=_whole, default=0, metavar="N", help="default 0")
    group.add_argument("--bf16", action="store_true", help="compute in bfloat16, on GPUs; weights are saved so too")
    group.add_argument("--gradient-checkpointing", action="store_true", help="less memory for a third more time")


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--evaluate-steps", type=count, metavar="N", help="evaluate every N steps; default once an epoch"
    )
    group.add_argument("--select", choices=METRICS, default="loss", help="what the best checkpoint is best by; loss")
    group.add_argument("--patience", type=count, metavar="N", help="stop after N evaluations that are no better")
    group.add_argument("--save-steps", type=count, metavar="N", help="save every N steps, besides evaluations")
    group.add_argument("--log-steps", type=count, default=10, metavar="N", help="default 10")
    group.add_argument(
        "--trackers", metavar="A,B", help=f"of {', '.join(TRACKERS)}; default tensorboard if it is installed"
    )
    group.add_argument("--threads", type=count, metavar="N", help="of a CPU; default what torch takes")
    group.add_argument("--license", metavar="ID", help="for the card; default the base's")
    group.add_argument(
        "--set",
        dest="extra",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="another field of transformers.TrainingArguments, such as deepspeed, fsdp or optim; may be repeated",
    )


def _number(group: argparse._ArgumentGroup, flag: str, default: float, what: str) -> None:
    group.add_argument(flag, type=float, default=default, metavar="X", help=f"{what}; default {default:g}")


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=JSON, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
