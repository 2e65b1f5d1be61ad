"""A trace into steps, losslessly: in each part the steps' texts joined give the part, character for character.

Every part is cut on its own, by one of `RULES` or by the steps that came with the record (`given`). What the released
code of the paper does is the rule `blank-line`; `adaptive` is the default, because real thinking trajectories hold both
one-word paragraphs and walls of text. No rule knows a tokenizer, so a trace has the same steps whichever PRM scores it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import get_args

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import Part, SegmentedTrace, Step, Trace
from reasonflux_prm.steps.adaptive import AdaptiveBounds, adaptive_ends
from reasonflux_prm.steps.rules import blank_line_ends, numbered_ends, sentence_ends, settle
from reasonflux_prm.steps.turns import turn_ends

Rule = Callable[[str], list[int]]
"""One part's text to the sorted end offsets of its steps; the last is its length, and an empty text has none."""

RULES: dict[str, Rule] = {
    "adaptive": adaptive_ends,
    "blank-line": blank_line_ends,
    "numbered": numbered_ends,
    "sentence": sentence_ends,
    "turn": turn_ends,
}
GIVEN = "given"
RULE_NAMES = (*RULES, GIVEN)
"""All that `split` takes: the rules that read the text, and the steps that came with the record."""


def split(trace: Trace, rule: str = "adaptive", *, bounds: AdaptiveBounds | None = None) -> SegmentedTrace:
    """Cut a trace into steps.

    Args:
        trace: Any trace. A part without text has no steps; a part of nothing but white space is one step.
        rule: One of `RULE_NAMES`. `given` keeps `Trace.steps`: each of them begins a step of the result, and so does
            text between them; white space between them joins the step before (at the start of a part, the step behind).
        bounds: Bounds of an `adaptive` step's estimated tokens; the defaults of `AdaptiveBounds` if None.

    Returns:
        The trace with its steps, thinking first.

    Raises:
        UsageError: No such rule, or bounds for a rule that has none.
        InputError: The rule is `given` and the trace came without steps, or with steps that overlap or lie outside its
            text.
    """
    if rule not in RULE_NAMES:
        raise UsageError(f"no step rule is called {rule!r}; choose one of {', '.join(RULE_NAMES)}")
    if bounds is not None and rule != "adaptive":
        raise UsageError(f"the step rule {rule!r} has no token bounds; leave them out, or choose the rule 'adaptive'")
    if rule == GIVEN and not trace.steps:
        raise InputError(
            f"trace {trace.id!r} came without steps, which the rule 'given' needs; choose another, such as 'adaptive'"
        )
    steps: list[Step] = []
    for part in get_args(Part):
        text = trace.text(part)
        if rule == GIVEN:
            ends = settle(text, _given_cuts(trace, part))
        elif bounds is not None:
            ends = adaptive_ends(text, bounds)
        else:
            ends = RULES[rule](text)
        steps.extend(Step(part, start, stop) for start, stop in pairwise([0, *ends]))
    return SegmentedTrace(trace, tuple(steps), rule)


def _given_cuts(trace: Trace, part: Part) -> list[int]:
    """Find where the given steps of one part begin and end."""
    length = len(trace.text(part))
    cuts = [0]
    for step in trace.steps:
        if step.part != part:
            continue
        if not cuts[-1] <= step.start <= step.stop <= length:
            raise InputError(
                f"trace {trace.id!r}: expected given steps in order within the {length} characters of its {part}, "
                f"got one from {step.start} to {step.stop} behind one that ends at {cuts[-1]}; "
                "correct the record, or choose another rule"
            )
        cuts += [step.start, step.stop]
    return cuts
