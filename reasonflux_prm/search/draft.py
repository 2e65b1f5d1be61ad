"""A trace while it is written: what the policy wrote, word for word, and the steps that the PRM reads of it.

The thinking is open from `<think>`, which stands at the very beginning, to `</think>`. What is written while it is open
are steps of the thinking, what comes behind it steps of the response. White space alone is no step: within a part it
goes in front of the next step, and where a part begins it is left out, as it is when a finished trace is read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reasonflux_prm.records import Part, SegmentedTrace, Step, Trace

OPEN, CLOSE = "<think>", "</think>"
RULE = "as-written"
"""The name of the step rule: steps are what the policy wrote at a time."""

WrittenStep = tuple[Part, str]
"""The part a step belongs to, and its text."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A trace in progress; `extended` gives the next."""

    written: str = ""
    """Everything that was written, marks included: what the policy goes on from."""
    steps: tuple[WrittenStep, ...] = ()
    """Each holds something visible."""
    part: Part = "response"
    """What is written next."""
    thought: bool = False
    """Whether the thinking was opened."""
    closed: bool = False
    """Whether the thinking was closed."""
    late: bool = False
    """Whether `</think>` came though nothing had opened the thinking: steps had been taken for the response's."""
    ended: bool = False
    """Whether the policy has come to its end."""
    cut: bool = False
    """Whether a limit put an end to it."""
    blank: str = ""
    """White space that goes in front of the next step."""

    @property
    def over(self) -> bool:
        """Whether nothing more will be written."""
        return self.ended or self.cut

    def extended(self, text: str, *, ended: bool = False) -> Draft:
        """Return the draft with what was written next: at most one step, or two where the thinking ends in it."""
        steps, part, blank = list(self.steps), self.part, self.blank
        thought, closed, late = self.thought, self.closed, self.late
        before = "" if closed else self.written[1 - len(CLOSE) :]
        rest = text
        if not thought and not closed and not steps and (self.written + text).lstrip().startswith(OPEN):
            thought, part, before, blank = True, "thinking", "", ""
            rest = (self.written + text).lstrip()[len(OPEN) :]
        # A mark may come in two pieces.
        at = -1 if closed else (before + rest).find(CLOSE)
        if at >= 0:
            late = not thought
            if late:
                steps = [("thinking", own) for _, own in steps]
            _add(steps, "thinking", blank + rest[: max(0, at - len(before))])
            rest, blank, part, closed = (before + rest)[at + len(CLOSE) :], "", "response", True
        blank = _add(steps, part, blank + rest)
        first = not any(own == part for own, _ in steps)
        return replace(
            self,
            written=self.written + text,
            steps=tuple(steps),
            part=part,
            thought=thought,
            closed=closed,
            late=late,
            ended=ended,
            blank="" if first else blank,
        )

    def text(self, part: Part) -> str:
        """Return what is written of one part."""
        return "".join(text for own, text in self.steps if own == part)

    def segmented(self, trace: Trace) -> SegmentedTrace:
        """Return a problem's trace with this draft in it, cut into the steps in which it was written."""
        at: dict[Part, int] = {"thinking": 0, "response": 0}
        steps = []
        for part, text in self.steps:
            steps.append(Step(part, at[part], at[part] + len(text)))
            at[part] += len(text)
        whole = replace(
            trace,
            thinking=self.text("thinking"),
            response=self.text("response"),
            thinking_closed=self.closed or not self.thought,
        )
        return SegmentedTrace(whole, tuple(steps), RULE)


def _add(steps: list[WrittenStep], part: Part, text: str) -> str:
    """Add a step if there is anything to see; return white space that is left over."""
    if not text.strip():
        return text
    # White space in front of the first step of a part says nothing.
    steps.append((part, text if any(own == part for own, _ in steps) else text.lstrip()))
    return ""
