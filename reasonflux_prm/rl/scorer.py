"""What a trainer sampled into rollouts: completions are cut, scored, graded, and their steps found among the tokens."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reasonflux_prm.errors import UsageError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.verdict import ANSWER_UNREAD, NO_ANSWER, Grade, Verdict
from reasonflux_prm.records import ScoredTrace, Trace
from reasonflux_prm.rl.completions import Completion, split_completion
from reasonflux_prm.rl.length import overlong
from reasonflux_prm.rl.positions import Decoded, decode, step_ends
from reasonflux_prm.rl.rollouts import Rollout

Score = Callable[[Iterable[Trace]], Iterable[ScoredTrace]]
"""Traces to records, one for one and in order: `scoring.engine.Engine.score`, or a client of the HTTP service."""

RESCALED: Final = ("mean", "min", "last", "weighted")
"""Aggregations of a range that the trajectory's reward is added to; see `unit_reward`."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion as a trainer hands it over; `text`, `ids` or both are given."""

    group: Hashable
    """Names the problem; see `rollouts.Rollout.group`."""
    problem: str
    text: str | None = None
    """The completion; left aside where there are ids and a tokenizer."""
    ids: Sequence[int] | None = None
    """The completion's tokens, without padding."""
    answer: str | None = None
    """Reference answer; None if unknown, and the rollout then has no outcome."""
    thinking: str | None = None
    """Thinking that the trainer has parsed out of the text already; None if it has not."""
    thinking_open: bool = False
    """Whether the prompt ended inside the thinking."""


@dataclass(frozen=True, slots=True)
class Rewarded:
    """A rollout with what it was made from."""

    rollout: Rollout
    completion: Completion
    scored: ScoredTrace | None
    """None if no PRM was asked."""
    verdict: Verdict | None
    """None without a reference answer or a grader."""


@dataclass(frozen=True, slots=True)
class Overlong:
    """Settings of `length.overlong`."""

    limit: int
    buffer: int

    def __post_init__(self) -> None:
        overlong([], self.limit, self.buffer)


