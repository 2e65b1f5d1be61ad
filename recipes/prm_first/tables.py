"""The report of the evaluation as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from reasonflux_prm.evaluation.intervals import Interval

Report = Mapping[str, Any]


def markdown(report: Report) -> str:
    """Return the report's main numbers as tables."""
    tables = (
        _choice_table(name, found) if "accuracy" in found else _auc_table(name, found)
        for name, found in report["sets"].items()
    )
    return "\n\n".join("\n".join(lines) for lines in tables)


def _choice_table(name: str, found: Report) -> list[str]:
    lines = [
        f"{name}: {found['problems']:,} problems, {found['candidates']:,} candidates",
        "",
        "| choice | accuracy | minus pass@1 | minus majority |",
        "|---|---|---|---|",
    ]
    for way, own in found["accuracy"].items():
        differences = [_cell(found[f"minus_{other}"].get(way), "+") for other in ("pass@1", "majority")]
        lines.append(f"| {way} | {_cell(own)} | {' | '.join(differences)} |")
    return lines + [f"| always {policy} | {_cell(own)} | | |" for policy, own in found["by_policy"].items()]


def _auc_table(name: str, found: Report) -> list[str]:
    steps = f"{found['steps']:,} labelled steps of " if "steps" in found else ""
    lines = [
        f"{name}: {steps}{found['traces']:,} traces, {found['wrong']:,} wrong",
        "",
        "| scored by | AUC | PRM minus this |",
        "|---|---|---|",
    ]
    for way, own in found["auc"].items():
        lines.append(f"| {way} | {_cell(own)} | {_cell(found['prm_minus'].get(way), '+')} |")
    for category, part in found.get("by_category", {}).items():
        lines.append(f"| prm, {category} ({part['steps']:,} steps) | {_cell(part['auc'].get('prm'))} | |")
    if "first_error" in found:
        lines += ["", "| first error by | accuracy | F1 |", "|---|---|---|"]
        for way, part in found["first_error"].items():
            lines.append(f"| {way} | {_cell(part['accuracy'])} | {_cell(part.get('f1'))} |")
    return lines


def _cell(interval: Interval | None, sign: Literal["", "+"] = "") -> str:
    if interval is None or interval.value is None:
        return ""
    ends = "" if interval.low is None else f" ({interval.low:{sign}.3f} to {interval.high:{sign}.3f})"
    return f"{interval.value:{sign}.3f}{ends}"
