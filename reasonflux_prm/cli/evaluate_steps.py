"""What `evaluate` does with a step benchmark: labelled steps read, scored as they stand, and made into numbers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reasonflux_prm.cli.console import next_command, say
from reasonflux_prm.cli.evaluate_run import CHECKED_SUFFIX, check_output, is_scored_file, write_checked
from reasonflux_prm.cli.options import ScoringConfig, scoring_of
from reasonflux_prm.cli.running import counts, score_file, trace_sizes
from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import Reject, ScoredTrace
from reasonflux_prm.scoring.run import Input, Scorer
from reasonflux_prm.steps.split import GIVEN
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.write import RejectsWriter, atomic_path, json_line, read_scored, side_path

if TYPE_CHECKING:
    from reasonflux_prm.evaluation.steps.base import StepBenchmark
    from reasonflux_prm.evaluation.steps.judged import Judged

_OWN: Final[dict[str, Any]] = {"file": [], "dev": None, "threshold": None}
"""Flags of step benchmarks alone, with their defaults."""
_SHARED: Final = frozenset(
    {"task", "output", "fresh", "list", "limit", "resamples", "seed", "debug", "given"}
    | {name for name in ScoringConfig.__dataclass_fields__ if name not in ("steps", "alpha", "aggregation")}
)


@dataclass(frozen=True, slots=True)
class StepConfig:
    """The arguments of `evaluate` with a step benchmark."""

    benchmark: StepBenchmark
    files: tuple[str, ...]
    dev: tuple[str, ...]
    threshold: float | None
    limit: int | None
    output: Path
    fresh: bool
    resamples: int
    seed: int
    scoring: ScoringConfig
    scored_before: bool
    """Whether the files are what an earlier run scored."""

    def about(self) -> dict[str, Any]:
        """Return everything that the numbers depend on and that is known beforehand, as JSON values."""
        sources = self.files or self.benchmark.sources
        about = {
            "task": self.benchmark.name,
            "files": [Input(name).fingerprint() for name in sources],
            "dev": [Input(name).fingerprint() for name in self.dev],
            "threshold": self.threshold,
            "limit": self.limit,
            "resamples": self.resamples,
            "seed": self.seed,
            "scoring": asdict(self.scoring),
        }
        return dict(json.loads(json.dumps(about)))


def add_step_flags(group: argparse._ArgumentGroup) -> None:
    """Add the flags of step benchmarks."""
    group.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="F",
        help="its data: a file, a directory or a data set, or what an earlier run scored (REPORT.scored.jsonl); "
        "may be given several times; default its place on the hub",
    )
    group.add_argument(
        "--dev",
        action="append",
        metavar="F",
        help="labelled steps to choose the threshold of first errors on; default GSM8K's part of processbench",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="a step reward below it is taken for wrong; default the middle of the PRM's range",
    )


def refuse_step_flags(arguments: argparse.Namespace) -> None:
    """Refuse the flags of step benchmarks where they mean nothing.

    Raises:
        UsageError: One was given.
    """
    if given := [f"--{name}" for name, default in _OWN.items() if getattr(arguments, name) != default]:
        raise UsageError(f"{', '.join(given)}: that goes with step benchmarks only; leave it out with this task")


def evaluate_steps(benchmark: StepBenchmark, arguments: argparse.Namespace) -> int:
    """Evaluate, and return the exit code.

    Raises:
        UsageError: A flag makes no sense here, or the PRM gives no step rewards.
        InputError: There is nothing to read.
    """
    config = _config(benchmark, arguments)
    check_output(config.output, config.about(), fresh=config.fresh)
    trouble: list[str] = []
    if config.scored_before:
        threshold, judged, dev, scored = _scored_before(config)
    else:
        scorer = config.scoring.scorer()
        threshold = _threshold(config, scorer)
        judged, scored = _judge(config, config.files, "", scorer, trouble)
        dev = _judge(config, config.dev, ".dev", scorer, trouble)[0] if config.dev else None
    _report(config, threshold, judged, dev, scored, trouble)
    return int(bool(trouble))


def _config(benchmark: StepBenchmark, arguments: argparse.Namespace) -> StepConfig:
    if arguments.output is None or not arguments.output.endswith(".json"):
        raise UsageError("evaluate needs a place for its numbers: -o REPORT.json")
    from reasonflux_prm.cli.main import command_parser, load_command

    defaults = command_parser("evaluate", load_command("evaluate")).parse_args([])
    others = [
        name
        for name, value in vars(arguments).items()
        if name not in _SHARED and name not in _OWN and value != getattr(defaults, name)
    ]
    if others:
        flags = ", ".join("--" + name.replace("_", "-") for name in others)
        raise UsageError(f"{flags}: that means nothing to the step benchmark {benchmark.name}; leave it out")
    scoring = _without_trajectory(arguments)
    sources = (*arguments.file, *(arguments.dev or ()))
    scored_before = _are_scored(sources)
    if scored_before and (arguments.limit or replace(scoring, check_claims=False) != _without_trajectory(defaults)):
        raise UsageError(
            f"{sources[0]} is scored already, so --limit and flags that say how to score go with nothing; leave "
            "them out, or give the labelled steps as they were before"
        )
    return StepConfig(
        benchmark=benchmark,
        files=tuple(arguments.file),
        dev=tuple(arguments.dev or ()),
        threshold=arguments.threshold,
        limit=arguments.limit,
        output=Path(arguments.output),
        fresh=arguments.fresh,
        resamples=arguments.resamples,
        seed=arguments.seed,
        scoring=scoring,
        scored_before=scored_before,
    )


def _without_trajectory(arguments: argparse.Namespace) -> ScoringConfig:
    """Leave the trajectory reward out, which would cost some PRMs a second reading."""
    return replace(scoring_of(arguments), alpha=0.0, steps=GIVEN)


def _are_scored(sources: Sequence[str]) -> bool:
    """Return whether sources are what an earlier run scored; a data set on the hub is not opened for that.

    Raises:
        UsageError: Some are, and others are not.
    """
    scored = {name: Path(name).is_file() and is_scored_file(name) for name in sources}
    if any(scored.values()) and not all(scored.values()):
        raw = next(name for name, done in scored.items() if not done)
        raise UsageError(f"{raw} is not scored, and other files are; give only scored files, or none")
    return any(scored.values())


def _scored_before(config: StepConfig) -> tuple[float, list[Judged], list[Judged] | None, Path]:
    """Judge what an earlier run of this benchmark scored (its REPORT.scored.jsonl), with claims checked if asked."""
    from reasonflux_prm.evaluation.steps.judged import judged_of
    from reasonflux_prm.scoring.checked import low_end

    if len(config.files) != 1 or len(config.dev) > 1:
        raise UsageError("expected one scored file in --file, and at most one in --dev")
    paths = [Path(name) for name in (*config.files, *config.dev)]
    rows = [list(read_scored(path)) for path in paths]
    for path, own in zip(paths, rows, strict=True):
        _expect_benchmark(config.benchmark, path, own)
    if config.scoring.check_claims:
        outputs = (side_path(config.output, mark + CHECKED_SUFFIX) for mark in ("", ".dev"))
        paths = [write_checked(path, output) for path, output in zip(paths, outputs, strict=False)]
        rows = [list(read_scored(path)) for path in paths]
    threshold = config.threshold
    if threshold is None:
        threshold = _middle(low_end(rows[0][0].prm.family), 1.0, rows[0][0].prm.name)
    judged = [judged_of(own) for own in rows]
    return threshold, judged[0], judged[1] if config.dev else None, paths[0]


def _expect_benchmark(benchmark: StepBenchmark, path: Path, rows: Sequence[ScoredTrace]) -> None:
    """Refuse scored traces that no run of this benchmark wrote: its columns would be missing."""
    for row in rows:
        scope = row.trace.meta.get("scope")
        if not isinstance(scope, str) or (benchmark.scopes and scope not in benchmark.scopes):
            raise InputError(
                f"expected in {path} what an earlier `evaluate {benchmark.name}` scored, its REPORT.scored.jsonl; "
                f"trace {row.trace.id!r} is not of that benchmark"
            )


def _threshold(config: StepConfig, scorer: Scorer) -> float:
    """Return the fixed threshold."""
    if config.threshold is not None:
        return config.threshold
    spec = getattr(getattr(scorer, "prm", None), "spec", None)
    low, high = spec.score_range if spec is not None else (0.0, 1.0)
    return _middle(low, high, config.scoring.prm)


def _middle(low: float, high: float, prm: str) -> float:
    """Return the middle of a range.

    Raises:
        UsageError: It has none.
    """
    if abs(low) == float("inf") or abs(high) == float("inf"):
        raise UsageError(f"the rewards of {prm} have no bounds, so say with --threshold what is wrong")
    return (low + high) / 2


def _judge(
    config: StepConfig, sources: Sequence[str], mark: str, scorer: Scorer, trouble: list[str]
) -> tuple[list[Judged], Path]:
    """Read, score and judge; what is on the disk already is not scored again."""
    from reasonflux_prm.evaluation.steps.judged import judged_of

    prepared = side_path(config.output, f"{mark}.traces.jsonl")
    with RejectsWriter(prepared) as rejects:
        count = _prepare(config, sources, prepared, rejects)
    if rejects.count:
        trouble.append(f"{rejects.count:,} refused (see {rejects.path})")
    if not count:
        raise InputError(f"expected labelled steps in {', '.join(sources) or config.benchmark.title}, found none")
    source = Input(str(prepared), format="native")
    scored = side_path(config.output, f"{mark}.scored.jsonl")
    progress = score_file(scorer, source, scored, fresh=config.fresh, sizes=trace_sizes(source))
    if progress.unscored:
        trouble.append(f"{scored}: {counts(progress, scored)}")
    return judged_of(read_scored(scored)), scored


def _prepare(config: StepConfig, sources: Sequence[str], path: Path, rejects: Callable[[Reject], None]) -> int:
    from reasonflux_prm.evaluation.steps.base import read_benchmark

    count = 0
    with atomic_path(path) as part, part.open("wb") as stream:
        for trace in read_benchmark(config.benchmark, sources, rejects, config.limit):
            stream.write(json_line(trace_row(trace)))
            count += 1
    return count


def _report(
    config: StepConfig,
    threshold: float,
    judged: Sequence[Judged],
    dev: Sequence[Judged] | None,
    scored: Path,
    trouble: Sequence[str],
) -> None:
    from reasonflux_prm.evaluation.steps.report import Settings, markdown

    settings = Settings(threshold, config.resamples, config.seed)
    report = config.benchmark.report(judged, settings, dev)
    details = {} if config.scored_before else {"scoring": dict(read_manifest(scored).settings)}
    row = {"about": config.about(), **report.row(), "details": details}
    text = markdown(report)
    with atomic_path(side_path(config.output, ".md")) as part:
        part.write_text(text, "utf-8")
    with atomic_path(config.output) as part:
        part.write_text(json.dumps(row, ensure_ascii=False, allow_nan=False, indent=1) + "\n", "utf-8")
    sys.stdout.write(text)
    sys.stdout.flush()
    page = side_path(config.output, ".html")
    parts = [f"{len(judged):,} traces", *trouble]
    say(f"{config.output}: {'; '.join(parts)}. {next_command('view', scored, '-o', page)}")
