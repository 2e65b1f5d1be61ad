"""TRL: PRM rewards as a reward function for GRPO and RLOO.

    from trl import GRPOConfig, GRPOTrainer
    from reasonflux_prm.rl.trl import PRMReward

    trainer = GRPOTrainer(model, reward_funcs=PRMReward("blend"), args=GRPOConfig(...), train_dataset=problems)

Contract as of TRL 1.16 (trainer/grpo_trainer.py, `_calculate_rewards`): called by keyword with `prompts`,
`completions`, `completion_ids` and every other column; gives one number a completion, or None, which TRL leaves out of
the group. A reward function gives no numbers for tokens: shapings that need the group or steps are in `trl_trainer`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.graders import default_grader, open_grader
from reasonflux_prm.rl.completions import leaves_open
from reasonflux_prm.rl.monitor import Monitor
from reasonflux_prm.rl.scorer import Overlong, Rewarded, RolloutScorer, Sampled, open_score
from reasonflux_prm.rl.shaping import ScalarShaping, Shaping, open_shaping

Prompt = str | Sequence[Mapping[str, Any]]
LOG = logging.getLogger(__name__)


class PRMReward:
    """A reward function for TRL's trainers: one number a completion, from a PRM, a grader, or both.

    Args:
        shaping: A `shaping.ScalarShaping`, or its name with the default settings: rule, prm, blend, gated.
        prm: As in `scorer.open_score`; not loaded where the shaping needs none.
        grader: The grader, or its name; None takes the best that is installed.
        answer: The column of reference answers.
        problem: The column of problems; None takes the prompt, of a conversation its user's message.
        tokenizer: The policy's. With it completions are decoded from their ids, so that marks of thinking that are
            special tokens are seen, and the chat template tells whether prompts end inside the thinking.
        monitor: Watches for collapse, of this process's rollouts; None watches nothing. Its numbers are logged as
            `monitor/NAME`, and its alarms by `logging`.
        penalty: The overlong penalty.

    Raises:
        UsageError: The shaping needs the group or the steps.
    """

    def __init__(
        self,
        shaping: str | Shaping = "blend",
        prm: Any = "embedded",
        *,
        grader: str | Grader | None = None,
        answer: str = "answer",
        problem: str | None = None,
        tokenizer: Any = None,
        monitor: Monitor | None = None,
        penalty: Overlong | None = None,
    ) -> None:
        shaping = open_shaping(shaping) if isinstance(shaping, str) else shaping
        if not isinstance(shaping, ScalarShaping):
            raise UsageError(
                f"{shaping.name} needs the whole group, which a reward function does not see; "
                "use reasonflux_prm.rl.trl_trainer.ProcessGRPOTrainer"
            )
        self.shaping, self.monitor = shaping, monitor
        self.__name__ = f"prm_reward_{shaping.name}"
        self.reader = SampleReader(answer, problem, tokenizer)
        self.scorer = trainer_scorer(shaping, prm, grader, tokenizer, penalty)

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return the rewards of a batch; None for a completion that lacks what the shaping needs."""
        rewarded = self.scorer(self.reader.samples(prompts, completions, completion_ids, columns))
        rollouts = [own.rollout for own in rewarded]
        missing = [self.shaping.unscored(rollout) for rollout in rollouts]
        if log_metric is not None:
            for name, value in metrics(rewarded, missing).items():
                log_metric(name, value)
        if self.monitor is not None:
            watch(self.monitor, rewarded, log_metric)
        rewards = self.shaping.rewards([r.outcome for r in rollouts], [r.reward for r in rollouts])
        return [reward if lack is None else None for reward, lack in zip(rewards, missing, strict=True)]


def trainer_scorer(
    shaping: Shaping, prm: Any, grader: str | Grader | None, tokenizer: Any, penalty: Overlong | None
) -> RolloutScorer:
    """Return the scorer that a shaping needs: with a PRM, with a grader, or with both."""
    if isinstance(grader, str) or (grader is None and shaping.needs_outcome):
        grader = open_grader(grader or default_grader())
    score = open_score(prm) if shaping.needs_prm else None
    return RolloutScorer(score, grader=grader, tokenizer=tokenizer, penalty=penalty)


