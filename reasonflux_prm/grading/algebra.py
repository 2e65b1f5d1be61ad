"""Whether two expressions are the same, by computer algebra: the function that the workers of `math_grader` run.

It runs without a time limit of its own and may well hang, so it is for worker processes only.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, Literal

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Eq

from reasonflux_prm.grading.latex import to_latex

# Without its signal-based timeouts, which are what the workers are for, math-verify warns on every start.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_CONFIG = [LatexExtractionConfig()]


# Plain text, since unpickling a class of this module would load math-verify where the result is read.
Relation = Literal["same", "different", "answer unread", "reference unread"]


def compare(item: tuple[str, str, bool]) -> Relation:
    """Compare a reference with an answer, (reference, answer, whether either may be the reference).

    math-verify is not symmetric: `x = 5` given for `5` and `5` given for `x = 5` are told apart, and so are intervals
    and inequalities.
    """
    reference, answer, either = item
    if not (given := _parsed(answer)):
        return "answer unread"
    if not (gold := _parsed(reference)):
        return "reference unread"
    same = _verified(gold, given) or (either and _verified(given, gold))
    return "same" if same else "different"


def _verified(gold: list[Any], given: list[Any]) -> bool:
    # A set and the inequality that describes it are one answer.
    return bool(verify(gold, given, timeout_seconds=None, allow_set_relation_comp=True))


@lru_cache(maxsize=4096)
def _parsed(text: str) -> list[Any]:
    """Return what a text parses to, which is one expression or nothing; never a part of the text that happens to."""
    found = parse(f"${to_latex(text)}$", _CONFIG, "no_fallback", "first_match", parsing_timeout=None)
    return [_value(expression) for expression in found if not isinstance(expression, str)]


def _value(expression: Any) -> Any:
    """Return the right side of an equation between numbers: `9 - 5 = 4` answers 4.

    As equations any two of them would be the same, for both are true, and connect the answers that they give.
    """
    between_numbers = isinstance(expression, Eq) and not expression.free_symbols
    return expression.rhs if between_numbers else expression
