"""The search for one problem's answer: what every method has at hand, and keeps count of.

Whole traces (`draw`), or a tree of steps: `grow` asks the policy for the next steps of some drafts, all at once, and
has the PRM read what is new. What one request runs into leaves the others alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reasonflux_prm.errors import PolicyError, PolicyStopped
from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.policy.base import Completion, Outcome, Policy, Request
from reasonflux_prm.policy.usage import usage_of
from reasonflux_prm.records import ScoredTrace, Trace
from reasonflux_prm.search.budget import Budget
from reasonflux_prm.search.draft import Draft
from reasonflux_prm.search.result import BLANK_ROUNDS, Candidate, Trouble
from reasonflux_prm.search.writing import Writing, came, has_ended, is_unclear, seed_of, step_text

if TYPE_CHECKING:
    from reasonflux_prm.search.reader import Reader, Reading


@dataclass(eq=False, slots=True)
class Node:
    """A draft in the tree, and what the PRM says of it."""

    draft: Draft
    reading: Reading
    tokens: int = 0
    """Tokens that the policy wrote on the way here."""
    depth: int = 0
    """Steps on the way here."""

    @property
    def value(self) -> float:
        """What steers the search: the aggregate of the step rewards so far."""
        return self.reading.value

    @property
    def over(self) -> bool:
        """Whether nothing more will be written."""
        return self.draft.over


class ProblemSearch:
    """One problem, the policy and the PRM; counts what they take and what goes wrong.

    Args:
        problem: What to solve.
        asked: What the policy is asked.
        policy: Who writes.
        reader: The PRM; None where the pick needs no rewards, which only `draw` can do without.
        writing: How the policy writes.
        cap: The most tokens; see `Budget`.
    """

    def __init__(
        self, problem: Problem, asked: str, policy: Policy, reader: Reader | None, writing: Writing, cap: int | None
    ) -> None:
        self.problem, self.reader, self.writing = problem, reader, writing
        self.budget = Budget(cap)
        self.troubles: Counter[Trouble] = Counter()
        self.rounds = 0
        self.capped = False
        self.failure: str | None = None
        """What the last request that failed said."""
        self._asked, self._policy = asked, policy
        self._trace = Trace(problem.id, problem.problem, answer=problem.answer, policy=policy.name, group=problem.id)
        self._requests = 0
        self._drawn = 0

    @property
    def may_go_on(self) -> bool:
        """Whether another round may begin; that it may not is remembered."""
        self.capped = self.capped or self.budget.reached
        return not self.capped

    # --- whole traces ------------------------------------------------------------------------------------------------

    async def draw(self, n: int) -> list[Candidate]:
        """Sample whole traces, with their rewards if there is a PRM; fewer than `n` if the policy gives fewer."""
        self.rounds += 1
        request = self.writing.whole(self._asked, n, self._seed())
        completions = (await self._ask([request]))[0]
        opening, traces = Draft().extended(self.writing.opening), []
        for completion in completions:
            closed = bool(completion.text) or not completion.thinking or completion.finish_reason != "length"
            traces.append(
                replace(
                    self._trace,
                    id=f"{self.problem.id}#{self._drawn}",
                    thinking=opening.text("thinking") + completion.thinking,
                    response=opening.text("response") + completion.text,
                    thinking_closed=closed,
                )
            )
            self._drawn += 1
        scored: Sequence[ScoredTrace | Trace] = traces
        if self.reader is not None:
            scored = self.reader.score(traces, self.budget)
        each = _tokens_each(request, completions)
        return [
            Candidate(one, tokens, completion.finish_reason != "length")
            for one, tokens, completion in zip(scored, each, completions, strict=True)
        ]

    # --- a tree of steps ---------------------------------------------------------------------------------------------

    def root(self) -> Node:
        """Return the tree's root: the problem, which the PRM reads now."""
        return Node(Draft().extended(self.writing.opening), self._reader.begin(self._trace, self.budget))

    async def grow(self, wanted: Sequence[tuple[Node, int]]) -> list[list[Node]]:
        """Have the policy go on from each node so many times; a node that it cannot go on from comes back, cut off.

        Equal continuations of a node are the same node, which then stands there several times.
        """
        self.rounds += 1
        requests = [self.writing.step(self._asked, node.draft, node.tokens, n, self._seed()) for node, n in wanted]
        grown: list[list[Node]] = []
        for (node, _), request, completions in zip(wanted, requests, await self._ask(requests), strict=True):
            each = _tokens_each(request, completions)
            children = [
                self._child(node, completion, tokens, node.depth + 1)
                for completion, tokens in zip(completions, each, strict=True)
            ]
            grown.append(children or [_cut(node)])
        await self._pass_blanks([node for node, _ in wanted], grown)
        pairs = [(node, child) for (node, _), children in zip(wanted, grown, strict=True) for child in children]
        for node, child in pairs:
            self.troubles[Trouble.LATE_MARK] += child.draft.late and not node.draft.late
        read = self._reader.read(self._trace, [(node.reading, child.draft) for node, child in pairs], self.budget)
        for (_, child), reading in zip(pairs, read, strict=True):
            child.reading = reading
        return [_merged(children) for children in grown]

    def candidates(self, nodes: Sequence[Node]) -> list[Candidate]:
        """Return what a search ended with, each finished trace with its reward; a node may stand there several times.

        Nodes before the first step, where nothing was ever written, are left out.
        """
        done: dict[int, ScoredTrace] = {}
        found: list[Candidate] = []
        for node in nodes:
            if node.depth == 0:
                continue
            if id(node) not in done:
                done[id(node)] = self._reader.finish(self._trace, node.draft, node.reading, self.budget)
            scored = done[id(node)]
            named = replace(scored, trace=replace(scored.trace, id=f"{self.problem.id}#{len(found)}"))
            found.append(Candidate(named, node.tokens, node.draft.ended))
        return found

    @property
    def _reader(self) -> Reader:
        assert self.reader is not None, "a tree of steps needs a PRM; `Searcher` sees to it"
        return self.reader

    def _child(self, node: Node, completion: Completion, tokens: int, depth: int) -> Node:
        self.troubles[Trouble.UNCLEAR_END] += bool(self.writing.stop) and is_unclear(completion)
        draft = node.draft.extended(step_text(completion), ended=has_ended(completion))
        tokens += node.tokens
        if not draft.ended and (tokens >= self.writing.max_tokens or depth >= self.writing.max_steps):
            draft = replace(draft, cut=True)
        return Node(draft, node.reading, tokens, depth)

    async def _pass_blanks(self, nodes: Sequence[Node], grown: list[list[Node]]) -> None:
        """Ask on where nothing came that could be read: white space, or the end of the thinking alone."""

        def blanks() -> list[tuple[int, int]]:
            return [
                (row, column)
                for row, children in enumerate(grown)
                for column, child in enumerate(children)
                if child.draft.steps == nodes[row].draft.steps and not child.over
            ]

        for _ in range(BLANK_ROUNDS):
            if not (places := blanks()):
                return
            children = [grown[row][column] for row, column in places]
            requests = [
                self.writing.step(self._asked, child.draft, child.tokens, 1, self._seed()) for child in children
            ]
            outcomes = await self._ask(requests)
            for (row, column), child, request, completions in zip(places, children, requests, outcomes, strict=True):
                if completions:
                    (tokens,) = _tokens_each(request, completions)
                    grown[row][column] = self._child(child, completions[0], tokens, child.depth)
                else:
                    grown[row][column] = _cut(child)
        for row, column in blanks():
            self.troubles[Trouble.BLANK] += 1
            grown[row][column] = _cut(grown[row][column])

    # --- the policy --------------------------------------------------------------------------------------------------

    async def _ask(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Ask for all at once; return what came of each.

        Raises:
            PolicyStopped: No request will succeed from here on.
        """
        outcomes = await asyncio.gather(*(self._one(request) for request in requests))
        found: list[list[Completion]] = []
        for request, outcome in zip(requests, outcomes, strict=True):
            completions, error = came(outcome, request.n)
            self.budget.charge_policy(request, completions)
            if error is not None:
                self.failure = str(error)
                self.troubles[Trouble.REFUSED] += 1
            self.troubles[Trouble.FEWER_SAMPLES] += request.n - len(completions)
            found.append(completions)
        return found

    async def _one(self, request: Request) -> Outcome:
        try:
            return await self._policy.ask(request)
        except PolicyStopped:
            raise
        except Exception as error:  # whatever one request runs into must not stop its neighbours
            return error if isinstance(error, PolicyError) else PolicyError(f"{type(error).__name__}: {error}")

    def _seed(self) -> int:
        self._requests += 1
        return seed_of(self.writing.seed, self.problem.id, self._requests)


def _merged(children: Sequence[Node]) -> list[Node]:
    """Return the children of one node, those with the same text as one and the same node."""
    first: dict[str, Node] = {}
    return [first.setdefault(child.draft.written, child) for child in children]


def _cut(node: Node) -> Node:
    return Node(replace(node.draft, cut=True), node.reading, node.tokens, node.depth)


def _tokens_each(request: Request, completions: Sequence[Completion]) -> list[int]:
    """Return the tokens of each completion; equal shares where the backend tells the sum only."""
    if not completions:
        return []
    counts = [one.completion_tokens for one in completions]
    if all(count or (count == 0 and not one.text) for count, one in zip(counts, completions, strict=True)):
        return [count or 0 for count in counts]
    share = -(-usage_of(request, completions).completion_tokens // len(completions))
    return [share] * len(completions)
