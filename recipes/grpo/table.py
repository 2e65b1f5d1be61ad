"""What came of the runs, as Markdown and JSON: accuracy with intervals, length, the course of training, alarms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.intervals import Interval
from reasonflux_prm.rl.monitor import BatchSigns, Monitor, MonitorSettings
from reasonflux_prm.traces.write import atomic_path
from recipes.grpo.measure import Graded, accuracy, difference
from recipes.grpo.sizes import Size

TITLES = {"gsm8k": "GSM8K test", "svamp": "SVAMP"}
"""Of tasks whose name is not what a table says."""


@dataclass(frozen=True, slots=True)
class Run:
    """One policy."""

    reward: str
    seed: int
    log: list[dict[str, Any]]
    """One entry an update; none of the student before training."""
    tested: Mapping[str, Graded]
    """By task."""


def write_table(
    runs: Sequence[Run], size: Size, about: Mapping[str, Any], output: Path, missing: Sequence[str] = ()
) -> str:
    """Write `table.json` and `table.md`; return the latter.

    Args:
        runs: Those that are done, at least one.
        size: Of all.
        about: What they have in common.
        output: Folder.
        missing: Names of runs that are not done.
    """
    rows = [_row(name, [run for run in runs if run.reward == name], runs, size) for name in _names(runs)]
    table = {"about": about, "missing": list(missing), "rows": rows}
    text = _markdown(rows, list(runs[0].tested))
    if missing:
        text += f"Not done, and not in the table: {', '.join(missing)}.\n"
    for name, content in (("table.json", json.dumps(table, indent=1) + "\n"), ("table.md", text)):
        with atomic_path(output / name) as part:
            part.write_text(content, "utf-8")
    return text


def alarms(log: Sequence[Mapping[str, Any]], window: int) -> list[str]:
    """Return the alarms of one run's log, as `rl.monitor` gives them: kind and update."""
    monitor = Monitor(MonitorSettings(window=max(2, window)))
    found = []
    for number, entry in enumerate(log, 1):
        numbers: dict[str, Any] = {field.name: entry.get(f"monitor/{field.name}") for field in fields(BatchSigns)}
        found += [f"{alarm.kind} at {number}" for alarm in monitor.add(BatchSigns(**numbers))]
    return found


def _row(name: str, own: Sequence[Run], runs: Sequence[Run], size: Size) -> dict[str, Any]:
    rule = [run for run in runs if run.reward == "rule"]
    row: dict[str, Any] = {"reward": name, "seeds": [run.seed for run in own]}
    for task in own[0].tested:
        tested = [run.tested[task] for run in own]
        row[task] = {
            "accuracy": asdict(accuracy(tested)),
            "by_seed": [accuracy([one]).value for one in tested],
            "tokens": sum(one.tokens for one in tested) / len(tested),
            "cut": sum(one.cut for one in tested) / len(tested),
        }
        # Seeds that both have.
        pairs = [(mine, other) for mine in own for other in rule if mine.seed == other.seed]
        if pairs and name not in ("rule", "before"):
            mine, others = ([run.tested[task] for run in side] for side in zip(*pairs, strict=True))
            row[task]["minus_rule"] = asdict(difference(mine, others))
    if own[0].log:
        for key in ("reward", "accuracy", "tokens", "auc"):
            row[f"training_{key}"] = [_course(run.log, f"monitor/{key}", size.window) for run in own]
        row["kl"] = [run.log[-1].get("kl") for run in own]
        row["alarms"] = [alarms(run.log, size.window) for run in own]
    return row


def _course(log: Sequence[Mapping[str, Any]], key: str, window: int) -> list[float] | None:
    """Return the means over the first and the last updates."""
    values = [entry[key] for entry in log if key in entry]
    if not values:
        return None
    first, last = values[:window], values[-window:]
    return [sum(first) / len(first), sum(last) / len(last)]


def _names(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.reward for run in runs))


def _markdown(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> str:
    head = [
        "reward",
        "seeds",
        *(title(task) for task in tasks),
        f"minus rule, {title(tasks[0])}",
        "tokens",
        "cut off",
        "PRM reward",
        "right",
    ]
    lines = [_line([*head, "alarms"]), _line(["---"] * (len(head) + 1))]
    for row in rows:
        first = row[tasks[0]]
        minus = first.get("minus_rule")
        lines.append(
            _line(
                [
                    row["reward"],
                    str(len(row["seeds"])),
                    *(_interval(row[task]["accuracy"]) for task in tasks),
                    _interval(minus, "+") if minus else "",
                    f"{first['tokens']:.0f}",
                    f"{first['cut']:.0%}",
                    _arrow(row.get("training_reward")),
                    _arrow(row.get("training_accuracy")),
                    "; ".join(
                        f"seed {s}: {', '.join(a)}"
                        for s, a in zip(row["seeds"], row.get("alarms", []), strict=False)
                        if a
                    )
                    or ("none" if "alarms" in row else ""),
                ]
            )
        )
    n = rows[0][tasks[0]]["accuracy"]
    lines += [
        "",
        "Accuracy of single samples at temperature 1, over all seeds, with the 95% interval by problem "
        f"({n['clusters']:,} problems of {title(tasks[0])}). PRM reward and share of right "
        "rollouts: means over the first and the last updates of training.",
        "",
    ]
    return "\n".join(lines)


def _interval(values: Mapping[str, Any], sign: str = "") -> str:
    interval = Interval(**values)
    if interval.value is None:
        return ""
    ends = "" if interval.low is None else f" ({interval.low:{sign}.3f} to {interval.high:{sign}.3f})"
    return f"{interval.value:{sign}.3f}{ends}"


def _arrow(courses: Sequence[Sequence[float] | None] | None) -> str:
    known = [course for course in courses or [] if course is not None]
    if not known:
        return ""
    first, last = (sum(course[k] for course in known) / len(known) for k in (0, 1))
    return f"{first:.3f} to {last:.3f}"


def title(task: str) -> str:
    """Return what a table calls a task."""
    return TITLES.get(task, task)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
