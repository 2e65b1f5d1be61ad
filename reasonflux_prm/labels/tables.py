"""Labels and training rows as files that appear whole: JSON lines, and Parquet written from them in bounded memory.

For a Parquet file a first pass over the lines finds what columns and terms there are, and a second one writes. Columns
of the trace that hold one kind of number, text or truth value keep it; those that hold lists, objects, or now this and
now that, become JSON text.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final

from reasonflux_prm.errors import MissingExtra
from reasonflux_prm.traces.write import atomic_path, synced_meanwhile, writing

TABLE_SUFFIX: Final = ".parquet"
ROW_GROUP_BYTES: Final = 32 * 1024 * 1024
"""JSON text that one row group is made of."""

_SPANS: Final = frozenset({"steps", "given_steps"})
_INT64: Final = 1 << 63


@contextmanager
def written_rows(output: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Give a stream for rows as JSON lines, from which the output is made if the block ends without an error.

    Args:
        output: A `.parquet` file, a `.gz` file, or any other, which is not compressed.

    Raises:
        MissingExtra: A Parquet file needs pyarrow, which is not installed.
        OutputError: The file could not be written.
    """
    if output.suffix == TABLE_SUFFIX:
        lines = output.with_name(f".{output.name}.lines")
        try:
            with writing(lines):
                lines.parent.mkdir(parents=True, exist_ok=True)
            with lines.open("wb") as stream:
                yield stream
            write_table(lines, output)
        finally:
            lines.unlink(missing_ok=True)
    elif output.suffix == ".gz":
        with atomic_path(output) as part, gzip.GzipFile(part, "wb", mtime=0) as packed:
            yield packed
    else:
        with atomic_path(output) as part, part.open("wb") as stream, synced_meanwhile(stream):
            yield stream


def write_table(lines: Path, output: Path) -> None:
    """Write rows as a Parquet file, whole or not at all.

    Args:
        lines: JSON lines; label rows, or rows whose columns are texts, numbers and lists of one of them.
        output: The Parquet file.

    Raises:
        MissingExtra: pyarrow is not installed.
        OutputError: The file could not be written.
    """
    arrow = _pyarrow()
    with lines.open("rb") as stream:
        shape = _Shape()
        for line in stream:
            shape.add(json.loads(line))
        schema = shape.schema(arrow)
        stream.seek(0)
        with atomic_path(output) as part, arrow.parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            for rows in _groups(stream):
                writer.write_table(arrow.Table.from_pylist([shape.fitted(row) for row in rows], schema=schema))


def _groups(stream: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for line in stream:
        rows.append(json.loads(line))
        size += len(line)
        if size >= ROW_GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


@dataclass
class _Shape:
    """What the rows of a file have in common."""

    columns: dict[str, str] = field(default_factory=dict)
    """Column -> kind: `null`, `bool`, `int`, `float`, `text`, a `list of` them, `spans`, `trajectory` or `json`."""
    step_terms: dict[str, None] = field(default_factory=dict)
    trajectory_terms: dict[str, None] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take note of a row."""
        labels = "formula" in row
        for name, value in row.items():
            if labels and name in _SPANS:
                self.columns[name] = "spans"
            elif labels and name == "trajectory":
                self.columns[name] = "trajectory"
            else:
                self.columns[name] = _joined(self.columns.get(name, "null"), _kind(value))
        if labels:
            for step in row["steps"]:
                self.step_terms.update(dict.fromkeys(step["terms"]))
            self.trajectory_terms.update(dict.fromkeys(row["trajectory"]["terms"]))

    def fitted(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row whose values fit the schema."""
        if "thinking_closed" in self.columns:
            # Left out of a row where it is true; null would be taken for a column of the user's.
            row = {"thinking_closed": True, **row}
        return {
            name: json.dumps(value, ensure_ascii=False) if self.columns[name] == "json" and value is not None else value
            for name, value in row.items()
        }

    def schema(self, arrow: ModuleType) -> Any:
        """Return the Parquet file's schema."""
        plain = {
            "null": arrow.null(),
            "bool": arrow.bool_(),
            "int": arrow.int64(),
            "float": arrow.float64(),
            "text": arrow.string(),
            "json": arrow.string(),
        }
        types = {**plain, **{f"list of {name}": arrow.list_(of) for name, of in plain.items()}}
        span = [("part", arrow.string()), ("start", arrow.int64()), ("stop", arrow.int64())]
        target = [("target", arrow.float64())]
        steps = [*span, *_terms_field(arrow, self.step_terms), *target]
        special = {
            "steps": arrow.list_(arrow.struct(steps)),
            "given_steps": arrow.list_(arrow.struct(span)),
            "trajectory": arrow.struct([*_terms_field(arrow, self.trajectory_terms), *target]),
        }
        return arrow.schema(
            [
                (name, special[name] if kind in ("spans", "trajectory") else types[kind])
                for name, kind in self.columns.items()
            ]
        )


def _terms_field(arrow: ModuleType, names: Mapping[str, None]) -> list[tuple[str, Any]]:
    """Return the field of terms; Parquet has no structure without fields, so none if there are no terms."""
    term = arrow.struct([("value", arrow.float64()), ("reason", arrow.string())])
    return [("terms", arrow.struct([(name, term) for name in names]))] if names else []


def _kind(value: Any) -> str:
    if isinstance(value, list):
        kind = "null"
        for item in value:
            kind = _joined(kind, _kind(item))
        return f"list of {kind}" if " " not in kind and kind != "json" else "json"
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if -_INT64 <= value < _INT64 else "json"
    kinds: dict[type, str] = {type(None): "null", bool: "bool", float: "float", str: "text"}
    return kinds.get(type(value), "json")


def _joined(one: str, other: str) -> str:
    """Return the kind that holds values of both."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if {one, other} == {"int", "float"}:
        return "float"
    if one.startswith("list of ") and other.startswith("list of "):
        inner = _joined(one.removeprefix("list of "), other.removeprefix("list of "))
        return f"list of {inner}" if inner != "json" else "json"
    return "json"


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            'expected pyarrow to write a Parquet file, but it is not installed: pip install "reasonflux-prm[data]"'
        ) from error
    module: ModuleType = pyarrow
    return module
