"""What N buys as one HTML file: the report of `evaluate` with its figure drawn for the reader's screen.

The figure has the lines, bands and colours of `evaluation.figure`; here it answers to the pointer and the keys, is as
wide as the screen lets it, and stands above the tables. The file holds the whole report and needs no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.traces.write import atomic_path
from reasonflux_prm.viewer.html import element, shell_of

KIND: Final = "selection"
_STYLES: Final = ("base.css", "charts.css", "buys.css")
_SCRIPTS: Final = ("core.js", "buys_figure.js", "buys.js")


def read_curves(path: Path | str) -> dict[str, Any] | None:
    """Return the report in a file if `evaluate` or `SelectionReport.to_json` wrote it; None if it is something else."""
    file = Path(path)
    if file.suffix != ".json" or not file.is_file():
        return None
    try:
        row = json.loads(file.read_text("utf-8"))
    except ValueError:
        return None
    return row if isinstance(row, dict) and row.get("kind") == KIND else None


def write_curves(row: Mapping[str, Any], path: Path | str, *, title: str) -> int:
    """Write a report as one HTML file that opens anywhere; return its size in bytes.

    Args:
        row: What `SelectionReport.row` returns, with or without what `evaluate` adds.
        path: The file to write; it appears whole or not at all.
        title: Heading of the page.

    Raises:
        InputError: The report is not what this version writes.
        OutputError: The file could not be written.
    """
    from reasonflux_prm.evaluation.curves import Method
    from reasonflux_prm.evaluation.figure import line_name, looks_of

    try:
        methods = [Method.parse(curve["method"]) for curve in row["curves"]]
        known = all(curve["points"] and "all" in curve for curve in row["curves"]) and row["settings"]["level"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"expected a report of evaluate, got one that cannot be read: {error!r}") from error
    if not methods or not known:
        raise InputError("expected a report of evaluate with at least one curve, got one without")
    pairs = zip(methods, looks_of(methods), strict=True)
    looks = [{"name": line_name(method), **asdict(look)} for method, look in pairs]
    shell, end = shell_of(title, "buys.html", _STYLES, _SCRIPTS)
    content = {**row, "title": title, "looks": looks}
    with atomic_path(path) as part:
        part.write_bytes(shell.encode() + element("report", content) + end.encode())
        return part.stat().st_size
