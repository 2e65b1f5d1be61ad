"""Naming the first wrong step: what the step benchmarks have in common; see `evaluation.first_error`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reasonflux_prm.evaluation.first_error import choose_threshold, hits, lowest, weighted_f1
from reasonflux_prm.evaluation.metrics import Statistic, weighted_auc, weighted_mean
from reasonflux_prm.evaluation.step_statistics import on_items
from reasonflux_prm.evaluation.steps.judged import PRM, WAYS, Judged, rewards_of, steps_with_labels
from reasonflux_prm.evaluation.steps.report import ALL, StepReport

CHANCE: Final = "any step at random"
AUC: Final = "step AUC"
LOWEST: Final = "first error is the step with the least reward, traces with an error"


def add_auc(report: StepReport, traces: Sequence[Judged], scopes: Sequence[str]) -> None:
    """Add the step AUC of the whole and of each scope: right steps against wrong ones, each way on the same steps."""
    for scope in (ALL, *(scopes if len(scopes) > 1 else ())):
        own = [trace for trace in traces if scope in (ALL, trace.scope)]
        rows = {way: steps_with_labels(own, way) for way in WAYS}
        labels, clusters = rows[PRM][1:]
        if len(set(labels)) == 2:
            report.add(AUC, scope, {way: weighted_auc(rows[way][0], labels) for way in WAYS}, clusters)


def thresholds_of(traces: Sequence[Judged]) -> dict[str, float]:
    """Return the threshold with the highest F1 for each way; none where traces of only one kind are there."""
    usable = [trace for trace in traces if trace.locates and trace.is_scored]
    firsts = [trace.first_error for trace in usable]
    if None not in firsts or all(first is None for first in firsts):
        return {}
    return {way: choose_threshold(rewards_of(usable, way), firsts) for way in WAYS}


def add_first_errors(
    report: StepReport, traces: Sequence[Judged], scopes: Sequence[str], thresholds: dict[str, float], name: str
) -> None:
    """Add accuracies and F1 of the first wrong step, of the whole and of each scope.

    A trace that could not be scored has no prediction, and counts as judged wrongly by the PRM.

    Args:
        report: Gets the measures.
        traces: Those that do not say where the first error is are left out.
        scopes: Subsets to report on beside the whole.
        thresholds: By way.
        name: Says in the metrics' names where the thresholds are from.
    """
    for scope in (ALL, *(scopes if len(scopes) > 1 else ())):
        own = [trace for trace in traces if scope in (ALL, trace.scope) and trace.locates]
        firsts, clusters = [trace.first_error for trace in own], [trace.cluster for trace in own]
        found = {way: _hits(own, firsts, way, threshold) for way, threshold in thresholds.items()}
        wrong = [index for index, first in enumerate(firsts) if first is not None]
        right = [index for index, first in enumerate(firsts) if first is None]
        for what, items in (("traces with an error", wrong), ("traces without", right)):
            if items:
                ways = {way: weighted_mean([hit[index] for index in items]) for way, hit in found.items()}
                report.add(f"first error, {what}, {name}", scope, ways, [clusters[index] for index in items])
        if wrong and right:
            report.add(f_metric(name), scope, {way: weighted_f1(hit, firsts) for way, hit in found.items()}, clusters)


def f_metric(name: str) -> str:
    """Return the name of ProcessBench's F1."""
    return f"F1 of the two accuracies, {name}"


def _hits(traces: Sequence[Judged], firsts: Sequence[int | None], way: str, threshold: float) -> list[bool]:
    found = hits(rewards_of(traces, way), firsts, threshold)
    return [hit and (trace.is_scored or way != PRM) for hit, trace in zip(found, traces, strict=True)]


def add_lowest(report: StepReport, traces: Sequence[Judged], scopes: Sequence[str]) -> None:
    """Add how often the step with the least reward is the first wrong one, of traces that have one; no threshold."""
    for scope in (ALL, *(scopes if len(scopes) > 1 else ())):
        own = [t for t in traces if scope in (ALL, t.scope) and t.locates and t.first_error is not None]
        if not own:
            continue
        ways: dict[str, Statistic | None] = {
            way: weighted_mean([float(lowest(trace.rewards[way]) == trace.first_error) for trace in own])
            for way in WAYS
        }
        ways[CHANCE] = weighted_mean([1 / len(trace.labels) for trace in own])
        report.add(LOWEST, scope, ways, [trace.cluster for trace in own])


def restricted_f1(traces: Sequence[Judged], scope: str, way: str, threshold: float) -> Statistic | None:
    """Return ProcessBench's F1 of one scope as a statistic of all traces; None if it lacks one of the two kinds."""
    items = [index for index, trace in enumerate(traces) if trace.scope == scope and trace.locates]
    own = [traces[index] for index in items]
    firsts = [trace.first_error for trace in own]
    if None not in firsts or all(first is None for first in firsts):
        return None
    return on_items(weighted_f1(_hits(own, firsts, way, threshold), firsts), items)
