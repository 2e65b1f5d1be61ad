"""Finds the equations that are meant to follow from the equation right before them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from reasonflux_prm.labels.claims.algebra import Consequence, Equation
from reasonflux_prm.labels.claims.expressions import Name, names
from reasonflux_prm.labels.claims.relations import Relation
from reasonflux_prm.labels.claims.tokens import Token

_LONGEST_LINK = 120
_LINK = re.compile(
    r"""(?:[\s,.;:$*&()\[\]\\{}⇒→∴>=-]|\d|\b(?:
    so|thus|therefore|hence|then|which|that|this|we|gives?|giving|get|gets|have|means?|meaning|implies|implying|it|is|
    simplif\w+|becomes?|now|subtract\w*|add\w*|divid\w*|multipl\w*|both|sides?|each|by|from|to|the|equation|of|yields?|
    combin\w+|like|terms|solv\w+|obtain\w*|leads|us|Rightarrow|implies|rightarrow|quad|qquad|text|begin|end|align\w*|
    left|right|next|finally|expand\w*|results?|in|leaves?|equivalent|simply|just|isolat\w+|rearrang\w+|for|[a-z])\b)*+""",
    re.IGNORECASE | re.VERBOSE,
)


def consequences(
    text: str, tokens: Sequence[Token], chains: Sequence[Sequence[Relation]]
) -> Iterator[tuple[Consequence, Sequence[Relation]]]:
    """Yield each equation that is linked to the one before by nothing but words of derivation, and its chain.

    Only equations in one variable, the same in both, whose first one is not solved yet: `x = 2, x = 3` are two
    solutions or two cases.
    """
    for before, chain in pairwise(chains):
        given, then = _equation(before), _equation(chain)
        if given is None or then is None or _is_solved(given):
            continue
        variables = names(given.left) | names(given.right)
        if len(variables) != 1 or variables != names(then.left) | names(then.right):
            continue
        start = tokens[before[-1].sides[1].stop - 1].stop
        link = text[start : tokens[chain[0].left.begin].start]
        if link.strip(" ,$") and len(link) <= _LONGEST_LINK and _LINK.fullmatch(link):
            yield Consequence(given, then), chain


def _equation(chain: Sequence[Relation]) -> Equation | None:
    """Return what a chain says as one equation: its first side against its last."""
    if any(relation.sign != "=" or relation.modulus is not None for relation in chain):
        return None
    if len(chain) > 1 and any(names(relation.sides[1].expr) for relation in chain):
        return None
    return Equation(chain[0].sides[0].expr, chain[-1].sides[1].expr)


def _is_solved(equation: Equation) -> bool:
    sides = (equation.left, equation.right)
    return any(isinstance(side, Name) for side in sides) and any(not names(side) for side in sides)
