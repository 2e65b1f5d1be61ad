"""The number of an answer that is a number, whatever stands around it."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from reasonflux_prm.grading.keys import Reading, read_answer

_MAX_CHARACTERS: Final = 1000
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_SCIENTIFIC = re.compile(
    r"(?P<mantissa>[-+]?\d+(?:\.\d+)?)(?:[eE]|\s*(?:\\times|\\cdot|[x*\u00d7\u22c5])\s*10\s*\^)\s*\{?\s*(?P<power>[-+]?\d{1,3})\s*\}?"
)
_NUMBER = re.compile(
    r"(?<![\w.^_])-?\d+(?:\.\d+)?(?:\s*/\s*\d+)?(?![\w^]*[\^_=(]|\.?\d|[a-zA-Z]+(?:\d|(?<![a-zA-Z]{2})\b))"
)
_BEFORE = re.compile(r"[-+*/^)}\]]\s*$")
_BEHIND = re.compile(r"\s*(?:[-+*/^(\[]|\\(?!text|mathrm|mbox|%|\$|[,;! )])|%?\s*[*+/])")
"""What makes a number a part of an expression."""
_SCALES = re.compile(r"\d\s*(?:hundred|thousand|million|billion|trillion|dozen)", re.IGNORECASE)


def read_number(answer: str) -> Reading | None:
    r"""Return the number that an answer gives; None if it gives none, or several.

    Words and units around it do not matter, and of equations the last right-hand side counts.

    Example:
        >>> [str(read_number(answer).value) for answer in ("$1,250 a day", "3 + 4 = 7 apples", r"1.5 \times 10^3")]
        ['1250', '7', '1500']
        >>> read_number("between 5 and 6") is None
        True
    """
    if len(answer) > _MAX_CHARACTERS:
        return None
    for text in (answer, re.split(r"=|\\approx|\u2248", answer)[-1]):
        reading = read_answer(text)
        if not isinstance(reading.value, str):
            return reading
    if found := _SCIENTIFIC.fullmatch(str(reading.value)):
        return Reading(Fraction(found["mantissa"]) * Fraction(10) ** int(found["power"]), reading.name, reading.unit)
    text = _THOUSANDS.sub("", text)
    numbers = list(_NUMBER.finditer(text))
    if len(numbers) != 1 or _SCALES.search(text):
        return None
    found = numbers[0]
    if _BEFORE.search(text[: found.start()]) or _BEHIND.match(text, found.end()):
        return None
    reading = read_answer(found[0])
    return None if isinstance(reading.value, str) else Reading(reading.value, unit="%" if "%" in text else "")
