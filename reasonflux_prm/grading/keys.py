r"""The normal form of a final answer: what two writings of it have in common.

It knows numbers, fractions, mixed numbers, units and the habits of LaTeX, and does no algebra: `2\sqrt{2}` and
`\sqrt{8}` are two answers here, and one to `grading.math_grader`. What it calls the same is the same, so that graders
may take its word for it; what it calls different may still be the same.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

Key = Fraction | str

ROUNDING: Final = Fraction(1, 10**6)
"""Numbers are the same if they differ by less than this, and by less than `SIGNIFICANT` of the reference."""
SIGNIFICANT: Final = Fraction(1, 1000)

_MAX_CHARACTERS = 1000
"""A longer answer is compared as it stands."""

_SIGNS = str.maketrans(
    {**dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"), "\u2044": "/", "\u2215": "/"}
)
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_WORDS = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf)|mbox|operatorname)\s*\{([^{}]*)\}")
_PERCENT = re.compile(r"\\?%|\bper\s?cent\b", re.IGNORECASE)
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[,;:! ]|\\?\$|\\[()\[\]]|\^\s?\{?\\circ\}?|\u00b0|\*\*|`"
)
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_UNIT = re.compile(
    r"(?<=[\d}])\s+(?!(?:sin|cos|tan|cot|sec|csc|log|exp|sqrt|mod|max|min|and|plus|minus|times\s|over|divided|hundred"
    r"|thousand|million|billion|trillion|dozen|half|halves|thirds?|quarters?)\b)"
    r"(?P<unit>[a-z]{3,}(?:\s+[a-z]+){0,3}"
    r"|(?:[kcm]?m|[km]?g|m?l|ft|in|yd|mi|lbs?|oz|s|h|hr?s?|mph|[km]?[jwv]|n|hz)(?:\s?\^\s?\{?-?\d\}?)?(?:/[a-z]{1,3}\d?)?)"
    r"\s*\.?\s*$",
    re.IGNORECASE,
)
"""Words behind a number and a space: of three letters or more, or known units, so that `3 pm` stays what it is."""
_MEASURE_WORDS = """
second minute hour day week month year cent dollar euro pound inch feet foot yard mile meter metre kilometer kilometre
centimeter centimetre millimeter millimetre gram kilogram ounce liter litre gallon degree radian
"""
_MEASURES = frozenset(_MEASURE_WORDS.split())
"""Units that make two answers different; other words behind a number (`5 red apples`) say what is counted."""

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_ENCLOSED = re.compile(rf"\(({_NUMBER.pattern})\)")
_RATIO = re.compile(rf"(?P<top>{_NUMBER.pattern})/(?P<bottom>{_NUMBER.pattern})")
_MIXED = re.compile(
    r"(?P<sign>[-+]?)\s*(?P<whole>\d+)(?:\s*\\[dtc]?frac\s*\{?\s*(?P<top>\d+)\s*\}?\s*\{\s*(?P<bottom>\d+)\s*\}"
    r"|\s*\\[dtc]?frac\s*(?P<one>\d)\s*(?P<other>\d)|\s+(?P<above>\d+)\s*/\s*(?P<below>\d+))"
)
_ARGUMENT = r"(?:\{([^{}]*)\}|([0-9a-zA-Z]))"
_FRACTION = re.compile(rf"\\[dtc]?frac\s*{_ARGUMENT}\s*{_ARGUMENT}")
_PLAIN = re.compile(r"-?[0-9.]+|[a-zA-Z]")
_NAMED = re.compile(r"\s*(?P<name>[a-zA-Z])\s*=(?P<value>[^=<>]+)")
_ROOT = re.compile(r"(?<=\\sqrt)\{(\w)\}")
_BRACES = re.compile(r"\{(\w)\}(?!\w)")
_ZEROS = re.compile(r"(?<=\d)\.0+(?!\d)")
_RUNS = re.compile(r"\\[a-zA-Z]+|[a-zA-Z]{2,}")
_LETTER = re.compile(r"\(?[a-zA-Z]\)?")
_SENTENCE = re.compile(r"[^\W\d_][^\W\d_'\u2019\-, ]*(?:[-', \u2019]+[^\W\d_]+)*")
_LONG_WORD = re.compile(r"[^\W\d_]{3,}")
FUNCTIONS = re.compile(r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|log|exp|sqrt|mod|max|min|infty|det|gcd|lcm")


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer taken apart."""

    value: Key
    """The number, if it is one, or else the bare text."""
    name: str = ""
    """The letter it is said to be the value of: `x` in `x = 5`."""
    unit: str = ""
    """The words behind a number, or `%`."""


