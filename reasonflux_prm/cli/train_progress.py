"""What the user sees while a PRM is trained: how far it is, how fast, how well, how long it will take."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from reasonflux_prm.cli.console import LINE_EVERY_S, duration, say

if TYPE_CHECKING:
    from reasonflux_prm.training.progress import Now

_FIGURES = {
    "eval_loss": "loss",
    "eval_step_auc": "step AUC",
    "eval_trajectory_auc": "trajectory AUC",
    "eval_best_of_n": "best of N",
    "eval_pass_at_1": "pass@1",
}


class TrainingProgress:
    """Shows how a training goes on: a bar in a terminal, else a line every ten seconds; every evaluation has a line.

    Pass it as `hook`.

    Args:
        console: Where to print; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._stage = ""
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task("reading", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, now: Now) -> None:
        """Show where the training is."""
        if now.stage == "evaluated":
            say(self.evaluation(now))
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=now.done, total=now.total, description=self.line(now))
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            say(self.line(now))

    def line(self, now: Now) -> str:
        """Return where it is, in words."""
        what = "windows cached" if now.stage == "caching" else "steps"
        line = f"{now.done:,} of {now.total:,} {what}, {now.tokens_per_second:,.0f} tokens/s"
        if "loss" in now.metrics:
            line += f", loss {now.metrics['loss']:.4f}"
        return line if now.seconds_left is None else f"{line}, {duration(now.seconds_left)} left"

    def evaluation(self, now: Now) -> str:
        """Return what an evaluation gave, in words."""
        figures = ", ".join(f"{name} {now.metrics[key]:.4f}" for key, name in _FIGURES.items() if key in now.metrics)
        return f"step {now.done:,} of {now.total:,}, on the dev set: {figures}"
