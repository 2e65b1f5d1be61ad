"""The body of every discriminative PRM: a Llama, Qwen2, Qwen3 or Mistral decoder, tokens in, last hidden states out.

In: several token sequences laid end to end, `tokens (T,)`. Out: `hidden (T, d)` after the final norm. Each sequence
attends to itself only and counts its positions from 0. There is no batch axis, no padding and no mask to get wrong:
attention is called once a sequence and everything else runs on all T tokens at once. With a `KVCache` a sequence, the
same call appends to what the caches hold.

Departures from the published implementations, none of which changes a score beyond rounding:
- q, k and v are one matrix product;
- the rows of q and k are reordered at load so that rotary embedding is one complex product (a rotation of the pairs
  (2i, 2i+1) instead of (i, i + head_dim/2); q.k is the same sum in another order);
- in float32 the weight of each norm is folded into the matrix that follows it.

Sources of the architectures: arXiv:2302.13971 (Llama), arXiv:2412.15115 (Qwen2.5), arXiv:2505.09388 (Qwen3),
arXiv:2310.06825 (Mistral).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.errors import CheckpointError, ContextError
from reasonflux_prm.prm.cache import KVCache
from reasonflux_prm.prm.config import DecoderConfig
from reasonflux_prm.prm.rotary import inverse_frequencies


class Layer:
    """One block: attention and a gated feed-forward network, each behind an RMS norm, added to the residual stream."""

    def __init__(self, config: DecoderConfig, weights: Mapping[str, Tensor], index: int) -> None:
        """Fuse and reorder the layer's matrices, taken from `weights` under their transformers names."""
        prefix = f"layers.{index}."
        self.config = config

        def take(name: str) -> Tensor:
            return weights[prefix + name]

        order = _pair_order(config.head_dim)
        q = _reorder_heads(take("self_attn.q_proj.weight"), order)
        k = _reorder_heads(take("self_attn.k_proj.weight"), order)
        self.qkv = torch.cat([q, k, take("self_attn.v_proj.weight")])
        self.qkv_bias: Tensor | None = None
        if config.qkv_bias:
            q_bias = _reorder_heads(take("self_attn.q_proj.bias"), order)
            k_bias = _reorder_heads(take("self_attn.k_proj.bias"), order)
            self.qkv_bias = torch.cat([q_bias, k_bias, take("self_attn.v_proj.bias")])
        self.q_norm = take("self_attn.q_norm.weight")[order] if config.qk_norm else None
        self.k_norm = take("self_attn.k_norm.weight")[order] if config.qk_norm else None
        self.out = take("self_attn.o_proj.weight")
        self.out_bias = take("self_attn.o_proj.bias") if config.out_bias else None
        self.gate, self.up = take("mlp.gate_proj.weight"), take("mlp.up_proj.weight")
        self.down = take("mlp.down_proj.weight")
        self.norm1: Tensor | None = take("input_layernorm.weight")
        self.norm2: Tensor | None = take("post_attention_layernorm.weight")
        if self.qkv.dtype == torch.float32:
            self.qkv, self.norm1 = self.qkv * self.norm1, None
            self.gate, self.up, self.norm2 = self.gate * self.norm2, self.up * self.norm2, None

    def __call__(
        self, x: Tensor, rotation: Tensor, starts: Sequence[int], caches: Sequence[KVCache] | None, index: int
    ) -> None:
        """Add the layer's two contributions to `x (T, d)` in place."""
        eps, d = self.config.norm_eps, (self.config.hidden,)
        attended = self.attend(F.rms_norm(x, d, self.norm1, eps), rotation, starts, caches, index)
        _add_product(x, attended, self.out, self.out_bias)
        normed = F.rms_norm(x, d, self.norm2, eps)
        # Two products, not one and its halves: what they give lies apart in memory.
        gate, up = F.linear(normed, self.gate), F.linear(normed, self.up)
        _add_product(x, F.silu(gate, inplace=True).mul_(up), self.down, None)

    def attend(
        self, x: Tensor, rotation: Tensor, starts: Sequence[int], caches: Sequence[KVCache] | None, index: int
    ) -> Tensor:
        """Return the heads' outputs side by side, (T, heads * head_dim)."""
        c = self.config
        heads = F.linear(x, self.qkv, self.qkv_bias).view(len(x), c.heads + 2 * c.kv_heads, c.head_dim)
        q, k, v = heads.split_with_sizes([c.heads, c.kv_heads, c.kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q = F.rms_norm(q, (c.head_dim,), self.q_norm, c.norm_eps)
            k = F.rms_norm(k, (c.head_dim,), self.k_norm, c.norm_eps)
            qk = torch.cat([q, k], dim=1)
        else:
            qk = heads[:, : c.heads + c.kv_heads]
        q, k = _rotate(qk, rotation).split_with_sizes([c.heads, c.kv_heads], dim=1)
        v = v.transpose(0, 1).contiguous().transpose(0, 1)
        out = x.new_empty(len(x), c.heads, c.head_dim)
        for number, (start, stop) in enumerate(pairwise(starts)):
            if caches is None:
                keys, values, past = k[start:stop], v[start:stop], 0
            else:
                past = caches[number].length
                keys, values = caches[number].extend(index, k[start:stop], v[start:stop])
            out[start:stop] = _causal_attention(q[start:stop], keys, values, past)
        return out.view(len(x), -1)


class Decoder:
    """A stack of layers between an embedding and a final norm; it has no head and never makes vocabulary logits.

    Args:
        config: The architecture.
        weights: Tensors under their transformers names without the leading `model.`; all of one dtype.
        devices: One device a layer (layers of a large model may sit on several); the embedding is on the first, the
            norm on the last.
    """

    def __init__(self, config: DecoderConfig, weights: Mapping[str, Tensor], devices: Sequence[torch.device]) -> None:
        self.config = config
        if len(devices) != config.layers:
            raise CheckpointError(f"expected one device for each of {config.layers} layers, got {len(devices)}")
        self.embedding = weights["embed_tokens.weight"].to(devices[0])
        self.layers: list[Layer] = []
        for index, device in enumerate(devices):
            prefix = f"layers.{index}."
            own = {name: tensor.to(device) for name, tensor in weights.items() if name.startswith(prefix)}
            self.layers.append(Layer(config, own, index))
        self.norm = weights["norm.weight"].to(devices[-1])
        self.devices = tuple(devices)
        self.inverse_frequencies, self.attention_scale = inverse_frequencies(config)
        if not bool(torch.any(self.inverse_frequencies != 0)):
            raise CheckpointError(
                "the rotary frequencies are all zero: positions would be invisible and every score meaningless"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the weights and of the hidden states."""
        return self.embedding.dtype

    def new_cache(self) -> KVCache:
        """Return an empty cache for one sequence."""
        return KVCache(self.config, self.devices, self.dtype)

    def __call__(self, tokens: Tensor, starts: Sequence[int], caches: Sequence[KVCache] | None = None) -> Tensor:
        """Return the hidden states of all tokens.

        Args:
            tokens: Token ids, (T,) int64, sequences end to end.
            starts: Offsets at which the sequences start, and T: B + 1 numbers, rising.
            caches: One a sequence; the tokens continue what it holds, and are added to it.

        Returns:
            Hidden states after the final norm, (T, d), on the last device.

        Raises:
            ContextError: A sequence is longer than the model's positions.
        """
        pasts = [0] * (len(starts) - 1) if caches is None else [cache.length for cache in caches]
        longest = max(
            (past + stop - start for past, (start, stop) in zip(pasts, pairwise(starts), strict=True)), default=0
        )
        if longest > self.config.context:
            raise ContextError(f"a sequence has {longest:,} tokens, the model takes {self.config.context:,}")
        with torch.inference_mode():
            x = F.embedding(tokens.to(self.devices[0]), self.embedding)
            rotation = self._rotation(pasts, starts)
            for index, layer in enumerate(self.layers):
                if x.device != self.devices[index]:
                    x = x.to(self.devices[index])
                rotation = rotation.to(self.devices[index])
                layer(x, rotation, starts, caches, index)
            if caches is not None:
                for cache, (start, stop) in zip(caches, pairwise(starts), strict=True):
                    cache.commit(stop - start)
            return F.rms_norm(x, (self.config.hidden,), self.norm, self.config.norm_eps)

    def _rotation(self, pasts: Sequence[int], starts: Sequence[int]) -> Tensor:
        """Return e^(i * position * frequency) for every token, (T, 1, head_dim / 2) complex64."""
        spans = [
            torch.arange(past, past + stop - start) for past, (start, stop) in zip(pasts, pairwise(starts), strict=True)
        ]
        positions = torch.cat(spans) if spans else torch.empty(0, dtype=torch.long)
        angles = positions.to(torch.float32)[:, None] * self.inverse_frequencies
        return torch.polar(torch.full_like(angles, self.attention_scale), angles).unsqueeze(1).to(self.devices[0])


def _pair_order(head_dim: int) -> Tensor:
    """Return the row order (0, h, 1, h + 1, ...), h = head_dim / 2: the members of each rotated pair side by side."""
    return torch.arange(head_dim).view(2, -1).T.reshape(-1)


def _reorder_heads(rows: Tensor, order: Tensor) -> Tensor:
    """Apply `order` to the rows of every head."""
    return rows.view(-1, len(order), *rows.shape[1:])[:, order].reshape(rows.shape)


def _rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the pairs of `heads (T, n, head_dim)` by `rotation (T, 1, head_dim / 2)`; computed in float32.

    The result lies in memory head by head: attention over long sequences is some 5% faster on it.
    """
    pairs = torch.view_as_complex(heads.float().reshape(*heads.shape[:-1], -1, 2))
    tokens, number, size = pairs.shape
    rotated = pairs.new_empty(number, tokens, size)
    torch.mul(pairs.transpose(0, 1), rotation.transpose(0, 1), out=rotated)
    return torch.view_as_real(rotated).flatten(-2).to(heads.dtype).transpose(0, 1)


def _causal_attention(q: Tensor, keys: Tensor, values: Tensor, past: int) -> Tensor:
    """Attend from `q (t, heads, head_dim)`, after `past` tokens, to `keys`, `values (past + t, kv_heads, head_dim)`."""
    mask = None
    if past:
        mask = torch.ones(len(q), len(keys), dtype=torch.bool, device=q.device).tril_(past)
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0),
        keys.transpose(0, 1).unsqueeze(0),
        values.transpose(0, 1).unsqueeze(0),
        attn_mask=mask,
        is_causal=past == 0,
        enable_gqa=q.shape[1] != keys.shape[1],
    )
    return out.squeeze(0).transpose(0, 1)


def _add_product(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Add y @ weight.T (+ bias) to `x` in place, the sum taken inside the matrix product."""
    torch.addmm(x, y, weight.T, out=x)
    if bias is not None:
        x += bias
