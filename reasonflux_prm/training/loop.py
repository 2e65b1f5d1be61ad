"""The training itself: model, trainer and callbacks put together, and gone on with where a run stopped."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.utils import logging

from reasonflux_prm.training import frozen
from reasonflux_prm.training.dev import known_of
from reasonflux_prm.training.examples import Example
from reasonflux_prm.training.folder import RunFolder
from reasonflux_prm.training.model import build, with_lora
from reasonflux_prm.training.progress import Hook, Now, Reporter
from reasonflux_prm.training.run import Prepared, require_metric, trackers
from reasonflux_prm.training.trainer import PRMTrainer

_CHECKPOINTING: Final = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(TrainingArguments, name)
)
"""The field's name, which changes with version 6 of transformers."""
_SAVE_EVERY_S: Final = 600.0
"""One process alone saves at least so often."""


def fit(prepared: Prepared, folder: RunFolder, hook: Hook | None) -> PRMTrainer:
    """Train, and return the trainer with the best weights in it."""
    config, data = prepared.config, prepared.data
    # The hook tells how far it is, and our own messages what is wrong.
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    evaluates = bool(data.dev.examples)
    if evaluates:
        require_metric(prepared)
    arguments = _arguments(prepared, folder, evaluates)
    examples: list[Example] = [*data.train.examples, *data.dev.examples]
    with arguments.main_process_first():
        if arguments.process_index == 0:
            folder.claim(fresh=config.fresh)
    model: Any = build(prepared.base, config)
    activations = None
    if config.method == "lora":
        model = with_lora(model, prepared.base, config)
    elif config.method == "frozen":
        activations = _activations(model, prepared, folder, examples, hook)
        model = frozen.without_lower(model, config.layers_trained())
    elif config.bf16:
        model = model.float()
    train = len(data.train.examples)
    trainer = PRMTrainer(
        model,
        arguments,
        config=config,
        examples=examples,
        packs=prepared.packs,
        dev=range(train, len(examples)),
        known=known_of(data.dev.kept),
        activations=activations,
        pack_tokens=prepared.pack_tokens,
    )
    trainer.remove_callback(PrinterCallback)
    if config.patience is not None:
        trainer.add_callback(Patience(config.patience, f"eval_{config.select}", higher=config.select != "loss"))
    trainer.add_callback(ExtraSaves(config.save_steps, alone=prepared.processes == 1))
    if hook is not None:
        trainer.add_callback(Reporter(hook, prepared.step_tokens()))
    with arguments.main_process_first():
        checkpoint = folder.last_checkpoint()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def _activations(
    model: Any, prepared: Prepared, folder: RunFolder, examples: list[Example], hook: Hook | None
) -> frozen.Activations:
    config = prepared.config
    place = Path(config.cache) if config.cache else folder.work
    began = time.monotonic()

    def tell(done: int, total: int, tokens: int) -> None:
        if hook is not None:
            spent = max(time.monotonic() - began, 1e-6)
            rate = tokens / spent
            hook(Now("caching", done, total, rate, spent * (total - done) / done))

    model = model.to("cuda") if torch.cuda.is_available() else model
    below = frozen.Below(prepared.base, config.layers_trained(), config.cache_type)
    return frozen.cached(model, below, examples, place, prepared.pack_tokens, tell)


def _arguments(prepared: Prepared, folder: RunFolder, evaluates: bool) -> TrainingArguments:
    config = prepared.config
    steps = prepared.steps
    every = min(config.evaluate_steps or max(1, round(steps / config.epochs)), steps)
    report_to, saves_memory = trackers(config), config.gradient_checkpointing
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder.work / "tensorboard"))
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder.work),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=prepared.accumulate,
        max_steps=steps,
        learning_rate=config.rate(),
        weight_decay=config.weight_decay,
        warmup_steps=round(config.warmup * steps),
        lr_scheduler_type=config.schedule,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        bf16=config.bf16,
        logging_steps=config.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=evaluates,
        metric_for_best_model=config.select if evaluates else None,
        greater_is_better=config.select != "loss" if evaluates else None,
        report_to=report_to or "none",
        run_name=folder.path.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        use_cpu=not cuda,
        ddp_backend="gloo" if prepared.processes > 1 and not cuda else None,
        ddp_find_unused_parameters=False,
        # Shared out by us: accelerate would repeat packs to make the numbers even, and count them twice.
        accelerator_config={"even_batches": False},
        **({_CHECKPOINTING: True, f"{_CHECKPOINTING}_kwargs": {"use_reentrant": False}} if saves_memory else {}),
        **dict(config.extra),
    )
    # Several GPUs without a launcher: one is used, since a row of packed tokens cannot be split among them.
    _ = arguments.device
    arguments._n_gpu = min(1, arguments._n_gpu)
    return arguments


class Patience(TrainerCallback):  # type: ignore[misc]
    """Stops after so many evaluations in a row without a better one; told from the log, so it survives a kill."""

    def __init__(self, patience: int, metric: str, *, higher: bool) -> None:
        self.patience, self.metric, self.higher = patience, metric, higher

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop, if it is time."""
        values = [entry[self.metric] for entry in state.log_history if self.metric in entry]
        best = max(values) if self.higher else min(values)
        if len(values) - 1 - values.index(best) >= self.patience:
            control.should_training_stop = True


@dataclass
class ExtraSaves(TrainerCallback):  # type: ignore[misc]
    """Saves between evaluations, so that a kill costs minutes: every so many steps, and alone also by the clock."""

    steps: int | None
    alone: bool
    """By the clock only then: the clocks of several processes do not agree."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint, if it is time."""
        due = self.steps is not None and state.global_step % self.steps == 0
        if due or (self.alone and time.monotonic() - self._saved > _SAVE_EVERY_S):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take note."""
        self._saved = time.monotonic()
