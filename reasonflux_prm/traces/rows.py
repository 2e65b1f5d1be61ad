"""A record as it stands in its source, before any format is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from reasonflux_prm.records import Reject

MAX_RAW: Final = 2000
"""How many characters of a record a `Reject` keeps."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a source."""

    file: str
    line: int
    """1-based line (JSONL) or row (Parquet, data sets)."""
    columns: Mapping[str, Any]
    """JSON values only."""
    raw: str = ""
    """The start of the record's line; empty if it has none."""

    @property
    def where(self) -> str:
        """A name for a record without an id: the file's stem and the line."""
        return f"{stem(self.file)}:{self.line}"

    def reject(self, reason: str) -> Reject:
        """Return the reject of this record."""
        raw = self.raw or json.dumps(self.columns, ensure_ascii=False)
        return Reject(self.file, self.line, reason, raw[:MAX_RAW])


def stem(file: str) -> str:
    """Return a file's name without its directory and its endings; `stdin` for a pipe."""
    if file == "-":
        return "stdin"
    name = PurePath(file).name
    for suffix in (".gz", ".jsonl", ".ndjson", ".json", ".parquet"):
        name = name.removesuffix(suffix)
    return name
