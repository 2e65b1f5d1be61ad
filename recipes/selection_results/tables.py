"""Reports of `reasonflux-prm evaluate` side by side: one row a report, one column a way of choosing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]


def markdown(reports: Mapping[str, Report]) -> str:
    """Return one table of all reports with all candidates of each problem, and what it says of PRMs and votes."""
    methods = list(dict.fromkeys(curve["method"] for report in reports.values() for curve in report["curves"]))
    methods.sort(key=_place)
    labels = {curve["method"]: curve["label"] for report in reports.values() for curve in report["curves"]}
    lines = [
        f"| | problems | candidates | {' | '.join(_plain(labels[method]) for method in methods)} |",
        "|---|---|---|" + "---|" * len(methods),
    ]
    for name, report in reports.items():
        found = {curve["method"]: curve["all"] for curve in report["curves"]}
        fewest, most = report["candidates_a_problem"]["fewest"], report["candidates_a_problem"]["most"]
        each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        cells = [_interval(found.get(method)) for method in methods]
        lines.append(f"| {_plain(name)} | {report['problems']:,} | {each} | {' | '.join(cells)} |")
    level = next(iter(reports.values()))["settings"]["level"]
    head = f"Accuracy with all candidates of each problem; in brackets {level:.0%} intervals, bootstrap by problem."
    return "\n\n".join([head, "\n".join(lines), _beaten(reports)]) + "\n"


def _beaten(reports: Mapping[str, Report]) -> str:
    """Say of every PRM and file whether it beats majority."""
    lines = ["### Against majority", ""]
    for name, report in reports.items():
        for curve in report["curves"]:
            if ":" not in curve["method"]:
                continue
            gap = curve["all"]["minus_majority"]
            verdict = "cannot be told apart from it"
            if gap["low"] is not None and (gap["low"] > 0 or gap["high"] < 0):
                verdict = "**beats it**" if gap["low"] > 0 else "**is below it**"
            lines.append(f"- {_plain(name)}: {_plain(curve['label'])} {verdict}, {_interval(gap, '+')}.")
    return "\n".join(lines)


def _place(method: str) -> tuple[int, str]:
    order = ("pass@1", "majority", "oracle", "prm", "weighted", "shortest", "longest")
    return order.index(method.partition(":")[0]), method


def _interval(value: Mapping[str, Any] | None, sign: str = "") -> str:
    if value is None or value["value"] is None:
        return ""
    ends = "" if value["low"] is None else f" ({value['low']:{sign}.3f} to {value['high']:{sign}.3f})"
    return f"{value['value']:{sign}.3f}{ends}"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
