r"""Final answers: where a trace states one, and when two of them are the same.

A small normaliser for numbers and short expressions, enough for votes among candidates of one problem. It does no
algebra: `2\sqrt{2}` and `\sqrt{8}` are two answers. Graders that do (math-verify) belong to a later issue.
"""

from __future__ import annotations

import re
from fractions import Fraction

from reasonflux_prm.records import Trace

_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s{0,9}\{)|\\[{}]|(?P<open>\{)|(?P<close>\})")
_TAGGED = re.compile(r"<answer>([^<>]{1,1000})</answer>", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S.*)$", re.MULTILINE)
_STATED = re.compile(
    r"\banswer(?:\s{1,9}(?:is|equals)\b\s{0,9}:?|\s{0,9}:)[\s*]{0,19}(?P<phrase>[^\s*].*)|^[ \t*]*A:(?P<line>.*\S)",
    re.MULTILINE | re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|(?<=\$)[.,](?=\s|$)")

_MAX_CHARACTERS = 1000
"""A longer answer is compared as it stands."""
_MAX_DIGITS = 100
"""A longer number is compared as text: exact arithmetic on what a stranger wrote must not run away."""
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_RATIO = re.compile(rf"(?P<top>{_NUMBER.pattern})/(?P<bottom>{_NUMBER.pattern})")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|\\!,)(?=\d{3}(?!\d))")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)\s*(\d))")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_LEFT_HAND = re.compile(r"[a-z]=(.+)")
_DROPPED = re.compile(r"\\left|\\right|\\[,;:!]|\\ |\\?\$|\\?%|\\[()\[\]]|\^\{?\\circ\}?|\*\*|`")
_ROOT = re.compile(r"(?<=\\sqrt)\{(\w)\}")
_BRACES = re.compile(r"\{(\w)\}")
_UNIT = re.compile(r"(?<=\d)\s+[a-z]{3,}(?:\s+[a-z]+){0,3}\s*\.?\s*$", re.IGNORECASE)
"""Words behind a number, at least three letters long, so that `3 pm` and `2 pi` stay what they are."""
_ZEROS = re.compile(r"(?<=\d)\.0+(?!\d)")

Key = Fraction | str


def final_answer(trace: Trace) -> str | None:
    """Return the final answer that a trace states, as it is written there; None if it states none.

    It is looked for in the response, or in the thinking if there is no response.
    """
    return stated_answer(trace.response if trace.response.strip() else trace.thinking)


def stated_answer(text: str) -> str | None:
    r"""Return the final answer that a text states, as it is written there; None if it states none.

    The first of these that the text has, and of several the last: `\boxed{x}`; `<answer>x</answer>`; `#### x`;
    `answer is x`, `answer: x` or a line `A: x`.
    """
    if (boxed := _last_boxed(text)) is not None:
        return boxed
    for marked in (_TAGGED, _HASHES):
        if found := marked.findall(text):
            return str(found[-1]).strip() or None
    phrases = [found["line"] or _first_sentence(found["phrase"]) for found in _STATED.finditer(text)]
    return phrases[-1].strip(" \t*") or None if phrases else None


def answer_key(answer: str) -> Key:
    r"""Return what two writings of the same answer have in common: the number, if it is one, or else the bare text.

    Example:
        >>> answer_key("$1,200.00$"), answer_key(r"\dfrac{3}{6}"), answer_key(r"\text{(B)}")
        (Fraction(1200, 1), Fraction(1, 2), '(b)')
    """
    if len(answer) > _MAX_CHARACTERS:
        return answer
    text = _WORDS.sub(r"\1", answer)
    text = _ROOT.sub(r"\1", _THOUSANDS.sub("", _DROPPED.sub("", text)))
    # From the inside out, one level a round.
    while (plain := _FRACTION.sub(_as_ratio, text)) != text:
        text = plain
    text = _ZEROS.sub("", _UNIT.sub("", text))
    text = "".join(text.split()).casefold().rstrip(".,;:")
    if named := _LEFT_HAND.fullmatch(text):
        text = named[1]
    text = _BRACES.sub(r"\1", text)
    return text if (value := _number(text)) is None else value


def same_answer(one: str, other: str) -> bool:
    """Whether two answers are the same, by `answer_key`."""
    return answer_key(one) == answer_key(other)


def _last_boxed(text: str) -> str | None:
    """Return what stands in the last box whose braces close, in one pass over the text."""
    opened: list[re.Match[str]] = []
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace["box"] or brace["open"]:
            opened.append(brace)
        elif brace["close"] and opened:
            opening = opened.pop()
            if opening["box"] and (last is None or opening.end() > last[0]):
                last = opening.end(), brace.start()
    return None if last is None else text[slice(*last)].strip() or None


def _first_sentence(text: str) -> str:
    return _SENTENCE_END.split(text, maxsplit=1)[0]


def _as_ratio(found: re.Match[str]) -> str:
    top, bottom = (found[1], found[2]) if found[1] is not None else (found[3], found[4])
    plain = all(re.fullmatch(r"\s*\w+\s*", part) for part in (top, bottom))
    return f"{top}/{bottom}" if plain else f"({top})/({bottom})"


def _number(text: str) -> Fraction | None:
    if len(text) > _MAX_DIGITS:
        return None
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    if (ratio := _RATIO.fullmatch(text)) and Fraction(ratio["bottom"]) != 0:
        return Fraction(ratio["top"]) / Fraction(ratio["bottom"])
    return None
