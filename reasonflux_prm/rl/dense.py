r"""Step rewards into an advantage for every token of the policy.

Each step's value v_j stands at the step's last token, e_j, and a token's advantage is what is still to come from its
step on:

    A_t = sum over {j : e_j >= t} of v_j               (GRPO with process supervision, arXiv:2402.03300, 4.1.3)

`process` and `potential` differ in v_j. Both take the outcome in as well, as a constant over all tokens of a rollout,
since PRM rewards alone collapse (docs/rl.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.normalise import (
    EPS,
    Baseline,
    Moments,
    Scale,
    baseline_of,
    check_names,
    divisor,
    group_advantages,
    known,
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

    with the weights w of `credit_weights`. With `sum`, b and s are the mean and deviation of all step rewards of the
    group's rollouts; beta = 1 and the defaults else are GRPO's process supervision (arXiv:2402.03300, 4.1.3) to the
    letter. With `mean` and `min`, s is the deviation of the rollouts' values, sum_j w_ij (r_ij - b_j), so that a
    rollout's first token has the advantage that `normalise.group_advantages` gives its value, and a long rollout weighs
    no more in the baseline than a short one. A^out is `group_advantages` of the outcomes.

    Place: a PRM may give all steps of one part less than those of the other, whatever they say. With one baseline for
    both, the tokens of that part then have a negative advantage in every rollout, right or wrong, and what is written
    there is unlearnt (seen: docs/results.md). `by_part` takes b_j over the group's steps of the same part, thinking or
    response, which is known before a token is written, so the gradient's expectation does not change. The deviation of
    `sum` is then that about the parts' means.

    Length: with `sum`, steps that are better than the group's mean step pay without end. `min` credit, or a
    `step_cost` of at least the highest normalised reward, leave nothing to gain from another step; `mean` bounds it.

    Args:
        rollouts: B, groups in any order.
        beta: Share of the process part, in [0, 1].
        credit: How steps make up a rollout's value.
        temperature: Of `min` credit, at least 0, in units of the step rewards.
        step_cost: Taken off every step with `sum` credit, in deviations of the group's step rewards.
        by_part: Take the baseline of a step over steps of its own part only.
        baseline: As in `normalise`. `leave-one-out` leaves out all steps of the rollout itself.
        scale: As in `normalise`.
        eps: Added to the divisor.

    Returns:
        B arrays (T,). All zeros for a rollout without what counts: the outcome (unless beta is 1), or a step with a
        reward (unless beta is 0). Such a rollout is in no statistic. A step that has nothing to be compared with
        (`by_part` with `leave-one-out`) has the value 0, less its cost.

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
        parts = group_advantages(outcomes, groups, baseline=baseline, scale=scale, eps=eps)
        result = [(1 - beta) * part + row for part, row in zip(parts, result, strict=True)]
    if beta > 0:
        steps = {i: _weighted(rollouts[i], credit, temperature, by_part) for i, use in enumerate(usable) if use}
        found = [[i for i in group if usable[i]] for group in members(groups)]
        values = _step_values(steps, found, credit, step_cost, baseline, scale, eps)
        for i, own in values.items():
            ends = [end for _, end in rollouts[i].known_steps]
            result[i] += beta * token_values(own, ends, rollouts[i].tokens)
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


def shaping(potentials: Sequence[float], gamma: float = 1.0, initial: float = 0.0) -> list[float]:
    r"""Return the potential-based shaping rewards of one rollout's steps: F_j = gamma Phi_j - Phi_{j-1}.

    Phi_0 = `initial` is the potential of the problem, Phi_j that of the problem with j steps, and the end has potential
    0 whatever the PRM says of the last step. Then sum of gamma^(j-1) F_j = -Phi_0, which no step can change: the best
    policy stays the best (Ng, Harada and Russell, ICML 1999, theorem 1, whose condition on terminal states this is).

    Args:
        potentials: (S,) Phi of the state behind each step; the last is not used.
        gamma: Discount of a step, in (0, 1].
        initial: Phi of the problem alone.

    Returns:
        (S,).

    Raises:
        UsageError: gamma is out of its range.
    """
    if not 0 < gamma <= 1:
        raise UsageError(f"gamma must be in (0, 1], got {gamma:g}")
    states = [initial, *potentials[:-1], 0.0]
    return [gamma * after - before for before, after in pairwise(states)][: len(potentials)]


def potential(
    rollouts: Sequence[Rollout],
    *,
    weight: float = 1.0,
    gamma: float = 1.0,
    centre: bool = True,
    baseline: Baseline = "mean",
    scale: Scale = "batch",
    eps: float = EPS,
) -> list[Floats]:
    r"""Return token advantages from the outcome and a shaping that leaves the best policy unchanged.

    Step rewards are potentials: Phi_j = weight * r_j, what the PRM thinks of the trace up to step j. The outcome is
    paid at the last step. The return from step j on is, as the sum of the shaping telescopes,

        G_ij = gamma^(S_i - j) r_i^out - Phi_i(j-1)

    so the potentials work as a baseline for each state: a step is credited with how the outcome compares to what was
    thought before it. A_it = (G_ij - b_i) / (s + eps) for the tokens t of step j, with b_i from the discounted outcomes
    and s from G over the group's steps. Nothing that the PRM says can pay for a longer or a more agreeable trace.

    Args:
        rollouts: B, groups in any order.
        weight: Of the potentials; 0 is outcome GRPO (with gamma 1), but for the scale.
        gamma: Discount of a step, in (0, 1]; below 1 it favours short traces.
        centre: Subtract from a group's potentials their mean (the same for all of its states, so still a
            potential), which makes up for a PRM that is too mild or too harsh; b_i takes the mean's place.
        baseline: As in `normalise`.
        scale: As in `normalise`; deviations are those of G over steps. Here `group` would blow up the PRM's noise in
            groups whose outcomes are all equal.
        eps: Added to the divisor.

    Returns:
        B arrays (T,); zeros for a rollout without outcome or without a step that has a reward.

    Raises:
        UsageError: An argument is out of its range.
    """
    check_names(baseline, scale)
    usable = [rollout.outcome is not None and bool(rollout.known_steps) for rollout in rollouts]
    groups = [[i for i in group if usable[i]] for group in members(rollout.group for rollout in rollouts)]
    returns = {i: value for group in groups for i, value in _returns(rollouts, group, weight, gamma, centre).items()}
    moments = [Moments.of([value for i in group for value in returns[i]]) for group in groups]
    pooled = pooled_std(moments)
    result = [np.zeros(rollout.tokens) for rollout in rollouts]
    for group, own in zip(groups, moments, strict=True):
        if len(group) == 1 and baseline != "none":
            continue
        first = Moments.of([returns[i][0] for i in group])
        for i in group:
            values = np.asarray(returns[i]) - baseline_of(returns[i][0], first, baseline)
            ends = [end for _, end in rollouts[i].known_steps]
            lengths = np.diff([-1, *ends])
            lengths[-1] += rollouts[i].tokens - 1 - ends[-1]
            result[i] = np.repeat(values / divisor(own.std, pooled, scale, eps), lengths)
    return result


def _returns(
    rollouts: Sequence[Rollout], group: Sequence[int], weight: float, gamma: float, centre: bool
) -> dict[int, list[float]]:
    """Return G_ij of one group's rollouts, by index; Phi_0 is 0."""
    rewards = {i: [weight * reward for reward, _ in rollouts[i].known_steps] for i in group}
    inner = [value for i in group for value in rewards[i][:-1]]
    shift = Moments.of(inner).mean if centre else 0.0
    found: dict[int, list[float]] = {}
    for i in group:
        extra = shaping([value - shift for value in rewards[i]], gamma)
        extra[-1] += sum(known([rollouts[i].outcome]))
        total, backwards = 0.0, []
        for value in reversed(extra):
            total = value + gamma * total
            backwards.append(total)
        found[i] = backwards[::-1]
    return found
