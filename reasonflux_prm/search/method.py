"""What a method is: from one problem's search to the candidates that it ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.search.best_of_n import Method as PickMethod
from reasonflux_prm.search.problem import Node, ProblemSearch
from reasonflux_prm.search.result import Candidate


@dataclass(frozen=True, slots=True)
class Choosing:
    """How the pick is made among the candidates that a search ends with."""

    pick: PickMethod
    grader: Grader
    """Says which answers are the same, and which are right."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a method ends with."""

    candidates: Sequence[Candidate]
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else it has to tell, as JSON values."""


class SearchMethod(Protocol):
    """A way to spend tokens on a problem."""

    @property
    def name(self) -> str:
        """As the command line has it."""

    @property
    def steps(self) -> bool:
        """Whether it searches step by step, which needs a PRM."""

    def row(self) -> dict[str, Any]:
        """Return the settings as JSON values."""

    async def run(self, search: ProblemSearch, choosing: Choosing) -> Found:
        """Search for one problem's answer.

        Raises:
            PolicyStopped: The policy answers nothing any more.
        """


def best(nodes: Sequence[Node], most: int) -> list[Node]:
    """Return the nodes of the highest values, at most so many; of equals the first, and of equal texts only one."""
    distinct: dict[str, Node] = {}
    for node in nodes:
        distinct.setdefault(node.draft.written, node)
    return sorted(distinct.values(), key=lambda node: -node.value)[:most]
