"""What `evaluate` does: candidates from a file or a policy, graded, scored, and made into numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reasonflux_prm.cli.console import next_command, say, say_reject
from reasonflux_prm.cli.evaluate_sampling import Lines, sample
from reasonflux_prm.cli.options import ScoringConfig
from reasonflux_prm.cli.policies import PolicyConfig
from reasonflux_prm.cli.running import counts, score_file, trace_sizes
from reasonflux_prm.errors import InputError, ResumeError, SandboxUnavailable, UsageError
from reasonflux_prm.evaluation.tasks.base import Problem, Task, load, size_note
from reasonflux_prm.evaluation.tasks.graders import RecordedGrader, open_task_grader
from reasonflux_prm.evaluation.tasks.programs import ProgramGrader
from reasonflux_prm.evaluation.tasks.references import References
from reasonflux_prm.evaluation.tasks.sampling import SamplingSettings
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.records import PRMIdentity, Reject, ScoredTrace, Trace
from reasonflux_prm.scoring.run import Input
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.native import is_scored
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.run_files import difference
from reasonflux_prm.traces.sources import open_source
from reasonflux_prm.traces.write import RejectsWriter, atomic_path, read_scored, side_path

if TYPE_CHECKING:
    from reasonflux_prm.evaluation.candidates import ProblemCandidates
    from reasonflux_prm.evaluation.paired import Comparison
    from reasonflux_prm.evaluation.report import SelectionReport

SAMPLED_SUFFIX: Final = ".candidates.jsonl"
SCORED_SUFFIX: Final = ".scored.jsonl"
COMPARED_SUFFIX: Final = ".compared.jsonl"
CHECKED_SUFFIX: Final = ".checked.jsonl"
"""Of candidates that were scored before, with rewards scaled by the claims that hold."""
_NAMED: Final = 5
"""Refused problems that are shown; the others are counted."""


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """The arguments of `evaluate`."""

    task: Task
    candidates: Input | None
    """None if they are to be sampled."""
    policy: str | None
    sampling: SamplingSettings | None
    policies: PolicyConfig
    problems: str | None
    limit: int | None
    output: Path
    figure: Path | None
    fresh: bool
    scoring: ScoringConfig | None
    """None if nothing is scored."""
    compare: str | None
    rewards: tuple[str, ...]
    grader: str
    regrade: bool
    unsafe: bool
    ks: tuple[int, ...] | None
    min_candidates: int
    resamples: int
    seed: int

    def about(self) -> dict[str, Any]:
        """Return everything that the numbers depend on and that is known beforehand, as JSON values."""
        about = {
            "task": self.task.name,
            "grader": self.grader,
            "regrade": self.regrade,
            "candidates": self.candidates.fingerprint() if self.candidates else None,
            "policy": self.policy,
            "sampling": asdict(self.sampling) if self.sampling else None,
            "problems": Input(self.problems).fingerprint() if self.problems else None,
            "limit": self.limit,
            "scoring": asdict(self.scoring) if self.scoring else None,
            "compare": Input(self.compare).fingerprint() if self.compare else None,
            "rewards": list(self.rewards),
            "ks": list(self.ks) if self.ks else None,
            "min_candidates": self.min_candidates,
            "resamples": self.resamples,
            "seed": self.seed,
        }
        return dict(json.loads(json.dumps(about)))

    @property
    def first_scoring(self) -> ScoringConfig:
        """How candidates are scored where no flag says otherwise."""
        return ScoringConfig(steps=self.task.steps)


@dataclass(slots=True)
class _Run:
    """What a run has met on its way."""

    scored: Path | None = None
    """The scored candidates, if there is such a file."""
    trouble: list[str] = field(default_factory=list)
    """What is amiss with the input, in words."""
    details: dict[str, Any] = field(default_factory=dict)
    """What is kept in the report beside the numbers: tallies, and settings that only the run could tell."""


def evaluate(config: EvaluateConfig, stack: ExitStack) -> int:
    """Evaluate, and return the exit code; what has to be closed goes onto `stack`."""
    check_output(config.output, config.about(), fresh=config.fresh)
    run = _Run()
    problems = _known_problems(config, run)
    source = config.candidates or _sampled(config, problems, run)
    progress = Lines("{:,} of {:,} programs run")
    grader = stack.enter_context(open_task_grader(config.grader, allow_unsafe=config.unsafe, progress=progress))
    references = References(config.task, config.grader, problems)
    with RejectsWriter(config.output) as rejects:
        found, comparison = _found(config, source, grader, references, rejects, run)
    if rejects.count:
        run.trouble.append(f"{rejects.count:,} refused (see {rejects.path})")
    run.details["grader"] = dict(grader.identity())
    report = _report(config, found, grader)
    comparisons = comparison(report) if comparison else []
    _write(config, report, comparisons, run)
    _say_outcome(config, source, report, run)
    return int(bool(run.trouble))


def check_output(output: Path, about: Mapping[str, Any], *, fresh: bool) -> None:
    """Make sure that nothing is lost by writing a report.

    Raises:
        ResumeError: There is something else in its place, and it is not asked to be replaced.
    """
    if fresh or not output.exists():
        return
    try:
        changed = difference(json.loads(output.read_text("utf-8"))["about"], about)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResumeError(
            f"{output} exists and is no report of evaluate; choose another output, or pass --fresh to replace it"
        ) from error
    if changed:
        raise ResumeError(
            f"{output} is a report of other settings, such as {changed}; choose another output, or pass --fresh to "
            "replace it"
        )


def _known_problems(config: EvaluateConfig, run: _Run) -> list[Problem]:
    """Return the problems to sample candidates of, or those that `--problems` names."""
    if config.candidates is not None and config.problems is None:
        return []
    sampling = config.candidates is None
    refused: list[Reject] = []
    problems = load(
        config.task,
        config.problems,
        limit=config.limit if sampling else None,
        seed=config.seed,
        rejects=refused.append,
    )
    for reject in refused[:_NAMED]:
        say_reject(reject)
    if refused:
        run.trouble.append(f"{len(refused):,} problems refused")
    if sampling and config.limit is None and (note := size_note(config.task, len(problems))):
        say(note)
    return problems


def _sampled(config: EvaluateConfig, problems: Sequence[Problem], run: _Run) -> Input:
    output = side_path(config.output, SAMPLED_SUFFIX)
    assert config.policy is not None
    assert config.sampling is not None
    details = sample(config.task, problems, config.policy, config.sampling, config.policies, output, fresh=config.fresh)
    run.details.update(details)
    if missing := details["samples"]["asked"] - details["samples"]["came"]:
        run.trouble.append(f"{missing:,} samples missing")
    return Input(str(output))


# --- candidates, scored and graded ----------------------------------------------------------------------------------


def _found(
    config: EvaluateConfig,
    source: Input,
    grader: Grader,
    references: References,
    rejects: Callable[[Reject], None],
    run: _Run,
) -> tuple[list[ProblemCandidates], Callable[[SelectionReport], list[Comparison]] | None]:
    """Return the problems, and what compares the two PRMs if there are two."""
    from reasonflux_prm.evaluation.candidates import join, problems_of

    traces = _traces(config, source, rejects, run)
    second = _second(config, source, run)
    name, other = _names(run.scored, second)
    say(f"grading ({config.grader}) and comparing answers")
    found = problems_of(references.complete(traces), grader, name=name, recorded=config.rewards, regrade=config.regrade)
    if second is None:
        return found[: config.limit], None
    # Verdicts and answers are the first set's.
    joined = join(found, problems_of(read_scored(second), RecordedGrader(), name=other))[: config.limit]

    def compared(report: SelectionReport) -> list[Comparison]:
        """Compare what each chooses, and what votes weighted by each choose where both can weigh them."""
        from reasonflux_prm.evaluation.paired import compare

        enough = [problem for problem in joined if problem.n >= config.min_candidates]
        can = {str(curve.method) for curve in report.curves}
        pairs = [(f"{way}:{name}", f"{way}:{other}") for way in ("prm", "weighted")]
        pairs = [pair for pair in pairs if pair is pairs[0] or can.issuperset(pair)]
        return [compare(enough, *pair, resamples=config.resamples, seed=config.seed) for pair in pairs]

    return joined, compared


def _traces(
    config: EvaluateConfig, source: Input, rejects: Callable[[Reject], None], run: _Run
) -> Iterable[ScoredTrace | Trace]:
    """Return the candidates, scored unless that is not wanted."""
    if is_scored_file(source.source):
        plain = config.scoring and replace(config.scoring, check_claims=False)
        untouched = plain == config.first_scoring or (plain and config.compare)
        if not untouched or source.format != "auto" or source.columns:
            raise UsageError(
                f"{source.source} is scored already, so flags that say how to read or score it go with nothing; leave "
                "them out, or give the candidates as they were before"
            )
        run.scored = Path(source.source)
        if config.scoring and config.scoring.check_claims:
            run.scored = write_checked(run.scored, side_path(config.output, CHECKED_SUFFIX))
        return read_scored(run.scored)
    if config.scoring is None:
        if config.compare:
            raise UsageError("--compare needs a first PRM: name it with --prm, or give scored candidates")
        return source.read(rejects)
    run.scored = side_path(config.output, SCORED_SUFFIX)
    _score(config.scoring, source, run.scored, config.fresh, run)
    run.details["scoring"] = dict(read_manifest(run.scored).settings)
    return read_scored(run.scored)


def write_checked(scored: Path, output: Path) -> Path:
    """Write scored traces anew, their rewards scaled by the claims that hold.

    Raises:
        UsageError: The output is the input, or the rewards cannot be scaled.
    """
    from reasonflux_prm.scoring.checked import check_file

    if output.resolve() == scored.resolve():
        raise UsageError(f"{scored} would be replaced by its checked rewards; choose another output")
    check_file(scored, output)
    return output


def _second(config: EvaluateConfig, source: Input, run: _Run) -> Path | None:
    """Return the candidates scored by the PRM to compare with."""
    if config.compare is None:
        return None
    if Path(config.compare).is_file():
        if not is_scored_file(config.compare):
            raise UsageError(
                f"{config.compare} is a file, and not one of scored candidates; --compare takes that or a PRM"
            )
        return Path(config.compare)
    # These say what the first PRM's checkpoint is.
    scoring = replace(
        config.scoring or config.first_scoring,
        prm=config.compare,
        family=None,
        revision=None,
        reference=None,
        context=None,
    )
    scored = side_path(config.output, COMPARED_SUFFIX)
    _score(scoring, source, scored, config.fresh, run)
    run.details["compared"] = dict(read_manifest(scored).settings)
    return scored


def _score(scoring: ScoringConfig, source: Input, output: Path, fresh: bool, run: _Run) -> None:
    sizes = trace_sizes(source)
    progress = score_file(scoring.scorer(), source, output, fresh=fresh, sizes=sizes)
    if progress.unscored or progress.rejects:
        run.trouble.append(f"{output}: {counts(progress, output)}")


def _names(first: Path | None, second: Path | None) -> tuple[str | None, str | None]:
    """Return what to call the PRMs: checkpoints on this disk by their folder, and those of one name told apart."""
    if first is None:
        return None, None
    one = _prm_of(first)
    name = _short(one.name)
    if second is None:
        return name, None
    two = _prm_of(second)
    other = _short(two.name)
    if name == other and one.revision != two.revision:
        name, other = f"{name}@{one.revision}", f"{other}@{two.revision}"
    return name, f"{other} (compared)" if name == other else other


def _short(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name


def _prm_of(scored: Path) -> PRMIdentity:
    first = next(read_scored(scored), None)
    if first is None:
        raise InputError(f"expected scored candidates in {scored}, found none")
    return first.prm


def is_scored_file(source: str) -> bool:
    """Whether the first record of a source is a scored trace."""
    first = next(iter(open_source(source)), None)
    return isinstance(first, Row) and is_scored(first.columns)


# --- numbers ----------------------------------------------------------------------------------------------------------


def _report(config: EvaluateConfig, found: Sequence[ProblemCandidates], grader: Grader) -> SelectionReport:
    from reasonflux_prm.evaluation.report import default_methods, selection_report

    unavailable = grader.unavailable if isinstance(grader, ProgramGrader) else None
    if unavailable:
        say(f"no program was run: {unavailable}")
    methods = None
    if not config.task.votes:
        methods = [method for method in default_methods(found)[0] if method.kind not in ("majority", "weighted")]
    try:
        return selection_report(
            found,
            methods,
            config.ks,
            resamples=config.resamples,
            seed=config.seed,
            min_candidates=config.min_candidates,
            about=config.about(),
        )
    except InputError as error:
        if unavailable:
            raise SandboxUnavailable(unavailable) from error
        raise


def _write(config: EvaluateConfig, report: SelectionReport, comparisons: Sequence[Comparison], run: _Run) -> None:
    from reasonflux_prm.evaluation.markdown import markdown

    row: Mapping[str, Any] = {
        **report.row(),
        "comparisons": [comparison.row() for comparison in comparisons],
        "details": run.details,
    }
    with atomic_path(config.output) as part:
        part.write_text(json.dumps(row, ensure_ascii=False, allow_nan=False, indent=1) + "\n", "utf-8")
    if config.figure and config.figure.suffix == ".html":
        from reasonflux_prm.viewer.curves import write_curves

        write_curves(row, config.figure, title=config.task.title)
    elif config.figure:
        from reasonflux_prm.evaluation.figure import write_figure

        write_figure(report, config.figure, title=config.task.title)
    said = "".join(f"- {comparison}\n" for comparison in comparisons)
    sys.stdout.write(f"# {config.task.title}\n\n{markdown(report)}{said}")
    sys.stdout.flush()


def _say_outcome(config: EvaluateConfig, source: Input, report: SelectionReport, run: _Run) -> None:
    from reasonflux_prm.evaluation.candidates import Trouble

    if config.candidates and (note := size_note(config.task, report.problems)):
        say(note)
    for trouble in (Trouble.NO_REFERENCE, Trouble.REFERENCE_UNREAD, Trouble.UNGRADED):
        if own := report.troubles.get(trouble):
            run.trouble.append(f"{own.count:,} {trouble}")
    parts = [f"{report.problems:,} problems, {report.candidates:,} candidates", *run.trouble]
    if run.scored is not None:
        page = side_path(config.output, ".html")
        then = next_command("view", run.scored, "-o", page)
    else:
        scored = config.output.with_name(f"{config.output.stem}-embedded.json")
        then = next_command(
            "evaluate", config.task.name, "--candidates", source.source, "--prm", "embedded", "-o", scored
        )
    say(f"{config.output}: {'; '.join(parts)}. {then}")