def read_answer(answer: str) -> Reading:
    """Take an answer apart into its value and what stands around it."""
    if len(answer) > _MAX_CHARACTERS:
        return Reading(answer)
    text = _VULGAR.sub(lambda found: " " + unicodedata.normalize("NFKC", found[0]), answer).translate(_SIGNS)
    text = _WORDS.sub(r" \1", text)
    text, percents = _PERCENT.subn("", text)
    text = _THOUSANDS.sub("", _DROPPED.sub("", text)).strip().rstrip(".,;: \t\n")
    name, unit = "", "%" if percents else ""
    if named := _NAMED.fullmatch(text):
        name, text = named["name"].casefold(), named["value"].strip()
    if found := _UNIT.search(text):
        unit, text = found["unit"].casefold(), text[: found.start()]
    value = _mixed(text)
    return Reading(_bare(text) if value is None else value, name, unit)


def answer_key(answer: str) -> Key:
    r"""Return what two writings of the same answer have in common: the number, if it is one, or else the bare text.

    Example:
        >>> answer_key("$1,200.00$"), answer_key(r"1\dfrac{3}{6}"), answer_key(r"\text{(B)}")
        (Fraction(1200, 1), Fraction(3, 2), '(b)')
    """
    return read_answer(answer).value


def same_answer(one: str, other: str) -> bool:
    """Whether two answers are the same by their keys, and no unit or name that both give contradicts it."""
    return same_reading(read_answer(one), read_answer(other))


def same_reading(one: Reading, other: Reading) -> bool:
    """Whether two readings are of the same answer; see `same_answer`."""
    return one.value == other.value and agree(one, other)


def agree(one: Reading, other: Reading) -> bool:
    """Whether two readings do not name different variables or different measures."""
    if one.name and other.name and one.name != other.name:
        return False
    first, second = _measure(one.unit), _measure(other.unit)
    return not (first and second) or first == second


def same_number(answer: Reading, reference: Reading) -> bool | None:
    """Whether two numbers are the same, to the rounding that is stated above; None if one of them is no number.

    A percentage is the same as its number of hundredths and as the number before the sign: 50%, 0.5 and 50 may each be
    the answer to a question for a percentage.
    """
    one, other = answer.value, reference.value
    if isinstance(one, str) or isinstance(other, str):
        return None
    if not agree(answer, reference):
        return False
    factors = [Fraction(1)]
    if (answer.unit == "%") != (reference.unit == "%"):
        factors.append(Fraction(1, 100) if answer.unit == "%" else Fraction(100))
    return any(_close(one * factor, other) for factor in factors)


def is_words(answer: str) -> bool:
    """Whether an answer is said in words (`Tuesday`, `no solution`) and is nothing to calculate with."""
    text = _WORDS.sub(r"\1", answer[:_MAX_CHARACTERS]).strip().rstrip(".!").strip("\"'$ ")
    return bool(_SENTENCE.fullmatch(text) and _LONG_WORD.search(text) and not FUNCTIONS.search(text.casefold()))


def _close(one: Fraction, other: Fraction) -> bool:
    gap = abs(one - other)
    return gap == 0 or gap < min(ROUNDING, SIGNIFICANT * abs(other))


def _measure(unit: str) -> str:
    """Return the measure that a unit is, in the singular; empty if it is none."""
    for word in unit.split():
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if form in _MEASURES:
                return "foot" if form == "feet" else form
    return ""


def _bare(text: str) -> Key:
    text = _RUNS.sub(lambda run: run[0] if run[0].startswith("\\") else run[0].casefold(), text)
    text = _ROOT.sub(r"\1", text)
    # From the inside out, one level a round.
    while (plain := _FRACTION.sub(_ratio, text)) != text:
        text = plain
    text = "".join(_ZEROS.sub("", text).split())
    text = _BRACES.sub(r"\1", text)
    if _LETTER.fullmatch(text):
        text = text.casefold()
    return text if (value := _number(text)) is None else value


def _ratio(found: re.Match[str]) -> str:
    parts = [
        next(group for group in pair if group is not None).strip() for pair in (found.group(1, 2), found.group(3, 4))
    ]
    top, bottom = (part if _PLAIN.fullmatch(part) else f"({part})" for part in parts)
    whole = found.group() == found.string.strip().lstrip("+-")
    return f"{top}/{bottom}" if whole else f"({top}/{bottom})"


def _mixed(text: str) -> Fraction | None:
    found = _MIXED.fullmatch(text)
    if found is None:
        return None
    top, bottom = (
        next(int(part) for part in found.group(*names) if part is not None)
        for names in (("top", "one", "above"), ("bottom", "other", "below"))
    )
    # Behind a whole number, 3/2 is a factor and no remainder.
    if top >= bottom:
        return None
    value = int(found["whole"]) + Fraction(top, bottom)
    return -value if found["sign"] == "-" else value


def _number(text: str) -> Fraction | None:
    text = _ENCLOSED.sub(r"\1", text) if _ENCLOSED.fullmatch(text) else text
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    if (ratio := _RATIO.fullmatch(text)) and Fraction(ratio["bottom"]) != 0:
        return Fraction(ratio["top"]) / Fraction(ratio["bottom"])
    return None
