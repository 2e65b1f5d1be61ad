"""Score a file of traces into a file of scored traces, in constant memory, surviving a kill at any moment.

How a run is interrupted and goes on is told in `traces.resumable`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from reasonflux_prm.records import PRMIdentity, Reject, ScoredTrace, Status, Trace
from reasonflux_prm.traces import resumable
from reasonflux_prm.traces.resumable import PIPE, Input, finished_run
from reasonflux_prm.traces.write import scored_row

__all__ = [
    "KIND",
    "PIPE",
    "Hook",
    "Input",
    "Progress",
    "Scorer",
    "finished_run",
    "run_scoring",
    "scoring_settings",
    "stream_scoring",
]

KIND = "scored"


class Scorer(Protocol):
    """What turns traces into scored traces: `engine.Engine`, or `generative_run.GenerativeScorer`."""

    @property
    def identity(self) -> PRMIdentity:
        """The PRM, as the records name it."""

    def score_chunks(self, traces: Iterable[Trace]) -> Iterator[list[ScoredTrace]]:
        """Score traces chunk by chunk, in order; a chunk depends on nothing that stands before it."""

    def settings_for_manifest(self) -> dict[str, Any]:
        """Return what else the records depend on, as JSON values."""


@dataclass
class Progress(resumable.Progress[ScoredTrace]):
    """How far a scoring run is."""

    tokens: int = 0

    def add(self, chunk: Sequence[ScoredTrace], seconds: float) -> None:
        """Count one chunk."""
        super().add(chunk, seconds)
        self.tokens += sum(scored.tokens for scored in chunk)

    def timings(self) -> dict[str, float]:
        """Return the seconds by stage, for the manifest."""
        return {"scoring": round(self.seconds, 3)}

    @property
    def unscored(self) -> int:
        """Return the number of traces without a reward."""
        return self.traces - self.counts[Status.SCORED.value]


Hook = Callable[[list[ScoredTrace], Progress], None]
"""Called after each chunk, once it is on the disk."""


def run_scoring(
    scorer: Scorer, source: Input, output: Path, *, resume: bool = True, hook: Hook | None = None
) -> Progress:
    """Score `source` into `output` and write its manifest and, where input was refused, its rejects file.

    Args:
        scorer: PRM and settings.
        source: What to read. A pipe cannot be read twice, so a run from one always starts over.
        output: A `.jsonl` file, or `.jsonl.gz`.
        resume: Go on where an interrupted run of the same settings and input stopped, and do nothing if such a run is
            complete. False starts over and replaces what is there.
        hook: Told of each chunk.

    Returns:
        The final counts.

    Raises:
        ResumeError: `output` belongs to a run with other settings or input, or another process is writing it.
        InputError: The source is missing or holds no record.
        OutputError: The output cannot be written.
    """
    return resumable.run(_job(scorer, source, scoring_settings(scorer, source)), output, resume=resume, hook=hook)


def stream_scoring(
    scorer: Scorer, source: Input, rejects: Callable[[Reject], None] | None = None, hook: Hook | None = None
) -> Progress:
    """Score `source` to standard output; a pipe cannot be resumed, so nothing is kept.

    Raises:
        InputError: The source is missing or holds no record; or, without `rejects`, a record is bad.
        BrokenPipeError: Nobody reads on.
    """
    return resumable.stream(_job(scorer, source, {}), rejects, hook)


def scoring_settings(scorer: Scorer, source: Input) -> dict[str, Any]:
    """Return everything that the bytes of the output depend on, as JSON values."""
    settings = {
        "prm": asdict(scorer.identity),
        "engine": scorer.settings_for_manifest(),
        "input": source.fingerprint(),
    }
    return dict(json.loads(json.dumps(settings)))


def _job(scorer: Scorer, source: Input, settings: dict[str, Any]) -> resumable.Job[ScoredTrace, Progress]:
    kind = resumable.Kind(KIND, Progress, scored_row)
    return resumable.Job(kind, source, settings, scorer.score_chunks)
