"""The simple step rules: each maps the text of one part to the end offsets of its steps.

What holds for all of them: the last end is the text's length, and an empty text has no steps. White space behind a step
belongs to it, white space at the start of the text to the first step, so a step holds something visible unless the
whole text is white space; such a text is one step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from reasonflux_prm.steps.protect import outside, protected_spans
from reasonflux_prm.steps.sentences import joins_on, line_ends, sentence_stops

_BLANK_LINES = re.compile(r"\n\r?\n(?:[ \t\r]*\n)*\r*")
_NUMBER = re.compile(
    r"^(?P<indent>[ \t]*)(?:#{1,6}[ \t]+)?(?:\*\*|__)?"
    r"(?:(?P<word>step)[ \t]+(?P<k>\d{1,3})\b|(?P<n>\d{1,3})(?P<sign>[.)])(?=[\s*_]|\Z))",
    re.MULTILINE | re.IGNORECASE,
)


def blank_line_ends(text: str) -> list[int]:
    r"""Cut behind every run of blank lines, as the paper does at "\n\n", but longer runs make no empty steps."""
    return settle(text, (gap.end() for gap in _BLANK_LINES.finditer(text)))


def numbered_ends(text: str) -> list[int]:
    """Cut before every numbered item: "1.", "2)", "Step 3", also bold or as a heading.

    An item counts if it is at the start of a line, outside formulas and code, and counts up: its number is 0 or 1, or
    one more than that of the item before with the same look (indentation and sign), so "1998. It was" begins no step.
    Text before the first item is a step of its own: it restates the problem or names the plan, and its reward should
    not be mixed with the first item's.
    """
    items = {item.start(): item for item in _NUMBER.finditer(text)}
    return settle(text, _counting_up([items[start] for start in outside(items, protected_spans(text))]))


def sentence_ends(text: str) -> list[int]:
    """Cut behind every sentence and line, outside formulas and code.

    A line that begins with a lower-case word goes on with the sentence before, unless a blank line parts them.
    """
    lines = (end for end, blank in line_ends(text) if blank or not joins_on(text, end))
    return settle(text, outside(sorted({*lines, *sentence_stops(text)}), protected_spans(text)))


def settle(text: str, cuts: Iterable[int]) -> list[int]:
    """Turn sorted cuts into ends; a piece of white space joins the step before it, or else the first step."""
    if not text or text.isspace():
        return [len(text)] if text else []
    first = len(text) - len(text.lstrip())
    ends: list[int] = []
    start = 0
    for cut in [*cuts, len(text)]:
        if cut <= first:
            continue
        if text[start:cut].isspace() or start == cut:
            ends[-1] = cut
        else:
            ends.append(cut)
        start = cut
    return ends


def _counting_up(items: list[re.Match[str]]) -> Iterator[int]:
    """Yield the starts of the items whose numbers begin a list or go on with one."""
    last: dict[tuple[int, str], int] = {}
    for item in items:
        number = int(item["k"] or item["n"])
        look = (len(item["indent"]), item["sign"] or "step")
        if number in (0, 1) or number == last.get(look, -1) + 1:
            last[look] = number
            yield item.start()
