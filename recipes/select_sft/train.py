"""SFT of one student by TRL, on a fixed number of tokens.

Every selection is trained on the same number of tokens, so a small one is seen more often than a large one: what is
compared is the data, not the work. The loss is on the completion alone. Rows are never cut.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from reasonflux_prm.traces.write import atomic_path
from recipes.select_sft.sizes import Size


def fit_to_budget(lengths: Sequence[int], budget: int, seed: int) -> list[int]:
    """Return rows, shuffled anew for each repeat, until they hold `budget` tokens."""
    random, rows, held = Random(seed), list[int](), 0
    while held < budget:
        order = list(range(len(lengths)))
        random.shuffle(order)
        for row in order:
            if held >= budget:
                break
            rows.append(row)
            held += lengths[row]
    return rows


def train(data: Path, student: Path, output: Path, size: Size, seed: int) -> dict[str, Any]:
    """Train, save the student into `output`, and return what there is to say of it; a finished one is kept."""
    report = output / "trained.json"
    if report.exists():
        return dict(json.loads(report.read_text(encoding="utf-8")))
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(student)
    texts = [
        tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=True, return_dict=True)["input_ids"]
        for row in rows
    ]
    lengths = [len(text) for text in texts]
    order = fit_to_budget(lengths, size.tokens, seed)
    chosen = Dataset.from_list([{name: rows[row][name] for name in ("prompt", "completion")} for row in order])
    gpu = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(output),
        num_train_epochs=1,
        per_device_train_batch_size=size.batch,
        learning_rate=size.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        # TRL would cut at 1,024 tokens.
        max_length=None,
        seed=seed,
        data_seed=seed,
        bf16=gpu,
        use_cpu=not gpu,
        activation_checkpointing=False,
        save_strategy="no",
        report_to=[],
        logging_steps=5,
        logging_first_step=True,
        disable_tqdm=True,
    )
    # As float32: 135M parameters are learnt badly in bfloat16.
    trainer = SFTTrainer(model=str(student), args=arguments, train_dataset=chosen)
    trainer.train()
    trainer.save_model(str(output))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    found = {
        "rows": len(rows),
        "tokens": sum(lengths[row] for row in order),
        "repeats": round(len(order) / len(rows), 2),
        "steps": trainer.state.global_step,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
    }
    with atomic_path(report) as part:
        part.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return found
