"""What labelling costs besides its parts: requests kept under way, memory, recombination.

- requests: a judge behind a server of fixed latency on this machine. The ideal rate is concurrency / latency; what is
  reported is the share of it that a whole run reaches, its start and its end included.
- memory: the peak of a run over 1,000 to 100,000 synthetic traces, each in a process of its own, with the encoder
  replaced by letter counts.
- recombine: a label file, repeated to 100,000 rows, with the targets of another formula, reading and writing included.

    python -m benchmarks.label_pipeline --labels LABELS.jsonl -o label_pipeline.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.labels.encoder import Encoded
from reasonflux_prm.labels.first_pass import InputEmbedding, Negatives
from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.labels.judges.llm import LLMJudge
from reasonflux_prm.labels.judges.recorded import RecordedJudge
from reasonflux_prm.labels.pipeline import Labeller, LabelSettings
from reasonflux_prm.labels.recombine import recombine
from reasonflux_prm.labels.run import run_labelling
from reasonflux_prm.labels.trajectory.outcome import OutcomeRater
from reasonflux_prm.policy.budget import BudgetedPolicy
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy
from reasonflux_prm.traces.resumable import Input

COUNTS = (1_000, 10_000, 100_000)
WORDS = [f"{number:x}" for number in range(4096)]


def write_traces(path: Path, count: int, steps: int) -> Path:
    """Write synthetic traces of `steps` thinking steps of some forty words, and a response."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            thinking = "\n\n".join(" ".join(rng.choices(WORDS, k=40)) for _ in range(steps))
            row = {"id": f"t{number}", "problem": f"Problem {number}?", "thinking": thinking}
            file.write(json.dumps({**row, "response": f"\\boxed{{{number}}}", "answer": str(number)}) + "\n")
    return path


# --- requests --------------------------------------------------------------------------------------------------------


class Server:
    """An OpenAI-compatible judge that answers every request after the same time, in a process of its own."""

    def __init__(self, latency_s: float) -> None:
        spawn = get_context("spawn")
        ours, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(latency_s, theirs), daemon=True)
        self._process.start()
        self._pipe = ours
        self.url = str(ours.recv())

    def stop(self) -> int:
        """Stop, and return how many requests there were."""
        self._pipe.send(None)
        number = int(self._pipe.recv())
        self._process.join()
        return number


def serve(latency_s: float, pipe: Any) -> None:
    """Answer until something comes through the pipe, and send back how many requests there were."""
    asyncio.run(_Judge(latency_s).answer(pipe))


class _Judge:
    """Answers cost it little, as it stands for another machine and has the client's cores."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s, self.requests = latency_s, 0

    async def answer(self, pipe: Any) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        pipe.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        await loop.run_in_executor(None, pipe.recv)
        pipe.send(self.requests)


class _Connection(asyncio.Protocol):
    """Reads one request after another."""

    def __init__(self, judge: _Judge) -> None:
        self._judge, self._got = judge, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._got += data
        start = self._got.find(b"\r\n\r\n") + 4
        if start < 4 or not (length := _LENGTH.search(self._got, 0, start)):
            return
        if len(self._got) >= start + int(length[1]):
            answer = _answer(*_STEP.findall(self._got, start))
            self._got.clear()
            self._judge.requests += 1
            asyncio.get_running_loop().call_later(self._judge.latency_s, self._transport.write, answer)


_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_STEP = re.compile(rb'\\n\{\\"step\\": (\d+)')
"""A line of the question, as it stands in the request's JSON."""


