"""The rater `template`: what the strategy of a trace is worth to someone else.

Paper (arXiv:2506.18896): an expert reads problem, thinking and response and writes a template, an ordered list of the
stages of the solution; a policy answers the problem N times with the template, and

    r_final = (1/N) * sum_j [answer j is right].

It measures whether the strategy carries over, and not whether the trace itself is right. Expert, policy, N, sampling
and prompts are not published; here N = 4 at temperature 0.7. Two things are ours: a filter that refuses templates with
a number or the answer in them (`labels.trajectory.leak`), without which r_final is 1 for every right trace; and the
control, the same N attempts without the template, because a problem that the policy solves anyway says nothing about a
strategy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reasonflux_prm.errors import UsageError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.labels.asking import Asker, ask_until, one_of, together
from reasonflux_prm.labels.attempts import Share, share_right
from reasonflux_prm.labels.lenient_json import flat_objects
from reasonflux_prm.labels.prompts import load_prompt, prompt_versions
from reasonflux_prm.labels.prompts.material import enclosed, plain
from reasonflux_prm.labels.trajectory.base import TRAJECTORY, TrajectoryTerms
from reasonflux_prm.labels.trajectory.leak import find_leaks
from reasonflux_prm.labels.trajectory.shown import NO_TEXT, trace_records
from reasonflux_prm.policy.base import Completion, Policy
from reasonflux_prm.records import SegmentedTrace, Term, Trace

WITH, WITHOUT, LIFT = "with_template", "without_template", "lift"
TERMS = (TRAJECTORY, WITH, f"{WITH}_error", WITHOUT, f"{WITHOUT}_error", LIFT, f"{LIFT}_error")

_MOST_STAGES = 12
_MOST_CHARACTERS = 400
"""Of one text of a stage: a template that is longer retells the solution."""
_LEAKS_NAMED = 5


@dataclass(frozen=True, slots=True)
class TemplateSettings:
    """How templates are written and followed.

    Raises:
        UsageError: a setting outside its range.
    """

    n: int = 4
    """Attempts with the template, and as many without."""
    temperature: float = 0.7
    """Of the attempts."""
    max_tokens: int = 2048
    """Most tokens of an attempt."""
    expert_temperature: float = 0.0
    expert_max_tokens: int = 1024
    """Most tokens of a template. An expert that thinks first needs more."""
    input_tokens: int = 16_000
    """Most estimated tokens of a trace; a longer one is shown to the expert shortened."""
    retries: int = 2
    """Times that the expert is asked again, where its template cannot be read or gives something away."""
    allow_problem_numbers: bool = False
    """Whether a template may repeat numbers of the problem; never the answer."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.input_tokens < 1 or self.retries < 0:
            raise UsageError(
                "a template rater needs n and input_tokens of at least 1 and retries of at least 0, "
                f"and got {self.n}, {self.input_tokens} and {self.retries}"
            )


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a template."""

    stage: str
    action: str
    when: str = ""


class TemplateRater:
    """Rates a trace by how often a policy solves the problem with the template of its strategy.

    Terms: `trajectory` and `with_template`, the share of right attempts with the template (the paper's r_final), and
    `without_template`, that of the control, in [0, 1]; `lift`, the first less the second, in [-1, 1];
    `with_template_error`, `without_template_error` and `lift_error`, binomial standard errors, 0 where all attempts
    agree however few they are. The template stands in the reason of `with_template`.

    An attempt without a final answer, or with one that does not parse, is not right; one that the grader could not
    settle is left out. The control depends on the problem alone, and its requests are the same for every trace of it:
    with a cache it is paid for once.

    Args:
        expert: Who writes the template.
        solver: Who attempts the problem.
        grader: Who grades the attempts against the reference answer.
        settings: How both are asked.

    Raises:
        UsageError: a setting outside its range.
    """

    name = "template"

    def __init__(
        self, expert: Policy, solver: Policy, grader: Grader, settings: TemplateSettings | None = None
    ) -> None:
        self.settings = chosen = settings or TemplateSettings()
        self._grader = grader
        self._expert = Asker(expert, chosen.expert_temperature, chosen.expert_max_tokens, chosen.seed)
        self._solver = Asker(solver, chosen.temperature, chosen.max_tokens, chosen.seed)
        self._write, self._repair = load_prompt("template_write"), load_prompt("template_repair")
        self._follow, self._solve = load_prompt("solve_with_template"), load_prompt("solve")

    def identity(self) -> Mapping[str, Any]:
        """Return what the ratings depend on: both policies, grader, the prompts' hashes, settings."""
        return {
            "rater": self.name,
            "expert": self._expert.identity(),
            "solver": self._solver.identity(),
            "grader": dict(self._grader.identity()),
            "prompts": prompt_versions([self._write, self._repair, self._follow, self._solve]),
            "n": self.settings.n,
            "input_tokens": self.settings.input_tokens,
            "retries": self.settings.retries,
            "allow_problem_numbers": self.settings.allow_problem_numbers,
        }

    async def rate(self, segmented: SegmentedTrace) -> TrajectoryTerms:
        """Have a template written and followed; see `labels.trajectory.base.TrajectoryRater`."""
        trace = segmented.trace
        if not trace.answer:
            return dict.fromkeys(TERMS, Term(None, "the trace has no reference answer to grade attempts against"))
        if not (trace.thinking.strip() or trace.response.strip()):
            return dict.fromkeys(TERMS, Term(None, NO_TEXT))
        attempts = [self._with_template(trace, trace.answer), self._without_template(trace, trace.answer)]
        followed, alone = await together(attempts)
        return _terms(followed, alone)

    async def _with_template(self, trace: Trace, reference: str) -> Share:
        """Return the share of right attempts that follow the trace's template; its note begins with the template."""
        stages, remark = await self._template(trace, reference)
        if not stages:
            return Share(0, 0, remark)
        template = "\n".join(
            f"{number}. {one.stage}: {one.action}" + (f" ({one.when})" if one.when else "")
            for number, one in enumerate(stages, 1)
        )
        question = self._follow.fill({"problem": plain(trace.problem), "template": plain(template)})
        share = await share_right(self._solver, self._grader, question, self.settings.n, reference)
        notes = [f"template: {template}", remark, share.note]
        return Share(share.right, share.graded, "; ".join(note for note in notes if note))

    async def _without_template(self, trace: Trace, reference: str) -> Share:
        question = self._solve.fill({"problem": plain(trace.problem)})
        return await share_right(self._solver, self._grader, question, self.settings.n, reference)

    async def _template(self, trace: Trace, reference: str) -> tuple[tuple[Stage, ...], str | None]:
        """Return a template that gives nothing away, or none and why; and what a reader of it should know."""
        records, remark = trace_records(trace, self.settings.input_tokens, show_reference=False)
        shown = enclosed(records)
        question = self._write.fill(shown)
        written: list[tuple[Stage, ...]] = []

        def take(answer: Completion) -> str | None:
            if answer.finish_reason == "length":
                return "it is too long"
            stages = read_template(answer.text, shown["mark"])
            if isinstance(stages, str):
                return stages
            text = "\n".join(f"{one.stage}\n{one.action}\n{one.when}" for one in stages)
            if leaks := find_leaks(text, reference, trace.problem if self.settings.allow_problem_numbers else None):
                more = f" and {len(leaks) - _LEAKS_NAMED} more" if len(leaks) > _LEAKS_NAMED else ""
                return f"it gives away {', '.join(leaks[:_LEAKS_NAMED])}{more}"
            written.append(stages)
            return None

        failure = await ask_until(
            self._expert,
            lambda: question,
            one_of(await self._expert.ask(question)),
            take,
            lambda fault: self._repair.fill({"fault": fault, "mark": shown["mark"]}),
            retries=self.settings.retries,
        )
        return (written[0], remark) if failure is None else ((), f"there is no usable template: {failure}")


def read_template(text: str, mark: str) -> tuple[Stage, ...] | str:
    """Read the expert's answer: the stages, or what is wrong with it, as a clause.

    Args:
        text: The answer: JSON as asked for, or something like it.
        mark: The request's mark. If an object that holds stages bears it, only such objects are read.
    """
    entries = [one for one in flat_objects(text) if "action" in one.fields or "stage" in one.fields]
    entries = [one for one in entries if one.around.get("review") == mark] or entries
    if not entries:
        return 'there is no JSON object with a "template" of stages'
    if not all(one.whole and one.sound for one in entries) or text[entries[-1].stop :].lstrip(" \n,").startswith("{"):
        return "its JSON breaks off or goes wrong"
    if len(entries) > _MOST_STAGES:
        return f"it has {len(entries)} stages, and may have {_MOST_STAGES} at most"
    stages = []
    for entry in entries:
        texts = [_line(entry.fields.get(name)) for name in ("stage", "action", "when")]
        if not texts[0] or not texts[1]:
            return 'a stage lacks its "stage" or its "action"'
        if max(map(len, texts)) > _MOST_CHARACTERS:
            return f"a stage has a text of more than {_MOST_CHARACTERS} characters"
        stages.append(Stage(*texts))
    return tuple(stages)


def _line(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _terms(followed: Share, alone: Share) -> dict[str, Term]:
    lift, error = None, None
    if followed.value is not None and alone.value is not None:
        lift = followed.value - alone.value
        error = math.hypot(followed.error or 0.0, alone.error or 0.0)
    why = None if lift is not None else (followed if followed.value is None else alone).note
    return {
        TRAJECTORY: Term(followed.value, None if followed.value is not None else followed.note),
        WITH: Term(followed.value, followed.note),
        f"{WITH}_error": Term(followed.error, None if followed.value is not None else followed.note),
        WITHOUT: Term(alone.value, alone.note),
        f"{WITHOUT}_error": Term(alone.error, None if alone.value is not None else alone.note),
        LIFT: Term(lift, why),
        f"{LIFT}_error": Term(error, why),
    }
