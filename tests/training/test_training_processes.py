"""Runs in processes of their own: killed by the system, and two at once over gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
FLAGS = (
    *("--epochs", "2", "--batch-tokens", "256", "--pack-tokens", "128", "--dev-share", "0.25", "--lr", "3e-3"),
    *(
        "--evaluate-steps",
        "4",
        "--save-steps",
        "3",
        "--log-steps",
        "1",
        "--trackers",
        "none",
        "--cache-type",
        "float32",
    ),
)


def command(labels: Path, output: Path, base: Path, *more: str) -> list[str]:
    return ["train", str(labels), "-o", str(output), "--base", str(base), *FLAGS, *more]


def start(arguments: list[str], *, processes: int = 1) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "reasonflux_prm.cli.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=560)
    assert process.returncode == 0, said
    return said


def record(folder: Path):
    return json.loads((folder / "training.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("method", [(), ("--method", "lora"), ("--method", "frozen", "--train-layers", "1")])
def test_a_killed_run_goes_on_to_the_same_weights(bases, labels, tmp_path, method):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(command(labels, whole, bases["qwen2"], *method)))
    process = start(command(labels, cut, bases["qwen2"], *method))
    while not list(cut.glob("run/checkpoint-*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "training.json").exists()
    said = finish(start(command(labels, cut, bases["qwen2"], *method)))
    assert "Next: reasonflux-prm score" in said
    a, b = load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert record(whole)["results"] == record(cut)["results"]


@pytest.mark.slow
def test_two_processes_do_what_one_does(bases, labels, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(command(labels, one, bases["qwen2"], "--lambda-pair", "0.5")))
    finish(start(command(labels, two, bases["qwen2"], "--lambda-pair", "0.5"), processes=2))
    assert record(two)["settings"]["processes"] == 2
    assert record(one)["steps"] == record(two)["steps"]
    for name in ("loss", "eval_loss", "grad_norm", "eval_step_auc"):
        a, b = ([entry[name] for entry in record(folder)["history"] if name in entry] for folder in (one, two))
        assert len(a) == len(b) > 1
        assert a == pytest.approx(b, rel=2e-4, abs=1e-6)
    assert record(one)["history"][0]["loss"] == pytest.approx(record(two)["history"][0]["loss"], rel=1e-6)
