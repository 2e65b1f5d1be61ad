"""How far a training is: what a caller's hook is told, and how the trainer tells it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainerCallback


@dataclass(frozen=True, slots=True)
class Now:
    """Where a training is."""

    stage: Literal["caching", "training", "evaluated"]
    done: int
    """Windows cached, or optimizer steps done."""
    total: int
    tokens_per_second: float = 0.0
    """In this process, since it started; all processes together."""
    seconds_left: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """`loss`, `learning_rate`, `epoch`; after an evaluation `eval_loss`, `eval_step_auc`, ..."""


Hook = Callable[[Now], None]


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells a hook of every step.

    Args:
        hook: What is told.
        step_tokens: Tokens of each optimizer step, all processes together.
    """

    def __init__(self, hook: Hook, step_tokens: list[int]) -> None:
        self.hook, self.step_tokens = hook, step_tokens
        self._began, self._first = time.monotonic(), 0
        self._metrics: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._began, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """Take note of figures."""
        self._metrics |= {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell of a step."""
        self._tell("training", state)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """Tell of an evaluation."""
        self._metrics |= metrics or {}
        self._tell("evaluated", state)

    def _tell(self, stage: Literal["training", "evaluated"], state: Any) -> None:
        if not state.is_world_process_zero:
            return
        spent = max(time.monotonic() - self._began, 1e-6)
        done, to_do = sum(self.step_tokens[self._first : state.global_step]), sum(self.step_tokens[state.global_step :])
        rate = done / spent
        left = to_do / rate if done else None
        self.hook(Now(stage, state.global_step, state.max_steps, rate, left, dict(self._metrics)))
