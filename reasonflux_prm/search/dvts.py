"""Diverse verifier tree search: independent subtrees, each followed along its best step.

The problem is continued w * m times, and every m of these begin one of w subtrees. In each subtree i, on its own,

    s_i <- the one of m continuations of s_i with the highest value

until it ends. No subtree displaces another, so w different traces come out where a beam may hold w twigs of one branch.
After Beeching, Tunstall and Rush, "Scaling test-time compute with open models" (Hugging Face, 2024). Equal
continuations are read once, also across subtrees that begin alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.search.method import Choosing, Found, best
from reasonflux_prm.search.problem import Node, ProblemSearch


@dataclass(frozen=True, slots=True)
class DVTS:
    """Follow the best step in each of `width` subtrees.

    Raises:
        UsageError: A number is below 1.
    """

    width: int = 4
    """w: subtrees."""
    expand: int = 4
    """m: continuations of each."""

    name = "dvts"
    steps = True

    def __post_init__(self) -> None:
        if self.width < 1 or self.expand < 1:
            raise UsageError(f"width and expand must be at least 1, and are {self.width} and {self.expand}")

    def row(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    async def run(self, search: ProblemSearch, choosing: Choosing) -> Found:
        """Search until all subtrees are over."""
        root = search.root()
        tips: list[Node] = [root]
        if search.may_go_on:
            (first,) = await search.grow([(root, self.width * self.expand)])
            tips = [best(first[at : at + self.expand], 1)[0] for at in range(0, len(first), self.expand)]
        while search.may_go_on and (going := [at for at, tip in enumerate(tips) if not tip.over]):
            grown = await search.grow([(tips[at], self.expand) for at in going])
            for at, children in zip(going, grown, strict=True):
                tips[at] = best(children, 1)[0]
        return Found(search.candidates(tips))
