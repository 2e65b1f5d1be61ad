"""Wrong and equivalent versions of one step, and what a wrong value does to the steps after it.

A wrong version is the kind of step a careless solver writes: its surface (length, digits, operators, round numbers)
must not tell it from a right one, so every rule keeps the type and about the size of the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

from recipes.prm_first.calc import (
    Calc,
    Line,
    Num,
    Token,
    agrees,
    evaluate,
    last_calc,
    replace_numbers,
    write_number,
)

CONVERSIONS = frozenset(map(Fraction, ("100", "0.01", "60", "12", "7", "24", "52", "365", "30", "1000")))
_CONSTANTS = CONVERSIONS | {Fraction(n) for n in (0, 1, 2, 3, 4)}

_TERSE = "0.1"
"""Written like this, a number has no more decimals than it needs."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a solver has before a step: the numbers a slip can take from the wrong place."""

    given: tuple[Fraction, ...]
    """Numbers of the problem."""
    earlier: tuple[Fraction, ...]
    """Results of the steps before, in order."""
    typical: Mapping[Fraction, int]
    """How often each value is a result in the whole data set."""


def slip(text: str, typical: Mapping[Fraction, int], rng: Random) -> str:
    """Write a near miss of a number: same type, another value.

    A near miss that is itself a common result is preferred, so that wrong results are distributed as right ones are
    (right results of word problems are small, even and round more often than chance).
    """
    digits = text.replace(",", "").replace(".", "")
    kept = len(digits.rstrip("0")) or 1
    if len(digits) > kept and rng.random() < 0.35:
        kept = rng.randint(kept, len(digits))
    head, tail, decimals = int(digits[:kept]), digits[kept:], len(text.partition(".")[2])
    # A last digit that turns into 0 (or out of 0) would make round results a cue.
    near = [n for n in _near(head) if n > 0 and (n % 10 == 0) == (head % 10 == 0)]
    wholes = [(str(n) + tail).zfill(len(digits)) for n in near or [head + 1]]
    one = 10**decimals
    wholes = [w for w in wholes if (int(w) % one == 0) == (int(digits) % one == 0)] or [str(int(digits) + one)]
    if not decimals and rng.random() < 0.15:
        wholes += [digits + "0"] + [digits[:-1]] * (digits.endswith("0") and len(digits) > 1)
    weights = [
        (typical.get(Fraction(int(whole), one), 0) + 1) * (1.0 if int(whole.rstrip("0")) % 2 else 1.5)
        for whole in wholes
    ]
    whole = rng.choices(wholes, weights)[0]
    left, right = whole[: len(whole) - decimals] or "0", whole[len(whole) - decimals :]
    left = f"{int(left):,}" if "," in text else left
    return f"{left}.{right}" if decimals else left


def _near(number: int) -> list[int]:
    """Numbers that a slip turns `number` into: a little off, a wrong carry, two digits exchanged."""
    near = {number + d for d in (-3, -2, -1, 1, 2, 3) if abs(d) < 3 or number >= 8}
    for place in (10, 100):
        if number >= 2 * place:
            near |= {number - place, number + place}
    digits = str(number)
    near |= {int(digits[:i] + digits[i + 1] + digits[i] + digits[i + 2 :]) for i in range(len(digits) - 1)}
    return sorted(n for n in near if n != number and len(str(n)) == len(digits))


def _restate(calc: Calc, tokens: Sequence[Token]) -> Calc | None:
    """The same calculation with another expression, correctly computed; None if the result would look out of place."""
    exact, old = evaluate(tokens), calc.value
    if any(tokens[i : i + 3 : 2] == ["(", ")"] for i in range(len(tokens) - 2)):
        return None
    if exact is None or exact <= 0 or agrees(exact, old) or (exact.denominator == 1) != (old.denominator == 1):
        return None
    if old > 0 and not Fraction(1, 40) <= exact / old <= 40:
        return None
    text = write_number(exact, calc.result)
    return replace(calc, tokens=tuple(tokens), result=text, via=()) if text else None


def _with_token(tokens: Sequence[Token], at: int, new: Token) -> list[Token]:
    return [*tokens[:at], new, *tokens[at + 1 :]]


def _pick(options: Sequence[Calc | None], rng: Random) -> Calc | None:
    found = [option for option in options if option is not None]
    return rng.choice(found) if found else None


