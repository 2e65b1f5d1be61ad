"""Judges by rollout: what a policy makes of the beginning of a trace.

The Monte-Carlo value of a prefix is the share of continuations from it that end in the right answer (Math-Shepherd,
arXiv:2312.08935; OmegaPRM, arXiv:2406.06592). It is a value of the state *behind* the step, for this policy: it stays
low behind an error that the policy does not repair, and a step that repairs one raises it.

A chat endpoint cannot be relied upon to go on with an assistant's turn, so the prefix is shown in the user's
(`rollout.md`), unless `RolloutSettings.own_words` says that this policy can; small policies take no hint from a prefix
that is shown to them. Before the first step the policy is simply asked to solve the problem (`solve.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.labels.asking import Asker, together
from reasonflux_prm.labels.attempts import Share, share_right
from reasonflux_prm.labels.judges.base import NO_TEXT, QUALITY, StepTerms, shown_steps, without_value
from reasonflux_prm.labels.prompts import load_prompt, prompt_versions
from reasonflux_prm.labels.prompts.material import mark_of, plain
from reasonflux_prm.policy.base import Message, Policy
from reasonflux_prm.records import SegmentedTrace, Term

VARIANCE, ROLLOUTS, MEASURED = "quality_variance", "quality_rollouts", "quality_measured"

NO_REFERENCE = "the trace has no reference answer to grade continuations against"


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How prefixes are continued.

    Raises:
        UsageError: fewer than one continuation.
    """

    n: int = 4
    """Continuations of each prefix."""
    temperature: float = 0.7
    max_tokens: int = 2048
    seed: int = 0
    own_words: bool = False
    """Whether a prefix is put into the policy's mouth, which then goes on from it; a local policy can, and so can vLLM
    and SGLang. A prefix of thinking is put there without the policy's marks of thinking."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UsageError(f"a rollout judge needs n of at least 1, and got {self.n}")


class _Prefixes:
    """Continues the prefixes of traces and grades where they end."""

    def __init__(self, policy: Policy, grader: Grader, settings: RolloutSettings) -> None:
        self._grader, self.settings = grader, settings
        self._asker = Asker(policy, settings.temperature, settings.max_tokens, settings.seed)
        self._rollout, self._solve = load_prompt("rollout"), load_prompt("solve")

    def identity(self) -> dict[str, Any]:
        return {
            "grader": dict(self._grader.identity()),
            "prompts": prompt_versions([self._rollout, self._solve]),
            "n": self.settings.n,
            "own_words": self.settings.own_words,
            **self._asker.identity(),
        }

    async def value(self, segmented: SegmentedTrace, steps: int, reference: str) -> Share:
        """Return the share of continuations that end right from behind the first `steps` steps."""
        question, prefix = self._question(segmented, steps)
        return await share_right(self._asker, self._grader, question, self.settings.n, reference, prefix)

    def _question(self, segmented: SegmentedTrace, steps: int) -> tuple[tuple[Message, ...], str]:
        """Return the messages, and what the assistant has already written."""
        problem = plain(segmented.trace.problem)
        shown = segmented.steps[:steps]
        thinking, response = (
            "".join(segmented.text(step) for step in shown if step.part == part).strip()
            for part in ("thinking", "response")
        )
        prefix = plain("\n\n".join(text for text in (thinking, response) if text))
        if self.settings.own_words or not prefix:
            return self._solve.fill({"problem": problem}), prefix
        return self._rollout.fill({"problem": problem, "mark": mark_of(prefix), "prefix": prefix}), ""


class RolloutJudge:
    """Gives every step the Monte-Carlo value of the prefix that ends with it.

    Terms: `quality`, the share of continuations that end right, in [0, 1]; `quality_variance`, its binomial variance
    p (1 - p) / n, in [0, 0.25] and 0 where all agree; `quality_rollouts`, the continuations that were graded. A
    continuation without a final answer, or with one that does not parse, is not right; one that the grader could not
    settle is left out, and the reason says so.

    S steps take S * n continuations of prefixes that grow, so the cost is quadratic in the length of a trace.

    Args:
        policy: Who goes on.
        grader: Who says whether the end is right.
        settings: How many continuations, and how they are sampled.

    Raises:
        UsageError: a setting outside its range.
    """

    name = "rollout"

    def __init__(self, policy: Policy, grader: Grader, settings: RolloutSettings | None = None) -> None:
        self._prefixes = _Prefixes(policy, grader, settings or RolloutSettings())

    def identity(self) -> Mapping[str, Any]:
        """Return what the values depend on: policy, grader, the prompts' hashes, settings."""
        return {"judge": self.name, **self._prefixes.identity()}

    async def judge(self, segmented: SegmentedTrace) -> StepTerms:
        """Value the prefix behind every step; see `labels.judges.base.Judge`."""
        names, shown, reference = (QUALITY, VARIANCE, ROLLOUTS), shown_steps(segmented), segmented.trace.answer
        terms = [without_value(names, NO_TEXT if reference else NO_REFERENCE) for _ in segmented.steps]
        if reference:
            shares = await together(self._prefixes.value(segmented, index + 1, reference) for index in shown)
            for index, share in zip(shown, shares, strict=True):
                terms[index] = {
                    QUALITY: Term(share.value, share.note),
                    VARIANCE: Term(share.variance, share.note),
                    ROLLOUTS: Term(float(share.graded), share.note),
                }
        return tuple(terms)


