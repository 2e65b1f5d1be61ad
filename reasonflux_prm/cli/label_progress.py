"""What the user sees while traces are labelled: how far it is, how fast, what it has cost, how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from reasonflux_prm.cli.console import LINE_EVERY_S, duration, say
from reasonflux_prm.cli.policies import said_cost
from reasonflux_prm.records import LabelledTrace

if TYPE_CHECKING:
    from reasonflux_prm.labels.run import Progress as RunProgress

TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Now:
    """Where a labelling run is."""

    finished: int = 0
    """Traces that this process has labelled."""
    drawn_from: int = 0
    """Traces read to draw negatives from, before the first one can be finished."""
    cost: Mapping[str, float] = field(default_factory=dict)


class LabellingProgress:
    """Shows how a labelling run goes on: a bar in a terminal, else a line every ten seconds.

    Pass it as `hook`. A thread looks at the run all the time, because one chunk of traces may take minutes. The time
    left is told from the characters that are still to come.

    Args:
        now: Tells where the run is.
        sizes: Characters of each trace, in order; None if they are not known.
        console: Where to print; standard error by default.
    """

    def __init__(self, now: Callable[[], Now], sizes: Sequence[int] | None, console: Console | None = None) -> None:
        self._now, self._console = now, console or Console(stderr=True)
        self._done_at = [0, *accumulate(sizes)] if sizes is not None else None
        self._resumed = 0
        self._begin = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._over = Event()
        self._thread = Thread(target=self._watch, name="label-progress", daemon=True)

    def __enter__(self) -> Self:
        self._begin = self._last_line = time.monotonic()
        if self._console.is_terminal:
            columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task("labelling", total=self._done_at[-1] if self._done_at else None)
            self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, chunk: Sequence[LabelledTrace], progress: RunProgress) -> None:
        """Take note of what an earlier run had done."""
        self._resumed = progress.resumed_traces

    def show(self) -> None:
        """Show where the run is."""
        now = self._now()
        if self._bar is not None:
            done = self._characters(now.finished) if self._done_at else None
            self._bar.update(self._bar.task_ids[0], completed=done, description=self.line(now))
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            say(self.line(now))

    def line(self, now: Now) -> str:
        """Return where the run is, in words."""
        cost = f", {said_cost(now.cost)}" if now.cost else ""
        if not now.finished and now.drawn_from:
            return f"drawing negatives: {now.drawn_from:,} traces read{cost}"
        elapsed = max(time.monotonic() - self._begin, 1e-6)
        rate = now.finished / elapsed
        speed = f"{rate:,.1f} traces/s" if rate >= 1 else f"{rate * 60:,.1f} traces/min"
        if self._done_at is None:
            return f"{self._resumed + now.finished:,} traces, {speed}{cost}"
        total = len(self._done_at) - 1
        line = f"{min(self._resumed + now.finished, total):,} of {total:,} traces, {speed}{cost}"
        done = self._characters(now.finished) - self._characters(0)
        left = self._done_at[-1] - self._characters(now.finished)
        return f"{line}, {duration(elapsed * left / done)} left" if done else line

    def _characters(self, finished: int) -> int:
        assert self._done_at is not None
        return self._done_at[min(self._resumed + finished, len(self._done_at) - 1)]

    def _watch(self) -> None:
        while not self._over.wait(TICK_S):
            self.show()
