"""Runs labelling in processes that tests can kill: imports once, then forks a child for each job it is told of.

Standard input: one job a line, as JSON. Standard output: for each job `ready` and the child's process id once it is
there, then its exit status; what the run returned goes to the job's `result`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from label_parts import LengthJudge, LetterEncoder, labeller

EVENTS = ("fsync", "replace", "unlink")
"""What a run does to the disk, apart from writing into open files; each is a function of `os`."""


def main() -> None:
    import pyarrow.parquet  # noqa: F401

    from reasonflux_prm.labels.judges.llm import LLMJudge  # noqa: F401
    from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(job)
        print("ready", child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _child(job: dict[str, Any]) -> None:
    from reasonflux_prm.labels.run import run_labelling
    from reasonflux_prm.traces.resumable import Input

    code = 1
    try:
        _kill_at(job.get("kill_at"))
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.get("file_bytes", most), most))
        source, output = Input(job["source"]), Path(job["output"])
        try:
            made = _served(job) if "url" in job else _local(job, source, output)
            progress = run_labelling(made, source, output, resume=job.get("resume", True))
            result = {
                "traces": progress.traces,
                "resumed": progress.resumed_traces,
                "rejects": progress.rejects,
                "counts": progress.counts,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
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


def _local(job: dict[str, Any], source: Any, output: Path) -> Any:
    from reasonflux_prm.labels.first_pass import InputEmbedding, Negatives

    kept = output.with_name(f".{output.name}.negatives")
    negatives = Negatives(each=4, pool=64)
    embedding = InputEmbedding(LetterEncoder(), source, steps="blank-line", negatives=negatives, kept=kept)
    settings = {"chunk_traces": job.get("chunk_traces", 2), "concurrency": 4}
    return labeller(LengthJudge(job.get("wait_s", 0.0)), embedding=embedding, **settings)


def _served(job: dict[str, Any]) -> Any:
    from reasonflux_prm.labels.judges.llm import LLMJudge
    from reasonflux_prm.policy.cache import CachedPolicy
    from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy

    policy = OpenAICompatiblePolicy("judge", job["url"], concurrency=job["concurrency"], timeout_s=2.0, retries=8)
    judge = LLMJudge(CachedPolicy(policy, Path(job["cache"])))
    return labeller(judge, chunk_traces=4, concurrency=job["concurrency"])


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


class Host:
    """Talks to this file's process."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}"}
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, source: Path, output: Path, *, kill_after: float | None = None, **job: Any) -> dict[str, Any] | None:
        """Run to the end and return the result, or None if it was killed (after some seconds)."""
        output.parent.mkdir(exist_ok=True)
        result = output.parent.with_name(output.parent.name + ".result")
        result.unlink(missing_ok=True)
        line = {"source": str(source), "output": str(output), "result": str(result), **job}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        word, child = self.process.stdout.readline().split()
        assert word == "ready"
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it was done before
                os.kill(int(child), signal.SIGKILL)
        status = int(self.process.stdout.readline())
        assert status in (0, -signal.SIGKILL)
        return json.loads(result.read_text()) if status == 0 else None

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__":
    main()
