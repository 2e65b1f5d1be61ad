"""The results as a table like the paper's Table 2, and as a curve like the left of its figure 6.

    python -m recipes.select_sft.tables out

makes them anew of a folder of `recipes.select_sft.run`, done or not. Intervals are percentile bootstraps over problems;
the trainings of one selection (its seeds) answer the same problems, so they are drawn together. How far the seeds lie
apart is given beside it: an interval says how sure an accuracy is for these trainings, not for others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonflux_prm.evaluation.intervals import Interval, bootstrap, paired_difference
from reasonflux_prm.evaluation.metrics import Floats, weighted_mean
from recipes.select_sft.jobs import all_jobs, results
from recipes.select_sft.sizes import BASELINE, CURVE, SIZES
from recipes.select_sft.work import result_file

Result = Mapping[str, Any]
"""One training: method, kept, seed, trained, right (benchmark -> verdicts)."""


def accuracy(results: Sequence[Result], task: str) -> Interval:
    """Return the accuracy of several trainings on one benchmark, with its interval."""
    right = np.array([result["right"][task]["right"] for result in results], float)
    values = right.ravel()

    def mean(weights: Floats) -> Floats:
        return np.asarray(weights @ values / weights.sum(axis=1))

    return bootstrap(mean, list(range(right.shape[1])) * right.shape[0])


def difference(first: Sequence[Result], second: Sequence[Result], task: str) -> Interval | None:
    """Return how much more is right on one benchmark, paired by problem, over the seeds that both have; None: none."""
    if first[0]["method"] != "untrained":
        seeds = {one["seed"] for one in first} & {one["seed"] for one in second}
        first, second = ([one for one in group if one["seed"] in seeds] for group in (first, second))
    if not first or not second:
        return None
    shares = [np.mean([one["right"][task]["right"] for one in group], axis=0) for group in (first, second)]
    return paired_difference(weighted_mean(shares[0]), weighted_mean(shares[1]), list(range(len(shares[0]))))


def table(results: Sequence[Result], kept: int) -> str:
    """Return the table of all methods at one K, as Markdown, each held against the baseline."""
    tasks = list(results[0]["right"])
    cells = [
        cell
        for task in tasks
        for cell in (f"{task} (95%, {len(results[0]['right'][task]['right']):,} problems)", f"minus {BASELINE}")
    ]
    groups = _groups(results)
    baseline = groups.get((BASELINE, kept))
    lines = [_line(["data", "traces", "repeats", *cells, "seeds"]), _line(["---"] * (len(cells) + 4))]
    for (method, own), group in groups.items():
        if own in (kept, None):
            trained = group[0]["trained"] or {}
            found = [
                cell
                for task in tasks
                for cell in (_cell(group, task), "" if group is baseline else _minus(group, baseline, task))
            ]
            lines.append(
                _line([method, f"{trained.get('rows', 0):,}", trained.get("repeats", "-"), *found, len(group)])
            )
    return "\n".join(lines)


def purity(results: Sequence[Result]) -> str:
    """Return what each selection is made of, as Markdown."""
    kinds = ("right", "reference", "corrupted", "policy")
    lines = [_line(["data", "traces", *kinds, "tokens a row"]), _line(["---"] * (len(kinds) + 3))]
    for (method, _), group in _groups(results).items():
        if trained := group[0]["trained"]:
            shares = [f"{trained['made_of'].get(kind, 0):.1%}" for kind in kinds]
            lines.append(_line([method, f"{trained['rows']:,}", *shares, trained["tokens_a_row"]]))
    return "\n".join(lines)


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _minus(group: Sequence[Result], baseline: Sequence[Result] | None, task: str) -> str:
    found = difference(group, baseline, task) if baseline else None
    # Without any difference no resample differs, which is no certainty.
    if found is None or found.low is None or found.low == found.high:
        return "-"
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


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


def write(folder: Path) -> str:
    """Write `results.md` and a curve for each benchmark, of what is done of a run; return the Markdown."""
    settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    size = SIZES[settings["size"]]
    jobs = list(all_jobs(size))
    missing = [job.name for job in jobs if not result_file(folder, job).exists()]
    order = {(job.method, job.kept, job.seed): number for number, job in enumerate(jobs)}
    rows = sorted(results(folder), key=lambda row: order[row["method"], row["kept"], row["seed"]])
    parts = [", ".join(f"{name} `{value}`" for name, value in settings.items()) + "."]
    if rows:
        own = {row["kept"] for row in rows}
        parts += [table(rows if kept == size.kept[0] else _at(rows, kept), kept) for kept in size.kept if kept in own]
        parts += ["What each selection is made of:", purity(rows)]
        for task in rows[0]["right"]:
            if any(row["method"] in (*CURVE, "all") for row in rows):
                (folder / f"curve-{task}.svg").write_text(curve(rows, task, CURVE), encoding="utf-8")
    if missing:
        parts.append(f"Not done, {len(missing)} of {len(jobs)}: {', '.join(missing)}.")
    text = "\n\n".join(parts) + "\n"
    (folder / "results.md").write_text(text, encoding="utf-8")
    return text


def _at(rows: Sequence[Result], kept: int) -> list[Result]:
    return [row for row in rows if row["kept"] == kept]


def main() -> None:
    """Parse the command line, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what recipes.select_sft.run wrote")
    print(write(parser.parse_args().folder))


if __name__ == "__main__":
    main()
