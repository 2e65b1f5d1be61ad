"""N whole traces, drawn independently of one another; the pick among them is best-of-N or a vote.

y_1, ..., y_N ~ policy(y | x), and the pick is argmax_i r(y_i), or the answer with the largest sum of rewards, or the
most frequent one; see `best_of_n`. The paper's figure 5 is made this way (arXiv:2506.18896).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.search.method import Choosing, Found
from reasonflux_prm.search.problem import ProblemSearch
from reasonflux_prm.search.result import Candidate


@dataclass(frozen=True, slots=True)
class Sample:
    """Draw N traces.

    Raises:
        UsageError: N is below 1.
    """

    n: int = 16

    name = "sample"
    steps = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UsageError(f"the number of samples must be at least 1, and is {self.n}")

    def row(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    async def run(self, search: ProblemSearch, choosing: Choosing) -> Found:
        """Draw all at once; one by one where there is a cap, so as not to go far beyond it."""
        at_once = self.n if search.budget.cap is None else 1
        candidates: list[Candidate] = []
        for _ in range(0, self.n, at_once):
            if not search.may_go_on:
                break
            candidates += await search.draw(at_once)
        return Found(candidates)
