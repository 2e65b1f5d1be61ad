"""How much memory and how many GPU hours the training of a size takes, from its shape.

    python -m recipes.paper_sizes.estimate [--traces 10000] [--mean-tokens 6000] [--peak-tflops 989] [--utilisation 0.4]

Parameters and matrix-product FLOPs are exact (tests compare them with models of transformers). Activations are a count
of what autograd keeps with one checkpoint a layer, with the residual stream in float32 as under autocast; what kernels
and the allocator take beyond that is not in it. Hours hang on the utilisation, which is assumed until
`recipes.paper_sizes.measure` has run on the GPU.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Final

from reasonflux_prm.prm.checkpoint import body_shapes
from reasonflux_prm.prm.config import DecoderConfig
from recipes.paper_sizes.settings import CONTEXT, MEAN_TOKENS, SIZES, STEP_LABELLED, Size

EPOCHS: Final = 3
PEAK_TFLOPS: Final = 989.0
"""Dense bfloat16 of an H100 SXM, as its data sheet has it."""
UTILISATION: Final = 0.4
"""Useful share of the peak, assumed."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on each GPU."""

    weights: int
    """float32: with bf16 the products are taken in half precision, and the weights stay."""
    gradients: int
    optimizer: int
    """Two moments of AdamW, float32."""
    half_copies: int
    """Weights of the products in bfloat16, which autocast keeps during a forward pass."""
    checkpoints: int
    """The input of each layer, kept until its backward pass."""
    one_layer: int
    """What is kept inside the layer whose backward pass is under way."""

    @property
    def total(self) -> int:
        """Return their sum."""
        return sum(asdict(self).values())


def parameters(config: DecoderConfig) -> int:
    """Return the number of parameters of a token classifier with one label: body, head and its bias."""
    return sum(prod(shape) for shape in body_shapes(config).values()) + config.hidden + 1


def forward_flops(config: DecoderConfig, length: int) -> int:
    """Return the useful FLOPs of one sequence's forward pass: matrix products, and attention to what is not behind."""
    attention = 2 * config.layers * config.heads * config.head_dim * length * (length + 1)
    return config.flops_per_token * length + attention


def training_flops(config: DecoderConfig, length: int) -> int:
    """Return the FLOPs of training on one sequence: forward, its recomputation, and backward at twice its cost."""
    return 4 * forward_flops(config, length)


def memory(config: DecoderConfig, tokens: int, gpus: int = 1) -> Memory:
    """Return the memory of training in full with bf16, AdamW and a checkpoint a layer.

    Args:
        config: The shape.
        tokens: Of one forward pass.
        gpus: Among which weights, gradients and optimizer are shared out.
    """
    share = -(-parameters(config) // gpus)
    products = config.flops_per_token // 2
    half = 2 * (products if gpus == 1 else -(-products // config.layers))
    return Memory(
        weights=4 * share,
        gradients=4 * share,
        optimizer=8 * share,
        half_copies=half,
        checkpoints=4 * config.layers * tokens * config.hidden,
        one_layer=tokens * layer_bytes(config),
    )


def layer_bytes(config: DecoderConfig) -> int:
    """Return the bytes that autograd keeps of one token inside one layer.

    float32: input and normalised input of both norms (4 d). bfloat16: that of the products of attention and of the
    feed-forward part (2 d), queries, keys and values before and after the rotation, what attention gave, and of the
    feed-forward part both products, the activation and their product (4 f).
    """
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return 4 * 4 * config.hidden + 2 * (2 * config.hidden + 3 * q + 3 * kv + 4 * config.intermediate)


def gpu_hours(size: Size, traces: int, mean_tokens: int, tflops: float, utilisation: float) -> float:
    """Return GPU hours of the whole training, traces taken as long as the mean and cut at the context."""
    config = size.decoder()
    whole, rest = divmod(mean_tokens, CONTEXT)
    flops = whole * training_flops(config, CONTEXT) + training_flops(config, rest)
    return EPOCHS * traces * flops / (tflops * 1e12 * utilisation) / 3600


def main() -> None:
    """Print a table in Markdown, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=STEP_LABELLED)
    parser.add_argument("--mean-tokens", type=int, default=MEAN_TOKENS)
    parser.add_argument("--peak-tflops", type=float, default=PEAK_TFLOPS)
    parser.add_argument("--utilisation", type=float, default=UTILISATION)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [_row(size, args) for size in SIZES.values()]
    if args.json:
        print(json.dumps({"assumed": vars(args), "sizes": rows}, indent=1))
        return
    head = ("size", "parameters", "GPUs", "states, GiB each", "activations, GiB each", "GPU hours")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        own = row["memory"]
        kept = own["checkpoints"] + own["one_layer"]
        cells = (f"{row['parameters']:,}", str(row["gpus"]), _gib(row["total_bytes"] - kept), _gib(kept))
        print(f"| {row['size']} | {' | '.join(cells)} | {row['gpu_hours']:.1f} |")


def _row(size: Size, args: argparse.Namespace) -> dict[str, Any]:
    config = size.decoder()
    own = memory(config, size.pack_tokens, size.gpus)
    return {
        "size": size.name,
        "parameters": parameters(config),
        "gpus": size.gpus,
        "memory": asdict(own),
        "total_bytes": own.total,
        "gpu_hours": gpu_hours(size, args.traces, args.mean_tokens, args.peak_tflops, args.utilisation),
    }


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"


if __name__ == "__main__":
    main()
