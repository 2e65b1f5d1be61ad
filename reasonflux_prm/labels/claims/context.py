"""What surrounds a claim: text that is no prose, and signs that a false relation is not stated as a fact.

These only ever let a false relation off. They look at words and not at meaning, so they err on the side of silence.
"""

from __future__ import annotations

import re

_MARK = re.compile(r"<<([^<>\n]{1,200})>>")
_BLOCKS = (("[asy]", "[/asy]"), ("```", "```"), ("~~~", "~~~"))
_SENTENCE_END = re.compile(r"[.!?](?=[\s\"”)*$\\]|\Z)|\n")
_NEAR = 160
"""Characters of the text around a claim that may say how it is meant."""

_NEXT = 60
"""Characters of the next sentence in which a claim may be taken back."""

_TENTATIVE = re.compile(
    r"\b(?:suppose|supposing|assum\w+|imagine|pretend|guess\w*|maybe|perhaps|hypothe\w+|what if|whether|"
    r"such that|satisf\w+|would need|want)\b[^.!?\n]*\Z|\b(?:if|let|when|with|say|try|test|check|add\w*|subtract\w*|"
    r"multipl\w*|divid\w*)\W*\Z",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:if|when|case|let|for|solve|equation|set|equate|equal to each other)\b", re.IGNORECASE)
_DENIED = re.compile(
    r"\b(?:wait|no|not|isn't|isn’t|aren't|doesn't|doesn’t|don't|didn't|can't|cannot|wrong|incorrect\w*|false|mistake\w*|"
    r"error|oops|contradict\w*|impossible|invalid|instead|rather|actually|hmm|fail\w*|nope|too (?:big|small|large|high|"
    r"low|much|many)|never|neither|absurd|exceeds?|mismatch|inconsistent|discrepancy|different)\b|≠|\\ne",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"[\s,$)]*(?:minus|plus|times|divided|multiplied)\b", re.IGNORECASE)
_REPORTED = re.compile(
    r"\b(?:not|isn't|instead of|rather than|mistake\w*|error|wrong\w*|incorrect\w*|claim(?:s|ed)?|says?|said|states?|"
    r"according to|false|misread|thought|originally|initially)\b[^.!?\n]*\Z",
    re.IGNORECASE,
)
_ODD_ARITHMETIC = re.compile(
    r"\b(?:base|bases|binary|hexadecimal|octal|modulo|mod|clock|cryptarithm\w*|alphametic\w*|operation|operator|"
    r"define[sd]?|custom|symbol|puzzle|matchsticks?)\b|\\pmod|\\bmod|\\star|\\oplus|\\diamond|\\#|\\equiv|≡",
    re.IGNORECASE,
)
_NEW_CASE = re.compile(
    r"\b(?:if|when|case|or|and|let|suppos\w*|assum\w*|try\w*|test\w*|check\w*|root\w*|solution\w*|another|other|new|now|"
    r"for|at|with|plug\w*|set|sets|setting|substitut\w*|next|start\w*|begin\w*|first|second|third|choose|take|possib\w*|"
    r"say|option|either|also|maybe|perhaps|instead|wait|no|not|actually|again|iteration|range|interval|where|example|put|interpret\w*|alternativ\w*|consider\w*|means?|meant|scenario|hypothe\w*|approach|method|"
    r"rounded|round)\b|\\pm|±|\?",
    re.IGNORECASE,
)
_LOOKS = re.compile(r"\s|\\[,;:! ]|[$*]|\\left|\\right")


def outside_prose(text: str) -> tuple[str, list[tuple[int, str]]]:
    """Take out what is no prose: drawings, fenced code, and the calculator marks of GSM8K (`<<48/2=24>>`).

    Returns:
        The text with blanks in their place, so that offsets stay, and the marks' content with its offset.
    """
    for opening, closing in _BLOCKS:
        if opening in text:
            text = _without_blocks(text, opening, closing)
    if "<<" not in text:
        return text, []
    marks = [(mark.start(1), mark[1]) for mark in _MARK.finditer(text)]
    return _MARK.sub(lambda mark: " " * len(mark[0]), text), marks


def _without_blocks(text: str, opening: str, closing: str) -> str:
    pieces, position = [], 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start + len(opening))
        end = len(text) if end < 0 else end + len(closing)
        pieces += [text[position:start], " " * (end - start)]
        position = end
    return "".join([*pieces, text[position:]])


def excuse(text: str, start: int, stop: int, conditional: bool = False) -> str | None:
    """Say why the relation `text[start:stop]`, which is false, may not be meant as a fact; None if nothing says so.

    Args:
        text: The step.
        start: Where the relation begins, in characters.
        stop: Where it ends.
        conditional: A condition earlier in the sentence is an excuse too ("if b = 2, then 4a = 4(a-3)").
    """
    before = text[max(0, start - _NEAR) : start]
    after = text[stop : stop + _NEAR]
    begin = max((end.end() for end in _SENTENCE_END.finditer(before)), default=0)
    sentence = before[begin:]
    ends = [end.start() for end in _SENTENCE_END.finditer(after)]
    rest = after[: ends[0] + 1] if ends else after
    following = after[: (ends[0] if ends else 0) + _NEXT]
    if rest.rstrip().endswith("?") or "?" in text[start:stop]:
        return "it is a question"
    if _TENTATIVE.search(sentence) or (conditional and _CONDITION.search(sentence)):
        return "it is tentative"
    if _DENIED.search(following):
        return "it is taken back"
    if _GOES_ON.match(after):
        return "it goes on in words"
    if _REPORTED.search(sentence):
        return "it is quoted"
    return None


def has_odd_arithmetic(text: str) -> bool:
    """Tell whether a text speaks of numbers that do not obey plain arithmetic: other bases, remainders, puzzles."""
    return _ODD_ARITHMETIC.search(text) is not None


def squeezed(text: str) -> str:
    """Return a text without what makes equal relations look different: white space, dollar signs, bracket sizes."""
    return _LOOKS.sub("", text)


def is_new_case(text: str, start: int, stop: int) -> bool:
    """Tell whether the words around `text[start:stop]` give a name its value anew: a case, a try, one of two roots."""
    around = text[max(0, start - _NEAR) : start].rpartition("\n\n")[2] + " " + text[stop : stop + _NEAR // 2]
    return _NEW_CASE.search(around) is not None