class RolloutScorer:
    """Turns sampled completions into rollouts.

    Outcome: 1 for a right answer, 0 for a wrong one and where the completion states none that can be read (as the
    paper's release counts it), None where there is no reference, or the grader could not tell for a reason of its own.
    A completion whose thinking was cut off has no response, and so no answer.

    Trainers call rewards from many threads; the PRM scores for one at a time.

    Args:
        score: The PRM; None for shapings that need none.
        grader: Judges final answers; None leaves outcomes to be None.
        tokenizer: The policy's; needed for the places of steps, and where completions come as ids only.
        unit: Whether the PRM's reward of a trace is brought to the range of a step reward; see `unit_reward`.
        penalty: The overlong penalty that is added to outcomes; it needs token ids.
    """

    def __init__(
        self,
        score: Score | None,
        *,
        grader: Grader | None = None,
        tokenizer: Any = None,
        unit: bool = True,
        penalty: Overlong | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.counts: Counter[str] = Counter()
        """Rollouts without a reward or without places for their steps, by reason."""
        self._score, self._grader, self._unit, self._penalty = score, grader, unit, penalty
        self._lock = threading.Lock()

    def __call__(self, samples: Sequence[Sampled]) -> list[Rewarded]:
        """Score completions; in order, one for one.

        Raises:
            UsageError: A completion has neither text nor ids that could be decoded.
        """
        decoded = [self._decoded(sample) for sample in samples]
        completions = [_completion(sample, own) for sample, own in zip(samples, decoded, strict=True)]
        traces = [
            Trace(str(n), sample.problem, own.thinking, own.response, sample.answer, thinking_closed=own.closed)
            for n, (sample, own) in enumerate(zip(samples, completions, strict=True))
        ]
        scored = self._records(traces)
        if len(scored) != len(traces):
            raise UsageError(f"the PRM must give one record for each of {len(traces)} traces, and gave {len(scored)}")
        verdicts = self._verdicts(traces)
        found = []
        for sample, own, completion, record, verdict in zip(
            samples, decoded, completions, scored, verdicts, strict=True
        ):
            rollout = self._rollout(sample, own, completion, record, verdict)
            found.append(Rewarded(rollout, completion, record, verdict))
        return found

    def _records(self, traces: Sequence[Trace]) -> Sequence[ScoredTrace | None]:
        if self._score is None:
            return [None] * len(traces)
        with self._lock:
            return list(self._score(traces))

    def _decoded(self, sample: Sampled) -> Decoded | None:
        if sample.ids is not None and self.tokenizer is not None:
            return decode(self.tokenizer, sample.ids)
        if sample.text is None:
            raise UsageError(
                "a completion came as token ids only, and there is no tokenizer to decode them; pass the policy's"
            )
        return None

    def _verdicts(self, traces: Sequence[Trace]) -> list[Verdict | None]:
        asked = [n for n, trace in enumerate(traces) if self._grader is not None and trace.answer is not None]
        found: list[Verdict | None] = [None] * len(traces)
        if self._grader is not None:
            pairs = [(traces[n].response, str(traces[n].answer)) for n in asked]
            for n, verdict in zip(asked, self._grader.grade_many(pairs), strict=True):
                found[n] = verdict
        return found

    def _rollout(
        self,
        sample: Sampled,
        decoded: Decoded | None,
        completion: Completion,
        scored: ScoredTrace | None,
        verdict: Verdict | None,
    ) -> Rollout:
        note: str | None = None
        ends: tuple[int, ...] | None = None
        rewards: tuple[float | None, ...] = ()
        tokens = len(sample.ids) if sample.ids is not None else 0
        if scored is not None:
            if scored.reward is None:
                note = f"{scored.status.value}: {scored.note}"
            elif decoded is not None:
                ends = step_ends(scored.steps, completion, decoded)
                rewards = scored.step_rewards
                note = None if ends is not None else "steps not found in the completion's text"
        if note is not None:
            self.counts[note] += 1
        return Rollout(
            group=sample.group,
            tokens=tokens,
            outcome=self._outcome(verdict, tokens if sample.ids is not None else None),
            reward=None if scored is None or scored.reward is None else self._reward(scored),
            step_rewards=rewards if ends is not None else (),
            step_ends=ends or (),
            thinking_steps=_thinking(scored) if scored is not None and ends is not None else None,
            note=note,
        )

    def _reward(self, scored: ScoredTrace) -> float | None:
        return unit_reward(scored) if self._unit else scored.reward

    def _outcome(self, verdict: Verdict | None, tokens: int | None) -> float | None:
        outcome = outcome_of(verdict)
        if outcome is None or self._penalty is None:
            return outcome
        if tokens is None:
            raise UsageError("the overlong penalty counts tokens, and a completion came as text only; pass its ids too")
        return outcome + overlong([tokens], self._penalty.limit, self._penalty.buffer)[0]


def unit_reward(scored: ScoredTrace) -> float | None:
    """Return a trace's reward in the range of a step reward: divided by 1 + alpha if the trajectory's is in it.

    The paper's aggregate is the mean of step rewards plus alpha times the trajectory's; with rewards in [0, 1] it goes
    up to 1 + alpha, and would count for more than an outcome of 1 in a blend. (With alpha = 1 this is the mean of the
    two, as the client of "Characterizing, Evaluating, and Optimizing Complex Reasoning" has it.) Sums and products of
    steps have no such range and are left as they are.
    """
    mixed = scored.trajectory_reward is not None and any(reward is not None for reward in scored.step_rewards)
    if scored.reward is None or not mixed or scored.prm.aggregation not in RESCALED:
        return scored.reward
    if scored.prm.alpha < 0:
        raise UsageError(f"rewards can be brought to one range for alpha of at least 0, got {scored.prm.alpha:g}")
    return scored.reward / (1 + scored.prm.alpha)


def outcome_of(verdict: Verdict | None) -> float | None:
    """Return r_out of a verdict; see `RolloutScorer`."""
    if verdict is None:
        return None
    if verdict.grade is Grade.UNPARSED:
        return 0.0 if verdict.reason in (NO_ANSWER, ANSWER_UNREAD) else None
    return float(verdict.right)


def open_score(prm: Any = "embedded", *, alpha: float = 1.0, steps: str = "adaptive", **load: Any) -> Score:
    """Return what scores traces.

    Args:
        prm: The name, hub id or folder of a PRM; the address of a service (`reasonflux-prm serve`), as in
            http://127.0.0.1:8000; a loaded PRM; or anything with a method `score`, such as an engine or a client.
        alpha: Weight of the trajectory reward; 0 leaves it out.
        steps: The step rule.
        load: Arguments of `prm.load.load_prm`, such as `device`.

    Raises:
        UsageError: An argument is out of its range, or does not go with what `prm` is.
    """
    if hasattr(prm, "score"):
        if load or alpha != 1 or steps != "adaptive":
            raise UsageError("an engine has its settings already; leave alpha, steps and what a PRM is loaded with out")
        score: Score = prm.score
        return score
    if isinstance(prm, str) and prm.startswith(("http://", "https://")):
        from reasonflux_prm.serving.client import Client

        if load:
            raise UsageError(f"the PRM at {prm} is loaded already; leave {', '.join(load)} out")
        client = Client(prm)
        return lambda traces: client.score(traces, alpha=alpha, steps=steps)
    from reasonflux_prm.scoring.engine import Engine, EngineSettings

    if isinstance(prm, str):
        from reasonflux_prm.prm.load import load_prm

        prm = load_prm(prm, **load)
    return Engine(prm, EngineSettings(alpha=alpha, steps=steps)).score


def _thinking(scored: ScoredTrace) -> int:
    return sum(step.part == "thinking" for step in scored.steps)


def _completion(sample: Sampled, decoded: Decoded | None) -> Completion:
    if decoded is not None:
        return split_completion(decoded.text, thinking_open=sample.thinking_open)
    text = sample.text or ""
    if sample.thinking is None:
        return split_completion(text, thinking_open=sample.thinking_open)
    # Thinking with nothing behind it was cut off.
    return Completion(text, sample.thinking, text, bool(text) or not sample.thinking, {"response": ((0, 0),)})
