"""Calibrate a PRM of our own format: make rewards of 0.8 right 8 times in 10.

SCORED is what `reasonflux-prm score` wrote of a dev split whose records carry step labels (score those with --steps
given) or verdicts (`correct`). Step rewards and the trajectory reward get a map each, as far as there are labels. With
-o FOLDER the PRM is written anew with them, and everything that loads it from there (score, search, serve, sessions)
gives calibrated rewards; vLLM and plain transformers, which know nothing of the maps, do not. With -o FILE.json only
the maps are written. Calibration errors before and after, by rewards that the fit has not seen, go to standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reasonflux_prm.cli.console import next_command, say
from reasonflux_prm.cli.options import count
from reasonflux_prm.errors import CheckpointError, InputError, ReasonFluxError, ResumeError, UsageError
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status
from reasonflux_prm.traces.write import atomic_path, read_scored

if TYPE_CHECKING:
    from reasonflux_prm.evaluation.calibration import Items, Kind, Target
    from reasonflux_prm.evaluation.calibration_report import TargetReport
    from reasonflux_prm.prm.calibration import Calibration

KINDS: Final = ("temperature", "isotonic")
TARGETS: Final = ("steps", "trajectory")
SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class CalibrateConfig:
    """The arguments of `calibrate`."""

    scored: Path
    output: Path
    prm: str | None
    revision: str | None
    kind: Kind
    targets: tuple[str, ...]
    test: Path | None
    bins: int
    resamples: int
    seed: int
    figure: Path | None
    fresh: bool

    @property
    def writes_folder(self) -> bool:
        """Whether the PRM is to be written anew, and not only the maps."""
        return self.output.suffix != ".json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `calibrate`."""
    parser.add_argument("scored", metavar="SCORED", help="scored traces with step labels or verdicts: the dev split")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FOLDER|FILE.json", help="the calibrated PRM, or its maps alone"
    )
    parser.add_argument(
        "--map",
        dest="kind",
        choices=KINDS,
        default=KINDS[0],
        help="temperature: two numbers, temperature and bias of the log-odds; isotonic: any rising curve, for "
        "thousands of labels; default temperature",
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        action="append",
        help="what to calibrate; may be given twice; default everything that there are labels for",
    )
    parser.add_argument(
        "--prm",
        metavar="NAME|HUB_ID|FOLDER",
        help="the PRM that gave the scores, where it is no longer found under the name that they have for it",
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--test", metavar="SCORED", help="other scored traces, to measure the final maps on")
    parser.add_argument("--bins", type=count, default=10, metavar="N", help="of calibration errors; default 10")
    parser.add_argument(
        "--resamples", type=count, default=2000, metavar="N", help="of the bootstrap, by problem; default 2,000"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap; default 0")
    parser.add_argument("--figure", metavar="FILE.svg", help="the reliability diagram")
    parser.add_argument("--fresh", action="store_true", help="replace what is at the output")


def run(arguments: argparse.Namespace) -> int:
    """Fit, measure, write, and say what came of it."""
    config = CalibrateConfig(
        scored=Path(arguments.scored),
        output=Path(arguments.output),
        prm=arguments.prm,
        revision=arguments.revision,
        kind=arguments.kind,
        targets=tuple(dict.fromkeys(arguments.target or ())),
        test=Path(arguments.test) if arguments.test else None,
        bins=arguments.bins,
        resamples=arguments.resamples,
        seed=arguments.seed,
        figure=Path(arguments.figure) if arguments.figure else None,
        fresh=arguments.fresh,
    )
    if config.figure and config.figure.suffix != ".svg":
        raise UsageError(f"expected --figure to end in .svg, got {config.figure}")
    if not config.writes_folder and config.output.exists() and not config.fresh:
        raise ResumeError(f"{config.output} exists; choose another output, or pass --fresh to replace it")
    traces = _read(config.scored)
    identity = _one_prm(traces, config.scored)
    source = _Source.of(config, identity)
    reports = _fit(config, traces, source.calibration)
    _write(config, source, reports, identity)
    return 0


@dataclass(frozen=True, slots=True)
class _Source:
    """The PRM that gave the scores."""

    folder: Path | None
    """None if it is not here and need not be."""
    where: str
    calibration: Calibration
    """What it was calibrated with when it gave them."""

    @classmethod
    def of(cls, config: CalibrateConfig, identity: PRMIdentity) -> _Source:
        """Find the PRM, and make sure that it is the one that gave the scores.

        Raises:
            UsageError: It cannot be found, and is needed to write a folder.
            CheckpointError: It is another one.
        """
        from reasonflux_prm.prm.calibrated_folder import calibration_of
        from reasonflux_prm.prm.calibration import Calibration
        from reasonflux_prm.prm.checkpoint import Checkpoint
        from reasonflux_prm.prm.hub import locate

        name = config.prm or identity.name
        if identity.family != "native":
            if config.writes_folder:
                raise UsageError(
                    f"the scores are of {identity.name} (family {identity.family}), and only PRMs in our own format "
                    "carry a calibration; write the maps alone, to a .json file"
                )
            return cls(None, name, Calibration())
        try:
            found = locate(name, config.revision)
        except ReasonFluxError as error:
            raise UsageError(
                f"the PRM that gave the scores is needed, to write it anew and to tell whether its rewards are "
                f"calibrated already, and {name!r} is not found ({error}); say with --prm where it is"
            ) from error
        revision = Checkpoint(found.folder, name=found.name, revision=found.revision).revision
        if revision != identity.revision:
            raise CheckpointError(
                f"the scores in {config.scored} are of revision {identity.revision}, but {name} has {revision}; score "
                "with the PRM that is to be calibrated, or name that one with --prm"
            )
        return cls(found.folder, name, calibration_of(found.folder, name))


def _read(path: Path) -> list[ScoredTrace]:
    return [scored for scored in read_scored(path) if scored.status is Status.SCORED]


def _one_prm(traces: Sequence[ScoredTrace], path: Path) -> PRMIdentity:
    found = {(t.prm.name, t.prm.revision, t.prm.family): t.prm for t in traces}
    if len(found) != 1:
        raise InputError(f"expected traces that one PRM has scored in {path}, found those of {len(found)} PRMs")
    return next(iter(found.values()))


def _fit(config: CalibrateConfig, traces: Sequence[ScoredTrace], before: Calibration) -> list[TargetReport]:
    """Fit a map for every kind of reward that has labels.

    Raises:
        InputError: There are no labels at all, or none of what was asked for, or they cannot be fitted.
    """
    from reasonflux_prm.evaluation.calibration import fit
    from reasonflux_prm.evaluation.calibration_report import target_report

    reports = []
    for target in TARGETS:
        if config.targets and target not in config.targets:
            continue
        items = _raw_items(traces, target, before)
        if not items and not config.targets:
            continue
        try:
            fitted = fit(items, config.kind)
        except InputError as error:
            rest = f"; leave it as it is with --target {_other(target)}" if not config.targets else ""
            raise InputError(f"{config.scored}, {_WHAT[target]}: {error}{rest}") from error
        other = _raw_items(_read(config.test), target, before) if config.test else None
        numbers: dict[str, Any] = {"bins": config.bins, "draws": config.resamples, "seed": config.seed}
        reports.append(target_report(target, config.kind, fitted, items, other, **numbers))
    if not reports:
        raise InputError(
            f"expected step labels (and steps scored with --steps given) or verdicts (`correct`) in {config.scored}, "
            "found none"
        )
    return reports


def _raw_items(traces: Sequence[ScoredTrace], target: Target, before: Calibration) -> Items:
    """Return the labelled rewards as they were before the PRM's own calibration, if it had one."""
    from reasonflux_prm.evaluation.calibration import items_of

    items = items_of(traces, target)
    own = before.steps if target == "steps" else before.trajectory
    return items if own is None else items.mapped(own.raw)


def _other(target: str) -> str:
    return TARGETS[1 - TARGETS.index(target)]


_WHAT: Final = {"steps": "step rewards", "trajectory": "trajectory rewards"}


def _write(config: CalibrateConfig, source: _Source, reports: Sequence[TargetReport], identity: PRMIdentity) -> None:
    from reasonflux_prm.evaluation.calibration_report import markdown, report_row
    from reasonflux_prm.evaluation.reliability_figure import svg
    from reasonflux_prm.prm.calibrated_folder import write_calibrated
    from reasonflux_prm.prm.calibration import Calibration

    maps = {own.target: own.map for own in reports}
    # What is not calibrated now stays as it was.
    calibration = Calibration(
        steps=maps.get("steps", source.calibration.steps),
        trajectory=maps.get("trajectory", source.calibration.trajectory),
    )
    record = {
        "schema": SCHEMA,
        "calibration": calibration.to_json(),
        "prm": {"name": identity.name, "revision": identity.revision},
        "fitted_on": str(config.scored.name),
        "report": report_row(reports),
    }
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    picture = svg(reports)
    if config.writes_folder:
        assert source.folder is not None
        files = {"calibration.json": text, "reliability.svg": picture}
        write_calibrated(source.folder, config.output, calibration, files, where=source.where, replace=config.fresh)
    else:
        with atomic_path(config.output) as part:
            part.write_text(text, "utf-8")
    if config.figure:
        with atomic_path(config.figure) as part:
            part.write_text(picture, "utf-8")
    sys.stdout.write(f"# Calibration of {identity.name}\n\n{markdown(reports)}")
    sys.stdout.flush()
    what = ", ".join(f"{_WHAT[own.target]} on {own.measured[0].error.n:,} items" for own in reports)
    then = next_command("score", "TRACES", "--prm", config.output, "-o", "scored.jsonl")
    say(f"{config.output}: {config.kind}, {what}." + (f" {then}" if config.writes_folder else ""))
