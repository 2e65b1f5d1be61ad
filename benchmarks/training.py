"""How fast training is: tokens/s of our packed training, of the same on padded batches, and of TRL 1.13's PRM trainer.

The three train the same model on the same traces, in batches of the same traces in the same order, with AdamW at one
rate and hard labels, so they do the same thing, and their losses are compared step by step: binary cross entropy of one
label is the cross entropy of two whose logits differ by that one's, and both heads move alike if the rate of ours is
doubled. They differ in how a batch is laid out: end to end, or padded to its longest trace. Tokens are the traces' own;
padding counts as nothing. Ratios are of the medians over rounds of interleaved runs, within one run of this command; on
a machine that others use too, those by processor time (one thread) say more than those by the clock.

TRL removed its trainer after 1.13, so that needs an environment of its own (`pip install torch trl==1.13.0`):

    python -m benchmarks.training --data STEPS.jsonl --trl-python TRL/bin/python -o training.json
    python -m benchmarks.training --data STEPS.jsonl --base embedded-base --steps 8

Without --base the model is a small Llama with random weights and the embedded base's tokenizer.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    TrainerCallback,
    TrainingArguments,
)

from reasonflux_prm.prm.embedded.install import ensure_base
from reasonflux_prm.training.config import TrainConfig
from reasonflux_prm.training.examples import Example
from reasonflux_prm.training.model import build
from reasonflux_prm.training.run import Prepared, prepare
from reasonflux_prm.training.trainer import PRMTrainer

RATE: Final = 1e-4
HOST: Final = Path(__file__).with_name("training_trl_host.py")
TOLERANCE: Final = 1e-4
"""Of losses where all do the same thing."""
Batches = Sequence[tuple[int, ...]]


class Timed(PRMTrainer):
    """Our trainer; notes the loss and the seconds of every step."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.losses: list[float] = []
        self.clock = Clock()
        self.add_callback(self.clock)

    def compute_loss(self, *args: Any, **named: Any) -> Any:
        """Return the loss, and note it."""
        loss = super().compute_loss(*args, **named)
        self.losses.append(float(loss.detach()))
        return loss


class Padded(Timed):
    """The same on rows padded to the longest, with a mask: what batches of traces are without packing."""

    def _logits(self, model: nn.Module, inputs: Any) -> Tensor:
        starts = inputs["packed_starts"]
        rows = [inputs["input_ids"][0, a:b] for a, b in pairwise(starts)]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        mask = (torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]).long()
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[..., 0].float()
        flat = torch.cat([row[:length] for row, length in zip(logits, lengths.tolist(), strict=True)])
        read: Tensor = flat[inputs["reads"]]
        return read


class Clock(TrainerCallback):  # type: ignore[misc]
    """Notes the seconds of every step, by the clock and of this process's processors."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.processor_seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.began, self.processor_began = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.began)
        self.processor_seconds.append(time.process_time() - self.processor_began)


# --- what is trained ------------------------------------------------------------------------------------------------


def small_base(folder: Path, seed: int, width: int, layers: int) -> Path:
    """Write a small Llama with random weights and the tokenizer of the embedded base."""
    tokenizer = ensure_base()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=json.loads((tokenizer / "config.json").read_text("utf-8"))["vocab_size"],
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        num_key_value_heads=max(1, width // 128),
        max_position_embeddings=8192,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    return folder


def configured(args: argparse.Namespace, base: str, output: Path) -> TrainConfig:
    """Return the configuration that does what TRL's trainer does: cross entropy of hard labels, each step alike."""
    return TrainConfig(
        data=tuple(args.data),
        output=str(output),
        base=base,
        dev_share=0.0,
        context=args.context,
        overflow="refuse",
        loss="bce",
        weighting="step",
        lambda_final=0.0,
        epochs=1.0,
        learning_rate=RATE,
        # TRL's head has a row for each of two labels, which move apart: twice the rate of one.
        head_rate_factor=2.0,
        warmup=0.0,
        schedule="constant",
        max_grad_norm=0.0,
        trackers=("none",),
        seed=args.seed,
    )


def chosen(examples: Sequence[Example], args: argparse.Namespace) -> Batches:
    """Return batches of traces drawn at random, so that lengths are mixed."""
    numbers = [n for n, example in enumerate(examples) if set(example.targets.tolist()) <= {0.0, 1.0}]
    needed = args.batch * args.steps
    if len(numbers) < needed:
        raise SystemExit(f"expected at least {needed} traces with hard labels, got {len(numbers)}; give more --data")
    drawn = random.Random(args.seed).sample(numbers, needed)
    return [tuple(drawn[start : start + args.batch]) for start in range(0, needed, args.batch)]


def ours(kind: type[Timed], prepared: Prepared, batches: Batches, output: Path) -> dict[str, Any]:
    """Train with our trainer, a batch a step; return losses and seconds."""
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=1,
        max_steps=len(batches),
        learning_rate=RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=0.0,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        seed=prepared.config.seed,
        accelerator_config={"even_batches": False},
    )
    model = build(prepared.base, prepared.config)
    if kind is Padded:
        model.set_attn_implementation("sdpa")
    trainer = kind(
        model,
        arguments,
        config=prepared.config,
        examples=prepared.data.train.examples,
        packs=batches,
        dev=(),
        known={},
    )
    trainer.train()
    clock = trainer.clock
    return {"losses": trainer.losses, "seconds": clock.seconds, "processor_seconds": clock.processor_seconds}


