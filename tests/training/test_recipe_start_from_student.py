"""A PRM that begins as a student computes what it computes; a student's settings that do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytest.importorskip("trl")

from recipes.prm_first.train import Upper  # noqa: E402 (what it needs may not be there)
from recipes.student.sft import SFTSettings  # noqa: E402


def tiny(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return transformers.LlamaForCausalLM(config).eval()


def hidden(upper: Upper, model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    count = tokens.shape[1]
    states, positions = model.embed_tokens(tokens), torch.arange(count)[None]
    mask = torch.ones(1, 1, count, count, dtype=torch.bool).tril()
    rope = upper.rotary(states, positions)
    for layer in upper.layers:
        states = layer(states, attention_mask=mask, position_ids=positions, position_embeddings=rope)
    return upper.norm(states)


def test_a_prm_begins_as_the_student(tmp_path: Path) -> None:
    student = peft.get_peft_model(tiny(), peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    student.save_pretrained(tmp_path / "adapter")
    tokens = torch.randint(0, 64, (1, 9))
    with torch.no_grad():
        expected = student(input_ids=tokens, output_hidden_states=True).hidden_states[-1]
        model = tiny().model
        upper = Upper(model, 0, 4)
        before = hidden(upper, model, tokens)
        upper.start_from(tmp_path / "adapter")
        after = hidden(upper, model, tokens)
    assert not torch.allclose(before, expected, atol=1e-3)
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-4)
    assert not upper.score.weight.any()


def test_going_on_from_adapters_needs_adapters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="start_from goes on from adapters"):
        SFTSettings(100, rank=None, start_from=tmp_path)
