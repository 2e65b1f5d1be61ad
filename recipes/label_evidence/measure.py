"""Does a label tell good from bad? Every term and combination in label files, against what is known of the traces.

    python -m recipes.label_evidence.measure LABELS.jsonl ... -o report.json > tables.md

Each file is what `reasonflux-prm label` wrote of one of the sets (see `sets.py`). Measured, where a file has the truth:

- steps judged right or wrong: area under the ROC curve, for all steps and by category; and how often the step with the
  lowest value is the first error;
- steps with Monte-Carlo values: Spearman's correlation within each trace, with the value after the step and with what
  the step changed, averaged over traces; and the area under the ROC curve for values of at least one half;
- traces whose answer is right or wrong: area under the ROC curve of the mean over the steps, over all problems and
  within each that has both, averaged; the first can be had by telling easy problems from hard ones.

A method that says nothing of a step leaves it out, and n says how many are left; only the judge by rules, which speaks
of few steps, stands a second time with 1 for its silence. 95% intervals are bootstrapped by problem.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from reasonflux_prm.evaluation.intervals import bootstrap
from reasonflux_prm.evaluation.metrics import auc as plain_auc
from reasonflux_prm.evaluation.metrics import weighted_auc, weighted_mean
from reasonflux_prm.labels.combine import combine
from reasonflux_prm.labels.files import read_labelled
from reasonflux_prm.labels.formula import ALIGNMENT_TERMS, DEFAULT_TERMS, Formula
from reasonflux_prm.records import LabelledTrace
from recipes.label_evidence.tables import markdown

Values = list[float | None]
Method = Callable[[LabelledTrace], Values]
"""A value for each step, higher for better."""
JSON = dict[str, Any]
Area = Callable[[Sequence[float], Sequence[bool], Sequence[str]], JSON | None]
"""From values, whether each is of something right, and the problem of each, to an area with its interval."""

RAW_TERMS = (*ALIGNMENT_TERMS, "coherence", "quality")
HALF = 0.5


def term(name: str, silence: float | None = None) -> Method:
    """Return the method that takes one raw term as it is."""

    def values(labelled: LabelledTrace) -> Values:
        found = [terms[name].value if name in terms else None for terms in labelled.step_terms]
        return [silence if value is None else value for value in found]

    return values


def formula(how: Formula) -> Method:
    """Return the method that combines terms."""
    return lambda labelled: list(combine(labelled, how).targets)


def formulas() -> list[Formula]:
    """Return the paper's formula as printed, the bounded one, other ways to combine, and each pair of terms."""
    pairs = [Formula(terms=pair) for pair in combinations(DEFAULT_TERMS, 2)]
    return [Formula("literal"), Formula(), Formula(aggregation="mean"), Formula(aggregation="min"), *pairs]


def methods() -> dict[str, Method]:
    """Return everything that is measured, by name; the last two know nothing of what a step says."""
    named: dict[str, Method] = {name: term(name) for name in RAW_TERMS}
    named["quality, silence 1"] = term("quality", 1.0)
    named |= {str(how): formula(how) for how in formulas()}
    named["earlier step"] = lambda labelled: [-float(index) for index in range(len(labelled.steps))]
    named["shorter step"] = lambda labelled: [float(step.start - step.stop) for step in labelled.steps]
    return named


# --- what is known ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """Labelled traces of one file, and each method's values for their steps."""

    traces: Sequence[LabelledTrace]
    values: Mapping[str, Sequence[Values]]

    def only(self, keep: Callable[[LabelledTrace], bool]) -> Known:
        """Return the part of it whose traces are kept."""
        places = [place for place, labelled in enumerate(self.traces) if keep(labelled)]
        kept = {name: [values[place] for place in places] for name, values in self.values.items()}
        return Known([self.traces[place] for place in places], kept)


def problem(labelled: LabelledTrace) -> str:
    """Return what clusters are made of: variants of one problem share its text."""
    return labelled.trace.problem


def auc(scores: Sequence[float], labels: Sequence[bool], clusters: Sequence[str]) -> JSON | None:
    """Return an area with its interval; None without a right and a wrong item."""
    if not any(labels) or all(labels):
        return None
    return asdict(bootstrap(weighted_auc(scores, labels), clusters))


def mean_auc(scores: Sequence[float], labels: Sequence[bool], clusters: Sequence[str]) -> JSON | None:
    """Return the mean of the areas within each cluster that has a right and a wrong item; None if there is none."""
    items: dict[str, list[tuple[float, bool]]] = {}
    for score, label, cluster in zip(scores, labels, clusters, strict=True):
        items.setdefault(cluster, []).append((score, label))
    areas = {cluster: plain_auc(*zip(*found, strict=True)) for cluster, found in items.items()}
    told = {cluster: area for cluster, area in areas.items() if area is not None}
    return mean(list(told.values()), list(told))


def mean(values: Sequence[float], clusters: Sequence[str]) -> JSON | None:
    """Return a mean with its interval; None of nothing."""
    return asdict(bootstrap(weighted_mean(values), clusters)) if values else None


def step_auc(known: Known, truth: Callable[[LabelledTrace], Sequence[bool | None]]) -> JSON:
    """Return each method's area over the steps whose truth is known."""
    report: JSON = {}
    for name, values in known.values.items():
        rows = [
            (value, right, problem(labelled))
            for labelled, row in zip(known.traces, values, strict=True)
            for value, right in zip(row, truth(labelled), strict=True)
            if value is not None and right is not None
        ]
        report[name] = auc(*(list(column) for column in zip(*rows, strict=True))) if rows else None
    return report


