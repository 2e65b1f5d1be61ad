"""Runs scoring in processes that tests can kill: loads a PRM once, then forks a child for each job it is told of.

Standard input: one job a line, as JSON. Standard output: for each job `ready` and the child's process id once it is
there, then its exit status; what the run returned goes to the job's `result`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.scoring.run import Input, run_scoring

EVENTS = ("fsync", "replace", "unlink")
"""What a run does to the disk, apart from writing into open files; each is a function of `os`."""


def main() -> None:
    prm = load_prm(sys.argv[1])
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(prm, job)
        print("ready", child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _child(prm: Any, job: dict[str, Any]) -> None:
    code = 1
    try:
        _kill_at(job.get("kill_at"))
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.get("file_bytes", most), most))
        engine = Engine(prm, EngineSettings(chunk_traces=job["chunk_traces"]))
        try:
            progress = run_scoring(engine, Input(job["source"]), Path(job["output"]), resume=job.get("resume", True))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            result = {
                "traces": progress.traces,
                "resumed": progress.resumed_traces,
                "rejects": progress.rejects,
                "counts": progress.counts,
                "peak_mib": peak / 1024,
            }
        except Exception as error:
            result = {"error": type(error).__name__, "message": str(error)}
        result["events"] = _events
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        with open(job["result"], "w") as file:
            json.dump(result, file)
        code = 0
    finally:
        os._exit(code)


_events = 0


def _kill_at(number: int | None) -> None:
    """Have this process killed when it is about to do something to the disk for the `number`-th time."""

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            global _events
            if _events == number:
                os.kill(os.getpid(), signal.SIGKILL)
            _events += 1
            return function(*arguments, **options)

        return call

    for name in EVENTS:
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    main()
