"""One more token of every row of a batch by replaying a CUDA graph.

A small model's step is some thousand kernels of a few microseconds each, and starting them one by one takes several
times as long as running them. A graph starts them all at once, but replays fixed addresses and shapes: so keys and
values lie in one block that every batch uses anew, rows and columns are rounded up to a few sizes, and where the next
token goes is a number on the GPU. `GraphedPast` is to the loop that writes what `past.KeptPast` is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

log = logging.getLogger(__name__)

_ATTENTION: Final = "reasonflux_one_token"
_COLUMNS: Final = 128
"""Tokens are rounded up to a multiple."""
_ROWS: Final[tuple[int, ...]] = tuple(chain.from_iterable((2**power, 3 * 2 ** (power - 1)) for power in range(3, 12)))
"""Rows are rounded up to one of these (8, 12, 16, 24, ...), or beyond to a multiple of the last."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend from one token a row; the heads that share keys are read as one head's queries, which reads these once.

    Args:
        module: The attention layer; not used.
        query: (B, heads, 1, d).
        key: (B, kv_heads, T, d).
        value: As `key`.
        attention_mask: Added to the products, (B, 1, 1, T).
        scaling: Of the products; None is 1 / sqrt(d).

    Returns:
        (B, 1, heads, d), and None for the weights.
    """
    rows, heads, _one, size = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    mask = attention_mask.expand(rows, *grouped.shape[1:3], key.shape[2])
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        found = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    return found.reshape(rows, 1, heads, size), None


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """One layer's keys and values (2, B, H, T, d) in the block, the next token written where `at` says."""

    def __init__(self, own: Tensor, at: Tensor) -> None:
        super().__init__()
        self._own, self._at = own, at
        self.is_initialized = True

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self._own[0].index_copy_(2, self._at, keys)
        self._own[1].index_copy_(2, self._at, values)
        return self._own[0], self._own[1]

    def get_seq_length(self) -> int:
        return int(self._own.shape[3]) - 1


class Graphs:
    """The memory of one batch, and the steps over it that were captured.

    Args:
        model: A `transformers` causal language model that `past.KeptPast` is for.
        shape: Its (2L, H, d), from `past.kept_shape`.
        device: Where the model is. On a CPU the steps run as they are; it is there to be tested.
    """

    def __init__(self, model: Any, shape: tuple[int, int, int], device: torch.device) -> None:
        AttentionInterface.register(_ATTENTION, attend)
        self.model, self.shape, self.device = model, shape, device
        self.clear()

    def clear(self) -> None:
        """Free the memory, and forget the graphs over it."""
        self._captured: dict[tuple[int, ...], tuple[Any, Tensor]] = {}
        # With its last graph a pool is gone.
        self._pool: Any = None
        self._flat = torch.empty(0, dtype=self.model.dtype, device=self.device)
        self.block, self.bias = self._flat, self._flat
        self._kept: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def start(self, rows: int, tokens: int) -> None:
        """Have `block` (2L, B, H, T, d) of zeros and `bias` (B, T) that closes every column, for a batch."""
        rows, tokens = rounded_rows(rows), rounded_columns(tokens)
        layers, heads, size = self.shape
        wanted = layers * rows * heads * tokens * size
        if wanted > len(self._flat):
            self.clear()
            self._flat = torch.empty(wanted, dtype=self.model.dtype, device=self.device)
        # Graphs hold addresses, so a batch of known size gets the tensors that the earlier one had.
        if (rows, tokens) not in self._kept:
            self._kept[rows, tokens] = (
                self._flat[:wanted].view(layers, rows, heads, tokens, size),
                torch.empty((rows, tokens), dtype=self.model.dtype, device=self.device),
                *(torch.zeros((rows, 1), dtype=torch.long, device=self.device) for _ in range(2)),
                torch.zeros(1, dtype=torch.long, device=self.device),
            )
        self.block, self.bias, self.tokens, self.places, self.at = self._kept[rows, tokens]
        # Nothing attends to a closed column, but a product of zero and what is no number is none.
        self.block.zero_()
        self.bias.fill_(float("-inf"))

    def step(self, rows: int, columns: int) -> Tensor:
        """Read `tokens` at `places` into column `at`, of which there are so many; return the scores (B, V).

        The first rows' scores are good until the next step.
        """
        rows, columns = min(rounded_rows(rows), len(self.bias)), rounded_columns(columns)
        if self.device.type != "cuda":
            return self._run(rows, columns)
        key = (*self.bias.shape, rows, columns)
        if key not in self._captured:
            self._captured[key] = self._capture(rows, columns)
        graph, scores = self._captured[key]
        graph.replay()
        return scores

    def _capture(self, rows: int, columns: int) -> tuple[Any, Tensor]:
        # What a library sets up with its first call must not happen in the graph; that a step is run twice changes
        # nothing, as it writes to the same places.
        aside = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(aside):
            self._run(rows, columns)
        torch.cuda.current_stream(self.device).wait_stream(aside)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            scores = self._run(rows, columns)
        return graph, scores

    def _run(self, rows: int, columns: int) -> Tensor:
        own = self.block[:, :rows, :, :columns]
        layers = [_Layer(own[number : number + 2], self.at) for number in range(0, len(own), 2)]
        bias = self.bias[:rows]
        bias.index_fill_(1, self.at, 0.0)
        with _attention(self.model.config):
            found: Tensor = self.model(
                input_ids=self.tokens[:rows],
                attention_mask=bias[:, None, None, :columns],
                position_ids=self.places[:rows],
                past_key_values=Cache(layers=layers),
                use_cache=True,
            ).logits[:, -1]
        return found

    def works(self) -> bool:
        """Whether a captured step gives what the model gives; if not, it is said why."""
        tokens = torch.tensor([[1, 2, 3]], device=self.device)
        try:
            with torch.inference_mode():
                wanted = self.model(tokens).logits[0].float()
                past = GraphedPast(self, [[self._empty()]], 3)
                found = torch.stack([past.read(tokens[:, place : place + 1])[0].float().clone() for place in range(3)])
                near = torch.allclose(found.softmax(-1), wanted.softmax(-1), atol=2e-2)
        except Exception as error:  # capturing depends on the model's code, torch and the driver
            near, why = False, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        else:
            why = "its scores differ"
        self.clear()
        if not near:
            log.warning("the model's steps cannot be captured as CUDA graphs (%s); they are run one by one", why)
        return near

    def _empty(self) -> Tensor:
        layers, heads, size = self.shape
        return torch.empty((layers, heads, 0, size), dtype=self.model.dtype, device=self.device)