class SampleReader:
    """Reads what TRL passes to reward functions."""

    def __init__(self, answer: str, problem: str | None, tokenizer: Any) -> None:
        self._answer, self._problem, self._tokenizer = answer, problem, tokenizer
        self._opens: dict[str, bool] = {}

    def use(self, tokenizer: Any) -> None:
        """Take a tokenizer that was not known before."""
        self._tokenizer = tokenizer

    def samples(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        columns: Mapping[str, Any],
    ) -> list[Sampled]:
        """Return the completions of a batch.

        Raises:
            UsageError: The column of problems is not there.
        """
        if self._problem is not None and self._problem not in columns:
            raise UsageError(
                f"there is no column {self._problem!r} to take problems from; the data set has "
                f"{', '.join(sorted(columns)) or 'none'}"
            )
        answers = columns.get(self._answer, [None] * len(prompts))
        problems = columns[self._problem] if self._problem else [problem_of(prompt) for prompt in prompts]
        found = []
        for n, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            text, thinking = said(completion)
            ids = None if completion_ids is None else list(completion_ids[n])
            found.append(
                Sampled(
                    group=prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str),
                    problem=problems[n],
                    text=text,
                    ids=ids,
                    answer=None if answers[n] is None else str(answers[n]),
                    thinking=thinking,
                    thinking_open=self._thinking_open(prompt),
                )
            )
        return found

    def _thinking_open(self, prompt: Prompt) -> bool:
        if isinstance(prompt, str):
            return leaves_open(prompt)
        if self._tokenizer is None or getattr(self._tokenizer, "chat_template", None) is None:
            return False
        # The template opens the thinking behind the last message, whatever that says.
        role = str(prompt[-1].get("role"))
        if role not in self._opens:
            # An answer that the prompt has begun is gone on with.
            how: dict[str, bool] = (
                {"continue_final_message": True} if role == "assistant" else {"add_generation_prompt": True}
            )
            text = self._tokenizer.apply_chat_template([dict(turn) for turn in prompt], tokenize=False, **how)
            self._opens[role] = leaves_open(text)
        return self._opens[role]


def problem_of(prompt: Prompt) -> str:
    """Return the problem that a prompt poses: its text, or what the user said, all turns if there are several."""
    if isinstance(prompt, str):
        return prompt
    asked = [_text(turn.get("content")) for turn in prompt if turn.get("role") == "user"]
    return "\n\n".join(asked) if asked else "\n\n".join(_text(turn.get("content")) for turn in prompt)


def said(completion: Any) -> tuple[str, str | None]:
    """Return a completion's text, and its thinking if it came apart from the text."""
    if isinstance(completion, str):
        return completion, None
    turns = [turn for turn in completion if turn.get("role", "assistant") == "assistant"]
    apart = [str(turn[key]) for turn in turns for key in ("reasoning_content", "thinking") if turn.get(key)]
    text = "\n\n".join(filter(None, (_text(turn.get("content")) for turn in turns)))
    return text, "\n\n".join(apart) if apart else None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or [])


def metrics(rewarded: Sequence[Rewarded], missing: Sequence[str | None]) -> dict[str, float]:
    """Return what is worth a curve of its own, by name: how many rollouts are unscored and for what."""
    found = {"prm/unscored": sum(lack is not None for lack in missing) / len(missing)} if missing else {}
    for lack in ("outcome", "reward", "steps"):
        if lack in missing:
            found[f"prm/unscored/{lack}"] = missing.count(lack) / len(missing)
    rewards = [own.rollout.reward for own in rewarded if own.rollout.reward is not None]
    outcomes = [own.rollout.outcome for own in rewarded if own.rollout.outcome is not None]
    if rewards:
        found["prm/reward"] = sum(rewards) / len(rewards)
    if outcomes:
        found["prm/outcome"] = sum(outcomes) / len(outcomes)
    return found


def watch(monitor: Monitor, rewarded: Sequence[Rewarded], log: Callable[[str, float], None] | None) -> None:
    """Hand a batch to a monitor; log its numbers as `monitor/NAME`, and warn of its alarms."""
    signs, alarms = monitor.update([own.rollout for own in rewarded], [own.completion.text for own in rewarded])
    for name, value in signs.metrics().items() if log is not None else ():
        assert log is not None
        log(f"monitor/{name}", value)
    for alarm in alarms:
        LOG.warning("batch %d, %s: %s", monitor.batches, alarm.kind, alarm.message)
