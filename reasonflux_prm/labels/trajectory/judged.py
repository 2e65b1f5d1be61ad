"""The rater `judge`: a policy judges the whole trace. It needs no reference answer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reasonflux_prm.errors import PolicyError, UsageError
from reasonflux_prm.labels.asking import Asker, answers_of, ask_until, review_temperature, together
from reasonflux_prm.labels.judges.llm_reply import note_of, read_unit, short
from reasonflux_prm.labels.lenient_json import flat_objects
from reasonflux_prm.labels.prompts import load_prompt, prompt_versions
from reasonflux_prm.labels.prompts.material import enclosed
from reasonflux_prm.labels.trajectory.base import TRAJECTORY, TrajectoryTerms
from reasonflux_prm.labels.trajectory.shown import NO_TEXT, trace_records
from reasonflux_prm.policy.base import Completion, Message, Policy
from reasonflux_prm.records import SegmentedTrace, Term

SPREAD = "trajectory_spread"


@dataclass(frozen=True, slots=True)
class JudgedSettings:
    """How the judge is asked.

    Raises:
        UsageError: a setting outside its range.
    """

    samples: int = 1
    """Judgements of each trace, averaged; with more than one their standard deviation is `trajectory_spread`."""
    temperature: float | None = None
    """By default 0 for one judgement and 0.7 for several, which would otherwise be copies."""
    input_tokens: int = 16_000
    """Most estimated tokens of a trace; a longer one is shown shortened."""
    max_tokens: int = 512
    """Most tokens of an answer. A policy that thinks first needs more."""
    retries: int = 2
    """Repair turns for an answer without a usable number."""
    show_reference: bool = True
    """Whether the judge is shown the reference answer, where there is one."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.input_tokens < 1 or self.retries < 0:
            raise UsageError(
                "the judge of traces needs samples and input_tokens of at least 1 and retries of at least 0, "
                f"and got {self.samples}, {self.input_tokens} and {self.retries}"
            )


@dataclass(frozen=True, slots=True)
class _Judgement:
    value: float | None
    note: str
    """The judge's note, or why there is no value."""


class JudgedRater:
    """Rates a trace by one judgement of the whole.

    Terms: `trajectory`, in [0, 1]; with several judgements their mean, and `trajectory_spread`, their standard
    deviation (at most 0.5).

    Args:
        policy: Who judges.
        settings: How it is asked.

    Raises:
        UsageError: a setting outside its range.
    """

    name = "judge"

    def __init__(self, policy: Policy, settings: JudgedSettings | None = None) -> None:
        self.settings = settings or JudgedSettings()
        temperature = review_temperature(self.settings.temperature, self.settings.samples)
        self._asker = Asker(policy, temperature, self.settings.max_tokens, self.settings.seed)
        self._prompt, self._repair = load_prompt("judge_trace"), load_prompt("judge_trace_repair")

    def identity(self) -> Mapping[str, Any]:
        """Return what the ratings depend on: the policy, the prompts' hashes, the settings."""
        return {
            "rater": self.name,
            "prompts": prompt_versions([self._prompt, self._repair]),
            **asdict(self.settings),
            **self._asker.identity(),
        }

    async def rate(self, segmented: SegmentedTrace) -> TrajectoryTerms:
        """Judge the trace; see `labels.trajectory.base.TrajectoryRater`."""
        trace, settings = segmented.trace, self.settings
        names = [TRAJECTORY, SPREAD] if settings.samples > 1 else [TRAJECTORY]
        if not (trace.thinking.strip() or trace.response.strip()):
            return {name: Term(None, NO_TEXT) for name in names}
        records, remark = trace_records(trace, settings.input_tokens, show_reference=settings.show_reference)
        shown = enclosed(records)
        question = self._prompt.fill(shown)
        answers = answers_of(await self._asker.ask(question, n=settings.samples), settings.samples)
        judgements = await together(
            self._judgement(question, shown["mark"], answer, index) for index, answer in enumerate(answers)
        )
        terms = {TRAJECTORY: _mean(judgements, settings.samples, remark)}
        return terms | ({SPREAD: _spread(judgements)} if settings.samples > 1 else {})

    async def _judgement(
        self, question: tuple[Message, ...], mark: str, first: Completion | PolicyError, index: int
    ) -> _Judgement:
        taken: list[_Judgement] = []

        def take(answer: Completion) -> str | None:
            judgement = _read(answer.text, mark)
            if judgement.value is None:
                return judgement.note
            taken.append(judgement)
            return None

        failure = await ask_until(
            self._asker,
            lambda: question,
            first,
            take,
            lambda fault: self._repair.fill({"fault": fault, "mark": mark}),
            retries=self.settings.retries,
            attempt=index * self.settings.retries,
        )
        return taken[0] if failure is None else _Judgement(None, failure)


def _read(text: str, mark: str) -> _Judgement:
    """Read an answer; objects without the request's mark count only if none has it, and must agree."""
    objects = [one for one in flat_objects(text) if "score" in one.fields]
    objects = [one for one in objects if one.fields.get("review") == mark] or objects
    if not objects:
        return _Judgement(None, 'there is no JSON object with a "score"')
    values = [read_unit(one.fields["score"]) for one in objects]
    if None in values:
        wrong = objects[values.index(None)].fields["score"]
        return _Judgement(None, f"the score is {short(wrong)} and must be a number between 0 and 1")
    if len(set(values)) > 1:
        return _Judgement(None, "there are several scores that differ")
    return _Judgement(values[0], note_of(objects[0]))


def _mean(judgements: Sequence[_Judgement], samples: int, remark: str | None) -> Term:
    values = [one.value for one in judgements if one.value is not None]
    failure = next((one.note for one in judgements if one.value is None), None)
    if not values:
        return Term(None, f"the judge gave no usable score: {failure}")
    remarks = [remark] if remark else []
    if len(values) < samples:
        remarks.append(f"mean of {len(values)} of {samples} judgements" + (f" ({failure})" if failure else ""))
    if note := next((one.note for one in judgements if one.value is not None and one.note), ""):
        remarks.append(f"judge: {note}")
    return Term(statistics.fmean(values), "; ".join(remarks) or None)


def _spread(judgements: Sequence[_Judgement]) -> Term:
    values = [one.value for one in judgements if one.value is not None]
    if len(values) < 2:
        return Term(None, f"a spread needs two judgements with a score, and there {'is one' if values else 'is none'}")
    return Term(statistics.pstdev(values))
