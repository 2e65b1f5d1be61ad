r"""The best of N candidates of a problem, from their rewards, from a vote among their final answers, or from both.

- `prm`: the candidate with the highest reward.
- `majority`: the answer that most candidates give; no reward is used.
- `weighted`: the answer whose candidates' rewards have the largest sum, and of them the candidate with the highest.

Candidates that could not be scored, and in votes those that state no answer, are out. Where several are equally good
the first is picked, and the record says so. Which answers are the same, and whether the pick is right, is a grader's
to say (`grading.graders`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal, get_args

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.grading.answers import final_answer
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.grading.verdict import NO_ANSWER, Grade
from reasonflux_prm.records import ScoredTrace, Trace

Method = Literal["prm", "weighted", "majority"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class Pick:
    """What was picked for one problem."""

    id: str
    """The candidates' group, or the first candidate's id if they have none."""
    pick: int | None
    """Index of the candidate, from 0; None if there was nothing to go by (`note` says why)."""
    pick_id: str | None
    """The picked trace's id."""
    method: Method
    scores: tuple[float | None, ...]
    """The candidates' rewards; None where there is none."""
    answers: tuple[str | None, ...]
    """The candidates' final answers as written; None where none is stated."""
    ties: tuple[int, ...]
    """Indices of other candidates that were just as good; in votes, the best candidate of each such answer."""
    groups: tuple[int | None, ...]
    """For each candidate the number of its answer's group in the vote; None if it states none. Empty without a vote."""
    correct: bool | None
    """Whether the pick is right: the recorded verdict, else the grader's on the reference; None if unknown."""
    note: str | None = None
    """Why there is no pick, or why it cannot be graded."""

    def row(self) -> dict[str, Any]:
        """Return the pick as a row on disk."""
        return asdict(self)


def pick_all(
    candidates: Iterable[ScoredTrace | Trace], method: Method = "prm", grader: Grader | None = None
) -> Iterator[Pick]:
    """Pick one candidate of each problem.

    Args:
        candidates: Traces, scored or (for `majority`) not; those of one problem stand together: the same
            `Trace.group`, or without groups the same problem text.
        method: One of `METHODS`.
        grader: Says which answers are the same and which are right; default `string`, which needs no worker
            processes. It is not closed.

    Raises:
        UsageError: No such method, or one that needs rewards where there are none or they may be negative.
        InputError: Candidates of one group stand apart.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    grader = grader or open_grader("string")
    seen: set[str] = set()
    for (group, _), members in groupby(candidates, key=_problem):
        if group in seen:
            raise InputError(
                f"the candidates of {group!r} do not stand together; sort the input by its column `group` and score it "
                "again"
            )
        if group is not None:
            seen.add(group)
        yield pick_one(list(members), method, grader)


def pick_one(candidates: Sequence[ScoredTrace | Trace], method: Method = "prm", grader: Grader | None = None) -> Pick:
    """Pick one of the candidates of one problem; see `pick_all`."""
    grader = grader or open_grader("string")
    traces = [_trace(candidate) for candidate in candidates]
    scores = [candidate.reward if isinstance(candidate, ScoredTrace) else None for candidate in candidates]
    answers = [final_answer(trace) for trace in traces]
    groups = [] if method == "prm" else grader.groups(answers)
    if method == "prm":
        best, note = _highest(scores), "no candidate has a reward"
    elif method == "majority":
        best, note = _vote(groups, [1.0] * len(groups)), "no candidate states a final answer"
    else:
        weights = [_weight(candidate) for candidate in candidates]
        best, note = _vote(groups, weights), "no candidate has both a reward and a final answer"
    pick = best[0] if best else None
    correct, trouble = (None, note) if pick is None else _verdict(traces[pick], answers[pick], grader)
    return Pick(
        id=traces[0].group or traces[0].id,
        pick=pick,
        pick_id=None if pick is None else traces[pick].id,
        method=method,
        scores=tuple(scores),
        answers=tuple(answers),
        ties=tuple(best[1:]),
        groups=tuple(groups),
        correct=correct,
        note=trouble,
    )


def _trace(candidate: ScoredTrace | Trace) -> Trace:
    return candidate.trace if isinstance(candidate, ScoredTrace) else candidate


def _problem(candidate: ScoredTrace | Trace) -> tuple[str | None, str]:
    """Return the group, or without one the problem's text."""
    trace = _trace(candidate)
    return trace.group, "" if trace.group is not None else trace.problem


def _highest(scores: Sequence[float | None]) -> list[int]:
    """Return the indices of the highest score, in order."""
    top = max((score for score in scores if score is not None), default=None)
    return [] if top is None else [index for index, score in enumerate(scores) if score == top]


def _vote(groups: Sequence[int | None], weights: Sequence[float | None]) -> list[int]:
    """Return the heaviest candidate of the answer that wins, then those of answers that tie with it."""
    voters: dict[int, list[tuple[int, float]]] = {}
    for index, (group, weight) in enumerate(zip(groups, weights, strict=True)):
        if group is not None and weight is not None:
            voters.setdefault(group, []).append((index, weight))
    totals = {group: math.fsum(weight for _, weight in votes) for group, votes in voters.items()}
    top = max(totals.values(), default=0.0)
    # max takes the first of equals, and the answers stand in the order in which they were first given.
    return [max(votes, key=lambda vote: vote[1])[0] for group, votes in voters.items() if totals[group] == top]


def _weight(candidate: ScoredTrace | Trace) -> float | None:
    """Return the weight of a candidate's vote: its reward, on the scale on which it is at least 0."""
    if not isinstance(candidate, ScoredTrace) or candidate.reward is None:
        return None
    # A product of step rewards is kept as a sum of logarithms; the vote wants the product.
    weight = math.exp(candidate.reward) if candidate.prm.aggregation == "product" else candidate.reward
    if weight < 0:
        raise UsageError(
            f"weighted votes need rewards of at least 0, and {candidate.trace.id!r} has {candidate.reward:g}; "
            "use the method prm with this PRM"
        )
    return weight


def _verdict(trace: Trace, answer: str | None, grader: Grader) -> tuple[bool | None, str | None]:
    """Return whether a pick is right, None if unknown, and why it could not be graded."""
    if trace.correct is not None or trace.answer is None:
        return trace.correct, None
    verdict = grader.grade_answer(answer, trace.answer)
    if verdict.grade is Grade.UNPARSED and verdict.reason != NO_ANSWER:
        return None, verdict.reason
    return verdict.right, None
