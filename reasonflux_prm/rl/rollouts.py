"""What the methods of this layer work on: a rollout with its rewards and the tokens at which its steps end."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from reasonflux_prm.errors import UsageError

Rewards = Sequence[float | None]
"""One scalar a rollout, (B,); None where the rollout is unscored, which is never the same as 0."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as the trainer sees it: rewards, and positions in its completion's tokens.

    Raises:
        UsageError: Steps and rewards do not match, a step ends outside the completion, or a reward is NaN or infinite.
    """

    group: Hashable
    """Names the problem; rollouts of one group are normalised together."""
    tokens: int
    """T, the tokens of the completion."""
    outcome: float | None = None
    """r_out: a verifier's word on the final answer, above 0 if right. None: no verdict (no reference, not parsed)."""
    reward: float | None = None
    """r_hat: the PRM's reward of the whole trace. None: the PRM could not score it."""
    step_rewards: tuple[float | None, ...] = ()
    """(S,) rewards of the steps that have a place among the tokens; None where the PRM gave none."""
    step_ends: tuple[int, ...] = ()
    """(S,) index of each step's last token, never falling; the last step's is T - 1, so that nothing is behind it."""
    thinking_steps: int | None = None
    """How many of the steps, the first ones, are of the thinking; the others are of the response. None: not known."""
    note: str | None = None
    """Why a reward is missing."""

    def __post_init__(self) -> None:
        who = f"a rollout of group {self.group!r}"
        if len(self.step_rewards) != len(self.step_ends):
            raise UsageError(
                f"{who}: expected as many step rewards as step ends, got {len(self.step_rewards)} and "
                f"{len(self.step_ends)}"
            )
        ends = self.step_ends
        if list(ends) != sorted(ends) or (ends and not 0 <= ends[0] <= ends[-1] < self.tokens):
            raise UsageError(f"{who}: step ends must rise from 0 to {self.tokens - 1}, its last token, got {ends}")
        if self.thinking_steps is not None and not 0 <= self.thinking_steps <= len(ends):
            raise UsageError(f"{who}: {self.thinking_steps} of its {len(ends)} steps cannot be thinking")
        for value in (self.outcome, self.reward, *self.step_rewards):
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{who}: a reward is {value}; give None where there is none")

    @property
    def known_steps(self) -> list[tuple[float, int]]:
        """(step reward, step end) of the steps that have a reward."""
        return [
            (reward, end) for reward, end in zip(self.step_rewards, self.step_ends, strict=True) if reward is not None
        ]

    @property
    def known_thinking(self) -> int | None:
        """How many of `known_steps` are of the thinking."""
        if self.thinking_steps is None:
            return None
        return sum(reward is not None for reward in self.step_rewards[: self.thinking_steps])


def members(groups: Iterable[Hashable]) -> list[list[int]]:
    """Return the indices of the rollouts of each group, groups in the order of their first rollout."""
    found: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        found.setdefault(group, []).append(index)
    return list(found.values())


def is_right(outcome: float | None) -> bool:
    """Whether a verifier called the final answer right: its reward is above 0 (for 1/0 and for 1/-1 alike)."""
    return outcome is not None and outcome > 0