def _arithmetic(calc: Calc, scene: Scene, rng: Random) -> Calc | None:
    result = slip(calc.result, scene.typical, rng)
    exact, wrong = evaluate(calc.tokens), replace(calc, result=result)
    # A rounded reference result has right neighbours (3.33 and 3.34); an exact one has none.
    return None if exact != calc.value and agrees(exact, wrong.value) else wrong


def _operator(calc: Calc, scene: Scene, rng: Random) -> Calc | None:
    swaps = {"+": "*-", "-": "+/", "*": "+/", "/": "*-"}
    return _pick(
        [
            _restate(calc, _with_token(calc.tokens, i, new))
            for i, token in enumerate(calc.tokens)
            if isinstance(token, str) and i > 0
            for new in swaps.get(token, "")
        ],
        rng,
    )


def _swap_operand(calc: Calc, pool: Sequence[Fraction], only: Callable[[Num], bool], rng: Random) -> Calc | None:
    options = []
    for i, token in enumerate(calc.tokens):
        if not isinstance(token, Num) or token.percent or not only(token):
            continue
        for value in dict.fromkeys(pool):
            text = write_number(value, token.text)
            if text and value > 1 and all(number.value != value for number in calc.numbers):
                options.append(_restate(calc, _with_token(calc.tokens, i, replace(token, text=text))))
    return _pick(options, rng)


def _operand(calc: Calc, scene: Scene, rng: Random) -> Calc | None:
    return _swap_operand(calc, scene.given, lambda number: number.value not in CONVERSIONS, rng)


def _stale(calc: Calc, scene: Scene, rng: Random) -> Calc | None:
    return _swap_operand(calc, scene.earlier, lambda number: number.value in scene.earlier, rng)


def _misread(calc: Calc, scene: Scene, rng: Random) -> Calc | None:
    options = []
    for i, token in enumerate(calc.tokens):
        if isinstance(token, Num) and token.value > 4 and token.value not in CONVERSIONS:
            near = replace(token, text=slip(token.text, scene.typical, rng))
            if near.value not in (*scene.given, *scene.earlier):
                options.append(_restate(calc, _with_token(calc.tokens, i, near)))
    return _pick(options, rng)


def _without(calc: Calc, at: int) -> Calc | None:
    """Leave out the operand at `at` with the operator that joins it."""
    if at and calc.tokens[at - 1] in ("+", "-", "*", "/"):
        return _restate(calc, [*calc.tokens[: at - 1], *calc.tokens[at + 1 :]])
    if at + 1 < len(calc.tokens) and calc.tokens[at + 1] in ("+", "*"):
        return _restate(calc, [*calc.tokens[:at], *calc.tokens[at + 2 :]])
    return None


def _terms(calc: Calc) -> list[int]:
    """Where the numbers stand in an expression of three or more."""
    places = [i for i, token in enumerate(calc.tokens) if isinstance(token, Num)]
    return places if len(places) > 2 else []


def _converts(calc: Calc, at: int) -> bool:
    """Whether the number at `at` only changes the unit: a hundredth, minutes in an hour."""
    number, sign = calc.tokens[at], calc.tokens[at - 1] if at else calc.tokens[1]
    return isinstance(number, Num) and number.value in CONVERSIONS and sign in ("*", "/")


def _forgotten(calc: Calc, scene: Scene, rng: Random) -> Calc | None:
    return _pick([_without(calc, i) for i in _terms(calc) if not _converts(calc, i)], rng)


def _conversion(calc: Calc, scene: Scene, rng: Random) -> Calc | None:
    return _pick([_without(calc, i) for i in _terms(calc) if _converts(calc, i)], rng)


def _reversed(calc: Calc, scene: Scene, rng: Random) -> Calc | None:
    if len(calc.tokens) != 3 or calc.tokens[1] != "/":
        return None
    return _restate(calc, calc.tokens[::-1])


def _precedence(calc: Calc, scene: Scene, rng: Random) -> Calc | None:
    """Compute strictly from left to right: 2 + 2 * 5 = 20."""
    if len(calc.numbers) < 3 or not {"+", "-"} & set(calc.tokens) or {"(", ")"} & set(calc.tokens):
        return None
    left: Token = calc.tokens[0]
    for sign, right in zip(calc.tokens[1::2], calc.tokens[2::2], strict=False):
        value = evaluate([left, sign, right])
        text = write_number(value, _TERSE) if value is not None else None
        if text is None:
            return None
        left = Num(text)
    wrong = _restate(calc, [left])
    return replace(wrong, tokens=calc.tokens) if wrong else None


