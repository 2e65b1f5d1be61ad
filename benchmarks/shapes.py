"""Scoring speed at the shapes of released PRMs, with random weights.

For each shape: tokens/s and model FLOPs utilisation (useful FLOPs over the device's peak) of our packed body and
reward head, and the ratio to released practice (transformers' causal LM, one trace at a time, full vocabulary logits)
on the same lengths. Medians, runs interleaved.

    python -m benchmarks.shapes --device cuda --shapes qwen-1.5b qwen-7b --peak-tflops 989 -o shapes.json
    python -m benchmarks.shapes --device cpu --shapes tiny --lengths 64 200 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from benchmarks.scoring import useful_flops
from reasonflux_prm.prm.checkpoint import body_shapes
from reasonflux_prm.prm.config import DecoderConfig
from reasonflux_prm.prm.decoder import Decoder
from reasonflux_prm.scoring.packing import plan

SHAPE_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
SHAPES: dict[str, dict[str, Any]] = {
    name: dict(zip(SHAPE_FIELDS, numbers, strict=True))
    for name, numbers in {
        "tiny": (64, 160, 2, 4, 2, 500),
        "qwen-1.5b": (1536, 8960, 28, 12, 2, 151_936),
        "qwen-7b": (3584, 18_944, 28, 28, 4, 152_064),
    }.items()
}
"""Qwen2.5-1.5B and -7B; the latter is also the shape of Qwen2.5-Math-PRM-7B and ReasonFlux-PRM-7B."""


def random_decoder(shape: dict[str, Any], context: int, device: torch.device, dtype: torch.dtype) -> Decoder:
    """Return a body of the shape with small random weights, made on the device."""
    config = DecoderConfig.from_json(
        {"model_type": "qwen2", "max_position_embeddings": context, "rope_theta": 1e6, **shape}, "shape"
    )
    weights = {
        name: torch.ones(size, device=device, dtype=dtype)
        if "norm" in name
        else torch.randn(size, device=device, dtype=dtype) * 0.02
        for name, size in body_shapes(config).items()
    }
    return Decoder(config, weights, [device] * config.layers)


def released(
    shape: dict[str, Any], context: int, device: torch.device, dtype: torch.dtype
) -> Callable[[Sequence[torch.Tensor]], None]:
    """Return released practice: the causal LM of transformers, one trace at a time."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(max_position_embeddings=context, **shape)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").eval()

    @torch.inference_mode()
    def run(sequences: Sequence[torch.Tensor]) -> None:
        for tokens in sequences:
            model(input_ids=tokens[None].to(device), use_cache=False)

    return run


def packed(decoder: Decoder, sequences: Sequence[torch.Tensor], budget: int) -> None:
    """Run the body over all sequences in packs of at most `budget` tokens."""
    for numbers in plan([len(tokens) for tokens in sequences], budget):
        chosen = [sequences[number] for number in numbers]
        decoder(torch.cat(chosen), [0, *accumulate(len(tokens) for tokens in chosen)])


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, the device's queue drained before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one shape."""
    device = torch.device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    sequences = [torch.randint(0, SHAPES[name]["vocab_size"], (length,)) for length in args.lengths]
    tokens = sum(args.lengths)
    decoder = random_decoder(SHAPES[name], max(args.lengths), device, dtype)
    rival = released(SHAPES[name], max(args.lengths), device, dtype)
    flops = useful_flops(decoder.config, args.lengths)
    times: dict[str, list[float]] = {"ours": [], "released": []}
    for repeat in range(args.repeats + 1):
        ours, theirs = (
            timed(lambda: packed(decoder, sequences, args.pack_tokens), device),
            timed(lambda: rival(sequences), device),
        )
        if repeat:  # the first round warms up
            times["ours"].append(ours)
            times["released"].append(theirs)
    result: dict[str, Any] = {"tokens": tokens, "lengths": args.lengths, "dtype": str(dtype)}
    for way, values in times.items():
        middle = statistics.median(values)
        result[way] = {
            "seconds": middle,
            "tokens_per_s": tokens / middle,
            "lowest_s": min(values),
            "highest_s": max(values),
        }
        if args.peak_tflops:
            result[way]["utilisation"] = flops / middle / (args.peak_tflops * 1e12)
    result["ratio"] = statistics.median(b / a for a, b in zip(times["ours"], times["released"], strict=True))
    if device.type == "cuda":
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return result


def main() -> None:
    """Measure the shapes that were asked for and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["qwen-1.5b", "qwen-7b"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384])
    parser.add_argument("--pack-tokens", type=int, default=32_768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--peak-tflops", type=float, default=None, help="dense bf16 peak of the device, for the utilisation"
    )
    parser.add_argument("-o", "--output", type=Path, default=None)
    args = parser.parse_args()
    report = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
        "torch": torch.__version__,
    }
    report |= {name: measure(name, args) for name in args.shapes}
    text = json.dumps(report, indent=2)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
