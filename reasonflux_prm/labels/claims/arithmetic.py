"""Is a relation between numbers true? Exact fractions decide; a result is false only under every reading of it.

Rounding: a result that shows d digits behind the point may be off by less than one in the last of them (rounded or cut
off). A whole number for a broken one, and operands that may be rounded themselves, leave the claim undecided, as do
units that can be turned into one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import TypeGuard

from reasonflux_prm.labels.claims.expressions import Call, Expr, Name, Num, holds, names, numbers
from reasonflux_prm.labels.claims.parser import Reading
from reasonflux_prm.labels.claims.relations import Read, Relation
from reasonflux_prm.labels.claims.values import NoValue, Value, evaluate
from reasonflux_prm.labels.claims.vocabulary import FACTORS, MEASURES

_CLOSE = 10**9
"""Floats are one number if they differ by less than this part of the larger one."""
_LESS = frozenset({"less", "fewer", "short", "below", "behind", "younger", "lower", "cheaper", "debt", "loss"})
"""Words behind a difference that say its sign."""
_LONG = 10**15
"""Numbers from here on are written with an exponent."""
_MOST_DOUBTS = 4
_MOST_OPERANDS = 20


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one relation."""

    holds: bool | None
    """None: it cannot be decided."""
    why: str = ""


UNDECIDED = Decision(None, "it cannot be decided")


def is_arithmetic(relation: Relation) -> bool:
    """Tell whether both sides of a relation are free of variables."""
    return not any(names(side.expr) for side in relation.sides)


def decide(relation: Relation, text: str, known: Mapping[str, Value] | None = None) -> Decision:
    """Decide a relation between numbers.

    Args:
        relation: Each of its names has a value in `known`.
        text: The relation as it stands in the text, for signs that the tokens have dropped ($, %).
        known: Values of names.

    Returns:
        True if it holds under one reading of it at least, False if it holds under none, None if units, rounding or the
        limits on the work leave it open.
    """
    first: Decision | None = None
    for reading in _readings(relation):
        left, right = relation.left.read(reading), relation.right.read(reading)
        if left is None or right is None:
            continue
        decision = _compare(relation, left.expr, right.expr, known)
        if decision.holds:
            return decision
        if first is None or decision.holds is None:
            first = decision
    if first is None or first.holds is None:
        return UNDECIDED
    left, right = relation.sides
    if right.units & _LESS and _same_value(Call("neg", (left.expr,)), right.expr, known):
        return UNDECIDED
    if Reading.LETTER_X in left.doubts | right.doubts or _has_unknowns(left, right):
        return UNDECIDED
    if _may_be_conversion(relation, text, known) or _is_shorthand(relation, known):
        return UNDECIDED
    return first


def _has_unknowns(left: Read, right: Read) -> bool:
    """Tell whether units stand for unknown prices: "1,800 + 2 monitors = 2,400", "3 pencils + 1 eraser = 124"."""
    if left.partly_measured and not right.units:
        return True
    kinds = len(left.units) > 1 and holds(left.expr, "+", "-")
    fraction = isinstance(left.expr, Call) and left.expr.op == "/" and len(numbers(left.expr)) == 2
    lone = not isinstance(left.expr, Call) or (fraction and bool(right.units))
    return (kinds or lone) and bool(left.units) and not left.units & right.units


def _readings(relation: Relation) -> Iterator[Reading]:
    """Yield the usual reading, and every mix of the second ones that this relation gives reason for."""
    yield Reading.USUAL
    doubts = Reading.USUAL
    for side in relation.sides:
        doubts |= side.doubts
    if relation.sign != "=":
        doubts &= ~Reading.FLAT_POWER
    flags = list(doubts)[:_MOST_DOUBTS]
    for size in range(1, len(flags) + 1):
        for chosen in combinations(flags, size):
            reading = Reading.USUAL
            for flag in chosen:
                reading |= flag
            yield reading


def _compare(relation: Relation, left: Expr, right: Expr, known: Mapping[str, Value] | None) -> Decision:
    try:
        a, b = evaluate(left, known), evaluate(right, known)
    except NoValue:
        return UNDECIDED
    sign = relation.sign
    if relation.modulus is not None and sign in ("≡", "="):
        return _congruent(a, b, relation.modulus, sign)
    if sign == "≡":
        return UNDECIDED
    same = equal(a, b)
    if sign in ("=", "≈"):
        holds = True if same else _rounded(left, right, a, b, sign)
    elif sign == "≠":
        holds = not same
    else:
        holds = _ordered(left, right, a, b, sign, same)
    return Decision(holds, "" if holds else _explain(left, right, a, b))