def write_for_trl(folder: Path, prepared: Prepared, batches: Batches, args: argparse.Namespace) -> None:
    """Write model, traces and settings for the host; the head gets a row of zeros beside ours."""
    model = build(prepared.base, prepared.config)
    model.set_attn_implementation("sdpa")
    config = model.config.__class__.from_dict({**model.config.to_dict(), "num_labels": 2})
    two = AutoModelForTokenClassification.from_config(config)
    state = model.state_dict()
    for name in ("score.weight", "score.bias"):
        state[name] = torch.cat([torch.zeros_like(state[name]), state[name]])
    two.load_state_dict(state)
    two.save_pretrained(folder / "model")
    prepared.base.tokenizer.save(str(folder / "model" / "tokenizer.json"))
    lines = []
    for number in (number for batch in batches for number in batch):
        example = prepared.data.train.examples[number]
        labels = [-100] * len(example)
        for read, target in zip(example.reads.tolist(), example.targets.tolist(), strict=True):
            labels[read] = int(target)
        lines.append(json.dumps({"input_ids": example.tokens.tolist(), "labels": labels}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines), "utf-8")
    pad = prepared.base.tokenizer.id_to_token(0)
    host = {"batch": args.batch, "rate": RATE, "threads": torch.get_num_threads(), "pad": pad}
    (folder / "host.json").write_text(json.dumps(host), "utf-8")


def trl(python: str, folder: Path) -> dict[str, Any]:
    """Train with TRL in its environment; return losses, seconds and versions."""
    done = subprocess.run([python, str(HOST.resolve()), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"TRL's trainer failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads((folder / "trl.json").read_text("utf-8"))
    return found


# --- figures ---------------------------------------------------------------------------------------------------------


def compared(rounds: Sequence[dict[str, dict[str, Any]]], tokens: Sequence[int], warm: int) -> dict[str, Any]:
    """Return tokens/s of each way by round, ratios of medians, and the largest difference of losses.

    Args:
        rounds: For each round what each way returned.
        tokens: Of each step.
        warm: So many steps at the start of each run are not timed.
    """
    ways = list(rounds[0])
    first = rounds[0]
    return {
        "by_the_clock": _speeds(rounds, ways, sum(tokens[warm:]), "seconds", warm),
        "by_processor_time": _speeds(rounds, ways, sum(tokens[warm:]), "processor_seconds", warm),
        "losses": {way: first[way]["losses"] for way in ways},
        "largest_difference_of_losses": {
            way: max(abs(a - b) for a, b in zip(first["packed"]["losses"], first[way]["losses"], strict=True))
            for way in ways
            if way != "packed"
        },
    }


def _speeds(
    rounds: Sequence[dict[str, dict[str, Any]]], ways: Sequence[str], tokens: int, clock: str, warm: int
) -> dict[str, Any]:
    rates = {way: [tokens / sum(own[way][clock][warm:]) for own in rounds] for way in ways}
    middle = {way: statistics.median(values) for way, values in rates.items()}
    return {
        "tokens_per_s": {way: {"median": middle[way], "rounds": rates[way]} for way in ways},
        "packed_over": {way: middle["packed"] / middle[way] for way in ways if way != "packed"},
        "packed_over_by_round": {
            way: [rates["packed"][k] / rates[way][k] for k in range(len(rounds))] for way in ways if way != "packed"
        },
    }


def measured(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all ways in turn, round by round."""
    if args.threads:
        torch.set_num_threads(args.threads)
    base = args.base or str(small_base(folder / "base", args.seed, args.width, args.layers))
    prepared = prepare(configured(args, base, folder / "prm"))
    examples = prepared.data.train.examples
    batches = chosen(examples, args)
    sizes = [[len(examples[number]) for number in batch] for batch in batches]
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "packed": lambda: ours(Timed, prepared, batches, folder / "ours"),
        "padded": lambda: ours(Padded, prepared, batches, folder / "padded"),
    }
    if args.trl_python:
        write_for_trl(folder, prepared, batches, args)
        ways["trl"] = lambda: trl(args.trl_python, folder)
    rounds: list[dict[str, dict[str, Any]]] = []
    report: dict[str, Any] = {}
    for number in range(args.rounds):
        rounds.append({way: run() for way, run in ways.items()})
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
        report = _report(args, sizes, rounds)
        if args.output:
            # After each round, so that a run that is stopped has told what it knew.
            args.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def _report(
    args: argparse.Namespace, sizes: Sequence[Sequence[int]], rounds: Sequence[dict[str, dict[str, Any]]]
) -> dict[str, Any]:
    tokens = [sum(lengths) for lengths in sizes]
    padding = sum(len(lengths) * max(lengths) for lengths in sizes) / sum(tokens)
    return {
        "machine": {
            "device": "cuda" if torch.cuda.is_available() else platform.machine(),
            "threads": torch.get_num_threads(),
        },
        "base": args.base or f"random Llama, width {args.width}, {args.layers} layers",
        "traces": args.batch * args.steps,
        "batch": args.batch,
        "steps": args.steps,
        "rounds": len(rounds),
        "tokens": sum(tokens),
        "lengths": {"shortest": min(map(min, sizes)), "longest": max(map(max, sizes))},
        "padded_tokens_per_token": padding,
        "versions": {"torch": torch.__version__, **rounds[0].get("trl", {}).get("versions", {})},
        **compared(rounds, tokens, args.warm),
    }


def main() -> None:
    """Measure, print the figures, and fail if the losses differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="labelled steps, as `train` reads them")
    parser.add_argument("--base", help="embedded-base, a folder or a hub id; default a small random Llama")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8, help="traces of an optimizer step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm", type=int, default=2, help="steps of each run that are not timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trl-python", help="Python of an environment with TRL 1.13")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measured(args, Path(folder))
    print(json.dumps(report, indent=1))
    if max(report["largest_difference_of_losses"].values()) > TOLERANCE:
        sys.exit(f"losses differ by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
