"""A labelled trace as what the model is trained on: token windows, and what is read where, with its target and weight.

Input is built from the same pieces as for scoring (`prm.families.native.NativeInput`) and cut into windows by the same
code (`scoring.windows`), so a target sits where its reward will be read, by construction. A target that is missing is
not read, so it has no part in the loss.

The objective (arXiv:2506.18896; the sum over steps is of one trace with T steps that have a target)

    lambda_step * (1/T) sum_t L(R(s_t | ...), r_t)  +  lambda_final * L(R(x, y), r_final)

is linear in the reads' losses, so each read carries its weight (lambda_step / T, or lambda_final), and a batch may hold
the windows of a trace in different places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import ContextError
from reasonflux_prm.prm.base import PRMInput
from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.records import LabelledTrace, SegmentedTrace
from reasonflux_prm.scoring.windows import fit
from reasonflux_prm.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Example:
    """One window of a trace: what the model reads, and what it is to say."""

    tokens: NDArray[np.int32]
    """(T,), up to the last position that is read; the whole window where activations are kept."""
    reads: NDArray[np.int32]
    """(R,) positions whose output is read, rising."""
    steps: NDArray[np.int32]
    """(R,) the step that each is about, `TRAJECTORY` for the trajectory."""
    targets: NDArray[np.float32]
    """(R,)"""
    weights: NDArray[np.float32]
    """(R,) the weight of each read's loss in its trace's."""
    share: float
    """What the window counts in the number that a batch's loss is divided by; a trace's windows add up to 1, or with
    the weighting `step` to its number of reads."""
    trace: int
    """The number of its trace."""
    group: str
    """The problem that it belongs to."""
    spans: tuple[tuple[int, int], ...]
    """For each read the tokens of its piece: from, and up to."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A trace's windows, and what was done to it."""

    windows: tuple[Example, ...]
    note: str | None
    """What had to be done because it was too long; None if it fitted."""


def group_of(labelled: LabelledTrace) -> str:
    """Return what names a trace's problem: its group, or the problem's text."""
    trace = labelled.trace
    return f"group {trace.group}" if trace.group is not None else f"problem {trace.problem.strip()}"


def encode(labelled: LabelledTrace, number: int, prm: PRMInput, config: TrainConfig) -> Encoded:
    """Return the windows of a trace that hold a target.

    Args:
        labelled: The trace, its steps and targets.
        number: The trace's number, from 0.
        prm: Builds the input.
        config: Layout, weights, and what to do with a long trace.

    Returns:
        At least one window. Windows in which nothing is trained on are left out.

    Raises:
        ContextError: It is longer than the context, and the configuration says to refuse such traces; or the problem
            leaves no room for a step.
    """
    targets = _targets(labelled, config)
    segmented = SegmentedTrace(labelled.trace, labelled.steps, "given")
    sequence = prm.encode(segmented).sequences[0]
    fitted = fit(sequence, prm.spec.context_length, config.overflow)
    # A step of nothing but blank space is not read.
    read_somewhere = {read.target for window in fitted.windows for read in window.reads}
    targets = {step: value for step, value in targets.items() if step in read_somewhere}
    if not targets:
        raise ContextError("no step with a target holds any text")
    weights = _weights(targets, config)
    total = sum(weights.values())
    whole = float(len(targets)) if config.weighting == "step" else 1.0
    windows = []
    for window in fitted.windows:
        reads = [read for read in window.reads if read.target in targets]
        if not reads:
            continue
        own = [weights[read.target] for read in reads]
        # What stands behind the last read has no part in any target: a later token is never attended to. Activations
        # that are kept are those of whole windows, so that another objective finds them.
        tokens = window.tokens if config.method == "frozen" else window.tokens[: reads[-1].position + 1]
        windows.append(
            Example(
                tokens=np.array(tokens, dtype=np.int32),
                reads=np.array([read.position for read in reads], dtype=np.int32),
                steps=np.array([read.target for read in reads], dtype=np.int32),
                targets=np.array([targets[read.target] for read in reads], dtype=np.float32),
                weights=np.array(own, dtype=np.float32),
                share=whole * (sum(own) / total if total else len(reads) / len(targets)),
                trace=number,
                group=group_of(labelled),
                spans=tuple((read.start, read.stop) for read in reads),
            )
        )
    return Encoded(tuple(windows), fitted.note)


def _targets(labelled: LabelledTrace, config: TrainConfig) -> dict[int, float]:
    """Return the targets that the objective uses, by step."""
    targets: dict[int, float] = {}
    if config.lambda_step:
        targets = {step: value for step, value in enumerate(labelled.targets) if value is not None}
    if (config.lambda_final or config.lambda_pair) and labelled.trajectory_target is not None:
        targets[TRAJECTORY] = labelled.trajectory_target
    return targets


def _weights(targets: dict[int, float], config: TrainConfig) -> dict[int, float]:
    steps = len(targets) - (TRAJECTORY in targets)
    each = config.lambda_step if config.weighting == "step" else config.lambda_step / max(steps, 1)
    return {step: config.lambda_final if step == TRAJECTORY else each for step in targets}


def has_target(labelled: LabelledTrace, config: TrainConfig) -> bool:
    """Whether a label has a target that the objective uses."""
    return bool(_targets(labelled, config))


def lengths(examples: Sequence[Example]) -> list[int]:
    """Return the tokens of each."""
    return [len(example) for example in examples]
