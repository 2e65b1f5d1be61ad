"""The command, the batch it shows, and the loop in one file."""

from __future__ import annotations

import importlib.util
import json
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from training_tiny import config, labelled, write_rows

from reasonflux_prm.cli.main import main
from reasonflux_prm.cli.train_progress import TrainingProgress
from reasonflux_prm.cli.train_view import show_batch
from reasonflux_prm.labels.export import export_labels
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.training.progress import Now
from reasonflux_prm.training.run import prepare

ROOT = Path(__file__).parents[2]


def test_dry_run_shows_a_batch_and_trains_nothing(bases, labels, tmp_path, capsys):
    output = tmp_path / "out"
    code = main(["train", str(labels), "-o", str(output), "--base", str(bases["qwen2"]), "--dry-run"])
    shown, said = capsys.readouterr()
    assert code == 0
    assert not output.exists()
    assert "<extra_0> step 1 " in shown
    assert "<extra_1> trajectory " in shown
    assert "Optimizer steps for 3 epochs" in said


def test_a_batch_is_shown_in_colour_and_cannot_steer_the_terminal(bases, tmp_path):
    from reasonflux_prm.labels.files import labelled_row

    rows = [labelled_row(label) for label in labelled(6)]
    rows[0]["problem"] = "What\x1b[2J is this?"
    path = write_rows(tmp_path / "labels.jsonl", rows)
    run = prepare(config(path, tmp_path / "out", bases["qwen2"], dev_share=0.0, pack_tokens=4000))
    console = Console(force_terminal=True, color_system="truecolor", width=100, record=True, file=StringIO())
    show_batch(run, console)
    text = console.export_text(clear=False)
    assert "<U+001B>[2J" in text
    for example in run.data.train.examples:
        for target, weight in zip(example.targets, example.weights, strict=True):
            assert f"{target:.2f} x {weight:.3g}" in text
    assert "\x1b[2J" not in console.export_text(styles=True)


def test_wrong_usage_ends_with_2_and_the_remedy(labels, tmp_path, capsys):
    assert main(["train", str(labels), "-o", str(tmp_path / "out"), "--train-layers", "3"]) == 2
    assert "--train-layers goes with --method frozen" in capsys.readouterr().err


def test_progress_in_words():
    shown = TrainingProgress(Console(file=StringIO()))
    now = Now("training", 10, 40, 1234.5, 90.0, {"loss": 0.25, "eval_loss": 0.2, "eval_step_auc": 0.75})
    assert shown.line(now) == "10 of 40 steps, 1,234 tokens/s, loss 0.2500, 1 min 30 s left"
    assert shown.evaluation(now) == "step 10 of 40, on the dev set: loss 0.2000, step AUC 0.7500"


# --- examples/train_prm.py -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loop():
    spec = importlib.util.spec_from_file_location("train_prm", ROOT / "examples" / "train_prm.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_the_loop_is_short():
    assert (ROOT / "examples" / "train_prm.py").read_text().count("\n") < 200


def test_the_loop_learns_and_its_folder_is_a_prm(bases, tmp_path, loop, capsys):
    rows = tmp_path / "rows.jsonl"
    export_labels(labelled(24), rows, "soft")
    base, output = str(bases["qwen2"]), tmp_path / "prm"
    loop.main([str(rows), "--base", base, "-o", str(output), "--lr", "3e-3", "--pack-tokens", "400"])
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]

    # The engine reads what the loop trained.
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from reasonflux_prm.records import SegmentedTrace, Step, Trace
    from reasonflux_prm.scoring.engine import score_traces

    row = json.loads(rows.read_text().splitlines()[0])
    encoder = loop.Encoder(AutoTokenizer.from_pretrained(output), 1.0, 1.0)
    model = AutoModelForTokenClassification.from_pretrained(output).eval()
    with torch.no_grad():
        wanted = loop.rewards(model, [encoder({**row, "trajectory": 1.0})]).tolist()
    stops = [sum(map(len, row["completions"][: n + 1])) for n in range(len(row["completions"]))]
    steps = tuple(Step("response", a, b) for a, b in zip((0, *stops), stops, strict=False))
    trace = Trace("t", row["prompt"], "", "".join(row["completions"]))
    (scored,) = score_traces(load_prm(str(output)), [SegmentedTrace(trace, steps, "given")])
    assert [*scored.step_rewards, scored.trajectory_reward] == pytest.approx(wanted, abs=1e-5)
