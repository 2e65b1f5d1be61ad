r"""Generative verifiers as PRMs: GenPRM and ThinkPRM, asked through a policy.

- `genprm`: the verifier reviews one step a turn, in one conversation, and ends each turn with `\boxed{Yes}` or
  `\boxed{No}`. Step reward = P(Yes) / (P(Yes) + P(No)) at that token. The next step's turn sees the critiques before
  it, so the turns of a trace follow one another; the same turn of many traces is asked at once.
- `thinkprm`: the verifier reads the whole solution once and writes one chain with `\boxed{correct|incorrect}` for the
  steps and a final "Is the solution correct? Yes|No". Step reward = the share of `correct` among the chains;
  trajectory reward = P(Yes) / (P(Yes) + P(No)) at the final word. Thinking and response are both read; the published
  client drops the response.

GenPRM's `<verify>` turns contain Python that the published evaluation executes in its own process. We never run what
a model wrote: the verifier writes on without the output, as the published code does with execution switched off.

ThinkPRM was trained on short solutions; its authors advise to summarise long thinking before it is verified.

Without logprobs a reward is the share of Yes among the samples. A verdict that cannot be read is None with a reason,
never 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from reasonflux_prm.errors import PolicyError, UsageError
from reasonflux_prm.policy.base import Completion, Message, Outcome, Policy, Request
from reasonflux_prm.prm.base import PRMSpec, TrajectoryKind
from reasonflux_prm.prm.generative_prompts import (
    GENPRM_STOP,
    Verdict,
    genprm_messages,
    genprm_turn,
    genprm_verdict,
    thinkprm_messages,
    thinkprm_step_verdicts,
    thinkprm_verdict,
)
from reasonflux_prm.records import SegmentedTrace

_NO_LOGPROBS = "no usable logprobs for the verdict, so the reward is the share of Yes among the samples"


@dataclass(frozen=True, slots=True)
class _Style:
    """What a verifier's authors publish: defaults of the files that `generative_prompts` names."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...]
    context_length: int
    """The released evaluation's (GenPRM), the base model's (ThinkPRM); the server's own limit is what refuses."""
    trajectory: TrajectoryKind
    meaning: str


_STYLES = {
    "genprm": _Style(
        temperature=0.6,
        top_p=0.95,
        max_tokens=2048,
        stop=(GENPRM_STOP,),
        context_length=16384,
        trajectory="none",
        meaning="probability that the verifier judges the step correct, given the steps before it",
    ),
    "thinkprm": _Style(
        temperature=0.7,
        top_p=1.0,
        max_tokens=8192,
        stop=(),
        context_length=131072,
        trajectory="verdict",
        meaning="share of verification chains that call the step correct",
    ),
}


@dataclass(frozen=True, slots=True)
class GenerativeScores:
    """What a generative verifier says of one trace."""

    step_rewards: tuple[float | None, ...]
    """One for each step, in [0, 1]; None where no verdict could be had (`note` says why)."""
    trajectory_reward: float | None
    """In [0, 1]; None for `genprm`, which has none, and where no decision could be read."""
    tokens: int
    """Tokens read and written, as the policy counts them; 0 if it does not."""
    note: str | None
    """What a reader of the rewards should know: missing verdicts and failed requests, absent logprobs; steps from 1."""


@dataclass(slots=True)
class _Review:
    """A trace under review. Steps without any text are not shown to the verifier."""

    problem: str
    steps: list[str]
    shown: list[int] = field(init=False)
    """Indices of the steps that are shown."""
    rewards: list[float | None] = field(init=False)
    critiques: list[str] = field(default_factory=list)
    trajectory_reward: float | None = None
    tokens: int = 0
    remarks: dict[str, list[int]] = field(default_factory=dict)
    """remark -> the steps it is about (numbered from 1), none if it is about the trace."""

    def __post_init__(self) -> None:
        self.shown = [index for index, step in enumerate(self.steps) if step.strip()]
        self.rewards = [None] * len(self.steps)
        if not self.steps:
            self.remark("the trace has no steps")
        elif blank := [index for index, step in enumerate(self.steps) if not step.strip()]:
            self.remark("no text", *blank)

    def texts(self) -> list[str]:
        return [self.steps[index] for index in self.shown]

    def remark(self, text: str, *indices: int) -> None:
        self.remarks.setdefault(text, []).extend(index + 1 for index in indices)

    def count(self, completions: Sequence[Completion]) -> None:
        self.tokens += sum((one.prompt_tokens or 0) + (one.completion_tokens or 0) for one in completions)

    def scores(self) -> GenerativeScores:
        remarks = [f"{_numbers(steps)}: {text}" if steps else text for text, steps in self.remarks.items()]
        note = "; ".join(remarks) or None
        return GenerativeScores(tuple(self.rewards), self.trajectory_reward, self.tokens, note)