def judged(labelled: LabelledTrace) -> list[bool | None]:
    """Return what people said of the steps."""
    labels = labelled.trace.step_labels or (None,) * len(labelled.steps)
    if len(labels) != len(labelled.steps):  # white space that became a step of its own
        return [None] * len(labelled.steps)
    return [None if label is None else label >= HALF for label in labels]


def first_error(known: Known) -> JSON:
    """Return how often the step of the lowest value is the first wrong one, ties counted by their share."""
    erring = known.only(lambda labelled: False in judged(labelled))
    clusters = [problem(labelled) for labelled in erring.traces]
    hits: dict[str, list[float]] = {name: [] for name in (*known.values, "a step at random")}
    for place, labelled in enumerate(erring.traces):
        wrong = judged(labelled).index(False)
        for name, values in erring.values.items():
            said = [np.inf if value is None else value for value in values[place]]
            lowest = [index for index, value in enumerate(said) if value == min(said)]
            hits[name].append((wrong in lowest) / len(lowest))
        hits["a step at random"].append(1 / len(labelled.steps))
    return {name: mean(values, clusters) for name, values in hits.items()}


def ranks(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return ranks, those of equal values averaged."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: np.ndarray[Any, np.dtype[np.float64]] = ((last - counts + 1 + last) / 2)[inverse]
    return middle


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's correlation; None where either is constant."""
    a, b = ranks(one), ranks(other)
    if len(a) < 3 or not (np.ptp(a) and np.ptp(b)):
        return None
    return float(np.corrcoef(a, b)[0, 1])


def within_traces(known: Known, truth: Callable[[LabelledTrace], Sequence[float]]) -> JSON:
    """Return each method's correlation with the truth within a trace, averaged over traces."""
    report: JSON = {}
    for name, values in known.values.items():
        found, clusters = [], []
        for labelled, row in zip(known.traces, values, strict=True):
            pairs = [(value, gold) for value, gold in zip(row, truth(labelled), strict=False) if value is not None]
            rho = spearman(*zip(*pairs, strict=True)) if pairs else None
            if rho is not None:
                found.append(rho)
                clusters.append(problem(labelled))
        report[name] = mean(found, clusters)
    return report


def values_after(labelled: LabelledTrace) -> list[float]:
    """Return the share of continuations that end right, after each thinking step."""
    return list(labelled.trace.meta["mc_after"])


def changes(labelled: LabelledTrace) -> list[float]:
    """Return what each thinking step changed in that share."""
    meta = labelled.trace.meta
    return [after - before for before, after in zip(meta["mc_before"], meta["mc_after"], strict=True)]


def likely(labelled: LabelledTrace) -> list[bool | None]:
    """Return whether most continuations end right after a step; response steps have no value."""
    known: list[bool | None] = [value >= HALF for value in values_after(labelled)]
    return known + [None] * (len(labelled.steps) - len(known))


def trace_auc(known: Known, area: Area) -> JSON:
    """Return each method's area over traces, by the mean over the steps, and that of plain length."""
    told = known.only(lambda labelled: labelled.trace.correct is not None)
    report: JSON = {}
    means = {
        name: [[value for value in row if value is not None] for row in values] for name, values in told.values.items()
    }
    lengths = [[-float(len(one.trace.thinking) + len(one.trace.response))] for one in told.traces]
    for name, rows in {**means, "shorter trace": lengths}.items():
        kept = [place for place, row in enumerate(rows) if row]
        report[name] = area(
            [float(np.mean(rows[place])) for place in kept],
            [bool(told.traces[place].trace.correct) for place in kept],
            [problem(told.traces[place]) for place in kept],
        )
    return report


def measure(path: Path) -> JSON:
    """Return all that one label file lets us measure."""
    traces = list(read_labelled(path))
    known = Known(traces, {name: [method(one) for one in traces] for name, method in methods().items()})
    report: JSON = {"traces": len(traces), "steps": sum(len(one.steps) for one in traces)}
    if any(one.trace.step_labels for one in traces):
        report["step_auc"] = step_auc(known, judged)
        report["first_error"] = first_error(known)
        categories = sorted({str(one.trace.meta["category"]) for one in traces if one.trace.meta.get("category")})
        by_category = {
            category: step_auc(known.only(lambda one, c=category: one.trace.meta.get("category") == c), judged)  # type: ignore[misc]
            for category in categories
        }
        report["step_auc_by_category"] = {
            category: areas for category, areas in by_category.items() if any(areas.values())
        }
    if all("mc_after" in one.trace.meta for one in traces):
        report["spearman_value"] = within_traces(known, values_after)
        report["spearman_change"] = within_traces(known, changes)
        report["value_auc"] = step_auc(known, likely)
    if len({one.trace.correct for one in traces} - {None}) == 2:
        report["trace_auc"] = trace_auc(known, auc)
        if any((within := trace_auc(known, mean_auc)).values()):
            report["trace_auc_within"] = within
    return report


def main() -> None:
    """Measure every file, write the report, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    report = {path.name.split(".")[0]: measure(path) for path in args.labels}
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
