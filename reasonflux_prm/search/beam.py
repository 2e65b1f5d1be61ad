"""Beam search over steps.

Let B be the beam, at first the problem alone. Until every trace in it has come to its end:

    C = {traces in B that have ended} + {m continuations of every other one by a step}
    B = the w traces of C with the highest value

where the value of a trace is the aggregate of its step rewards so far. The problem itself has w * m continuations, so
that every round reads as many. As in Snell et al., arXiv:2408.03314 (N = w * m), where the value is the
PRM's reward of the last step: that is the aggregation `last`. Equal continuations of one trace count once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.search.method import Choosing, Found, best
from reasonflux_prm.search.problem import ProblemSearch


@dataclass(frozen=True, slots=True)
class Beam:
    """Keep the best `width` of all continuations.

    Raises:
        UsageError: A number is below 1.
    """

    width: int = 4
    """w: traces that are kept."""
    expand: int = 4
    """m: continuations of each."""

    name = "beam"
    steps = True

    def __post_init__(self) -> None:
        if self.width < 1 or self.expand < 1:
            raise UsageError(f"width and expand must be at least 1, and are {self.width} and {self.expand}")

    def row(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    async def run(self, search: ProblemSearch, choosing: Choosing) -> Found:
        """Search until all of the beam is over."""
        beam, each = [search.root()], self.width * self.expand
        while search.may_go_on and (going := [node for node in beam if not node.over]):
            grown = await search.grow([(node, each) for node in going])
            over = [node for node in beam if node.over]
            beam, each = best([*over, *(child for children in grown for child in children)], self.width), self.expand
        return Found(search.candidates(beam))
