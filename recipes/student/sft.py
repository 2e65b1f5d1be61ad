"""Teach a small student by supervised fine-tuning with TRL, for a fixed number of tokens.

In: a folder of a causal LM and rows of prompt and completion (`form.chat_rows`, or what `reasonflux-prm select --format
prompt-completion` writes). Out: a folder that `local:FOLDER` samples from. The same seed and rows give the same student
on the same machine. The budget counts the tokens that are learnt, those of the completions, so that students of
different data have learnt equally much; rows are gone over again, in a new order each time, until it is spent.

    python -m recipes.student.sft GSM8K_TRAIN.jsonl -o STUDENT --tokens 400000

Processes that `torchrun` starts share the rows of every update; on a CPU two of one thread are faster than one of two.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from reasonflux_prm.prm.embedded.install import ensure_base
from recipes.student.form import chat_rows, reference_traces

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SFTSettings:
    """How a student is taught."""

    tokens: int
    """Tokens of completions to learn, repeats counted."""
    seed: int = 0
    batch: int = 16
    """Rows of an update."""
    at_once: int = 4
    """Rows that are computed at once; `batch` must be a multiple. Their logits are what takes memory. On a GPU a batch
    of 64 at once takes 3 GB of them, and little more time than a batch of 4."""
    learning_rate: float = 3e-4
    rank: int | None = 16
    """Rank of the LoRA adapters of all linear layers, merged at the end; None trains all weights. The adapters, rounded
    to bfloat16 before they are merged, are kept in `adapter` beside the student: the base and these make it again."""
    whole: bool = False
    """Learn prompts as well as completions, as a model that knows no language needs to."""
    longest: int = 1024
    """Rows with more tokens are left out, and counted."""
    prompt_once: bool = False
    """Read what the rows that are computed at once begin with once, and not for each; gradients are the same. It pays
    where a long prompt is the same in all rows."""
    start_from: Path | None = None
    """Folder of the adapters of an earlier student of the same base, to go on from; they have their own rank."""
    frozen: int = 0
    """So many of the lowest layers stay as they are, which spares their gradients."""

    def __post_init__(self) -> None:
        if self.whole and self.prompt_once:
            raise ValueError(
                "whole learns the prompts of all rows, which prompt_once reads once; leave one of them out"
            )
        if self.start_from is not None and self.rank is None:
            raise ValueError("start_from goes on from adapters, and rank is None: give a rank, or a merged base")


def teach(base: Path, rows: Sequence[Row], output: Path, settings: SFTSettings) -> dict[str, int]:
    """Train, and write the student; a student that is already there is kept.

    Returns:
        Counts: rows, rows that were too long, rows that were learnt (repeats counted), and tokens.
    """
    if (output / "sft.json").is_file():
        counts: dict[str, int] = json.loads((output / "sft.json").read_text("utf-8"))
        return counts
    tokenizer = AutoTokenizer.from_pretrained(base)
    chosen, tokens, too_long = _until(rows, tokenizer, settings)
    counts = {"rows": len(rows), "too_long": too_long, "learnt": len(chosen), "tokens": tokens}
    model = _trained(base, chosen, output, settings)
    if int(os.environ.get("RANK", "0")):
        return counts  # the first process writes
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    (output / "sft.json").write_text(json.dumps(counts) + "\n", encoding="utf-8")
    return counts


def _sizes(row: Row, tokenizer: Any) -> tuple[int, int]:
    """Return the tokens of a whole row, and of its completion."""
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False)
    return len(whole), len(whole) - len(prompt)


def _until(rows: Sequence[Row], tokenizer: Any, settings: SFTSettings) -> tuple[list[Row], int, int]:
    """Draw rows, each once before any comes again, until their completions have the wanted number of tokens.

    Returns:
        The rows, their completions' tokens, and how many of the rows that were drawn are too long to be learnt.
    """
    rng, order = random.Random(settings.seed), list(range(len(rows)))
    sizes: dict[int, tuple[int, int]] = {}
    chosen: list[Row] = []
    tokens = 0
    while tokens < settings.tokens:
        rng.shuffle(order)
        before = len(chosen)
        for number in order:
            if tokens >= settings.tokens:
                break
            if number not in sizes:
                sizes[number] = _sizes(rows[number], tokenizer)
            whole, learnt = sizes[number]
            if whole <= settings.longest:
                chosen.append(rows[number])
                tokens += learnt
        if len(chosen) == before:
            raise SystemExit(f"none of the {len(rows)} rows has at most {settings.longest} tokens")
    return chosen, tokens, sum(whole > settings.longest for whole, _ in sizes.values())


class _PromptOnce(SFTTrainer):  # type: ignore[misc]
    """Reads what all rows of a batch begin with once."""

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of the learnt tokens, whose number over a whole update is `num_items_in_batch`."""
        tokens, labels = inputs["input_ids"], inputs["labels"]
        alike = (tokens == tokens[0]).all(0) & (labels == -100).all(0)
        shared = int(alike.long().cumprod(0).sum())
        past = None
        if shared:
            past = model(input_ids=tokens[:1, :shared], use_cache=True, logits_to_keep=1).past_key_values
            past.batch_repeat_interleave(len(tokens))
        # Scores are needed from the first learnt token on, and stand in front of what they are for.
        first = int((labels != -100).any(0).long().argmax())
        logits = model(
            input_ids=tokens[:, shared:],
            attention_mask=inputs["attention_mask"],
            past_key_values=past,
            use_cache=True,
            logits_to_keep=tokens.shape[1] - first + 1,
        ).logits[:, :-1]
        total = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels[:, first:].flatten(), reduction="sum"
        )
        learnt = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return (total / learnt, None) if return_outputs else total / learnt


