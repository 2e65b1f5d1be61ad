"""The nouns of the package: what the stages hand to one another. No logic lives here.

Axes in names: B traces, P problems, G rollouts of a problem, S steps (ragged), T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Part = Literal["thinking", "response"]
"""Which text of a trace a step belongs to."""


class Status(StrEnum):
    """What became of a trace. Everything but SCORED is a reason why it has no reward."""

    SCORED = "scored"
    NO_STEPS = "no-steps"
    """Neither thinking nor response holds any text."""
    TOO_LONG = "too-long"
    """Longer than the PRM's context, and the user asked to refuse such traces."""
    NO_ROOM = "no-room"
    """The problem (and what every window must repeat) fills the PRM's whole context."""
    NOT_FINITE = "not-finite"
    """The PRM gave NaN or infinity."""
    OUT_OF_MEMORY = "out-of-memory"
    FAILED = "failed"
    """Anything else; `ScoredTrace.note` holds the message."""


@dataclass(frozen=True, slots=True)
class Step:
    """A contiguous span of one part of a trace: characters `start` (inclusive) to `stop` (exclusive)."""

    part: Part
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Trace:
    """A problem, the thinking trajectory and the final response of a policy."""

    id: str
    problem: str
    thinking: str = ""
    """The thinking trajectory, without its marks; empty if the policy did not think."""
    response: str = ""
    """The final response, without the thinking; empty if the policy was cut off while thinking."""
    answer: str | None = None
    """Reference answer; None if unknown."""
    source: str | None = None
    """Where the record came from (a data set's name)."""
    policy: str | None = None
    """The model that wrote the trace."""
    correct: bool | None = None
    """Recorded verdict on the final answer; None if unknown."""
    group: str | None = None
    """Names the problem whose rollouts belong together; None if the trace stands alone."""
    thinking_closed: bool = True
    """False if the thinking was cut off before its end mark."""
    steps: tuple[Step, ...] = ()
    """Steps that came with the record (step lists, agent turns), in order; the rule `given` uses them."""
    step_labels: tuple[float | None, ...] = ()
    """One recorded label for each of `steps`, in [0, 1] (1 good); None where a step has none. Empty if none came."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The record's other columns, untouched; they survive a round trip."""

    def text(self, part: Part) -> str:
        """Return the text of one part."""
        return self.thinking if part == "thinking" else self.response


@dataclass(frozen=True, slots=True)
class SegmentedTrace:
    """A trace and its steps: in each part, the steps' texts joined give the part, character for character."""

    trace: Trace
    steps: tuple[Step, ...]
    """Thinking steps first, then response steps, in reading order."""
    rule: str
    """The name of the step rule that cut it."""

    def text(self, step: Step) -> str:
        """Return the characters of one step."""
        return self.trace.text(step.part)[step.start : step.stop]


@dataclass(frozen=True, slots=True)
class PRMIdentity:
    """Which PRM gave a score, and how its numbers were combined: enough to tell two runs apart."""

    name: str
    revision: str
    """Hub commit, or the first 12 hex digits of the SHA-256 of the weights' names, sizes and configuration."""
    family: str
    layout: str
    """`causal` (problem, thinking, response) or `response_first` (problem, response, thinking)."""
    aggregation: str
    alpha: float
    """Weight of the trajectory reward in the aggregate."""


@dataclass(frozen=True, slots=True)
class ScoredTrace:
    """What a PRM says of one trace; a trace that could not be scored is a record with a reason."""

    trace: Trace
    status: Status
    steps: tuple[Step, ...]
    step_rewards: tuple[float | None, ...]
    """One for each of `steps`, in the family's range; None where it gives none (scalar PRM, step cut away)."""
    trajectory_reward: float | None
    reward: float | None
    """The aggregate; None unless status is SCORED."""
    prm: PRMIdentity
    tokens: int
    """Tokens the PRM read for this trace, repeats in overlapping windows and second passes counted."""
    overflow: str | None = None
    """What was done because the trace was longer than the PRM's context; None if it fitted."""
    note: str | None = None
    """The message behind a status other than SCORED; from a generative verifier also what its verdicts lack."""


class LabelStatus(StrEnum):
    """What became of a trace that was to be labelled."""

    LABELLED = "labelled"
    """It has a target for one step at least, or for the trajectory."""
    NO_STEPS = "no-steps"
    """Neither thinking nor response holds any text."""
    NO_TARGET = "no-target"
    """No term could be had; the terms' reasons say why."""
    FAILED = "failed"
    """Anything else; `LabelledTrace.note` holds the message."""


@dataclass(frozen=True, slots=True)
class Term:
    """One raw term of a label, on its own scale; `value` is None where it could not be had, and `reason` says why."""

    value: float | None
    reason: str | None = None
    """Why there is no value; with a value, what a reader of it should know."""


@dataclass(frozen=True, slots=True)
class LabelledTrace:
    """Training targets of one trace, with every raw term that they were made from."""

    trace: Trace
    status: LabelStatus
    steps: tuple[Step, ...]
    step_terms: tuple[Mapping[str, Term], ...]
    """For each of `steps`: term name -> raw value. Names are those of `labels.terms`."""
    targets: tuple[float | None, ...]
    """For each of `steps`: the combined step reward to learn; None leaves the step out of the loss."""
    trajectory_terms: Mapping[str, Term]
    trajectory_target: float | None
    """The trajectory reward to learn; None leaves it out of the loss."""
    formula: str
    """How the targets were combined: what `labels.combine.Formula` writes and reads."""
    note: str | None = None
    """The message behind a status other than LABELLED."""


@dataclass(frozen=True, slots=True)
class Reject:
    """An input record that could not be read."""

    file: str
    line: int
    """1-based line (JSONL) or row (Parquet, data sets)."""
    reason: str
    raw: str
    """The start of the record, at most 2,000 characters."""
