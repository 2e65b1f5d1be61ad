r"""Potential-based shaping: the outcome's advantage, token by token, with what the PRM thought as its baseline.

Step rewards are potentials of the states between steps. Nothing that the PRM says about them can change which policy is
the best, nor the gradient that is expected. It can make the gradient less noisy, or more: rewards that are no values of
the outcome, such as the chance that a step has no slip, add noise, and with Adam and a policy that is nearly sure of
its tokens that alone can ruin it (seen: docs/results.md, "The whole paper in a small world"). So the weight of the
potentials is fitted unless it is given: by least squares of the outcome on them, within a group's places, over the
batch, and 0 if they go opposite ways. A PRM that knows nothing of the outcome has next to no weight then. The fit wants
a batch of some tens of rollouts: of n, about 1/n of what the outcome says of later steps goes into it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.dense import Floats
from reasonflux_prm.rl.normalise import (
    EPS,
    Baseline,
    Moments,
    Scale,
    baseline_of,
    check_names,
    divisor,
    known,
    pooled_std,
)
from reasonflux_prm.rl.rollouts import Rollout, members


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
    weight: float | None = None,
    gamma: float = 1.0,
    centre: bool = True,
    baseline: Baseline = "mean",
    scale: Scale = "batch",
    eps: float = EPS,
) -> list[Floats]:
    r"""Return token advantages from the outcome and a shaping that leaves the best policy unchanged.

    Phi_j = weight * (r_j - c_j) is what the PRM thinks of the trace up to step j. The outcome is paid at the last step.
    The return from step j on is, as the sum of the shaping telescopes,

        G_ij = gamma^(S_i - j) r_i^out - Phi_i(j-1)

    so the potentials work as a baseline for each state: a step is credited with how the outcome compares to what was
    thought before it. A_it = (G_ij - b_i) / (s + eps) for the tokens t of step j, with b_i from the discounted outcomes
    and s from G over the group's steps. Nothing that the PRM says can pay for a longer or a more agreeable trace.

    Args:
        rollouts: B, groups in any order.
        weight: Of the potentials; 0 is outcome GRPO (with gamma 1), but for the scale. None fits it; see above.
        gamma: Discount of a step, in (0, 1]; below 1 it favours short traces.
        centre: Subtract c_j, the mean of the group's potentials behind the j-th step (the same for all states at that
            place, so still a potential), which makes up for a PRM that is too mild or too harsh, or grows so from step
            to step; b_i takes the mean's place. Without it c_j = 0.
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
    check_weight(weight)
    lacking = [rollout.outcome is None or not rollout.known_steps for rollout in rollouts]
    groups = [[i for i in group if not lacking[i]] for group in members(rollout.group for rollout in rollouts)]
    inner = {i: [reward for reward, _ in rollouts[i].known_steps[:-1]] for group in groups for i in group}
    outcomes = {i: sum(known([rollouts[i].outcome])) for i in inner}
    centred = {i: own for group in groups for i, own in _centred({i: inner[i] for i in group}).items()}
    by = _fitted(centred, outcomes, gamma) if weight is None else weight
    states = centred if centre else inner
    returns = {i: _returns([by * value for value in states[i]], outcomes[i], gamma) for i in inner}
    moments = [Moments.of([value for i in group for value in returns[i]]) for group in groups]
    pooled = pooled_std(moments)
    result = [np.zeros(rollout.tokens) for rollout in rollouts]
    for group, own in zip(groups, moments, strict=True):
        if len(group) == 1 and baseline != "none":
            continue
        first = Moments.of([returns[i][0] for i in group])
        for i in group:
            values = np.asarray(returns[i]) - baseline_of(returns[i][0], first, baseline)
            result[i] = _at_tokens(values / divisor(own.std, pooled, scale, eps), rollouts[i])
    return result


def _at_tokens(values: Floats, rollout: Rollout) -> Floats:
    """Return each step's value at all of its tokens; what stands behind the last step belongs to it."""
    ends = [end for _, end in rollout.known_steps]
    return np.repeat(values, np.diff([-1, *ends[:-1], rollout.tokens - 1]))


def check_weight(weight: float | None) -> None:
    """Refuse a weight that is none."""
    if weight is not None and not 0 <= weight < math.inf:
        raise UsageError(f"weight must be at least 0, or None to fit it, got {weight:g}")


def _centred(inner: Mapping[int, Sequence[float]]) -> dict[int, list[float]]:
    """Return one group's potentials, each less the mean of the group's at the same place."""
    longest = max(map(len, inner.values()), default=0)
    means = [Moments.of([own[j] for own in inner.values() if j < len(own)]).mean for j in range(longest)]
    return {i: [value - mean for value, mean in zip(own, means, strict=False)] for i, own in inner.items()}


def _fitted(centred: Mapping[int, Sequence[float]], outcomes: Mapping[int, float], gamma: float) -> float:
    """Return the weight with which potentials are closest to what is still to come behind them, and 0 if below it.

    Centred potentials sum to 0 at each place of a group, so the outcomes need not be centred too.
    """
    pairs = [
        (value, gamma ** (len(own) - j) * outcomes[i]) for i, own in centred.items() for j, value in enumerate(own, 1)
    ]
    squares = math.fsum(value * value for value, _ in pairs)
    return max(0.0, math.fsum(value * target for value, target in pairs) / squares) if squares > 0 else 0.0


def _returns(potentials: Sequence[float], outcome: float, gamma: float) -> list[float]:
    """Return G_j of one rollout from the potentials behind its steps but the last; Phi_0 is 0."""
    extra = shaping([*potentials, 0.0], gamma)
    extra[-1] += outcome
    total, backwards = 0.0, []
    for value in reversed(extra):
        total = value + gamma * total
        backwards.append(total)
    return backwards[::-1]
