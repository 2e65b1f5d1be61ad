"""What worker processes do: make a selection, train and evaluate a student. Each result is a file of its own.

A worker that trains keeps one policy for all its students, which take over its weights; what the policy has set up on
the GPU (its memory, its captured steps) is made once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from reasonflux_prm.cli.main import main as command
from reasonflux_prm.traces.write import atomic_path, side_path
from recipes.select_sft.sizes import METHODS, Size

_GPU_SHARE = 0.8
"""Of the memory, that all trainings together may take; the rest is for the PRM, and a student that reads the pool."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all jobs of a run have in common."""

    output: Path
    data: Path
    """Folder of the problems."""
    student: Path
    size: Size
    seed: int
    """Of every selection."""
    backend: str
    keep: bool
    """Keep the students' weights."""
    parallel: int


@dataclass(frozen=True, slots=True)
class Job:
    """One student."""

    method: str
    """A key of `METHODS`, or `all` or `untrained`."""
    kept: int | None
    """K; None where there is none."""
    seed: int
    """Of the training."""

    @property
    def selection(self) -> str:
        """The name of what it is trained on."""
        return f"{self.method}-{self.kept or 'x'}".replace(" ", "-").replace(",", "")

    @property
    def name(self) -> str:
        """The name of its result."""
        return f"{self.selection}-{self.seed}"


def command_or_stop(*arguments: str) -> None:
    """Run a command as a user would; exit code 1 says that some records were set aside, which it has counted."""
    if (code := command(arguments)) not in (0, 1):
        raise RuntimeError(f"reasonflux-prm {' '.join(arguments)} ended with {code}")


def end_with_parent() -> None:
    """Have this process end when the one that started it is gone, as after a kill."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def select(setup: Setup, jobs: list[Job]) -> None:
    """Make the selections of some jobs, one after the other; the student reads each trace once for all of them."""
    import torch

    # The student reads in float32; with full products that takes several times as long on a GPU.
    torch.set_float32_matmul_precision("high")
    readings: Path | None = None
    for job in jobs:
        data = selection_file(setup, job)
        flags = [flag.format(student=setup.student) for flag in METHODS.get(job.method, ("--by", "random"))]
        own = side_path(data, ".student.sqlite")
        if "--student" in flags:
            if readings is not None and not own.exists():
                own.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(readings, own)
            readings = own
        command_or_stop(
            *("select", str(setup.output / "scored.jsonl"), "-o", str(data), "--format", "prompt-completion"),
            *("--template", "think", "--seed", str(setup.seed)),
            *flags,
            *(("--top", str(job.kept)) if job.kept else ()),
        )


def selection_file(setup: Setup, job: Job) -> Path:
    """Return where a selection is."""
    return setup.output / "selected" / f"{job.selection}.jsonl"


class Worker:
    """One process's share of the trainings."""

    def __init__(self, setup: Setup) -> None:
        import torch

        from recipes.select_sft.evaluate import load_tests

        self._setup = setup
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // setup.parallel))
        if torch.cuda.is_available() and setup.backend == "local":
            torch.cuda.set_per_process_memory_fraction(_GPU_SHARE / setup.parallel)
        self._problems = load_tests(setup.data, setup.size)
        self._policy = self._open_local() if setup.backend == "local" else None

    def _open_local(self) -> Any:
        from reasonflux_prm.policy.local import LocalPolicy

        rows = self._setup.size.sequences
        # No prompt comes twice to the same weights.
        return LocalPolicy(str(self._setup.student), batch_sequences=rows, prefix_bytes=0)

    def run(self, job: Job) -> str:
        """Train and evaluate one student, write its result, and return what to say of it."""
        from recipes.select_sft.train import train

        setup, began = self._setup, time.monotonic()
        trained: dict[str, Any] | None = None
        folder = setup.student
        if job.method == "untrained":
            self._take(None)
        else:
            model, trained = train(selection_file(setup, job), setup.student, setup.size, job.seed)
            if setup.keep or self._policy is None:
                folder = self._save(model, job)
            self._take(model)
            del model
            _free()
        between = time.monotonic()
        right = self._evaluate(folder)
        seconds = {"training": round(between - began, 1), "evaluation": round(time.monotonic() - between, 1)}
        row = {"method": job.method, "kept": job.kept, "seed": job.seed, "trained": trained, "right": right}
        with atomic_path(result_file(setup.output, job)) as part:
            part.write_text(json.dumps({**row, "seconds": seconds}) + "\n", encoding="utf-8")
        said = ", ".join(f"{task} {sum(found['right'])}/{len(found['right'])}" for task, found in right.items())
        return f"{job.name}: {said}; {seconds['training']} s of training, {seconds['evaluation']} s of evaluation"

    def _save(self, model: Any, job: Job) -> Path:
        from transformers import AutoTokenizer

        folder = self._setup.output / "students" / job.name
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(self._setup.student).save_pretrained(folder)
        return folder

    def _take(self, model: Any) -> None:
        """Have the policy write with a model's weights; None: with the untrained student's."""
        if self._policy is not None:
            from transformers import AutoModelForCausalLM

            model = model if model is not None else AutoModelForCausalLM.from_pretrained(self._setup.student)
            self._policy.take_weights(model.state_dict())

    def _evaluate(self, folder: Path) -> dict[str, Any]:
        from reasonflux_prm.policy.open import open_policy
        from recipes.select_sft.evaluate import evaluate

        setup = self._setup
        if self._policy is not None:
            return evaluate(self._policy, self._problems, setup.size)
        # A policy that takes no weights is opened for each student.
        policy = open_policy(f"{setup.backend}:{folder}")
        try:
            return evaluate(policy, self._problems, setup.size)
        finally:
            policy.close()
            if folder != setup.student and not setup.keep:
                shutil.rmtree(folder)


def result_file(output: Path, job: Job) -> Path:
    """Return where a student's result is."""
    return output / "results" / f"{job.name}.json"


def _free() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_worker: Worker | None = None


def begin(setup: Setup) -> None:
    """Set a process up for `learn`: what takes time to import and to load is there before the first job."""
    global _worker
    end_with_parent()
    _worker = Worker(setup)
    # Loaded here, while the pool is still being made.
    import datasets  # noqa: F401
    from trl import SFTConfig, SFTTrainer  # noqa: F401


def ready() -> None:
    """Do nothing: it has a process started."""


def learn(job: Job) -> str:
    """Run one job in a process that has begun."""
    assert _worker is not None
    return _worker.run(job)
