"""Algebraic claims, decided by a computer algebra system (sympy) in worker processes.

An equation with variables is mostly a condition, and a condition is no claim. Two kinds of equation are more:

- A rewriting, `(x+1)^2 = x^2 + 2x + 1`. Identities are told by trying points. Any other equation is called a
  false rewriting only if it makes no sense as a condition: both sides differ by a constant other than zero
  (`3(x+2) = 3x + 5`), they are different multiples of one monomial (`2x + 3x = 6x`), or one term is wrong.
- A consequence, `2x + 3 = 7, so 2x = 4`, in one variable. It is false if both have no solution in common.

`answer` runs in the workers and is the only function here that imports sympy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from reasonflux_prm.labels.claims.arithmetic import equal
from reasonflux_prm.labels.claims.expressions import Call, Expr, Name, Num, holds, names, numbers
from reasonflux_prm.labels.claims.values import NoValue, Value, evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKER = "reasonflux_prm.labels.claims.algebra:answer"
_POINTS = (Fraction(3, 7), Fraction(-5, 3), Fraction(11, 4), Fraction(2))
_STRIDE = Fraction(7, 5)
_HIGHEST_DEGREE = 12
_MOST_TERMS = 60
_MOST_PRODUCTS = 5_000
"""Monomials of the degree and variables that an equation may have."""
_NEAR, _ROUNDED = 0.02, 0.005
"""Relative distances below which two roots may be one, and are one, where decimals are rounded."""


@dataclass(frozen=True, slots=True)
class Equation:
    """Two sides of an equation."""

    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Rewriting:
    """The question whether the sides of an equation that is no identity are a rewriting that went wrong."""

    equation: Equation


@dataclass(frozen=True, slots=True)
class Consequence:
    """The question whether `then` may follow from `given`; both have one variable, the same."""

    given: Equation
    then: Equation


Question = Rewriting | Consequence
Answer = tuple[bool | None, str]
"""Does it hold (None: it cannot be told), and if not, why."""


def is_identity(equation: Equation) -> bool | None:
    """Try an equation at several points: True if it holds at all of them, None if it has no value at most of them."""
    variables = sorted(names(equation.left) | names(equation.right))
    tried = 0
    for first in _POINTS:
        point: dict[str, Value] = {name: first + place * _STRIDE for place, name in enumerate(variables)}
        try:
            a, b = evaluate(equation.left, point), evaluate(equation.right, point)
        except NoValue:
            continue
        tried += 1
        if not equal(a, b):
            return False
    return True if tried >= 2 else None


def answer(questions: Sequence[Question]) -> list[Answer]:
    """Answer questions with sympy; one that is beyond it is None."""
    found: list[Answer] = []
    for question in questions:
        try:
            found.append(_rewriting(question) if isinstance(question, Rewriting) else _consequence(question))
        except (NoPolynomial, ArithmeticError, ValueError, TypeError, NotImplementedError):
            found.append((None, ""))
    return found


class NoPolynomial(Exception):
    """An expression is no polynomial with rational coefficients, or too large a one."""


def _to_sympy(expr: Expr) -> Any:
    import sympy

    if isinstance(expr, Num):
        return sympy.Rational(expr.value.numerator, expr.value.denominator)
    if isinstance(expr, Name):
        if expr.text == "π":
            raise NoPolynomial
        return sympy.Symbol(expr.text)
    args = [_to_sympy(arg) for arg in expr.args]
    if expr.op == "neg":
        return -args[0]
    if expr.op in "+-*/" and len(args) == 2:
        a, b = args
        if expr.op == "/" and b == 0:
            raise NoPolynomial
        return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[expr.op]()
    if expr.op == "^" and args[1].is_Integer and abs(args[1]) <= _HIGHEST_DEGREE:
        return args[0] ** args[1]
    raise NoPolynomial


def _degree(expr: Expr) -> int:
    """Return a bound of the degree that an expression has once its products are worked out."""
    if not isinstance(expr, Call):
        return int(isinstance(expr, Name))
    degrees = [_degree(arg) for arg in expr.args]
    if expr.op == "^":
        exponent = expr.args[1]
        return degrees[0] * abs(int(exponent.value)) if isinstance(exponent, Num) else degrees[0]
    return sum(degrees) if expr.op in "*/" else max(degrees)


def _check_size(*sides: Expr) -> None:
    """Refuse an equation that would take long to expand, before it is tried."""
    degree = sum(map(_degree, sides))
    variables = len(frozenset().union(*map(names, sides)))
    if degree > 2 * _HIGHEST_DEGREE or math.comb(degree + variables, variables) > _MOST_PRODUCTS:
        raise NoPolynomial


def _polynomial(expr: Any, variables: Sequence[Any]) -> Any:
    import sympy

    try:
        found = sympy.Poly(expr, *variables, domain="QQ")
    except sympy.PolynomialError as error:
        raise NoPolynomial from error
    if found.total_degree() > _HIGHEST_DEGREE or len(found.terms()) > _MOST_TERMS:
        raise NoPolynomial
    return found


def _rewriting(question: Rewriting) -> Answer:
    equation = question.equation
    _check_size(equation.left, equation.right)
    left, right = _to_sympy(equation.left), _to_sympy(equation.right)
    variables = sorted(left.free_symbols | right.free_symbols, key=str)
    if not variables:
        return None, ""
    a, b = _polynomial(left, variables), _polynomial(right, variables)
    difference = a - b
    if difference.is_zero:
        return True, ""
    why = f"left side is {_written(a)}"
    if difference.is_ground:
        return False, why
    terms = {monomial for monomial, _ in a.terms()} | {monomial for monomial, _ in b.terms()}
    wrong = len(difference.terms())
    if len(terms) == 1 and isinstance(equation.left, Call) and _is_worked(equation.left):
        return False, why
    if is_product_of_sums(equation.left) == is_product_of_sums(equation.right):
        return None, ""
    agreed = len(terms) - wrong
    return (False, why) if agreed >= 2 and wrong == 1 else (None, "")


def _written(polynomial: Any) -> str:
    return str(polynomial.as_expr()).replace("**", "^")


def _is_worked(expr: Call) -> bool:
    """Tell whether an expression has work left to do, as `2x + 3x` has and `2x` has not."""
    return len(numbers(expr)) > 1 and holds(expr, "+", "-", "*", "/")


def is_product_of_sums(expr: Expr) -> bool:
    """Tell whether an expression could be expanded."""
    if not isinstance(expr, Call):
        return False
    if expr.op in "*^" and any(names(arg) and holds(arg, "+", "-") for arg in expr.args):
        return True
    return any(is_product_of_sums(arg) for arg in expr.args)


def _numerator(equation: Equation) -> Any:
    import sympy

    _check_size(equation.left, equation.right)
    top, _ = sympy.fraction(sympy.together(_to_sympy(equation.left) - _to_sympy(equation.right)))
    symbols = sorted(top.free_symbols, key=str)
    if len(symbols) != 1:
        raise NoPolynomial
    return _polynomial(top, symbols)


def _consequence(question: Consequence) -> Answer:
    given, then = _numerator(question.given), _numerator(question.then)
    if given.gens != then.gens or given.degree() < 1 or then.degree() < 1:
        return None, ""
    common = given.gcd(then)
    if common.degree() >= 1:
        return True, ""
    exact = not any(
        number.decimals
        for side in (question.given, question.then)
        for number in numbers(side.left) + numbers(side.right)
    )
    roots = [complex(root) for root in given.nroots(maxsteps=200)]
    others = [complex(root) for root in then.nroots(maxsteps=200)]
    nearest = min(abs(a - b) / max(abs(a), abs(b), 1e-9) for a in roots for b in others)
    if not exact and nearest <= _NEAR:
        return (True if nearest <= _ROUNDED else None), ""
    real = sorted(root.real for root in roots if abs(root.imag) < 1e-9)
    solved = " or ".join(f"{root:.6g}" for root in real) if real else "not real"
    return False, f"by the equation before, {given.gens[0]} is {solved}"
