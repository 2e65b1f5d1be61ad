"""Labels on disk: one row a trace, JSON lines or Parquet, and back.

A row holds `id, status, steps: [{part, start, stop, terms: {name: {value, reason}}, target}],
trajectory: {terms: {name: {value, reason}}, target}, formula, note`, then the trace's own columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import LabelledTrace, LabelStatus, Reject, Term
from reasonflux_prm.traces.columns import column_list, expect
from reasonflux_prm.traces.native import is_native, native, read_steps, step_row, trace_row
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source

KIND: Final = "labels"
"""What the manifest of a label file calls it."""


def labelled_row(labelled: LabelledTrace) -> dict[str, Any]:
    """Return a label as a row: the terms and targets, then the trace's own columns.

    `read_labelled` reads it back to an equal one.
    """
    return {
        "id": labelled.trace.id,
        "status": labelled.status.value,
        "steps": [
            {**step_row(step), "terms": _terms_row(terms), "target": target}
            for step, terms, target in zip(labelled.steps, labelled.step_terms, labelled.targets, strict=True)
        ],
        "trajectory": {"terms": _terms_row(labelled.trajectory_terms), "target": labelled.trajectory_target},
        "formula": labelled.formula,
        "note": labelled.note,
        **trace_row(labelled.trace),
    }


def is_labelled(columns: Mapping[str, Any]) -> bool:
    """Whether a record is a label."""
    return "status" in columns and "formula" in columns and isinstance(columns.get("steps"), list)


def read_labelled(path: str | Path) -> Iterator[LabelledTrace]:
    """Read labels back, in order and in constant memory.

    Args:
        path: A file of label rows, or any other source that `traces.sources.open_source` takes.

    Raises:
        InputError: The source is not there, or a record is no label.
    """
    for row in open_source(path):
        if isinstance(row, Reject):
            raise InputError(f"{row.file}:{row.line}: {row.reason}")
        yield labelled_of(row)


def labelled_of(row: Row) -> LabelledTrace:
    """Return the label that a row holds.

    Raises:
        InputError: It holds none.
    """
    try:
        return _labelled(row)
    except (InputError, KeyError, TypeError, ValueError) as error:
        reason = error if isinstance(error, InputError) else f"expected a label, got a wrong {error}"
        raise InputError(f"{row.file}:{row.line}: {reason}") from error


def _labelled(row: Row) -> LabelledTrace:
    columns = row.columns
    if not (is_labelled(columns) and is_native(columns)):
        raise InputError(f"expected a row that `reasonflux-prm label` wrote; the record has {column_list(columns)}")
    trace = native(columns, row.where)[0]
    steps, trajectory = columns["steps"], expect(columns["trajectory"], dict, "the column trajectory")
    return LabelledTrace(
        trace=trace,
        status=LabelStatus(columns["status"]),
        steps=read_steps(steps, {"thinking": trace.thinking, "response": trace.response}, "steps"),
        step_terms=tuple(_terms(step.get("terms")) for step in steps),
        targets=tuple(_number(step["target"]) for step in steps),
        trajectory_terms=_terms(trajectory.get("terms")),
        trajectory_target=_number(trajectory["target"]),
        formula=expect(columns["formula"], str, "the column formula"),
        note=columns["note"],
    )


def _terms_row(terms: Mapping[str, Term]) -> dict[str, Any]:
    return {name: {"value": term.value, "reason": term.reason} for name, term in terms.items()}


def _terms(row: Any) -> dict[str, Term]:
    # In a table every row has every term's column, null where the row has no such term, and no column if none has any.
    terms = expect(row, dict, "the terms of a step") if row is not None else {}
    return {name: Term(_number(term["value"]), term["reason"]) for name, term in terms.items() if term is not None}


def _number(value: Any) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise InputError(f"expected terms and targets to be numbers or null, got {value!r}")
