"""What every grader is: answers and references in, verdicts out.

A grader decides what it can at once (`decide`), and settles the rest in a way of its own: `grading.math_grader` asks
worker processes, the others have no rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from reasonflux_prm.grading.answers import stated_answer
from reasonflux_prm.grading.verdict import Verdict

Pair = tuple[str | None, str]
"""An answer (None if none is stated) and the reference."""


class Grader(ABC):
    """Judges final answers. Safe to use from several threads, and from asyncio by the methods that begin with `a`."""

    name: str

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return what the verdicts depend on: the grader's name, versions, limits. For manifests and cache keys."""

    @abstractmethod
    def decide(self, answer: str | None, reference: str) -> Verdict | None:
        """Return the verdict where it can be had at once; None where it takes more."""

    @abstractmethod
    def key(self, answer: str) -> Hashable:
        """Return what two writings of one answer have in common."""

    def find(self, text: str, reference: str) -> str | None:
        """Return the final answer that a text states; None if it states none."""
        return stated_answer(text)

    def settle(self, pairs: Iterable[Pair]) -> Iterator[Verdict]:
        """Yield the verdicts of pairs that could not be decided at once, in order."""
        raise NotImplementedError(f"{type(self).__name__} leaves an answer undecided, and has no way to settle it")

    async def asettle(self, pair: Pair) -> Verdict:
        """Return the verdict of a pair that could not be decided at once."""
        raise NotImplementedError(f"{type(self).__name__} leaves an answer undecided, and has no way to settle it")

    def alike(self, answers: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield indices of answers that are the same though their keys differ."""
        return iter(())

    def grade(self, text: str, reference: str) -> Verdict:
        """Judge the final answer that a text states.

        Args:
            text: A response; if it has thinking in front, the last answer that is stated counts.
            reference: The reference answer: bare, boxed, or a solution that ends in `#### answer`.
        """
        return self.grade_many([(text, reference)])[0]

    def grade_many(self, pairs: Iterable[tuple[str, str]]) -> list[Verdict]:
        """Judge the final answers of many texts, given as (text, reference); in order."""
        return self.grade_answers((self.find(text, reference), reference) for text, reference in pairs)

    def grade_answer(self, answer: str | None, reference: str) -> Verdict:
        """Judge an answer that has been taken out of its text already; None if none is stated."""
        return self.grade_answers([(answer, reference)])[0]

    def grade_answers(self, pairs: Iterable[Pair]) -> list[Verdict]:
        """Judge many answers that have been taken out of their texts already; in order. Equal pairs are judged once."""
        pairs = list(pairs)
        verdicts = {pair: self.decide(*pair) for pair in dict.fromkeys(pairs)}
        rest = [pair for pair, verdict in verdicts.items() if verdict is None]
        if rest:
            verdicts.update(zip(rest, self.settle(rest), strict=True))
        return [verdict for pair in pairs if (verdict := verdicts[pair]) is not None]

    async def agrade(self, text: str, reference: str) -> Verdict:
        """Judge the final answer that a text states, without holding the event loop up; see `grade`."""
        pair = self.find(text, reference), reference
        verdict = self.decide(*pair)
        return await self.asettle(pair) if verdict is None else verdict

    def groups(self, answers: Sequence[str | None]) -> list[int | None]:
        """Tell which answers are the same, for votes.

        Two answers are in one group if their keys are equal or the grader calls them the same, whichever of the two is
        taken as the reference, or if a chain of such pairs connects them.

        Returns:
            The number of each answer's group, counted from 0 in the order of their first members; None where there is
            no answer.
        """
        keys = [None if answer is None else self.key(answer) for answer in answers]
        first = {key: index for index, key in reversed(list(enumerate(keys))) if answers[index] is not None}
        members = sorted(first.values())
        parents = {member: member for member in members}
        for one, other in self.alike([str(answers[member]) for member in members]):
            low, high = sorted((_root(parents, members[one]), _root(parents, members[other])))
            parents[high] = low
        roots = [
            None if answer is None else _root(parents, first[key]) for answer, key in zip(answers, keys, strict=True)
        ]
        numbers = {root: number for number, root in enumerate(sorted({root for root in roots if root is not None}))}
        return [None if root is None else numbers[root] for root in roots]

    def close(self) -> None:  # noqa: B027 - most graders hold nothing
        """Let go of what the grader holds; more than once is fine."""

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def bare_reference(reference: str) -> str:
    """Return the answer of a reference: what stands in its box or behind its `####`, or else all of it."""
    marked = "\\boxed" in reference or "\\fbox" in reference or "####" in reference
    return ((stated_answer(reference) if marked else None) or reference).strip()


def _root(parents: Mapping[int, int], member: int) -> int:
    while parents[member] != member:
        member = parents[member]
    return member
