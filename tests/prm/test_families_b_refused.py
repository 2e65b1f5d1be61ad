"""What Math-Shepherd, RLHFlow and implicit PRMs refuse to load, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from references_b import LLAMA, TAGS, implicit, rlhflow, shepherd
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.families.implicit import ImplicitPRM
from reasonflux_prm.prm.families.math_shepherd import PUBLISHED_VOCABULARY, MathShepherdPRM
from reasonflux_prm.prm.families.rlhflow import RLHFlowPRM


def edit(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_shepherd_wants_its_tokens(tmp_path):
    tokens = tiny.tokenizer("sentencepiece", ("<s>", "</s>"))
    model = tiny.causal("mistral", tokens.get_vocab_size())
    tiny.write(tmp_path, model.config, model.state_dict(), tokens, architecture="MistralForCausalLM", bos="<s>")
    with pytest.raises(CheckpointError, match=r"'ки' is \d+ tokens, expected one of its own"):
        MathShepherdPRM.load(Checkpoint(tmp_path, name="shepherd"))


def test_shepherd_wants_the_published_ids_in_a_vocabulary_of_the_published_size(tmp_path):
    tokens = tiny.tokenizer("sentencepiece", ("<s>", "</s>"), corpus=TAGS)
    model = tiny.causal("mistral", PUBLISHED_VOCABULARY)
    tiny.write(tmp_path, model.config, model.state_dict(), tokens, architecture="MistralForCausalLM", bos="<s>")
    with pytest.raises(CheckpointError, match="trained with 12902, 648, 387; fetch the checkpoint's own tokenizer"):
        MathShepherdPRM.load(Checkpoint(tmp_path, name="shepherd"))


def test_rlhflow_wants_the_tokens_of_llama(tmp_path):
    tokens = tiny.tokenizer("byte-bpe", LLAMA[:3])
    model = tiny.causal("llama", tokens.get_vocab_size())
    tiny.write(tmp_path, model.config, model.state_dict(), tokens, architecture="LlamaForCausalLM", bos=LLAMA[0])
    with pytest.raises(CheckpointError, match=r"no token '<\|eot_id\|>'"):
        RLHFlowPRM.load(Checkpoint(tmp_path, name="rlhflow"))


def drop_head(tensors: dict[str, Tensor]) -> None:
    del tensors["lm_head.weight"]


def widen_head(tensors: dict[str, Tensor]) -> None:
    tensors["lm_head.weight"] = torch.zeros(2, 48)


def narrow_head(tensors: dict[str, Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:, :40].contiguous()


@pytest.mark.parametrize(("make", "family"), [(shepherd, MathShepherdPRM), (rlhflow, RLHFlowPRM)])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_head, r"weights are missing \(lm_head.weight\)"),
        (widen_head, r"the head 'lm_head' has shape \(2, 48\)"),
        (narrow_head, r"the head 'lm_head' has shape \(\d+, 40\)"),
    ],
)
def test_an_output_matrix_of_the_wrong_shape_is_refused(tmp_path, make, family, change, message):
    folder, _, _ = make(tmp_path)
    edit(folder, change)
    with pytest.raises(CheckpointError, match=message):
        family.load(Checkpoint(folder, name="x"))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    folder, _, _ = shepherd(tmp_path)
    small = tiny.causal("mistral", 200, sliding_window=None)
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tiny.write(folder, small.config, small.state_dict(), tokens, architecture="MistralForCausalLM", bos="<s>")
    with pytest.raises(CheckpointError, match="outside the vocabulary of 200"):
        MathShepherdPRM.load(Checkpoint(folder, name="shepherd"))


def test_a_reference_model_of_another_vocabulary_is_refused(tmp_path):
    policy = Checkpoint(implicit(tmp_path / "a", 5)[0], name="policy")
    other = implicit(tmp_path / "b", 6)[0]
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "vocab_size": settings["vocab_size"] + 1}))
    with pytest.raises(CheckpointError, match=r"reference model other .* has a vocabulary of \d+"):
        ImplicitPRM.load(policy, Checkpoint(other, name="other"))
    (other / "config.json").write_text(json.dumps(settings))
    tokens = json.loads((other / "tokenizer.json").read_text())
    table = tokens["model"]["vocab"]
    table["a"], table["b"] = table["b"], table["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(CheckpointError, match="numbers its tokens differently"):
        ImplicitPRM.load(policy, Checkpoint(other, name="other"))
    (other / "tokenizer.json").unlink()
    ImplicitPRM.load(policy, Checkpoint(other, name="other"))


def test_implicit_wants_chatml(tmp_path):
    folder, _, _ = rlhflow(tmp_path)
    with pytest.raises(CheckpointError, match=r"no token '<\|im_end\|>'"):
        ImplicitPRM.load(Checkpoint(folder, name="a"), Checkpoint(folder, name="b"))
