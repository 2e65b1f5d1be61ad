"""A story of the small world and a solution of it, read back from their texts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, NamedTuple

from reasonflux_prm.records import Trace
from reasonflux_prm.steps.split import split
from recipes.small_world.base import GAP
from recipes.small_world.world import DOUBLE, GAINS, HALF, LOSSES, PLACES, worked_out

_PLACE = "|".join(PLACES)
_HELD = re.compile(r"has (\d+)")
_TOLD = re.compile(rf"^({_PLACE}) (.*)\.$", re.MULTILINE)
_WORKED = re.compile(rf"({_PLACE}) (.*): (\d+)([-+*/])(\d+)=(\d+)")
_SIGNS: Final = {form.partition(" ")[0]: sign for forms, sign in ((GAINS, "+"), (LOSSES, "-")) for form in forms} | {
    DOUBLE.partition(" ")[0]: "*",
    HALF.partition(" ")[0]: "/",
}
"""What an event's first word asks for."""


class Calculation(NamedTuple):
    """A step such as `First finds 3: 20+3=23`."""

    place: str
    event: str
    before: int
    sign: str
    by: int
    after: int

    @property
    def holds(self) -> bool:
        """Whether the sum is right; half of an odd number is no whole one."""
        return worked_out(self.before, self.sign, self.by) == self.after and not (self.sign == "/" and self.before % 2)


def told(problem: str) -> list[tuple[str, str]]:
    """Return the (place, event) of everything that happens in a story."""
    return _TOLD.findall(problem)


def sign_of(event: str) -> str:
    """Return the operation that an event asks for."""
    return _SIGNS[event.partition(" ")[0]]


def worked(thinking: str) -> list[Calculation | None]:
    """Return the calculation of each step; None of a step that is none."""
    return [calculation(step) for step in thinking.strip().split(GAP)]


def calculation(step: str) -> Calculation | None:
    """Return the calculation of a step; None if it is none."""
    found = _WORKED.fullmatch(step.strip())
    if found is None:
        return None
    place, event, before, sign, by, after = found.groups()
    return Calculation(place, event, int(before), sign, int(by), int(after))


def solution(problem: str) -> list[Calculation]:
    """Return the calculations that a story asks for."""
    found = _HELD.search(problem)
    if found is None:
        raise ValueError(f"expected a story that begins with what somebody has, found {problem!r}")
    held, steps = int(found[1]), list[Calculation]()
    for place, event in told(problem):
        number = re.search(r"\d+", event)
        sign, by = sign_of(event), int(number[0]) if number else 2
        steps.append(Calculation(place, event, held, sign, by, worked_out(held, sign, by)))
        held = steps[-1].after
    return steps


def with_truth(trace: Trace, rule: str) -> Trace:
    """Return a graded sample with its steps, and of each whether all is right up to it.

    A thinking step is, if it and those before it are the story's own; the response, if the answer is right.
    """
    steps, expected = split(trace, rule).steps, solution(trace.problem)
    labels, so_far, number = list[float](), True, 0
    for step in steps:
        if step.part == "response":
            labels.append(float(bool(trace.correct)))
            continue
        found = calculation(trace.thinking[step.start : step.stop])
        so_far = so_far and number < len(expected) and found == expected[number]
        labels.append(float(so_far))
        number += 1
    return replace(trace, steps=steps, step_labels=tuple(labels))
