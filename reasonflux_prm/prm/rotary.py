"""Rotary frequencies, computed from the configuration each time: no buffer that a loader could leave at zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reasonflux_prm.errors import CheckpointError
from reasonflux_prm.prm.config import DecoderConfig


def inverse_frequencies(config: DecoderConfig) -> tuple[Tensor, float]:
    """Return the frequencies (head_dim / 2,) float32, radians a position, and the factor on q and k.

    Kinds: `default` (arXiv:2104.09864), `linear` (positions divided by a factor), `llama3` (frequencies below a band
    divided by a factor, those inside it blended; the rule of Llama 3.1) and `yarn` (arXiv:2309.00071).

    Raises:
        CheckpointError: Another kind.
    """
    rope = config.rope
    base = float(rope.get("rope_theta", 10000.0))
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).to(torch.float32) / config.head_dim
    plain = 1.0 / base**exponents
    kind = rope["rope_type"]
    if kind == "default":
        return plain, 1.0
    if kind == "linear":
        return plain / float(rope["factor"]), 1.0
    if kind == "llama3":
        return _llama3(plain, config), 1.0
    if kind == "yarn":
        return _yarn(plain, base, config)
    raise CheckpointError(f"rope_type {kind!r} is not supported; supported are default, linear, llama3, yarn")


def _llama3(plain: Tensor, config: DecoderConfig) -> Tensor:
    rope = config.rope
    factor, low, high = (float(rope[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(rope["original_max_position_embeddings"]) * plain / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / factor


def _yarn(plain: Tensor, base: float, config: DecoderConfig) -> tuple[Tensor, float]:
    rope, d = config.rope, config.head_dim
    factor = float(rope["factor"])
    original = float(rope.get("original_max_position_embeddings") or config.context)

    def dimension(turns: float) -> float:
        return d * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(dimension(float(rope.get("beta_fast") or 32))), 0)
    high = min(math.ceil(dimension(float(rope.get("beta_slow") or 1))), d - 1)
    ramp = ((torch.arange(d // 2, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    scale = rope.get("attention_factor")
    if scale is None:
        scale = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    # Rotating both q and k by a vector of length `scale` multiplies their product by its square, as published.
    return plain / factor * ramp + plain * (1 - ramp), float(scale)
