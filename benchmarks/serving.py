"""What HTTP, the queue and two hundred clients cost: the service's throughput beside the offline engine's, in one run.

The service runs as a process of its own (`reasonflux-prm serve`) on this machine's loopback. In turn the same traces go
through the engine in this process and through the service, sent by `--clients` clients at once, `--batch` traces a
request; every answer is compared with the engine's record of the same trace. Reported for each pair of runs: the ratio
of the two rates; the ratio of processor times, the service's whole process counted, which other jobs on the machine do
not change; the share of the service's run in which its model was busy; and the memory that it holds afterwards.

    python -m benchmarks.serving --traces TRACES.jsonl --count 400 -o serving.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import torch

from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.records import ScoredTrace, Trace
from reasonflux_prm.scoring.engine import Engine
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.read import read_traces

DEMO = files("reasonflux_prm.data") / "demo.jsonl"
TOLERANCE = 1e-4
"""Rewards of the two may differ by so much: packs differ, and with them the last bits."""


@contextmanager
def service(prm: str, threads: int) -> Iterator[tuple[str, int]]:
    """Run a service; yield its address and process id."""
    command = [sys.executable, "-m", "reasonflux_prm.cli.main", "serve", "--prm", prm, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = ""
        while (found := re.search(r"http://\S+:\d+", said)) is None:
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the service did not start: {said}")
            said += line
        yield found[0], process.pid
    finally:
        process.terminate()
        process.wait(60)


def resident_mib(pid: int) -> float:
    """Return the memory that a process holds (Linux)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def processor_s(pid: int) -> float:
    """Return the seconds of processor time that a process has used, all threads, user and system (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_s(url: str) -> float:
    """Return the seconds that a service's model has spent in forward passes."""
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    return float(text.partition("\nreasonflux_prm_pass_seconds_sum ")[2].partition("\n")[0])


def some_traces(source: str | None, count: int, longest: int, engine: Engine) -> list[Trace]:
    """Return `count` traces of at most `longest` tokens, repeated under other ids if there are not so many."""
    read = read_traces(source or str(DEMO))
    short = [trace for trace in read if engine.prepare(trace).tokens <= longest]
    return [replace(trace, id=f"{number}") for number, trace in enumerate(islice(cycle(short), count))]


async def load(url: str, traces: Sequence[Trace], clients: int, batch: int) -> tuple[dict[str, Any], list[float]]:
    """Score traces by clients that each send one request after the other; return records by id, seconds by request."""
    work = iter([traces[start : start + batch] for start in range(0, len(traces), batch)])
    records: dict[str, Any] = {}
    times: list[float] = []

    async def one(client: httpx.AsyncClient) -> None:
        for part in work:
            started = time.perf_counter()
            reply = await client.post("/score", json={"traces": [trace_row(trace) for trace in part]})
            reply.raise_for_status()
            times.append(time.perf_counter() - started)
            scored = reply.json()["scored"]
            assert [record["id"] for record in scored] == [trace.id for trace in part]
            records.update((record["id"], record) for record in scored)

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=3600, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    return records, times


def worst_difference(records: dict[str, Any], expected: Sequence[ScoredTrace]) -> float:
    """Return the largest difference of a reward; fails if an answer is lost or is another's."""
    assert len(records) == len(expected)
    worst = 0.0
    for scored in expected:
        record = records[scored.trace.id]
        pairs = list(zip((step["reward"] for step in record["steps"]), scored.step_rewards, strict=True))
        pairs += [(record["reward"], scored.reward), (record["trajectory_reward"], scored.trajectory_reward)]
        for got, wanted in pairs:
            assert (got is None) == (wanted is None)
            worst = max(worst, abs(got - wanted) if got is not None and wanted is not None else 0.0)
    assert worst < TOLERANCE
    return worst


def compare(url: str, pid: int, engine: Engine, traces: Sequence[Trace], args: argparse.Namespace) -> dict[str, Any]:
    """Run both in turn."""
    rows: list[dict[str, Any]] = []
    times: list[float] = []
    once(url, pid, engine, traces[: args.warm_up], args)
    for _ in range(args.repeats):
        row, seconds = once(url, pid, engine, traces, args)
        print(json.dumps(row), flush=True)
        rows.append(row)
        times += seconds
    quantiles = statistics.quantiles(times, n=20) if len(times) > 1 else times * 19
    return {
        "traces": len(traces),
        "tokens": rows[0]["tokens"],
        "clients": args.clients,
        "batch": args.batch,
        **{name: spread([row[name] for row in rows]) for name in ("ratio", "processor_ratio", "model_busy")},
        "request_s": {"median": quantiles[9], "95%": quantiles[18], "n": len(times)},
        "runs": rows,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median of some runs, and how far they lie apart."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values), "n": len(values)}


def once(
    url: str, pid: int, engine: Engine, traces: Sequence[Trace], args: argparse.Namespace
) -> tuple[dict[str, Any], list[float]]:
    """Run the engine, then the service; return what came out, and the seconds of every request."""
    started, used = time.perf_counter(), time.process_time()
    expected = list(engine.score(traces))
    offline_s, offline_used = time.perf_counter() - started, time.process_time() - used
    started, used, passes = time.perf_counter(), processor_s(pid), busy_s(url)
    records, seconds = asyncio.run(load(url, traces, args.clients, args.batch))
    served_s, served_used = time.perf_counter() - started, processor_s(pid) - used
    tokens = sum(scored.tokens for scored in expected)
    row = {
        "tokens": tokens,
        "offline_tokens_per_s": tokens / offline_s,
        "served_tokens_per_s": tokens / served_s,
        "ratio": offline_s / served_s,
        "processor_ratio": offline_used / served_used,
        "model_busy": (busy_s(url) - passes) / served_s,
        "worst_difference": worst_difference(records, expected),
        "resident_mib": resident_mib(pid),
    }
    return row, seconds


def main() -> None:
    """Print and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prm", default="embedded")
    parser.add_argument("--traces", help="a file of traces; default the demo's")
    parser.add_argument("--count", type=int, default=400, help="traces of a run")
    parser.add_argument("--longest", type=int, default=1024, help="leave out traces of more tokens")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1, help="traces of a request")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=20, help="traces of a first run that is not counted")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of arithmetic, for both")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "threads": args.threads,
        "torch": torch.__version__,
        "prm": args.prm,
    }
    with service(args.prm, args.threads) as (url, pid):
        engine = Engine(load_prm(args.prm))
        traces = some_traces(args.traces, args.count, args.longest, engine)
        report |= compare(url, pid, engine, traces, args)
    summary = {
        name: report[name] for name in ("traces", "tokens", "ratio", "processor_ratio", "model_busy", "request_s")
    }
    print(json.dumps(summary, indent=2))
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
