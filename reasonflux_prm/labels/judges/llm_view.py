"""A trace as the judge `llm` is shown it: the records of each chunk, within the tokens that a request may have."""

from __future__ import annotations

from dataclasses import dataclass

from reasonflux_prm.labels.judges.base import shown_steps
from reasonflux_prm.labels.judges.chunks import Chunk
from reasonflux_prm.labels.prompts.material import Record, json_line, shorten
from reasonflux_prm.records import SegmentedTrace
from reasonflux_prm.steps.estimate import estimate_tokens


@dataclass(frozen=True, slots=True)
class ShownStep:
    """A step that holds any text."""

    number: int
    """Its place among all steps of the trace, from 1: the number it is scored by."""
    part: str
    text: str

    def record(self, kind: str) -> Record:
        """Return the step's record; `kind` is `step`, or `earlier_step` or `later_step` for context."""
        return {kind: self.number, "part": self.part, "text": self.text}


@dataclass(frozen=True, slots=True)
class JudgedView:
    """What there is to show of one trace."""

    steps: tuple[ShownStep, ...]
    costs: tuple[int, ...]
    """Estimated tokens of each of `steps`."""
    problem: Record
    response: Record | None
    """The response as a whole, shown where not all of its steps are; None if there is none."""
    answer: Record | None
    """The reference answer; None if it is unknown or not to be shown."""
    room: int
    """Estimated tokens that a request has left for steps; not above 0 if the rest fills it."""
    remark: str | None
    """What is shown shortened."""

    def numbers(self, chunk: Chunk) -> tuple[int, ...]:
        """Return the numbers of the steps that a chunk scores."""
        return tuple(self.steps[position].number for position in chunk.scored)

    def records(self, chunk: Chunk) -> list[Record]:
        """Return a chunk's material. The response is always in it, and only once."""
        kinds = (("earlier_step", chunk.earlier), ("step", chunk.scored), ("later_step", chunk.later))
        records = [self.steps[position].record(kind) for kind, positions in kinds for position in positions]
        shown = range(chunk.earlier.start, chunk.later.stop)
        hidden = any(step.part == "response" and at not in shown for at, step in enumerate(self.steps))
        around = [self.response if hidden else None, self.answer]
        return [self.problem, *records, *(record for record in around if record)]


def view_of(segmented: SegmentedTrace, input_tokens: int, show_reference: bool) -> JudgedView:
    """Prepare a trace; of a request's tokens the response gets half at most and the problem a quarter."""
    trace = segmented.trace
    steps = tuple(
        ShownStep(index + 1, segmented.steps[index].part, segmented.text(segmented.steps[index]))
        for index in shown_steps(segmented)
    )
    problem, response = shorten(trace.problem, input_tokens // 4), shorten(trace.response, input_tokens // 2)
    cut = ["problem"] * (problem != trace.problem) + ["response"] * (response != trace.response)
    answer: Record | None = {"reference_answer": trace.answer} if show_reference and trace.answer is not None else None
    whole: Record | None = {"response": response} if response.strip() else None
    fixed = [record for record in ({"problem": problem}, whole, answer) if record]
    return JudgedView(
        steps=steps,
        costs=tuple(estimate_tokens(json_line(step.record("step"))) for step in steps),
        problem={"problem": problem},
        response=whole,
        answer=answer,
        room=input_tokens - sum(estimate_tokens(json_line(record)) for record in fixed),
        remark=f"the judge was shown a shortened {' and '.join(cut)}" if cut else None,
    )
