"""Raw terms into targets: the formula applied, to one step's terms or to a whole label file's, as often as one likes.

Terms are kept raw in a label, so another formula costs no judge and no encoder.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.coherence import probability
from reasonflux_prm.labels.formula import ALIGNMENT_TERMS, COHERENCE_TERM, Aggregation, Formula
from reasonflux_prm.records import LabelledTrace, LabelStatus, Term

Values = NDArray[np.float64]

TRAJECTORY_TERM = "trajectory"

_MISSING = Term(None)
_LARGEST = sys.float_info.max
_STEPS_AT_ONCE = 4096


def combine(labelled: LabelledTrace, formula: Formula) -> LabelledTrace:
    """Return a label with the targets that a formula makes of its terms; the terms stay as they are.

    The status and note of a trace without steps, or that failed, stay too; of others they follow from the targets.
    """
    (combined,) = combine_all([labelled], formula)
    return combined


def combine_all(labelled: Iterable[LabelledTrace], formula: Formula) -> Iterator[LabelledTrace]:
    """Combine many labels, in order: `combine` of each, several times as fast, with some thousand steps in memory."""
    held: list[LabelledTrace] = []
    steps = 0
    for label in labelled:
        held.append(label)
        steps += 1 + len(label.step_terms)
        if steps >= _STEPS_AT_ONCE:
            yield from _combined(held, formula)
            held, steps = [], 0
    yield from _combined(held, formula)


def _combined(labelled: Sequence[LabelledTrace], formula: Formula) -> Iterator[LabelledTrace]:
    written = str(formula)
    targets = combine_steps([terms for label in labelled for terms in label.step_terms], formula)
    stop = 0
    for label in labelled:
        start, stop = stop, stop + len(label.step_terms)
        if label.status in (LabelStatus.NO_STEPS, LabelStatus.FAILED):
            yield replace(label, formula=written)
            continue
        own = targets[start:stop]
        trajectory = trajectory_target(label.trajectory_terms, formula)
        status, note = outcome(own, trajectory, written)
        yield replace(label, status=status, targets=own, trajectory_target=trajectory, formula=written, note=note)


def outcome(targets: Sequence[float | None], trajectory: float | None, formula: str) -> tuple[LabelStatus, str | None]:
    """Return the status of a trace that has these targets by a formula, and the note that goes with it."""
    if trajectory is None and targets.count(None) == len(targets):
        return LabelStatus.NO_TARGET, f"neither a step nor the trajectory has the terms that {formula} needs"
    return LabelStatus.LABELLED, None


def combine_steps(step_terms: Sequence[Mapping[str, Term]], formula: Formula) -> tuple[float | None, ...]:
    """Return the target of each step: what `Formula` says, None where it says that there is none."""
    if not step_terms:
        return ()
    columns = np.array([_raw(step_terms, name) for name in formula.terms], np.float64)
    return combine_columns(columns, formula)


def combine_columns(columns: Values, formula: Formula) -> tuple[float | None, ...]:
    """Return the target of each step, as `combine_steps`.

    Args:
        columns: (K, S) raw values of the formula's terms; NaN where a step has none.
        formula: From terms to targets.
    """
    if formula.mode == "bounded":
        columns = np.stack([bounded(name, column) for name, column in zip(formula.terms, columns, strict=True)])
    columns = np.where(np.isfinite(columns), columns, np.nan)
    targets = aggregate(columns.T, formula.aggregation, formula.weights)
    for name in formula.requires:
        targets[np.isnan(columns[formula.terms.index(name)])] = np.nan
    if formula.mode == "bounded":
        # Sums of rounded shares may come out a last bit above 1.
        targets = np.clip(targets, 0.0, 1.0)
    # A sum of huge literal terms is no number that JSON could hold.
    targets = np.where(np.isinf(targets), np.nan, targets)
    # NaN alone is not equal to itself.
    return tuple(target if target == target else None for target in targets.tolist())


def trajectory_target(trajectory_terms: Mapping[str, Term], formula: Formula) -> float | None:
    """Return the trajectory's target: its term `trajectory`, or None if it has none.

    In `bounded` mode a value outside [0, 1] is not taken (`out_of_range` counts it), in `literal` mode it is.
    """
    term = trajectory_terms.get(TRAJECTORY_TERM)
    return trajectory_value(None if term is None else term.value, formula)


def trajectory_value(value: float | None, formula: Formula) -> float | None:
    """Return the trajectory's target, of the value of its term; see `trajectory_target`."""
    if value is None or not np.isfinite(value) or (formula.mode == "bounded" and not 0 <= value <= 1):
        return None
    return float(value)


