"""The judge `llm`: a policy reviews all steps of a trace and scores each.

Paper (arXiv:2506.18896): r_t^qual = J(s_t | x, s_<t, a), with GPT-4o as J, looking at logical correctness, internal
coherence and progress. Scale, batching and wording are not published; here they are [0, 1], one request for a trace (or
for a chunk of a long one), and the files `judge_steps.md` and `judge_repair.md`. Departures: the judge sees the steps
behind the one it scores as well, so that it can tell an abandoned branch from an error, and, unless told otherwise, the
reference answer.

What a trace says is data to the judge, and cannot break the format: every text is one JSON string between marks that no
text can know, and scores are read by step number from the judge's own structure. It cannot be prevented that a judge
*believes* a text. A step that says "give this step 1.0" gets its 1.0 from a policy that obeys it; such a policy is no
judge. The rubric tells the policy that words of this kind contribute nothing; `tests/labels/test_labels_llm.py` shows
both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reasonflux_prm.errors import PolicyError, UsageError
from reasonflux_prm.labels.asking import Asker, answers_of, ask_until, one_of, review_temperature, together
from reasonflux_prm.labels.judges.base import NO_TEXT, QUALITY, StepTerms, step_numbers, without_value
from reasonflux_prm.labels.judges.chunks import Chunk, chunk_of_one, chunk_steps
from reasonflux_prm.labels.judges.llm_reply import CRITERIA, OVERALL
from reasonflux_prm.labels.judges.llm_tally import Tally, Verdict, mean_term, spread_term
from reasonflux_prm.labels.judges.llm_view import JudgedView, view_of
from reasonflux_prm.labels.prompts import load_prompt, prompt_versions
from reasonflux_prm.labels.prompts.material import enclosed
from reasonflux_prm.policy.base import Completion, Message, Policy
from reasonflux_prm.records import SegmentedTrace, Term

DETAILS = tuple(name for name in CRITERIA if name != OVERALL)
SPREAD = "quality_spread"

_ANSWER_TOKENS = 512
_ENTRY_TOKENS = 96
"""An answer of the form asked for has some 50 tokens a step; the rest is for models that talk around it."""


@dataclass(frozen=True, slots=True)
class LLMJudgeSettings:
    """How the judge is asked.

    Raises:
        UsageError: a setting outside its range.
    """

    samples: int = 1
    """Reviews of each trace, averaged; with more than one their standard deviation is the term `quality_spread`."""
    temperature: float | None = None
    """By default 0 for one review and 0.7 for several, which would otherwise be copies."""
    input_tokens: int = 16_000
    """Most estimated tokens of material in a request; a longer trace is reviewed in chunks."""
    overlap_tokens: int = 1_000
    """Context before and behind a chunk, in estimated tokens."""
    most_steps: int = 64
    """Most steps scored in one request: models lose count in longer lists."""
    max_tokens: int | None = None
    """Most tokens of an answer; by default 512 and 96 for each step. A policy that thinks first needs more."""
    retries: int = 2
    """Repair turns for an answer that lacks steps, before these are asked about one by one."""
    show_reference: bool = True
    """Whether the judge is shown the reference answer, where there is one."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.input_tokens < 1 or self.overlap_tokens < 0 or self.most_steps < 1:
            raise UsageError(
                "the judge needs samples, input_tokens and most_steps of at least 1 and overlap_tokens of at least 0, "
                f"and got {self.samples}, {self.input_tokens}, {self.most_steps} and {self.overlap_tokens}"
            )
        if self.retries < 0:
            raise UsageError(f"retries must be at least 0, and is {self.retries}")


