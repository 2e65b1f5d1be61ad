"""Finds the equations and comparisons of a text: what stands on the left and on the right of every relation sign.

The right side is the longest expression behind the sign, the left side the longest one before it. Prose goes up to a
formula without a mark, so a side counts only if the words and marks next to it leave its meaning alone: "the average of
3 + 5 = 4", "half of the 12 + 6 = 9" and "1 + 2 + ... + 10 = 55" are left out rather than judged wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from reasonflux_prm.labels.claims.expressions import Call, Expr, Num, holds, numbers
from reasonflux_prm.labels.claims.parser import NotParsed, Parser, Reading, is_unit
from reasonflux_prm.labels.claims.tokens import Token
from reasonflux_prm.labels.claims.vocabulary import (
    DOUBTFUL_AFTER,
    DOUBTFUL_AFTER_IS,
    DOUBTFUL_AFTER_NUMBER,
    DOUBTFUL_BEFORE,
    LABELLED,
    OF_FUNCTIONS,
    STATING,
    Kind,
)

_MOST_RELATIONS = 2_000
"""In one step; what has more is no reasoning."""
_ARTICLES = frozenset(("the", "a", "an", "her", "his", "their", "its", "those", "these", "remaining", "other", "all"))


@dataclass(frozen=True, slots=True)
class Read:
    """One side of a relation under one reading."""

    expr: Expr
    doubts: Reading
    """Second readings that would make a difference to it."""
    units: frozenset[str]
    """Words behind its numbers."""
    stop: int
    """The token behind it."""
    partly_measured: bool = False
    """Some of its numbers have a unit and others have none: "1,800 + 2 monitors"."""


@dataclass(frozen=True)
class Side:
    """The tokens on one side of a relation, not yet read."""

    tokens: Sequence[Token]
    begin: int
    stop: int
    whole: bool
    """The side ends at `stop`; else anywhere before, where what follows leaves it alone."""
    spoken: bool = False
    _reads: dict[Reading, Read | None] = field(default_factory=dict)

    def read(self, reading: Reading) -> Read | None:
        """Parse the side; None if it is no expression, or if what stands behind it could change it."""
        if reading not in self._reads:
            self._reads[reading] = self._parse(reading)
        return self._reads[reading]

    def _parse(self, reading: Reading) -> Read | None:
        parser = Parser(self.tokens, self.begin, self.stop, reading)
        try:
            expr = parser.expression()
        except NotParsed:
            return None
        end = parser.position
        if self.whole and end != self.stop:
            return None
        if not self.whole and not _may_follow(self.tokens, end, self.stop, self.spoken):
            return None
        following = set()
        for token in self.tokens[end : min(end + 2, self.stop)]:
            if token.kind is not Kind.WORD:
                break
            following.add(token.text)
        partly = 0 < parser.measured < len(numbers(expr)) and holds(expr, "+", "-")
        return Read(expr, parser.doubts, frozenset(parser.units | following), end, partly)

    @cached_property
    def usual(self) -> Read | None:
        """The side under the usual reading."""
        return self.read(Reading.USUAL)


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation or a comparison as it stands in the text; whether it claims anything is not decided yet."""

    sign: str
    """`= ≈ ≡ ≠ < > ≤ ≥`."""
    left: Side
    right: Side
    place: int
    """The index of the sign's token."""
    linked: bool
    """The left side is also the right side of the relation before: `a = b = c`."""
    spoken: bool
    """The sign is a word."""
    modulus: Expr | None
    """From a "(mod n)" behind it."""
    sides: tuple[Read, Read]
    """Left and right, under the usual reading."""


def find_relations(tokens: Sequence[Token]) -> list[Relation]:
    """Find the relations whose two sides can be read, among the first 2,000; time is linear in the number of tokens."""
    signs = [index for index, token in enumerate(tokens) if token.kind is Kind.RELATION][:_MOST_RELATIONS]
    found = []
    for order, place in enumerate(signs):
        before = signs[order - 1] + 1 if order else 0
        after = signs[order + 1] if order + 1 < len(signs) else len(tokens)
        relation = _relation(tokens, tokens[before - 1] if order else None, before, place, after)
        if relation is not None:
            found.append(relation)
    return found


def chains(relations: Sequence[Relation]) -> list[list[Relation]]:
    """Group the relations that share a side: the three of `a = b = c < d` are one chain."""
    found: list[list[Relation]] = []
    for relation in relations:
        if relation.linked and found and relation.left.begin == found[-1][-1].right.begin:
            found[-1].append(relation)
        else:
            found.append([relation])
    return found


