"""How fast a local policy writes on a GPU: steps captured as CUDA graphs against steps started kernel by kernel.

Random weights of a shape (SmolLM2-135M's by default), prompts of 120 to 179 tokens, eight samples a prompt, 128 tokens
each, temperature 1. Also how many greedy texts of 40 tokens the two ways agree on, token for token: in bfloat16 they
part where two tokens are within rounding of each other.

    python -m benchmarks.sampling --sequences 2048 512 --repeats 2 -o sampling.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from reasonflux_prm.policy.local import LocalPolicy
from reasonflux_prm.prm.embedded.install import ensure_base

SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
TINY = {**SHAPE, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 3}
GREEDY, GREEDY_TOKENS = 300, 40


def write_model(folder: Path, shape: dict[str, Any]) -> None:
    """Write a model of the shape with random weights, and the embedded base's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2, **shape)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(ensure_base()).save_pretrained(folder)


def rate(policy: LocalPolicy, prompts: list[list[int]], tokens: int) -> float:
    """Return the tokens written a second."""
    began = time.perf_counter()
    written = policy.continue_tokens(prompts, max_tokens=tokens, seed=0)
    return sum(map(len, written)) / (time.perf_counter() - began)


def measure(policy: LocalPolicy, args: argparse.Namespace) -> dict[str, Any]:
    """Return the rates with graphs and without, and on how many greedy texts they agree."""
    prompts = [list(range(100, 220 + number % 60)) for number in range(max(*args.sequences, GREEDY) // 8 + 1)]
    repeated = [prompt for prompt in prompts for _ in range(8)]
    policy.continue_tokens(repeated[:8], max_tokens=1)
    graphs, found = policy._graphs, {}
    for way, used in (("graphs", graphs), ("kernels", None)):
        policy._graphs = used
        for number in args.sequences:
            name = f"{way}, {number} sequences"
            found[name] = [round(rate(policy, repeated[:number], args.tokens)) for _ in range(args.repeats)]
    greedy = []
    for used in (graphs, None):
        policy._graphs = used
        greedy.append(policy.continue_tokens(repeated[:GREEDY], max_tokens=GREEDY_TOKENS, temperature=0.0))
    same = sum(a == b for a, b in zip(*greedy, strict=True))
    return {"captured": graphs is not None, "tokens_per_s": found, "greedy_texts": GREEDY, "same": same}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, nargs="+", default=[2048, 512])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2, help="the first captures the graphs")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, which shows that the code runs")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), TINY if args.tiny else SHAPE)
        policy = LocalPolicy(folder)
        report = {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}
        text = json.dumps(report | measure(policy, args), indent=1)
        policy.close()
    print(text)
    if args.output:
        args.output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
