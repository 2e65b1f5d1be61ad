"""The results as a table like the paper's Table 2, and as a curve like the left of its figure 6.

Intervals are percentile bootstraps over problems; the trainings of one selection (its seeds) answer the same problems,
so they are drawn together. How far the seeds lie apart is given beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonflux_prm.evaluation.intervals import Interval, bootstrap
from reasonflux_prm.evaluation.metrics import Floats

Result = Mapping[str, Any]
"""One training: method, kept, seed, trained, right (benchmark -> verdicts)."""


def accuracy(results: Sequence[Result], task: str) -> Interval:
    """Return the accuracy of several trainings on one benchmark, with its interval."""
    right = np.array([result["right"][task]["right"] for result in results], float)
    values = right.ravel()

    def mean(weights: Floats) -> Floats:
        return np.asarray(weights @ values / weights.sum(axis=1))

    return bootstrap(mean, list(range(right.shape[1])) * right.shape[0])


def table(results: Sequence[Result], kept: int) -> str:
    """Return the table of all methods at one K, as Markdown."""
    tasks = list(results[0]["right"])
    lines = [
        "| data | traces | repeats | "
        + " | ".join(f"{task} (95%, {len(results[0]['right'][task]['right'])} problems)" for task in tasks)
        + " | seeds |",
        "|---|---:|---:|" + "---|" * (len(tasks) + 1),
    ]
    for method, group in _groups(results).items():
        if method[1] in (kept, None):
            trained = group[0]["trained"] or {}
            cells = [_cell(group, task) for task in tasks]
            rows = f"{trained.get('rows', 0):,}"
            lines.append(
                f"| {method[0]} | {rows} | {trained.get('repeats', '-')} | {' | '.join(cells)} | {len(group)} |"
            )
    return "\n".join(lines)


def _cell(group: Sequence[Result], task: str) -> str:
    found = accuracy(group, task)
    each = [float(np.mean(result["right"][task]["right"])) for result in group]
    if found.low == found.high:
        # All verdicts are the same, and no resample differs: that is no certainty.
        return f"{found.value:.3f} (no interval: all alike)"
    apart = f", seeds {min(each):.3f} to {max(each):.3f}" if len(each) > 1 else ""
    return f"{found.value:.3f} ({_end(found.low)} to {_end(found.high)}{apart})"


def _end(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _groups(results: Sequence[Result]) -> dict[tuple[str, int | None], list[Result]]:
    groups: dict[tuple[str, int | None], list[Result]] = {}
    for result in results:
        groups.setdefault((result["method"], result["kept"]), []).append(result)
    return groups


def curve(results: Sequence[Result], task: str, methods: Sequence[str]) -> str:
    """Return an SVG of accuracy against the number of traces, one line a method, with its intervals."""
    groups = _groups(results)
    points = {
        method: sorted(
            (kept, accuracy(group, task)) for (name, kept), group in groups.items() if name == method and kept
        )
        for method in methods
    }
    whole = [(int(g[0]["trained"]["rows"]), accuracy(g, task)) for (name, _), g in groups.items() if name == "all"]
    everything = [point for line in points.values() for point in line] + whole
    ks = [k for k, _ in everything]
    top = max(found.high or found.value or 0 for _, found in everything) * 1.1 or 1.0

    def x(k: float) -> float:
        low, high = np.log(min(ks)), np.log(max(ks))
        return 60 + (0.5 if high == low else float((np.log(k) - low) / (high - low))) * 480

    def y(value: float | None) -> float:
        return 290 - (value or 0) / top * 250

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 340" font-family="sans-serif" font-size="12">',
        f'<text x="60" y="20" font-size="14">{task}: accuracy by number of traces</text>',
        '<path d="M60 290H560M60 290V40" stroke="#888" fill="none"/>',
    ]
    parts += [f'<text x="{x(k):.0f}" y="308" text-anchor="middle">{k:,}</text>' for k in sorted(set(ks))]
    parts += [f'<text x="52" y="{y(v) + 4:.0f}" text-anchor="end">{v:.2f}</text>' for v in (0, top / 2, top)]
    for colour, (method, line) in zip(("#1f6f9f", "#b5382a", "#2f7d5b"), points.items(), strict=False):
        path = " ".join(f"{'M' if i == 0 else 'L'}{x(k):.1f} {y(f.value):.1f}" for i, (k, f) in enumerate(line))
        parts.append(f'<path d="{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        for k, found in line:
            parts.append(f'<path d="M{x(k):.1f} {y(found.low):.1f}V{y(found.high):.1f}" stroke="{colour}"/>')
            parts.append(f'<circle cx="{x(k):.1f}" cy="{y(found.value):.1f}" r="3.5" fill="{colour}"/>')
        if line:
            k, found = line[-1]
            parts.append(f'<text x="{x(k) + 8:.0f}" y="{y(found.value) - 6:.0f}" fill="{colour}">{method}</text>')
    for k, found in whole:
        parts.append(f'<circle cx="{x(k):.1f}" cy="{y(found.value):.1f}" r="4" fill="none" stroke="#555"/>')
        parts.append(f'<text x="{x(k) + 8:.0f}" y="{y(found.value) + 14:.0f}" fill="#555">all</text>')
    return "\n".join([*parts, "</svg>", ""])


def write(results: Sequence[Result], kept: int, curves: Sequence[str], folder: Path, head: str) -> str:
    """Write `results.md` and a curve for each benchmark; return the Markdown."""
    text = f"{head}\n\n{table(results, kept)}\n"
    (folder / "results.md").write_text(text, encoding="utf-8")
    for task in results[0]["right"]:
        (folder / f"curve-{task}.svg").write_text(curve(results, task, curves), encoding="utf-8")
    return text
