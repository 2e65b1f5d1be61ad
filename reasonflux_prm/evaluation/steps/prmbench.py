"""PRMBench: is each step valid, in solutions with nine kinds of injected errors (arXiv:2501.03124)?

Matched to ssmisya/PRMBench: mr_eval/tasks/prmtest_classified/task.py at cc7db59, and its table writer.

- Data: `hitsmy/PRMBench_Preview`, or the repository's files; columns idx, classification, modified_question,
  modified_process, error_steps (1-based), original_question, original_process. Every step that is listed is wrong, and
  every other one right, also after the first error.
- PRMScore is half the F1 of right steps and half the F1 of wrong ones, over all steps of a category; of the whole it is
  over all steps at once, and of a group (simplicity, soundness, sensitivity) the mean of its categories. In
  multi_solutions nothing is wrong, and PRMScore is the F1 of right steps.
- A step is taken for right if its reward is above the threshold. In redundency and circular (upstream's names) a judge
  that also labels redundancy is asked that instead: right is what is not redundant. Our PRMs have no such label.
- Original solutions stand for a category `correct` of their own, which is in no total.
- Departures: where nothing is found F1 is 0; upstream has -1 there. A step without a reward is in no count, and a trace
  that could not be scored is left out, as upstream leaves out invalid answers; both are counted in the notes.
- Trivial ways flag as many steps as the PRM does, so that they differ in which ones only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.evaluation.metrics import Floats, Statistic, weighted_mean
from reasonflux_prm.evaluation.step_statistics import mean_of, on_items, weighted_f1
from reasonflux_prm.evaluation.steps.base import StepBenchmark, labelled_trace, size_notes, with_scope
from reasonflux_prm.evaluation.steps.first_errors import add_auc
from reasonflux_prm.evaluation.steps.judged import BASELINES, PRM, Judged
from reasonflux_prm.evaluation.steps.report import ALL, Settings, StepReport
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.columns import expect
from reasonflux_prm.traces.rows import Row

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
CATEGORIES: Final = tuple(category for group in GROUPS.values() for category in group)
CORRECT: Final = "correct"
NOTHING_WRONG: Final = frozenset({"multi_solutions"})
REDUNDANCY: Final = frozenset(GROUPS["simplicity"])
ALL_RIGHT: Final = "every step right"

Verdicts = Sequence[bool | None]
"""For each step whether it is taken for right; None where there is no verdict."""


def read(row: Row) -> list[Trace]:
    """Read a record of upstream, or one with steps, labels and a category; see `StepBenchmark.read`."""
    columns = row.columns
    if "modified_process" not in columns:
        return [_plain(row)]
    category = _category(columns.get("classification"))
    name = str(expect(columns.get("idx"), str, "`idx`")).removeprefix(f"{category}_")
    wrong = expect(columns.get("error_steps") or [], list, "`error_steps`")
    question = columns.get("modified_question") or columns.get("question")
    found = [_trace(row, category, name, question, columns["modified_process"], wrong)]
    if category == "redundency":
        # Upstream takes the originals from this category's records, so that each comes once.
        original = columns.get("original_question") or columns.get("question")
        found.append(_trace(row, CORRECT, name, original, columns.get("original_process"), []))
    return found


def _plain(row: Row) -> Trace:
    trace = labelled_trace(row)
    category = _category(trace.meta.get("category") or trace.meta.get("classification"))
    if not trace.step_labels:
        raise InputError("expected `labels`, one for each step, found none")
    # Variants of a problem share the end of their names.
    name = trace.id.partition(f"{category}_")[2] or trace.id
    return with_scope(_grouped(trace, name), category)


def _trace(row: Row, category: str, name: str, question: Any, steps: Any, wrong: Sequence[Any]) -> Trace:
    texts = expect(steps, list, "the steps of the solution")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError("expected text in every step of the solution; at least one is empty or no text")
    # Some are strings upstream; int() of anything else is a bad record.
    numbers = {int(number) for number in wrong if isinstance(number, int | str) and str(number).strip().isdigit()}
    if len(numbers) != len(set(map(str, wrong))) or not all(1 <= number <= len(texts) for number in numbers):
        raise InputError(
            f"expected `error_steps` to be numbers from 1 to {len(texts)}, the number of steps, got {wrong}"
        )
    columns = {
        "id": f"{category}_{name}",
        "problem": expect(question, str, "the question"),
        "steps": texts,
        "labels": [int(number not in numbers) for number in range(1, len(texts) + 1)],
    }
    return with_scope(_grouped(labelled_trace(row, columns), name), category)


def _grouped(trace: Trace, name: str) -> Trace:
    return replace(trace, group=name)


def _category(value: Any) -> str:
    if value not in (*CATEGORIES, CORRECT):
        raise InputError(f"expected the category to be one of {', '.join((*CATEGORIES, CORRECT))}, got {value!r}")
    return str(value)


# --- verdicts --------------------------------------------------------------------------------------------------------


def verdicts(trace: Judged, way: str, threshold: float) -> Verdicts:
    """Return which steps are taken for right, by upstream's rules."""
    if way == PRM and trace.scope in REDUNDANCY and trace.redundant is not None:
        return [None if own is None else not own for own in trace.redundant]
    return [None if reward is None else reward > threshold for reward in trace.rewards[way]]


