"""From step rewards and a trajectory reward to one number a trace.

The paper's aggregate is the mean step reward plus alpha times the trajectory reward (arXiv:2506.18896, section 3; its
main tables have alpha = 1.0). The alternatives exist because released PRMs were published with others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from reasonflux_prm.errors import UsageError
from reasonflux_prm.steps.split import RULE_NAMES

PRODUCT_FLOOR = 1e-30
"""Smallest factor of a product: a step reward of exactly 0 must not hide the order of all traces that have one."""


def _log(value: float) -> float:
    if value < 0:
        raise UsageError(
            f"a product needs rewards of at least 0, got {value:g}; use --aggregation mean or min with this PRM"
        )
    return math.log(max(value, PRODUCT_FLOOR))


def _rising_mean(rewards: Sequence[float]) -> float:
    weights = range(1, len(rewards) + 1)
    return math.fsum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights)


AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda rewards: math.fsum(rewards) / len(rewards),
    "min": min,
    "product": lambda rewards: math.fsum(map(_log, rewards)),
    "last": lambda rewards: rewards[-1],
    "sum": math.fsum,
    "weighted": _rising_mean,
}
"""By name: `mean`; `min`; `product`, as the sum of logarithms, in (-inf, 0], so that many steps do not underflow;
`last`; `sum`; `weighted`, the mean with weights 1, 2, ..., S, in which later steps count more."""


def check_choices(steps: str, aggregation: str, alpha: float) -> None:
    """Refuse what no scorer can be asked for.

    Raises:
        UsageError: The step rule or the aggregation is no name that there is, or alpha is not finite.
    """
    if steps not in RULE_NAMES:
        raise UsageError(f"unknown step rule {steps!r}; there are {', '.join(RULE_NAMES)}")
    if aggregation not in AGGREGATIONS:
        raise UsageError(f"unknown aggregation {aggregation!r}; there are {', '.join(AGGREGATIONS)}")
    if not math.isfinite(alpha):
        raise UsageError(f"alpha must be a finite number, got {alpha}")


def aggregate(
    step_rewards: Sequence[float | None], trajectory_reward: float | None, how: str = "mean", alpha: float = 1.0
) -> float | None:
    """Return the aggregate of one trace.

    Args:
        step_rewards: In reading order; None where a step has no reward, which is left out and never counted as 0.
        trajectory_reward: None if there is none; the aggregate is then that of the steps alone.
        how: A name in `AGGREGATIONS`.
        alpha: Weight of the trajectory reward. With `product`, where its logarithm takes its place, it is its exponent.

    Returns:
        aggregate(steps) + alpha * trajectory reward; without step rewards the trajectory reward alone; None if there
        is neither.

    Raises:
        UsageError: Unknown name, or a product of negative rewards.
    """
    if how not in AGGREGATIONS:
        raise UsageError(f"unknown aggregation {how!r}; there are {', '.join(AGGREGATIONS)}")
    known = [reward for reward in step_rewards if reward is not None]
    if trajectory_reward is not None and how == "product":
        trajectory_reward = _log(trajectory_reward)
    if not known:
        return trajectory_reward
    steps = AGGREGATIONS[how](known)
    return steps if trajectory_reward is None or alpha == 0 else steps + alpha * trajectory_reward
