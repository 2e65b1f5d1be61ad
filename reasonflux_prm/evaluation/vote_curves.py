r"""Votes among k of n candidates, averaged over the subsets of size k.

Majority is counted, not sampled, up to `MOST_COUNTED` candidates. Of m candidates with one answer, t fall into a
k-subset in C(m, t) ways, so the ways in which answer g wins with t votes are a coefficient of the polynomial

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
MOST_COUNTED: Final = 128
"""Most candidates whose majority is counted: the time grows with their cube, and 1,030 leave the range of a double."""
_ROWS: Final = 1 << 14
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
        n: At most `MOST_COUNTED`.
    """
    nodes = _nodes([size for size, _ in votes.answers])
    # Ways by votes cast (columns) for each node (rows): without a winner yet, and with one.
    open_, won = np.zeros((len(nodes.t), n + 1)), np.zeros((len(nodes.t), n + 1))
    open_[:, 0] = 1
    cast = 0
    for size, right in votes.answers:
        open_before, won_before = open_[:, : cast + 1].copy(), won[:, : cast + 1].copy()
        open_[:] = won[:] = 0
        for s in range(size + 1):
            beaten = comb(size, s) * np.where(s < nodes.t, 1.0, np.where(s == nodes.t, nodes.y, 0.0))[:, None]
            wins = comb(size, s) * np.where(s == nodes.t, np.where(nodes.sole, 1.0, right), 0.0)[:, None]
            here = slice(s, s + cast + 1)
            open_[:, here] += beaten * open_before
            won[:, here] += beaten * won_before + wins * open_before
        cast += size
    silent = np.array([float(comb(votes.silent, s)) for s in range(votes.silent + 1)])
    sole, accuracy = (np.convolve(ways[: cast + 1], silent) for ways in (nodes.sole @ won, nodes.share @ won))
    nobody = np.pad(silent, (0, cast))
    accuracy += nobody * votes.silent_right
    # One candidate alone ties with nobody, even if it states no answer.
    sole[1] += nobody[1]
    subsets = np.array([float(comb(n, k)) for k in range(1, n + 1)])
    return np.clip(accuracy[1:] / subsets, 0, 1), np.clip(1 - sole[1:] / subsets, 0, 1)


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Where the polynomials of a majority are evaluated."""

    t: Ints
    """The winner's votes."""
    y: Floats
    """What a rival with as many votes counts."""
    share: Floats
    """The node's weight in the integral over y; 0 for those that count ties."""
    sole: Floats
    """1 for the nodes that count wins without a rival, to tell ties; 0 for the others."""


