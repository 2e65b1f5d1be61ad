"""Benchmarks of labelled steps that come as a file: what can be told depends on the labels, and all of it is.

- Step labels: AUC of right against wrong steps, over all and by category.
- Labels that say where the first error is: how often the step with the least reward is it, and with a threshold the
  accuracies and their F1 as ProcessBench has them.
- Monte-Carlo values (`mc_value_after`, and `mc_value_before`): Spearman's correlation of the step reward with the
  success rate of continuations from there, and with what the step changed in it; over all steps at once, and within
  traces, where neither the problem's difficulty nor the trace's own level counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from reasonflux_prm.errors import InputError
from reasonflux_prm.evaluation.metrics import weighted_mean
from reasonflux_prm.evaluation.step_statistics import weighted_spearman
from reasonflux_prm.evaluation.steps.base import StepBenchmark, labelled_trace, with_scope
from reasonflux_prm.evaluation.steps.first_errors import add_auc, add_first_errors, add_lowest, thresholds_of
from reasonflux_prm.evaluation.steps.judged import PRM, WAYS, Judged
from reasonflux_prm.evaluation.steps.report import Settings, StepReport
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.rows import Row

VALUE: Final = "Spearman correlation with the success rate after the step"
GAIN: Final = "Spearman correlation with the change of the success rate"
WITHIN: Final = "mean within traces"
POOLED: Final = "all steps"
LEAST_STEPS: Final = 5
"""A trace needs so many steps with a value for a correlation of its own."""


def read(row: Row) -> list[Trace]:
    """Read a record; see `StepBenchmark.read`."""
    trace = labelled_trace(row)
    after = _values(trace, "mc_value_after")
    before = _values(trace, "mc_value_before")
    if not trace.step_labels and not after:
        raise InputError("expected `labels` or `mc_value_after`, one for each step, found neither")
    gains = (
        [None if a is None or b is None else a - b for a, b in zip(after, before, strict=True)]
        if before and after
        else []
    )
    return [with_scope(trace, str(trace.meta.get("category") or ""), values=after, gains=gains)]


def _values(trace: Trace, column: str) -> list[float | None]:
    values: Any = trace.meta.get(column) or []
    if not isinstance(values, list) or not all(
        v is None or (isinstance(v, int | float) and np.isfinite(v)) for v in values
    ):
        raise InputError(f"expected `{column}` to be a list of numbers or null")
    if values and len(values) != len(trace.steps):
        raise InputError(f"expected `{column}` to have a value for each of {len(trace.steps)} steps, got {len(values)}")
    return list(values)


def report_of(title: str) -> Any:
    """Return the function that reports on labelled steps; see `StepBenchmark.report`."""

    def report(traces: Sequence[Judged], settings: Settings, dev: Sequence[Judged] | None = None) -> StepReport:
        found = StepReport(title, settings)
        scopes = sorted({trace.scope for trace in traces} - {""})
        add_auc(found, traces, scopes)
        add_lowest(found, traces, scopes)
        add_first_errors(found, traces, scopes, {PRM: settings.threshold}, f"threshold {settings.threshold:g}")
        if dev is not None:
            found.thresholds = thresholds_of(dev)
            if found.thresholds:
                add_first_errors(found, traces, scopes, found.thresholds, "threshold chosen on the dev set")
            else:
                found.notes.append(
                    "The dev set has no traces with, or none without an error, so it gives no threshold."
                )
        _add_correlations(found, traces)
        if missing := sum(not trace.is_scored for trace in traces):
            found.notes.append(f"{missing:,} traces could not be scored.")
        return found

    return report


def _add_correlations(found: StepReport, traces: Sequence[Judged]) -> None:
    for metric, name in ((VALUE, "values"), (GAIN, "gains")):
        rows = [(trace, _known(trace, getattr(trace, name))) for trace in traces]
        flat = [(trace, index, value) for trace, known in rows for index, value in known]
        if len({value for *_, value in flat}) < 2:
            continue
        values = [value for *_, value in flat]
        clusters = [trace.cluster for trace, *_ in flat]
        pooled = {way: weighted_spearman([_at(t, way, i) for t, i, _ in flat], values) for way in WAYS}
        found.add(metric, POOLED, pooled, clusters)
        enough = [
            (trace, known) for trace, known in rows if len(known) >= LEAST_STEPS and len({v for _, v in known}) > 1
        ]
        if enough:
            each = {way: weighted_mean([_within(trace, way, known) for trace, known in enough]) for way in WAYS}
            found.add(metric, WITHIN, each, [trace.cluster for trace, _ in enough])


def _known(trace: Judged, values: Sequence[float | None]) -> list[tuple[int, float]]:
    """Return index and value of the steps that have a value and a reward of the PRM."""
    own = trace.rewards[PRM]
    return [(i, value) for i, value in enumerate(values) if value is not None and own[i] is not None]


def _at(trace: Judged, way: str, index: int) -> float:
    reward = trace.rewards[way][index]
    assert reward is not None
    return reward


def _within(trace: Judged, way: str, known: Sequence[tuple[int, float]]) -> float:
    """Return the correlation within one trace; 0 where the way tells none of its steps from another."""
    statistic = weighted_spearman([_at(trace, way, i) for i, _ in known], [value for _, value in known])
    return float(np.nan_to_num(statistic(np.ones((1, len(known)))))[0])


def _benchmark(name: str, title: str, licence: str, sizes: dict[str, int] | None = None) -> StepBenchmark:
    return StepBenchmark(name, title, (), licence, sizes or {}, read, report_of(title))


BENCHMARKS: Final = (
    _benchmark("mr-gsm8k", "MR-GSM8K, first errors", "MIT"),
    _benchmark("bigbench-mistake", "BIG-Bench Mistake", "Apache-2.0"),
    _benchmark("thought-anchors", "Thought Anchors, Monte-Carlo values", "MIT"),
    _benchmark("steps", "Labelled steps", "that of the file"),
)
"""Three benchmarks whose upstream data were brought into one form (problem, steps, labels), from
dvlab-research/MR-GSM8K, WHGTyen/BIG-Bench-Mistake and interp-reasoning/thought-anchors; and any file of that form."""
