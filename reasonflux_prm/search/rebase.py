"""Reward-balanced search: every trace is continued in proportion to the softmax of its value.

With a budget of N leaves of which F have come to their end, the others, of values v_i, are continued

    n_i = (N - F) * exp(v_i / T) / sum_j exp(v_j / T)

times, rounded so that the numbers add up to N - F (largest remainders first); those with n_i = 0 are given up. Wu et
al., arXiv:2408.00724 (REBASE), who round each number by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.search.method import Choosing, Found
from reasonflux_prm.search.particles import softmax
from reasonflux_prm.search.problem import Node, ProblemSearch


@dataclass(frozen=True, slots=True)
class Rebase:
    """Share N continuations out in every round.

    Raises:
        UsageError: N is below 1, or the temperature is not above 0.
    """

    n: int = 16
    balance: float = 0.2
    """T, on the scale of the values: the lower, the more goes to the best."""

    name = "rebase"
    steps = True

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 < self.balance < math.inf:
            raise UsageError(
                f"the number of leaves must be at least 1 and the balance above 0, and they are {self.n} and "
                f"{self.balance}"
            )

    def row(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    async def run(self, search: ProblemSearch, choosing: Choosing) -> Found:
        """Search until N leaves are over."""
        going: list[Node] = [search.root()]
        over: list[Node] = []
        while search.may_go_on and going:
            numbers = shares([node.value for node in going], self.n - len(over), self.balance)
            wanted = [(node, number) for node, number in zip(going, numbers, strict=True) if number]
            children = [child for grown in await search.grow(wanted) for child in grown]
            over += [child for child in children if child.over]
            going = [child for child in children if not child.over]
        return Found(search.candidates([*over, *going]))


def shares(values: Sequence[float], total: int, temperature: float) -> list[int]:
    """Share a number out by softmax, in whole numbers; of equal remainders the first is rounded up."""
    exact = [total * weight for weight in softmax(values, temperature)]
    numbers = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda at: numbers[at] - exact[at])
    for at in by_remainder[: total - sum(numbers)]:
        numbers[at] += 1
    return numbers