def equal(a: Value, b: Value) -> bool:
    """Tell whether two values are one number; floats need not agree in their last digits."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    exact_a, exact_b = _fraction(a), _fraction(b)
    return abs(exact_a - exact_b) * _CLOSE <= max(abs(exact_a), abs(exact_b), Fraction(1, 1000))


def differ(a: Value, b: Value) -> bool:
    """Tell whether two values of one name are further apart than rounding explains."""
    if abs(_fraction(a) - _fraction(b)) < 1 and _is_whole(a) != _is_whole(b):
        return False
    return not equal(a, b) and abs(_fraction(a) - _fraction(b)) * 50 > max(abs(_fraction(a)), abs(_fraction(b)))


def _congruent(a: Value, b: Value, modulus: Expr, sign: str) -> Decision:
    whole = [value.numerator for value in (a, b, evaluate(modulus)) if _is_whole(value)]
    if len(whole) < 3 or whole[2] <= 0:
        return UNDECIDED
    if (whole[0] - whole[1]) % whole[2] == 0:
        return Decision(True)
    # With "=" the modulus may belong to something else in the sentence.
    return UNDECIDED if sign == "=" else Decision(False, f"they differ by {whole[0] - whole[1]}, modulo {whole[2]}")


def _is_whole(value: Value) -> TypeGuard[Fraction]:
    return isinstance(value, Fraction) and value.denominator == 1


def _ordered(left: Expr, right: Expr, a: Value, b: Value, sign: str, same: bool) -> bool | None:
    if same:
        return sign in ("≤", "≥")
    if (a < b) == (sign in ("<", "≤")):
        return True
    play = _slack(left) + _slack(right) + max(_resolution(left), _resolution(right))
    # Whole numbers that are compared are meant as they stand.
    return None if play < 1 and abs(_fraction(a) - _fraction(b)) <= play else False


def _rounded(left: Expr, right: Expr, a: Value, b: Value, sign: str) -> bool | None:
    """Decide two different values: True if one is the other rounded, None if rounding may explain it."""
    difference = abs(_fraction(a) - _fraction(b))
    shown = [_resolution(side) for side in (left, right) if _is_shown(side)]
    step = max(shown, default=Fraction(0))
    scaled = any(holds(side, "scale", "*") for side in (left, right) if _is_shown(side) and _resolution(side) == step)
    if step > 0 and (step < 1 or scaled) and difference < step:
        result, exact = (a, b) if _is_shown(left) and not _is_shown(right) else (b, a)
        cut_off = abs(_fraction(result)) < abs(_fraction(exact))
        return True if cut_off or difference <= step / 2 else None
    largest = max(abs(number.value) for number in (*numbers(left), *numbers(right)))
    if sign == "≈":
        # Rounded operands that cancel leave little but their rounding.
        return difference <= max(step, abs(_fraction(a)) / 10, abs(_fraction(b)) / 10, largest / 100)
    if difference <= largest / 10**9 and any(number.decimals > 9 for number in numbers(right)):
        return True  # what a computer prints
    # 7/2 = 3 may be meant; that a whole number is not broken is seen elsewhere, in what is done with it.
    if step >= 1 and difference < step:
        return None
    slack = _slack(left) + _slack(right)
    return None if slack and difference <= step + slack else False


def _fraction(value: Value) -> Fraction:
    return value if isinstance(value, Fraction) else Fraction(value)


def _is_shown(expr: Expr) -> bool:
    """Tell whether an expression is one number as written, with at most a sign, a percent sign and a power of ten."""
    if isinstance(expr, Num):
        return True
    if not isinstance(expr, Call):
        return False
    if expr.op in ("neg", "%", "degrees"):
        return _is_shown(expr.args[0])
    if not isinstance(expr.args[0], Num):
        return False
    return expr.op == "scale" or (expr.op == "*" and _is_power_of_ten(expr.args[1]))


def _is_power_of_ten(expr: Expr) -> bool:
    ten = Num(Fraction(10))
    return isinstance(expr, Call) and expr.op == "^" and expr.args[0] == ten and not names(expr)


def _resolution(expr: Expr) -> Fraction:
    """Return one in the last digit shown of a number; 0 for anything but a number."""
    if not _is_shown(expr):
        return Fraction(0)
    if isinstance(expr, Num):
        return Fraction(1, 10**expr.decimals)
    assert isinstance(expr, Call)
    if expr.op == "%":
        return _resolution(expr.args[0]) / 100
    if expr.op in ("*", "scale"):
        try:
            return _resolution(expr.args[0]) * _fraction(evaluate(expr.args[1]))
        except NoValue:
            return Fraction(0)
    return _resolution(expr.args[0])


def _slack(expr: Expr) -> Fraction:
    """Return by how much rounded operands may have moved a value; those with two decimals or more may be rounded."""
    if isinstance(expr, Num):
        return Fraction(0)
    try:
        value = evaluate(expr)
        moved = Fraction(0)
        for place, number in enumerate(numbers(expr)[:_MOST_OPERANDS]):
            if number.decimals >= 2:
                shifted = Num(number.value + Fraction(1, 10**number.decimals) / 2, number.decimals)
                moved += abs(_fraction(evaluate(_replaced(expr, place, shifted)[0])) - _fraction(value))
    except NoValue:
        return Fraction(0)
    return moved


def _replaced(expr: Expr, place: int, number: Num) -> tuple[Expr, int]:
    """Put `number` for the place-th number of an expression; also return how many numbers were passed."""
    if isinstance(expr, Num):
        return (number if place == 0 else expr), 1
    if isinstance(expr, Name):
        return expr, 0
    args, passed = [], 0
    for arg in expr.args:
        new, count = _replaced(arg, place - passed, number)
        args.append(new)
        passed += count
    return Call(expr.op, tuple(args)), passed


def _may_be_conversion(relation: Relation, text: str, known: Mapping[str, Value] | None) -> bool:
    """Tell whether units could make a false equation true: $2 = 200 cents, 1 hour + 30 minutes = 90 minutes."""
    left, right = sides = relation.sides
    measured = [
        {word.rstrip("es") for unit in side.units for word in unit.split() if word in MEASURES} for side in sides
    ]
    if len(measured[0] | measured[1]) > 1:
        return True
    factors: Iterable[Fraction] = FACTORS if measured[0] != measured[1] else ()
    cents = any(isinstance(side.expr, Num) and side.expr.decimals == 2 for side in sides)
    if cents or any(sign in text for sign in ("$", "€", "£", "%", "¢", "percent")):
        factors = {*factors, Fraction(100), Fraction(1000), Fraction(10**6)}
    try:
        a, b = (_fraction(evaluate(side.expr, known)) for side in (left, right))
    except NoValue:
        return True
    if ("π" in str(left.expr)) != ("π" in str(right.expr)):
        if relation.sign == "≈":
            return True
        factors = {*factors, Fraction(180 / math.pi)}
    return a != 0 and b != 0 and any(_near(a, b * factor) or _near(b, a * factor) for factor in factors)


def _near(a: Fraction, b: Fraction) -> bool:
    return abs(a - b) * 200 <= abs(a)


def _is_shorthand(relation: Relation, known: Mapping[str, Value] | None) -> bool:
    """Tell whether a false equation is well meant.

    The right side goes on with the left one's result (5 + 3 = 8 * 2, 2*10 = 20 + 2*3 = 6), works off the first part
    of a long sum, or writes a division with remainder (49/2 = 24*2 + 1).
    """
    left, right = relation.sides
    if relation.linked and isinstance(left.expr, Call) and left.expr.op in ("+", "-"):
        last = left.expr.args[1]
        if isinstance(last, Call) and _same_value(last, right.expr, known):
            return True
    if not isinstance(right.expr, Call) or right.expr.op in ("neg", "%"):
        return False
    before, after = numbers(left.expr), numbers(right.expr)
    if 1 < len(after) < len(before) and before[: len(after)] == after:
        return True
    # In 18 + 5 - 9 = 14 - 9 the last 9 was there before: that is no sum that goes on, but one that went wrong.
    goes_on = len(before) < 3 or not any(number in before for number in after[1:])
    if isinstance(left.expr, Call) and left.expr.op == "/" and _same_value(left.expr.args[0], right.expr, known):
        return True
    try:
        value = evaluate(left.expr, known)
        first: Expr = right.expr
        while isinstance(first, Call):
            first = first.args[0]
            if goes_on and equal(value, evaluate(first, known)):
                return True
    except NoValue:
        return False
    return False


def _same_value(a: Expr, b: Expr, known: Mapping[str, Value] | None) -> bool:
    try:
        return equal(evaluate(a, known), evaluate(b, known))
    except NoValue:
        return False


def _explain(left: Expr, right: Expr, a: Value, b: Value) -> str:
    if _is_shown(left) and not _is_shown(right):
        return f"right side is {write(b)}"
    if _is_shown(right) and not _is_shown(left):
        return f"left side is {write(a)}"
    return f"left side is {write(a)}, right side is {write(b)}"


def write(value: Value) -> str:
    """Write a value as a reader would: 36, 0.25, 10/3, 1.41421, 1.26765e+30."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if max(abs(value.numerator), value.denominator) >= _LONG:
        return f"{Decimal(value.numerator) / value.denominator:.6g}"
    if value.denominator == 1:
        return str(value.numerator)
    short = f"{float(value):.6g}"
    return short if Fraction(short) == value else f"{value.numerator}/{value.denominator}"
