"""The trainer: `transformers.Trainer` with packed batches, the joint objective, and an evaluation that PRMs call for.

What it changes: the data loader yields packs; the loss is a sum over reads divided by the traces of the whole optimizer
step, over all packs and processes; the head has a learning rate of its own; `evaluate` computes step AUC and best-of-N.
Everything else - accelerate, DDP, FSDP, DeepSpeed, checkpoints, schedules, trackers - is the library's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl, TrainingArguments

from reasonflux_prm.errors import ReasonFluxError
from reasonflux_prm.scoring.packing import plan
from reasonflux_prm.training.batches import Pack, PackSampler, Windows, collate, filled, shortest
from reasonflux_prm.training.config import TrainConfig
from reasonflux_prm.training.dev import DevRead, dev_metrics
from reasonflux_prm.training.examples import Example
from reasonflux_prm.training.frozen import Activations
from reasonflux_prm.training.objective import summed_loss


class NotFinite(ReasonFluxError, ArithmeticError):
    """The loss became NaN or infinite."""

    exit_code = 3


class PRMTrainer(Trainer):  # type: ignore[misc]
    """Trains a token classifier with one label.

    Args:
        model: Takes `packed_starts`; see `attention`.
        args: `max_steps` and `gradient_accumulation_steps` fit the packs.
        config: The objective.
        examples: The windows to train on, then those to evaluate on.
        packs: What each forward pass reads, for the whole training.
        dev: The numbers of the windows to evaluate on.
        known: For each trace of the dev set, what `dev.dev_metrics` must know.
        activations: Read instead of tokens, if given.
        pack_tokens: Tokens of a forward pass when evaluating.
        **others: As `Trainer` has them.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        config: TrainConfig,
        examples: Sequence[Example],
        packs: Sequence[Pack],
        dev: Sequence[int],
        known: Mapping[int, tuple[str, bool | None]],
        activations: Activations | None = None,
        pack_tokens: int = 2048,
        **others: Any,
    ) -> None:
        self.config, self.examples, self.packs, self.dev, self.known = config, examples, packs, dev, known
        self.activations, self.pack_tokens = activations, pack_tokens
        # The library asks for data sets; the loaders are made below.
        windows = Windows(examples)
        super().__init__(model, args, train_dataset=windows, eval_dataset=windows if dev else None, **others)
        # The loss is divided by the traces of the whole step here, so nobody divides it again.
        self.loss_is_scaled_for_ga = True

    # --- batches -----------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the packs of the whole training, in order."""
        return self._loader(self.packs)

    def _loader(self, packs: Sequence[Pack]) -> DataLoader[Any]:
        sampler = PackSampler(packs, shortest(self.examples))
        margin = self.config.pair_margin if self.config.lambda_pair else None
        fill = partial(self._collate, pair_margin=margin)
        loader = DataLoader(Windows(self.examples), batch_sampler=sampler, collate_fn=fill)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _collate(self, windows: Sequence[tuple[int, Example, bool]], pair_margin: float | None) -> dict[str, Any]:
        batch = collate(windows, pair_margin=pair_margin)
        if self.activations is not None:
            lengths = [len(example) for _, example, _ in windows]
            batch["inputs_embeds"] = self.activations.of(batch["numbers"], lengths)[None]
            del batch["input_ids"]
        return batch

    # --- loss --------------------------------------------------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        """Return the number of traces of the optimizer step, over all processes."""
        if not batch_samples:
            return None
        own = torch.stack([batch["count"] for batch in batch_samples]).sum().to(device)
        total: Tensor = self.accelerator.gather(own).sum()
        return total

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return this pack's part in the loss of the step."""
        logits = self._logits(model, inputs)
        total = summed_loss(logits, inputs, self.config.loss, self.config.lambda_pair)
        number = inputs["count"] if num_items_in_batch is None else num_items_in_batch
        # Gradients are averaged over processes, and this is a sum.
        loss = total * self.accelerator.num_processes / number
        if not math.isfinite(loss.item()):
            raise NotFinite(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}: train with a lower --lr, or without "
                "--bf16; the last checkpoint is from before that"
            )
        loss = loss.to(total.dtype)
        return (loss, logits) if return_outputs else loss

    def _logits(self, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        """Return the head's outputs at the reads, (R,) float32."""
        fed = {name: inputs[name] for name in ("input_ids", "inputs_embeds") if name in inputs}
        outputs = model(
            **fed, position_ids=inputs["position_ids"], packed_starts=inputs["packed_starts"], use_cache=False
        )
        logits: Tensor = outputs.logits[0, inputs["reads"], 0].float()
        return logits

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Give the head its own learning rate; biases and norms do not decay."""
        optimizer: torch.optim.Optimizer | None = self.optimizer
        if optimizer is None:
            trained = self.model if model is None else model
            decays = set(self.get_decay_parameter_names(trained))
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in trained.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault(("score." in name, name in decays), []).append(parameter)
            rate, decay = self.args.learning_rate, self.args.weight_decay
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, trained)
            optimizer = self.optimizer = kind(
                [
                    {
                        "params": parameters,
                        "lr": rate * (self.config.head_rate_factor if head else 1),
                        "weight_decay": decay if decays_too else 0.0,
                    }
                    for (head, decays_too), parameters in groups.items()
                ],
                **settings,
            )
        assert optimizer is not None
        return optimizer

    def _get_learning_rate(self) -> float:
        """Return the rate of the body, if it is trained, and not that of the head."""
        rates: list[float] = [float(rate) for rate in self.lr_scheduler.get_last_lr()]
        return min(rates)

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Return loss, step AUC, trajectory AUC and best-of-N on the dev set."""
        self.model.eval()
        reads, summed, count = self._read_dev()
        metrics = {"loss": summed / max(count, 1e-9), **dev_metrics(reads, self.known)}
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items() if value is not None}
        self.log(dict(named))
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named

    def _read_dev(self) -> tuple[list[DevRead], float, float]:
        from accelerate.utils import gather_object

        made = plan([len(self.examples[number]) for number in self.dev], self.pack_tokens)
        packs = filled([tuple(self.dev[place] for place in group) for group in made], self.accelerator.num_processes)
        model = self.model_wrapped if self.is_in_train else self.model
        found: list[DevRead] = []
        summed = count = 0.0
        with torch.no_grad():
            for batch in self._loader(packs):
                batch = self._prepare_inputs(batch)
                logits = self._logits(model, batch)
                summed += float(summed_loss(logits, batch, self.config.loss, self.config.lambda_pair))
                count += float(batch["count"])
                if float(batch["count"]):
                    found += self._dev_reads(batch["numbers"], torch.sigmoid(logits).tolist())
        gathered = gather_object([(found, summed, count)])
        model.train()
        return (
            [read for part, _, _ in gathered for read in part],
            sum(part for _, part, _ in gathered),
            sum(part for _, _, part in gathered),
        )

    def _dev_reads(self, numbers: Sequence[int], rewards: Sequence[float]) -> list[DevRead]:
        values = iter(rewards)
        return [
            DevRead(example.trace, step, target, next(values))
            for example in (self.examples[number] for number in numbers)
            for step, target in zip(example.steps.tolist(), example.targets.tolist(), strict=True)
        ]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; the library sees one long epoch, and the user the data set's."""
        share = self.state.epoch
        if share is not None:
            self.state.epoch = share * self.config.epochs
        try:
            super().log(logs, start_time)
        finally:
            self.state.epoch = share