def counts(labels: Sequence[bool | None], taken: Verdicts) -> tuple[int, int, int, int]:
    """Return TP, FP, TN and FN of one trace; see `step_statistics.weighted_f1`."""
    pairs = [(y, v) for y, v in zip(labels, taken, strict=True) if y is not None and v is not None]
    return (
        pairs.count((True, True)),
        pairs.count((False, True)),
        pairs.count((False, False)),
        pairs.count((True, False)),
    )


def prm_score(table: Sequence[tuple[int, int, int, int]], category: str | None = None) -> Statistic:
    """Return PRMScore as a statistic of traces.

    Args:
        table: What `counts` gave for each trace.
        category: Of which all traces are; None for a mix.
    """
    right = weighted_f1(np.array(table))
    if category in NOTHING_WRONG:
        return right
    wrong = weighted_f1(np.array(table), negative=True)

    def statistic(weights: Floats) -> Floats:
        score: Floats = 0.5 * right(weights) + 0.5 * wrong(weights)
        return score

    return statistic


def best_threshold(traces: Sequence[Judged]) -> float:
    """Return the threshold with the highest PRMScore over all steps, the lowest if several have it.

    Raises:
        UsageError: The traces have no right or no wrong step with a reward.
    """
    rows = [
        (reward, label)
        for trace in traces
        for reward, label in zip(trace.rewards[PRM], trace.labels, strict=False)
        if reward is not None and label is not None
    ]
    if len({label for _, label in rows}) < 2:
        raise UsageError(
            "a threshold is chosen on right and wrong steps, and the dev set has only one of the two kinds"
        )
    rewards, labels = np.array([r for r, _ in rows]), np.array([y for _, y in rows])
    # Right is what lies above, so only the rewards themselves, and one below them all, need to be tried.
    tried = np.unique(np.concatenate([[np.nextafter(rewards.min(), -np.inf)], rewards]))
    order = np.sort(rewards[labels]), np.sort(rewards[~labels])
    good, bad = (len(own) - np.searchsorted(own, tried, side="right") for own in order)
    table = np.stack([good, bad, len(order[1]) - bad, len(order[0]) - good], axis=1)
    right, wrong = (weighted_f1(table, negative=negative)(np.eye(len(table))) for negative in (False, True))
    return float(tried[int(np.nan_to_num(right + wrong).argmax())])


def _same_share(traces: Sequence[Judged], way: str, flagged: float) -> float:
    """Return the threshold at which a way takes about the same share of steps for wrong as the PRM does."""
    values = [reward for trace in traces for reward in trace.rewards[way] if reward is not None]
    # Above the threshold is right, so the flagged are those at it and below.
    return float(np.quantile(values, flagged, method="lower")) if flagged > 0 else min(values) - 1


# --- the report ------------------------------------------------------------------------------------------------------


