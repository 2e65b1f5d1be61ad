"""Particle filtering: traces are drawn step by step, and resampled by what the PRM says of them.

N particles begin at the problem. Until all have come to their end: every particle that has not is continued by a step;
with v_i the value of particle i, the log weight is w_i = log(v_i / (1 - v_i)), and N particles are drawn anew, with
replacement, from the distribution softmax(w / T). So a trace is kept in proportion to its odds of being right, and not
only if it is among the best.

Puri et al., arXiv:2502.01618, algorithm 1, with T = 1, multinomial resampling and the log odds of their implementation
(its-hub 1.2.0, core/algorithms/particle_gibbs.py). Values that are no probabilities are taken as log weights.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.search.method import Choosing, Found
from reasonflux_prm.search.problem import Node, ProblemSearch
from reasonflux_prm.search.writing import seed_of

_LEAST = 1e-7
"""Probabilities are kept so far from 0 and 1."""


@dataclass(frozen=True, slots=True)
class Particles:
    """Filter N particles.

    Raises:
        UsageError: N is below 1, or the temperature is not above 0.
    """

    n: int = 16
    balance: float = 1.0
    """T: above 1 keeps more of the worse ones, below 1 fewer."""

    name = "particles"
    steps = True

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 < self.balance < math.inf:
            raise UsageError(
                f"particles must be at least 1 and the balance above 0, and they are {self.n} and {self.balance}"
            )

    def row(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    async def run(self, search: ProblemSearch, choosing: Choosing) -> Found:
        """Filter until all particles are over."""
        stream = random.Random(seed_of(search.writing.seed, search.problem.id, 0))
        particles = [search.root()] * self.n
        while search.may_go_on and any(not node.over for node in particles):
            copies = Counter(node for node in particles if not node.over)
            grown = await search.grow(list(copies.items()))
            particles = [node for node in particles if node.over]
            particles += [child for children in grown for child in children]
            if any(not node.over for node in particles):
                weights = softmax(log_weights(particles, search), self.balance)
                particles = stream.choices(particles, weights, k=self.n)
        return Found(search.candidates(particles))


def log_weights(nodes: Sequence[Node], search: ProblemSearch) -> list[float]:
    """Return the log odds of the nodes' values, or the values where they are no probabilities."""
    reader = search.reader
    if reader is None or not reader.probabilities:
        return [node.value for node in nodes]
    logarithms = reader.identity.aggregation == "product"
    values = [math.exp(node.value) if logarithms else node.value for node in nodes]
    clipped = [min(max(value, _LEAST), 1 - _LEAST) for value in values]
    return [math.log(value / (1 - value)) for value in clipped]


def softmax(values: Sequence[float], temperature: float) -> list[float]:
    """Return exp(value / temperature), normalised; equal shares where no value is finite."""
    top = max(values)
    if not math.isfinite(top):
        return [1 / len(values)] * len(values)
    weights = [math.exp((value - top) / temperature) for value in values]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
