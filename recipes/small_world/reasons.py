"""Why a PRM of the small world chooses as it does: what its rewards tell apart, and what its picks have in common.

    python -m recipes.small_world.reasons OUT/small-world-test-prm.scored.jsonl

OUT is the folder of `recipes.small_world.run`, after its stage `choose`. Intervals are 95%, by problem.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import pstdev
from typing import Any

from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.records import ScoredTrace
from reasonflux_prm.traces.write import read_scored
from recipes.label_evidence.measure import auc, mean, mean_auc
from recipes.small_world.story import told, worked


def without_slip(scored: ScoredTrace) -> bool:
    """Whether every thinking step is a sum that is right."""
    return all(step is not None and step.holds for step in worked(scored.trace.thinking))


def follows(scored: ScoredTrace) -> bool:
    """Whether the thinking steps tell the events of the story, all of them and in order."""
    return told(scored.trace.problem) == [step and (step.place, step.event) for step in worked(scored.trace.thinking)]


def reasons(scored: Sequence[ScoredTrace]) -> Mapping[str, Any]:
    """Return shares and areas of scored samples, several of each problem.

    Args:
        scored: Those that have a reward.
    """
    with open_grader("numeric") as grader:
        verdicts = grader.grade_many([(one.trace.response, str(one.trace.answer)) for one in scored])
    right = [verdict.right for verdict in verdicts]
    groups = [str(one.trace.group) for one in scored]
    best: dict[str, ScoredTrace] = {}
    for one, group in zip(scored, groups, strict=True):
        if group not in best or (one.reward or 0) > (best[group].reward or 0):
            best[group] = one
    report: dict[str, Any] = {"samples": len(scored), "problems": len(best)}
    for name, some in (("all", scored), ("picks", list(best.values()))):
        own = [str(one.trace.group) for one in some]
        report[name] = {
            "without a slip": mean([float(without_slip(one)) for one in some], own),
            "follow the story": mean([float(follows(one)) for one in some], own),
        }
    for name, values in (
        ("reward", [one.reward or 0.0 for one in scored]),
        ("trajectory reward", [one.trajectory_reward or 0.0 for one in scored]),
    ):
        areas = {"over all": auc(values, right, groups), "within a problem": mean_auc(values, right, groups)}
        report[f"area of the {name}"] = areas
    for part in ("thinking", "response"):
        rewards = [
            (reward, group)
            for one, group in zip(scored, groups, strict=True)
            for step, reward in zip(one.steps, one.step_rewards, strict=True)
            if step.part == part and reward is not None
        ]
        report[f"mean reward of a {part} step"] = mean(*map(list, zip(*rewards, strict=True)))
    report["deviation of a problem's samples in their mean"] = _spread(scored, groups)
    return report


def _spread(scored: Sequence[ScoredTrace], groups: Sequence[str]) -> Mapping[str, Any] | None:
    means: dict[str, list[float]] = {}
    for one, group in zip(scored, groups, strict=True):
        rewards = [reward for reward in one.step_rewards if reward is not None]
        means.setdefault(group, []).append(sum(rewards) / len(rewards))
    return mean([pstdev(own) for own in means.values()], list(means))


def main() -> None:
    """Print the report of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scored", nargs="+", type=Path)
    for path in parser.parse_args().scored:
        scored = [one for one in read_scored(path) if one.reward is not None]
        print(json.dumps({path.name: reasons(scored)}, indent=1))


if __name__ == "__main__":
    main()
