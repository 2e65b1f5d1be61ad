"""Whole runs on tiny models: what is saved is what was trained, in our engine and in transformers, after a kill too."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from training_tiny import config

from reasonflux_prm.prm.embedded.adapter import load_adapter, merge
from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.records import SegmentedTrace, Status
from reasonflux_prm.scoring.engine import score_traces
from reasonflux_prm.training import train
from reasonflux_prm.training.examples import lengths
from reasonflux_prm.training.folder import RunFolder
from reasonflux_prm.training.frozen import Below, cached
from reasonflux_prm.training.loop import Patience, fit
from reasonflux_prm.training.model import build
from reasonflux_prm.training.run import _save, prepare
from reasonflux_prm.training.saving import ADAPTER

METHODS = {
    "full": {},
    "lora": {"method": "lora", "lora_rank": 4},
    "frozen": {"method": "frozen", "train_layers": 1},
    "head": {"method": "frozen", "train_layers": 0},
    "response-first": {"layout": "response_first"},
    "windowed": {"context": 70},
    "pairs": {"lambda_pair": 0.5},
    "bce": {"loss": "bce"},
    "checkpointed": {"gradient_checkpointing": True},
}


def trained_weights(folder):
    return load_file(folder / "model.safetensors")


def some_slow(names, quick):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some_slow(METHODS, ("full", "lora", "frozen", "windowed")))
def test_saved_folder_gives_the_rewards_that_training_saw(bases, labels, tmp_path, name):
    prepared = prepare(config(labels, tmp_path / "out", bases["qwen2"], epochs=1.0, **METHODS[name]))
    folder = RunFolder(tmp_path / "out", {})
    trainer = fit(prepared, folder, None)
    reads, _, _ = trainer._read_dev()
    trainer.save_model(str(folder.work / "final"))
    _save(prepared, folder, folder.work / "final")

    prm = load_prm(str(folder.path), context=prepared.config.context)
    kept = prepared.data.dev.kept
    scored = list(score_traces(prm, [SegmentedTrace(label.trace, label.steps, "given") for label in kept]))
    assert {one.status for one in scored} == {Status.SCORED}
    assert len({round(read.reward, 4) for read in reads}) > len(reads) / 3
    for read in reads:
        own = scored[read.trace]
        found = own.trajectory_reward if read.step == TRAJECTORY else own.step_rewards[read.step]
        assert found == pytest.approx(read.reward, abs=1e-5)


def test_saved_folder_loads_in_plain_transformers(bases, labels, tmp_path):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    settings = config(labels, tmp_path / "out", bases["llama"], epochs=1.0)
    train(settings)
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    assert content["architectures"] == ["LlamaForTokenClassification"]
    assert content["id2label"] == {"0": "LABEL_0"}  # vLLM takes two labels where none are written
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    assert model.config._attn_implementation != "reasonflux_packed"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")

    prepared = prepare(settings)
    label = prepared.data.dev.kept[0]
    prm = load_prm(str(tmp_path / "out"))
    (sequence,) = prm.encode(SegmentedTrace(label.trace, label.steps, "given")).sequences
    tokens = [*sequence.head, *(token for piece in sequence.pieces for token in piece.tokens)]
    text = tokenizer.decode(tokens)
    separator = tokenizer.convert_tokens_to_ids(prepared.base.settings.separator)
    assert text.count(prepared.base.settings.separator) == tokens.count(separator) == len(label.steps)
    with torch.no_grad():
        rewards = torch.sigmoid(model(torch.tensor([tokens])).logits[0, :, 0])
    wanted = [float(reward) for reward, token in zip(rewards, tokens, strict=True) if token == separator]
    (scored,) = score_traces(prm, [SegmentedTrace(label.trace, label.steps, "given")])
    assert list(scored.step_rewards) == pytest.approx(wanted, abs=1e-5)


def test_it_learns_and_writes_what_it_did(bases, rows, tmp_path):
    told = []
    result = train(config(rows, tmp_path / "out", bases["qwen2"], license="mit", epochs=5.0), told.append)
    auc = next(one for one in result.results if one.name == "step AUC")
    assert auc.interval.value > 0.9
    assert {now.stage for now in told} == {"training", "evaluated"}
    assert told[-1].done == told[-1].total == result.record["steps"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert f"| step AUC | {auc.interval.value:.3f} |" in card
    assert "rows.jsonl" in card
    assert str(tmp_path) not in card
    assert json.loads((tmp_path / "out" / "training.json").read_text())["data"]["train"]["traces"] > 20
    again = train(config(rows, tmp_path / "out", bases["qwen2"], license="mit", epochs=5.0))
    assert again.was_complete


class Stop(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("name", some_slow(("full", "lora", "frozen"), ("full",)))
def test_an_interrupted_run_ends_as_an_uninterrupted_one(bases, labels, tmp_path, name):
    settings = {"epochs": 1.5, "evaluate_steps": 4, "save_steps": 7, "batch_tokens": 256, "pack_tokens": 128}
    settings |= METHODS[name]

    def stops(now):
        if now.stage == "training" and now.done == 8:
            raise Stop

    whole = train(config(labels, tmp_path / "whole", bases["qwen2"], **settings))
    with pytest.raises(Stop):
        train(config(labels, tmp_path / "cut", bases["qwen2"], **settings), stops)
    # A checkpoint that a kill left half written is not gone on from.
    torn = tmp_path / "cut" / "run" / "checkpoint-8"
    torn.mkdir(exist_ok=True)
    (torn / "trainer_state.json").write_text("{")
    steps = []
    cut = train(config(labels, tmp_path / "cut", bases["qwen2"], **settings), lambda now: steps.append(now.done))
    assert steps[0] == 8
    a, b = trained_weights(whole.folder), trained_weights(cut.folder)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert [one.interval for one in whole.results] == [one.interval for one in cut.results]
    losses = [[h["eval_loss"] for h in r.record["history"] if "eval_loss" in h] for r in (whole, cut)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_frozen_leaves_the_lower_layers_and_shares_its_cache(bases, labels, tmp_path):
    cache = tmp_path / "cache"
    settings = config(
        labels, tmp_path / "a", bases["qwen2"], method="frozen", train_layers=1, epochs=1.0, cache=str(cache)
    )
    told = []
    first = train(settings, told.append)
    assert any(now.stage == "caching" for now in told)
    told.clear()
    # Another seed and another objective read the same windows.
    train(replace(settings, output=str(tmp_path / "b"), seed=3, lambda_final=0.0), told.append)
    assert not any(now.stage == "caching" for now in told)
    before = load_file(bases["qwen2"] / "model.safetensors")
    after = trained_weights(first.folder)
    same = {name: torch.equal(before[name], after[name]) for name in before if name in after}
    assert all(same[name] for name in same if ".layers.0." in name or ".layers.1." in name or "embed" in name)
    assert not all(same[name] for name in same if ".layers.2." in name)


def test_a_torn_cache_is_mended(bases, labels, tmp_path):
    prepared = prepare(config(labels, tmp_path / "out", bases["qwen2"], method="frozen", train_layers=1))
    model, below = build(prepared.base, prepared.config), Below(prepared.base, 1, "float32")
    examples = prepared.data.train.examples

    def states(folder):
        computed = []
        found = cached(model, below, examples, folder, 256, lambda *now: computed.append(now))
        return found.of(range(len(examples)), lengths(examples)), computed

    whole, first = states(tmp_path / "cache")
    (index,) = (tmp_path / "cache").glob("*.index")
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(lines[:4]) + lines[4][:20])  # killed while it wrote
    mended, again = states(tmp_path / "cache")
    assert first[-1][1] == len(lines)
    assert again[-1][1] == len(lines) - 4
    torch.testing.assert_close(mended, whole, atol=1e-5, rtol=1e-5)
    # It is what the model itself makes of the tokens.
    with torch.no_grad():
        hidden = model.model(
            torch.from_numpy(examples[5].tokens).long()[None],
            packed_starts=[0, len(examples[5])],
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states[2]
    start = sum(lengths(examples)[:5])
    torch.testing.assert_close(whole[start : start + len(examples[5])], hidden[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", some_slow(("lora", "frozen"), ("frozen",)))
def test_adapter_turns_the_base_into_the_prm(bases, labels, tmp_path, monkeypatch, name):
    from reasonflux_prm.prm.embedded import fetch
    from reasonflux_prm.prm.embedded import install as installed
    from reasonflux_prm.training.config import EMBEDDED_BASE

    monkeypatch.setattr(installed, "ensure_base", lambda: bases["llama"])
    settings = config(labels, tmp_path / "out", bases["llama"], epochs=1.0, adapter=True, **METHODS[name])
    result = train(replace(settings, base=EMBEDDED_BASE))
    adapter = load_adapter(result.folder / ADAPTER)
    base = load_file(bases["llama"] / "model.safetensors")
    merged = merge(base, adapter, fetch.SMOLLM2.gguf_sha256)
    wanted = trained_weights(result.folder)
    assert merged.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(merged[key], wanted[key], atol=2e-2, rtol=1e-2)
        if key in base and torch.equal(base[key], wanted[key]):
            assert torch.equal(merged[key], base[key])
    assert adapter.prm["separator"] == "<extra_0>"


def test_training_goes_on_from_a_prm(bases, labels, tmp_path):
    first = train(config(labels, tmp_path / "a", bases["qwen2"], epochs=1.0))
    prepared = prepare(config(labels, tmp_path / "b", first.folder, epochs=1.0))
    assert prepared.base.goes_on
    assert prepared.base.settings.separator == "<extra_0>"
    assert torch.equal(
        build(prepared.base, prepared.config).score.weight, trained_weights(first.folder)["score.weight"]
    )


def test_patience_counts_evaluations_without_a_better_one():
    state = SimpleNamespace(log_history=[{"eval_loss": value} for value in (3.0, 1.0, 2.0, 2.5)])
    for patience, stops in ((3, False), (2, True)):
        control = SimpleNamespace(should_training_stop=False)
        Patience(patience, "eval_loss", higher=False).on_evaluate(None, state, control)
        assert control.should_training_stop is stops


@pytest.mark.slow
def test_early_stopping_keeps_the_best(bases, rows, tmp_path):
    result = train(
        config(rows, tmp_path / "out", bases["qwen2"], epochs=6.0, learning_rate=0.1, evaluate_steps=3, patience=2)
    )
    losses = {h["step"]: h["eval_loss"] for h in result.record["history"] if "eval_loss" in h}
    assert max(losses) < result.record["steps"]
    assert result.record["best_step"] == min(losses, key=losses.get)
