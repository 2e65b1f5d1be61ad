"""What cannot be trained is said in one sentence, with what to do."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import tiny
from training_tiny import config, label_rows, labelled, trl_rows, write_base, write_rows

from reasonflux_prm.errors import CheckpointError, InputError, MissingExtra, ResumeError, UsageError
from reasonflux_prm.training import train
from reasonflux_prm.training.data import _fault
from reasonflux_prm.training.folder import RunFolder
from reasonflux_prm.training.run import OutOfMemory, prepare, require_metric, trackers
from reasonflux_prm.training.trainer import NotFinite


@pytest.fixture
def run(bases, tmp_path):
    def make(rows, base="qwen2", **changes):
        path = write_rows(tmp_path / "rows.jsonl", rows)
        return config(path, tmp_path / "out", bases[base], **{"dev_share": 0.0, **changes})

    return make


# --- labels ----------------------------------------------------------------------------------------------------------


def test_a_row_whose_labels_do_not_fit_its_steps_is_set_aside(run):
    rows = trl_rows(8)
    rows[3]["labels"].append(True)
    data = prepare(run(rows)).data
    assert data.train.traces == 7
    (reject,) = data.rejects
    assert reject.line == 4
    number = len(rows[3]["completions"])
    assert str(number) in reject.reason
    assert str(number + 1) in reject.reason


def test_targets_that_do_not_fit_the_steps_are_named():
    label = labelled(1)[0]
    fault = _fault(replace(label, targets=label.targets[:-1]))
    assert f"one target for each of {len(label.steps)} steps, got {len(label.steps) - 1}" in fault


@pytest.mark.parametrize("where", ["step", "trajectory"])
def test_a_label_with_nan_is_set_aside(run, where):
    rows = label_rows(9)
    if where == "step":
        rows[1]["steps"][0]["target"] = float("nan")
    else:
        rows[1]["trajectory"]["target"] = float("nan")
    data = prepare(run(rows)).data
    assert data.train.traces == 8
    assert "got NaN: write null" in data.rejects[0].reason


@pytest.mark.parametrize("changes", [{"trajectory_target": float("inf")}, {"targets": "nan"}])
def test_targets_that_are_not_finite_are_named(changes):
    label = labelled(1)[0]
    if "targets" in changes:
        changes = {"targets": (float("nan"), *label.targets[1:])}
    assert "finite targets, got 1 that are NaN or infinite; write null" in _fault(replace(label, **changes))


def test_equal_labels_teach_nothing(run):
    rows = [{**row, "labels": [True] * len(row["labels"])} for row in trl_rows(5)]
    with pytest.raises(InputError, match=r"all \d+ are 1: there is nothing to learn; add"):
        prepare(run(rows))


def test_no_labels_at_all(run):
    rows = [{"id": str(n), "problem": "What?", "response": "A.\n\nB."} for n in range(3)]
    with pytest.raises(InputError, match=r"expected labels to train on .* found none \(3 no-target\)"):
        prepare(run(rows))


def test_targets_outside_the_unit_interval_do_not_go_with_bce(run):
    rows = label_rows(6)
    rows[2]["steps"][0]["target"] = 7.5
    with pytest.raises(InputError, match=r"in \[0, 1\] for the loss bce, got 7.5; .* --formula bounded"):
        prepare(run(rows, loss="bce"))
    assert prepare(run(rows)).data.outside == 1


def test_a_file_that_is_not_there(bases, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        prepare(config(tmp_path / "nowhere.jsonl", tmp_path / "out", bases["qwen2"]))


@pytest.mark.parametrize(
    ("select", "rows"),
    [("step_auc", [{**row, "labels": [True] * len(row["labels"])} for row in trl_rows(4)]), ("best_of_n", trl_rows(8))],
)
def test_a_dev_set_that_cannot_tell_which_checkpoint_is_best(run, tmp_path, select, rows):
    dev = write_rows(tmp_path / "dev.jsonl", rows)
    prepared = prepare(run(trl_rows(8, seed=1), dev=(str(dev),), select=select))
    with pytest.raises(InputError, match=f"--select {select} needs .*--select loss"):
        require_metric(prepared)


# --- base ------------------------------------------------------------------------------------------------------------


def edited(base, folder, **changes):
    """Return a copy of a base with other fields in its configuration."""
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; supported are llama"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "cannot be trained from; expected a causal language"),
        ({"architectures": ["Qwen2ForProcessRewardModel"]}, "cannot be trained from; expected a causal language"),
    ],
)
def test_an_unsupported_base(run, bases, tmp_path, changes, message):
    base = edited(bases["qwen2"], tmp_path / "base", **changes)
    with pytest.raises(CheckpointError, match=message):
        prepare(replace(run(trl_rows(4)), base=str(base)))


def test_a_base_with_a_missing_weight(run, bases, tmp_path):
    from safetensors.torch import load_file, save_file

    from reasonflux_prm.training.model import build

    base = edited(bases["qwen2"], tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    prepared = prepare(replace(run(trl_rows(4)), base=str(base)))
    with pytest.raises(CheckpointError, match=r"1 weights are missing \(model.layers.1.mlp.up_proj.weight\)"):
        build(prepared.base, prepared.config)


def test_a_tokenizer_without_room_for_a_separator(run, tmp_path):
    base = write_base(tmp_path / "bare", special=tiny.CHATML[:3])
    with pytest.raises(CheckpointError, match=r"no unused control token .* --method lora or full"):
        prepare(replace(run(trl_rows(4), method="frozen"), base=str(base)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_other_methods_add_the_control_tokens(run, tmp_path, method):
    from reasonflux_prm.prm.load import load_prm

    base = write_base(tmp_path / "bare", special=tiny.CHATML[:3])
    result = train(replace(run(trl_rows(6), method=method, epochs=1.0), base=str(base)))
    prm = load_prm(str(result.folder))
    assert prm.settings.separator == "<|step_end|>"
    assert len(prm.decoder.embedding) == prm.separator + 2


def test_a_control_token_that_is_not_there(run):
    with pytest.raises(UsageError, match="has no token '<nope>'; name one that it has"):
        prepare(run(trl_rows(4), separator="<nope>"))


# --- folder and machine ----------------------------------------------------------------------------------------------


def test_the_folder_of_another_run(tmp_path):
    RunFolder(tmp_path / "out", {"seed": 0}).claim(fresh=False)
    with pytest.raises(ResumeError, match=r"belongs to a training run with another seed \(0, now 1\); .* --fresh"):
        RunFolder(tmp_path / "out", {"seed": 1}).check(fresh=False)
    assert not RunFolder(tmp_path / "out", {"seed": 1}).check(fresh=True)
    assert not RunFolder(tmp_path / "out", {"seed": 0}).check(fresh=False)


def test_a_folder_of_something_else_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ResumeError, match="no training run of ours is in it"):
        RunFolder(tmp_path, {}).check(fresh=False)
    RunFolder(tmp_path, {}).claim(fresh=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB")])
def test_out_of_memory(run, monkeypatch, error):
    from reasonflux_prm.training import loop

    def full(*_):
        raise error

    monkeypatch.setattr(loop, "fit", full)
    with pytest.raises(OutOfMemory, match=r"256 tokens does not fit into memory: pass a smaller --pack-tokens"):
        train(run(trl_rows(6)))


def test_another_error_is_not_taken_for_a_lack_of_memory(run, monkeypatch):
    from reasonflux_prm.training import loop

    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loop, "fit", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(run(trl_rows(6)))


def test_a_loss_that_is_not_finite_stops_the_run(run, monkeypatch):
    from reasonflux_prm.training import trainer

    monkeypatch.setattr(trainer, "summed_loss", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(NotFinite, match=r"the loss is nan at step 1: train with a lower --lr"):
        train(run(trl_rows(6)))


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'; there are full, lora, frozen"),
        ({"epochs": 0.0}, "epochs must be"),
        ({"epochs": float("nan")}, "epochs must be"),
        ({"lambda_step": -1.0}, "lambda_step must be"),
        ({"dev_share": 1.0}, "dev_share must be"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"train_layers": 2}, "goes with --method frozen"),
        ({"lora_layers": 2}, "goes with --method lora"),
        ({"lambda_step": 0.0, "lambda_final": 0.0}, "nothing would be learned"),
        ({"adapter": True}, "--adapter is a change of the embedded base"),
        ({"trackers": ("abacus",)}, "unknown trackers 'abacus'"),
    ],
)
def test_a_configuration_that_makes_no_sense(run, changes, message):
    with pytest.raises(UsageError, match=message):
        run(trl_rows(2), **changes).check()


def test_more_layers_than_there_are(run):
    with pytest.raises(UsageError, match="more than the base's 3 layers"):
        train(run(trl_rows(6), method="frozen", train_layers=9))


def test_a_tracker_that_is_not_installed(run, monkeypatch):
    from reasonflux_prm.training import run as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="wandb is not installed: pip install wandb"):
        trackers(run(trl_rows(2), trackers=("wandb",)))
    assert trackers(run(trl_rows(2), trackers=None)) == []


def test_training_without_its_extra(run, monkeypatch):
    from reasonflux_prm.training import model

    monkeypatch.setattr(model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'needs transformers and .*pip install "reasonflux-prm\[train\]"'):
        model.require_train()
