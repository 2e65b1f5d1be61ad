"""Labels as training rows of other tools: a problem, the texts of its steps, and a label for each.

The form is that of TRL's trainer of PRMs and of the Math-Shepherd data set on the hub: `prompt`, `completions`,
`labels`. Both want a label for every text, so a step without a target is joined to the next step that has one, and what
follows the last target is left out: a label stands where its text ends, and says nothing of what comes behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.labels.tables import written_rows
from reasonflux_prm.records import LabelledTrace
from reasonflux_prm.traces.write import json_line

Form = Literal["trl", "soft"]
FORMS: Final[tuple[str, ...]] = get_args(Form)
THRESHOLD: Final = 0.5


@dataclass
class Exported:
    """What was written."""

    rows: int = 0
    steps: int = 0
    """Texts with a label."""
    joined: int = 0
    """Steps without a target that became part of the next text."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Traces without a row, by status, and the steps behind a trace's last target (`steps behind the last target`)."""


def export_labels(
    labels: Iterable[LabelledTrace], output: Path, form: Form, *, threshold: float = THRESHOLD
) -> Exported:
    """Write labels as training rows.

    Args:
        labels: The labels, read once.
        output: A `.jsonl`, `.jsonl.gz` or `.parquet` file; it appears whole or not at all.
        form: `trl`: labels are true or false, true from `threshold` on. `soft`: labels are the targets, in [0, 1], and
            `id` and `trajectory` (the trajectory's target, or null) stand beside them.
        threshold: In (0, 1].

    Raises:
        UsageError: The threshold is out of its range.
        InputError: A target is outside [0, 1], or no trace has one.
        OutputError: The file could not be written.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"the threshold of a good step lies above 0 and up to 1, and is {threshold}")
    done = Exported()
    with written_rows(output) as stream:
        stream.writelines(map(json_line, _rows(labels, form, threshold, done)))
    return done


def training_row(labelled: LabelledTrace, form: Form, threshold: float = THRESHOLD) -> dict[str, Any] | None:
    """Return one label as a training row; None if no step has a target.

    Raises:
        InputError: A target is outside [0, 1].
    """
    return next(_rows([labelled], form, threshold, Exported(), empty=True), None)


def _rows(
    labels: Iterable[LabelledTrace], form: Form, threshold: float, done: Exported, *, empty: bool = False
) -> Iterator[dict[str, Any]]:
    for labelled in labels:
        completions, targets = _completions(labelled, done)
        if not targets:
            done.left_out[labelled.status.value] += 1
            continue
        done.rows += 1
        done.steps += len(targets)
        row = {"prompt": labelled.trace.problem, "completions": completions}
        if form == "trl":
            yield {**row, "labels": [target >= threshold for target in targets]}
        else:
            yield {
                "id": labelled.trace.id,
                **row,
                "labels": targets,
                "trajectory": _unit(labelled.trajectory_target, labelled, "the trajectory's target"),
            }
    if not done.rows and not empty:
        raise InputError("expected labels with a target for a step, found none")


def _completions(labelled: LabelledTrace, done: Exported) -> tuple[list[str], list[float]]:
    """Return the texts and their targets."""
    completions: list[str] = []
    targets: list[float] = []
    waiting: list[str] = []
    for number, (step, target) in enumerate(zip(labelled.steps, labelled.targets, strict=True), start=1):
        waiting.append(labelled.trace.text(step.part)[step.start : step.stop])
        known = _unit(target, labelled, f"the target of step {number}")
        if known is not None:
            done.joined += len(waiting) - 1
            completions.append("".join(waiting).strip())
            targets.append(known)
            waiting = []
    if targets and waiting:
        done.left_out["steps behind the last target"] += len(waiting)
    return completions, targets


def _unit(target: float | None, labelled: LabelledTrace, what: str) -> float | None:
    if target is not None and not 0 <= target <= 1:
        raise InputError(
            f"trace {labelled.trace.id!r}: expected {what} in [0, 1], got {target:g}; bring the labels there with "
            "`reasonflux-prm label combine LABELS -o NEW --formula bounded`"
        )
    return target
