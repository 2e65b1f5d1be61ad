"""The claims of one step, found and decided; what needs computer algebra is asked as questions, all at once.

A false relation counts against the step only if nothing around it says that it is not stated as a fact. A false claim
that a later step takes back is still false: the label belongs to the step that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from reasonflux_prm.labels.claims.algebra import Answer, Equation, Question, Rewriting, is_identity
from reasonflux_prm.labels.claims.arithmetic import decide, differ, is_arithmetic, write
from reasonflux_prm.labels.claims.consequences import consequences
from reasonflux_prm.labels.claims.context import excuse, has_odd_arithmetic, is_new_case, outside_prose, squeezed
from reasonflux_prm.labels.claims.expressions import Call, Name, Num, leaves, names
from reasonflux_prm.labels.claims.relations import Relation, chains, find_relations
from reasonflux_prm.labels.claims.tokens import Token, tokenize
from reasonflux_prm.labels.claims.values import NoValue, Value, evaluate

ClaimKind = Literal["arithmetic", "algebra", "contradiction"]
Solver = Callable[[Sequence[Question]], Sequence[Answer]]
"""Answers questions of algebra, in order."""


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """One claim of a step, and whether it holds."""

    claim: str
    """The characters of the step that make the claim."""
    kind: ClaimKind
    holds: bool | None
    """None: it is left open, and counts neither way."""
    why: str
    """Of a false claim: what is true instead. Of an open one: why it is left open."""
    start: int
    """Where the claim begins in the step, in characters."""
    stop: int


@dataclass(frozen=True)
class Known:
    """What a step may build on."""

    problem: str = ""
    """Relations that stand in it are quoted, and no claims."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """Names whose value earlier steps have found, without ever giving them another."""

    @cached_property
    def squeezed_problem(self) -> str:
        """The problem without what makes equal relations look different."""
        return squeezed(self.problem)

    @cached_property
    def odd(self) -> bool:
        """The problem speaks of numbers that do not obey plain arithmetic."""
        return has_odd_arithmetic(self.problem)


@dataclass
class Draft:
    """The claims of a step, some of them waiting for an answer."""

    verdicts: list[ClaimVerdict] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    asked_for: list[int] = field(default_factory=list)
    """For each question: the index of its verdict."""
    excuses: list[str | None] = field(default_factory=list)
    """For each question: why its claim would not count if it were false."""
    found: dict[str, Value] = field(default_factory=dict)
    """Names to which the step gives a value."""
    unsettled: set[str] = field(default_factory=set)
    """Names to which it gives several, or another than was known."""

    def settle(self, answers: Sequence[Answer]) -> list[ClaimVerdict]:
        """Return the verdicts, with the answers put in."""
        verdicts = list(self.verdicts)
        for (holds, why), index, why_not in zip(answers, self.asked_for, self.excuses, strict=True):
            if holds is False and why_not is not None:
                holds, why = None, why_not
            verdicts[index] = replace(verdicts[index], holds=holds, why=why)
        return verdicts


def check(text: str, known: Known, solve: Solver) -> list[ClaimVerdict]:
    """Find and decide the claims of one step.

    Args:
        text: The step.
        known: The problem, and what earlier steps have found.
        solve: Answers questions of algebra.

    Returns:
        The claims in the order in which they stand in the text.
    """
    draft = draft_claims(text, known)
    verdicts = draft.settle(solve(draft.questions) if draft.questions else [])
    return sorted(verdicts, key=lambda verdict: verdict.start)


def draft_claims(text: str, known: Known) -> Draft:
    """Find the claims of one step and decide those that need no computer algebra."""
    prose, marks = outside_prose(text)
    drafter = _Drafter(known, known.odd or has_odd_arithmetic(prose))
    for offset, piece in [(0, prose), *marks]:
        drafter.read(piece, offset)
    return drafter.draft


class _Drafter:
    """Collects the claims of one step from its prose and its calculator marks."""

    def __init__(self, known: Known, odd: bool) -> None:
        self.known = known
        self.odd = odd
        self.draft = Draft()
        self._seen: set[str] = set()
        self._text = ""
        self._offset = 0
        self._tokens: Sequence[Token] = ()

    def read(self, text: str, offset: int) -> None:
        self._text, self._offset, self._tokens = text, offset, tokenize(text)
        relations = find_relations(self._tokens)
        grouped = chains(relations)
        for relation in relations:
            self._relation(relation)
        for question, chain in consequences(text, self._tokens, grouped):
            self._ask(question, self._span(chain))
        for chain in grouped:
            self._definition(chain)

    def _span(self, chain: Sequence[Relation]) -> tuple[int, int]:
        first, last = chain[0], chain[-1]
        return self._tokens[first.left.begin].start, self._tokens[last.sides[1].stop - 1].stop

    def _relation(self, relation: Relation) -> None:
        span = self._span([relation])
        left, right = (side.expr for side in relation.sides)
        if left == right:
            return
        variables = names(left) | names(right)
        if is_arithmetic(relation):
            self._decided(relation, span, None)
        elif relation.sign != "=":
            return
        elif variables <= self.known.values.keys() and not isinstance(left, Name) and not isinstance(right, Name):
            self._decided(relation, span, self.known.values)
        elif names(left) == names(right) or (names(right) and names(left) > names(right)):
            self._rewriting(Equation(left, right), span)
        elif not names(right) and is_identity(Equation(left, right)):
            self._add("algebra", span, True, "")

    def _decided(self, relation: Relation, span: tuple[int, int], values: Mapping[str, Value] | None) -> None:
        decision = decide(relation, self._text[slice(*span)], values)
        if decision.holds is False and values is not None and not _is_substitution(relation, values):
            return  # an equation that is still to be solved, in names that have been used before
        self._add("arithmetic", span, decision.holds, decision.why, self.odd and relation.modulus is None)

    def _rewriting(self, equation: Equation, span: tuple[int, int]) -> None:
        identity = is_identity(equation)
        if identity:
            self._add("algebra", span, True, "")
        elif identity is False and "i" not in names(equation.left):
            self._ask(Rewriting(equation), span)

    def _excuse(self, span: tuple[int, int], odd: bool, conditional: bool = False) -> str | None:
        if odd:
            return "other rules of arithmetic may hold"
        if squeezed(self._text[slice(*span)]) in self.known.squeezed_problem:
            return "it is quoted from the problem"
        return excuse(self._text, *span, conditional)

    def _add(self, kind: ClaimKind, span: tuple[int, int], holds: bool | None, why: str, odd: bool = False) -> bool:
        """Add a verdict, unless the same claim is there already, and tell whether it was added."""
        claim = self._text[slice(*span)]
        key = squeezed(claim)
        if key in self._seen:
            return False
        self._seen.add(key)
        if holds is False and (why_not := self._excuse(span, odd)) is not None:
            holds, why = None, why_not
        start, stop = (place + self._offset for place in span)
        self.draft.verdicts.append(ClaimVerdict(" ".join(claim.split()), kind, holds, why, start, stop))
        return True

    def _ask(self, question: Question, span: tuple[int, int]) -> None:
        if self._add("algebra", span, None, "it was not decided"):
            self.draft.questions.append(question)
            self.draft.asked_for.append(len(self.draft.verdicts) - 1)
            self.draft.excuses.append(self._excuse(span, self.odd, conditional=isinstance(question, Rewriting)))

    def _definition(self, chain: Sequence[Relation]) -> None:
        """Note a name that gets a value, and whether it had another."""
        left, right = chain[0].sides[0].expr, chain[-1].sides[1].expr
        if not isinstance(left, Name) and isinstance(right, Name) and len(chain) == 1:
            left, right = right, left
        if not isinstance(left, Name) or names(right) or any(relation.sign != "=" for relation in chain):
            return
        try:
            value = evaluate(right)
        except NoValue:
            return
        span = self._span(chain)
        earlier = self.draft.found.get(left.text, self.known.values.get(left.text))
        if earlier is not None and differ(earlier, value):
            self.draft.unsettled.add(left.text)
            if left.text in self.known.values and not is_new_case(self._text, *span):
                why = f"{left.text} was found to be {write(earlier)}"
                self._add("contradiction", span, False, why)
        elif left.text not in self.draft.found and is_new_case(self._text, *span):
            self.draft.unsettled.add(left.text)
        self.draft.found[left.text] = value


def _is_substitution(relation: Relation, values: Mapping[str, Value]) -> bool:
    """Tell whether the right side is the left one with values in place of its names: `A - B = 3 - (-7)`."""
    left, right = (side.expr for side in relation.sides)
    if names(right) or not isinstance(right, Call) or len(leaves(left)) != len(leaves(right)):
        return False
    written = [abs(leaf.value) for leaf in leaves(right) if isinstance(leaf, Num)]
    put_in = [abs(values[name]) for name in names(left)]
    return sum(value in written for value in put_in) * 2 >= len(put_in)
