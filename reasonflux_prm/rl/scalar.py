r"""One reward a rollout from a verifier's outcome r_out and the PRM's reward r_hat of the whole trace.

`blend` is the paper's: r_new = (1 - beta) r_out + beta r_hat (arXiv:2506.18896, eq. 12), then normalised by group
(`normalise.group_advantages`). Its release (Gen-Verse/ReasonFlux, Application/verl/workers/fsdp_workers.py) has beta =
0.75 and departs from the equation in what it feeds it: the whole response is one step, so there are no step rewards;
the logits are read behind the chat template's end mark, not at the separator; one number a micro-batch is kept. None of
that is matched here: r_hat is the aggregate of all steps and the trajectory.

`gated` is TRM's: r = r_v (1 - alpha + alpha sigma(r_t)), alpha = 0.2 ("Characterizing, Evaluating, and
Optimizing Complex Reasoning", ICML 2026). It departs in one place: where
r_v <= 0, r = r_v. With verdicts of 1 and -1 the formula as it stands would pay a wrong answer for a low reward.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.rollouts import Rewards, is_right

BETA: Final = 0.75
"""Share of the PRM in `blend`, as in the release."""
ALPHA: Final = 0.2
"""What the PRM decides of a right answer's reward in `gated`, as TRM has it."""

Link = Literal["identity", "sigmoid"]


def blend(outcomes: Rewards, rewards: Rewards, beta: float = BETA) -> list[float | None]:
    """Return (1 - beta) * outcome + beta * reward of every rollout.

    Both should have one range, as 0 to 1: the paper's aggregate with alpha = 1 goes up to 2, and counts twice then
    (`scorer.RolloutScorer` brings it to 1).

    Args:
        outcomes: (B,) r_out. Not asked for where beta is 1.
        rewards: (B,) r_hat. Not asked for where beta is 0.
        beta: In [0, 1]; 0 is the verifier alone, 1 the PRM alone.

    Returns:
        (B,); None where a part that counts is missing.

    Raises:
        UsageError: beta is out of its range, or lengths differ.
    """
    check_share("beta", beta)
    _check_lengths(outcomes, rewards)
    if beta in (0, 1):
        return list(rewards if beta else outcomes)
    return [
        None if outcome is None or reward is None else (1 - beta) * outcome + beta * reward
        for outcome, reward in zip(outcomes, rewards, strict=True)
    ]


def gated(outcomes: Rewards, rewards: Rewards, alpha: float = ALPHA, link: Link = "identity") -> list[float | None]:
    """Return outcome * (1 - alpha + alpha * link(reward)) of right rollouts, and the outcome of wrong ones.

    Args:
        outcomes: (B,) r_v; above 0 is right.
        rewards: (B,) r_t.
        alpha: In [0, 1]. A right rollout keeps at least 1 - alpha of its outcome.
        link: `identity` for rewards in [0, 1]; `sigmoid` for logits, as TRM's are.

    Returns:
        (B,); None without an outcome, or where a right rollout has no reward.

    Raises:
        UsageError: alpha is out of its range, lengths differ, or a reward is outside [0, 1] with `identity`.
    """
    check_share("alpha", alpha)
    _check_lengths(outcomes, rewards)
    if link not in ("identity", "sigmoid"):
        raise UsageError(f"unknown link {link!r}; there are identity, sigmoid")
    found: list[float | None] = []
    for outcome, reward in zip(outcomes, rewards, strict=True):
        if outcome is None or not is_right(outcome):
            found.append(outcome)
        elif reward is None:
            found.append(None)
        else:
            found.append(outcome * (1 - alpha + alpha * _linked(reward, link)))
    return found


def _linked(reward: float, link: Link) -> float:
    if link == "sigmoid":
        # The two forms keep the exponential from overflowing.
        return 1 / (1 + math.exp(-reward)) if reward >= 0 else math.exp(reward) / (1 + math.exp(reward))
    if not 0 <= reward <= 1:
        raise UsageError(f"a gate needs rewards in [0, 1], got {reward:g}; use link='sigmoid' for logits")
    return reward


def check_share(name: str, value: float) -> None:
    """Refuse a number outside [0, 1]."""
    if not 0 <= value <= 1:
        raise UsageError(f"{name} must be in [0, 1], got {value:g}")


def _check_lengths(outcomes: Rewards, rewards: Rewards) -> None:
    if len(outcomes) != len(rewards):
        raise UsageError(f"expected one reward for each outcome, got {len(rewards)} and {len(outcomes)}")
