r"""Step rewards into an advantage for every token of the policy.

Each step's value v_j stands at the step's last token, e_j, and a token's advantage is what is still to come from its
step on:

    A_t = sum over {j : e_j >= t} of v_j               (GRPO with process supervision, arXiv:2402.03300, 4.1.3)

`process` takes v_j from the PRM, normalised over the group, and adds the outcome as a constant over all tokens of a
rollout, since PRM rewards alone collapse (docs/rl.md). `rl.potential` is the other way from steps to tokens.

A PRM may give all steps of one part less than those of the other, whatever they say. With one baseline for both, the
tokens of that part have a negative advantage in every rollout, right or wrong, and what is written there is unlearnt
(seen: docs/results.md, "The whole paper in a small world"). `by_part` takes a step's baseline over the group's steps of
its own part, thinking or response, which is known before the step's tokens are written, so that the expected gradient
does not change.

Length: with `sum` credit, steps that are better than the group's mean step pay without end. `min` credit, or a step
cost of at least the highest normalised reward, leave nothing to gain from another step; `mean` bounds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.normalise import (
    EPS,
    Baseline,
    Moments,
    Scale,
    check_names,
    divisor,
    group_advantages,
    pooled_std,
)
from reasonflux_prm.rl.rollouts import Rollout, members
from reasonflux_prm.rl.scalar import BETA, check_share

Floats = NDArray[np.float64]
Credit = Literal["sum", "mean", "min"]
CREDITS: Final = get_args(Credit)
TEMPERATURE: Final = 0.1
"""Of `min` credit, as in PURE."""


def token_values(step_values: Sequence[float], step_ends: Sequence[int], tokens: int) -> Floats:
    """Return, for every token, the sum of the values of the steps that end at it or behind it.

    Args:
        step_values: (S,).
        step_ends: (S,) index of each step's last token, never falling.
        tokens: T.

    Returns:
        (T,); 0 behind the last end.
    """
    placed = np.zeros(tokens)
    np.add.at(placed, np.asarray(step_ends, dtype=np.int64), np.asarray(step_values, dtype=np.float64))
    return np.ascontiguousarray(placed[::-1].cumsum()[::-1])


def padded(values: Sequence[Floats], width: int | None = None) -> Floats:
    """Return the values of B rollouts as one (B, T) array, zeros behind each rollout's last token.

    Args:
        values: (T,) each.
        width: T of the result; None takes the longest.
    """
    longest = max((len(row) for row in values), default=0)
    width = longest if width is None else width
    if longest > width:
        raise UsageError(f"a rollout of {longest} tokens does not fit in {width}")
    result = np.zeros((len(values), width))
    for row, value in zip(result, values, strict=True):
        row[: len(value)] = value
    return result


def credit_weights(step_rewards: Sequence[float], credit: Credit, temperature: float = TEMPERATURE) -> list[float]:
    r"""Return the weight of every step in the value of a rollout, v = sum of w_j r_j.

    | credit | w_j | what another step does to v |
    |---|---|---|
    | `sum` | 1 | adds its reward: the longer, the better |
    | `mean` | 1/S | moves it towards its own reward: a step that is better than the mean still pays |
    | `min` | exp(-r_j / tau) / sum of exp(-r_k / tau) | nothing, if it is better than the worst (as tau -> 0) |

    `min` is PURE's (arXiv:2504.15275): a trace is worth what its worst step is worth. Temperature 0 puts all weight on
    the first of the worst steps.
    """
    if credit == "sum":
        return [1.0] * len(step_rewards)
    if credit == "mean":
        return [1 / len(step_rewards)] * len(step_rewards)
    lowest = min(step_rewards)
    if temperature == 0:
        worst = step_rewards.index(lowest)
        return [float(step == worst) for step in range(len(step_rewards))]
    weights = [math.exp((lowest - reward) / temperature) for reward in step_rewards]
    return [weight / math.fsum(weights) for weight in weights]


def process(
    rollouts: Sequence[Rollout],
    *,
    beta: float = BETA,
    credit: Credit = "sum",
    temperature: float = TEMPERATURE,
    step_cost: float = 0.0,
    by_part: bool = False,
    baseline: Baseline = "mean",
    scale: Scale = "group",
    eps: float = EPS,
) -> list[Floats]:
    r"""Return token advantages from step rewards that are normalised over the group, and from the outcome.

        A_it = (1 - beta) A_i^out + beta * sum over {j : e_ij >= t} of v_ij
        v_ij = w_ij (r_ij - b_j) / (s + eps) - step_cost,  b_j = sum of w r / sum of w over the group's steps

    with the weights w of `credit_weights` and A^out the `group_advantages` of the outcomes. With `sum`, b and s are the
    mean and deviation of all step rewards of the group; beta = 1 and the defaults else are GRPO's process supervision
    (arXiv:2402.03300, 4.1.3) to the letter. With `mean` and `min`, s is the deviation of the rollouts' values, sum_j
    w_ij (r_ij - b_j): a rollout's first token has the advantage that `normalise.group_advantages` gives its value, and
    a long rollout weighs no more in the baseline than a short one.

    Args:
        rollouts: B, groups in any order.
        beta: Share of the process part, in [0, 1].
        credit: How steps make up a rollout's value.
        temperature: Of `min` credit, at least 0, in units of the step rewards.
        step_cost: Taken off every step with `sum` credit, in deviations of the group's step rewards.
        by_part: Take the baseline of a step over steps of its own part only; the deviation of `sum` is then that about
            the parts' means.
        baseline: As in `normalise`. `leave-one-out` leaves out all steps of the rollout itself.
        scale: As in `normalise`.
        eps: Added to the divisor.

    Returns:
        B arrays (T,). All zeros for a rollout without what counts (the outcome unless beta is 1, a step with a reward
        unless beta is 0), which is in no statistic. A step with nothing to be compared with counts 0, less its cost.

    Raises:
        UsageError: An argument is out of its range, a step cost where it would change nothing, or `by_part` without a
            baseline or of rollouts that do not tell their `thinking_steps`.
    """
    _check(beta, credit, temperature, step_cost, by_part, baseline, scale)
    usable = [(beta == 1 or r.outcome is not None) and (beta == 0 or bool(r.known_steps)) for r in rollouts]
    outcomes = [rollout.outcome if use else None for rollout, use in zip(rollouts, usable, strict=True)]
    groups = [rollout.group for rollout in rollouts]
    result = [np.zeros(rollout.tokens) for rollout in rollouts]
    if beta < 1:
        for row, part in zip(
            result, group_advantages(outcomes, groups, baseline=baseline, scale=scale, eps=eps), strict=True
        ):
            row += (1 - beta) * part
    if beta > 0:
        steps = {i: _weighted(rollouts[i], credit, temperature, by_part) for i, use in enumerate(usable) if use}
        found = [[i for i in group if usable[i]] for group in members(groups)]
        values = _step_values(steps, found, credit, step_cost, baseline, scale, eps)
        for i, own in values.items():
            result[i] += beta * token_values(own, [end for _, end in rollouts[i].known_steps], rollouts[i].tokens)
    return result


class _Step(NamedTuple):
    weight: float
    reward: float
    place: int
    """Steps of one place share a baseline."""


def _weighted(rollout: Rollout, credit: Credit, temperature: float, by_part: bool) -> list[_Step]:
    rewards = [reward for reward, _ in rollout.known_steps]
    thinking = rollout.known_thinking if by_part else len(rewards)
    if thinking is None:
        raise UsageError(
            f"a rollout of group {rollout.group!r} does not tell which of its steps are thinking; give it "
            "thinking_steps, or leave by_part out"
        )
    weights = credit_weights(rewards, credit, temperature)
    return [_Step(w, r, int(n >= thinking)) for n, (w, r) in enumerate(zip(weights, rewards, strict=True))]


def _step_values(
    steps: Mapping[int, Sequence[_Step]],
    groups: Sequence[Sequence[int]],
    credit: Credit,
    step_cost: float,
    baseline: Baseline,
    scale: Scale,
    eps: float,
) -> dict[int, list[float]]:
    """Return v_ij of every usable rollout, by its index."""
    means = [_baselines([steps[i] for i in group]) for group in groups]
    moments = [_moments([steps[i] for i in group], mean, credit) for group, mean in zip(groups, means, strict=True)]
    pooled = pooled_std([own for group in moments for own in group])
    found: dict[int, list[float]] = {}
    for group, mean, own in zip(groups, means, moments, strict=True):
        by = divisor(pooled_std(own), pooled, scale, eps)
        for i in group:
            if len(group) == 1 and baseline != "none":
                found[i] = [0.0] * len(steps[i])
                continue
            taken = dict.fromkeys(mean, 0.0) if baseline == "none" else mean
            if baseline == "leave-one-out":
                taken = _baselines([steps[k] for k in group if k != i])
            found[i] = [w * (r - taken.get(place, r)) / by - step_cost for w, r, place in steps[i]]
    return found


def _baselines(group: Sequence[Sequence[_Step]]) -> dict[int, float]:
    """Return the weighted mean of a group's step rewards, by place; nothing of a place where all weights are 0."""
    steps = [step for own in group for step in own if step.weight > 0]
    chosen = {place: [step for step in steps if step.place == place] for place in {step.place for step in steps}}
    return {
        place: math.fsum(step.weight * step.reward for step in own) / math.fsum(step.weight for step in own)
        for place, own in chosen.items()
    }


def _moments(group: Sequence[Sequence[_Step]], mean: Mapping[int, float], credit: Credit) -> list[Moments]:
    """Return what a group's deviation is pooled from: its step rewards, by place, or one value a rollout."""
    if credit == "sum":
        return [Moments.of([step.reward for own in group for step in own if step.place == place]) for place in mean]
    return [Moments.of([math.fsum(w * (r - mean.get(place, r)) for w, r, place in own) for own in group])]


def _check(
    beta: float, credit: str, temperature: float, step_cost: float, by_part: bool, baseline: str, scale: str
) -> None:
    check_share("beta", beta)
    check_names(baseline, scale)
    if credit not in CREDITS:
        raise UsageError(f"unknown credit {credit!r}; there are {', '.join(CREDITS)}")
    if not temperature >= 0:
        raise UsageError(f"temperature must be at least 0, got {temperature:g}")
    if not step_cost >= 0:
        raise UsageError(f"step_cost must be at least 0, got {step_cost:g}")
    if step_cost and credit != "sum":
        raise UsageError(f"a step cost guards against the length of {'sum'!r} credit; leave it at 0 with {credit!r}")
    if by_part and baseline == "none":
        raise UsageError("by_part says which steps a baseline is of, and there is none; leave one of the two out")
