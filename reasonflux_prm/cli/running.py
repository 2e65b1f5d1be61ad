"""A scoring run as the commands see it: files in and out, progress shown, and its outcome in one line."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from reasonflux_prm.cli.console import ScoringProgress, say
from reasonflux_prm.records import Status
from reasonflux_prm.scoring.run import Input, Progress, Scorer, run_scoring
from reasonflux_prm.traces.sources import REJECTS_SUFFIX
from reasonflux_prm.traces.write import side_path

COUNTED_BYTES = 1 << 28
"""Larger inputs are not read beforehand to tell the time left."""


def trace_sizes(source: Input) -> Sequence[int] | None:
    """Return the characters of every trace of a source; None if it is too large, or is not on this disk.

    Raises:
        InputError: The source cannot be read.
    """
    files = source.files()
    if not files:
        # Nothing to count, but a name that leads nowhere is noticed now.
        source.read(None)
    if not files or sum(file.stat().st_size for file in files) > COUNTED_BYTES:
        return None
    traces = source.read(lambda _: None)
    return array("Q", (len(trace.problem) + len(trace.thinking) + len(trace.response) for trace in traces))


def score_file(
    scorer: Scorer, source: Input, output: Path, *, fresh: bool = False, sizes: Sequence[int] | None = None
) -> Progress:
    """Score a file into a file and show how it goes on; see `scoring.run.run_scoring`."""
    try:
        with ScoringProgress(sizes) as shown:
            progress = run_scoring(scorer, source, output, resume=not fresh, hook=shown)
    except KeyboardInterrupt:
        say(f"{output}: what is scored so far is kept; the same command goes on from there")
        raise
    if progress.resumed_traces == progress.traces > 0:
        say(f"{output} was complete: nothing was left to score")
    elif progress.resumed_traces:
        say(f"{progress.resumed_traces:,} of {progress.traces:,} traces had been scored before the interruption")
    return progress


def counts(progress: Progress, output: Path | None = None) -> str:
    """Return the number of traces by status and of refused records, scored ones first.

    Args:
        progress: What came of the run.
        output: Its output, beside which the refused records are.
    """
    scored = Status.SCORED.value
    others = {status: number for status, number in sorted(progress.counts.items()) if number and status != scored}
    parts = [f"{number:,} {status}" for status, number in {scored: progress.counts[scored], **others}.items()]
    if progress.rejects:
        where = f" (see {side_path(output, REJECTS_SUFFIX)})" if output else ""
        parts.append(f"{progress.rejects:,} refused{where}")
    return ", ".join(parts)
