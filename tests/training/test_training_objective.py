"""The objective against slow loops by hand, whatever the packing; attention of packs against one sequence at a time."""

from __future__ import annotations

import math
import random

import pytest
import torch
from training_tiny import config, label_rows, write_rows

from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.training import attention
from reasonflux_prm.training.batches import FILLER, Packing, PackSampler, all_packs, collate, epoch_packs, filled
from reasonflux_prm.training.model import build
from reasonflux_prm.training.objective import read_losses, summed_loss
from reasonflux_prm.training.run import prepare


@pytest.fixture
def prepared(bases, tmp_path):
    def make(number=24, **changes):
        path = write_rows(tmp_path / "labels.jsonl", label_rows(number))
        return prepare(config(path, tmp_path / "out", bases["qwen2"], dev_share=0.0, **changes))

    return make


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def by_hand(examples, logits, settings):
    """Return the printed objective, summed over traces, with loops and no arrays."""
    traces: dict[int, dict[int, tuple[float, float]]] = {}
    group = {}
    for example, own in zip(examples, logits, strict=True):
        for step, target, z in zip(example.steps.tolist(), example.targets.tolist(), own, strict=True):
            traces.setdefault(example.trace, {})[step] = (z, target)
        group[example.trace] = example.group

    def one(z, r):
        p = sigmoid(z)
        return (p - r) ** 2 if settings.loss == "mse" else -r * math.log(p) - (1 - r) * math.log(1 - p)

    total = 0.0
    for trace, reads in traces.items():
        steps = [pair for step, pair in reads.items() if step != TRAJECTORY]
        if steps:
            total += settings.lambda_step * sum(one(z, r) for z, r in steps) / len(steps)
        if TRAJECTORY in reads:
            z, r = reads[TRAJECTORY]
            total += settings.lambda_final * one(z, r)
            others = [
                found[TRAJECTORY]
                for other, found in traces.items()
                if other != trace and group[other] == group[trace] and TRAJECTORY in found
            ]
            pairs = [(z - y if r > s else y - z) for y, s in others if abs(r - s) > settings.pair_margin]
            if pairs:
                total += settings.lambda_pair * sum(-math.log(sigmoid(m)) for m in pairs) / len(pairs)
    return total, len(traces)


@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("pair", [0.0, 0.7])
@pytest.mark.parametrize("context", [None, 60])
def test_loss_is_the_printed_sum_whatever_the_packing(prepared, loss, pair, context):
    run = prepared(loss=loss, lambda_step=1.5, lambda_final=0.5, lambda_pair=pair, context=context, pack_tokens=4000)
    examples = run.data.train.examples
    rng = random.Random(1)
    logits = [[rng.uniform(-3, 3) for _ in example.reads] for example in examples]
    wanted, traces = by_hand(examples, logits, run.config)
    packs = epoch_packs(examples, Packing(4000 if pair else 300, 0, together=pair > 0), 0)
    assert sorted(number for pack in packs for number in pack) == list(range(len(examples)))
    total, count = 0.0, 0.0
    for pack in packs:
        batch = collate([(n, examples[n], True) for n in pack], pair_margin=0.0 if pair else None)
        z = torch.tensor([value for n in pack for value in logits[n]])
        total += float(summed_loss(z, batch, loss, pair))
        count += float(batch["count"])
    assert total == pytest.approx(wanted, rel=1e-5)
    assert count == pytest.approx(traces, rel=1e-5)


def test_pairs_are_lost_only_where_a_problem_does_not_fit_into_a_pack(prepared):
    run = prepared(lambda_pair=1.0)
    examples = run.data.train.examples

    def pairs(tokens):
        packs = epoch_packs(examples, Packing(tokens, 0, together=True), 0)
        return sum(len(collate([(n, examples[n], True) for n in pack], pair_margin=0.0)["pairs"]) for pack in packs)

    assert pairs(4000) > 0
    assert pairs(10) == 0


def test_hard_labels_are_a_special_case():
    z = torch.tensor([2.0, -1.0])
    found = read_losses(z, torch.tensor([1.0, 0.0]), "bce")
    wanted = torch.nn.functional.cross_entropy(
        torch.stack([torch.zeros(2), z], dim=1), torch.tensor([1, 0]), reduction="none"
    )
    torch.testing.assert_close(found, wanted)


# --- packing ---------------------------------------------------------------------------------------------------------


def test_packs_keep_to_the_budget_and_are_nearly_full(prepared):
    examples = prepared(number=120).data.train.examples
    packs = epoch_packs(examples, Packing(1000, 0), 0)
    sizes = [sum(len(examples[n]) for n in pack) for pack in packs]
    assert max(sizes) <= 1000
    assert sum(sizes) / (1000 * len(sizes)) > 0.9


def test_packs_follow_from_the_seed_and_differ_by_epoch(prepared):
    examples = prepared().data.train.examples
    same = [epoch_packs(examples, Packing(300, 5), 0) for _ in range(2)]
    assert same[0] == same[1]
    assert epoch_packs(examples, Packing(300, 5), 1) != same[0]
    assert epoch_packs(examples, Packing(300, 6), 0) != same[0]


def test_part_of_an_epoch_takes_that_part_of_its_packs(prepared):
    examples = prepared().data.train.examples
    whole = len(epoch_packs(examples, Packing(300, 0), 0))
    assert len(all_packs(examples, Packing(300, 0), 0.5, 1)) == round(whole / 2)


def test_fillers_even_out_processes_and_count_nothing(prepared):
    examples = prepared().data.train.examples
    packs = filled([(0,), (1,), (2,)], 2)
    assert packs[-1] == FILLER
    assert len(packs) == 4
    *_, last = PackSampler(packs, filler=1)
    batch = collate([(number, examples[number], counts) for number, counts in last], pair_margin=0.0)
    assert float(batch["count"]) == 0
    assert float(summed_loss(torch.ones(len(batch["reads"])), batch, "mse", 1.0)) == 0


# --- attention -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_packed_windows_see_only_themselves(bases, tmp_path, kind):
    path = write_rows(tmp_path / "labels.jsonl", label_rows(6))
    run = prepare(config(path, tmp_path / "out", bases[kind], dev_share=0.0))
    model = build(run.base, run.config).eval()
    windows = [(n, example, True) for n, example in enumerate(run.data.train.examples)]
    with torch.no_grad():
        batch = collate(windows)
        feed = {name: batch[name] for name in ("input_ids", "position_ids", "packed_starts")}
        packed = model(**feed, use_cache=False).logits[0, batch["reads"], 0]
        model.set_attn_implementation("eager")
        alone = [
            model(torch.from_numpy(example.tokens).long()[None], use_cache=False).logits[0, example.reads.tolist(), 0]
            for _, example, _ in windows
        ]
    torch.testing.assert_close(packed, torch.cat(alone), atol=2e-5, rtol=1e-4)


def test_packed_attention_refuses_what_it_would_get_wrong():
    q = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="packed_starts"):
        attention.packed_attention(torch.nn.Identity(), q, q, q, None)
    with pytest.raises(ValueError, match="attention mask"):
        attention.packed_attention(torch.nn.Identity(), q, q, q, torch.ones(1), packed_starts=(0, 4))
