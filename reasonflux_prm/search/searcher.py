"""A method, a policy and a PRM over many problems: results in the order of the problems, several searched at a time."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.tasks.base import Problem, Task
from reasonflux_prm.evaluation.tasks.custom import TASK as CUSTOM
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.policy.base import Policy
from reasonflux_prm.policy.loop import LoopThread
from reasonflux_prm.records import ScoredTrace
from reasonflux_prm.search.adaptive import Adaptive
from reasonflux_prm.search.best_of_n import METHODS as PICKS
from reasonflux_prm.search.best_of_n import Method as PickMethod
from reasonflux_prm.search.best_of_n import pick_one
from reasonflux_prm.search.method import Choosing, Found, SearchMethod
from reasonflux_prm.search.problem import ProblemSearch
from reasonflux_prm.search.result import SearchResult, SearchStatus, Trouble
from reasonflux_prm.search.writing import Writing

if TYPE_CHECKING:
    from reasonflux_prm.search.reader import Reader


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to search, whatever the method."""

    writing: Writing = field(default_factory=Writing)
    pick: PickMethod = "prm"
    """How the pick is made among the candidates that a search ends with."""
    cap: int | None = None
    """The most tokens a problem may take, of policy and PRM together; see `Budget`."""
    at_once: int = 8
    """Problems that are searched at the same time; each holds the PRM's past of all its drafts. No result depends on
    it, but for the last bits of a policy that batches what it is asked at the same time."""


class Searcher:
    """Searches for answers.

    Args:
        method: How.
        policy: Who writes. It is not closed.
        reader: The PRM (`search.reader.open_reader`); None with the pick `majority` and a method of whole traces.
        grader: Says which answers are the same and which are right. It is not closed.
        settings: The rest.
        task: Says what the policy is asked.

    Raises:
        UsageError: The settings do not go together.
    """

    def __init__(
        self,
        method: SearchMethod,
        policy: Policy,
        reader: Reader | None,
        grader: Grader,
        settings: SearchSettings | None = None,
        task: Task = CUSTOM,
    ) -> None:
        self.method, self.policy, self.reader, self.grader = method, policy, reader, grader
        self.settings, self.task = settings or SearchSettings(), task
        self._ask = _asks(task)
        _check(method, reader, self.settings)

    def identity(self) -> dict[str, Any]:
        """Return what results depend on besides the problems, as JSON values."""
        reader = self.reader
        return {
            "method": {"name": self.method.name, **self.method.row()},
            "policy": dict(self.policy.identity()),
            "prm": None if reader is None else {**_prm_row(reader), **reader.settings()},
            "grader": dict(self.grader.identity()),
            "task": self.task.name,
            "writing": self.settings.writing.row(),
            "pick": self.settings.pick,
            "cap": self.settings.cap,
        }

    def search(self, problems: Iterable[Problem]) -> Iterator[SearchResult]:
        """Search for the answers of problems; results come in their order.

        Raises:
            PolicyStopped: The policy answers nothing any more. What is done has been yielded.
        """
        loop, rest = LoopThread("search"), iter(problems)
        under_way: deque[asyncio.Task[SearchResult]] = deque()

        async def next_result() -> SearchResult | None:
            while len(under_way) < self.settings.at_once and (problem := next(rest, None)) is not None:
                task = asyncio.create_task(self.search_one(problem))
                task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if only here
                under_way.append(task)
            return await under_way.popleft() if under_way else None

        try:
            while (result := loop.run(next_result())) is not None:
                yield result
        finally:
            loop.close()

    async def search_one(self, problem: Problem) -> SearchResult:
        """Search for one problem's answer.

        Raises:
            PolicyStopped: The policy answers nothing any more.
        """
        settings = self.settings
        search = ProblemSearch(problem, self._ask(problem), self.policy, self.reader, settings.writing, settings.cap)
        found = await self.method.run(search, Choosing(settings.pick, self.grader))
        return self._result(search, found)

    def _result(self, search: ProblemSearch, found: Found) -> SearchResult:
        candidates = tuple(found.candidates)
        troubles, pick, note = search.troubles, None, search.failure
        status = SearchStatus.FAILED
        if candidates:
            pick = pick_one([one.scored for one in candidates], self.settings.pick, self.grader)
            status = SearchStatus.UNPICKED if pick.pick is None else SearchStatus.PICKED
            note = pick.note or note
            self._count(troubles, found, pick.answers)
            troubles[Trouble.UNGRADED] += pick.pick is not None and pick.note is not None
        elif note is None:
            note = "the policy gave no sample" if not search.capped else "the cap was reached before the first sample"
        return SearchResult(
            problem=search.problem,
            status=status,
            method=self.method.name,
            candidates=candidates,
            pick=pick,
            cost=search.budget.row(),
            rounds=search.rounds,
            capped=search.capped,
            troubles={trouble: troubles[trouble] for trouble in Trouble if troubles[trouble]},
            details=found.details,
            note=note,
        )

    def _count(self, troubles: Counter[Trouble], found: Found, answers: Iterable[str | None]) -> None:
        for candidate, answer in zip(found.candidates, answers, strict=True):
            trace, scored = candidate.trace, candidate.scored
            empty = not (trace.thinking.strip() or trace.response.strip())
            troubles[Trouble.NO_TEXT] += empty
            troubles[Trouble.NO_ANSWER] += not empty and answer is None
            troubles[Trouble.CUT] += not candidate.ended
            unscored = isinstance(scored, ScoredTrace) and scored.reward is None
            troubles[Trouble.NO_REWARD] += not empty and unscored


def _asks(task: Task) -> Callable[[Problem], str]:
    if task.ask is None:
        raise UsageError(f"candidates for {task.name} are trajectories that an agent records; there is nobody to ask")
    return task.ask


def _prm_row(reader: Reader) -> Mapping[str, Any]:
    return {**asdict(reader.identity), "keeps_past": reader.keeps_past}


def _check(method: SearchMethod, reader: Reader | None, settings: SearchSettings) -> None:
    if settings.pick not in PICKS:
        raise UsageError(f"unknown pick {settings.pick!r}; there are {', '.join(PICKS)}")
    if settings.at_once < 1:
        raise UsageError(f"at least 1 problem must be searched at a time, got {settings.at_once}")
    if reader is None and (method.steps or settings.pick != "majority"):
        what = f"the method {method.name}" if method.steps else f"the pick {settings.pick}"
        raise UsageError(f"{what} needs a PRM")
    if isinstance(method, Adaptive):
        if method.confidence is not None and settings.pick != "majority":
            raise UsageError("a confidence goes with the pick majority; rewards have no such rule")
        if method.tolerance and settings.pick != "prm":
            raise UsageError("a tolerance goes with the pick prm; a vote is decided or it is not")
        if settings.pick != "majority" and reader is not None and reader.most == float("inf"):
            raise UsageError(
                f"the rewards of {reader.identity.name} with the aggregation {reader.identity.aggregation} have no "
                "upper bound, so more samples can always change the pick; use the pick majority, or the method sample"
            )
