"""verl: PRM rewards for its trainers, as of verl 0.9 (the V1 trainer, rewards computed while sampling goes on).

Scalar shapings are a reward function; verl finds it by its module:

    reward.custom_reward_function.path=pkg://reasonflux_prm.rl.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.shaping=blend
    +reward.custom_reward_function.reward_kwargs.prm=http://127.0.0.1:8000

Shapings that need the group or the steps take three parts, which `verl_plugin` registers when verl is imported: an
agent loop and a reward manager that write step rewards among the tokens (`verl_codes`), and an advantage estimator that
reads them:

    algorithm.adv_estimator=reasonflux
    reward.reward_manager.name=reasonflux
    actor_rollout_ref.rollout.agent.default_agent_loop=reasonflux
    +algorithm.reasonflux.shaping=process
    +algorithm.reasonflux.prm=http://127.0.0.1:8000

verl has several reward workers, without a GPU; a PRM that is served (`reasonflux-prm serve`) is loaded once.

This module needs no verl. verl takes a number from every rollout, so an unscored one has score 0 and `unscored` 1 in
the metrics; among the dense parts it is out of the statistics and has advantage 0.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final

import torch

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.rl.completions import leaves_open
from reasonflux_prm.rl.dense import padded
from reasonflux_prm.rl.rollouts import Rollout
from reasonflux_prm.rl.scorer import Rewarded, RolloutScorer, Sampled
from reasonflux_prm.rl.shaping import ScalarShaping, Shaping, open_shaping
from reasonflux_prm.rl.trl import problem_of, trainer_scorer
from reasonflux_prm.rl.verl_codes import read_batch, write_codes

NAME: Final = "reasonflux"
"""What our parts are called in verl's registries."""


@dataclass(frozen=True, slots=True)
class VerlSettings:
    """What the dense parts are set to, by `algorithm.reasonflux`; its other entries are the shaping's settings."""

    shaping: Shaping
    prm: str = "embedded"
    grader: str | None = None
    """Its name; None takes the best that is installed."""
    problem: str | None = None
    """The entry of `extra_info` that holds the problem; None takes what the user said in the prompt."""
    low: float = 0.0
    """The lowest step reward that the PRM can give."""
    high: float = 1.0
    """The highest."""

    @classmethod
    def of(cls, config: Any) -> VerlSettings:
        """Read the entry `reasonflux` of verl's `algorithm`.

        Raises:
            UsageError: There is no such entry, it has unknown settings, or the shaping is one for `compute_score`.
        """
        found = None if config is None else config.get("reasonflux")
        if found is None or "shaping" not in found:
            raise UsageError(
                "verl's configuration names no shaping; add +algorithm.reasonflux.shaping=process, and "
                "+algorithm.reasonflux.prm=... for the PRM"
            )
        own = {field.name for field in fields(cls)} - {"shaping"}
        given = {str(name): found[name] for name in found}
        name = given.pop("shaping")
        shaping = open_shaping(name, **{key: value for key, value in given.items() if key not in own})
        if isinstance(shaping, ScalarShaping):
            raise UsageError(
                f"{name} needs no advantage estimator of its own; use reasonflux_prm.rl.verl's compute_score as the "
                "reward function, with algorithm.adv_estimator=grpo"
            )
        return cls(shaping, **{key: value for key, value in given.items() if key in own})


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    shaping: str = "blend",
    prm: str = "embedded",
    grader: str | None = None,
    problem: str = "question",
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **settings: Any,
) -> dict[str, float]:
    """Score one response, as verl's `naive` reward manager asks for it.

    Args:
        data_source: Not used.
        solution_str: The response, decoded by verl without special tokens: marks of thinking that are special tokens
            are gone from it.
        ground_truth: The reference answer; None if there is none.
        extra_info: The row's `extra_info`.
        shaping: The name of a scalar shaping: rule, prm, blend, gated.
        prm: As in `scorer.open_score`.
        grader: As in `trl.PRMReward`.
        problem: The entry of `extra_info` that holds the problem.
        reward_router_address: Given by verl if it serves a reward model of its own, which is refused.
        reward_model_tokenizer: As above.
        settings: Of the shaping.

    Returns:
        `score`, the reward; `acc`, the outcome; `prm`, the PRM's reward; `unscored`, 1 if something was missing, and
        what was missing is 0.

    Raises:
        UsageError: There is no problem in `extra_info`, or a setting makes no sense.
    """
    if reward_router_address is not None:
        raise UsageError(
            "reward.reward_model.enable is on, and the rewards of the model that verl serves would not be used; set it "
            "to False and name the PRM by reward_kwargs.prm"
        )
    asked = (extra_info or {}).get(problem)
    if not isinstance(asked, str):
        raise UsageError(
            f"extra_info has no {problem!r} that holds the problem's text; it has "
            f"{', '.join(sorted(extra_info or {})) or 'nothing'}: name the entry by reward_kwargs.problem"
        )
    method, scorer = _scalar_parts(shaping, prm, grader, tuple(sorted(settings.items())))
    answer = None if ground_truth is None else str(ground_truth)
    (rewarded,) = scorer([Sampled(asked, asked, solution_str, answer=answer)])
    (reward,) = method.rewards([rewarded.rollout.outcome], [rewarded.rollout.reward])
    lacks = method.unscored(rewarded.rollout) is not None or reward is None
    return {"score": 0.0 if reward is None or lacks else reward, **report(rewarded.rollout, lacks)}


