"""Which students there are, in which order, and how several processes share them.

The order is by seed, so that a run which is cut off compares all methods with as many seeds; within a seed the methods
at the table's K come first, then everything, then the other K of the curve.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from recipes.select_sft.sizes import CURVE, METHODS, Size
from recipes.select_sft.work import Job, learn


def all_jobs(size: Size) -> Iterator[Job]:
    """Yield every job of a size, in order."""
    yield Job("untrained", None, 0)
    for seed in range(size.seeds):
        for method in size.methods:
            yield Job(method, size.kept[0], seed)
        yield Job("all", None, seed)
        for kept in size.kept[1:]:
            for method in size.methods:
                if method in CURVE:
                    yield Job(method, kept, seed)


def selections(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return one job of each selection that is needed; those that the student reads for stand together."""
    different = {job.selection: job for job in jobs if job.method != "untrained"}
    read = [job for job in different.values() if "--student" in METHODS.get(job.method, ())]
    # What takes longest is begun first.
    return ([read] if read else []) + [[job] for job in different.values() if job not in read]


def results(output: Path) -> list[dict[str, Any]]:
    """Return the results that are there."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((output / "results").glob("*.json"))]


def run_jobs(
    jobs: Sequence[Job],
    executor: Executor,
    at_once: int,
    selecting: Mapping[str, Future[None]],
    deadline: float | None,
    work: Callable[[Job], str] = learn,
) -> tuple[list[Job], dict[Job, str]]:
    """Run jobs, each as soon as a process is free and its selection is there, the first of the list first.

    Args:
        jobs: Those that are not done yet.
        executor: The processes.
        at_once: How many there are.
        selecting: By a selection's name, what makes it.
        deadline: By `time.monotonic`; after it no job is begun. None: there is none.
        work: Does one job, and returns what to say of it.

    Returns:
        The jobs that were not begun, and why others failed.
    """
    waiting, running = list(jobs), dict[Future[str], Job]()
    failed: dict[Job, str] = {}
    while waiting or running:
        late = deadline is not None and time.monotonic() >= deadline
        for job in [] if late else list(waiting):
            making = selecting.get(job.selection)
            if making is not None and not making.done():
                continue
            if len(running) >= at_once:
                break
            waiting.remove(job)
            if making is not None and (error := making.exception()) is not None:
                failed[job] = f"no selection: {error}"
            else:
                running[executor.submit(work, job)] = job
        if late and not running:
            break
        awaited = [] if late else [selecting[job.selection] for job in waiting if job.selection in selecting]
        # A selection that comes to be there may be what a free process waits for.
        left = None if deadline is None or late else max(0.0, deadline - time.monotonic())
        busy: list[Future[Any]] = [*running, *(one for one in awaited if not one.done())]
        done, _ = wait(busy, left, FIRST_COMPLETED)
        for future in done & set(running):
            job = running.pop(future)
            try:
                print(future.result(), flush=True)
            except BrokenProcessPool:
                raise
            except Exception as error:  # one student that fails leaves the others alone
                failed[job] = f"{type(error).__name__}: {error}"
                print(f"{job.name} failed: {failed[job]}", flush=True)
    return waiting, failed
