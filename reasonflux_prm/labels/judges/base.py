"""What a judge is: a trace in, the quality of each of its steps out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from reasonflux_prm.records import SegmentedTrace, Term

StepTerms = tuple[Mapping[str, Term], ...]
"""One mapping a step, term name -> raw value."""

QUALITY = "quality"
"""The term that every judge gives: in [0, 1], 1 is good. A judge's details are called `quality_...`."""

NO_TEXT = "the step has no text"


class Judge(Protocol):
    """Says how good each step of a trace is."""

    @property
    def name(self) -> str:
        """The judge's name, as records and manifests show it."""

    def identity(self) -> Mapping[str, Any]:
        """Return what its labels depend on, as JSON values: policy, prompts by hash, settings."""

    async def judge(self, segmented: SegmentedTrace) -> StepTerms:
        """Return one mapping for each step, each with the term `quality`.

        A quality that cannot be had is a `Term` without value, with its reason; it is never 0, and costs no other step.

        Raises:
            PolicyStopped: no request will succeed from here on.
        """


def shown_steps(segmented: SegmentedTrace) -> tuple[int, ...]:
    """Return the indices of the steps that hold any text."""
    return tuple(index for index, step in enumerate(segmented.steps) if segmented.text(step).strip())


def without_value(names: Iterable[str], reason: str) -> dict[str, Term]:
    """Return terms that could not be had, all for one reason."""
    return {name: Term(None, reason) for name in names}


def step_numbers(numbers: Iterable[int]) -> str:
    """Write step numbers, in ascending order, with ranges: `step 4`, `steps 1-3, 7`."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], number
        else:
            ranges.append((number, number))
    written = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
    single = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    return f"step{'' if single else 's'} {written}"
