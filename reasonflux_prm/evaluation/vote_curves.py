r"""Votes among k of n candidates, averaged over the subsets of size k.

Majority is counted, not sampled. Of m candidates with one answer, t fall into a k-subset in C(m, t) ways, so the ways
in which answer g wins with t votes are a coefficient of the polynomial

    C(m_g, t) x^t  *  prod over h != g of  sum over s <= t of C(m_h, s) x^s

and with y marking the rivals that have t votes as well, the mean over a uniform choice among ties, which divides by 1 +
the power of y, is the integral over y from 0 to 1. Gauss-Legendre nodes take it exactly.

With real weights no such polynomial exists: `weighted_curve` takes all subsets where they are few, or else draws some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.evaluation.metrics import Floats

Ints = NDArray[np.int64]

SAME: Final = 1e-12
"""Sums of weights that differ by less than this share of all weights are equal: 0.1 + 0.2 and 0.3."""
_ROWS: Final = 1 << 15
"""Subsets that are worked on at once."""


@dataclass(frozen=True, slots=True)
class Votes:
    """The answers of one problem's candidates, as far as majority depends on them."""

    answers: tuple[tuple[int, float], ...]
    """For each answer how many candidates give it, and the share of them that are right; sorted."""
    silent: int
    """Candidates without an answer."""
    silent_right: float
    """The share of them that are right; 0 if there are none."""

    @classmethod
    def of(cls, groups: Sequence[int | None], right: Floats) -> Self:
        """Count the answers."""
        members: dict[int | None, list[float]] = {}
        for group, verdict in zip(groups, right.tolist(), strict=True):
            members.setdefault(group, []).append(verdict)
        silent = members.pop(None, [])
        answers = sorted((len(own), sum(own) / len(own)) for own in members.values())
        return cls(tuple(answers), len(silent), sum(silent) / len(silent) if silent else 0.0)


@lru_cache(maxsize=4096)
def majority_curve(votes: Votes, n: int) -> tuple[Floats, Floats]:
    """Return accuracy and share of ties of the majority among k of n candidates, for k = 1, ..., n.

    Where nobody in a subset states an answer, any candidate is chosen, at random.

    Args:
        votes: The answers of the n candidates.
        n: At most 1,000: numbers of subsets must fit a double.
    """
    t, y, share = _nodes([size for size, _ in votes.answers])
    # Ways by votes cast (columns) for each node (rows): no winner picked yet; one picked, counted and as right.
    rivals = np.zeros((len(t), n + 1))
    rivals[:, 0] = 1
    winner, winner_right = np.zeros_like(rivals), np.zeros_like(rivals)
    cast = 0
    for size, right in votes.answers:
        before = [ways[:, : cast + 1].copy() for ways in (rivals, winner, winner_right)]
        for ways in (rivals, winner, winner_right):
            ways[:] = 0
        for s in range(size + 1):
            times = comb(size, s) * np.where(s < t, 1.0, np.where(s == t, y, 0.0))[:, None]
            wins = np.where((s == t) & (s > 0), comb(size, s), 0.0)[:, None]
            here = slice(s, s + cast + 1)
            rivals[:, here] += times * before[0]
            winner[:, here] += times * before[1] + wins * before[0]
            winner_right[:, here] += times * before[2] + wins * right * before[0]
        cast += size
    # The nodes with y = 0 have no rival with as many votes.
    sole, accuracy = winner[y == 0].sum(axis=0), share @ winner_right
    with_silent = np.array([comb(votes.silent, s) for s in range(votes.silent + 1)], dtype=np.float64)
    subsets = np.array([float(comb(n, k)) for k in range(1, n + 1)])
    nobody = np.zeros(n + 1)
    nobody[: votes.silent + 1] = with_silent
    sole, accuracy = (np.convolve(ways[: cast + 1], with_silent) for ways in (sole, accuracy))
    accuracy += nobody * votes.silent_right
    # One candidate alone ties with nobody, even if it states no answer.
    sole[1] += nobody[1]
    return np.clip(accuracy[1:] / subsets, 0, 1), np.clip(1 - sole[1:] / subsets, 0, 1)