def report(traces: Sequence[Judged], settings: Settings, dev: Sequence[Judged] | None = None) -> StepReport:
    """Return the numbers of PRMBench; see `StepBenchmark.report`. With a dev set the threshold is its best one."""
    found = StepReport(BENCHMARK.title, settings)
    threshold = settings.threshold
    if dev is not None:
        threshold = found.thresholds[PRM] = best_threshold(dev)
    used = [trace for trace in traces if trace.is_scored]
    wanted = [trace for trace in used if trace.scope != CORRECT]
    taken = _taken(wanted, threshold)
    tables = {way: [counts(t.labels, v) for t, v in zip(wanted, own, strict=True)] for way, own in taken.items()}
    clusters = [trace.cluster for trace in wanted]
    members = {c: [i for i, trace in enumerate(wanted) if trace.scope == c] for c in CATEGORIES}
    parts = {
        way: {c: on_items(prm_score([table[i] for i in items], c), items) for c, items in members.items() if items}
        for way, table in tables.items()
    }
    found.add("PRMScore", ALL, {way: prm_score(table) for way, table in tables.items()}, clusters)
    for group, names in GROUPS.items():
        if all(members[name] for name in names):
            own = {way: mean_of([parts[way][name] for name in names]) for way in tables}
            found.add("PRMScore", f"{group} (mean)", own, clusters)
        for name in names:
            items = members[name]
            scores = {way: prm_score([table[i] for i in items], name) for way, table in tables.items()}
            found.add("PRMScore", name, scores, [clusters[i] for i in items])
    _add_accuracies(found, used, wanted, taken, threshold)
    add_auc(found, wanted, [category for category in CATEGORIES if members[category]])
    found.notes += _notes(traces, used, wanted)
    return found


def _taken(traces: Sequence[Judged], threshold: float) -> dict[str, list[Verdicts]]:
    """Return the verdicts of every way."""
    own = [verdicts(trace, PRM, threshold) for trace in traces]
    given = [verdict for row in own for verdict in row if verdict is not None]
    flagged = given.count(False) / len(given) if given else 0.0
    taken: dict[str, list[Verdicts]] = {PRM: own}
    for way in BASELINES if given else ():
        at = _same_share(traces, way, flagged)
        taken[way] = [
            [None if v is None else r for v, r in zip(row, verdicts(trace, way, at), strict=True)]
            for row, trace in zip(own, traces, strict=True)
        ]
    taken[ALL_RIGHT] = [[None if v is None else True for v in row] for row in own]
    return taken


def _add_accuracies(
    found: StepReport,
    used: Sequence[Judged],
    wanted: Sequence[Judged],
    taken: Mapping[str, Sequence[Verdicts]],
    threshold: float,
) -> None:
    """Add upstream's first_error_acc, and how many steps of original solutions are taken for right."""
    rows = [
        (index, trace.first_error)
        for index, trace in enumerate(wanted)
        if trace.first_error is not None and taken[PRM][index][trace.first_error] is not None
    ]
    ways = {way: weighted_mean([own[i][first] is False for i, first in rows]) for way, own in taken.items() if rows}
    found.add("first wrong step is flagged", ALL, ways, [wanted[i].cluster for i, _ in rows])
    steps = [
        (verdict, trace.cluster)
        for trace in used
        if trace.scope == CORRECT
        for verdict in verdicts(trace, PRM, threshold)
        if verdict is not None
    ]
    if steps:
        found.add("steps taken for right", CORRECT, {PRM: weighted_mean([v for v, _ in steps])}, [c for _, c in steps])


def _notes(traces: Sequence[Judged], used: Sequence[Judged], wanted: Sequence[Judged]) -> list[str]:
    notes = []
    if len(used) < len(traces):
        notes.append(f"{len(traces) - len(used):,} traces could not be scored and are in no number.")
    if missing := sum(reward is None for trace in wanted for reward in trace.rewards[PRM]):
        notes.append(f"{missing:,} steps have no reward and are in no count.")
    if not any(trace.redundant is not None for trace in wanted):
        notes.append("The PRM has no label for redundancy, so in redundency and circular its step rewards are used.")
    return [*notes, *size_notes(BENCHMARK, [trace for trace in traces if trace.scope != CORRECT])]


BENCHMARK = StepBenchmark(
    name="prmbench",
    title="PRMBench",
    sources=("hitsmy/PRMBench_Preview",),
    licence="Apache-2.0",
    sizes={ALL: 6216},
    read=read,
    report=report,
    scopes=(*CATEGORIES, CORRECT),
)
