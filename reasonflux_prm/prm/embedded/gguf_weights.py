"""A Llama-architecture GGUF file as Hugging Face tensors, configuration and tokenizer.

The tensors are bit-identical to those of transformers' own GGUF loader and come several times faster, without
transformers. llama.cpp stores the rows of the query and key projections in another order (its rotary embedding pairs
neighbouring rows, Hugging Face's pairs the two halves of a head); they are put back here.

The tokenizer differs from transformers' conversion on purpose: that one drops the digit splitting of `smollm`
vocabularies, so whitespace in front of a number is cut differently from how the model was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from reasonflux_prm.errors import CheckpointError

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_CONTROL = 3
"""`tokenizer.ggml.token_type` of control tokens."""


@dataclass(frozen=True)
class GGUFModel:
    """What a GGUF file holds, in Hugging Face terms."""

    config: dict[str, Any]
    """`config.json` of a `LlamaForCausalLM`."""
    tensors: dict[str, torch.Tensor]
    """Float32 weights by their Hugging Face names; no `lm_head.weight` where the embedding is tied."""
    tokenizer: Tokenizer
    tokenizer_config: dict[str, Any]
    """`tokenizer_config.json`, the chat template included."""


def read_gguf(path: Path) -> GGUFModel:
    """Read a whole GGUF file of the Llama architecture with a byte-level BPE vocabulary.

    Takes some 4 bytes of memory a parameter, and for SmolLM2-135M about 6 seconds, most of them in the vocabulary.

    Raises:
        CheckpointError: The file is no GGUF, of another architecture, or holds a tensor that has no place in it.
    """
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} should be a GGUF file, but cannot be read: {error}. Fetch it again.") from error
    config = _config(reader, path)
    tokenizer, tokenizer_config = _tokenizer(reader, path)
    return GGUFModel(config, _tensors(reader, config, path), tokenizer, tokenizer_config)


def _field(reader: Any, key: str, path: Path) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise CheckpointError(f"{path} should hold the field {key}, but does not: it is no complete Llama GGUF file.")
    return field.contents()


def _config(reader: Any, path: Path) -> dict[str, Any]:
    architecture = _field(reader, "general.architecture", path)
    if architecture != "llama":
        raise CheckpointError(f"{path} should be of the architecture llama, but is of {architecture}.")
    names = {tensor.name for tensor in reader.tensors}
    if "rope_freqs.weight" in names or reader.get_field("llama.rope.scaling.type") is not None:
        raise CheckpointError(f"{path} scales its rotary embedding, which this loader does not read.")

    def value(key: str) -> Any:
        return _field(reader, f"llama.{key}", path)

    hidden, heads = value("embedding_length"), value("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": _shortest(value("attention.layer_norm_rms_epsilon")),
        "rope_theta": _shortest(value("rope.freq_base")),
        "vocab_size": next(int(t.shape[1]) for t in reader.tensors if t.name == "token_embd.weight"),
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id", path),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id", path),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id", path),
        "dtype": "float32",
    }


def _shortest(value: float) -> float:
    """Undo the widening of a float32 constant: 9.999999747378752e-06 was written as 1e-05."""
    return float(str(np.float32(value)))


def _tensors(reader: Any, config: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for tensor in reader.tensors:
        name = _hf_name(tensor.name, path)
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        if name.endswith("q_proj.weight"):
            weight = _halves(weight, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            weight = _halves(weight, config["num_key_value_heads"])
        # A copy: tensors stored as float32 are views into the file's read-only map.
        tensors[name] = torch.from_numpy(np.array(weight, dtype=np.float32, order="C"))
    return tensors


def _hf_name(name: str, path: Path) -> str:
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    match name.split("."):
        case ["blk", layer, part, "weight"] if part in _LAYER_NAMES:
            return f"model.layers.{layer}.{_LAYER_NAMES[part]}.weight"
    raise CheckpointError(f"{path} holds the tensor {name}, which has no place in a Llama model.")


def _halves(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorder the rows of each head from pairs (0, d/2, 1, d/2 + 1, ...) to halves (0, 1, ..., d - 1)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tokenizer(reader: Any, path: Path) -> tuple[Tokenizer, dict[str, Any]]:
    kind, rule = _field(reader, "tokenizer.ggml.model", path), _field(reader, "tokenizer.ggml.pre", path)
    if (kind, rule) != ("gpt2", "smollm"):
        raise CheckpointError(f"{path} should have a gpt2 vocabulary cut by the rule smollm, but has {kind}, {rule}.")
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens", path)
    types: list[int] = _field(reader, "tokenizer.ggml.token_type", path)
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges", path)]
    tokenizer = Tokenizer(BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, type_ in zip(tokens, types, strict=True) if type_ == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    special = {
        f"{name}_token": tokens[_field(reader, f"tokenizer.ggml.{key}_token_id", path)]
        for name, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items()
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "model_max_length": _field(reader, "llama.context_length", path),
        "clean_up_tokenization_spaces": False,
        "chat_template": _field(reader, "tokenizer.chat_template", path),
    }
    return tokenizer, settings
