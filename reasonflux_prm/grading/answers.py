r"""Where a text states its final answer."""

from __future__ import annotations

import re
from itertools import islice

from reasonflux_prm.records import Trace

_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s{0,9}\{)|\\[{}]|(?P<open>\{)|(?P<close>\})")
_BETWEEN_BOXES = re.compile(r"[\s$]*(?:,|;|\\quad|,?\s*(?:and|or)|,?\s*\\text\s*\{\s*(?:and|or)\s*\})[\s$]*")
_MAX_BETWEEN = 40
_MAX_JOINED = 20
_TAGGED = re.compile(r"<answer>([^<>]{1,1000})</answer>", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S.*)$", re.MULTILINE)
_STATED = re.compile(
    r"\banswer(?:\s{1,9}(?:is|equals)\b\s{0,9}:?|\s{0,9}:)[\s*]{0,19}(?P<phrase>[^\s*].*)|^[ \t*]*A:(?P<line>.*\S)",
    re.MULTILINE | re.IGNORECASE,
)
_HEADED = re.compile(
    r"^[ \t#*_]*(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t*_:]*\n\s{0,99}(?P<below>\S.*)", re.MULTILINE | re.IGNORECASE
)
_BOLD = re.compile(r"\*\*(?=\S)([^*]{1,200}[^*:\s]|[^*:\s])[.,]?\*\*")
_WORD = re.compile(r"(?<!\\)[^\W\d_]{2,}(?:['\u2019-][^\W\d_]+)*")
_MAX_BARE = 100
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|(?<=\$)[.,](?=\s|$)")


def final_answer(trace: Trace) -> str | None:
    """Return the final answer that a trace states, as it is written there; None if it states none.

    It is looked for in the response, or in the thinking if there is no response.
    """
    return stated_answer(trace.response if trace.response.strip() else trace.thinking)


def stated_answer(text: str) -> str | None:
    r"""Return the final answer that a text states, as it is written there; None if it states none.

    The first of these that the text has, and of several the last: `\boxed{x}`; `<answer>x</answer>`; `#### x`;
    `answer is x`, `answer: x` or a line `A: x`; what stands below a heading `Final Answer`; the bold text of the last
    line; the whole text, if it is one short line with at most one word in it. Boxes that only `and`, `or` or a comma
    separates are one answer; an empty box states nothing.
    """
    if (boxed := _last_boxed(text)) is not None:
        return boxed
    for marked in (_TAGGED, _HASHES):
        if found := [stated for one in marked.findall(text) if (stated := one.strip())]:
            return str(found[-1])
    phrases = [found["line"] or _first_sentence(found["phrase"]) for found in _STATED.finditer(text)]
    if phrases:
        return phrases[-1].strip(" \t*") or None
    return _unmarked(text.strip())


def _last_boxed(text: str) -> str | None:
    """Return what stands in the last boxes whose braces close, in one pass over the text."""
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    opened: list[re.Match[str]] = []
    boxes: list[tuple[int, int, int]] = []
    for brace in _BRACE.finditer(text):
        if brace["box"] or brace["open"]:
            opened.append(brace)
        elif brace["close"] and opened:
            opening = opened.pop()
            if opening["box"] and text[opening.end() : brace.start()].strip():
                boxes.append((opening.start(), opening.end(), brace.start()))
    if not boxes:
        return None
    # Of boxes in boxes the innermost counts: it begins last.
    boxes.sort()
    answers = [text[slice(*boxes[-1][1:])].strip()]
    for earlier, later in islice(zip(boxes[-2::-1], boxes[:0:-1], strict=False), _MAX_JOINED):
        between = text[earlier[2] + 1 : later[0]]
        if len(between) > _MAX_BETWEEN or not _BETWEEN_BOXES.fullmatch(between):
            break
        if (answer := text[slice(*earlier[1:])].strip()) not in answers:
            answers.append(answer)
    return ", ".join(reversed(answers))


def _unmarked(text: str) -> str | None:
    """Return what stands below a heading, in bold on the last line, or is all of the text."""
    if headed := _HEADED.findall(text):
        return str(headed[-1]).strip(" \t*") or None
    line = text[text.rfind("\n") + 1 :]
    if bold := _BOLD.findall(line):
        return str(bold[-1])
    bare = line is text and len(text) <= _MAX_BARE and "\\boxed" not in text and not text.rstrip("*_ ").endswith(":")
    return text if text and bare and len(_WORD.findall(text)) <= 1 else None


def _first_sentence(text: str) -> str:
    return _SENTENCE_END.split(text, maxsplit=1)[0]
