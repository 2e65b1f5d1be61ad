"""A completion's text into thinking and response, with the place of each in the text."""

from __future__ import annotations

from dataclasses import dataclass

from reasonflux_prm.records import Part
from reasonflux_prm.traces.marks import SOLUTION_PAIR, THINK_PAIRS, THOUGHT_PAIR, split_marks

_OPENING = tuple(opening for opening, _ in (*THINK_PAIRS, THOUGHT_PAIR))
_MARKS = tuple(mark for pair in (*THINK_PAIRS, THOUGHT_PAIR, SOLUTION_PAIR) for mark in pair)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy wrote, in parts."""

    text: str
    thinking: str
    response: str
    closed: bool
    """False if the thinking was cut off."""
    places: dict[Part, tuple[tuple[int, int], ...]]
    """Where each part stands: (offset in the part, offset in the text) at the start of each run of characters that the
    two share. A part that could not be found has no entry."""

    def place(self, part: Part, stop: int) -> int | None:
        """Return the offset in the text behind a part's first `stop` characters (at least 1); None if not found."""
        runs = self.places.get(part)
        if runs is None:
            return None
        at, where = next((at, where) for at, where in reversed(runs) if at < stop)
        return where + stop - at


def split_completion(text: str, *, thinking_open: bool = False) -> Completion:
    """Split a completion by the marks of thinking that `traces.marks` knows.

    Args:
        text: The completion, as decoded.
        thinking_open: Whether the prompt ended inside the thinking (`leaves_open`): a completion without any mark is
            then thinking that was cut off, and else a response.
    """
    parts = split_marks(text)
    if parts is None:
        thinking, response, closed = (text, "", False) if thinking_open else ("", text, True)
    else:
        thinking, response, closed = parts.thinking, parts.response, parts.closed
    places: dict[Part, tuple[tuple[int, int], ...]] = {}
    # The response is what the text ends with, but for white space and marks.
    behind = text.rfind(response) if response else len(text)
    if response and behind >= 0:
        places["response"] = ((0, behind),)
    runs = _find(thinking, text[: max(behind, 0)])
    if runs is not None:
        places["thinking"] = runs
    return Completion(text, thinking, response, closed, places)


def leaves_open(prompt: str) -> bool:
    """Whether a prompt, as the chat template wrote it, ends with a mark that opens the thinking."""
    return prompt.rstrip().endswith(_OPENING)


def _find(part: str, text: str) -> tuple[tuple[int, int], ...] | None:
    """Find a part that is `text` but for marks and white space in front, and for one mark inside."""
    if not part:
        return None
    at = text.find(part)
    while at >= 0:
        if not _without_marks(text[:at]).strip():
            return ((0, at),)
        at = text.find(part, at + 1)
    # Text stands before the opening mark, and the part has both without the mark.
    start = len(text) - len(text.lstrip())
    shared = 0
    while shared < len(part) and start + shared < len(text) and part[shared] == text[start + shared]:
        shared += 1
    # The mark may begin like the text behind it, so the gap can lie earlier than where the two first differ.
    for cut in range(shared, 0, -1):
        rest = text.find(part[cut:], start + cut)
        if rest >= 0 and not _without_marks(text[start + cut : rest]).strip():
            return ((0, start), (cut, rest))
    return None


def _without_marks(text: str) -> str:
    for mark in _MARKS:
        text = text.replace(mark, "")
    return text
