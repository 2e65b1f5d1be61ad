r"""Best-of-N that stops drawing when more samples cannot change the pick.

At most N whole traces are drawn, one wave after the other. Let R be how many are still to come, and h the most that one
can weigh: 1 in a majority, the highest reward that the PRM can give in a weighted vote. It stops

- with the pick `majority` or `weighted`, when the leading answer's sum V_1 exceeds every other answer's V_j by more
  than all that is to come: V_1 - max_j V_j > R * h (in a majority also at equality, if the leading answer came first:
  that is how ties go). Guarantee: the pick has the same answer as if all N had been drawn. It is exact for every
  sequence of samples, as long as no later answer turns out to be equal to two that were taken for different ones.
- with the pick `prm`, when the best reward is within `tolerance` of the highest that the PRM can give. Guarantee: no
  further sample can have a reward that is higher by more than that. For a bound below the end of the scale there is no
  such rule: whatever the rewards so far, the chance that the next of k + 1 is the best is 1 / (k + 1), so fewer samples
  always mean a lower best, on average.
- with a `confidence` c, in a majority only, also when P(p_1 > p_2 | v_1, v_2) >= c, where v_1 and v_2 are the votes of
  the two leading answers and p_1, p_2 their probabilities with a uniform prior on the share of the first among the two:

      P = sum_{i=0}^{v_1} binom(v_1 + v_2 + 1, i) / 2^(v_1 + v_2 + 1)

  Guarantee: a posterior probability and nothing more; the pick may differ from that of all N. Aggarwal et al.,
  arXiv:2305.11860 (the Beta criterion of adaptive consistency, c = 0.95 there).

A wave is the least number of samples after which one of these can hold, so no sample is drawn beyond the first moment
at which it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.grading.answers import final_answer
from reasonflux_prm.records import ScoredTrace
from reasonflux_prm.search.method import Choosing, Found
from reasonflux_prm.search.problem import ProblemSearch
from reasonflux_prm.search.result import Candidate


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Draw at most N traces.

    Raises:
        UsageError: A setting is outside its range.
    """

    n: int = 16
    tolerance: float = 0.0
    """With the pick `prm`: how much better a further sample might still be when no more are drawn."""
    confidence: float | None = None
    """With the pick `majority`: the posterior probability that is enough; None asks for certainty."""

    name = "adaptive"
    steps = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UsageError(f"the number of samples must be at least 1, and is {self.n}")
        if not 0 <= self.tolerance < math.inf:
            raise UsageError(f"the tolerance must be at least 0, and is {self.tolerance}")
        if self.confidence is not None and not 0.5 < self.confidence < 1:
            raise UsageError(f"the confidence must be above 0.5 and below 1, and is {self.confidence}")

    def row(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    async def run(self, search: ProblemSearch, choosing: Choosing) -> Found:
        """Draw until the pick is decided."""
        rule = self._rule(search, choosing)
        candidates: list[Candidate] = []
        asked, why = 0, "all drawn"
        while asked < self.n and search.may_go_on:
            wave = rule.least(candidates, self.n - asked)
            candidates += await search.draw(wave)
            asked += wave
            if asked < self.n and (reason := rule.holds(candidates, self.n - asked)) is not None:
                why = reason
                break
        if search.capped:
            why = "cap"
        drawn = {"drawn": asked, "of": self.n, "saved": 1 - asked / self.n, "stopped": why}
        return Found(candidates, drawn)

    def _rule(self, search: ProblemSearch, choosing: Choosing) -> _Rule:
        most = 1.0 if choosing.pick == "majority" or search.reader is None else search.reader.most
        product = search.reader is not None and search.reader.identity.aggregation == "product"
        if choosing.pick == "weighted" and product:
            most = math.exp(most)
        if choosing.pick == "prm":
            return _Best(most - self.tolerance)
        return _Vote(choosing, most, product, self.confidence)


class _Rule:
    """When to stop."""

    def holds(self, candidates: Sequence[Candidate], left: int) -> str | None:
        """Return why no more need be drawn of those that are left, or None."""
        raise NotImplementedError

    def least(self, candidates: Sequence[Candidate], left: int) -> int:
        """Return after how many more the rule can hold at the earliest."""
        raise NotImplementedError


class _Best(_Rule):
    """The best reward is good enough."""

    def __init__(self, enough: float) -> None:
        self._enough = enough

    def holds(self, candidates: Sequence[Candidate], left: int) -> str | None:
        rewards = [one.scored.reward for one in candidates if isinstance(one.scored, ScoredTrace)]
        return "decided" if any(reward is not None and reward >= self._enough for reward in rewards) else None

    def least(self, candidates: Sequence[Candidate], left: int) -> int:
        return 1


class _Vote(_Rule):
    """The vote is decided."""

    def __init__(self, choosing: Choosing, most: float, product: bool, confidence: float | None) -> None:
        self._choosing, self._most, self._product, self._confidence = choosing, most, product, confidence

    def holds(self, candidates: Sequence[Candidate], left: int) -> str | None:
        return self._decided(*self._leading(candidates), left)

    def least(self, candidates: Sequence[Candidate], left: int) -> int:
        first, second, before = self._leading(candidates)
        waves = range(1, left)
        return next(
            (wave for wave in waves if self._decided(first + wave * self._most, second, before, left - wave)), left
        )

    def _decided(self, first: float, second: float, before: bool, left: int) -> str | None:
        to_come = left * self._most
        majority = self._choosing.pick == "majority"
        if first > 0 and (first - second > to_come or (majority and before and first - second == to_come)):
            return "decided"
        if self._confidence is None or not majority:
            return None
        return "confident" if lead_probability(int(first), int(second)) >= self._confidence else None

    def _leading(self, candidates: Sequence[Candidate]) -> tuple[float, float, bool]:
        """Return the sums of the two leading answers, and whether the first stands before all that could draw level."""
        groups = self._choosing.grader.groups([final_answer(one.trace) for one in candidates])
        votes: dict[int, list[float]] = {}
        for group, candidate in zip(groups, candidates, strict=True):
            weight = self._weight(candidate)
            if group is not None and weight is not None:
                votes.setdefault(group, []).append(weight)
        sums = {group: math.fsum(weights) for group, weights in votes.items()}
        if not sums:
            return 0.0, 0.0, True
        leader = max(sums, key=lambda group: sums[group])  # the first of equals
        order = list(sums)
        second = max((total for group, total in sums.items() if group != leader), default=0.0)
        rivals = [group for group, total in sums.items() if group != leader and total == second]
        return sums[leader], second, all(order.index(leader) < order.index(rival) for rival in rivals)

    def _weight(self, candidate: Candidate) -> float | None:
        if self._choosing.pick == "majority":
            return 1.0
        reward = candidate.scored.reward if isinstance(candidate.scored, ScoredTrace) else None
        return math.exp(reward) if reward is not None and self._product else reward


def lead_probability(first: int, second: int) -> float:
    """Return the posterior probability that the answer with `first` votes is the likelier of two."""
    trials = first + second + 1
    ways: int = sum(math.comb(trials, votes) for votes in range(first + 1))
    return ways / (1 << trials)
