"""What verl loads by the entry point `verl.plugins` when it is imported: our parts, registered under `reasonflux`.

verl says at level DEBUG only that a plugin failed; `python -m reasonflux_prm.rl.verl` tells whether this one works.
Contracts: verl 0.9.1, experimental/reward_loop/reward_manager/base.py, experimental/agent_loop/agent_loop.py and
trainer/ppo/core_algos.py.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Final

import numpy as np
import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import register as register_agent_loop
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.reward_loop.reward_manager import register as register_reward_manager
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.trainer.ppo.core_algos import register_adv_est

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.verl import NAME, ItemScorer, VerlSettings, estimate_advantages

CARRIED: Final = "reasonflux_token_rewards"
"""The entry of `reward_extra_info` that carries token rewards, as base64 of float32, from manager to agent loop."""


@register_reward_manager(NAME)
class ProcessRewardManager(RewardManagerBase):  # type: ignore[misc]
    """Gives a rollout's outcome as its score, and its step rewards beside it."""

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        if reward_router_address is not None or config.reward.custom_reward_function.get("path"):
            raise UsageError(
                "the reward manager 'reasonflux' takes its PRM from algorithm.reasonflux.prm; leave out "
                "reward.reward_model and reward.custom_reward_function"
            )
        self._items = ItemScorer(VerlSettings.of(config.algorithm), tokenizer)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Score the last sequence of a rollout."""
        item = data[-1:][0]
        prompts, responses, mask = (item.batch[name] for name in ("prompts", "responses", "attention_mask"))
        seen = mask.bool()
        prompt_ids = prompts[seen[: len(prompts)]].tolist()
        ids = responses[seen[len(prompts) :]].tolist()
        found = await asyncio.to_thread(self._items.score, prompt_ids, ids, item.non_tensor_batch)
        codes = found.pop("token_rewards")
        carried = base64.b64encode(codes.tobytes()).decode()
        # float32 sums of these codes are exact.
        return {"reward_score": float(codes.sum()), "reward_extra_info": {**found, CARRIED: carried}}


class DenseOutput(AgentLoopOutput):  # type: ignore[misc]
    """An agent loop's output that puts rewards where they are due, and not all on the last token."""

    def as_dict(self) -> dict[str, Any]:
        """Return the output as verl stores it."""
        info = dict(self.extra_fields.get("reward_extra_info") or {})
        carried = info.pop(CARRIED, None)
        if carried is not None:
            self.extra_fields["reward_extra_info"] = info
        output: dict[str, Any] = super().as_dict()
        if carried is not None:
            rewards = torch.from_numpy(np.frombuffer(base64.b64decode(carried), dtype=np.float32).copy())
            if rewards.shape != output["response_mask"].shape:
                raise UsageError(
                    f"expected one reward for each of {len(output['response_mask'])} tokens, got {len(rewards)}"
                )
            output["rm_scores"] = rewards
        return output


def dense_output(output: AgentLoopOutput) -> DenseOutput:
    """Return the same output of an agent loop, made to take dense rewards; for agent loops of your own."""
    values = {name: getattr(output, name) for name in type(output).model_fields}
    dense: DenseOutput = DenseOutput.model_construct(_fields_set=set(output.model_fields_set), **values)
    return dense


@register_agent_loop(NAME)
class DenseSingleTurnAgentLoop(SingleTurnAgentLoop):  # type: ignore[misc]
    """verl's loop of one turn, with dense rewards."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> DenseOutput:
        """Sample one response."""
        return dense_output(await super().run(sampling_params, **kwargs))


register_adv_est(NAME)(estimate_advantages)
