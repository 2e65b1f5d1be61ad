"""The step rule for agents: a turn is a thought, the code or action it leads to, and what is observed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reasonflux_prm.steps.protect import outside, protected_spans
from reasonflux_prm.steps.rules import settle

_THINK = "thought|think|thinking|reasoning"
_ACT = "action|code|execute|python|tool_call|function_call|search"
_OBSERVE = "observation|output|result|tool_response|information"
_MARK = re.compile(
    r"^[ \t]*(?:\*\*)?(?:(?P<thought>Thought)|(?P<action>Action|Code|Final Answer)|(?P<observation>Observation))"
    r"(?:[ \t]+\d{1,3})?(?:\*\*)?[ \t]*:"
    rf"|<(?P<think>{_THINK})>|<(?P<act>{_ACT})>|<(?P<observe>{_OBSERVE})>"
    rf"|</(?:(?P<acted>{_ACT})|(?P<observed>{_OBSERVE}))>(?:[^\S\n]*+\n)*+",
    re.MULTILINE,
)


def turn_ends(text: str) -> list[int]:
    """Cut an agent's text into turns of thought, code or action, and observation.

    Marks are lines that begin with "Thought:", "Action:", "Code:", "Observation:" or "Final Answer:", and blocks such
    as <code>, <execute>, <tool_call>, <observation>; marks inside fenced code are code. A turn ends before the next
    thought, before an action that follows an observation, and behind a closed block that no observation follows. Text
    before the first mark belongs to the first turn (it is its thought), and text without marks is one step.

    Args:
        text: One part of a trace.

    Returns:
        End offsets of the steps in order, the last equal to `len(text)`; empty for an empty text.
    """
    marks = {mark.start(): mark for mark in _MARK.finditer(text)}
    return settle(text, _turn_starts([marks[start] for start in outside(marks, protected_spans(text))]))


def _turn_starts(marks: list[re.Match[str]]) -> Iterator[int]:
    """Yield where turns begin."""
    begun = observed = False
    closed: int | None = None  # the end of a block, if nothing but text came since
    for mark in marks:
        kind = mark.lastgroup
        if kind in ("acted", "observed"):
            observed = observed or kind == "observed"
            closed = mark.end()
            continue
        if (kind in ("thought", "think") and begun) or (kind in ("action", "act") and (observed or closed is not None)):
            yield mark.start() if closed is None else closed
            observed = False
        begun = True
        observed = observed or kind in ("observation", "observe")
        closed = None
    if closed is not None:
        yield closed
