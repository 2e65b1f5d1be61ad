"""JSON as models write it: the flat objects in a text, whatever stands around them or is wrong with them.

Judges and template writers answer with lists of flat objects, and put them into code fences, add sentences, leave
commas behind, write formulas whose backslashes are no JSON, or are cut off. So there is no parser for the whole text,
but a scanner for its objects, in time linear in its length.

Where an object goes wrong, the likeliest cause is a quotation that was not escaped, and what follows may be the words
of the text under review. The scanner keeps what it read of the object, and says of those behind it that they are not
sound.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Leaf = str | float | bool | None

_STRING = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_KEY = re.compile(rf"[\s,]*+{_STRING.pattern}\s*+:\s*+", re.DOTALL)
_END = re.compile(r"[\s,]*+\}")
_PAIR_ENDS = r"(?=\s*+[,}])"
_NUMBER = re.compile(rf"[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?{_PAIR_ENDS}")
_QUOTIENT = re.compile(rf"[-+]?[\d.]++\s*+(?:%|/\s*+[\d.]++){_PAIR_ENDS}")
_WORD = re.compile(rf"[-+]?[A-Za-z]++{_PAIR_ENDS}")
_WORDS: Mapping[str, Leaf] = {
    "true": True,
    "false": False,
    "null": None,
    "none": None,
    "nan": math.nan,
    "infinity": math.inf,
    "inf": math.inf,
}


@dataclass(frozen=True, slots=True)
class FlatObject:
    """An object whose values are strings, numbers, truth values or null."""

    fields: Mapping[str, Leaf]
    """Names in lower case, stripped. Percentages and quotients (`80%`, `4/5`) are strings, as they were written."""
    around: Mapping[str, Leaf]
    """The fields that the object which holds it had before it; empty if it stands on its own."""
    whole: bool
    """False if it was cut off or went wrong behind `fields`."""
    sound: bool
    """False if an object before it went wrong: it may be part of that one's text."""
    stop: int
    """Where in the text it ends."""


def flat_objects(text: str) -> Iterator[FlatObject]:
    """Yield the flat objects in a text, in order."""
    around: Mapping[str, Leaf] = {}
    position, sound = 0, True
    while (start := text.find("{", position)) >= 0:
        fields, position, end = _read_fields(text, start + 1)
        if end == "nested":
            around = fields
        elif fields or end == "closed":
            yield FlatObject(fields, around, end == "closed", sound, position)
            sound = sound and end == "closed"
        # Else a brace of prose or of a formula.


def _read_fields(text: str, position: int) -> tuple[dict[str, Leaf], int, str]:
    """Read pairs from behind a brace; return them, where they end, and how: closed, nested, or broken."""
    fields: dict[str, Leaf] = {}
    while True:
        if closed := _END.match(text, position):
            return fields, closed.end(), "closed"
        if not (key := _KEY.match(text, position)):
            return fields, position, "broken"
        if text[key.end() : key.end() + 1] in ("{", "["):
            return fields, key.end(), "nested"
        value = _read_value(text, key.end())
        if value is None:
            return fields, key.end(), "broken"
        fields[_unescape(key[1]).strip().lower()] = value[0]
        position = value[1]


def _read_value(text: str, position: int) -> tuple[Leaf, int] | None:
    if found := _STRING.match(text, position):
        return _unescape(found[1]), found.end()
    if found := _NUMBER.match(text, position):
        return float(found[0]), found.end()
    if found := _QUOTIENT.match(text, position):
        return found[0], found.end()
    if (found := _WORD.match(text, position)) and found[0].lstrip("+-").lower() in _WORDS:
        return _WORDS[found[0].lstrip("+-").lower()], found.end()
    return None


def _unescape(raw: str) -> str:
    if "\\" not in raw and raw.isascii():
        return raw
    try:
        text = str(json.loads(f'"{raw}"', strict=False))
    except ValueError:
        # Backslashes of a formula: only those that JSON cannot do without are taken off.
        text = re.sub(r'\\(["\\/])', r"\1", raw)
    # A half of a surrogate pair cannot be written to any file.
    return text.encode("utf-8", "replace").decode("utf-8")
