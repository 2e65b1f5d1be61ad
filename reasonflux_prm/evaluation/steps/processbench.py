"""ProcessBench: where is the first error of a solution, or is there none (arXiv:2412.06559)?

- Data: `Qwen/ProcessBench`, one split a subset; columns id, problem, steps, final_answer_correct, label (the index of
  the first wrong step, -1 for none).
- A solution is judged rightly if the first step below a threshold is the labelled one, or none is and none is wrong. F1
  is the harmonic mean of the accuracies on solutions with and without an error; the headline is its mean over the
  subsets (section 3 there, and code/run_eval_prm_trl.py of QwenLM/ProcessBench at 04d347e, which divides by zero where
  both accuracies are 0: here F1 is 0 then).
- PRMs that give a score and no verdict get one threshold for all subsets, the best one on GSM8K (section 4.1 there). So
  the number of that subset is of data that the threshold was chosen on. A fixed threshold is reported beside it: with
  0.5 it is the verdict of a two-label PRM.
- A solution that could not be scored counts as judged wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.evaluation.metrics import Statistic
from reasonflux_prm.evaluation.step_statistics import mean_of
from reasonflux_prm.evaluation.steps.base import StepBenchmark, labelled_trace, size_notes, with_scope
from reasonflux_prm.evaluation.steps.first_errors import (
    add_auc,
    add_first_errors,
    f_metric,
    restricted_f1,
    thresholds_of,
)
from reasonflux_prm.evaluation.steps.judged import PRM, Judged
from reasonflux_prm.evaluation.steps.report import Settings, StepReport
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.rows import Row, stem

SUBSETS: Final = ("gsm8k", "math", "olympiadbench", "omnimath")
CHOSEN_ON: Final = SUBSETS[0]
AVERAGE: Final = "mean of the subsets"


def read(row: Row) -> list[Trace]:
    """Read a record; see `StepBenchmark.read`."""
    trace = labelled_trace(row)
    if not trace.step_labels:
        raise InputError("expected `label`, the index of the first wrong step or -1, or `labels`; found neither")
    return [with_scope(trace, _subset(trace, row))]


def _subset(trace: Trace, row: Row) -> str:
    """Return the subset that the id begins with, else a column or the file's name says."""
    named = (
        trace.id.rpartition("-")[0],
        str(trace.meta.get("subset") or trace.source or ""),
        stem(row.file).casefold(),
    )
    for name in named:
        if name in SUBSETS:
            return name
    hub_split = row.file.rpartition(":")[2]
    return hub_split if hub_split in SUBSETS else "other"


def report(traces: Sequence[Judged], settings: Settings, dev: Sequence[Judged] | None = None) -> StepReport:
    """Return the numbers of ProcessBench; see `StepBenchmark.report`."""
    found = StepReport(BENCHMARK.title, settings)
    scopes = [scope for scope in (*SUBSETS, "other") if any(trace.scope == scope for trace in traces)]
    clusters = [trace.cluster for trace in traces]
    choosing = dev if dev is not None else [trace for trace in traces if trace.scope == CHOSEN_ON]
    where = "the dev set" if dev is not None else "GSM8K"
    found.thresholds = thresholds_of(choosing)
    rules = [(f"threshold {settings.threshold:g}", {PRM: settings.threshold})]
    if found.thresholds:
        rules.insert(0, (f"threshold chosen on {where}", found.thresholds))
    else:
        found.notes.append(
            f"No threshold could be chosen: {where} holds no traces, or only with or only without errors."
        )
    for name, thresholds in rules:
        average: dict[str, Statistic | None] = {}
        for way, threshold in thresholds.items():
            parts = [restricted_f1(traces, scope, way, threshold) for scope in scopes]
            average[way] = mean_of([part for part in parts if part]) if parts and None not in parts else None
        found.add(f_metric(name), AVERAGE, average, clusters)
        add_first_errors(found, traces, scopes, thresholds, name)
    add_auc(found, traces, scopes)
    if found.thresholds and dev is None:
        found.notes.append("The threshold was chosen on GSM8K itself, so that subset's own numbers flatter.")
    found.notes += size_notes(BENCHMARK, traces)
    return found


BENCHMARK = StepBenchmark(
    name="processbench",
    title="ProcessBench",
    sources=tuple(f"Qwen/ProcessBench:{subset}" for subset in SUBSETS),
    licence="Apache-2.0",
    sizes={"gsm8k": 400, "math": 1000, "olympiadbench": 1000, "omnimath": 1000},
    read=read,
    report=report,
    scopes=SUBSETS,
)
