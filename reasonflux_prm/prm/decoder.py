"""The body of every discriminative PRM: a Llama, Qwen2, Qwen3 or Mistral decoder, tokens in, last hidden states out.

In: several token sequences laid end to end, `tokens (T,)`. Out: `hidden (T, d)` after the final norm. Each sequence
attends to itself only and counts its positions from 0. There is no batch axis and no mask to get wrong: attention is
called once a sequence, on a GPU once for those of like length (`side_by_side`), and everything else runs on all T
tokens at once. With a `KVCache` a sequence, the
same call appends to what the caches hold. Who reads a few positions only names them: the last layer then makes keys and
values for all tokens and everything else for those positions, (R, d).

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
from typing import Final, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from reasonflux_prm.errors import CheckpointError, ContextError
from reasonflux_prm.prm.cache import KVCache
from reasonflux_prm.prm.config import DecoderConfig
from reasonflux_prm.prm.rotary import inverse_frequencies
from reasonflux_prm.prm.side_by_side import Group, attend, groups


class Scratch(NamedTuple):
    """Memory of one pass on a CPU, that all its layers write to.

    Products of thousands of tokens are megabytes, which the system hands out anew, page by page, whenever they are
    asked for; that took 7 to 10% of a pass (docs/log.md).
    """

    first: Tensor
    second: Tensor
    """(T * the widest product of a token)."""
    normed: Tensor
    """(T, d)."""

    @classmethod
    def of(cls, x: Tensor, config: DecoderConfig) -> Self:
        """Return what a pass over `x (T, d)` needs."""
        width = max(config.intermediate, (config.heads + 2 * config.kv_heads) * config.head_dim)
        return cls(x.new_empty(len(x) * width), x.new_empty(len(x) * width), torch.empty_like(x))


class Layer:
    """One block: attention and a gated feed-forward network, each behind an RMS norm, added to the residual stream."""

    def __init__(self, config: DecoderConfig, weights: Mapping[str, Tensor], index: int) -> None:
        """Fuse and reorder the layer's matrices, taken from `weights` under their transformers names."""
        prefix = f"layers.{index}."
        self.config = config
        self.widths = (config.heads * config.head_dim, 2 * config.kv_heads * config.head_dim)

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
        self,
        x: Tensor,
        rotation: Tensor,
        starts: Sequence[int],
        caches: Sequence[KVCache] | None,
        index: int,
        reads: Tensor | None = None,
        alike: Sequence[Group] | None = None,
        scratch: Scratch | None = None,
    ) -> Tensor:
        """Add the layer's two contributions to `x (T, d)` in place and return it; of `reads (R,)`, a copy, (R, d)."""
        normed = self._normed(x, self.norm1, scratch)
        attended = self.attend(normed, rotation, starts, caches, index, reads, alike, scratch)
        if reads is not None:
            x = x[reads]
        _add_product(x, attended, self.out, self.out_bias)
        own = scratch if reads is None else None
        normed = self._normed(x, self.norm2, own)
        # Two products, not one and its halves: what they give lies apart in memory.
        gate = _product(normed, self.gate, None, own and own.first)
        up = _product(normed, self.up, None, own and own.second)
        _add_product(x, F.silu(gate, inplace=True).mul_(up), self.down, None)
        return x

    def _normed(self, x: Tensor, weight: Tensor | None, scratch: Scratch | None) -> Tensor:
        """Return x over its root mean square, times the weight if that is not folded into the matrix behind."""
        eps = self.config.norm_eps
        if scratch is None or weight is not None:
            return F.rms_norm(x, (self.config.hidden,), weight, eps)
        scale = torch.mul(x, x, out=scratch.normed).mean(-1, keepdim=True).add_(eps).rsqrt_()
        return torch.mul(x, scale, out=scratch.normed)

    def attend(
        self,
        x: Tensor,
        rotation: Tensor,
        starts: Sequence[int],
        caches: Sequence[KVCache] | None,
        index: int,
        reads: Tensor | None = None,
        alike: Sequence[Group] | None = None,
        scratch: Scratch | None = None,
    ) -> Tensor:
        """Return the heads' outputs side by side, (T, heads * head_dim), or at `reads` alone, (R, heads * head_dim)."""
        q, k, v = self._heads(x, rotation, reads, scratch)
        if alike is not None and reads is None:
            return attend(q, k, v, alike).view(len(q), self.widths[0])
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        rows = starts if reads is None else _rows(reads, starts)
        for number, ((start, stop), (first, last)) in enumerate(zip(pairwise(starts), pairwise(rows), strict=True)):
            if caches is None:
                keys, values, past = k[start:stop], v[start:stop], 0
            else:
                past = caches[number].length
                keys, values = caches[number].extend(index, k[start:stop], v[start:stop])
            if first < last:
                positions = None if reads is None else reads[first:last] - start
                out[first:last] = _causal_attention(q[first:last], keys, values, past, positions)
        return out.view(len(out), self.widths[0])

    def _heads(
        self, x: Tensor, rotation: Tensor, reads: Tensor | None, scratch: Scratch | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return q (T or R, heads, head_dim), and k and v (T, kv_heads, head_dim).

        Of `scratch` they keep nothing but `v` of a single token, which is read before the next product is written.
        """
        c = self.config
        if reads is None:
            product = _product(x, self.qkv, self.qkv_bias, scratch and scratch.first)
            q, kv = product.split_with_sizes(self.widths, dim=1)
        else:
            (q_rows, kv_rows), (q_bias, kv_bias) = self.qkv.split_with_sizes(self.widths), (None, None)
            if self.qkv_bias is not None:
                q_bias, kv_bias = self.qkv_bias.split_with_sizes(self.widths)
            q, kv = F.linear(x[reads], q_rows, q_bias), F.linear(x, kv_rows, kv_bias)
        q = q.view(len(q), c.heads, c.head_dim)
        k, v = kv.view(len(x), 2 * c.kv_heads, c.head_dim).chunk(2, dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q = F.rms_norm(q, (c.head_dim,), self.q_norm, c.norm_eps)
            k = F.rms_norm(k, (c.head_dim,), self.k_norm, c.norm_eps)
        q = _rotate(q, rotation if reads is None else rotation[reads])
        return q, _rotate(k, rotation), v.transpose(0, 1).contiguous().transpose(0, 1)


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

    def __call__(
        self,
        tokens: Tensor,
        starts: Sequence[int],
        caches: Sequence[KVCache] | None = None,
        reads: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states of all tokens, or of those that are read.

        Args:
            tokens: Token ids, (T,) int64, sequences end to end.
            starts: Offsets at which the sequences start, and T: B + 1 numbers, rising.
            caches: One a sequence; the tokens continue what it holds, and are added to it.
            reads: Positions in `tokens`, (R,) int64, rising; None for all.

        Returns:
            Hidden states after the final norm, (T, d) or (R, d), on the last device.

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
            on_gpu = self.devices[0].type != "cpu"
            alike = groups(starts, self.devices[0]) if on_gpu and caches is None else None
            scratch = None if on_gpu else Scratch.of(x, self.config)
            for index, layer in enumerate(self.layers):
                if x.device != self.devices[index]:
                    x = x.to(self.devices[index])
                rotation = rotation.to(self.devices[index])
                last = index == len(self.layers) - 1
                own = reads.to(x.device) if last and reads is not None else None
                x = layer(x, rotation, starts, caches, index, own, alike, scratch if x.device.type == "cpu" else None)
            if caches is not None:
                for cache, (start, stop) in zip(caches, pairwise(starts), strict=True):
                    cache.commit(stop - start)
            return F.rms_norm(x, (self.config.hidden,), self.norm, self.config.norm_eps)

    def _rotation(self, pasts: Sequence[int], starts: Sequence[int]) -> Tensor:
        """Return e^(i * position * frequency) for every token, (T, 1, head_dim / 2) complex64."""
        spans = [
            torch.arange(past, past + stop - start) for past, (start, stop) in zip(pasts, pairwise(starts), strict=True)
        ]
        positions = (torch.cat(spans) if spans else torch.empty(0, dtype=torch.long)).to(self.devices[0])
        angles = positions.to(torch.float32)[:, None] * self.inverse_frequencies.to(self.devices[0])
        return torch.polar(torch.full_like(angles, self.attention_scale), angles).unsqueeze(1)


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
    pairs = torch.view_as_complex(heads.float().reshape(*heads.shape[:-1], heads.shape[-1] // 2, 2))
    tokens, number, size = pairs.shape
    rotated = pairs.new_empty(number, tokens, size)
    torch.mul(pairs.transpose(0, 1), rotation.transpose(0, 1), out=rotated)
    return torch.view_as_real(rotated).flatten(-2).to(heads.dtype).transpose(0, 1)


def _rows(reads: Tensor, starts: Sequence[int]) -> list[int]:
    """Return for each of `starts` the number of `reads` in front of it."""
    rows: list[int] = torch.searchsorted(reads, torch.tensor(starts, device=reads.device)).tolist()
    return rows


def _causal_attention(q: Tensor, keys: Tensor, values: Tensor, past: int, positions: Tensor | None) -> Tensor:
    """Attend from `q (t, heads, head_dim)`, after `past` tokens, to `keys`, `values (past + t, kv_heads, head_dim)`.

    With `positions (r,)`, `q (r, heads, head_dim)` are the queries of those of the t tokens alone.
    """
    mask = None
    if positions is not None:
        mask = torch.arange(len(keys), device=q.device) <= positions[:, None] + past
    elif past:
        mask = torch.ones(len(q), len(keys), dtype=torch.bool, device=q.device).tril_(past)
    elif len(q) in _IN_BLOCKS and q.device.type == "cpu":
        return _attention_in_blocks(q, keys, values)
    return _attention(q, keys, values, mask)


_IN_BLOCKS: Final = range(192, 768)
"""Tokens of a sequence whose attention is called block by block on a CPU."""
_BLOCK: Final = 64


def _attention_in_blocks(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend from every token to those up to it, a block of queries a call.

    torch's kernel on a CPU multiplies more of the triangle that is masked out than it must; so called it takes 1.1 to
    1.3 times less, at these lengths.
    """
    tokens = len(q)
    out = torch.empty_like(q)
    # Of block m the last columns are a triangle, and those in front of it are open: a window on one mask for all.
    mask = q.new_zeros(_BLOCK, tokens + _BLOCK)
    mask[:, tokens:] = q.new_full((_BLOCK, _BLOCK), float("-inf")).triu_(1)
    for start in range(0, tokens, _BLOCK):
        stop = min(start + _BLOCK, tokens)
        window = mask[: stop - start, tokens - start : tokens - start + stop]
        out[start:stop] = _attention(q[start:stop], keys[:stop], values[:stop], window)
    return out


def _attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Call torch's attention: (t, heads, head_dim) from `keys`, `values (n, kv_heads, head_dim)`, causal if no mask."""
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0),
        keys.transpose(0, 1).unsqueeze(0),
        values.transpose(0, 1).unsqueeze(0),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q.shape[1] != keys.shape[1],
    )
    return out.squeeze(0).transpose(0, 1)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, memory: Tensor | None) -> Tensor:
    """Return x @ weight.T (+ bias), written to the front of `memory` if that is given."""
    if memory is None:
        return F.linear(x, weight, bias)
    out = memory[: len(x) * len(weight)].view(len(x), len(weight))
    return torch.mm(x, weight.T, out=out) if bias is None else torch.addmm(bias, x, weight.T, out=out)


def _add_product(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Add y @ weight.T (+ bias) to `x` in place, the sum taken inside the matrix product."""
    torch.addmm(x, y, weight.T, out=x)
    if bias is not None:
        x += bias