class GraphedPast:
    """The past of a batch in the memory of `Graphs`; the past before is gone.

    Args:
        graphs: Whose memory to take.
        rows: For each row the pieces, each (2L, H, T, d), of what is known of it already, in order.
        room: Tokens that may still come.
    """

    def __init__(self, graphs: Graphs, rows: Sequence[Sequence[Tensor]], room: int) -> None:
        known = [sum(piece.shape[2] for piece in pieces) for pieces in rows]
        self._graphs, self._count = graphs, len(rows)
        self.length = max(known)
        """Tokens of the longest row; shorter ones are filled up at the left."""
        graphs.start(len(rows), self.length + room)
        for row, (pieces, own) in enumerate(zip(rows, known, strict=True)):
            at = self.length - own
            for piece in pieces:
                graphs.block[:, row, :, at : at + piece.shape[2]] = piece
                at += piece.shape[2]
        own_tokens = torch.tensor(known, device=graphs.device)[:, None]
        columns = torch.arange(graphs.bias.shape[1], device=graphs.device)
        known_columns = (columns >= self.length - own_tokens) & (columns < self.length)
        graphs.bias[: self._count].masked_fill_(known_columns, 0.0)
        graphs.places[: self._count] = own_tokens
        graphs.at.fill_(self.length)

    def read(self, tokens: Tensor) -> Tensor:
        """Read the next token of every row, (B, 1); return the scores of the one after it, (B, V), until the next."""
        own = self._graphs
        own.tokens[: self._count] = tokens
        scores = own.step(self._count, self.length + 1)
        self.length += 1
        own.places += 1
        own.at += 1
        return scores[: self._count]

    def keep(self, rows: Sequence[int]) -> bool:
        """Drop all other rows, if a smaller step does for those that stay."""
        if rounded_rows(len(rows)) >= rounded_rows(self._count):
            return False
        own = self._graphs
        index = torch.tensor(list(rows), device=own.device)
        for layer in own.block:
            layer[: len(rows), :, : self.length] = layer[index, :, : self.length]
        own.bias[: len(rows)] = own.bias[index]
        own.places[: len(rows)] = own.places[index]
        self._count = len(rows)
        return True

    def written(self, row: int, length: int) -> Tensor:
        """Return keys and values (2L, H, T, d) of the last tokens of a row, a view."""
        return self._graphs.block[:, row, :, self.length - length : self.length]


def rounded_rows(rows: int) -> int:
    """Return how many rows a step is captured for."""
    most = _ROWS[-1]
    return next((size for size in _ROWS if size >= rows), -(-rows // most) * most)


def rounded_columns(tokens: int) -> int:
    """Return how many columns a step is captured for."""
    return -(-tokens // _COLUMNS) * _COLUMNS


@contextmanager
def _attention(config: Any) -> Iterator[None]:
    """Have the model attend by `attend`; prompts are read as it does without."""
    before = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before
