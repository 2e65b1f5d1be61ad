"""What N buys: the accuracy of a way of choosing among k candidates, averaged over all subsets of k, for every k.

The n candidates of a problem are a sample of what the policy writes, so the accuracy at k < n is the mean over all
C(n, k) ways to have drawn k of them (for `oracle` this is the unbiased estimator of pass@k, arXiv:2107.03374, section
2.1). It is exact, but for the votes that `vote_curves` has to sample. Where choices are equally good, the value is the
mean over a uniform choice among them, as in `selection`, with which the values at k = n agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.candidates import ProblemCandidates, vote_weights
from reasonflux_prm.evaluation.metrics import Floats
from reasonflux_prm.evaluation.vote_curves import MOST_COUNTED, Ints, Votes, majority_curve, weighted_curve

Kind = Literal["oracle", "prm", "weighted", "majority", "shortest", "longest", "pass@1"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_WITH_PRM = ("prm", "weighted")


@dataclass(frozen=True, slots=True)
class Method:
    """A way of choosing among candidates.

    | kind | chooses |
    |---|---|
    | `oracle` | a right candidate, if there is one: pass@k |
    | `prm` | the candidate with the highest reward; one without a reward only if none has one |
    | `weighted` | the answer whose candidates' rewards have the largest sum |
    | `majority` | the answer that most candidates give |
    | `shortest`, `longest` | the candidate with the fewest or most characters; one without text only if none has any |
    | `pass@1` | any candidate, at random: the same for every k |
    """

    kind: Kind
    prm: str | None = None
    """The PRM's name, for `prm` and `weighted`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.prm is not None) != (self.kind in _WITH_PRM):
            raise UsageError(
                f"expected a method to be {', '.join(kind for kind in KINDS if kind not in _WITH_PRM)}, or prm:NAME or "
                f"weighted:NAME with the name of a PRM, got {self}"
            )

    def __str__(self) -> str:
        return self.kind if self.prm is None else f"{self.kind}:{self.prm}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the method that `str` writes so: `majority`, `prm:NAME`.

        Raises:
            UsageError: There is none.
        """
        kind, colon, prm = text.partition(":")
        return cls(kind, prm if colon else None)  # type: ignore[arg-type]  # __post_init__ checks it


PASS_1 = Method("pass@1")
MAJORITY = Method("majority")


@dataclass(frozen=True, slots=True)
class Curve:
    """The accuracy of one method on P problems, at K sizes."""

    accuracy: Floats
    """(P, K), in [0, 1]."""
    tied: Floats
    """(P, K), the share of subsets in which several choices are equally good; 0 for `oracle` and `pass@1`."""
    error: Floats
    """(K,) standard error of the mean over the problems that comes from drawing subsets; 0 where all were taken."""


def curve(
    problems: Sequence[ProblemCandidates], method: Method, ks: Sequence[int], *, samples: int = 2000, seed: int = 0
) -> Curve:
    """Return the accuracy of a method among k candidates.

    Args:
        problems: A verdict that is unknown counts as not right.
        method: The method.
        ks: Sizes, each at least 1 and at most the candidates of every problem.
        samples: For weighted votes: all subsets of a size are taken where they are no more than this, or else so many
            are drawn.
        seed: Of the draws.

    Raises:
        UsageError: A size that a problem does not have, no problem has a reward of the method's PRM, or votes cannot
            be weighted with its rewards because one is below 0.
    """
    fewest = min((problem.n for problem in problems), default=0)
    if not ks or not all(1 <= k <= fewest for k in ks) or samples < 2:
        raise UsageError(
            f"expected sizes from 1 to {fewest}, which every problem has, and at least 2 samples, got sizes "
            f"{', '.join(map(str, ks)) or 'none'} and {samples} samples"
        )
    sizes = np.array(ks)
    return _curve(problems, method, lambda _: sizes, samples, seed)


def with_all(problems: Sequence[ProblemCandidates], method: Method) -> Curve:
    """Return the accuracy of a method among all candidates of each problem, however many they are: one size, exact.

    Raises:
        UsageError: There is no problem, or as for `curve`.
    """
    if not problems:
        raise UsageError("expected at least one problem, got none")
    return _curve(problems, method, lambda n: np.array([n]), samples=1, seed=0)


def cannot_weigh(problems: Sequence[ProblemCandidates], prm: str) -> str | None:
    """Return why votes cannot be weighted with a PRM's rewards; None if they can."""
    weights = (weight for problem in problems for weight in vote_weights(problem, prm) if weight is not None)
    lowest = min(weights, default=0.0)
    return None if lowest >= 0 else f"weighted votes need rewards of at least 0, and {prm} gives {lowest:g}"


