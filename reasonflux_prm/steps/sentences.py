"""Where sentences and lines end, in text that mixes prose with mathematics.

Offsets are always behind the white space that follows, so a step keeps its trailing white space and the next one begins
with something visible (or with the indentation of its line).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# A line break and all white space behind it; spaces before it belong to the line they end.
_BREAK = re.compile(r"\n\s*")
# Marks that end a sentence, closing quotes and emphasis, white space. The look-behind and the possessive quantifiers
# keep a million dots linear. Full stops of Chinese and Japanese need no white space.
_STOP = re.compile(
    r"(?<![.!?…])(?P<mark>[.!?…]++)(?P<close>[\"'”’»)\]}*_$`]*+)[^\S\n]++(?=\S)"
    r"|(?<![。！？])[。！？]++[」』”’）]*+[^\S\n]*+(?=\S)"
)
# Never end a sentence, whatever follows.
_BINDING = frozenset(
    ("eg", "ie", "cf", "vs", "viz", "wrt", "Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Thm", "al", "ca", "approx", "resp")
)
# Bind a number or a reference that follows ("No. 3", "Eq. (2)"), and are words like any other without one ("No. Wait").
_NUMBERED = frozenset(
    ("No", "Nos", "Eq", "Eqs", "Fig", "Figs", "Sec", "Ch", "Lem", "Prop", "Cor", "Def", "Ex", "Ref", "Tab", "Vol", "pp")
)
# End a sentence only if the next word has a capital.
_SHORTENED = frozenset(("etc", "am", "pm", "Inc", "Ltd", "Co", "Jr", "Sr", "US", "UK", "PhD", "max", "min", "avg"))
_WORD = re.compile(r"(?:[A-Za-z]\.)*[A-Za-z]+\Z")
_LONGEST = 14
# "1", "(a", "iv", "Step 2", behind list signs and emphasis, with nothing else before them on the line.
_ENUMERATOR = re.compile(r"(?:\A|\n)[ \t>*_#-]*\(?(?:(?:Step|Case|Part|Option) )?(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})\)?\Z")
_INITIAL = re.compile(r"[A-Z][a-z]*\.? [A-Z]\Z")
_INITIAL_NEXT = re.compile(r"[A-Z]\.")
_GOES_ON = re.compile(r"[^\S\n]*+[a-z]{2,30}+(?![ ]?[=(\^_])")


def line_ends(text: str) -> Iterator[tuple[int, bool]]:
    """Yield the offset behind each run of line breaks, and whether the run holds a blank line."""
    for gap in _BREAK.finditer(text):
        run = gap.group()
        yield gap.start() + run.rindex("\n") + 1, run.count("\n") > 1


def sentence_stops(text: str) -> Iterator[int]:
    """Yield the offset behind each sentence that ends inside a line.

    Dots of abbreviations, initials, enumerators ("1. ") and ellipses that go on, exclamation marks that are factorials,
    and questions quoted inside a sentence end nothing.
    """
    for stop in _STOP.finditer(text):
        if stop["mark"] is None or _ends(text, stop):
            yield stop.end()


def joins_on(text: str, cut: int) -> bool:
    """Tell whether the line that begins at `cut` goes on with the sentence before: it begins with a lower-case word.

    A single letter is a variable and a word before "=" or "(" a function, so these begin a line of their own.
    """
    return _GOES_ON.match(text, cut) is not None


def dot_binds(text: str, dot: int, following: str) -> bool:
    """Tell whether the dot at offset `dot` must not be parted from the character `following` its white space.

    It ends an enumerator at the start of a line ("1. x"), or an abbreviation that needs what it stands for ("e.g. x",
    "No. 3").
    """
    if _at_line_start(text, dot):
        return True
    word = _word_before(text, dot)
    return word in _BINDING or (word in _NUMBERED and (following.isdigit() or following in "([\\$#"))


def _at_line_start(text: str, dot: int) -> bool:
    return _ENUMERATOR.search(text, max(0, dot - _LONGEST), dot) is not None


def _word_before(text: str, dot: int) -> str:
    found = _WORD.search(text, max(0, dot - _LONGEST), dot)
    return found.group().replace(".", "") if found else ""


def _ends(text: str, stop: re.Match[str]) -> bool:
    mark, following = stop["mark"], text[stop.end()]
    if stop["close"] and following.islower():
        return False
    if mark == ".":
        return _dot_ends(text, stop.start(), stop.end())
    if mark == "!":
        return not _is_factorial(text, stop.start(), following)
    if set(mark) <= {".", "…"}:
        return following.isupper() and not text.startswith("I ", stop.end())
    return True


def _dot_ends(text: str, dot: int, after: int) -> bool:
    if dot_binds(text, dot, text[after]):
        return False
    word = _word_before(text, dot)
    if word in _SHORTENED:
        return text[after].isupper()
    if len(word) == 1 and word.isupper():
        return not (_INITIAL_NEXT.match(text, after) or _INITIAL.search(text, max(0, dot - _LONGEST), dot))
    return True


def _is_factorial(text: str, mark: int, following: str) -> bool:
    before = text[mark - 1 : mark]
    variable = before.isalpha() and not text[mark - 2 : mark - 1].isalpha()
    return (before.isdigit() or before == ")" or variable) and not following.isupper()
