"""Pick the best of several candidates of each problem.

CANDIDATES is a file of candidates (id, problem, candidates: [...]), or of traces whose candidates of one problem stand
together, or such a file that `reasonflux-prm score` has scored already; - is a pipe. One record a problem comes out:
the index of the pick, the candidates' scores and final answers, and whether the pick is right where that is known.
Candidates that are scored here are kept beside PICKS.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from reasonflux_prm.cli.console import next_command, say, say_reject
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
from reasonflux_prm.errors import ResumeError, UsageError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.graders import NAMES, default_grader, open_grader
from reasonflux_prm.records import Reject, ScoredTrace, Trace
from reasonflux_prm.scoring.run import PIPE, Input, finished_run
from reasonflux_prm.search.best_of_n import METHODS, Method, Pick, pick_all
from reasonflux_prm.traces.manifest import Manifest, read_manifest, write_manifest
from reasonflux_prm.traces.native import is_scored
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import REJECTS_SUFFIX, open_source
from reasonflux_prm.traces.write import RejectsWriter, atomic_path, json_line, read_scored, side_path

KIND: Final = "picks"
SCORED_SUFFIX: Final = ".scored.jsonl"


@dataclass(frozen=True, slots=True)
class BestOfNConfig:
    """The arguments of `best-of-n`."""

    source: Input
    output: str
    fresh: bool
    method: Method
    grader: str
    scoring: ScoringConfig


@dataclass(slots=True)
class Tally:
    """What became of the problems."""

    problems: int = 0
    picked: int = 0
    known: int = 0
    """Picks that are known to be right or wrong."""
    right: int = 0

    def count(self, picks: Iterable[Pick]) -> Iterator[Pick]:
        """Pass picks on and count them."""
        for pick in picks:
            self.problems += 1
            self.picked += pick.pick is not None
            self.known += pick.correct is not None
            self.right += pick.correct is True
            yield pick

    def __str__(self) -> str:
        text = f"{self.problems:,} problems, {self.picked:,} picks"
        if self.known:
            text += f", {self.right:,} of {self.known:,} right where that is known ({self.right / self.known:.1%})"
        return text


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Candidates that are ready to be picked from."""

    traces: Iterable[ScoredTrace | Trace]
    scored: Path | None
    """The file of scored candidates, where there is one that lasts."""
    settings: Mapping[str, Any]
    """How they were scored."""
    trouble: str = ""
    """Candidates without a score and refused records, counted; empty if there are none."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `best-of-n`."""
    parser.add_argument("candidates", metavar="CANDIDATES", help="the candidates of each problem, scored or not")
    add_output(parser, "PICKS", "the picks: a .jsonl file, or - for standard output")
    parser.add_argument(
        "--method",
        default="prm",
        choices=METHODS,
        help="prm: the highest reward; majority: the most frequent final answer, without a PRM; weighted: the final "
        "answer with the largest sum of rewards; default prm",
    )
    parser.add_argument(
        "--grader",
        choices=NAMES,
        help="says which final answers are the same, and which are right: math (math-verify), numeric, choice (a "
        "letter), string (equal but for the habits of LaTeX), exact, or auto (by the reference: choice, string or "
        "math); default auto, or string where math-verify is not installed",
    )
    add_input(parser)
    add_scoring(parser)
    add_check(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pick, and say what came of it."""
    source = input_of(arguments, arguments.candidates)
    config = BestOfNConfig(
        source=source,
        output=arguments.output,
        fresh=arguments.fresh,
        method=arguments.method,
        grader=arguments.grader or default_grader(),
        scoring=scoring_of(arguments),
    )
    with ExitStack() as stack:
        grader = stack.enter_context(open_grader(config.grader))
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        config = _from_pipe(config, scratch)
        refused: list[Reject] = []
        candidates = _candidates(config, scratch, _rejects(config, stack, refused))
        picks = islice(pick_all(candidates.traces, config.method, grader), config.source.limit)
        tally = Tally()
        if config.output == PIPE:
            for pick in tally.count(picks):
                sys.stdout.buffer.write(json_line(pick.row()))
            sys.stdout.buffer.flush()
        else:
            write_picks(tally, picks, Path(config.output), _settings(config, grader, candidates), fresh=config.fresh)
    trouble = candidates.trouble or (f"{len(refused):,} refused" if refused else "")
    say(_outcome(config, tally, candidates, trouble))
    return int(tally.picked < tally.problems or bool(trouble))


def write_picks(
    tally: Tally, picks: Iterable[Pick], output: Path, settings: Mapping[str, Any], *, fresh: bool = False
) -> None:
    """Write picks and their manifest.

    Raises:
        ResumeError: The output is another run's, and it is not asked to be replaced.
    """
    if not fresh:
        finished_run(output, KIND, settings)
    with atomic_path(output) as part, part.open("wb") as stream:
        stream.writelines(json_line(pick.row()) for pick in tally.count(picks))
    by_status = {"picked": tally.picked, "unpicked": tally.problems - tally.picked}
    write_manifest(Manifest(KIND, {name: n for name, n in by_status.items() if n}, settings), output)


def _from_pipe(config: BestOfNConfig, scratch: Path) -> BestOfNConfig:
    """Put what comes through a pipe into a file, because its first record is looked at before it is read."""
    if config.source.source != PIPE:
        return config
    if config.output != PIPE and Path(config.output).exists() and not config.fresh:
        raise ResumeError(
            f"{config.output} exists, and what comes through a pipe cannot be compared with what it was made of; "
            "choose another output or pass --fresh to replace it"
        )
    path = scratch / "stdin.jsonl"
    with path.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream)
    return replace(config, source=replace(config.source, source=str(path)), fresh=True)


def _rejects(config: BestOfNConfig, stack: ExitStack, refused: list[Reject]) -> Callable[[Reject], None]:
    """Return what takes the records that are refused while nothing is scored."""
    beside = stack.enter_context(RejectsWriter(config.output)) if config.output != PIPE else say_reject

    def refuse(reject: Reject) -> None:
        refused.append(reject)
        beside(reject)

    return refuse


def _candidates(config: BestOfNConfig, scratch: Path, refuse: Callable[[Reject], None]) -> _Candidates:
    """Have the candidates scored, unless they are or need not be."""
    source, untouched = config.source, config.scoring == ScoringConfig()
    if _is_scored(source):
        if not untouched or source.format != "auto" or source.columns:
            raise UsageError(
                f"{source.source} is scored already, so flags that say how to read or score it go with nothing; leave "
                "them out, or give the candidates as they were before"
            )
        return _Candidates(read_scored(source.source), Path(source.source), {})
    if config.method == "majority":
        if not untouched:
            raise UsageError("the method majority uses no PRM; leave the flags that say how to score out")
        return _Candidates(source.read(refuse), None, {})
    lasting = config.output != PIPE
    scored = side_path(Path(config.output), SCORED_SUFFIX) if lasting else scratch / "scored.jsonl"
    sizes = trace_sizes(source)
    progress = score_file(config.scoring.scorer(), source, scored, fresh=config.fresh, sizes=sizes)
    if not lasting and progress.rejects:
        for row in open_source(side_path(scored, REJECTS_SUFFIX)):
            if isinstance(row, Row):
                say_reject(Reject(**row.columns))
    trouble = counts(progress, scored if lasting else None) if progress.unscored or progress.rejects else ""
    return _Candidates(read_scored(scored), scored if lasting else None, read_manifest(scored).settings, trouble)


def _is_scored(source: Input) -> bool:
    """Whether the first record of a source is a scored trace."""
    first = next(iter(open_source(source.source)), None)
    return isinstance(first, Row) and is_scored(first.columns)


def _settings(config: BestOfNConfig, grader: Grader, candidates: _Candidates) -> dict[str, Any]:
    return {
        "method": config.method,
        "grader": dict(grader.identity()),
        "input": config.source.fingerprint(),
        "scoring": dict(candidates.settings),
    }


def _outcome(config: BestOfNConfig, tally: Tally, candidates: _Candidates, trouble: str) -> str:
    parts = [f"{tally}", *([f"candidates: {trouble}"] if trouble else [])]
    if config.output == PIPE:
        return "; ".join(parts) + "."
    line = f"{config.output}: {'; '.join(parts)}."
    if candidates.scored is None:
        return line
    report = side_path(Path(config.output), ".html")
    return f"{line} {next_command('view', candidates.scored, '--picks', config.output, '-o', report)}"