@cache
def _answer(*steps: bytes) -> bytes:
    """Return what scores these steps, the header included."""
    ones = {"correctness": 1, "coherence": 1, "progress": 1, "overall": 1}
    content = json.dumps({"scores": [{"step": int(step), **ones} for step in steps]})
    choices = [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]
    answer = json.dumps({"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 9}}).encode()
    lines = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
    return lines.encode() + answer


def requests(folder: Path, latency_s: float, concurrency: int, rounds: int) -> dict[str, Any]:
    """Return how much of the ideal rate a run with a served judge reaches."""
    count = concurrency * rounds
    source = Input(str(write_traces(folder / f"requests-{concurrency}.jsonl", count, 8)))
    server = Server(latency_s)
    served = OpenAICompatiblePolicy("judge", server.url, concurrency=concurrency, api_key="none")
    policy = CachedPolicy(BudgetedPolicy(served), folder / f"completions-{concurrency}.sqlite")
    settings = LabelSettings(steps="blank-line", concurrency=concurrency)
    labeller = Labeller(Formula.parse("bounded mean(quality)"), judge=LLMJudge(policy), settings=settings)
    started = time.perf_counter()
    progress = run_labelling(labeller, source, folder / f"labels-{concurrency}.jsonl")
    seconds = time.perf_counter() - started
    policy.close()
    assert progress.counts == {"labelled": count}
    assert server.stop() == count
    return {
        "latency_s": latency_s,
        "concurrency": concurrency,
        "requests": count,
        "seconds": seconds,
        "share_of_ideal": rounds * latency_s / seconds,
    }


# --- memory ----------------------------------------------------------------------------------------------------------


class LetterEncoder:
    """Stands for an encoder: counts letters."""

    def identity(self) -> Mapping[str, Any]:
        """Return the name."""
        return {"name": "letters"}

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return unit rows of letter counts."""
        rows = np.ones((len(texts), 32), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row += np.bincount(np.frombuffer(text.encode(), np.uint8) % 32, minlength=32)
        return Encoded(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.ones(len(texts), np.int64))


def label_once(traces: Path, output: Path) -> dict[str, Any]:
    """Label a file in this process and return its peak memory."""
    source = Input(str(traces))
    embedding = InputEmbedding(LetterEncoder(), source, steps="blank-line", negatives=Negatives())
    with open_grader("string") as grader:
        labeller = Labeller(
            Formula(),
            embedding=embedding,
            judge=RecordedJudge(),
            rater=OutcomeRater(grader),
            settings=LabelSettings(steps="blank-line"),
        )
        progress = run_labelling(labeller, source, output)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"traces": progress.traces, "seconds": progress.seconds, "peak_mib": peak, "stages": progress.stages}


def memory(folder: Path, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return the peak of runs over more and more traces, each in a fresh process."""
    found = []
    for count in counts:
        traces = write_traces(folder / "memory.jsonl", count, 8)
        output = folder / f"memory-{count}.jsonl"
        command = [sys.executable, "-m", "benchmarks.label_pipeline", "--once", str(traces), str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
        print(f"{count:,} traces: {found[-1]['peak_mib']:.0f} MiB, {found[-1]['seconds']:.1f} s", flush=True)
        output.unlink()
    return found


# --- recombination ---------------------------------------------------------------------------------------------------


def recombination(folder: Path, labels: Path, rows: int) -> dict[str, Any]:
    """Return how long a label file, repeated to `rows` rows, takes to be combined by another formula."""
    lines = labels.read_bytes().splitlines(keepends=True)
    source = folder / "many.jsonl"
    with source.open("wb") as file:
        whole, rest = divmod(rows, len(lines))
        file.writelines(chain(chain.from_iterable(repeat(lines, whole)), lines[:rest]))
    processes = os.cpu_count() or 1
    started = time.perf_counter()
    done = recombine(
        str(source), folder / "new.jsonl", Formula.parse("bounded mean(quality, coherence)"), processes=processes
    )
    seconds = time.perf_counter() - started
    steps = sum(line.count(b'{"part": "') for line in lines) / len(lines)
    size = source.stat().st_size
    for path in (source, folder / "new.jsonl"):
        path.unlink()
    assert done.traces == rows
    return {
        "labels": labels.name,
        "rows": rows,
        "steps_per_row": steps,
        "bytes_per_row": size / rows,
        "processes": processes,
        "seconds": seconds,
        "mb_per_s": size / 1e6 / seconds,
    }


def main() -> None:
    """Run the parts that were asked for and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, nargs="+", default=[], help="label files to recombine, JSON lines")
    parser.add_argument("--rows", type=int, default=100_000, help="rows to recombine")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="traces of the memory runs")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds of a request")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rounds", type=int, default=20, help="requests at each place")
    names = ["requests", "memory", "recombine"]
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("-o", "--output", type=Path, default=None)
    parser.add_argument("--once", type=Path, nargs=2, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once is not None:
        print(json.dumps(label_once(*args.once)))
        return
    if "recombine" in args.parts and not args.labels:
        parser.error("recombination needs --labels FILE ...; without them pass --parts requests memory")
    report: dict[str, Any] = {"machine": {"processor": platform.processor(), "cores": os.cpu_count()}}
    with TemporaryDirectory() as name:
        folder = Path(name)
        if "requests" in args.parts:
            report["requests"] = [
                requests(folder, args.latency, concurrency, args.rounds) for concurrency in args.concurrency
            ]
            print(*report["requests"], sep="\n", flush=True)
        if "memory" in args.parts:
            report["memory"] = memory(folder, args.counts)
        if "recombine" in args.parts:
            report["recombine"] = [recombination(folder, labels, args.rows) for labels in args.labels]
            print(*report["recombine"], sep="\n", flush=True)
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
