"""Memory and tokens/s of training a size with random weights on this machine's GPU, beside the estimate.

    python -m recipes.paper_sizes.measure 1.5b --tokens 16384 --steps 8 -o measured.json

The model is built on the GPU from the shape alone, with the package's packed attention, checkpoints, bfloat16 and AdamW
as training has them, on packs of random sequences. One GPU holds 1.5b in full; `--layers` measures a part of 7b, whose
states need several. Without a GPU it runs only with `--tiny`, which tells that the code works and nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reasonflux_prm.training import attention
from recipes.paper_sizes.estimate import PEAK_TFLOPS, forward_flops, memory, parameters
from recipes.paper_sizes.settings import SIZES, Size

TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 500,
}


def build(size: Size, device: torch.device) -> Any:
    """Return the token classifier of the shape, with random weights in float32."""
    from transformers import AutoModelForTokenClassification, Qwen2Config

    attention.register()
    config = Qwen2Config(num_labels=1, use_cache=False, classifier_dropout=0.0, **size.shape)
    with torch.device(device):
        model = AutoModelForTokenClassification.from_config(config, attn_implementation=attention.NAME)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def step(model: Any, optimizer: torch.optim.Optimizer, lengths: Sequence[int], device: torch.device) -> float:
    """Do one optimizer step on a pack of random sequences; return the seconds it took."""
    starts = [0, *accumulate(lengths)]
    tokens = torch.randint(0, model.config.vocab_size, (1, starts[-1]), device=device)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    _wait(device)
    began = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16):
        logits: Tensor = model(input_ids=tokens, position_ids=positions, packed_starts=starts, use_cache=False).logits
    loss = ((torch.sigmoid(logits[0, ::64, 0].float()) - 0.5) ** 2).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measured(size: Size, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return what was measured, and what was estimated."""
    torch.manual_seed(0)
    model = build(size, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device.type == "cuda")
    lengths = [args.length] * (args.tokens // args.length)
    times = [step(model, optimizer, lengths, device) for _ in range(args.steps)][min(2, args.steps - 1) :]
    middle, config = statistics.median(times), size.decoder()
    useful = 3 * len(lengths) * forward_flops(config, args.length)
    found: dict[str, Any] = {
        "size": size.name,
        "layers": config.layers,
        "parameters": parameters(config),
        "tokens": sum(lengths),
        "sequence": args.length,
        "seconds": {"median": middle, "lowest": min(times), "highest": max(times), "steps": len(times)},
        "tokens_per_s": sum(lengths) / middle,
        "utilisation_without_recomputation": useful / middle / (args.peak_tflops * 1e12),
        "estimated_bytes": {**asdict(memory(config, sum(lengths))), "total": memory(config, sum(lengths)).total},
    }
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name()
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--tokens", type=int, default=16_384, help="of a pack")
    parser.add_argument("--length", type=int, default=4096, help="of each sequence")
    parser.add_argument("--steps", type=int, default=8, help="the first two are not timed")
    parser.add_argument("--layers", type=int, help="so many layers only")
    parser.add_argument("--peak-tflops", type=float, default=PEAK_TFLOPS)
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, on any device")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.tiny:
        sys.exit("expected a GPU, found none; --tiny runs the code on a shape that tells nothing of the real one")
    size = SIZES[args.size]
    changed = dict(size.shape) | (TINY if args.tiny else {})
    if args.layers:
        changed["num_hidden_layers"] = args.layers
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text = json.dumps(measured(replace(size, shape=changed), args, device), indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