def _trained(base: Path, rows: Sequence[Row], output: Path, settings: SFTSettings) -> Any:
    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = SFTConfig(
        output_dir=str(output / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=settings.at_once,
        gradient_accumulation_steps=settings.batch // settings.at_once // int(os.environ.get("WORLD_SIZE", "1")),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        train_sampling_strategy="group_by_length",  # rows of a batch are filled up to the longest
        max_length=None,  # longer rows were left out, and counted
        completion_only_loss=not settings.whole,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        seed=settings.seed,
        report_to="none",
        save_strategy="no",
        logging_steps=10,
        gradient_checkpointing=False,
    )
    adapters = None
    if settings.start_from is not None:
        model = PeftModel.from_pretrained(model, settings.start_from, is_trainable=True)
    elif settings.rank:
        adapters = LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear")
    trainer = (_PromptOnce if settings.prompt_once else SFTTrainer)(
        model=model,
        args=config,
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=adapters,
    )
    for name, weight in trainer.model.named_parameters():
        if any(f"layers.{number}." in name for number in range(settings.frozen)):
            weight.requires_grad_(False)
    trainer.train()
    if not settings.rank:
        return trainer.model
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_" in name:
                weight.copy_(weight.bfloat16())
    trainer.model.save_pretrained(output / "adapter")
    return trainer.model.merge_and_unload()


def main() -> None:
    """Teach the think-then-respond form by reference solutions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", type=Path, nargs="+", help="JSON lines with id, problem, answer, solution")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="folder of the model to teach; default the embedded PRM's base")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--start-from", type=Path, help="adapters of an earlier student")
    parser.add_argument("--frozen", type=int, default=0, help="so many of the lowest layers are not trained")
    parser.add_argument("--prompt-once", action="store_true", help="read what rows of a batch begin with once")
    args = parser.parse_args()
    rows = [row for path in args.problems for row in chat_rows(reference_traces(path))]
    settings = SFTSettings(
        args.tokens,
        args.seed,
        learning_rate=args.learning_rate,
        start_from=args.start_from,
        frozen=args.frozen,
        prompt_once=args.prompt_once,
    )
    print(json.dumps(teach(args.base or ensure_base(), rows, args.output, settings)))


if __name__ == "__main__":
    main()
