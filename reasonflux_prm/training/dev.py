"""How good a PRM is on the dev set: while it is trained, and, with intervals, once it is saved and loaded again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reasonflux_prm.evaluation.intervals import Interval, bootstrap
from reasonflux_prm.evaluation.metrics import Floats, auc, weighted_auc, weighted_mean
from reasonflux_prm.evaluation.selection import highest, mean
from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.records import LabelledTrace, SegmentedTrace, Status
from reasonflux_prm.training.examples import group_of

GOOD = 0.5
"""A target of at least this is good."""
_ALPHA = 1.0


@dataclass(frozen=True, slots=True)
class DevRead:
    """What the model says where there is a target."""

    trace: int
    step: int
    """`TRAJECTORY` for the trajectory."""
    target: float
    reward: float


def dev_metrics(reads: Iterable[DevRead], known: Mapping[int, tuple[str, bool | None]]) -> dict[str, float | None]:
    """Return what is watched while training; None where the dev set does not say.

    Args:
        reads: All reads of the dev set.
        known: For each trace its problem, and whether it is right.

    Returns:
        `step_auc`, `trajectory_auc`; `best_of_n`, the accuracy of the trace with the highest reward of each problem
        that has several, and `pass_at_1`, that of one at random. The reward is the mean of the step rewards that were
        read, plus the trajectory's.
    """
    steps: list[DevRead] = []
    trajectories: list[DevRead] = []
    by_trace: dict[int, list[DevRead]] = defaultdict(list)
    for read in reads:
        (trajectories if read.step == TRAJECTORY else steps).append(read)
        by_trace[read.trace].append(read)
    rewards = {trace: _reward(own) for trace, own in by_trace.items()}
    groups: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for trace, reward in sorted(rewards.items()):
        group, right = known[trace]
        if right is not None:
            groups[group].append((reward, right))
    several = [members for members in groups.values() if len(members) > 1]
    return {
        "step_auc": _auc(steps),
        "trajectory_auc": _auc(trajectories),
        "best_of_n": _mean(highest([r for r, _ in own], [c for _, c in own]) for own in several),
        "pass_at_1": _mean(mean([c for _, c in own]) for own in several),
    }


def known_of(labels: Sequence[LabelledTrace]) -> dict[int, tuple[str, bool | None]]:
    """Return the problem of each trace, and whether the trace is right as far as that was recorded."""
    return {number: (group_of(labelled), labelled.trace.correct) for number, labelled in enumerate(labels)}


def _reward(reads: Sequence[DevRead]) -> float:
    steps = [read.reward for read in reads if read.step != TRAJECTORY]
    trajectory = sum(read.reward for read in reads if read.step == TRAJECTORY)
    return (sum(steps) / len(steps) if steps else 0.0) + _ALPHA * trajectory


def _auc(reads: Sequence[DevRead]) -> float | None:
    return auc([read.reward for read in reads], [read.target >= GOOD for read in reads]) if reads else None


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


# --- of the saved PRM ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of the card."""

    name: str
    interval: Interval


def evaluate_saved(folder: Path, labels: Sequence[LabelledTrace], context: int | None = None) -> list[Result]:
    """Score the dev set with the saved folder, as a user would, and return its figures with intervals by problem.

    Args:
        folder: A PRM in our own format.
        labels: The dev set.
        context: Tokens of a reading, as in training.
    """
    from reasonflux_prm.prm.load import load_prm
    from reasonflux_prm.scoring.engine import EngineSettings, score_traces

    if not labels:
        return []
    prm = load_prm(str(folder), context=context)
    segmented = [SegmentedTrace(labelled.trace, labelled.steps, "given") for labelled in labels]
    scored = list(score_traces(prm, segmented, EngineSettings()))
    steps: list[tuple[str, float, bool]] = []
    trajectories: list[tuple[str, float, bool]] = []
    groups: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for labelled, found in zip(labels, scored, strict=True):
        if found.status is not Status.SCORED:
            continue
        group = group_of(labelled)
        rows = zip(labelled.targets, found.step_rewards, strict=True)
        steps += [(group, reward, target >= GOOD) for target, reward in rows if None not in (target, reward)]  # type: ignore[misc, operator]
        if labelled.trajectory_target is not None and found.trajectory_reward is not None:
            trajectories.append((group, found.trajectory_reward, labelled.trajectory_target >= GOOD))
        if labelled.trace.correct is not None and found.reward is not None:
            groups[group].append((found.reward, labelled.trace.correct))
    several = {group: own for group, own in groups.items() if len(own) > 1}
    results = [
        Result(name, bootstrap(weighted_auc([r for _, r, _ in rows], [c for *_, c in rows]), [g for g, *_ in rows]))
        for name, rows in (("step AUC", steps), ("trajectory AUC", trajectories))
        if rows
    ]
    if several:
        best = [highest([r for r, _ in own], [c for _, c in own]) for own in several.values()]
        chance = [mean([c for _, c in own]) for own in several.values()]
        results += [_over(several, "best of N", best), _over(several, "one at random (pass@1)", chance)]
        gain: Floats = np.array(best) - np.array(chance)
        results.append(_over(several, "gain of best of N over pass@1", gain.tolist()))
    return results


def _over(groups: Mapping[str, object], name: str, values: Sequence[float]) -> Result:
    return Result(name, bootstrap(weighted_mean(values), list(groups)))