@lru_cache(maxsize=8)
def _scalar_parts(
    shaping: str, prm: str, grader: str | None, settings: tuple[tuple[str, Any], ...]
) -> tuple[ScalarShaping, RolloutScorer]:
    method = open_shaping(shaping, **dict(settings))
    if not isinstance(method, ScalarShaping):
        raise UsageError(
            f"{shaping} needs the whole group, which a reward function does not see; use the advantage estimator "
            "'reasonflux' (see reasonflux_prm/rl/verl.py)"
        )
    return method, trainer_scorer(method, prm, grader, None, None)


def report(rollout: Rollout, lacks: bool) -> dict[str, float]:
    """Return what verl logs of a rollout beside its score."""
    return {"acc": rollout.outcome or 0.0, "prm": rollout.reward or 0.0, "unscored": float(lacks)}


class ItemScorer:
    """Scores single rollouts for the reward manager.

    Args:
        settings: Of the dense parts.
        tokenizer: The policy's.
    """

    def __init__(self, settings: VerlSettings, tokenizer: Any) -> None:
        self._settings, self._tokenizer = settings, tokenizer
        self._scorer = trainer_scorer(settings.shaping, settings.prm, settings.grader, tokenizer, None)

    def score(self, prompt_ids: Sequence[int], ids: Sequence[int], row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the rewards of one rollout.

        Args:
            prompt_ids: What the policy read, without padding.
            ids: What it wrote, without padding.
            row: The data set's columns: `reward_model` with `ground_truth`; `raw_prompt`; `extra_info`.

        Returns:
            `token_rewards`, (T,) by `verl_codes`; and what is logged, by name.
        """
        truth = (row.get("reward_model") or {}).get("ground_truth")
        sample = Sampled(
            group=0,
            problem=self._problem(row),
            ids=list(ids),
            answer=None if truth is None else str(truth),
            thinking_open=leaves_open(self._tokenizer.decode(list(prompt_ids)[-16:])),
        )
        (rewarded,) = self._scorer([sample])
        lacks = self._settings.shaping.unscored(rewarded.rollout) is not None
        codes = write_codes(self._kept(rewarded, lacks), self._settings.low, self._settings.high)
        return {"token_rewards": codes, **report(rewarded.rollout, lacks)}

    def _kept(self, rewarded: Rewarded, lacks: bool) -> Rollout:
        return Rollout(0, rewarded.rollout.tokens) if lacks else rewarded.rollout

    def _problem(self, row: Mapping[str, Any]) -> str:
        name = self._settings.problem
        if name is None:
            return problem_of([dict(turn) for turn in row["raw_prompt"]])
        found = (row.get("extra_info") or {}).get(name)
        if not isinstance(found, str):
            raise UsageError(
                f"extra_info has no {name!r} that holds the problem's text; set algorithm.reasonflux.problem"
            )
        return found


def estimate_advantages(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: Sequence[Any],
    config: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token advantages, as verl's registry of advantage estimators asks for them.

    The rollouts' reward r_hat, where a shaping takes one, is the mean of their step rewards.

    Args:
        token_level_rewards: (B, T) by `verl_codes`.
        response_mask: (B, T).
        index: (B,) uids of the problems.
        config: verl's `algorithm`.

    Returns:
        Advantages and returns, (B, T) each, the same numbers: there is no critic.

    Raises:
        UsageError: The configuration has no shaping, or the rewards are not those of the reward manager.
    """
    settings = VerlSettings.of(config)
    rollouts = read_batch(
        token_level_rewards.double().cpu().numpy(),
        response_mask.cpu().numpy(),
        list(index),
        settings.low,
        settings.high,
    )
    dense = padded(settings.shaping.advantages(rollouts), token_level_rewards.size(1))
    advantages = torch.from_numpy(dense).to(token_level_rewards) * response_mask
    return advantages, advantages


def check() -> str:
    """Return a sentence that says that verl has registered our parts.

    Raises:
        MissingExtra: verl is not installed.
        UsageError: It has not registered them.
    """
    try:
        from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
        from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER
        from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
    except ImportError as error:
        raise MissingExtra("verl is not installed in this environment: pip install verl") from error
    for what, registry in (
        ("reward manager", REWARD_MANAGER),
        ("agent loop", _agent_loop_registry),
        ("advantage estimator", ADV_ESTIMATOR_REGISTRY),
    ):
        if NAME not in registry:
            raise UsageError(
                f"verl knows no {what} called {NAME!r}: import reasonflux_prm.rl.verl_plugin to see why, or, if that "
                "works, install reasonflux-prm anew so that verl finds its entry point"
            )
    return f"verl knows the reward manager, the agent loop and the advantage estimator {NAME!r}"


if __name__ == "__main__":
    sys.stdout.write(check() + "\n")
