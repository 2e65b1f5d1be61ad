"""Worked solutions as text and calculations: reading the calculator marks of GSM8K and writing them back.

GSM8K's reference solutions mark each calculation as `48/2 = <<48/2=24>>24`. A line becomes a sequence of plain texts
and `Calc`s, so that a number can be changed where it is written, in the mark, and wherever it is mentioned, and all of
them stay consistent.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(NUMBER)
_FREE_NUMBER = re.compile(rf"(?<![\w./]){NUMBER}(?![\d/]|\.\d)")
_MARK = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_RESULT = re.compile(rf"\s*(\$?)\s*({NUMBER})")
_EQUALS = re.compile(r"\s*=\s*(\$?)\s*$")
_TOKEN = re.compile(rf"\s*(?:(\$?)\s?({NUMBER})(\s?%)?|([-+*/()x×÷–]))")
_RUN = re.compile(rf"(?:\s*(?:\$?\s?{NUMBER}(?:\s?%)?|[-+*/()x×÷–]))+$")
_PLAIN = {"x": "*", "×": "*", "÷": "/", "–": "-"}
_OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@dataclass(frozen=True, slots=True)
class Num:
    """A number as it is written: `$1,200` is `Num("1,200", currency=True)`."""

    text: str
    currency: bool = False
    percent: bool = False

    @property
    def value(self) -> Fraction:
        """What is written, a percent sign taken as a hundredth."""
        return to_fraction(self.text) / (100 if self.percent else 1)


Token = Num | str
"""A number, or one of `+ - * / ( )`."""


@dataclass(frozen=True, slots=True)
class Calc:
    """One calculation and its stated result."""

    tokens: tuple[Token, ...]
    result: str
    """The result as it is written, without a currency sign."""
    currency: bool
    shown: bool
    """Whether the expression stands in the text as well; otherwise it is known from the mark only."""
    via: tuple[Token, ...] = ()
    """An intermediate expression written between the expression and the result; usually none."""

    @property
    def value(self) -> Fraction:
        """The stated result."""
        return to_fraction(self.result)

    @property
    def numbers(self) -> list[Num]:
        """The operands, in reading order."""
        return [token for token in self.tokens if isinstance(token, Num)]


Line = tuple[str | Calc, ...]
"""One step of a solution, in reading order."""


def to_fraction(text: str) -> Fraction:
    """Read a decimal with optional thousands separators exactly."""
    return Fraction(text.replace(",", ""))


def evaluate(tokens: Iterable[Token]) -> Fraction | None:
    """Compute an expression exactly; None if it is malformed or divides by zero."""
    source = "".join(
        token if isinstance(token, str) else f"({token.value.numerator}/{token.value.denominator})" for token in tokens
    )
    try:
        return _evaluate(ast.parse(source, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None


def _evaluate(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int(value)):
            return Fraction(value)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluate(operand)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(left), _evaluate(right))
        case _:
            raise ValueError(f"not arithmetic: {ast.dump(node)}")


def agrees(exact: Fraction | None, stated: Fraction) -> bool:
    """Whether a stated result is the exact one, or the exact one rounded the way the reference solutions do."""
    if exact is None:
        return False
    off = abs(exact - stated)
    return off == 0 or off <= Fraction(1, 100) or (stated.denominator == 1 and stated > 20 and off < 1)


def tokenize(text: str) -> list[Token] | None:
    """Cut an expression into tokens; None if anything else stands in it."""
    tokens: list[Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            return None
        sign = found[4]
        tokens.append(_PLAIN.get(sign, sign) if sign else Num(found[2], bool(found[1]), bool(found[3])))
        at = found.end()
    return tokens


def _written_expression(before: str, value: Fraction) -> tuple[str, tuple[Token, ...]] | None:
    """Find the expression that a text ends with: the text left of it, and its tokens, if it has the stated value."""
    run = _RUN.search(before)
    if run is None:
        return None
    for start in [found.start() for found in re.finditer(r"[\d.($]", run[0])]:
        at = run.start() + start
        if at and before[at] != "(" and (before[at - 1].isalnum() or before[at - 1] in ".,$"):
            continue
        tokens = tokenize(before[at:])
        if tokens and len(tokens) > 2 and agrees(evaluate(tokens), value):
            return before[:at], tuple(tokens)
    return None


def parse_line(line: str) -> Line | None:
    """Read one line of a reference solution; None if a mark cannot be read or states a wrong result."""
    pieces: list[str | Calc] = []
    at = 0
    for mark in _MARK.finditer(line):
        after = _RESULT.match(line, mark.end())
        tokens = tokenize(mark[1])
        if after is None or not tokens or not agrees(evaluate(tokens), to_fraction(after[2])):
            return None
        before, value = line[at : mark.start()], to_fraction(after[2])
        equals = _EQUALS.search(before)
        written = _written_expression(before[: equals.start()], value) if equals else None
        if equals and written:
            pieces += [written[0], Calc(written[1], after[2], bool(equals[1] or after[1]), shown=True)]
        else:
            pieces += [before, Calc(tuple(tokens), after[2], bool(after[1]), shown=False)]
        at = after.end()
    rest = line[at:]
    if "<<" in rest:
        return None
    return (*pieces, rest)


def last_calc(line: Line) -> Calc | None:
    """The calculation whose result the line is about."""
    return next((piece for piece in reversed(line) if isinstance(piece, Calc)), None)


def numbers_in(text: str) -> list[Fraction]:
    """All numbers of a text in order, small ones in words included."""
    digits = [to_fraction(found[0]) for found in _NUMBER.finditer(text)]
    words = re.findall(r"[a-z]+", text.lower())
    return digits + [Fraction(_WORDS.index(word)) for word in words if word in _WORDS]


def write_number(value: Fraction, like: str) -> str | None:
    """Write a value the way `like` is written; None if that takes more decimals than two and than `like` has."""
    decimals = len(like.partition(".")[2])
    if (value * 10 ** max(decimals, 2)).denominator != 1:
        return None
    separator = "," if "," in like else ""
    if value.denominator == 1:
        return f"{int(value):{separator}}" + ("." + "0" * decimals if set(like.partition(".")[2]) == {"0"} else "")
    whole, _, part = f"{float(value):{separator}.{max(decimals, 2)}f}".partition(".")
    return f"{whole}.{part if decimals == 2 else part.rstrip('0')}"


def replace_numbers(text: str, changes: Mapping[Fraction, Fraction]) -> str:
    """Rewrite the free-standing numbers of a text that are keys of `changes`."""

    def rewrite(found: re.Match[str]) -> str:
        new = changes.get(to_fraction(found[0]))
        return found[0] if new is None else write_number(new, found[0]) or found[0]

    return _FREE_NUMBER.sub(rewrite, text)
