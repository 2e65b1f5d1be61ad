"""The architecture of a decoder, read from a checkpoint's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reasonflux_prm.errors import CheckpointError

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Shapes and constants of a Llama-like decoder."""

    model_type: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    context: int
    """Longest sequence, in tokens. With sliding-window attention, the width: every shorter sequence is exact."""
    rope: Mapping[str, Any]
    """Rotary settings in the form of transformers 5: `rope_type`, `rope_theta` and the type's own parameters."""
    qkv_bias: bool
    out_bias: bool
    qk_norm: bool

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of the matrix products for one token, attention itself not counted."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return 2 * self.layers * (attention + 3 * self.hidden * self.intermediate)

    @classmethod
    def from_json(cls, config: Mapping[str, Any], where: str) -> DecoderConfig:
        """Read the fields of a `config.json`, in the names of transformers 4 or 5.

        Raises:
            CheckpointError: The architecture is not one of `SUPPORTED`, or a field is missing or has a value we would
                get wrong.
        """
        kind = config.get("model_type")
        if kind not in SUPPORTED:
            raise CheckpointError(f"{where}: model_type is {kind!r}; supported are {', '.join(SUPPORTED)}")
        if config.get("hidden_act", "silu") != "silu":
            raise CheckpointError(f"{where}: hidden_act is {config['hidden_act']!r}; only 'silu' is supported")
        if config.get("mlp_bias"):
            raise CheckpointError(f"{where}: mlp_bias is set; feed-forward layers with a bias are not supported")
        try:
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            bias = bool(config.get("attention_bias", False))
            return cls(
                model_type=kind,
                vocabulary=int(config["vocab_size"]),
                hidden=hidden,
                intermediate=int(config["intermediate_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                norm_eps=float(config.get("rms_norm_eps", 1e-6)),
                context=_context(config),
                rope=_rope(config),
                qkv_bias=bias or kind == "qwen2",
                out_bias=bias and kind == "llama",
                qk_norm=kind == "qwen3",
            )
        except KeyError as error:
            raise CheckpointError(f"{where}: config.json has no {error.args[0]!r}") from error
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: a field of config.json is not of its kind ({error})") from error


def _context(config: Mapping[str, Any]) -> int:
    context = int(config.get("max_position_embeddings", 2048))
    # Qwen2 configs carry a sliding_window that is off unless use_sliding_window says so; Mistral's is on whenever it is
    # a number.
    uses_window = config.get("use_sliding_window", config.get("model_type") == "mistral")
    window = config.get("sliding_window")
    return min(context, int(window)) if uses_window and window else context


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("rope_parameters"):
        return {"rope_type": "default", **config["rope_parameters"]}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(config.get("rope_theta") or 10000.0)}
    scaling = dict(config.get("rope_scaling") or {})
    rope["rope_type"] = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
    return {**rope, **scaling}