def _relation(
    tokens: Sequence[Token], sign_before: Token | None, before: int, place: int, after: int
) -> Relation | None:
    spoken = tokens[place].spoken
    end = place
    while end > before and tokens[end - 1].text in ("\n", ",") and (tokens[end - 1].text == "\n" or spoken):
        end -= 1
    start = place + 1
    while start < after and tokens[start].text == "\n":
        start += 1
    begin = _left_begin(tokens, before, end)
    if begin is None or begin == end:
        return None
    left = Side(tokens, begin, end, whole=True)
    right = Side(tokens, start, after, whole=False, spoken=spoken)
    if left.usual is None or right.usual is None:
        return None
    while before < begin and tokens[before].text == "\n":
        before += 1
    linked = sign_before is not None and not sign_before.spoken and begin == before
    if not linked and not _may_begin(tokens, begin, tokens[place].text, left.usual, right.usual):
        return None
    # "10 * 8 = 80 plus 8 = 88": said aloud, the sum begins behind the result.
    if _says_sum(tokens, start, right.usual.stop) or (linked and _says_sum(tokens, begin, end)):
        return None
    # "August 1-17 is 17 days"
    if spoken and end - begin == 3 and tokens[begin + 1].text == "-" and not tokens[begin + 1].gap:
        return None
    if spoken and (linked or not _is_spoken_claim(left.usual.expr, right.usual.expr)):
        return None
    modulus = _modulus(tokens, right.usual.stop, len(tokens))
    sides = (left.usual, right.usual)
    return Relation(tokens[place].text, left, right, place, linked, spoken, modulus, sides)


def _says_sum(tokens: Sequence[Token], start: int, stop: int) -> bool:
    return any(token.spoken and token.text in ("+", "-") for token in tokens[start:stop])


def _is_number(expr: Expr) -> bool:
    return isinstance(expr, Num) or (
        isinstance(expr, Call) and expr.op in ("neg", "%", "degrees") and _is_number(expr.args[0])
    )


def _may_begin(tokens: Sequence[Token], begin: int, sign: str, left: Read, right: Read) -> bool:
    """Tell whether a relation may begin with this left side; a lone number is likely the end of something else."""
    lone = _is_number(left.expr)
    if lone and (left.units or (sign == "=" and _is_number(right.expr))):
        return False
    return _may_precede(tokens, begin, lone)


def _is_spoken_claim(left: Expr, right: Expr) -> bool:
    """Tell "3 times 4 is 12" from "3/4 is $12" and "20% is 12", which speak of a share of something."""
    if not isinstance(left, Call) or not _is_number(right):
        return False
    if left.op == "/":
        above, below = left.args
        return not isinstance(above, Num) or not isinstance(below, Num) or above.value > below.value
    return left.op in ("+", "-", "*", "^", "!", "sqrt", "binom", "mod")


def _left_begin(tokens: Sequence[Token], before: int, end: int) -> int | None:
    """Walk left from a sign to where its left side begins; None if something strange stands there."""
    index, depth = end, 0
    while index > before:
        token = tokens[index - 1]
        if token.kind is Kind.CLOSE:
            depth += 1
        elif token.kind is Kind.OPEN:
            if depth == 0:
                break
            depth -= 1
        elif token.kind is Kind.STOP:
            break
        elif token.kind is Kind.STRANGE:
            return None
        elif token.kind is Kind.WORD and depth == 0:
            first = _unit_begin(tokens, before, index, end)
            if first is None:
                break
            index = first
            continue
        index -= 1
    return index if depth == 0 else None


def _unit_begin(tokens: Sequence[Token], before: int, index: int, end: int) -> int | None:
    """Return where the words that end before `index` begin if they are the unit of a number, else None."""
    after = tokens[index] if index < end else None
    if after is not None and not (after.kind is Kind.OPERATOR and after.text not in ("!", "%", "°")):
        return None
    first = index
    while first > before and tokens[first - 1].kind is Kind.WORD:
        first -= 1
    if first == before or not all(is_unit(token, place) for place, token in enumerate(tokens[first:index])):
        return None
    last = tokens[first - 1]
    of_a_number = last.kind in (Kind.NUMBER, Kind.CLOSE) or last.text in ("%", "°")
    denominator = last.text == "/" and last.kind is Kind.OPERATOR
    return first if of_a_number or denominator else None


def _may_precede(tokens: Sequence[Token], begin: int, lone: bool) -> bool:
    """Tell whether what stands before a left side leaves it alone."""
    if begin == 0:
        return True
    last, first = tokens[begin - 1], tokens[begin]
    earlier = tokens[begin - 2] if begin > 1 else None
    if first.text == "+" or (first.text == "-" and first.formula and last.text == "\n"):
        return False
    if last.kind is Kind.STOP:
        if last.text == "\n" or earlier is None:
            return True
        if earlier.kind is Kind.OPERATOR:
            return False  # ".8 + . 84"
        if last.text == "," and not first.gap:
            return False
        if earlier.kind is first.kind is Kind.NUMBER:
            # "14, 400" and "141,007,8125" are numbers that came apart.
            return last.text != "," or len(first.text) != 3
        return last.text != ":" or earlier.kind is not Kind.NUMBER or first.text not in ("-", "(")
    if last.kind is Kind.OPEN:
        return earlier is None or earlier.kind in (Kind.STOP, Kind.WORD, Kind.RELATION) or last.gap
    if last.kind is Kind.RELATION and last.spoken:
        return True
    if last.kind is not Kind.WORD or not (first.gap or first.edge):
        return False
    if first.text == "-" and tokens[begin + 1].gap:
        return False
    return _word_may_precede(tokens, begin - 1, lone)


