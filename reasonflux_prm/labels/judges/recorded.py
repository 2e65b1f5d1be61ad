"""The judge `recorded`: the labels that came with the record, as in data sets of steps labelled by people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonflux_prm.labels.judges.base import NO_TEXT, QUALITY, StepTerms
from reasonflux_prm.records import SegmentedTrace, Step, Term


class RecordedJudge:
    """Takes over the recorded label of every step that is a step of the record, white space around it aside.

    With the step rule `given` that is every labelled step of the record. Under another rule a step may hold several
    recorded ones or a part of one; it has no value then, because a label says nothing about less or more than its step.

    Terms: `quality`, in [0, 1], on the record's own scale (1 is good).
    """

    name = "recorded"

    def identity(self) -> Mapping[str, Any]:
        """Return the judge's name: the labels depend on nothing but the trace."""
        return {"judge": self.name}

    async def judge(self, segmented: SegmentedTrace) -> StepTerms:
        """Look every step up; see `labels.judges.base.Judge`."""
        trace = segmented.trace
        if not trace.step_labels:
            return tuple({QUALITY: Term(None, "the record came without step labels")} for _ in segmented.steps)
        labels = {_core(segmented, step): label for step, label in zip(trace.steps, trace.step_labels, strict=True)}
        return tuple({QUALITY: _label(segmented, step, labels)} for step in segmented.steps)


def _label(segmented: SegmentedTrace, step: Step, labels: Mapping[Step, float | None]) -> Term:
    if not segmented.text(step).strip():
        return Term(None, NO_TEXT)
    core = _core(segmented, step)
    if core not in labels:
        return Term(None, "the step is no step of the record; the step rule 'given' keeps those")
    label = labels[core]
    return Term(label, "the record has no label for this step" if label is None else None)


def _core(segmented: SegmentedTrace, step: Step) -> Step:
    """Return the step without the white space around it: step rules put that to one step or the next."""
    text = segmented.text(step)
    start = step.start + len(text) - len(text.lstrip())
    return Step(step.part, start, start + len(text.strip()))
