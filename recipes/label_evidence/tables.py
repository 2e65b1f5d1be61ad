"""The report of `measure.py` as Markdown tables: one a measure, methods down, sets across."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURES = {
    "step_auc": "Right against wrong steps: area under the ROC curve",
    "first_error": "The lowest step is the first error: share of traces",
    "spearman_value": "Spearman's correlation with the Monte-Carlo value after the step, within a trace",
    "spearman_change": "Spearman's correlation with what the step changed in it, within a trace",
    "value_auc": "Steps after which most continuations end right: area under the ROC curve",
    "trace_auc": "Right against wrong traces, by the mean over their steps: area under the ROC curve",
    "trace_auc_within": "The same within each problem that has both, averaged over problems",
}


def cell(interval: Mapping[str, Any] | None) -> str:
    """Return a value with its interval."""
    if interval is None or interval["value"] is None:
        return ""
    if interval["low"] is None:
        return f"{interval['value']:.3f}"
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of methods (rows, in the order of the first column's) and sets, and under each set its n."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    most = {
        head: max((one["n"] for one in column.values() if one is not None), default=0)
        for head, column in columns.items()
    }
    lines = [
        "| | " + " | ".join(f"{head}, n = {most[head]:,}" for head in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name in names:
        cells = []
        for head, column in columns.items():
            interval = column.get(name)
            fewer = f", n = {interval['n']:,}" if interval is not None and interval["n"] < most[head] else ""
            cells.append(cell(interval) + fewer)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown(report: Mapping[str, Mapping[str, Any]]) -> str:
    """Return every measure's table; categories have one a set."""
    parts = []
    for measure, title in MEASURES.items():
        columns = {name: found[measure] for name, found in report.items() if measure in found}
        if columns:
            parts.append(f"### {title}\n\n{table(columns)}")
    for name, found in report.items():
        if found.get("step_auc_by_category"):
            parts.append(
                f"### {name}: right against wrong steps, by category\n\n{table(found['step_auc_by_category'])}"
            )
    return "\n\n".join(parts)
