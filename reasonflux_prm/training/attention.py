"""Attention over packed sequences for models of transformers: each sequence attends to itself only.

transformers can tell packed sequences from positions that start over, but through a mask of (T, T), whose masked-out
products cost time, and not at all where a cache is made by default. Here attention is called once a sequence, which is
exact and takes the flash kernel on every device; on a GPU in half precision one call of torch's variable-length kernel
does it, once it has been seen to agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAME: Final = "reasonflux_packed"
"""What `attn_implementation` is set to."""


def register() -> None:
    """Make the attention known to transformers; again does nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed_starts: Sequence[int] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each sequence, causally.

    Args:
        module: The attention layer; not used.
        query: (1, heads, T, head_dim), rotated.
        key: (1, kv_heads, T, head_dim).
        value: As `key`.
        attention_mask: None: what may be attended to follows from `packed_starts`.
        scaling: Of the products; None is 1 / sqrt(head_dim).
        dropout: Of the attention weights.
        packed_starts: Offsets at which the sequences start, and T; the model must be called with it.

    Returns:
        (1, T, heads, head_dim), and None for the weights.
    """
    if packed_starts is None or attention_mask is not None or len(query) != 1:
        raise ValueError(f"{NAME} attention needs one row of tokens, packed_starts, and no attention mask")
    if query.is_cuda and torch.is_autocast_enabled("cuda"):
        # Rotation leaves queries and keys in float32; torch's own attention casts them, the kernel below does not.
        half = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(half), key.to(half), value.to(half)
    if query.is_cuda and not dropout and _varlen_agrees(query.device, query.dtype, *_shape(query, key)):
        return _varlen(query[0], key[0], value[0], packed_starts, scaling).unsqueeze(0), None
    return _looped(query, key, value, packed_starts, scaling, dropout).transpose(1, 2), None


def _looped(
    query: Tensor, key: Tensor, value: Tensor, starts: Sequence[int], scaling: float | None, dropout: float = 0.0
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    # Not slices, of which each would give a gradient of the whole length, most of it zeros.
    lengths = [b - a for a, b in pairwise(starts)]
    parts = zip(*(x.split_with_sizes(lengths, dim=2) for x in (query, key, value)), strict=True)
    return torch.cat(
        [
            F.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
            )
            for q, k, v in parts
        ],
        dim=2,
    )


def _varlen(query: Tensor, key: Tensor, value: Tensor, starts: Sequence[int], scaling: float | None) -> Tensor:
    """Return (T, heads, head_dim) from (heads, T, head_dim) and twice (kv_heads, T, head_dim)."""
    from torch.nn.attention.varlen import varlen_attn

    offsets = torch.tensor(starts, dtype=torch.int32, device=query.device)
    longest = max(b - a for a, b in pairwise(starts))
    q, k, v = (x.transpose(0, 1) for x in (query, key, value))
    found = varlen_attn(
        q,
        k,
        v,
        offsets,
        offsets,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[0] != key.shape[0],
    )
    assert isinstance(found, Tensor)  # two come only with `return_aux`
    return found


def _shape(query: Tensor, key: Tensor) -> tuple[int, int, int]:
    return query.shape[1], key.shape[1], query.shape[3]


@lru_cache
def _varlen_agrees(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int) -> bool:
    """Whether torch has the kernel, with these arguments, and it gives what the loop gives."""
    random = torch.Generator(device=device).manual_seed(0)
    q, k, v = (
        torch.randn(1, number, 12, head_dim, generator=random, device=device, dtype=dtype)
        for number in (heads, kv_heads, kv_heads)
    )
    starts = (0, 5, 12)
    try:
        with torch.no_grad():
            found = _varlen(q[0], k[0], v[0], starts, None)
            wanted = _looped(q, k, v, starts, None).transpose(1, 2)[0]
    except (ImportError, TypeError, RuntimeError):
        return False
    return torch.allclose(found.float(), wanted.float(), atol=2e-2)
