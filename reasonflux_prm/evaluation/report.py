"""What N buys, as a report: every method at every k, with intervals, ties and cost; in JSON.

The same problems, settings and seed give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

import numpy as np

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.evaluation.candidates import ProblemCandidates, Trouble, prm_names
from reasonflux_prm.evaluation.curves import MAJORITY, PASS_1, Curve, Method, cannot_weigh, curve, with_all
from reasonflux_prm.evaluation.intervals import DRAWS, Interval, interval_row, rounded
from reasonflux_prm.evaluation.ranks import Ranks, ranks_of
from reasonflux_prm.evaluation.resampled_means import ResampledMeans

SCHEMA: Final = 1
LEVEL: Final = 0.95
BASELINES: Final = (PASS_1, MAJORITY)
"""What every other method is compared with, problem by problem."""
_MOST_NAMED: Final = 5
"""Problems that are named for each trouble."""


@dataclass(frozen=True, slots=True)
class Point:
    """One method at one k."""

    k: int | None
    """None: all candidates of each problem, however many they are."""
    accuracy: Interval
    minus: Mapping[str, Interval]
    """How much higher than each of `BASELINES` (by its name), both on the same problems; none of itself."""
    monte_carlo_error: float | None
    """Standard error of the accuracy that comes from drawing subsets; None where it is 0, as all were taken."""
    tied: float | None
    """Problems in which several choices were equally good, the mean over the subsets; None where none compare."""
    policy_tokens: float | None
    """Tokens that the policy writes for k candidates, the mean over the problems; None unless all are known."""
    prm_tokens: float | None
    """Tokens that the PRM reads for k candidates; 0 for a method without a PRM, None unless all are known."""


@dataclass(frozen=True, slots=True)
class MethodCurve:
    """One method at every k."""

    method: Method
    points: tuple[Point, ...]
    """One a size."""
    whole: Point
    """With all candidates of each problem."""

    @property
    def label(self) -> str:
        """Return what to call the method where a person reads."""
        kind, prm = self.method.kind, self.method.prm
        names = {"oracle": "oracle (pass@k)", "prm": f"best by {prm}", "weighted": f"vote weighted by {prm}"}
        return names.get(kind, kind)


@dataclass(frozen=True, slots=True)
class Found:
    """How often something is amiss."""

    count: int
    """Candidates, or problems for those in `candidates.OF_PROBLEMS`."""
    problems: int
    named: tuple[str, ...]
    """The first few of the problems."""


@dataclass(frozen=True, slots=True)
class SelectionReport:
    """What ways of choosing among k candidates reach, for every k."""

    problems: int
    """That the numbers are of."""
    candidates: int
    """Of these problems."""
    clusters: int
    """Different problems among them: what the bootstrap draws."""
    fewest: int
    """Candidates of the problem that has the fewest."""
    most: int
    """Candidates of the problem that has the most."""
    curves: tuple[MethodCurve, ...]
    ranks: tuple[Ranks, ...]
    """One a PRM that chooses."""
    troubles: Mapping[Trouble, Found]
    """Of all problems, also those that are left out."""
    unscored: Mapping[str, int]
    """For each PRM the candidates that have no reward of it."""
    notes: tuple[str, ...]
    """What was left out, and why; one sentence each."""
    settings: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    """Where the candidates come from, as JSON values; whatever the caller wants kept."""

    @property
    def ks(self) -> tuple[int, ...]:
        """Return the sizes."""
        return tuple(point.k for point in self.curves[0].points if point.k is not None)

    def findings(self) -> list[str]:
        """Say for each method with a PRM whether it beats majority with all candidates."""
        found = []
        for own in self.curves:
            difference = own.whole.minus.get(str(MAJORITY))
            if own.method.prm is None or difference is None or difference.value is None:
                continue
            low, high = difference.low, difference.high
            how = "cannot be told apart from"
            if low is not None and high is not None and (low > 0 or high < 0):
                how = "is above" if low > 0 else "is below"
            found.append(f"With all candidates, {own.label} {how} majority: {interval_text(difference, '+')}.")
        return found

    def row(self) -> dict[str, Any]:
        """Return the report as JSON values, numbers rounded to six digits."""
        return {
            "schema": SCHEMA,
            "kind": "selection",
            "about": dict(self.about),
            "settings": dict(self.settings),
            "problems": self.problems,
            "candidates": self.candidates,
            "clusters": self.clusters,
            "candidates_a_problem": {"fewest": self.fewest, "most": self.most},
            "notes": list(self.notes),
            "findings": self.findings(),
            "troubles": {
                str(trouble): {"count": own.count, "problems": own.problems, "named": list(own.named)}
                for trouble, own in self.troubles.items()
            },
            "unscored": dict(self.unscored),
            "curves": [
                {
                    "method": str(own.method),
                    "label": own.label,
                    "points": [_point_row(point) for point in own.points],
                    "all": _point_row(own.whole),
                }
                for own in self.curves
            ],
            "ranks": [own.row() for own in self.ranks],
        }

    def to_json(self) -> str:
        """Return the report as JSON, one object that ends in a newline."""
        return json.dumps(self.row(), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def selection_report(
    problems: Sequence[ProblemCandidates],
    methods: Iterable[Method | str] | None = None,
    ks: Iterable[int] | None = None,
    samples: int = 2000,
    resamples: int = DRAWS,
    seed: int = 0,
    *,
    min_candidates: int = 1,
    about: Mapping[str, Any] | None = None,
) -> SelectionReport:
    """Evaluate ways of choosing among the candidates of problems.

    Args:
        problems: What `candidates.problems_of` gathers. Those without any known verdict are left out; where a problem
            has some, a candidate without one counts as not right.
        methods: Methods, or how they are written (`majority`, `prm:NAME`); default all that the problems allow.
        ks: Sizes; default all from 1. A size that not every problem has is left out, and `notes` says so.
        samples: Subsets of a size for weighted votes; see `curves.curve`.
        resamples: Of the bootstrap.
        seed: Of the subsets and the bootstrap.
        min_candidates: Leave out problems with fewer candidates, so that larger k can be had.
        about: Kept in the report.

    Raises:
        InputError: No problem is left.
        UsageError: A method is unknown or cannot be had (no rewards, or votes with rewards below 0), or a number is out
            of its range.

    Example:
        ```python
        report = selection_report(problems_of(read_candidates("scored.jsonl")), ["prm:embedded", "majority"])
        ```
    """
    kept, left_out = _kept(problems, min_candidates)
    sizes, too_large = _sizes(kept, ks)
    chosen, impossible = default_methods(kept) if methods is None else (_named(methods), [])
    evaluated = _Evaluated.of(kept, chosen, sizes, samples, resamples, seed)
    return SelectionReport(
        problems=len(kept),
        candidates=sum(problem.n for problem in kept),
        clusters=len({problem.cluster for problem in kept}),
        fewest=min(problem.n for problem in kept),
        most=max(problem.n for problem in kept),
        curves=tuple(map(evaluated.curve, chosen)),
        ranks=_ranks(kept, chosen, resamples, seed),
        troubles=_troubles(problems),
        unscored={name: sum(_unscored(problem, name) for problem in kept) for name in prm_names(kept)},
        notes=(*left_out, *too_large, *impossible),
        settings={
            "methods": [str(method) for method in chosen],
            "ks": sizes,
            "samples": samples,
            "resamples": resamples,
            "seed": seed,
            "level": LEVEL,
            "min_candidates": min_candidates,
        },
        about=dict(about or {}),
    )


def default_methods(problems: Sequence[ProblemCandidates]) -> tuple[list[Method], list[str]]:
    """Return all methods that the problems allow, and why others are left out."""
    methods, notes = [Method("oracle")], []
    for name in prm_names(problems):
        if all(_unscored(problem, name) == problem.n for problem in problems):
            notes.append(f"The PRM {name} is left out: no candidate has a reward of it.")
            continue
        methods.append(Method("prm", name))
        if trouble := cannot_weigh(problems, name):
            notes.append(f"The weighted vote by {name} is left out: {trouble}.")
        else:
            methods.append(Method("weighted", name))
    return [*methods, MAJORITY, Method("longest"), Method("shortest"), PASS_1], notes


def _ranks(
    problems: Sequence[ProblemCandidates], methods: Sequence[Method], resamples: int, seed: int
) -> tuple[Ranks, ...]:
    names = [method.prm for method in methods if method.kind == "prm" and method.prm is not None]
    return tuple(ranks_of(problems, name, draws=resamples, seed=seed, level=LEVEL) for name in names)


def _named(methods: Iterable[Method | str]) -> list[Method]:
    chosen = list(dict.fromkeys(Method.parse(one) if isinstance(one, str) else one for one in methods))
    if not chosen:
        raise UsageError("expected at least one method, got none")
    return chosen


def _kept(problems: Sequence[ProblemCandidates], min_candidates: int) -> tuple[list[ProblemCandidates], list[str]]:
    """Return the problems that can be evaluated, and say why others are left out."""
    judged = [problem for problem in problems if any(verdict is not None for verdict in problem.correct)]
    kept = [problem for problem in judged if problem.n >= min_candidates]
    notes = []
    if unknown := len(problems) - len(judged):
        notes.append(f"{unknown:,} of {len(problems):,} problems are left out: none of their candidates has a verdict.")
    if small := len(judged) - len(kept):
        notes.append(f"{small:,} problems are left out: they have fewer than {min_candidates} candidates.")
    if not kept:
        raise InputError(
            "expected problems to evaluate, got none" + (f": {' '.join(notes)}" if notes else "; is the input empty?")
        )
    return kept, notes


def _sizes(problems: Sequence[ProblemCandidates], ks: Iterable[int] | None) -> tuple[list[int], list[str]]:
    """Return the sizes that all problems have, and say which are left out."""
    smallest = min(problems, key=lambda problem: problem.n)
    fewest, most = smallest.n, max(problem.n for problem in problems)
    wanted = sorted(set(range(1, most + 1) if ks is None else ks))
    sizes = [k for k in wanted if k <= fewest]
    if not sizes or sizes[0] < 1:
        raise UsageError(f"expected sizes from 1 to {fewest}, got {', '.join(map(str, wanted)) or 'none'}")
    if len(sizes) == len(wanted):
        return sizes, []
    count = sum(problem.n == fewest for problem in problems)
    return sizes, [
        f"k ends at {sizes[-1]}: {count:,} of {len(problems):,} problems have no more than {fewest} candidates, such "
        f"as {smallest.id!r}, others up to {most}; a least number of candidates leaves the small ones out."
    ]


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """The curves of methods, and the baselines, on the same problems."""

    problems: Sequence[ProblemCandidates]
    sizes: Sequence[int]
    found: Mapping[Method, Curve]
    """Each with one column a size, and one more for all candidates of each problem."""
    means: ResampledMeans
    """Of all these columns."""

    @classmethod
    def of(
        cls,
        problems: Sequence[ProblemCandidates],
        methods: Sequence[Method],
        sizes: Sequence[int],
        samples: int,
        resamples: int,
        seed: int,
    ) -> Self:
        found = {}
        for method in dict.fromkeys([*methods, *BASELINES]):
            parts = curve(problems, method, sizes, samples=samples, seed=seed), with_all(problems, method)
            columns = zip(*((part.accuracy, part.tied, part.error) for part in parts), strict=True)
            found[method] = Curve(*(np.concatenate(own, axis=-1) for own in columns))
        accuracy = np.hstack([own.accuracy for own in found.values()])
        clusters = [problem.cluster for problem in problems]
        return cls(problems, sizes, found, ResampledMeans(accuracy, clusters, draws=resamples, seed=seed, level=LEVEL))

    def curve(self, method: Method) -> MethodCurve:
        points = tuple(self._point(method, at, k) for at, k in enumerate(self.sizes))
        return MethodCurve(method, points, self._point(method, len(self.sizes), None))

    def _point(self, method: Method, at: int, k: int | None) -> Point:
        own = self.found[method]
        # Chance needs one candidate, however many there could be.
        written = 1 if method == PASS_1 else k
        prm_tokens: float | None = 0.0
        if method.prm is not None:
            prm_tokens = _mean_tokens([problem.prm_tokens.get(method.prm, ()) for problem in self.problems], k)
        return Point(
            k=k,
            accuracy=self.means.interval(self._column(method, at)),
            minus={
                str(base): self.means.interval(self._column(method, at), minus=self._column(base, at))
                for base in BASELINES
                if base != method
            },
            monte_carlo_error=float(own.error[at]) or None,
            tied=None if method.kind in ("oracle", "pass@1") else float(own.tied[:, at].sum()),
            policy_tokens=_mean_tokens([problem.policy_tokens for problem in self.problems], written),
            prm_tokens=prm_tokens,
        )

    def _column(self, method: Method, at: int) -> int:
        return list(self.found).index(method) * (len(self.sizes) + 1) + at


def _mean_tokens(counts: Sequence[Sequence[int | None]], k: int | None) -> float | None:
    """Return the mean over problems of the tokens for k candidates, None all; None unless all tokens are known."""
    sums = []
    for own in counts:
        known = [count for count in own if count is not None]
        if not known or len(known) < len(own):
            return None
        sums.append(sum(known) * (1.0 if k is None else k / len(known)))
    return sum(sums) / len(sums)


def _unscored(problem: ProblemCandidates, name: str) -> int:
    return problem.rewards.get(name, (None,) * problem.n).count(None)


def _troubles(problems: Sequence[ProblemCandidates]) -> dict[Trouble, Found]:
    found = {}
    for trouble in Trouble:
        having = [problem for problem in problems if problem.troubles.get(trouble)]
        if having:
            count = sum(problem.troubles[trouble] for problem in having)
            found[trouble] = Found(count, len(having), tuple(problem.id for problem in having[:_MOST_NAMED]))
    return found


def _point_row(point: Point) -> dict[str, Any]:
    return {
        "k": point.k,
        **interval_row(point.accuracy),
        "monte_carlo_error": rounded(point.monte_carlo_error),
        "tied": rounded(point.tied),
        "policy_tokens": rounded(point.policy_tokens),
        "prm_tokens": rounded(point.prm_tokens),
        **{f"minus_{name}": interval_row(own) for name, own in point.minus.items()},
    }


def interval_text(interval: Interval, sign: Literal["", "+"] = "") -> str:
    """Return a number and its interval as text: `0.930 (0.873 to 0.975)`, with a sign if it is a difference."""
    ends = "" if interval.low is None else f" ({interval.low:{sign}.3f} to {interval.high:{sign}.3f})"
    return f"{interval.value:{sign}.3f}{ends}"
