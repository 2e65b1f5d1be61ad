"""The runs, and how processes share them: each takes the first that is neither done nor taken.

A run is taken by a lock on a file of its folder, which the system frees when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonflux_prm.evaluation.tasks.base import Problem, Task
from reasonflux_prm.policy.memory import free_memory
from recipes.grpo.measure import measure, measured
from recipes.grpo.sizes import Size
from recipes.grpo.table import Run

BEFORE = "before"
_BATCH_TOKENS = 100_000
"""Of the policy on a GPU: 3 GB of keys and values with the small student, so that several processes have room."""


@dataclass(frozen=True, slots=True)
class Job:
    """One policy to train, or the student before, and to test."""

    reward: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.reward}-{self.seed}"


def all_jobs(rewards: Sequence[str], seeds: int) -> list[Job]:
    """Return all jobs; by seed, so that what is done when time is out compares all rewards."""
    return [Job(BEFORE, 0), *(Job(reward, seed) for seed in range(seeds) for reward in rewards)]


def done(job: Job, output: Path, tasks: Sequence[str]) -> Run | None:
    """Return a job's results; None if it is not done."""
    folder = output / job.name
    tested = {task: measured(folder, task) for task in tasks}
    found = {task: graded for task, graded in tested.items() if graded is not None}
    if len(found) < len(tested):
        return None
    # `train.LOG`, without the imports of training.
    log = [] if job.reward == BEFORE else json.loads((folder / "run.json").read_text("utf-8"))
    return Run(job.reward, job.seed, log, found)


@contextmanager
def taken(folder: Path) -> Iterator[bool]:
    """Take a folder for as long, and tell whether nobody else has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class Worker:
    """Does jobs, with one PRM and one policy for all of them.

    Args:
        student: Folder of the policy to begin with.
        problems: To train on.
        tests: By name, each with its problems.
        size: How much.
        prm: Name, hub id, folder or address.
        output: Folder of all runs.
        keep: Keep the weights of policies that were tested.
    """

    def __init__(
        self,
        student: Path,
        problems: Sequence[Problem],
        tests: Mapping[str, tuple[Task, Sequence[Problem]]],
        size: Size,
        prm: str,
        output: Path,
        keep: bool,
    ) -> None:
        import torch

        from reasonflux_prm.policy.local import LocalPolicy

        self._student, self._problems, self._tests, self._size = student, problems, tests, size
        self._output, self._keep = output, keep
        self._prm = _opened(prm, size.rule)
        bound = _BATCH_TOKENS if torch.cuda.is_available() else None
        self._policy = LocalPolicy(str(student), batch_tokens=bound, prefix_bytes=0)

    def run(self, jobs: Sequence[Job], stop_at: float | None) -> list[str]:
        """Do what is neither done nor taken; return the names of jobs that failed.

        Args:
            jobs: First what is to be done first.
            stop_at: By `time.time`: after it nothing is begun.
        """
        failed = []
        for job in jobs:
            if stop_at is not None and time.time() >= stop_at:
                break
            with taken(self._output / job.name) as mine:
                if not mine or done(job, self._output, list(self._tests)) is not None:
                    continue
                try:
                    self._do(job)
                except Exception:  # the others may do better
                    traceback.print_exc()
                    failed.append(job.name)
        self._policy.close()
        return failed

    def _do(self, job: Job) -> None:
        from transformers import AutoModelForCausalLM

        from recipes.grpo.train import WEIGHTS, train

        folder, start = self._output / job.name, time.monotonic()
        if job.reward != BEFORE:
            train(self._student, self._problems, folder, job.reward, job.seed, self._size, self._prm, self._policy)
            _free()
        trained = time.monotonic()
        source = self._student if job.reward == BEFORE else folder
        self._policy.take_weights(AutoModelForCausalLM.from_pretrained(source, dtype="float32").state_dict())
        for task, problems in self._tests.values():
            measure(self._policy, folder, task, problems, self._size, job.seed)
        if not self._keep:
            (folder / WEIGHTS).unlink(missing_ok=True)
        print(f"{job.name}: trained {trained - start:.1f} s, tested {time.monotonic() - trained:.1f} s", flush=True)


def _opened(prm: str, rule: str) -> Any:
    """Return a PRM that cuts traces by a rule, as a trainer takes it."""
    if prm.startswith(("http://", "https://")):
        if rule != "adaptive":
            raise SystemExit(f"this size cuts steps by {rule}, which a trainer does not ask of {prm}; give a folder")
        return prm
    from reasonflux_prm.prm.load import load_prm
    from reasonflux_prm.scoring.engine import Engine, EngineSettings

    return Engine(load_prm(prm), EngineSettings(steps=rule))


def _free() -> None:
    import torch

    if torch.cuda.is_available():
        print(f"at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of GPU memory", flush=True)
    free_memory()