def bounded(name: str, values: Values) -> Values:
    """Return a term's values in [0, 1].

    Args:
        name: A term that a formula can take.
        values: Raw values, any shape; NaN stays NaN.

    Returns:
        max(cos, 0) of an alignment; the sigmoid of coherence; a quality as it is, NaN where it is not in [0, 1].
    """
    if name in ALIGNMENT_TERMS:
        return np.clip(values, 0.0, 1.0)
    if name == COHERENCE_TERM:
        return probability(values)
    return np.where((values >= 0) & (values <= 1), values, np.nan)


def aggregate(values: Values, aggregation: Aggregation, weights: Sequence[float] | None = None) -> Values:
    """Return one value for each row, of those that it has.

    Args:
        values: (S, K) terms, finite or NaN where a term is missing.
        aggregation: See `Formula`.
        weights: (K,), for `weighted`.

    Returns:
        (S,), NaN where a row has no value, or only such as weigh nothing.

    Raises:
        UsageError: `weighted` without weights.
    """
    there = ~np.isnan(values)
    if aggregation == "min":
        lowest = np.where(there, values, np.inf).min(axis=1)
        return np.where(np.isinf(lowest), np.nan, lowest)
    if aggregation == "softmax":
        highest = np.where(there, values, -np.inf).max(axis=1, keepdims=True)
        # Rows without a value have no maximum to subtract, and end as 0 / 0.
        shares = np.where(there, np.exp(np.where(there, values - np.where(np.isinf(highest), 0, highest), 0)), 0)
    elif aggregation == "mean":
        shares = there.astype(np.float64)
    elif weights is None:
        raise UsageError("the aggregation 'weighted' needs a weight for each term, got none")
    else:
        shares = there * np.asarray(weights, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        combined: Values = (shares * np.where(there, values, 0)).sum(axis=1) / shares.sum(axis=1)
    return combined


def out_of_range(labelled: LabelledTrace) -> Counter[str]:
    """Count what left its range, for a run's report.

    Returns:
        `target` and `trajectory_target`: targets outside [0, 1], impossible in `bounded` mode. By the name of a term
        that the label's formula takes: raw values outside that term's own range, or not finite; in `bounded` mode a
        quality or a trajectory reward among them was not taken.
    """
    formula = Formula.parse(labelled.formula)
    terms = {name: [step[name].value for step in labelled.step_terms if name in step] for name in formula.terms}
    if term := labelled.trajectory_terms.get(TRAJECTORY_TERM):
        terms[TRAJECTORY_TERM] = [term.value]
    return strays(terms, labelled.targets, [labelled.trajectory_target])


def strays(
    terms: Mapping[str, Iterable[float | None]],
    targets: Iterable[float | None],
    trajectory_targets: Iterable[float | None],
) -> Counter[str]:
    """Count what left its range; see `out_of_range`.

    Args:
        terms: Name -> raw values.
        targets: Of steps.
        trajectory_targets: Of trajectories.
    """
    counts = Counter(target=_outside(targets, 0.0, 1.0), trajectory_target=_outside(trajectory_targets, 0.0, 1.0))
    for name, values in terms.items():
        low = -1.0 if name in ALIGNMENT_TERMS else -_LARGEST if name == COHERENCE_TERM else 0.0
        counts[name] = _outside(values, low, _LARGEST if name == COHERENCE_TERM else 1.0)
    return +counts


def _raw(step_terms: Sequence[Mapping[str, Term]], name: str) -> list[float | None]:
    # numpy makes NaN of None.
    return [terms.get(name, _MISSING).value for terms in step_terms]


def _outside(values: Iterable[float | None], low: float, high: float) -> int:
    # Of NaN, no comparison is true.
    return sum(value is not None and not low <= value <= high for value in values)
