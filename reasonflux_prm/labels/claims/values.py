"""The value of an expression: an exact fraction where it has one, a float where it is irrational, within limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from reasonflux_prm.labels.claims.expressions import Expr, Name, Num, holds

Value = Fraction | float
"""Exact, or good to some 12 digits."""

TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_MOST_BITS = 20_000
_LARGEST_FACTORIAL = 1_000


class NoValue(Exception):
    """The expression has no value (division by zero, an unknown name), or finding it would take too much work."""


def evaluate(expr: Expr, known: Mapping[str, Value] | None = None) -> Value:
    """Evaluate an expression.

    Args:
        expr: The parser bounds its depth and size.
        known: Values of names; π need not be among them.

    Raises:
        NoValue: There is none, it is complex or infinite, or it is larger than about 6,000 digits.
    """
    if isinstance(expr, Num):
        return expr.value
    if isinstance(expr, Name):
        if known is not None and expr.text in known:
            return known[expr.text]
        if expr.text == "π":
            return math.pi
        raise NoValue
    args = [evaluate(arg, known) for arg in expr.args]
    try:
        if expr.op in TRIGONOMETRIC and holds(expr, "degrees"):
            args[0] = math.radians(args[0])
        return _within_limits(_apply(expr.op, args))
    except (ZeroDivisionError, ValueError, OverflowError):
        raise NoValue from None


def _within_limits(value: Value) -> Value:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NoValue
    elif max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        raise NoValue
    return value


def _apply(op: str, args: list[Value]) -> Value:
    first = args[0]
    if len(args) == 1:
        return _unary(op, first)
    second = args[1]
    if op == "scale":
        op = "*"
    if op in "+-*/":
        both: tuple[Value, Value] = (first, second)
        if isinstance(first, float) or isinstance(second, float):
            both = (float(first), float(second))
        a, b = both
        return a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b
    if op == "^":
        return power(first, second)
    if op == "root":
        return power(first, 1 / Fraction(_whole(second)))
    if op == "mod":
        return Fraction(_whole(first) % _whole(second))
    if op == "binom":
        n, k = _whole(first), _whole(second)
        if k < 0 or not 0 <= n <= _LARGEST_FACTORIAL:
            raise NoValue
        return Fraction(math.comb(n, k))
    if op == "log":
        return _root_free(math.log(first) / math.log(second))
    raise NoValue


def _unary(op: str, value: Value) -> Value:
    if op == "neg":
        return -value
    if op == "%":
        return value / 100
    if op == "!":
        n = _whole(value)
        if not 0 <= n <= _LARGEST_FACTORIAL:
            raise NoValue
        return Fraction(math.factorial(n))
    if op == "sqrt":
        return power(value, Fraction(1, 2))
    if op == "degrees":
        return value  # a unit; a function of an angle sees it
    if op in ("log", "ln"):
        return _root_free(math.log(value))
    if op == "exp":
        return math.exp(value)
    if op in ("sin", "cos", "tan"):
        return _root_free({"sin": math.sin, "cos": math.cos, "tan": math.tan}[op](value))
    if op in ("cot", "sec", "csc"):
        return _root_free(1 / {"cot": math.tan, "sec": math.cos, "csc": math.sin}[op](value))
    raise NoValue


def _root_free(value: float) -> float:
    """Clear away what rounding leaves of a zero, and refuse what it makes of a pole."""
    if abs(value) > 1e12:
        raise NoValue
    return 0.0 if abs(value) < 1e-12 else value


def _whole(value: Value) -> int:
    if isinstance(value, float) or value.denominator != 1:
        raise NoValue
    return value.numerator


def power(base: Value, exponent: Value) -> Value:
    """Raise `base` to `exponent`: exactly if the result is rational, real roots of negative numbers included.

    Raises:
        NoValue: The result is complex, infinite or too large.
    """
    if isinstance(base, float) or isinstance(exponent, float):
        if base < 0 and not (isinstance(exponent, Fraction) and exponent.denominator == 1):
            raise NoValue
        return math.pow(base, exponent)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator == 1:
        if size * abs(exponent.numerator) > _MOST_BITS and abs(base) != 1 and base != 0:
            raise NoValue
        if abs(base) == 1:
            return base if exponent.numerator % 2 else Fraction(1)
        return base**exponent.numerator
    root, odd = exponent.denominator, exponent.denominator % 2 == 1
    if base < 0 and not odd:
        raise NoValue
    if root > 64 or size * abs(exponent.numerator) > _MOST_BITS:
        raise NoValue
    top, bottom = (_integer_root(n, root) for n in (abs(base.numerator), base.denominator))
    if top is not None and bottom is not None:
        exact = Fraction(top, bottom)
        return (-exact if base < 0 else exact) ** exponent.numerator
    return math.copysign(float(abs(base)) ** float(exponent), -1 if base < 0 and exponent.numerator % 2 else 1)


def _integer_root(n: int, root: int) -> int | None:
    """Return the exact root of n, or None if there is none."""
    if root == 2:
        found = math.isqrt(n)
    else:
        if n.bit_length() > 1000:
            return None
        found = round(n ** (1 / root))
    return next((k for k in (found, found - 1, found + 1) if k >= 0 and k**root == n), None)