def _nodes(sizes: Sequence[int]) -> tuple[Ints, Floats, Floats]:
    """Return the winner's votes t, the node y and its weight, for every t and all nodes that t needs, and y = 0."""
    rows: list[tuple[int, float, float]] = []
    for t in range(1, max(sizes, default=0) + 1):
        # A polynomial in y of the degree `reached - 1`; q nodes are exact up to the degree 2q - 1.
        reached = sum(size >= t for size in sizes)
        points, weights = np.polynomial.legendre.leggauss((reached + 1) // 2)
        rows.append((t, 0.0, 0.0 if reached > 1 else 1.0))
        if reached > 1:
            rows += zip([t] * len(points), (points + 1) / 2, weights / 2, strict=True)
    t, y, share = (np.array(column) for column in zip(*rows, strict=True)) if rows else np.zeros((3, 0))
    return t.astype(np.int64), y, share


def weighted_curve(
    groups: Sequence[Sequence[int | None]],
    weights: Sequence[Sequence[float | None]],
    right: Floats,
    ks: Ints,
    samples: int,
    seed: int,
) -> tuple[Floats, Floats, Floats]:
    """Return accuracy (P, K), share of ties (P, K) and standard error (K,) of the weighted vote among k of n candidates.

    The error is of the mean over the problems, 0 where all subsets were taken. Where they were drawn, the subsets of
    the sizes lie in one another: each draw puts the candidates into an order, and its first k are the subset. All
    problems share the draws, each with its candidates shuffled before, so neither does the place of a candidate in the
    file matter, nor is an order drawn for every problem.

    Args:
        groups: For each of P problems the answer of each of n candidates, None for none.
        weights: The weights of the votes, 0 or more; None counts 0.
        right: 1 for a right candidate and 0 for a wrong one, (P, n).
        ks: Sizes.
        samples: Most subsets of a size.
        seed: Of the draws.
    """
    n = right.shape[1]
    ballots = _Ballots.of(groups, weights, right)
    accuracy, tied, error = np.empty((len(right), len(ks))), np.empty((len(right), len(ks))), np.zeros(len(ks))
    drawn = np.array([comb(n, int(k)) > samples for k in ks])
    for column in np.flatnonzero(~drawn):
        subsets = np.array(list(combinations(range(n), int(ks[column]))))
        found = _Means(ballots, subsets, ks[column : column + 1])
        accuracy[:, [column]], tied[:, [column]] = found.accuracy, found.tied
    if drawn.any():
        random = np.random.default_rng([seed, n])
        orders = random.permuted(np.tile(np.arange(n), (samples, 1)), axis=1)
        shuffles = random.permuted(np.tile(np.arange(n), (len(right), 1)), axis=1)
        found = _Means(ballots.shuffled(shuffles), orders[:, : ks[drawn].max()], ks[drawn])
        accuracy[:, drawn], tied[:, drawn] = found.accuracy, found.tied
        error[drawn] = found.each_draw.std(axis=0, ddof=1) / np.sqrt(samples)
    return accuracy, tied, error


@dataclass(frozen=True, slots=True)
class _Ballots:
    """The votes of P problems, (P, n) each; a candidate without an answer has the group -1."""

    groups: Ints
    weights: Floats
    right: Floats

    @classmethod
    def of(
        cls, groups: Sequence[Sequence[int | None]], weights: Sequence[Sequence[float | None]], right: Floats
    ) -> Self:
        numbers = np.array([[-1 if group is None else group for group in own] for own in groups])
        values = np.array([[weight or 0.0 for weight in own] for own in weights])
        # With the sum 1 the totals can be compared at once for all problems.
        return cls(numbers, values / np.maximum(values.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny), right)

    def shuffled(self, orders: Ints) -> Self:
        groups, weights, right = (
            np.take_along_axis(own, orders, axis=1) for own in (self.groups, self.weights, self.right)
        )
        return type(self)(groups, weights, right)

    def part(self, rows: slice) -> Self:
        return type(self)(self.groups[rows], self.weights[rows], self.right[rows])


@dataclass(slots=True)
class _Means:
    """Runs votes over many orders of the candidates and averages what stands after each of some numbers of votes."""

    ballots: _Ballots
    orders: Ints
    """(S, up to n) indices of candidates."""
    ks: Ints
    accuracy: Floats = field(init=False)
    """(P, K)"""
    tied: Floats = field(init=False)
    """(P, K)"""
    each_draw: Floats = field(init=False)
    """(S, K) accuracy of each order, the mean over the problems."""

    def __post_init__(self) -> None:
        problems, (samples, _) = len(self.ballots.right), self.orders.shape
        self.accuracy, self.tied = np.zeros((problems, len(self.ks))), np.zeros((problems, len(self.ks)))
        self.each_draw = np.zeros((samples, len(self.ks)))
        step = max(1, _ROWS // samples)
        for start in range(0, problems, step):
            rows = slice(start, start + step)
            for k, accuracy, tied in _count(self.ballots.part(rows), self.orders):
                for column in np.flatnonzero(self.ks == k):
                    self.accuracy[rows, column], self.tied[rows, column] = accuracy.mean(axis=1), tied.mean(axis=1)
                    self.each_draw[:, column] += accuracy.sum(axis=0) / problems


def _count(ballots: _Ballots, orders: Ints) -> Iterator[tuple[int, Floats, NDArray[np.bool_]]]:
    """Count the votes of the candidates one after the other; yield k, accuracy and ties, (P, S) each, after each.

    Weights are never negative, so the leading total only grows, and a vote changes the lead only for its own answer:
    what a vote costs does not depend on how many answers there are.
    """
    shape = (len(ballots.right), len(orders))
    answers = int(ballots.groups.max(initial=0)) + 2
    place = np.arange(shape[0] * shape[1]).reshape(shape) * answers + 1
    totals, members, rights = (np.zeros(shape[0] * shape[1] * answers) for _ in range(3))
    top, leaders, leading_right, right_so_far = np.full(shape, -1.0), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for k, candidate in enumerate(orders.T, start=1):
        group, weight, right = (own[:, candidate] for own in (ballots.groups, ballots.weights, ballots.right))
        own = place + group
        before, count, count_right = totals[own], members[own], rights[own]
        total = before + weight
        totals[own], members[own], rights[own] = total, count + 1, count_right + right
        voted = group >= 0
        led = voted & (count > 0) & (before >= top - SAME)
        alone = voted & (total > top + SAME)
        among = voted & ~alone & (total >= top - SAME)
        share = (count_right + right) / (count + 1)
        share_before = np.where(led, count_right / np.maximum(count, 1), 0.0)
        leading_right = np.where(alone, share, np.where(among, leading_right + share - share_before, leading_right))
        leaders = np.where(alone, 1.0, np.where(among & ~led, leaders + 1, leaders))
        top = np.where(voted, np.maximum(top, total), top)
        right_so_far += right
        accuracy = np.where(leaders > 0, leading_right / np.maximum(leaders, 1), right_so_far / k)
        yield k, accuracy, (leaders > 1) | ((leaders == 0) & (k > 1))
