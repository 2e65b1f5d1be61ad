"""Labels from files: what `label` wrote, or steps with recorded labels (PRM800K, Math-Shepherd, TRL, ProcessBench).

A record that cannot be used is set aside with its reason, and the rest goes on.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from reasonflux_prm.errors import ContextError, InputError
from reasonflux_prm.labels.files import is_labelled, labelled_of
from reasonflux_prm.prm.base import PRMInput
from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.records import LabelledTrace, LabelStatus, Reject, Trace
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source
from reasonflux_prm.training.config import TrainConfig
from reasonflux_prm.training.examples import Encoded, Example, encode, group_of, has_target

RECORDED = "recorded step labels"
"""The formula of labels that came with the record."""


@dataclass
class Part:
    """The traces of one side: to train on, or to evaluate on."""

    examples: list[Example] = field(default_factory=list)
    traces: int = 0
    groups: set[str] = field(default_factory=set)
    step_targets: Counter[float] = field(default_factory=Counter)
    """How often each value occurs, rounded to six digits."""
    trajectory_targets: Counter[float] = field(default_factory=Counter)
    formulas: Counter[str] = field(default_factory=Counter)
    long: int = 0
    """Traces that were cut into windows."""
    kept: list[LabelledTrace] = field(default_factory=list)
    """The labels themselves; of the dev part only."""

    def add(self, labelled: LabelledTrace, encoded: Encoded) -> None:
        """Count one trace."""
        self.examples.extend(encoded.windows)
        self.traces += 1
        self.groups.add(encoded.windows[0].group)
        self.formulas[labelled.formula] += 1
        self.long += encoded.note is not None
        for window in encoded.windows:
            for step, target in zip(window.steps.tolist(), window.targets.tolist(), strict=True):
                counts = self.trajectory_targets if step == TRAJECTORY else self.step_targets
                counts[round(target, 6)] += 1

    @property
    def tokens(self) -> int:
        """Return the tokens of all windows."""
        return sum(map(len, self.examples))


@dataclass
class Data:
    """What was read."""

    train: Part = field(default_factory=Part)
    dev: Part = field(default_factory=Part)
    left_out: Counter[str] = field(default_factory=Counter)
    """Records without a part in training, by reason."""
    rejects: list[Reject] = field(default_factory=list)
    """Records that could not be read, and traces that were refused."""
    outside: int = 0
    """Targets outside [0, 1]."""


def read_data(config: TrainConfig, prm: PRMInput) -> Data:
    """Read and encode all that is trained and evaluated on.

    Raises:
        InputError: A file is not there, a target is outside [0, 1] and the loss is a cross entropy, or there is nothing
            to learn from: no targets, or all of them equal.
    """
    data = Data()
    for source in config.data:
        for labelled in _labels(source, config, data):
            dev = not config.dev and _set_aside(group_of(labelled), config)
            _take(labelled, data.dev if dev else data.train, data, prm, config)
    for source in config.dev:
        for labelled in _labels(source, config, data):
            _take(labelled, data.dev, data, prm, config)
    _check(data, config)
    return data


def _take(labelled: LabelledTrace, part: Part, data: Data, prm: PRMInput, config: TrainConfig) -> None:
    if labelled.status is not LabelStatus.LABELLED or not has_target(labelled, config):
        reason = labelled.status if labelled.status is not LabelStatus.LABELLED else LabelStatus.NO_TARGET
        data.left_out[reason.value] += 1
        return
    if (problem := _fault(labelled)) is not None:
        _refuse(data, labelled.trace, problem)
        return
    data.outside += _outside(labelled, config)
    try:
        encoded = encode(labelled, part.traces, prm, config)
    except ContextError as error:
        data.left_out["too-long" if "tokens" in str(error) else "no-room"] += 1
        _refuse(data, labelled.trace, str(error).partition("; pass --overflow")[0])
        return
    part.add(labelled, encoded)
    if part is data.dev:
        part.kept.append(labelled)


def _refuse(data: Data, trace: Trace, reason: str) -> None:
    data.rejects.append(Reject(trace.source or "", 0, f"trace {trace.id!r}: {reason}", trace.problem[:200]))


def _fault(labelled: LabelledTrace) -> str | None:
    """Return what is wrong with a label, in one sentence."""
    if len(labelled.targets) != len(labelled.steps):
        return (
            f"expected one target for each of {len(labelled.steps)} steps, got {len(labelled.targets)}; label the "
            "trace again"
        )
    bad = [value for value in (*labelled.targets, labelled.trajectory_target) if value is not None]
    if not all(map(math.isfinite, bad)):
        number = sum(not math.isfinite(value) for value in bad)
        return (
            f"expected finite targets, got {number} that are NaN or infinite; write null for a target that is missing"
        )
    return None


def _outside(labelled: LabelledTrace, config: TrainConfig) -> int:
    """Return the number of targets outside [0, 1]."""
    values = (*labelled.targets, labelled.trajectory_target)
    outside = [value for value in values if value is not None and not 0 <= value <= 1]
    if outside and config.loss == "bce":
        raise InputError(
            f"trace {labelled.trace.id!r}: expected targets in [0, 1] for the loss bce, got {outside[0]:g}; bring the "
            "labels there with `reasonflux-prm label combine LABELS -o NEW --formula bounded`, or train with --loss mse"
        )
    return len(outside)


def _check(data: Data, config: TrainConfig) -> None:
    part = data.train
    if not part.traces:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(data.left_out.items()))
        raise InputError(
            f"expected labels to train on in {', '.join(config.data)}, found none"
            f"{f' ({reasons})' if reasons else ''}{f'; {len(data.rejects):,} were refused' if data.rejects else ''}"
        )
    kinds = [counts for counts in (part.step_targets, part.trajectory_targets) if counts]
    if all(len(counts) == 1 for counts in kinds):
        values = " and ".join(f"{value:g}" for counts in kinds for value in counts)
        raise InputError(
            f"expected targets that differ, but all {sum(map(Counter.total, kinds)):,} are {values}: there is nothing "
            "to learn; add traces with wrong steps, or label with terms that tell steps apart"
        )


def _set_aside(group: str, config: TrainConfig) -> bool:
    """Whether a problem belongs to the dev part: all its traces do or none, whatever the order and the seed."""
    digest = hashlib.blake2b(f"dev {group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < config.dev_share * 2**64


# --- files ---------------------------------------------------------------------------------------------------------


def _labels(source: str, config: TrainConfig, data: Data) -> Iterator[LabelledTrace]:
    first = next(iter(open_source(source)), None)
    if isinstance(first, Row) and is_labelled(first.columns):
        yield from _written(source, config, data)
    else:
        traces = read_traces(
            source,
            format=config.format,
            columns=config.columns or None,
            rejects=data.rejects.append,
            limit=config.limit,
        )
        for trace in traces:
            try:
                yield recorded(trace, config)
            except InputError as error:
                _refuse(data, trace, str(error))


def _written(source: str, config: TrainConfig, data: Data) -> Iterator[LabelledTrace]:
    good = 0
    for row in open_source(source):
        if config.limit is not None and good >= config.limit:
            return
        if isinstance(row, Reject):
            data.rejects.append(row)
            continue
        try:
            labelled = labelled_of(row)
        except InputError as error:
            data.rejects.append(Reject(row.file, row.line, str(error), ""))
            continue
        good += 1
        yield _with_outcome(labelled, config)


def recorded(trace: Trace, config: TrainConfig) -> LabelledTrace:
    """Return what a record says of its own steps as a label.

    Steps are those of the record; where it has none, they are cut by the adaptive rule and only the trajectory can have
    a target.

    Raises:
        InputError: The record's steps cannot be used.
    """
    segmented = split(trace, "given" if trace.steps else "adaptive")
    known = dict(zip(((step.part, step.start) for step in trace.steps), trace.step_labels, strict=False))
    labelled = LabelledTrace(
        trace=trace,
        status=LabelStatus.LABELLED if segmented.steps else LabelStatus.NO_STEPS,
        steps=segmented.steps,
        step_terms=tuple({} for _ in segmented.steps),
        targets=tuple(known.get((step.part, step.start)) for step in segmented.steps),
        trajectory_terms={},
        trajectory_target=None,
        formula=RECORDED,
    )
    return _with_outcome(labelled, config)


def _with_outcome(labelled: LabelledTrace, config: TrainConfig) -> LabelledTrace:
    correct = labelled.trace.correct
    if not config.outcome_targets or correct is None or labelled.trajectory_target is not None:
        return labelled
    status = LabelStatus.LABELLED if labelled.status is LabelStatus.NO_TARGET else labelled.status
    return replace(labelled, trajectory_target=float(correct), status=status)