class GenerativePRM:
    """A generative verifier behind a policy.

    Args:
        policy: What serves the verifier.
        style: `genprm` or `thinkprm`: the format that the served model was trained on.
        samples: Critiques a step (`genprm`) or chains a trace (`thinkprm`); rewards are their mean. In `genprm` the
            conversation goes on from the first critique that has a verdict.
        temperature: Sampling temperature; by default the published one (0.6 and 0.7).
        max_tokens: Most tokens of a critique or chain; by default the published number (2,048 and 8,192).
        seed: Passed to the policy with every request.
        top_logprobs: Alternatives asked for at each token (20 as published for GenPRM); None asks for no logprobs,
            for endpoints that refuse them.

    Raises:
        UsageError: no such style, or a setting outside its range.
    """

    def __init__(
        self,
        policy: Policy,
        style: str,
        *,
        samples: int = 1,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        top_logprobs: int | None = 20,
    ) -> None:
        if style == "genprm-execute":
            raise UsageError(
                "style genprm-execute runs Python that a model wrote, which this package does not do; "
                "use genprm, where the verifier goes on without the code's output"
            )
        if style not in _STYLES:
            raise UsageError(f"a generative verifier's style is one of {', '.join(_STYLES)}, and not {style!r}")
        published = _STYLES[style]
        self.policy = policy
        self.spec = PRMSpec(
            name=policy.name,
            family=style,
            revision="unknown (behind a policy)",
            score_range=(0.0, 1.0),
            meaning=published.meaning,
            aggregation="mean",
            context_length=published.context_length,
            trajectory=published.trajectory,
        )
        # Built here once so that a setting outside its range is refused now and not with the first trace.
        self._request = Request(
            messages=(Message("user", ""),),
            n=samples,
            temperature=published.temperature if temperature is None else temperature,
            top_p=published.top_p,
            max_tokens=published.max_tokens if max_tokens is None else max_tokens,
            stop=published.stop,
            seed=seed,
            top_logprobs=top_logprobs,
        )

    def score(self, segmented: SegmentedTrace) -> GenerativeScores:
        """Score one trace; see `score_many`."""
        return self.score_many([segmented])[0]

    def score_many(self, segmented: Sequence[SegmentedTrace]) -> list[GenerativeScores]:
        """Score traces, in order.

        A request that fails costs the rewards that hang on it, and is named in its trace's note.
        """
        reviews = [_Review(one.trace.problem, [one.text(step) for step in one.steps]) for one in segmented]
        if self.spec.family == "genprm":
            self._review_by_step(reviews)
        else:
            self._review_whole(reviews)
        return [review.scores() for review in reviews]

    def _ask(self, conversations: list[tuple[Message, ...]]) -> list[Outcome]:
        return self.policy.generate([replace(self._request, messages=messages) for messages in conversations])

    def _review_by_step(self, reviews: list[_Review]) -> None:
        """GenPRM: round k asks for the judgement on the k-th step of every trace that has one and has not failed."""
        turn = 0
        going = [review for review in reviews if review.shown]
        while going:
            outcomes = self._ask([genprm_messages(one.problem, one.texts(), one.critiques) for one in going])
            for review, outcome in zip(going, outcomes, strict=True):
                index = review.shown[turn]
                if isinstance(outcome, PolicyError):
                    review.remark(f"not judged, because the request failed: {outcome}", *review.shown[turn:])
                    review.shown = review.shown[:turn]
                    continue
                review.count(outcome)
                verdicts = [genprm_verdict(one) for one in outcome]
                review.rewards[index] = _reward(review, outcome, verdicts, r"no \boxed{Yes|No} in <output>", index)
                leading = next((one for one, verdict in enumerate(verdicts) if verdict is not None), 0)
                review.critiques.append(genprm_turn(outcome[leading]))
            turn += 1
            going = [review for review in going if len(review.shown) > turn]

    def _review_whole(self, reviews: list[_Review]) -> None:
        """ThinkPRM: one request a trace."""
        going = [review for review in reviews if review.shown]
        outcomes = self._ask([thinkprm_messages(one.problem, one.texts()) for one in going]) if going else []
        for review, outcome in zip(going, outcomes, strict=True):
            if isinstance(outcome, PolicyError):
                review.remark(f"not judged, because the request failed: {outcome}", *review.shown)
                continue
            review.count(outcome)
            decisions = [thinkprm_verdict(one) for one in outcome]
            review.trajectory_reward = _reward(review, outcome, decisions, "no final decision")
            by_chain = [thinkprm_step_verdicts(one, len(review.shown)) for one in outcome]
            for position, index in enumerate(review.shown):
                given = [verdict for chain in by_chain if (verdict := chain[position]) is not None]
                if given:
                    review.rewards[index] = sum(given) / len(given)
                if len(given) < len(by_chain):
                    missing = f"{len(by_chain) - len(given)} of {len(by_chain)} chains"
                    review.remark(rf"no \boxed{{correct|incorrect}} in {missing}", index)


def _reward(
    review: _Review, completions: Sequence[Completion], verdicts: Sequence[Verdict | None], missing: str, *indices: int
) -> float | None:
    """Average the verdicts that could be read; remark on those that could not, and on absent logprobs."""
    given = [verdict for verdict in verdicts if verdict is not None]
    if len(given) < len(verdicts):
        unread = [one for one, verdict in zip(completions, verdicts, strict=True) if verdict is None]
        cut = sum(one.finish_reason == "length" for one in unread)
        cut_off = f", {cut} cut off at max_tokens" if cut else ""
        review.remark(f"{missing} in {len(unread)} of {len(verdicts)} samples{cut_off}", *indices)
    if not given:
        return None
    probabilities = [verdict.probability for verdict in given if verdict.probability is not None]
    if len(probabilities) < len(given):
        review.remark(_NO_LOGPROBS, *indices)
        return sum(verdict.yes for verdict in given) / len(given)
    return sum(probabilities) / len(probabilities)


def _numbers(steps: Sequence[int]) -> str:
    """Write step numbers as ranges: `step 4`, `steps 1-3, 7`."""
    ranges: list[list[int]] = []
    for step in sorted(steps):
        if ranges and step == ranges[-1][1] + 1:
            ranges[-1][1] = step
        else:
            ranges.append([step, step])
    written = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
    return f"step{'s' if len(steps) > 1 else ''} {written}"
