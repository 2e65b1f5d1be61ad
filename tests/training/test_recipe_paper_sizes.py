"""The estimates of the paper's sizes against models of transformers on the meta device, and against autograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForTokenClassification, Qwen2Config

from recipes.paper_sizes.estimate import forward_flops, gpu_hours, memory, parameters, training_flops
from recipes.paper_sizes.settings import SIZES

TINY = {
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def model_of(size, device="meta", **more):
    config = Qwen2Config(num_labels=1, use_cache=False, classifier_dropout=0.0, **size.shape, **more)
    with torch.device(device):
        return AutoModelForTokenClassification.from_config(config, attn_implementation="sdpa")


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_exact(name):
    size = SIZES[name]
    assert parameters(size.decoder()) == sum(p.numel() for p in model_of(size).parameters())


@pytest.mark.parametrize("name", SIZES)
def test_matrix_products_are_exact(name):
    size, length = SIZES[name], 256
    model, config = model_of(size), SIZES[name].decoder()
    with FlopCounterMode(display=False) as counter:
        # Without a mask there is nothing to look into, which tensors on the meta device do not allow.
        model(
            input_ids=torch.zeros(1, length, dtype=torch.long, device="meta"), attention_mask={"full_attention": None}
        )
    counts = counter.get_flop_counts()["Global"]
    products = sum(own for op, own in counts.items() if "attention" not in str(op) and "bmm" not in str(op))
    # The counter has the rotary table (an outer product of positions and frequencies) among its bmm, and the head.
    assert products - 2 * length * config.hidden == config.flops_per_token * length


def test_attention_counts_what_is_not_behind():
    config = SIZES["7b"].decoder()
    # Position t attends to t + 1 positions, with two products of 2 * head_dim FLOPs for each head and layer.
    slow = sum((t + 1) * 2 * 2 * config.head_dim * config.heads * config.layers for t in range(50))
    assert forward_flops(config, 50) - 50 * config.flops_per_token == slow
    assert training_flops(config, 50) == 4 * forward_flops(config, 50)


def test_states_are_sixteen_bytes_a_parameter_and_shared_out():
    config = SIZES["7b"].decoder()
    one, four = memory(config, 1024), memory(config, 1024, 4)
    assert one.weights + one.gradients + one.optimizer == 16 * parameters(config)
    assert 4 * four.optimizer == pytest.approx(one.optimizer, rel=1e-9)
    assert one.checkpoints == four.checkpoints


def test_checkpoints_are_what_autograd_keeps():
    size = replace(SIZES["1.5b"], shape=TINY)
    model = model_of(size, "cpu").train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    kept: dict[int, int] = {}
    parameters_at = {p.data_ptr() for p in model.parameters()}

    def keep(tensor):
        if tensor.is_floating_point() and tensor.data_ptr() not in parameters_at:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    length = 96
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=torch.arange(length)[None])
    own = memory(size.decoder(), length)
    # Beside the layers' inputs: what the last norm and the head keep, and the small rotary tables.
    assert own.checkpoints <= sum(kept.values()) <= own.checkpoints + 6 * 4 * length * TINY["hidden_size"]


def test_hours_go_with_the_work():
    size = SIZES["1.5b"]
    once = gpu_hours(size, 1000, 4000, 989, 0.4)
    assert gpu_hours(size, 2000, 4000, 989, 0.4) == pytest.approx(2 * once)
    assert gpu_hours(size, 1000, 4000, 989, 0.2) == pytest.approx(2 * once)
    assert gpu_hours(SIZES["7b"], 1000, 4000, 989, 0.4) > 4 * once


@pytest.mark.parametrize("name", SIZES)
def test_the_configurations_are_valid(name):
    SIZES[name].config(("labels.jsonl",), "out").check()


def test_measuring_runs_on_a_tiny_shape(monkeypatch, capsys):
    from recipes.paper_sizes import measure

    arguments = ["measure", "1.5b", "--tiny", "--tokens", "64", "--length", "32", "--steps", "2"]
    monkeypatch.setattr("sys.argv", arguments)
    measure.main()
    assert '"tokens_per_s"' in capsys.readouterr().out
    if not torch.cuda.is_available():
        monkeypatch.setattr("sys.argv", [name for name in arguments if name != "--tiny"])
        with pytest.raises(SystemExit, match="expected a GPU, found none"):
            measure.main()
