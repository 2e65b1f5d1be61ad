"""Read traces: any source, any format, one trace after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import Reject, Trace
from reasonflux_prm.traces.columns import CHAT, column_list
from reasonflux_prm.traces.formats import FORMATS, read_row
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source

FIELDS: Final = (
    "id",
    "problem",
    "thinking",
    "response",
    "answer",
    "source",
    "policy",
    "correct",
    "group",
    "steps",
    "labels",
    "candidates",
    "generations",
    CHAT[0],
    "trajectory",
)
"""The columns that `--map` can name a user's column for."""


def read_traces(
    source: str | Path,
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    rejects: Callable[[Reject], None] | None = None,
    limit: int | None = None,
) -> Iterator[Trace]:
    """Read traces from a source, in its order and in constant memory.

    Ids that occur twice are kept as they are.

    Args:
        source: What `traces.sources.open_source` takes: a path, a directory, `-`, or a data set.
        format: A name in `traces.formats.FORMATS`, or `auto` to tell each record's format by its structure.
        columns: Our name of a column (one of `FIELDS`) to the user's; the first record must have them all.
        rejects: Takes each record that cannot be read, and reading goes on. Without it the first such record raises.
        limit: Read the first so many good records; one record can hold several traces of a problem, and they stay
            together.

    Yields:
        The traces.

    Raises:
        UsageError: No such format, no such field in `columns`, or a negative limit.
        InputError: The source is not there, holds no record, or lacks a column that `columns` names; or, without
            `rejects`, a record is bad.

    Example:
        ```python
        bad = []
        for trace in read_traces("traces.jsonl.gz", columns={"problem": "task"}, rejects=bad.append):
            print(trace.id, len(trace.thinking))
        ```
    """
    if format != "auto" and format not in FORMATS:
        raise UsageError(f"expected the format to be auto or one of {', '.join(FORMATS)}, got {format}")
    if unknown := [name for name in columns or {} if name not in FIELDS]:
        raise UsageError(f"expected --map FIELD=COLUMN with FIELD one of {', '.join(FIELDS)}, got {', '.join(unknown)}")
    if limit is not None and limit < 0:
        raise UsageError(f"expected the limit to be 0 or more, got {limit}")
    return _traces(open_source(source), str(source), format, dict(columns or {}), rejects, limit)


def _traces(
    rows: Iterator[Row | Reject],
    source: str,
    format: str,
    columns: dict[str, str],
    rejects: Callable[[Reject], None] | None,
    limit: int | None,
) -> Iterator[Trace]:
    good, empty, checked = 0, True, not columns
    while limit is None or good < limit:
        row = next(rows, None)
        if row is None:
            break
        empty = False
        if isinstance(row, Row) and not checked:
            _check_columns(row, columns)
            checked = True
        read = row if isinstance(row, Reject) else _read(row, format, columns)
        if isinstance(read, Reject):
            _refuse(read, rejects)
            continue
        good += 1
        yield from read
    if empty and limit != 0:
        raise InputError(f"expected records in {source}, found none: it is empty")


def _read(row: Row, format: str, columns: dict[str, str]) -> list[Trace] | Reject:
    renamed, displaced = _rename(row.columns, columns)
    try:
        traces = read_row(renamed, row.where, format)
    except InputError as error:
        return row.reject(str(error))
    return [replace(trace, meta={**trace.meta, **displaced}) for trace in traces] if displaced else traces


def _refuse(reject: Reject, rejects: Callable[[Reject], None] | None) -> None:
    if rejects is None:
        raise InputError(f"{reject.file}:{reject.line}: {reject.reason}")
    rejects(reject)


def _check_columns(row: Row, columns: dict[str, str]) -> None:
    for field, name in columns.items():
        if name not in row.columns:
            raise InputError(
                f"{row.file}:{row.line}: expected the column {name}, which --map {field}={name} names; "
                f"the record has {column_list(row.columns)}"
            )


def _rename(row: Mapping[str, Any], columns: dict[str, str]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Give the user's columns our names; return also the columns that had those names, for `meta`."""
    if not columns:
        return row, {}
    mapped = {field: row[name] for field, name in columns.items() if name in row}
    used = set(columns.values())
    kept = {name: value for name, value in row.items() if name not in used and name not in mapped}
    displaced = {name: row[name] for name in mapped if name in row and name not in used}
    return {**kept, **mapped}, displaced
