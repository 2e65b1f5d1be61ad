r"""Spans of a text that no step boundary may cut: formulas and fenced code.

Formulas are `$..$`, `$$..$$`, `\(..\)`, `\[..\]` and `\begin{x}..\end{x}`; code is fenced by lines of backticks or
tildes. Every kind of mark is paired on its own, the spans are merged, and an opener that meets another opener of its
kind before a closer is taken for unclosed, so a formula that was never finished protects nothing. Numbers, URLs and
words need no span: they hold no white space, and steps are cut behind white space only.

A dollar sign opens a formula by the rule of Pandoc's `tex_math_dollars` (something visible right behind the opener and
right before the closer, no digit behind the closer, no blank line between), and not when it reads as a price ("$5 and",
"$3.50, so").
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
"""Start (inclusive) and stop (exclusive) offsets."""

_FENCE = re.compile(r"^[ \t]*(?P<run>`{3,}|~{3,})(?P<info>[^\n]*)", re.MULTILINE)
_MARK = re.compile(
    r"\\begin\{(?P<begin>[A-Za-z]+\*?)\}|\\end\{(?P<end>[A-Za-z]+\*?)\}|\\(?P<tex>[\[\]()])"
    r"|\\."  # any other escape: \$ is a dollar sign, and the bracket in \\[2pt] is the length of a line break
    r"|(?P<dollar>\$+)|(?P<blank>\n[^\S\n]*\n)"
)
# Possessive: without them, a price followed by a million commas takes a million squared steps.
_PRICE = re.compile(r"\$\d[\d,.]*+[kKmMbB%]?[;:!?)]*+\s++[A-Za-z]{2,}")


def protected_spans(text: str) -> list[Span]:
    """Find the formulas and code fences of a text.

    Args:
        text: Any text; marks that are never closed are ordinary text.

    Returns:
        Disjoint spans in order. A cut at offset c is allowed if no span has start < c < stop. Time is linear in the
        length.
    """
    fences = _merge(_fences(text))
    spans = list(fences)
    position = 0
    for start, stop in [*fences, (len(text), len(text))]:
        spans.extend(_formulas(text, position, start))
        position = stop
    return _merge(spans)


def outside(cuts: Iterable[int], spans: Iterable[Span]) -> Iterator[int]:
    """Yield those of the sorted offsets `cuts` that lie inside none of the disjoint, sorted `spans`."""
    remaining = iter(spans)
    start, stop = next(remaining, (0, 0))
    for cut in cuts:
        while cut >= stop and (span := next(remaining, None)) is not None:
            start, stop = span
        if not start < cut < stop:
            yield cut


def _merge(spans: Iterable[Span]) -> list[Span]:
    """Join spans that overlap."""
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _fences(text: str) -> Iterator[Span]:
    """Pair fence lines of the same run; a named one ("```python") always opens, for models forget to close."""
    opened: dict[str, int] = {}
    for line in _FENCE.finditer(text):
        run, info = line["run"], line["info"].strip()
        if "`" in info:
            continue
        start = opened.pop(run, None)
        if start is None or info[:1].isalnum():
            opened[run] = line.start()
        else:
            yield start, line.end()


def _formulas(text: str, position: int, end: int) -> Iterator[Span]:
    """Pair the marks of formulas in text[position:end]."""
    opened: dict[str, int] = {}
    environments: defaultdict[str, list[int]] = defaultdict(list)
    for mark in _MARK.finditer(text, position, end):
        kind = mark.lastgroup
        if kind == "begin":
            environments[mark["begin"]].append(mark.start())
        elif kind == "end" and environments[mark["end"]]:
            yield environments[mark["end"]].pop(), mark.end()
        elif kind == "blank":
            for symmetric in ("$", "$$", "("):
                opened.pop(symmetric, None)
        elif kind == "tex" and mark["tex"] in "([":
            opened[mark["tex"]] = mark.start()
        elif kind == "tex":
            start = opened.pop("(" if mark["tex"] == ")" else "[", None)
            if start is not None:
                yield start, mark.end()
        elif kind == "dollar":
            yield from _dollars(text, mark, opened)


def _dollars(text: str, mark: re.Match[str], opened: dict[str, int]) -> Iterator[Span]:
    """Close or open a formula at a run of dollar signs; three and more are no mark of anything."""
    run = mark["dollar"]
    if len(run) > 2:
        return
    start = opened.pop(run, None)
    if start is not None and (run == "$$" or _closes(text, mark)):
        yield start, mark.end()
    elif run == "$$" or _opens(text, mark):
        opened[run] = mark.start()


def _opens(text: str, mark: re.Match[str]) -> bool:
    after = text[mark.end() : mark.end() + 1]
    return not (after == "" or after.isspace() or after in ".,;:!?)") and not _PRICE.match(text, mark.start())


def _closes(text: str, mark: re.Match[str]) -> bool:
    return not text[mark.start() - 1].isspace() and not text[mark.end() : mark.end() + 1].isdigit()