def _word_may_precede(tokens: Sequence[Token], place: int, lone: bool) -> bool:
    """Tell whether the words that end at `place` leave the formula behind them alone."""
    while place > 0 and tokens[place].text in _ARTICLES and tokens[place - 1].kind is Kind.WORD:
        place -= 1
    word = tokens[place].text.split()[-1]
    earlier = tokens[place - 1] if place else None
    if lone:
        return word in STATING
    if word == "of":
        apposition = earlier is not None and earlier.kind is Kind.WORD and earlier.text not in OF_FUNCTIONS
        return apposition and not _number_is_near(tokens, place)
    if word in DOUBTFUL_BEFORE or word in LABELLED:
        return False
    if word in DOUBTFUL_AFTER_NUMBER and _number_is_near(tokens, place):
        return False
    # "4 + Shonda (1) + 2 = 7": the words are an operand themselves; but "a 45-pound plate" has a hyphen.
    while place > 0 and tokens[place].kind is Kind.WORD:
        place -= 1
    hyphen = tokens[place].text == "-" and not tokens[place].gap and not tokens[place + 1].gap
    return hyphen or tokens[place].kind is not Kind.OPERATOR or tokens[place].text in ("%", "!", "°")


def _number_is_near(tokens: Sequence[Token], place: int) -> bool:
    """Tell whether a number stands shortly before a word; the result of an equation does not count."""
    for index in range(place - 1, max(place - 5, -1), -1):
        if tokens[index].kind in (Kind.STOP, Kind.RELATION):
            return False
        if tokens[index].kind in (Kind.NUMBER, Kind.CLOSE):
            return index == 0 or tokens[index - 1].kind is not Kind.RELATION
    return False


def _may_follow(tokens: Sequence[Token], end: int, stop: int, spoken: bool) -> bool:
    """Tell whether what stands behind a right side leaves it alone."""
    if end >= stop:
        return True
    token = tokens[end]
    after = tokens[end + 1] if end + 1 < stop else None
    if token.kind is Kind.STOP:
        return _stops(token, after)
    if token.kind is Kind.CLOSE or (token.kind is Kind.COMMAND and token.text == "pmod"):
        return True
    if token.spoken and token.text == "*":
        return True
    if token.kind is Kind.OPEN:
        return token.gap and token.text != "{"
    if token.kind is Kind.NAME:
        alone = after is None or after.kind is not Kind.OPERATOR
        return alone and token.gap and not token.formula and token.text not in "xyzXYZnabRr"
    if token.kind is not Kind.WORD:
        return False
    word = token.text.split()[0]
    if spoken and word in DOUBTFUL_AFTER_IS:
        return False
    if word == "and" and after is not None and after.kind in (Kind.NUMBER, Kind.COMMAND):
        behind = tokens[end + 2].text if end + 2 < stop else ""
        return after.kind is Kind.NUMBER and behind != "/" and after.value is not None and after.value >= 1
    return word not in DOUBTFUL_AFTER


def _stops(token: Token, after: Token | None) -> bool:
    """Tell whether a mark ends the right side before it, rather than a part of it."""
    if token.text == "\n" and after is not None and after.kind is Kind.OPERATOR:
        return False  # the formula goes on in the next line
    if after is None or after.kind not in (Kind.NUMBER, Kind.STRANGE, Kind.OPEN, Kind.OPERATOR):
        return True
    # "3,5" may be a decimal or a list, "191, 000" is one number, "2 : 3" a ratio.
    if token.text == ",":
        return after.gap and len(after.text) != 3
    return token.text != ":"


def _modulus(tokens: Sequence[Token], end: int, stop: int) -> Expr | None:
    r"""Read the "(mod 7)" or `\pmod{7}` that closes the chain of relations which goes on at `end`."""
    for place in range(end, min(end + 40, stop - 1)):
        token = tokens[place]
        if token.kind is Kind.STOP and token.text != ",":
            return None
        if token.text in ("mod", "pmod") and token.kind in (Kind.OPERATOR, Kind.COMMAND):
            opens = tokens[place + 1].text == "{"
            number = tokens[min(place + 1 + opens, stop - 1)]
            return Num(number.value) if number.value is not None else None
    return None
