"""The step rule for real thinking text: paragraphs, but neither fragments nor walls of text.

Thinking models write paragraphs of one word ("Hmm.") and of a thousand. This rule gives every place where a step could
end a gain, in points, and picks the places with the greatest total under the bounds:

- A blank line gains most, a line break less, or as much in a text without blank lines; the end of a sentence costs, so
  a paragraph is split only if it is too long or if the thinking turns in the middle of it ("Wait,", "Alternatively,").
- A place behind a lead-in ("So we have:", "Wait.", a heading) or before something that leans on what came before (a
  formula on its own line, "where x is ...", the next bullet of a list) costs, so fragments join their neighbours on the
  side they belong to.
- Between words a place costs most, and is there only inside a sentence longer than the bounds.
- A step's size costs a little with its distance from the middle of the bounds, which evens out what the text leaves
  open.

No place lies inside a formula, a code fence or a number, or behind an abbreviation or an enumerator. The best choice is
found exactly by dynamic programming over the places, in time linear in the length of the text (and in `max_tokens`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from reasonflux_prm.errors import UsageError
from reasonflux_prm.steps.estimate import estimate_tokens
from reasonflux_prm.steps.protect import outside, protected_spans
from reasonflux_prm.steps.sentences import dot_binds, joins_on, line_ends, sentence_stops

_PARAGRAPH, _LINE, _SENTENCE, _CLAUSE, _WORD = 300, 100, -150, -500, -900
_TURN, _MOVE = 150, 50
_LEAD_IN, _LEANS, _LISTED = -350, -300, -200
_OFF_SIZE = 50
_UNDERSIZED = 100_000
"""In points: gain by kind of place, what follows it, what speaks against it; cost of twice the size, of a fragment."""


@dataclass(frozen=True, slots=True)
class AdaptiveBounds:
    """Between how many estimated tokens a step should have.

    A step is smaller only if joining it to either neighbour would make one larger than `max_tokens`, or if it is the
    whole part; it is larger only if it holds no place to cut: one formula, one code fence, or one word.

    The defaults are measured on the 44,751 paragraphs of 1,017 thinking trajectories (R1, R1-Distill, QwQ, s1.1, LIMO;
    mathematics, family trees, riddles). A sentence has a median of 15 tokens and 93 at the 99.9th percentile, so a step
    holds about a sentence or more and words are hardly ever parted. 32% of the paragraphs have fewer than 16 tokens and
    hold 7% of all tokens: fragments. 2% have more than 160 and hold 11%. Steps then have a median of 45 tokens, 18 at
    the 5th and 118 at the 95th percentile; paragraphs 25, 6 and 118.
    """

    min_tokens: int = 16
    max_tokens: int = 160

    def __post_init__(self) -> None:
        """Refuse bounds that no step can keep."""
        if not 1 <= self.min_tokens <= self.max_tokens:
            raise UsageError(
                f"adaptive steps need 1 <= min_tokens <= max_tokens, got {self.min_tokens} and {self.max_tokens}"
            )


_TURNS = re.compile(
    r"\s*(?:But |Oh,? |Hmm,? )?(?:Wait|wait|Hold on|Hmm+|Alternatively|Actually|However|Maybe|On the other hand|"
    r"But (?:let me|let's)|Let(?: me|'s) (?:just )?(?:double[- ])?(?:check|verify|confirm)|Another (?:way|approach))\b"
)
_MOVES = re.compile(
    r"\s*(?:Now|Next|First|Second|Third|Then|Finally|So|Therefore|Thus|Hence|Since|Let me|Let's|In conclusion|Step \d|"
    r"\*\*|#{1,6} |\d{1,2}[.)] )"
)
# A unit that only opens the next one.
_OPENERS = re.compile(
    r"\s*(?:(?:But|Oh|Ah|And|So|Well|Okay|Ok|Alright|All right|Right|Hmm+|Hm|Wait|wait|Now|Yes|No|Yeah|Actually|"
    r"Alternatively|Hold on|hold on|First|Next|Then|Let me (?:see|think|check|verify)|Let's (?:see|check|verify))\b"
    r"[\s,.!?…-]*){1,4}\Z"
)
_HEADING = re.compile(r"\s*(?:#{1,6} [^\n]*|\*\*[^*\n]{1,120}\*\*:?|[-*_]{3,})\s*\Z")
_BULLET = re.compile(r"[^\S\n]*+[-*+•] ")
_LEANING = re.compile(r"\s*(?:\$\$|\\\[|\\begin\b|Where\b)")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_RELATIONS = ("=", "≈", "<", ">", "≤", "≥")
_GAP = re.compile(r"[，；：、]\s*|\s+")
_CLAUSE_END = re.compile(r"[,;:，；：、]\s*\Z")
_NON_BREAKING = "\u00a0\u2007\u202f"
_SHORT = 120


def adaptive_ends(text: str, bounds: AdaptiveBounds | None = None) -> list[int]:
    """Cut a text into steps that read as steps of reasoning; see the module and `AdaptiveBounds`.

    Args:
        text: One part of a trace.
        bounds: Bounds of a step's estimated tokens; the default bounds if None.

    Returns:
        End offsets of the steps in order, the last equal to `len(text)`; empty for an empty text.
    """
    bounds = bounds or AdaptiveBounds()
    if not text or text.isspace():
        return [len(text)] if text else []
    units = _join_crumbs(_units(text, _cuts(text, bounds)), bounds)
    return _best(units, bounds)


@dataclass(slots=True)
class _Unit:
    """Text that is not parted: up to offset `end`, with what a step gains by ending there."""

    end: int
    tokens: int
    gain: float = 0


def _cuts(text: str, bounds: AdaptiveBounds) -> dict[int, int]:
    """Find the places behind lines and sentences, and behind clauses and words of what is still over the bounds.

    Returns:
        The gain of each place by its kind, in the order of the places.
    """
    spans = protected_spans(text)
    kinds = dict.fromkeys(sentence_stops(text), _SENTENCE)
    lines = dict(line_ends(text))
    line = _LINE if any(_inside(text, 0, len(text), (end for end, blank in lines.items() if blank))) else _PARAGRAPH
    kinds.update((end, _PARAGRAPH if blank else line) for end, blank in lines.items())
    places = _inside(text, 0, len(text), outside(sorted(kinds), spans))
    gaps: list[int] = []
    for start, end in pairwise([0, *places, len(text)]):
        if estimate_tokens(text[start:end]) > bounds.max_tokens:
            gaps.extend(_inside(text, start, end, _gaps(text, start, end)))
    gaps = list(outside(gaps, spans))
    kinds.update((gap, _CLAUSE if _CLAUSE_END.search(text, max(0, gap - 8), gap) else _WORD) for gap in gaps)
    return {place: kinds[place] for place in sorted([*places, *gaps])}


def _units(text: str, cuts: dict[int, int]) -> list[_Unit]:
    """Cut at every place, and weigh each."""
    ends = [*cuts, len(text)]
    units = []
    start = 0
    for end, stop in pairwise([*ends, len(text)]):
        gain = _gain(text, start, end, stop, cuts[end]) if end in cuts else math.inf
        units.append(_Unit(end, estimate_tokens(text[start:end]), gain))
        start = end
    return units


def _inside(text: str, start: int, end: int, cuts: Iterable[int]) -> list[int]:
    """Keep the cuts that leave something visible on both sides of text[start:end]."""
    piece = text[start:end]
    first, last = end - len(piece.lstrip()), start + len(piece.rstrip())
    return [cut for cut in cuts if first < cut < last]


def _gaps(text: str, start: int, end: int) -> Iterator[int]:
    """Yield the offset behind each gap between words, unless it is a non-breaking space or follows an abbreviation."""
    for gap in _GAP.finditer(text, start, end):
        dot = gap.start() - 1
        bound = text[dot : dot + 1] == "." and dot_binds(text, dot, text[gap.end() : gap.end() + 1])
        if not bound and gap.group().strip(_NON_BREAKING):
            yield gap.end()


def _gain(text: str, start: int, cut: int, stop: int, kind: int) -> int:
    """Weigh a place between text[start:cut] and text[cut:stop]."""
    if kind <= _CLAUSE:
        return kind
    gain = kind
    if _TURNS.match(text, cut):
        gain += _TURN
    elif _MOVES.match(text, cut):
        gain += _MOVE
    if _leads_in(text[start:cut]):
        gain += _LEAD_IN
    if kind != _SENTENCE and _leans_back(text, cut, stop):
        gain += _LEANS
    elif _BULLET.match(text, cut):
        gain += _LISTED
    return gain


def _leads_in(unit: str) -> bool:
    visible = unit.strip().rstrip("*_ ")
    return visible.endswith((":", ",", "=", "：", "，")) or (
        len(unit) <= _SHORT and (_OPENERS.match(unit) or _HEADING.match(unit)) is not None
    )


def _leans_back(text: str, cut: int, stop: int) -> bool:
    if joins_on(text, cut) or _LEANING.match(text, cut):
        return True
    line = text[cut : min(stop, cut + _SHORT)].strip().split("\n", 1)[0]
    return _PROSE.search(line) is None and any(sign in line for sign in _RELATIONS)


def _join_crumbs(units: list[_Unit], bounds: AdaptiveBounds) -> list[_Unit]:
    """Join units of a few tokens across the weaker of their two sides, so that the search below stays linear."""
    crumb = bounds.min_tokens // 4
    joined: list[_Unit] = []
    before = math.inf
    for unit in units:
        left = joined[-1] if joined else None
        if (
            left
            and left.tokens + unit.tokens <= bounds.max_tokens
            and ((left.tokens < crumb and left.gain <= before) or (unit.tokens < crumb and left.gain < unit.gain))
        ):
            joined[-1] = _Unit(unit.end, left.tokens + unit.tokens, unit.gain)
        else:
            before = left.gain if left else math.inf
            joined.append(unit)
    return joined


def _best(units: list[_Unit], bounds: AdaptiveBounds) -> list[int]:
    """Choose the ends with the greatest total of gains less costs of size; of equals, those with a larger last step."""
    sizes = [unit.tokens for unit in units]
    costs = _size_costs(bounds, sum(sizes))
    totals = [0.0]
    starts: list[int] = []
    for index, tokens in enumerate(sizes):
        start = first = index
        top = totals[index] - (costs[tokens] if tokens <= bounds.max_tokens else 0)
        while first and (tokens := tokens + sizes[first - 1]) <= bounds.max_tokens:
            first -= 1
            total = totals[first] - costs[tokens]
            if total >= top:
                top, start = total, first
        totals.append(top + units[index].gain)
        starts.append(start)
    ends = []
    index = len(units)
    while index:
        ends.append(units[index - 1].end)
        index = starts[index - 1]
    return ends[::-1]


def _size_costs(bounds: AdaptiveBounds, tokens: int) -> list[int]:
    """Cost of a step by its tokens; in whole points, so that no platform rounds a tie its own way."""
    middle = math.sqrt(bounds.min_tokens * bounds.max_tokens)
    costs = [0]
    for size in range(1, min(bounds.max_tokens, tokens) + 1):
        cost = round(_OFF_SIZE * abs(math.log2(size / middle)))
        costs.append(cost + (_UNDERSIZED if size < bounds.min_tokens else 0))
    return costs
