"""The package's own rows: a trace as one JSON object, and back.

A row holds the fields of `Trace` under their own names. `given_steps` and `step_labels` are written only if the trace
came with steps, `thinking_closed` only if the thinking has no end. The columns of `Trace.meta` stand beside the
others, except those whose name a column of ours has: they go into an object in the column `meta`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Step, Trace
from reasonflux_prm.traces.columns import Columns, assumed_closed, column_list, expect

TEXT_COLUMNS: Final = ("problem", "thinking", "response")
TRACE_COLUMNS: Final = (
    "id",
    *TEXT_COLUMNS,
    "answer",
    "source",
    "policy",
    "correct",
    "group",
    "thinking_closed",
    "given_steps",
    "step_labels",
    "meta",
)
SCORE_COLUMNS: Final = ("status", "steps", "trajectory_reward", "reward", "prm", "tokens", "overflow", "note")
"""What a scored row has in front of the trace's own columns."""
LABEL_COLUMNS: Final = ("status", "steps", "trajectory", "formula", "note")
"""What a row of labels has in front of the trace's own columns."""
RESERVED: Final = frozenset((*TRACE_COLUMNS, *SCORE_COLUMNS, *LABEL_COLUMNS))


def trace_row(trace: Trace) -> dict[str, Any]:
    """Return the trace as a row; `native` reads it back to an equal trace."""
    row: dict[str, Any] = {
        "id": trace.id,
        "problem": trace.problem,
        "thinking": trace.thinking,
        "response": trace.response,
        "answer": trace.answer,
        "source": trace.source,
        "policy": trace.policy,
        "correct": trace.correct,
        "group": trace.group,
    }
    if not trace.thinking_closed or not assumed_closed(trace.thinking, trace.response, trace.meta):
        row["thinking_closed"] = trace.thinking_closed
    if trace.steps:
        row["given_steps"] = [step_row(step) for step in trace.steps]
    if trace.step_labels:
        row["step_labels"] = list(trace.step_labels)
    row.update((name, value) for name, value in trace.meta.items() if name not in RESERVED)
    if hidden := {name: value for name, value in trace.meta.items() if name in RESERVED}:
        row["meta"] = hidden
    return row


def step_row(step: Step) -> dict[str, Any]:
    """Return a step as an object: its part, and the offsets of its first character and of the one after its last."""
    return {"part": step.part, "start": step.start, "stop": step.stop}


def is_native(row: Mapping[str, Any]) -> bool:
    """Whether the record has problem, thinking and response as text, each under that name."""
    return all(isinstance(row.get(name), str) for name in TEXT_COLUMNS)


def native(row: Mapping[str, Any], where: str) -> list[Trace]:
    """Read a row of ours: a trace, a scored trace (its rewards are left out) or labels (left out too).

    The steps of a row that is neither scored nor labelled may also stand in the column `steps`, as objects like those
    of `given_steps`.
    """
    if not is_native(row):
        raise InputError(f"expected problem, thinking and response as text; the record has {column_list(row)}")
    columns = Columns(row, where)
    problem, thinking, response = (columns.take(name) for name in TEXT_COLUMNS)
    given = "given_steps"
    if is_scored(row):
        _take_all(columns, SCORE_COLUMNS)
    elif "status" in row and "formula" in row:
        _take_all(columns, LABEL_COLUMNS)
    elif given not in row and _holds_spans(row.get("steps")):
        given = "steps"
    spans = columns.take(given) or []
    steps = read_steps(spans, {"thinking": thinking, "response": response}, given)
    labels = read_labels(columns.take("step_labels") or [], len(steps))
    closed = columns.take_closed(thinking, response)
    meta = columns.take("meta")
    trace = columns.trace(problem, thinking, response, closed=closed, steps=steps, labels=labels)
    return [_with_meta(trace, meta)]


def is_scored(row: Mapping[str, Any]) -> bool:
    """Whether the record is a scored trace."""
    return "status" in row and "prm" in row and isinstance(row.get("steps"), list)


def read_steps(spans: Any, texts: Mapping[str, str], column: str) -> tuple[Step, ...]:
    """Read steps from objects with part, start and stop.

    Raises:
        InputError: A step is no such object, leaves its part's text, or overlaps the one before.
    """
    steps: list[Step] = []
    for index, span in enumerate(expect(spans, list, f"`{column}`")):
        what = f"`{column}` {index}"
        expect(span, dict, what)
        part, start, stop = span.get("part"), span.get("start"), span.get("stop")
        whole = type(start) is int and type(stop) is int and isinstance(part, str) and part in texts
        if not (whole and 0 <= start <= stop <= len(texts[part])):
            raise InputError(
                f"expected {what} to have a part (thinking or response) and offsets 0 <= start <= stop <= the length "
                f"of that part's text, got part={part!r}, start={start!r}, stop={stop!r}"
            )
        if steps and (start < steps[-1].stop if part == steps[-1].part else part == "thinking"):
            raise InputError(f"expected {what} to begin after the step before it")
        steps.append(Step(part, start, stop))
    return tuple(steps)


def read_labels(labels: Any, num_steps: int) -> tuple[float | None, ...]:
    """Read one label for each step, as numbers in [0, 1], true or false, `+` or `-`, or null; none at all is allowed.

    Raises:
        InputError: There are labels, but not one for each step, or one is something else.
    """
    expect(labels, list, "the labels")
    if labels and len(labels) != num_steps:
        raise InputError(f"expected one label for each step, got {len(labels)} labels for {num_steps} steps")
    return tuple(_label(value, index) for index, value in enumerate(labels))


def _label(value: Any, index: int) -> float | None:
    if value is None:
        return None
    if value in ("+", "-"):
        return 1.0 if value == "+" else 0.0
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise InputError(
        f"expected label {index} to be a number in [0, 1] (1 good), true, false, '+', '-' or null, got {value!r}"
    )


def _take_all(columns: Columns, names: tuple[str, ...]) -> None:
    for name in names:
        columns.take(name)


def _holds_spans(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(x, dict) and "part" in x and "start" in x for x in value)
    )


def _with_meta(trace: Trace, meta: Any) -> Trace:
    """Put the column `meta` back among the other columns, or keep it as one column if it is not ours."""
    if meta is None:
        return trace
    merged = dict(trace.meta)
    if isinstance(meta, dict) and not merged.keys() & meta.keys():
        merged.update(meta)
    else:
        merged["meta"] = meta
    return replace(trace, meta=merged)
