"""Solutions of the small world with one result gone wrong, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from reasonflux_prm.records import Trace
from recipes.small_world.base import GAP
from recipes.small_world.story import worked
from recipes.small_world.world import worked_out
from recipes.student.form import respond


def corrupted(trace: Trace) -> Trace:
    """Return a reference solution with a slip in one step, and the steps after it worked out from there.

    The slip is of one in a digit, and such that the answer is wrong; it depends on the trace's id alone. Halving an odd
    number rounds down, as one who does not notice would.

    Raises:
        ValueError: The thinking is no such solution.
    """
    steps = worked(trace.thinking)
    slips = [(at, by) for at in range(len(steps)) for by in (-10, -1, 1, 10)]
    Random(trace.id).shuffle(slips)
    for at, by in slips:
        lines, held = list[str](), 0
        for number, step in enumerate(steps):
            if step is None:
                raise ValueError(f"{trace.id}: expected steps such as First finds 3: 20+3=23, found {trace.thinking!r}")
            before = step.before if number == 0 else held
            held = worked_out(before, step.sign, step.by) + (by if number == at else 0)
            lines.append(f"{step.place} {step.event}: {before}{step.sign}{step.by}={held}")
            if held < 0:
                break
        else:
            if str(held) != trace.answer:
                thinking, response = GAP.join(lines), respond(str(held))
                return replace(trace, thinking=thinking, response=response, policy="corrupted", correct=False)
    raise ValueError(f"{trace.id}: no slip changes the answer of {trace.thinking!r}")
