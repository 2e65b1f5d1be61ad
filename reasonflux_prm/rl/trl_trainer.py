"""TRL: a GRPO trainer whose advantages are dense, one for each token, from the PRM's step rewards.

    from reasonflux_prm.rl.shaping import Process
    from reasonflux_prm.rl.trl_trainer import ProcessGRPOTrainer

    trainer = ProcessGRPOTrainer(model, shaping=Process(beta=0.5), args=GRPOConfig(...), train_dataset=problems)

It is TRL's `GRPOTrainer` (1.16) with one thing changed: behind `_generate_and_score_completions`, the advantages (B,)
are replaced by (B, T), which `_compute_loss` takes ("To support subclasses that provide advantages with shape (B, T)").
Group statistics are over the rollouts of all processes. Tokens that the policy did not write (padding, tool results)
have advantage 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Final

import torch

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.rl.dense import Floats, padded
from reasonflux_prm.rl.monitor import Monitor
from reasonflux_prm.rl.rollouts import Rollout
from reasonflux_prm.rl.scorer import Overlong, Rewarded
from reasonflux_prm.rl.shaping import Shaping, open_shaping
from reasonflux_prm.rl.trl import LOG, SampleReader, metrics, trainer_scorer

try:
    from accelerate.utils import gather_object
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    raise MissingExtra('training with TRL needs it: pip install "reasonflux-prm[trl]"') from error

LOSSES: Final = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")
"""Loss types whose terms are one a token, each with an advantage of its own."""


class Recorder:
    """The reward function that hands TRL one number a completion, and keeps the rollouts for the trainer."""

    def __init__(self, shaping: Shaping, reader: SampleReader, scorer: Any) -> None:
        self.__name__ = f"prm_{shaping.name}"
        self.rewarded: list[Rewarded] = []
        self._shaping, self._reader, self._scorer = shaping, reader, scorer

    def __call__(
        self, prompts: Any, completions: Any, completion_ids: Any, log_metric: Any = None, **columns: Any
    ) -> list[float | None]:
        """Return what TRL logs as the reward: the outcome, or the PRM's reward where the shaping takes no outcome."""
        self.rewarded = self._scorer(self._reader.samples(prompts, completions, completion_ids, columns))
        rollouts = [own.rollout for own in self.rewarded]
        missing = [self._shaping.unscored(rollout) for rollout in rollouts]
        if log_metric is not None:
            for name, value in metrics(self.rewarded, missing).items():
                log_metric(name, value)
        shown = [r.outcome if self._shaping.needs_outcome else r.reward for r in rollouts]
        return [reward if lack is None else None for reward, lack in zip(shown, missing, strict=True)]


class ProcessGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO trainer with advantages from a `shaping.Shaping`, dense ones included.

    Args:
        model: As in TRL.
        shaping: The method, or its name with the default settings.
        prm: As in `scorer.open_score`.
        grader: As in `trl.PRMReward`.
        answer: The column of reference answers.
        problem: The column of problems; None takes the prompt.
        monitor: Watches the rollouts of all processes for collapse.
        penalty: The overlong penalty.
        reward_funcs: More reward functions, or None. Their advantage, one a rollout and computed by TRL, is added.
        args: As in TRL. Settings that make no sense with token advantages are refused.
        others: The other arguments of `GRPOTrainer`.

    Raises:
        UsageError: See `args`.
        MissingExtra: TRL is not installed (when this module is imported).
    """

    def __init__(
        self,
        model: Any,
        shaping: str | Shaping = "process",
        prm: Any = "embedded",
        *,
        grader: str | Grader | None = None,
        answer: str = "answer",
        problem: str | None = None,
        monitor: Monitor | None = None,
        penalty: Overlong | None = None,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        **others: Any,
    ) -> None:
        self.shaping = open_shaping(shaping) if isinstance(shaping, str) else shaping
        self.monitor = monitor
        more = reward_funcs if isinstance(reward_funcs, list) else [] if reward_funcs is None else [reward_funcs]
        # The caller's are not written to.
        args = copy(args) if args is not None else GRPOConfig()
        check_arguments(args, len(more))
        self._is_alone = not more
        if more:
            args.reward_weights = [0.0, *(args.reward_weights or [1.0] * len(more))]
        reader = SampleReader(answer, problem, None)
        scorer = trainer_scorer(self.shaping, prm, grader, None, penalty)
        self._recorder = Recorder(self.shaping, reader, scorer)
        super().__init__(model, reward_funcs=[self._recorder, *more], args=args, **others)
        # The trainer has found the policy's tokenizer by now.
        tokenizer = getattr(self.processing_class, "tokenizer", self.processing_class)
        reader.use(tokenizer)
        scorer.tokenizer = tokenizer

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        rewarded = self._recorder.rewarded
        everyone = gather_object([(own.rollout, own.completion.text) for own in rewarded])
        mode = "train" if self.model.training else "eval"
        size = self.num_generations if mode == "train" else self.num_generations_eval
        rollouts = in_groups([rollout for rollout, _ in everyone], size)
        first = self.accelerator.process_index * len(rewarded)
        own = self.shaping.advantages(rollouts)[first : first + len(rewarded)]
        dense = token_advantages(own, output)
        output["advantages"] = dense if self._is_alone else dense + output["advantages"].unsqueeze(1) * _mask(output)
        if self.monitor is not None and mode == "train":
            self._watch(rollouts, [text for _, text in everyone])
        return output

    def _watch(self, rollouts: Sequence[Rollout], texts: Sequence[str]) -> None:
        assert self.monitor is not None
        signs, alarms = self.monitor.update(rollouts, texts)
        for name, value in signs.metrics().items():
            self._metrics["train"][f"monitor/{name}"].append(value)
        if self.accelerator.is_main_process:
            for alarm in alarms:
                LOG.warning("batch %d, %s: %s", self.monitor.batches, alarm.kind, alarm.message)


def in_groups(rollouts: Sequence[Rollout], size: int) -> list[Rollout]:
    """Return the rollouts of all processes, each `size` in a row named a group: so TRL's sampler orders them.

    Two rows of a data set with the same prompt are two groups, as in TRL.
    """
    return [replace(rollout, group=n // size) for n, rollout in enumerate(rollouts)]


def token_advantages(advantages: Sequence[Floats], output: Any) -> torch.Tensor:
    """Return advantages as TRL's batch has them: (B, T), zeros where the policy wrote nothing.

    Args:
        advantages: (T,) a rollout of this process.
        output: What `_generate_and_score_completions` gives: completions are padded on the right.
    """
    ids = output["completion_ids"]
    dense = torch.from_numpy(padded(advantages, ids.size(1))).to(device=ids.device, dtype=torch.float32)
    return dense * _mask(output)


def _mask(output: Any) -> torch.Tensor:
    mask: torch.Tensor = output["completion_mask"]
    return mask * output["tool_mask"] if "tool_mask" in output else mask


def check_arguments(args: GRPOConfig, others: int) -> None:
    """Refuse settings that take one advantage a sequence, or that would be without effect.

    Args:
        args: The trainer's.
        others: How many more reward functions there are.
    """
    if args.loss_type not in LOSSES:
        raise UsageError(
            f"loss_type {args.loss_type!r} weighs whole sequences, and advantages are one a token; choose one of "
            f"{', '.join(LOSSES)}"
        )
    if args.importance_sampling_level != "token":
        raise UsageError(
            f"importance_sampling_level {args.importance_sampling_level!r} gives all tokens of a sequence one ratio, "
            "so their advantages would be averaged away; leave it at 'token'"
        )
    if args.off_policy_mask_threshold is not None:
        raise UsageError(
            "off_policy_mask_threshold drops sequences by the sign of their one advantage, and here there is one a "
            "token; leave it out"
        )
    if not others and args.scale_rewards not in ("group", True):
        raise UsageError(
            f"scale_rewards {args.scale_rewards!r} would be without effect: the advantages are the shaping's; give it "
            "`scale` and leave scale_rewards at 'group'"
        )
    if not others and args.multi_objective_aggregation != "sum_then_normalize":
        raise UsageError("multi_objective_aggregation is for several reward functions, and there is one; leave it out")
    if args.reward_weights is not None and len(args.reward_weights) != others:
        raise UsageError(
            f"reward_weights are for the further reward functions, of which there are {others}, got "
            f"{len(args.reward_weights)}; the shaping has weights of its own"
        )
