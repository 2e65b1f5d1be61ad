"""What the user sees while something runs: messages and progress, on standard error."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from reasonflux_prm.records import Reject, ScoredTrace
from reasonflux_prm.scoring.run import Progress as RunProgress
from reasonflux_prm.viewer.terminal import visible

LINE_EVERY_S = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def say(message: str) -> None:
    """Print a message; what could steer a terminal is written out."""
    print(visible(message), file=sys.stderr, flush=True)


def say_reject(reject: Reject) -> None:
    """Print a refused record, where there is no file beside the output to put it in."""
    say(f"refused {reject.file}:{reject.line}: {reject.reason}")


def next_command(command: str, *arguments: str | Path) -> str:
    """Return the sentence that says what to run next."""
    return "Next: " + shlex.join(["reasonflux-prm", command, *map(str, arguments)])


class ScoringProgress:
    """Shows how a scoring run goes on: a bar in a terminal, else a line every ten seconds.

    Pass it as `hook`. The time left is told from the characters that are still to come, because traces differ in
    length by orders of magnitude.

    Args:
        sizes: Characters of each trace, in order; None if they are not known.
        console: Where to print; standard error by default.
    """

    def __init__(self, sizes: Sequence[int] | None, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._done_at = [0, *accumulate(sizes)] if sizes is not None else None
        self._begin = self._last_line = time.monotonic()
        self._tokens: int | None = None
        self._first = 0
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        self._begin = self._last_line = time.monotonic()
        if self._console.is_terminal:
            columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task("scoring", total=self._done_at[-1] if self._done_at else None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, chunk: Sequence[ScoredTrace], progress: RunProgress) -> None:
        """Take note of a chunk."""
        if self._tokens is None:
            self._tokens = progress.tokens - sum(scored.tokens for scored in chunk)
            self._first = progress.resumed_traces
        line = self._line(progress)
        if self._bar is not None:
            done = self._done_at[progress.traces] if self._done_at else None
            self._bar.update(self._bar.task_ids[0], completed=done, description=line)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            say(line)

    def _line(self, progress: RunProgress) -> str:
        elapsed = max(time.monotonic() - self._begin, 1e-6)
        rate = (progress.tokens - (self._tokens or 0)) / elapsed
        if self._done_at is None:
            return f"{progress.traces:,} traces, {rate:,.0f} tokens/s"
        line = f"{progress.traces:,} of {len(self._done_at) - 1:,} traces, {rate:,.0f} tokens/s"
        done = self._done_at[progress.traces] - self._done_at[self._first]
        left = self._done_at[-1] - self._done_at[progress.traces]
        return f"{line}, {duration(elapsed * left / done)} left" if done else line


def duration(seconds: float) -> str:
    """Return a time in words, with two units at most."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
