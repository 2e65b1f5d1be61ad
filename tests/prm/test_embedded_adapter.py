"""The adapter file: merge arithmetic, and everything that must be refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.embedded.adapter import Adapter, load_adapter, merge, save_adapter
from reasonflux_prm.prm.embedded.install import ADAPTER

BASE_SHA = "b" * 64
HIDDEN, OUT, RANK = 8, 6, 2
Q, UP, NORM = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"


@pytest.fixture
def base():
    random = torch.Generator().manual_seed(0)
    shapes = {"model.embed_tokens.weight": (10, HIDDEN), Q: (OUT, HIDDEN), UP: (OUT, HIDDEN), NORM: (HIDDEN,)}
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def adapter(**changes) -> Adapter:
    random = torch.Generator().manual_seed(1)
    tensors = {"score.weight": torch.randn(1, HIDDEN, generator=random), "score.bias": torch.zeros(1)}
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return Adapter(tensors, {"separator": "<step>", "name": "größer"}, BASE_SHA)


def with_tensors(tensors: dict[str, torch.Tensor]) -> Adapter:
    return Adapter({**adapter().tensors, **tensors}, {}, BASE_SHA)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_low_rank_pair_is_added_in_float32(base, dtype):
    down, up = torch.randn(RANK, HIDDEN).to(dtype), torch.randn(OUT, RANK).to(dtype)
    merged = merge(base, with_tensors({f"{Q}.lora_A": down, f"{Q}.lora_B": up}), BASE_SHA)
    by_hand = base[Q].clone()
    for row in range(OUT):
        for column in range(HIDDEN):
            for r in range(RANK):
                by_hand[row, column] += up[row, r].float() * down[r, column].float()
    torch.testing.assert_close(merged[Q], by_hand, rtol=1e-6, atol=1e-6)
    assert {tensor.dtype for tensor in merged.values()} == {torch.float32}


def test_a_whole_tensor_replaces_and_the_rest_stays(base):
    new = torch.randn(OUT, HIDDEN).bfloat16()
    merged = merge(base, with_tensors({UP: new, NORM: torch.ones(HIDDEN)}), BASE_SHA)
    assert torch.equal(merged[UP], new.float())
    assert torch.equal(merged[NORM], torch.ones(HIDDEN))
    assert torch.equal(merged[Q], base[Q])


def test_the_head_is_added_and_the_language_model_head_dropped(base):
    given = adapter()
    merged = merge({**base, "lm_head.weight": torch.zeros(10, HIDDEN)}, given, BASE_SHA)
    assert set(merged) == {*base, "score.weight", "score.bias"}
    assert torch.equal(merged["score.weight"], given.tensors["score.weight"])


def test_merging_leaves_the_base_as_it_was(base):
    before = {name: tensor.clone() for name, tensor in base.items()}
    merge(base, with_tensors({f"{Q}.lora_A": torch.ones(RANK, HIDDEN), f"{Q}.lora_B": torch.ones(OUT, RANK)}), BASE_SHA)
    assert all(torch.equal(base[name], before[name]) for name in base)


def test_an_adapter_for_another_base_is_refused(base):
    with pytest.raises(CheckpointError, match=f"trained on the base with SHA-256 {BASE_SHA}, but this base has aaaa"):
        merge(base, adapter(), "a" * 64)


PAIR = {f"{Q}.lora_A": torch.ones(RANK, HIDDEN), f"{Q}.lora_B": torch.ones(OUT, RANK)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"model.layers.9.mlp.up_proj.weight": torch.ones(OUT, HIDDEN)}, "the base has no such tensor"),
        ({"lm_head.weight": torch.ones(10, HIDDEN)}, "the base has no such tensor"),
        ({f"{Q}.lora_A": torch.ones(RANK, HIDDEN)}, "pair lora_A"),
        ({**PAIR, f"{Q}.lora_B": torch.ones(OUT, RANK + 1)}, "pair lora_A"),
        ({**PAIR, f"{Q}.lora_B": torch.ones(1, RANK)}, r"should have the shape \(6, 8\), but has \(1, 8\)"),
        ({**PAIR, Q: torch.ones(OUT, HIDDEN)}, "pair lora_A"),
        ({Q: torch.ones(1, HIDDEN)}, r"should have the shape \(6, 8\), but has \(1, 8\)"),
        ({Q: torch.full((OUT, HIDDEN), torch.nan)}, "finite"),
        ({Q: torch.ones(OUT, HIDDEN, dtype=torch.int8)}, "floating-point"),
        ({"score.weight": torch.ones(1, HIDDEN + 1)}, r"should have the shapes \(labels, 8\)"),
        ({"score.bias": torch.ones(2)}, r"should have the shapes \(labels, 8\)"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(base, tensors, message):
    with pytest.raises(CheckpointError, match=message):
        merge(base, with_tensors(tensors), BASE_SHA)


@pytest.mark.parametrize("name", ["score.weight", "score.bias"])
def test_half_a_head_is_refused(base, name):
    tensors = {key: value for key, value in adapter().tensors.items() if key != name}
    with pytest.raises(CheckpointError, match=r"score\.weight and score\.bias"):
        merge(base, Adapter(tensors, {}, BASE_SHA), BASE_SHA)


def test_an_adapter_survives_the_disk(tmp_path):
    given = with_tensors({f"{Q}.lora_A": torch.ones(RANK, HIDDEN).bfloat16(), f"{Q}.lora_B": torch.ones(OUT, RANK)})
    given = Adapter(given.tensors, adapter().prm, BASE_SHA)
    save_adapter(tmp_path / "a", given)
    read = load_adapter(tmp_path / "a")
    assert read.prm == given.prm
    assert read.base_sha256 == BASE_SHA
    assert {name: tensor.dtype for name, tensor in read.tensors.items()} == {
        name: tensor.dtype for name, tensor in given.tensors.items()
    }
    assert all(torch.equal(read.tensors[name], given.tensors[name]) for name in given.tensors)


FORMAT = "reasonflux-prm-adapter-1"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "format reasonflux-prm-adapter-1, but says None"),
        ({"format": "pt"}, "says 'pt'"),
        ({"format": FORMAT, "prm": "{}"}, "base_sha256"),
        ({"format": FORMAT, "base_sha256": "x"}, "prm"),
        ({"format": FORMAT, "base_sha256": "x", "prm": "{"}, "prm as a JSON object"),
        ({"format": FORMAT, "base_sha256": "x", "prm": json.dumps([1])}, "prm is a list"),
    ],
)
def test_a_file_without_its_metadata_is_refused(tmp_path, metadata, message):
    save_file({"score.bias": torch.zeros(1)}, tmp_path / "a", metadata=metadata)
    with pytest.raises(CheckpointError, match=message):
        load_adapter(tmp_path / "a")


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is none"):
        load_adapter(tmp_path / "nowhere")
    save_adapter(tmp_path / "a", adapter())
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="cannot be read as one"):
        load_adapter(tmp_path / "a")


@pytest.mark.skipif(not ADAPTER.exists(), reason="no adapter is trained yet")
def test_the_shipped_adapter_is_small_and_for_the_pinned_base():
    from reasonflux_prm.prm.embedded.fetch import SMOLLM2

    assert ADAPTER.stat().st_size <= 16 * 2**20
    assert load_adapter(ADAPTER).base_sha256 == SMOLLM2.gguf_sha256
