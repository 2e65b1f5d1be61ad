"""SFT of one student by TRL, on a fixed number of tokens.

Every selection is trained on the same number of tokens, so a small one is seen more often than a large one: what is
compared is the data, not the work. The loss is on the completion alone. Rows are never cut.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from recipes.select_sft.sizes import Size

log = logging.getLogger(__name__)

Row = Mapping[str, Any]


def fit_to_budget(rows: int, length: Callable[[int], int], budget: int, seed: int) -> list[int]:
    """Return rows, shuffled anew for each repeat, until they hold `budget` tokens.

    Args:
        rows: How many there are.
        length: Tokens of one; asked only of rows that come to be drawn.
        budget: Tokens.
        seed: Draws.
    """
    random, drawn, held = Random(seed), list[int](), 0
    while held < budget:
        order = list(range(rows))
        random.shuffle(order)
        for row in order:
            if held >= budget:
                break
            drawn.append(row)
            held += length(row)
    return drawn


def made_of(rows: Sequence[Row]) -> dict[str, float]:
    """Return the share of right traces of a selection, and the share of each kind."""
    kinds = Counter(row["policy"] if row["policy"] in ("reference", "corrupted") else "policy" for row in rows)
    right = sum(bool(row["correct"]) for row in rows)
    return {"right": right / len(rows), **{kind: number / len(rows) for kind, number in kinds.items()}}


def train(data: Path, student: Path, size: Size, seed: int) -> tuple[Any, dict[str, Any]]:
    """Train, and return the model, on the CPU or GPU it was trained on, and what there is to say of it.

    Args:
        data: What `reasonflux-prm select --format prompt-completion` wrote.
        student: Folder of the model to begin with.
        size: Tokens, batches, learning rate.
        seed: Of the order of rows.
    """
    from transformers import AutoTokenizer

    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(student)
    read: dict[int, dict[str, list[int]]] = {}

    def length(row: int) -> int:
        if row not in read:
            read[row] = tokens_of(rows[row], tokenizer)
        return len(read[row]["input_ids"])

    order = fit_to_budget(len(rows), length, size.tokens, seed)
    trainer = _fitted(student, [read[row] for row in order], tokenizer, size, seed)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tokens = sum(length(row) for row in order)
    found = {
        "rows": len(rows),
        "made_of": made_of(rows),
        "tokens": tokens,
        "tokens_a_row": round(tokens / len(order), 1),
        "repeats": round(len(order) / len(rows), 2),
        "steps": trainer.state.global_step,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
    }
    return trainer.model, found


def tokens_of(row: Row, tokenizer: Any) -> dict[str, list[int]]:
    """Return a row as TRL trains on it; the prompt's labels are -100."""
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False)
    if whole[: len(prompt)] != prompt:
        raise SystemExit("the student's chat template does not begin a conversation as it begins a prompt")
    return {"input_ids": whole, "labels": [-100] * len(prompt) + whole[len(prompt) :]}


def _fitted(student: Path, rows: Sequence[Mapping[str, list[int]]], tokenizer: Any, size: Size, seed: int) -> Any:
    """Return a trainer that has trained; where memory runs out, fewer rows are computed at once."""
    import torch

    at_once = size.at_once
    while True:
        try:
            return _fit(student, rows, tokenizer, size, at_once, seed)
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
        # Not in the except clause, where the traceback keeps the tensors alive.
        at_once //= 2
        torch.cuda.empty_cache()
        log.warning("memory ran out; from here on %d rows are computed at once", at_once)


def _fit(
    student: Path, rows: Sequence[Mapping[str, list[int]]], tokenizer: Any, size: Size, at_once: int, seed: int
) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    gpu = torch.cuda.is_available()
    with TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=size.batch // at_once,
            # Rows of like lengths make an update, so that little is computed on padding.
            train_sampling_strategy="group_by_length",
            learning_rate=size.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            # TRL would cut at 1,024 tokens, and compute everything twice to save memory.
            max_length=None,
            gradient_checkpointing=False,
            seed=seed,
            data_seed=seed,
            bf16=gpu,
            use_cpu=not gpu,
            save_strategy="no",
            report_to=[],
            logging_steps=10,
            logging_first_step=True,
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            # As float32: 135M parameters are learnt badly in bfloat16.
            model=AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32),
            args=arguments,
            train_dataset=Dataset.from_list([dict(row) for row in rows]),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    # The optimizer's states are as large as two models.
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.accelerator.free_memory()
    trainer.model.zero_grad(set_to_none=True)
    return trainer
