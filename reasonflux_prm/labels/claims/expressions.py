"""What the parser makes of a formula: numbers as they were written, names, and operators applied to them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Num:
    """A number as it was written."""

    value: Fraction
    decimals: int = 0
    """Digits shown behind the point."""


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, or the constant π."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or a function and what it is applied to."""

    op: str
    """`+ - * / ^ neg % ! sqrt root binom mod degrees`, `scale` (3 million), or a function's name.

    `log` may have its base as second argument.
    """
    args: tuple[Expr, ...]


Expr = Num | Name | Call


def names(expr: Expr) -> frozenset[str]:
    """Return the variables of an expression; π is none."""
    if isinstance(expr, Name):
        return frozenset() if expr.text == "π" else frozenset({expr.text})
    if isinstance(expr, Num):
        return frozenset()
    return frozenset().union(*(names(arg) for arg in expr.args))


def leaves(expr: Expr) -> list[Num | Name]:
    """Return the numbers and names of an expression in the order in which they were written."""
    return [leaf for arg in expr.args for leaf in leaves(arg)] if isinstance(expr, Call) else [expr]


def numbers(expr: Expr) -> list[Num]:
    """Return the numbers of an expression in the order in which they were written."""
    return [leaf for leaf in leaves(expr) if isinstance(leaf, Num)]


def holds(expr: Expr, *ops: str) -> bool:
    """Tell whether any of these operators stands anywhere in an expression."""
    return isinstance(expr, Call) and (expr.op in ops or any(holds(arg, *ops) for arg in expr.args))
