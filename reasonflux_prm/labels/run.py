"""Label a file of traces into a file of labels, in constant memory, surviving a kill at any moment.

How a run is interrupted and goes on is told in `traces.resumable`. What policies have answered is in the cache of
completions before it is used, so a run that goes on asks for nothing twice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.labels.combine import out_of_range
from reasonflux_prm.labels.files import KIND, labelled_row
from reasonflux_prm.labels.pipeline import Labeller
from reasonflux_prm.labels.tables import TABLE_SUFFIX, write_table
from reasonflux_prm.records import LabelledTrace, LabelStatus, Reject
from reasonflux_prm.traces import resumable
from reasonflux_prm.traces.resumable import Input

MOST_REASONS: Final = 200
"""Different reasons that a run tells apart; the rest is counted together."""
_REASON_CHARS = 160
_NUMBER = re.compile(r"\d[\d.,]*")

Cost = Mapping[str, float]
"""What policies have taken, by name: requests, tokens, money, completions from the cache."""


@dataclass
class Progress(resumable.Progress[LabelledTrace]):
    """How far a labelling run is."""

    steps: int = 0
    targets: int = 0
    """Steps with a target."""
    trajectory_targets: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    """Terms without a value, by `name: reason`, numbers in it written as #."""
    strays: Counter[str] = field(default_factory=Counter)
    """Targets outside [0, 1] and raw values outside their term's range; see `combine.out_of_range`."""
    cost: dict[str, float] = field(default_factory=dict)
    """As `Cost`, over all runs that made this output."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds during which each stage had work."""

    def add(self, chunk: Sequence[LabelledTrace], seconds: float) -> None:
        """Count one chunk."""
        super().add(chunk, seconds)
        for labelled in chunk:
            self.steps += len(labelled.steps)
            self.targets += sum(target is not None for target in labelled.targets)
            self.trajectory_targets += labelled.trajectory_target is not None
            self.strays += out_of_range(labelled)
            for terms in (*labelled.step_terms, labelled.trajectory_terms):
                for name, term in terms.items():
                    if term.value is None:
                        self._miss(f"{name}: {_general(term.reason)}")

    def timings(self) -> dict[str, float]:
        """Return the seconds by stage, for the manifest; stages run beside one another."""
        return {"total": round(self.seconds, 3), **{name: round(value, 3) for name, value in self.stages.items()}}

    def details(self) -> dict[str, Any]:
        """Return what the manifest says besides: how many targets there are, why others are not, and the cost."""
        missing: dict[str, dict[str, int]] = {}
        for key, number in sorted(self.missing.items(), key=lambda item: -item[1]):
            name, _, reason = key.partition(": ")
            missing.setdefault(name, {})[reason] = number
        return {
            "steps": self.steps,
            "targets": self.targets,
            "trajectory_targets": self.trajectory_targets,
            "missing": missing,
            "out_of_range": dict(self.strays),
            "cost": dict(self.cost),
        }

    @property
    def unlabelled(self) -> int:
        """Return the number of traces without any target."""
        return self.traces - self.counts[LabelStatus.LABELLED.value]

    def _miss(self, key: str) -> None:
        if key not in self.missing and len(self.missing) >= MOST_REASONS:
            key = f"{key.partition(': ')[0]}: another reason"
        self.missing[key] += 1


Hook = Callable[[list[LabelledTrace], Progress], None]
"""Called after each chunk, once it is on the disk."""


def run_labelling(
    labeller: Labeller,
    source: Input,
    output: Path,
    *,
    resume: bool = True,
    hook: Hook | None = None,
    cost: Callable[[], Cost] = dict,
) -> Progress:
    """Label `source` into `output` and write its manifest and, where input was refused, its rejects file.

    Args:
        labeller: What to label with; it is used for one run.
        source: What to read. A pipe cannot be read twice, so a run from one always starts over.
        output: A `.jsonl` file, `.jsonl.gz`, or `.parquet`, which is written from JSON lines once all is done.
        resume: Go on where an interrupted run of the same settings and input stopped, and do nothing if such a run is
            complete. False starts over and replaces what is there.
        hook: Told of each chunk.
        cost: Tells what the labeller's policies have taken so far in this process.

    Returns:
        The final counts.

    Raises:
        PolicyStopped: No request will succeed from here on. What is labelled is kept, and so is what was answered.
        ResumeError: `output` belongs to a run with other settings or input, or another process is writing it.
        InputError: The source is missing or holds no record.
        OutputError: The output cannot be written.
    """
    return resumable.run(_job(labeller, source, output, cost), output, resume=resume, hook=hook)


def stream_labelling(
    labeller: Labeller,
    source: Input,
    rejects: Callable[[Reject], None] | None = None,
    hook: Hook | None = None,
    cost: Callable[[], Cost] = dict,
) -> Progress:
    """Label `source` to standard output; a pipe cannot be resumed, so nothing is kept but what policies answered.

    Raises:
        PolicyStopped: No request will succeed from here on.
        InputError: The source is missing or holds no record; or, without `rejects`, a record is bad.
        BrokenPipeError: Nobody reads on.
    """
    return resumable.stream(_job(labeller, source, None, cost), rejects, hook)


def labelling_settings(labeller: Labeller, source: Input) -> dict[str, Any]:
    """Return everything that the bytes of the output depend on, as JSON values."""
    return dict(json.loads(json.dumps({"labels": labeller.identity(), "input": source.fingerprint()})))


def _job(
    labeller: Labeller, source: Input, output: Path | None, cost: Callable[[], Cost]
) -> resumable.Job[LabelledTrace, Progress]:
    place = write_table if output is not None and output.suffix == TABLE_SUFFIX else None
    kind = resumable.Kind(KIND, Progress, labelled_row, place)
    settings = labelling_settings(labeller, source) if output is not None else {}
    return resumable.Job(kind, source, settings, labeller.label_chunks, _Ledger(labeller, cost).note)


class _Ledger:
    """Adds what this process has taken to what earlier, interrupted runs had taken."""

    def __init__(self, labeller: Labeller, cost: Callable[[], Cost]) -> None:
        self._labeller, self._cost = labeller, cost
        self._before: tuple[Cost, Cost] | None = None

    def note(self, progress: Progress) -> bool:
        """Bring the sums into a progress, and return whether anything was paid for."""
        if self._before is None:
            self._before = dict(progress.cost), dict(progress.stages)
        cost = self._cost()
        progress.cost = _sum(self._before[0], cost)
        progress.stages = _sum(self._before[1], self._labeller.stages.seconds)
        return cost.get("requests", 0) > cost.get("failed", 0)


def _sum(one: Cost, other: Cost) -> dict[str, float]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _general(reason: str | None) -> str:
    """Return a reason without its numbers, so that those of many traces can be counted together."""
    return _NUMBER.sub("#", " ".join((reason or "no reason given").split()))[:_REASON_CHARS]
