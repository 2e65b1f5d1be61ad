"""Trains with TRL's PRM trainer, in an environment that has TRL 1.13, for `benchmarks.training`.

    PYTHON benchmarks/training_trl_host.py FOLDER

`FOLDER` holds `model/` (two labels), `rows.jsonl` (input_ids and labels of each trace, in the order of training) and
`host.json` (batch, rate, threads). Losses and seconds of every step go to `trl.json` there. It imports nothing of ours.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast, TrainerCallback
from trl.experimental.prm import PRMConfig, PRMTrainer


class InOrder(PRMTrainer):  # type: ignore[misc]
    """TRL's trainer, over the traces in their order; notes the loss of every step."""

    losses: list[float]

    def _get_train_sampler(self, *_: Any, **__: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, *args: Any, **named: Any) -> Any:
        """Return the loss, and note it."""
        found = super().compute_loss(*args, **named)
        self.losses.append(float(found[0] if isinstance(found, tuple) else found))
        return found


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


def main() -> None:
    """Train over all rows once."""
    folder = Path(sys.argv[1])
    host = json.loads((folder / "host.json").read_text("utf-8"))
    torch.set_num_threads(host["threads"])
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "model" / "tokenizer.json"), pad_token=host["pad"])
    arguments = PRMConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=host["batch"],
        num_train_epochs=1,
        learning_rate=host["rate"],
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=0.0,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
    )
    model = AutoModelForTokenClassification.from_pretrained(str(folder / "model"), dtype=torch.float32)
    clock = Clock()
    trainer = InOrder(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.losses = []
    trainer.train()
    versions = {name: importlib.metadata.version(name) for name in ("trl", "transformers", "torch")}
    times = {"seconds": clock.seconds, "processor_seconds": clock.processor_seconds}
    found = {"losses": trainer.losses, **times, "versions": versions}
    (folder / "trl.json").write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main()
