r"""Step rewards and an outcome in verl's one tensor of rewards, and out of it again.

verl 0.9 hands an advantage estimator three things of a rollout: `token_level_rewards` (T,), the response mask, and its
problem's uid. So what a dense shaping needs is written into the rewards:

    rewards[e_j] = +-c_j                    at the last token e_j of each step but the last
    rewards[T - 1] = outcome +- c_S         at the last token, where the last step ends
    c_j = (2 + 2 round(share_j * (2^13 - 2)) + p_j) * 2^-22,  share_j = (r_j - low) / (high - low)

with p_j = 0 for a step of the thinking and 1 for one of the response, or where that is not known.

Outcomes are multiples of 2^-7 in [-1, 1] (others, such as overlong penalties, are rounded to one) and c_j is below half
of that, so the two can be told apart. Signs take turns, so that most of the codes cancel in the sum over tokens, which
verl logs as the score: it differs from the outcome by less than 0.004 for every second step. Every number is a multiple
of 2^-22 below 2, which float32 holds exactly. A rollout that is unscored is all zeros. A step reward comes back to
within (high - low) / 16,380.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.rollouts import Rollout

UNIT: Final = 2.0**-22
GRID: Final = 2.0**-7
LEVELS: Final = 2**13 - 1
"""Of a step reward, counted from 1; codes go from 2 to twice this and 1."""


def write_codes(rollout: Rollout, low: float = 0.0, high: float = 1.0) -> NDArray[np.float32]:
    """Return (T,) rewards that hold a rollout's outcome and its step rewards; all zeros if one of them is missing.

    Steps without a reward are left out. Of steps that end in one token the last is kept.

    Args:
        rollout: With its steps' places.
        low: The lowest step reward that the PRM can give.
        high: The highest.

    Raises:
        UsageError: A reward is outside [low, high], or the outcome outside [-1, 1].
    """
    check_range(low, high)
    rewards = np.zeros(rollout.tokens)
    thinking = rollout.known_thinking or 0
    steps = {end: (reward, int(n >= thinking)) for n, (reward, end) in enumerate(rollout.known_steps)}
    if rollout.outcome is None or not steps:
        return rewards.astype(np.float32)
    if not -1 <= rollout.outcome <= 1:
        raise UsageError(f"verl's rewards hold outcomes in [-1, 1], got {rollout.outcome:g}")
    # The last token is a step's end by construction; should its step have no reward, the step before reaches up to it.
    ends = sorted(steps)
    values = [steps[end] for end in ends]
    ends[-1] = rollout.tokens - 1
    for n, (end, (value, part)) in enumerate(zip(ends, values, strict=True)):
        if not low <= value <= high:
            raise UsageError(
                f"a step reward of {value:g} is outside [{low:g}, {high:g}]; set low and high to the range of the PRM"
            )
        level = 1 + round((value - low) / (high - low) * (LEVELS - 1))
        rewards[end] = (-1) ** n * (2 * level + part) * UNIT
    rewards[-1] += round(rollout.outcome / GRID) * GRID
    return rewards.astype(np.float32)


def read_codes(rewards: ArrayLike, mask: ArrayLike, group: Hashable, low: float = 0.0, high: float = 1.0) -> Rollout:
    """Return the rollout that `write_codes` wrote.

    Args:
        rewards: (T,) padded at the end or not.
        mask: (T,) response mask, 1 for tokens that the policy wrote.
        group: Its problem.
        low: As it was written with.
        high: As it was written with.

    Raises:
        UsageError: These are no such codes.
    """
    check_range(low, high)
    row = np.asarray(rewards, dtype=np.float64)
    written = np.flatnonzero(row)
    tokens = 1 + max([0, *np.flatnonzero(np.asarray(mask)).tolist(), *written.tolist()])
    if not len(written):
        return Rollout(group, tokens, note="unscored")
    row = row[:tokens]
    outcome = round(row[-1] / GRID) * GRID
    row[-1] -= outcome
    ends = np.flatnonzero(row)
    codes = np.abs(row[ends]) / UNIT
    levels, parts = np.divmod(codes, 2)
    signs = np.where(row[ends] > 0, 1, -1)
    takes_turns = bool((signs == (-1) ** np.arange(len(ends))).all())
    if (
        not len(ends)
        or ends[-1] != tokens - 1
        or not takes_turns
        or (codes != codes.round()).any()
        or not 1 <= levels.min() <= levels.max() <= LEVELS
        or (np.diff(parts) < 0).any()
    ):
        raise UsageError(
            "the token rewards are not those of the reward manager 'reasonflux'; set reward.reward_manager.name and "
            "the agent loop to it, and algorithm.use_kl_in_reward to False (a KL loss is fine)"
        )
    values = low + (levels - 1) / (LEVELS - 1) * (high - low)
    thinking = int((parts == 0).sum())
    mean = float(values.mean())
    return Rollout(group, tokens, outcome, mean, tuple(values.tolist()), tuple(ends.tolist()), thinking)


def check_range(low: float, high: float) -> None:
    """Refuse an empty range."""
    if not low < high:
        raise UsageError(f"low must be below high, got {low:g} and {high:g}")


def read_batch(
    rewards: ArrayLike, masks: ArrayLike, groups: Sequence[Hashable], low: float = 0.0, high: float = 1.0
) -> list[Rollout]:
    """Return the rollouts of a batch, (B, T); see `read_codes`."""
    rows, mask_rows = np.asarray(rewards, dtype=np.float64), np.asarray(masks)
    return [read_codes(row, mask, group, low, high) for row, mask, group in zip(rows, mask_rows, groups, strict=True)]
