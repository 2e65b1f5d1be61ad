"""How often a way of choosing among a problem's candidates is right.

Each function takes the candidates of one problem and returns the expected correctness of the choice, in [0, 1]: where
several candidates are equally good, the average over them, so no number depends on the order of the candidates. The
accuracy of a method is the mean over problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reasonflux_prm.errors import UsageError


def mean(correct: Sequence[bool]) -> float:
    """Return the accuracy of a candidate drawn at random: pass@1.

    Raises:
        UsageError: There is no candidate.
    """
    if not correct:
        raise UsageError("expected at least one candidate, got none")
    return sum(correct) / len(correct)


def oracle(correct: Sequence[bool]) -> float:
    """Return 1 if any candidate is right: what a perfect choice would reach."""
    return float(any(correct))


def highest(scores: Sequence[float | None], correct: Sequence[bool]) -> float:
    """Return the accuracy of the candidate with the highest score: best-of-N.

    For the shortest candidate pass negative lengths, for the longest the lengths.

    Args:
        scores: One a candidate; a candidate without a score (None) is chosen only if none has one.
        correct: One verdict a candidate.

    Raises:
        UsageError: There is no candidate, the lengths differ, or a score is NaN.
    """
    _check_lengths(scores, correct)
    values = [-math.inf if score is None else score for score in scores]
    if any(map(math.isnan, values)):
        raise UsageError("expected scores that are numbers or None, got NaN")
    best = max(values, default=0.0)
    return mean([right for value, right in zip(values, correct, strict=True) if value == best])


def vote(preds: Sequence[str | None], correct: Sequence[bool], weights: Sequence[float | None] | None = None) -> float:
    """Return the accuracy of the final answer with the most votes: majority, or weighted by a PRM's scores.

    A candidate without a final answer (None) has no vote; if none has one, the choice is at random.

    Args:
        preds: The final answer of each candidate; two are the same if their texts are.
        correct: One verdict a candidate.
        weights: One a candidate, 0 or more; None counts 0. Without weights each vote counts 1.

    Raises:
        UsageError: There is no candidate, the lengths differ, or a weight is negative or not finite.
    """
    counts = [1.0] * len(preds) if weights is None else [0.0 if weight is None else weight for weight in weights]
    _check_lengths(preds, correct)
    _check_lengths(counts, correct)
    if bad := [count for count in counts if not (math.isfinite(count) and count >= 0)]:
        raise UsageError(f"expected votes with weights of 0 or more, got {bad[0]:g}; use another aggregation or PRM")
    ballots: dict[str, list[float]] = {}
    verdicts: dict[str, list[bool]] = {}
    for pred, count, right in zip(preds, counts, correct, strict=True):
        if pred is not None:
            ballots.setdefault(pred, []).append(count)
            verdicts.setdefault(pred, []).append(right)
    if not ballots:
        return mean(correct)
    # An exact sum: equal votes stay equal in whatever order they are counted.
    votes = {pred: math.fsum(own) for pred, own in ballots.items()}
    most = max(votes.values())
    elected = [mean(verdicts[pred]) for pred, own in votes.items() if own == most]
    return sum(elected) / len(elected)


def _check_lengths(values: Sequence[object], correct: Sequence[bool]) -> None:
    if len(values) != len(correct):
        raise UsageError(f"expected one value for each candidate, got {len(values)} values and {len(correct)} verdicts")