def subset_shares(n: int) -> Floats:
    """Return C(x, k) / C(n, k), the share of k-subsets of n that lie in x given ones: (n + 1, n + 1), rows x."""
    drawn = np.arange(n)
    left = np.clip(np.arange(n + 1)[:, None] - drawn, 0, None) / (n - drawn)
    return np.cumprod(np.hstack([np.ones((n + 1, 1)), left]), axis=1)


def _curve(
    problems: Sequence[ProblemCandidates], method: Method, ks_of: Callable[[int], Ints], samples: int, seed: int
) -> Curve:
    """Put the curves of problems with equally many candidates together, at sizes that may depend on how many."""
    _check_rewards(problems, method)
    parts: list[Curve] = []
    rows: list[int] = []
    for n in sorted({problem.n for problem in problems}):
        own = [index for index, problem in enumerate(problems) if problem.n == n]
        rows += own
        parts.append(_part([problems[index] for index in own], method, ks_of(n), samples, seed))
    order = np.argsort(rows)
    shares = [len(part.accuracy) / len(problems) for part in parts]
    return Curve(
        np.concatenate([part.accuracy for part in parts])[order],
        np.concatenate([part.tied for part in parts])[order],
        np.sqrt(sum((part.error * share) ** 2 for part, share in zip(parts, shares, strict=True))),
    )


def _check_rewards(problems: Sequence[ProblemCandidates], method: Method) -> None:
    if method.prm is None:
        return
    rewards = (problem.rewards.get(method.prm, ()) for problem in problems)
    if all(reward is None for own in rewards for reward in own):
        raise UsageError(f"expected rewards of {method.prm!r} for {method}, and no candidate has one")
    if method.kind == "weighted" and (trouble := cannot_weigh(problems, method.prm)):
        raise UsageError(f"{trouble}; leave {method} out")


def _part(problems: Sequence[ProblemCandidates], method: Method, ks: Ints, samples: int, seed: int) -> Curve:
    """Return the curve of problems that have equally many candidates."""
    right = np.array([[verdict is True for verdict in problem.correct] for problem in problems], dtype=np.float64)
    count, n = right.shape
    none, exact = np.zeros((count, len(ks))), np.zeros(len(ks))
    if method.kind == "pass@1":
        return Curve(none + right.mean(axis=1, keepdims=True), none, exact)
    if method.kind == "oracle":
        wrong = n - right.sum(axis=1).astype(np.int64)
        return Curve(1 - subset_shares(n)[wrong][:, ks], none, exact)
    if method.kind == "majority" and n <= MOST_COUNTED:
        found = [majority_curve(Votes.of(own.groups, row), n) for own, row in zip(problems, right, strict=True)]
        accuracy, tied = (np.array(values)[:, ks - 1] for values in zip(*found, strict=True))
        return Curve(accuracy, tied, exact)
    if method.kind in ("majority", "weighted"):
        equal = (1.0,) * n
        weights = [equal if method.prm is None else vote_weights(problem, method.prm) for problem in problems]
        groups = [problem.groups for problem in problems]
        return Curve(*weighted_curve(groups, weights, right, ks, samples, seed))
    scores = np.array([_scores(problem, method) for problem in problems])
    return Curve(*_highest(scores, right, ks), exact)


def _scores(problem: ProblemCandidates, method: Method) -> list[float]:
    """Return for each candidate the number whose highest is chosen."""
    if method.kind == "prm":
        rewards = problem.rewards.get(str(method.prm), (None,) * problem.n)
        return [-math.inf if reward is None else reward for reward in rewards]
    sign = -1 if method.kind == "shortest" else 1
    return [sign * length if length else -math.inf for length in problem.lengths]


def _highest(scores: Floats, right: Floats, ks: Ints) -> tuple[Floats, Floats]:
    """Return accuracy and share of ties of the highest score among k, (P, K) each.

    Let m candidates have one score, and let b be below it. The best of a subset has this score if the subset lies in
    these m + b and not in the b alone; each of the m is then equally likely to be chosen.
    """
    n = scores.shape[1]
    rows = np.arange(len(scores))[:, None]
    ranked = np.sort(scores, axis=1)
    below, upto = (
        np.array([np.searchsorted(row, own, side) for row, own in zip(ranked, scores, strict=True)])
        for side in ("left", "right")
    )
    same = upto - below
    chosen, one_of_many, alone = (np.zeros((len(scores), n + 1)) for _ in range(3))
    for sums, value in ((chosen, right / same), (one_of_many, 1 / same)):
        np.add.at(sums, (rows, upto), value)
        np.add.at(sums, (rows, below), -value)
    # Alone: one of the m, and k - 1 of the b.
    np.add.at(alone, (rows, below), 1.0)
    inside = subset_shares(n)
    with_one = inside[:, ks - 1] * (ks / (n - ks + 1))
    tied = one_of_many @ inside[:, ks] - alone @ with_one
    return np.clip(chosen @ inside[:, ks], 0, 1), np.clip(tied, 0, 1)