class RolloutSearchJudge:
    """Finds the first bad step with some log2 S prefixes instead of S, as OmegaPRM does.

    A prefix is good if the share of its continuations that end right is above `threshold`. The problem alone must be
    good, or else the policy cannot tell a good step from a bad one. If the whole trace is good, no step is bad.
    Otherwise binary search finds a good prefix whose next step makes it bad: 2 + ceil(log2 S) prefixes in all.

    Terms: `quality`, 1 for the steps before that one, 0 for it and for those behind it. The zeros behind it rest on the
    assumption that any such search makes, that a prefix does not become good again on the way to a bad end; leave them
    out of a loss if that is too much. `quality_measured`, `quality_variance` and `quality_rollouts` are the share and
    its binomial variance where the search looked, and without value elsewhere.

    Args:
        policy: Who goes on.
        grader: Who says whether the end is right.
        settings: How many continuations, and how they are sampled.
        threshold: Share above which a prefix is good, in [0, 1); 0 as in OmegaPRM: one right end is enough.

    Raises:
        UsageError: a setting outside its range.
    """

    name = "rollout_search"

    def __init__(
        self, policy: Policy, grader: Grader, settings: RolloutSettings | None = None, *, threshold: float = 0.0
    ) -> None:
        if not 0 <= threshold < 1:
            raise UsageError(f"the threshold of a rollout search must lie in [0, 1), and is {threshold}")
        self._prefixes = _Prefixes(policy, grader, settings or RolloutSettings())
        self._threshold = threshold

    def identity(self) -> Mapping[str, Any]:
        """Return what the labels depend on: policy, grader, the prompts' hashes, settings."""
        return {"judge": self.name, "threshold": self._threshold, **self._prefixes.identity()}

    async def judge(self, segmented: SegmentedTrace) -> StepTerms:
        """Find the first bad step; see `labels.judges.base.Judge`."""
        shown, reference = shown_steps(segmented), segmented.trace.answer
        if not shown or not reference:
            names = (QUALITY, MEASURED, VARIANCE, ROLLOUTS)
            return tuple(without_value(names, NO_TEXT if reference else NO_REFERENCE) for _ in segmented.steps)
        shares: dict[int, Share] = {}
        good, bad, reason = await self._search(segmented, shown, reference, shares)
        places = {index: place for place, index in enumerate(shown, 1)}
        return tuple(self._terms(places.get(index), good, bad, reason, shares) for index in range(len(segmented.steps)))

    async def _search(
        self, segmented: SegmentedTrace, shown: tuple[int, ...], reference: str, shares: dict[int, Share]
    ) -> tuple[int, int, str | None]:
        """Return how many steps are known to be good, from which on they are bad, and why nothing is known between.

        Steps are counted among `shown`. `shares` collects the values of the prefixes that were looked at.
        """

        async def value(place: int) -> Share:
            return await self._prefixes.value(segmented, shown[place - 1] + 1 if place else 0, reference)

        end = len(shown)
        shares[0], shares[end] = await together([value(0), value(end)])
        if shares[end].value is not None and self._good(shares[end]):
            return end, end + 1, None
        if not self._good(shares[0]):
            return 0, end + 1, f"the policy cannot tell: {_said(shares[0])} solve the problem from its beginning"
        if shares[end].value is None:
            return 0, end + 1, f"the end of the trace has no value: {shares[end].note}"
        good, bad = 0, end
        while bad - good > 1:
            middle = (good + bad) // 2
            shares[middle] = await value(middle)
            if shares[middle].value is None:
                return good, bad, f"the search broke off at step {shown[middle - 1] + 1}: {shares[middle].note}"
            good, bad = (middle, bad) if self._good(shares[middle]) else (good, middle)
        return good, bad, None

    def _good(self, share: Share) -> bool:
        return share.value is not None and share.value > self._threshold

    def _terms(
        self, place: int | None, good: int, bad: int, reason: str | None, shares: Mapping[int, Share]
    ) -> dict[str, Term]:
        details = (MEASURED, VARIANCE, ROLLOUTS)
        if place is None:
            return without_value((QUALITY, *details), NO_TEXT)
        if place <= good:
            quality = Term(1.0)
        elif place >= bad:
            quality = Term(0.0, "behind the first bad step" if place > bad else None)
        else:
            quality = Term(None, reason)
        share = shares.get(place)
        if share is None:
            return {QUALITY: quality, **without_value(details, "the search did not look here")}
        return {
            QUALITY: quality,
            MEASURED: Term(share.value, share.note),
            VARIANCE: Term(share.variance, share.note),
            ROLLOUTS: Term(float(share.graded), share.note),
        }


def _said(share: Share) -> str:
    return f"{share.right} of {share.graded} attempts" + (f" ({share.note})" if share.note else "")
