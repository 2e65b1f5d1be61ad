"""Candidates that `evaluate` samples: asked for once, and kept beside the report so that they can be scored again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.cli.console import LINE_EVERY_S, say
from reasonflux_prm.cli.policies import Policies, PolicyConfig, said_cost
from reasonflux_prm.errors import InputError, PolicyStopped
from reasonflux_prm.evaluation.tasks.base import Problem, Task
from reasonflux_prm.evaluation.tasks.sampling import SampleTally, SamplingSettings, write_candidates
from reasonflux_prm.scoring.run import finished_run
from reasonflux_prm.traces.manifest import Manifest, write_manifest
from reasonflux_prm.traces.write import json_line

KIND: Final = "candidates"
"""Of a file of sampled candidates, in its manifest."""


class Lines:
    """Prints where something is, every ten seconds at most.

    Args:
        form: The line, with places for the numbers.
    """

    def __init__(self, form: str) -> None:
        self._form, self._last = form, time.monotonic()

    def __call__(self, *numbers: float) -> None:
        """Take note of where it is."""
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            say(self._form.format(*numbers))


def sample(
    task: Task,
    problems: Sequence[Problem],
    spec: str,
    settings: SamplingSettings,
    config: PolicyConfig,
    output: Path,
    *,
    fresh: bool = False,
) -> dict[str, Any]:
    """Sample candidates into a file, unless a complete run of the same settings has done so.

    Returns:
        What came of it, as JSON values: a tally, and what it cost.

    Raises:
        ResumeError: The output is another run's, and it is not asked to be replaced.
        PolicyStopped: No request will succeed from here on; what was answered is in the cache.
        InputError: No sample came.
    """
    with Policies(config) as policies:
        policy = policies.open(spec)
        asked = {"policy": dict(policy.identity()), "sampling": asdict(settings), "problems": _digest(task, problems)}
        done = None if fresh else finished_run(output, KIND, asked)
        if done and not done.counts.get("missing"):
            say(f"{output} was complete: nothing was left to sample")
            return dict(done.details)
        lines = Lines(f"{{:,}} of {len(problems):,} problems sampled")
        try:
            tally = write_candidates(task, problems, policy, settings, output, lambda own: lines(own.problems))
        except (KeyboardInterrupt, PolicyStopped):
            say("what has been answered is in the cache; the same command goes on from there")
            raise
        cost = policies.cost()
    details = {"samples": tally.row(), "cost": cost}
    by_status = {"sampled": tally.came, "missing": tally.asked - tally.came}
    write_manifest(Manifest(KIND, {name: n for name, n in by_status.items() if n}, asked, details=details), output)
    say(f"{output}: {tally}; {said_cost(cost)}")
    if not tally.came:
        raise InputError(f"expected samples from {spec}, got none: {_first_reason(tally)}")
    return details


def _first_reason(tally: SampleTally) -> str:
    return next(iter(dict(tally.reasons.most_common(1))), "no reason was given")


def _digest(task: Task, problems: Sequence[Problem]) -> str:
    """Return a short hash of what is asked."""
    state = hashlib.sha256()
    for problem in problems:
        state.update(
            json_line({"id": problem.id, "ask": task.ask(problem) if task.ask else "", "answer": problem.answer})
        )
    return state.hexdigest()[:16]
