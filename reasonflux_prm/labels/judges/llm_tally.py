"""One review of a trace as it comes in: what is scored, what is still missing, and why."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from reasonflux_prm.labels.judges.base import step_numbers
from reasonflux_prm.labels.judges.llm_reply import OVERALL, StepScores, read_scores
from reasonflux_prm.records import Term


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one review says of one step."""

    scores: StepScores
    failure: str | None
    """Why the scores are not complete."""


@dataclass(slots=True)
class Tally:
    """The scores of one review; the best of what several answers gave."""

    asked: tuple[int, ...]
    """Numbers of the steps to be scored."""
    _scores: dict[int, StepScores] = field(default_factory=dict)
    _faults: dict[int, str] = field(default_factory=dict)
    """What the last answer lacks, by step."""
    _failures: dict[int, str] = field(default_factory=dict)

    def missing(self) -> tuple[int, ...]:
        """Return the numbers of the steps without complete scores."""
        return tuple(one for one in self.asked if one not in self._scores or not self._scores[one].complete)

    def take(self, text: str, mark: str) -> str | None:
        """Use an answer; return None once nothing is missing, or else what is."""
        reading = read_scores(text, self.missing(), mark)
        self._faults = dict(reading.faults)
        for number, scores in reading.scores.items():
            self._keep(number, scores)
        return self.complaint() if self.missing() else None

    def complaint(self) -> str:
        """Return a clause that names every fault of the last answer with the steps it concerns."""
        by_fault: dict[str, list[int]] = {}
        for number in self.missing():
            by_fault.setdefault(self._faults[number], []).append(number)
        return "; ".join(f"{step_numbers(numbers)}: {fault}" for fault, numbers in by_fault.items())

    def give_up(self, failure: str) -> None:
        """Note why what is missing will not come."""
        self._failures |= dict.fromkeys(self.missing(), failure)

    def merge(self, other: Tally) -> None:
        """Take over what another tally has on some of these steps, and why it lacks the others."""
        for number, scores in other._scores.items():
            self._keep(number, scores)
        self._failures |= other._failures

    def verdict(self, number: int) -> Verdict:
        """Return what there is on a step."""
        scores = self._scores.get(number, StepScores({}))
        return Verdict(scores, None if scores.complete else self._failures.get(number))

    def _keep(self, number: int, scores: StepScores) -> None:
        if number not in self._scores or len(scores.values) >= len(self._scores[number].values):
            self._scores[number] = scores


def mean_term(criterion: str, verdicts: Sequence[Verdict], samples: int, remark: str | None) -> Term:
    """Average a criterion over the reviews that have it.

    Args:
        criterion: One of `CRITERIA`.
        verdicts: One step's verdicts, one a review.
        samples: How many reviews were asked for.
        remark: What else a reader should know.

    Returns:
        The mean, in [0, 1], with the reviews that lack it, and for `overall` the judge's note, as its reason; or no
        value, and why.
    """
    values = [one.scores.values[criterion] for one in verdicts if criterion in one.scores.values]
    failure = next((one.failure for one in verdicts if one.failure), None)
    if not values:
        return Term(None, f"the judge gave no usable score: {failure}")
    remarks = [remark] if remark else []
    if len(values) < samples:
        remarks.append(f"mean of {len(values)} of {samples} reviews" + (f" ({failure})" if failure else ""))
    if criterion == OVERALL and (note := next((one.scores.note for one in verdicts if one.scores.note), "")):
        remarks.append(f"judge: {note}")
    return Term(statistics.fmean(values), "; ".join(remarks) or None)


def spread_term(verdicts: Sequence[Verdict]) -> Term:
    """Return the standard deviation of the overall verdicts, in [0, 0.5]; none if fewer than two reviews have one."""
    values = [one.scores.values[OVERALL] for one in verdicts if OVERALL in one.scores.values]
    if len(values) < 2:
        return Term(None, f"a spread needs two reviews with a verdict, and there {'is one' if values else 'is none'}")
    return Term(statistics.pstdev(values))