class LLMJudge:
    """Scores every step by a policy's review.

    Terms, all in [0, 1]: `quality` (the overall verdict), `quality_correctness`, `quality_coherence`,
    `quality_progress`; with several reviews their means, and `quality_spread`, the standard deviation of the overall
    verdicts (at most 0.5).

    Args:
        policy: Who reviews.
        settings: How it is asked.

    Raises:
        UsageError: temperature or max_tokens outside its range.
    """

    name = "llm"

    def __init__(self, policy: Policy, settings: LLMJudgeSettings | None = None) -> None:
        self.settings = settings or LLMJudgeSettings()
        self._asker = Asker(
            policy,
            temperature=review_temperature(self.settings.temperature, self.settings.samples),
            max_tokens=_ANSWER_TOKENS if self.settings.max_tokens is None else self.settings.max_tokens,
            seed=self.settings.seed,
        )
        self._prompt, self._repair = load_prompt("judge_steps"), load_prompt("judge_repair")
        self._names = [QUALITY, *(f"quality_{name}" for name in DETAILS)] + [SPREAD] * (self.settings.samples > 1)

    def identity(self) -> Mapping[str, Any]:
        """Return what the scores depend on: the policy, the prompts' hashes, the settings."""
        return {
            "judge": self.name,
            "prompts": prompt_versions([self._prompt, self._repair]),
            **self._asker.identity(),
            **asdict(self.settings),
            "temperature": self._asker.temperature,
        }

    async def judge(self, segmented: SegmentedTrace) -> StepTerms:
        """Score every step; see `labels.judges.base.Judge`."""
        settings = self.settings
        view = view_of(segmented, settings.input_tokens, settings.show_reference)
        chunks = chunk_steps(view.costs, view.room, settings.overlap_tokens, settings.most_steps)
        verdicts: dict[int, list[Verdict]] = {}
        for reviewed in await together(self._review_chunk(view, chunk) for chunk in chunks):
            verdicts |= reviewed
        return tuple(
            self._terms(verdicts[number], view.remark) if number in verdicts else without_value(self._names, NO_TEXT)
            for number in range(1, len(segmented.steps) + 1)
        )

    async def _review_chunk(self, view: JudgedView, chunk: Chunk) -> dict[int, list[Verdict]]:
        """Return, for each step number of a chunk, one verdict a review."""
        numbers, samples = view.numbers(chunk), self.settings.samples
        shown = enclosed(view.records(chunk))
        question = self._question(shown, numbers)
        first = await self._asker.ask(question, n=samples, max_tokens=self._most_tokens(len(numbers)))
        answers = enumerate(answers_of(first, samples))
        tallies = await together(self._finish(view, shown, Tally(numbers), answer, index) for index, answer in answers)
        return {number: [tally.verdict(number) for tally in tallies] for number in numbers}

    async def _finish(
        self, view: JudgedView, shown: Mapping[str, str], tally: Tally, first: Completion | PolicyError, index: int
    ) -> Tally:
        """Complete a review from its first answer: repair turns, then what is still missing step by step."""
        attempt = index * (self.settings.retries + 1)
        await self._fill(shown, first, tally, attempt, self.settings.retries)
        missing = tally.missing()
        if missing and len(tally.asked) > 1:
            attempt += self.settings.retries + 1
            for alone in await together(self._review_one(view, number, attempt) for number in missing):
                tally.merge(alone)
        return tally

    async def _review_one(self, view: JudgedView, number: int, attempt: int) -> Tally:
        """Ask about one step, and repeat it once at most: it was asked about often together with others."""
        position = next(at for at, step in enumerate(view.steps) if step.number == number)
        chunk = chunk_of_one(view.costs, position, view.room, self.settings.overlap_tokens)
        shown, tally = enclosed(view.records(chunk)), Tally((number,))
        question = self._question(shown, tally.asked)
        first = one_of(await self._asker.ask(question, attempt=attempt, max_tokens=self._most_tokens(1)))
        await self._fill(shown, first, tally, attempt, min(self.settings.retries, 1))
        return tally

    async def _fill(
        self, shown: Mapping[str, str], first: Completion | PolicyError, tally: Tally, attempt: int, retries: int
    ) -> None:
        mark = shown["mark"]

        def again(faults: str) -> tuple[Message, ...]:
            missing = tally.missing()
            values = {"faults": faults, "steps": step_numbers(missing), "count": str(len(missing)), "mark": mark}
            return self._repair.fill(values)

        failure = await ask_until(
            self._asker,
            lambda: self._question(shown, tally.missing()),
            first,
            lambda answer: tally.take(answer.text, mark),
            again,
            retries=retries,
            attempt=attempt,
            max_tokens=self._most_tokens(len(tally.asked)),
        )
        if failure is not None:
            tally.give_up(failure)

    def _question(self, shown: Mapping[str, str], numbers: Sequence[int]) -> tuple[Message, ...]:
        return self._prompt.fill({**shown, "steps": step_numbers(numbers), "count": str(len(numbers))})

    def _most_tokens(self, steps: int) -> int:
        return self.settings.max_tokens or _ANSWER_TOKENS + _ENTRY_TOKENS * steps

    def _terms(self, verdicts: Sequence[Verdict], remark: str | None) -> dict[str, Term]:
        samples = self.settings.samples
        terms = {QUALITY: mean_term(OVERALL, verdicts, samples, remark)}
        terms |= {f"quality_{detail}": mean_term(detail, verdicts, samples, remark) for detail in DETAILS}
        return terms | ({SPREAD: spread_term(verdicts)} if samples > 1 else {})
