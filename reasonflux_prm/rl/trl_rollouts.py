"""TRL: rollouts written by a `LocalPolicy` with the trainer's weights, in place of TRL's own generation.

    from reasonflux_prm.policy.local import LocalPolicy
    from reasonflux_prm.rl.trl_rollouts import LocalRollouts

    GRPOTrainer(model, ..., rollout_func=LocalRollouts(LocalPolicy(model)))

Contract as of TRL 1.16 (trainer/grpo_trainer.py, `_generate`): called with the prompts of this process, each repeated
once a rollout, and the trainer; gives `prompt_ids`, `completion_ids` and `logprobs` in the same order. The sampler's
log-probabilities are None: TRL then does what it does for its own generation. It takes the ratio to the old policy as 1
where an update uses what was sampled right before it, and recomputes the old policy's with the trained model where
not. What the sampler's own rounding (bfloat16 on a GPU) changes in the distribution is not corrected for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from reasonflux_prm.errors import UsageError
from reasonflux_prm.policy.local import LocalPolicy

_SETTINGS: Final = ("max_new_tokens", "do_sample", "temperature", "top_p")
"""Of a trainer's generation settings, those that are followed."""
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "top_k": (None, 0),
    "min_p": (None, 0.0),
    "repetition_penalty": (None, 1.0),
    "cache_implementation": (None,),
}
"""Others that may be there, with the values that change nothing."""
_TOKENS: Final = ("pad_token_id", "bos_token_id", "eos_token_id")


class LocalRollouts:
    """A `rollout_func` for TRL's GRPO trainers, `trl_trainer.ProcessGRPOTrainer` included.

    Before each batch the policy takes the trainer's weights, of a PEFT model those with its adapters merged. Prompts
    become tokens as TRL has it (chat template and its arguments), temperature, top_p and max_completion_length are the
    trainer's. Random numbers depend on the trainer's seed, its step and its process, so that a run that goes on from a
    checkpoint samples what it would have sampled.

    Args:
        policy: Opened from the model that training begins with, on the trainer's device; several trainers may use one
            after the other. Its memory stays taken while the trainer learns: `batch_tokens` bounds it, and
            `prefix_bytes=0` is right, since what was read is of no use after an update.
    """

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy = policy
        self._when: tuple[Any, ...] = ()
        self._calls = 0

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """Return tokens of prompts and completions, in order.

        Raises:
            UsageError: The trainer has a setting, or a kind of model, that the policy cannot follow.
            PolicyError: A prompt fills the context, or memory ran out.
        """
        _check(trainer)
        settings = generation_settings(trainer.generation_kwargs)
        prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
        if images is not None or fields.keys() - {"token_type_ids"}:
            raise UsageError("a local policy reads text only, and the prompts have images; leave rollout_func out")
        with whole_weights(trainer.accelerator.unwrap_model(trainer.model)) as state:
            self.policy.take_weights(state)
        written = self.policy.continue_tokens(prompt_ids, **settings, seed=self._seed(trainer))
        return {"prompt_ids": prompt_ids, "completion_ids": written, "logprobs": None}

    def _seed(self, trainer: Any) -> int:
        """Return a seed that only this batch of this run has."""
        mode = "train" if trainer.model.training else "eval"
        when = (trainer.args.seed, mode, trainer.state.global_step, trainer.accelerator.process_index)
        self._calls = self._calls + 1 if when == self._when else 0
        self._when = when
        return random.Random(f"{when} {self._calls}").getrandbits(48)


def generation_settings(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `LocalPolicy.continue_tokens` that a trainer's generation settings amount to.

    Args:
        generation: `GRPOTrainer.generation_kwargs`.

    Raises:
        UsageError: There is a setting that a local policy does not have.
    """
    for name, value in generation.items():
        if name not in _SETTINGS and name not in _TOKENS and value not in _NEUTRAL.get(name, (None,)):
            raise UsageError(
                f"a local policy samples by temperature and top_p, and the trainer has {name}={value!r}; leave it out, "
                "or leave rollout_func out"
            )
    return {
        "max_tokens": generation["max_new_tokens"],
        "temperature": generation["temperature"] if generation["do_sample"] else 0.0,
        "top_p": generation["top_p"],
    }


@contextmanager
def whole_weights(model: Any) -> Iterator[Mapping[str, torch.Tensor]]:
    """Give the weights of a model by their names in `transformers`, a PEFT model's adapters merged for as long.

    Raises:
        UsageError: The weights are quantised.
    """
    if getattr(model, "is_quantized", False):
        raise UsageError(
            "the trained model's weights are quantised, and a local policy takes plain ones; train without "
            "quantisation, or leave rollout_func out"
        )
    if not hasattr(model, "merge_adapter"):
        yield model.state_dict()
        return
    model.merge_adapter()
    try:
        yield dict(_plain(model.state_dict(), model.prefix))
    finally:
        model.unmerge_adapter()


def _plain(state: Mapping[str, torch.Tensor], prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a merged PEFT model's weights as its base model names them.

    Args:
        state: The PEFT model's.
        prefix: What the names of adapters' parameters have in them, such as `lora_`.
    """
    for name, weight in state.items():
        if prefix in name or ".original_module." in name:
            continue
        name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        before, saved, behind = name.partition(".modules_to_save.")
        # Modules that are trained as a whole, with the adapter's name behind.
        yield (f"{before}.{behind.partition('.')[2]}" if saved else name), weight


def _check(trainer: Any) -> None:
    deepspeed = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    for wrong, what in (
        (trainer.use_vllm, "use_vllm names another writer of rollouts"),
        (trainer.use_transformers_continuous_batching, "continuous batching names another writer of rollouts"),
        (bool(trainer.tools), "tools are called in the middle of a rollout"),
        (getattr(trainer, "is_fsdp_enabled", False), "FSDP leaves each process a part of the weights"),
        (deepspeed is not None and deepspeed.zero_stage == 3, "ZeRO-3 leaves each process a part of the weights"),
    ):
        if wrong:
            raise UsageError(f"{what}, and a local policy writes whole rollouts with whole weights; choose one of both")