KINDS: Mapping[str, tuple[float, Callable[[Calc, Scene, Random], Calc | None]]] = {
    "arithmetic": (0.30, _arithmetic),
    "operator": (0.16, _operator),
    "operand": (0.20, _operand),
    "stale": (0.20, _stale),
    "misread": (0.08, _misread),
    "forgotten": (0.50, _forgotten),
    "conversion": (0.70, _conversion),
    "precedence": (0.90, _precedence),
    "reversed": (0.15, _reversed),
}
"""Kinds of wrong calculation with their weights; a kind that does not fit a step gives way to the next drawn."""


def wrong_version(line: Line, scene: Scene, rng: Random) -> tuple[Line, str] | None:
    """Draw one wrong version of a step and its kind; None if the step has no calculation."""
    calc = last_calc(line)
    if calc is None or calc.value <= 0:
        return None
    weights = {kind: weight for kind, (weight, _) in KINDS.items() if calc.shown or kind == "arithmetic"}
    while weights:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        wrong = KINDS[kind][1](calc, scene, rng)
        if wrong is not None:
            return _put(line, calc, wrong, scene), kind
        del weights[kind]
    return None


def _put(line: Line, old: Calc, new: Calc, scene: Scene) -> Line:
    """Put a calculation in the place of another, and rewrite the text's mentions of its result."""
    changes = {old.value: new.value}
    if old.value in scene.given or any(number.value == old.value for number in old.numbers):
        changes = {}
    if len(old.tokens) == len(new.tokens):
        for before, after in zip(old.tokens, new.tokens, strict=True):
            if isinstance(before, Num) and isinstance(after, Num) and before.value != after.value:
                changes.setdefault(before.value, after.value)
    return tuple(
        new if piece is old else replace_numbers(piece, changes) if isinstance(piece, str) else piece for piece in line
    )


def misstated(line: Line, scene: Scene, rng: Random) -> Line | None:
    """Misquote a number in a step that calculates nothing; None if it quotes none."""
    if last_calc(line) is not None:
        return None
    text = "".join(piece for piece in line if isinstance(piece, str))
    if "=" in text:
        return None
    known = {*scene.given, *scene.earlier}
    quoted = [found[0] for found in re.finditer(r"(?<![\w.,%/])\d+(?![\w,%/]|\.\d)", text)]
    quoted = [number for number in quoted if int(number) > 4 and Fraction(number) in known]
    if not quoted:
        return None
    number = rng.choice(quoted)
    near = slip(number, scene.typical, rng)
    return None if Fraction(near) in known else (replace_numbers(text, {Fraction(number): Fraction(near)}),)


def carry_on(
    lines: Sequence[Line], old: Fraction, new: Fraction, taken: Sequence[Fraction]
) -> tuple[list[Line], dict[Fraction, Fraction]] | None:
    """Rewrite steps as someone would who got `new` for `old` just before, and return all values that changed.

    Args:
        lines: The steps after the wrong one.
        old: The right result of the wrong step.
        new: The wrong one.
        taken: Values that have another origin (the problem, earlier steps): a number equal to one of them may not
            be the result that changed.

    Returns:
        The steps and a map from right to wrong values; None if it is not certain which numbers change or if a
        result makes no sense (negative, a fraction of something that was whole, far off).
    """
    origins, changed, out = set(taken) | _CONSTANTS, {old: new}, []
    if old in origins:
        return None
    for line in lines:
        pieces: list[str | Calc] = []
        for piece in line:
            if isinstance(piece, str):
                if "=" in piece and replace_numbers(piece, changed) != piece:
                    return None
                pieces.append(replace_numbers(piece, changed))
                continue
            calc = _recompute(piece, changed)
            if calc is None:
                return None
            if calc is piece:
                origins.add(piece.value)
            elif calc.value != piece.value:
                if piece.value in origins or changed.get(piece.value, calc.value) != calc.value:
                    return None
                changed[piece.value] = calc.value
            pieces.append(calc)
        if any(value in origins for value in changed):
            return None
        out.append(tuple(replace_numbers(p, changed) if isinstance(p, str) and "=" not in p else p for p in pieces))
    return out, changed