def _nodes(sizes: Sequence[int]) -> _Nodes:
    rows: list[tuple[int, float, float, float]] = []
    for t in range(1, max(sizes, default=0) + 1):
        # The polynomial in y has the degree `reached - 1`, and q nodes are exact up to the degree 2q - 1.
        reached = sum(size >= t for size in sizes)
        points, weights = _gauss((reached + 1) // 2)
        rows.append((t, 0.0, 0.0, 1.0))
        rows += [(t, (x + 1) / 2, w / 2, 0.0) for x, w in zip(points.tolist(), weights.tolist(), strict=True)]
    table = np.array(rows).reshape(-1, 4).T
    return _Nodes(table[0].astype(np.int64), *table[1:])


_gauss = lru_cache(maxsize=1024)(np.polynomial.legendre.leggauss)


def weighted_curve(
    groups: Sequence[Sequence[int | None]],
    weights: Sequence[Sequence[float | None]],
    right: Floats,
    ks: Ints,
    samples: int,
    seed: int,
) -> tuple[Floats, Floats, Floats]:
    """Return accuracy (P, K), share of ties (P, K) and standard error (K,) of the weighted vote among k candidates.

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
    """The votes of P problems, (P, n) each."""

    groups: Ints
    """From 0; 0 also where there is no answer."""
    weights: Floats
    """Minus infinity where there is no answer: such a vote never leads."""
    right: Floats

    @classmethod
    def of(
        cls, groups: Sequence[Sequence[int | None]], weights: Sequence[Sequence[float | None]], right: Floats
    ) -> Self:
        values = np.array([[weight or 0.0 for weight in own] for own in weights])
        # With the sum 1 the totals of all problems are compared alike.
        values /= np.maximum(values.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        values[[[group is None for group in own] for own in groups]] = -np.inf
        return cls(np.array([[0 if group is None else group + 1 for group in own] for own in groups]), values, right)

    def of_candidates(self, indices: Ints) -> _Ballots:
        """Return the votes of some candidates, (S,), the same of all problems."""
        groups, weights, right = (
            self.groups.take(indices, 1),
            self.weights.take(indices, 1),
            self.right.take(indices, 1),
        )
        return _Ballots(groups, weights, right)

    def shuffled(self, orders: Ints) -> _Ballots:
        """Return the votes with the candidates of each problem in an order of its own, (P, n)."""
        rows = np.arange(len(orders))[:, None]
        return _Ballots(self.groups[rows, orders], self.weights[rows, orders], self.right[rows, orders])

    def of_problems(self, rows: slice) -> _Ballots:
        """Return the votes of some problems."""
        return _Ballots(self.groups[rows], self.weights[rows], self.right[rows])

    def agree(self) -> bool:
        """Whether candidates with the same answer have the same verdict everywhere."""
        lowest, highest = (np.full((len(self.right), self.groups.max() + 1), value) for value in (1.0, 0.0))
        rows = np.arange(len(self.right))[:, None]
        np.minimum.at(lowest, (rows, self.groups), self.right)
        np.maximum.at(highest, (rows, self.groups), self.right)
        return bool((highest[:, 1:] <= lowest[:, 1:]).all())


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
            for k, accuracy, tied in _count(self.ballots.of_problems(rows), self.orders):
                for column in np.flatnonzero(self.ks == k):
                    self.accuracy[rows, column], self.tied[rows, column] = accuracy.mean(axis=1), tied.mean(axis=1)
                    self.each_draw[:, column] += accuracy.sum(axis=0) / problems


def _count(ballots: _Ballots, orders: Ints) -> Iterator[tuple[int, Floats, NDArray[np.bool_]]]:
    """Count the votes of the candidates one after the other; yield k, accuracy and ties, (P, S) each, after each.

    Weights are never negative, so the leading total only grows, and a vote changes the lead only for its own answer:
    what a vote costs does not depend on how many answers there are.
    """
    shape = (len(ballots.right), len(orders))
    mixed, silent = not ballots.agree(), bool((ballots.groups == 0).any())
    answers = int(ballots.groups.max()) + 1
    place = np.arange(shape[0] * shape[1]).reshape(shape) * answers
    totals = np.full(shape[0] * shape[1] * answers, -np.inf)
    members, rights = (np.zeros(totals.shape if mixed else 0) for _ in range(2))
    top, leaders, leading_right, right_so_far = np.full(shape, -1.0), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for k, candidates in enumerate(orders.T, start=1):
        vote = ballots.of_candidates(candidates)
        own = place + vote.groups
        before = totals[own]
        total = np.maximum(before, 0) + vote.weights
        totals[own] = total
        almost_top = top - SAME
        alone, leads, led = total > top + SAME, total >= almost_top, before >= almost_top
        joins = leads & ~(alone | led)
        share = vote.right
        if mixed:
            count, count_right = members[own], rights[own]
            members[own], rights[own] = count + 1, count_right + vote.right
            share = (count_right + vote.right) / (count + 1)
            stays = leads & led & ~alone
            leading_right[stays] += (share - count_right / np.maximum(count, 1))[stays]
        leading_right = np.where(alone, share, leading_right + joins * share)
        leaders = np.where(alone, 1.0, leaders + joins)
        np.maximum(top, total, out=top)
        accuracy, tied = leading_right / np.maximum(leaders, 1), leaders > 1
        if silent:
            right_so_far += vote.right
            nobody = leaders == 0
            accuracy, tied = np.where(nobody, right_so_far / k, accuracy), tied | (nobody & (k > 1))
        yield k, accuracy, tied
