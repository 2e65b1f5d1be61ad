"""OpenRLHF: PRM rewards by a Python file, for `--reward.remote_url my_reward.py`.

    from reasonflux_prm.rl.openrlhf import RewardFunction

    reward_func = RewardFunction("blend", prm="http://127.0.0.1:8000")

Contract as of OpenRLHF 0.11.2 (utils/agent.py): the file's `reward_func(queries, prompts, labels)` is called from a
thread, mostly for one rollout, and gives numbers, `rewards` and, on a scale of 0 to 1 for its dynamic filter, `scores`.
OpenRLHF puts the reward on the last token, so the scalar shapings are what it can take. What the policy read and wrote
is told apart as `serving.openrlhf` does it for the same contract over HTTP, where `--reward.remote_url
http://127.0.0.1:8000/get_reward` needs no file, and gives the PRM's reward alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.records import Trace
from reasonflux_prm.rl.scorer import Sampled
from reasonflux_prm.rl.shaping import ScalarShaping, Shaping, open_shaping
from reasonflux_prm.rl.trl import trainer_scorer
from reasonflux_prm.serving.openrlhf import reference_answer, trace_of


class RewardFunction:
    """A `reward_func` for OpenRLHF.

    A rollout that is unscored has reward 0, since OpenRLHF takes numbers only; `extra_logs` counts them.

    Args:
        shaping: A `shaping.ScalarShaping`, or its name with the default settings: rule, prm, blend, gated.
        prm: As in `scorer.open_score`.
        grader: As in `trl.PRMReward`.

    Raises:
        UsageError: The shaping needs the group or the steps.
    """

    def __init__(
        self, shaping: str | Shaping = "blend", prm: Any = "embedded", *, grader: str | Grader | None = None
    ) -> None:
        shaping = open_shaping(shaping) if isinstance(shaping, str) else shaping
        if not isinstance(shaping, ScalarShaping):
            raise UsageError(
                f"{shaping.name} needs the whole group or the steps, and OpenRLHF takes one number a rollout; choose "
                "rule, prm, blend or gated, or another trainer"
            )
        self._shaping = shaping
        self._scorer = trainer_scorer(shaping, prm, grader, None, None)

    def __call__(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        """Return the rewards of some rollouts.

        Args:
            queries: What was read and written, decoded with special tokens.
            prompts: What was read.
            labels: Reference answers; a label that is neither text nor a number is none.

        Returns:
            `rewards`, `scores` and `extra_logs`, each a list with one number a rollout.

        Raises:
            UsageError: The three differ in length.
        """
        if not len(queries) == len(prompts) == len(labels):
            raise UsageError(
                f"expected one prompt and one label for each query, got {len(queries)} queries, {len(prompts)} prompts "
                f"and {len(labels)} labels"
            )
        traces = [
            trace_of(query, prompt, id=str(n), answer=reference_answer(label))
            for n, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True))
        ]
        rollouts = [own.rollout for own in self._scorer([_sampled(trace) for trace in traces])]
        outcomes, rewards = [r.outcome for r in rollouts], [r.reward for r in rollouts]
        lacks = [self._shaping.unscored(rollout) is not None for rollout in rollouts]
        found = [
            0.0 if reward is None or lack else reward
            for reward, lack in zip(self._shaping.rewards(outcomes, rewards), lacks, strict=True)
        ]
        shown = rewards if not self._shaping.needs_outcome else outcomes
        return {
            "rewards": found,
            "scores": [min(1.0, max(0.0, value or 0.0)) for value in shown],
            "extra_logs": {
                "outcome": [outcome or 0.0 for outcome in outcomes],
                "prm": [reward or 0.0 for reward in rewards],
                "unscored": [float(lack) for lack in lacks],
            },
        }


def _sampled(trace: Trace) -> Sampled:
    return Sampled(trace.problem, trace.problem, trace.response, answer=trace.answer, thinking=trace.thinking)