def _recompute(calc: Calc, changed: Mapping[Fraction, Fraction]) -> Calc | None:
    tokens: list[Token] = []
    for token in calc.tokens:
        if isinstance(token, Num) and token.value in changed:
            text = write_number(changed[token.value], token.text)
            if text is None:
                return None
            token = replace(token, text=text)
        tokens.append(token)
    if tuple(tokens) == calc.tokens:
        return calc
    exact, old = evaluate(tokens), calc.value
    if exact is None or exact <= 0 or (exact.denominator == 1) != (old.denominator == 1):
        return None
    if not Fraction(1, 50) <= exact / old <= 50 if old > 0 else True:
        return None
    text = write_number(exact, calc.result)
    return replace(calc, tokens=tuple(tokens), result=text, via=()) if text else None


def equivalent_version(line: Line, rng: Random) -> tuple[Line, str] | None:
    """Draw a right version of a step whose calculation is written in another way; None if there is none."""
    calc = last_calc(line)
    if calc is None or not calc.shown:
        return None
    exact = evaluate(calc.tokens)
    equal = [(kind, t) for kind, t in _equal_expressions(calc.tokens) if t != calc.tokens and evaluate(t) == exact]
    options = [(kind, replace(calc, tokens=tokens)) for kind, tokens in equal]
    expanded = _one_operation_done(calc.tokens)
    if expanded and evaluate(expanded) == exact:
        options += [("expanded", replace(calc, via=expanded))] * 2
    if not options:
        return None
    kind, new = rng.choice(options)
    return tuple(new if piece is calc else piece for piece in line), kind


def _one_operation_done(tokens: tuple[Token, ...]) -> tuple[Token, ...] | None:
    """Compute the operation that comes first: 2 + 2 * 5 becomes 2 + 10; None if there is only one."""
    if sum(isinstance(token, Num) for token in tokens) < 3:
        return None
    triples = [i for i in range(len(tokens) - 2) if isinstance(tokens[i], Num) and isinstance(tokens[i + 2], Num)]
    inner = [i for i in triples if tokens[i - 1 : i] == ("(",) and tokens[i + 3 : i + 4] == (")",)]
    products = [i for i in triples if tokens[i + 1] in ("*", "/")]
    at = (inner or products or triples or [-1])[0]
    value = evaluate(tokens[at : at + 3]) if at >= 0 else None
    text = write_number(value, _TERSE) if value is not None and value > 0 else None
    if text is None:
        return None
    first = tokens[at]
    done = Num(text, currency=isinstance(first, Num) and first.currency)
    return (*tokens[: at - 1], done, *tokens[at + 4 :]) if inner else (*tokens[:at], done, *tokens[at + 3 :])


def _equal_expressions(tokens: tuple[Token, ...]) -> list[tuple[str, tuple[Token, ...]]]:
    found: list[tuple[str, tuple[Token, ...]]] = []
    signs = {token for token in tokens if isinstance(token, str)}
    if len(tokens) >= 3 and signs in ({"+"}, {"*"}):
        found.append(("commuted", tokens[::-1]))
    for i in range(len(tokens) - 2):
        left, sign, right = tokens[i : i + 3]
        if isinstance(left, Num) and isinstance(right, Num) and sign == "/" and right.value in (2, 4, 5, 10, 100):
            outer = {*tokens[max(i - 1, 0) : i], *tokens[i + 3 : i + 4]}
            text = write_number(left.value / right.value, _TERSE)
            if text and outer == {"*"}:
                found.append(("decimal", (*tokens[:i], Num(text), *tokens[i + 3 :])))
    for i, token in enumerate(tokens):
        if isinstance(token, Num) and token.percent and 0 < token.value < 1:
            text = write_number(token.value, _TERSE)
            if text:
                found.append(("decimal", _swap(tokens, i, (Num(text),))))
            found.append(("fraction", _swap(tokens, i, ("(", Num(token.text), "/", Num("100"), ")"))))
        if tokens[i : i + 1] == ("/",) and i + 1 < len(tokens) and tokens[i + 1] == Num("2"):
            found.append(("half", (*tokens[:i], "*", Num("0.5"), *tokens[i + 2 :])))
        if token == "*" and i + 1 < len(tokens) and tokens[i + 1] == Num("2") and len(tokens) == 3:
            found.append(("doubled", (tokens[0], "+", tokens[0])))
    return found


def _swap(tokens: tuple[Token, ...], at: int, new: tuple[Token, ...]) -> tuple[Token, ...]:
    return (*tokens[:at], *new, *tokens[at + 1 :])
