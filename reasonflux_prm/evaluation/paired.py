"""Two ways of choosing among the same candidates, problem by problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.candidates import ProblemCandidates
from reasonflux_prm.evaluation.curves import Method, with_all
from reasonflux_prm.evaluation.intervals import DRAWS, Interval, bootstrap
from reasonflux_prm.evaluation.metrics import weighted_mean

_EQUAL: Final = 1e-9
"""Accuracies on one problem that differ by less are equal: they are sums of fractions."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two methods compare on the same problems, each with all candidates that it has."""

    first: Method
    second: Method
    accuracy: tuple[float, float]
    """Of the two."""
    difference: Interval
    """First minus second; resampled by cluster."""
    first_better: int
    """Problems (those of one cluster count as one) on which the first is more often right."""
    second_better: int
    equal: int
    p: float
    """Two-sided p of the exact sign test: how likely so uneven a split of the problems that differ is if each falls to
    either side like a coin. Where no choice is tied this is the exact McNemar test."""

    def row(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {**asdict(self), "first": str(self.first), "second": str(self.second), "accuracy": list(self.accuracy)}

    def __str__(self) -> str:
        ends = self.difference
        interval = "" if ends.low is None else f" ({ends.low:+.3f} to {ends.high:+.3f})"
        return (
            f"{self.first} minus {self.second}: {ends.value:+.3f}{interval} on {ends.n:,} problems; they differ on "
            f"{self.first_better + self.second_better:,}, {self.first_better:,} for the first and "
            f"{self.second_better:,} for the second (sign test, p = {self.p:.3g})"
        )


def compare(
    problems: Sequence[ProblemCandidates],
    first: Method | str,
    second: Method | str,
    *,
    resamples: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare two methods, such as two PRMs whose rewards `candidates.join` has put together.

    Args:
        problems: Those without any known verdict are left out.
        first: A method, or how it is written: `prm:NAME`.
        second: Another.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        level: Share of the resamples that the interval holds, in (0, 1).

    Raises:
        UsageError: No problem has a verdict, or a method cannot be had; see `curves.curve`.

    Example:
        ```python
        first, second = (problems_of(read_candidates(f"{name}.jsonl"), name=name) for name in "ab")
        print(compare(join(first, second), "prm:a", "prm:b"))
        ```
    """
    first, second = (Method.parse(one) if isinstance(one, str) else one for one in (first, second))
    judged = [problem for problem in problems if any(verdict is not None for verdict in problem.correct)]
    if not judged:
        raise UsageError(f"expected problems whose candidates have verdicts, got {len(problems):,} without any")
    accuracy = [with_all(judged, method).accuracy[:, 0] for method in (first, second)]
    clusters = [problem.cluster for problem in judged]
    ahead = accuracy[0] - accuracy[1]
    by_cluster: dict[str, float] = dict.fromkeys(clusters, 0.0)
    for cluster, lead in zip(clusters, ahead.tolist(), strict=True):
        by_cluster[cluster] += lead
    better = sum(lead > _EQUAL for lead in by_cluster.values())
    worse = sum(lead < -_EQUAL for lead in by_cluster.values())
    return Comparison(
        first=first,
        second=second,
        accuracy=(float(accuracy[0].mean()), float(accuracy[1].mean())),
        difference=bootstrap(weighted_mean(ahead), clusters, draws=resamples, seed=seed, level=level),
        first_better=better,
        second_better=worse,
        equal=len(by_cluster) - better - worse,
        p=sign_test(better, worse),
    )


def sign_test(first: int, second: int) -> float:
    """Return the two-sided p of the exact sign test for `first` against `second` wins; 1 if there are none."""
    n, fewer = first + second, min(first, second)
    ways = sum_ = 1
    for i in range(fewer):
        ways = ways * (n - i) // (i + 1)
        sum_ += ways
    # Whole numbers: the quotient is rounded once, however small it is.
    return min(1.0, float(Fraction(2 * sum_, 2**n)))
