r"""What the template reward tells in the small world: an expert that is a program, a solver that was taught to follow.

    python -m recipes.small_world.template OUT -o template.json

OUT is the folder of `recipes.small_world.run`, after its stage `choose`. The expert reads a trace's calculations and
writes down which operation comes at which event, and no number; the solver goes on from the student, and has learnt to
answer what the package asks with such a plan and without. Both are asked by the package's own rater
(`labels.trajectory.template`), as `reasonflux-prm label --trajectory template` asks. Rated are, of each problem of the
tests, the first sample of the student of every kind that it has: right; wrong for a number that was misread or worked
out wrong; and wrong by its strategy, some event's operation not being the story's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.labels.prompts import load_prompt
from reasonflux_prm.labels.trajectory.base import TrajectoryTerms
from reasonflux_prm.labels.trajectory.template import LIFT, WITH, WITHOUT, TemplateRater, TemplateSettings
from reasonflux_prm.policy.base import Policy, Request
from reasonflux_prm.policy.local import LocalPolicy
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.records import Trace
from reasonflux_prm.steps.split import split
from reasonflux_prm.traces.write import atomic_path
from recipes.label_evidence.measure import auc, mean, mean_auc
from recipes.prm_135m.samples import graded
from recipes.small_world.base import GAP
from recipes.small_world.run import RULE, TOKENS
from recipes.small_world.story import sign_of, told, worked
from recipes.small_world.world import SPLITS
from recipes.student.form import chat_row, reference_traces
from recipes.student.sft import SFTSettings, teach

ACTIONS: Final = {"+": "add what comes", "-": "take away what goes", "*": "double all", "/": "keep every other"}
KINDS: Final = ("right", "other number", "other strategy")
LESSON: Final = 450_000
"""Tokens of completions that the solver is taught."""


def strategy(thinking: str) -> list[tuple[str, str]]:
    """Return the (place, operation) of every calculation in a text."""
    return [(step.place, step.sign) for step in worked(thinking) if step is not None]


def asked(problem: str) -> list[tuple[str, str]]:
    """Return the (place, operation) that a story asks for."""
    return [(place, sign_of(event)) for place, event in told(problem)]


def stages(thinking: str) -> list[dict[str, str]]:
    """Return the template of a text's strategy."""
    return [{"stage": place, "action": ACTIONS[sign], "when": ""} for place, sign in strategy(thinking)]


def write_template(request: Request) -> str:
    """Answer a request for a template: what the rater asks of an expert."""
    _, mark, material, *_ = re.split(r"^([0-9a-f]{16})$", request.messages[-1].content, flags=re.MULTILINE)
    shown: dict[str, str] = {}
    for line in material.strip().splitlines():
        shown |= json.loads(line)
    return json.dumps({"review": mark, "template": stages(shown.get("thinking", ""))})


def lessons(problems: Path) -> list[dict[str, Any]]:
    """Return rows to learn from: each training problem with its plan, or, every third, without."""
    follow, solve = load_prompt("solve_with_template"), load_prompt("solve")
    rows = []
    for number, trace in enumerate(reference_traces(problems, GAP)):
        plan = "\n".join(
            f"{n}. {stage['stage']}: {stage['action']}" for n, stage in enumerate(stages(trace.thinking), 1)
        )
        filled = (
            follow.fill({"problem": trace.problem, "template": plan})
            if number % 3
            else solve.fill({"problem": trace.problem})
        )
        row = chat_row(trace)
        row["prompt"] = [{"role": message.role, "content": message.content} for message in filled]
        rows.append(row)
    return rows


def kind(trace: Trace) -> str:
    """Return which of `KINDS` a graded sample is."""
    if trace.correct:
        return "right"
    return "other number" if strategy(trace.thinking) == asked(trace.problem) else "other strategy"


def chosen(samples: Path, problems: int) -> list[Trace]:
    """Return the first sample of every kind of each of the first problems."""
    found: dict[tuple[str, str], Trace] = {}
    for trace in graded(samples):
        if strategy(trace.thinking):
            found.setdefault((str(trace.group), kind(trace)), trace)
    groups = set(islice(dict.fromkeys(group for group, _ in found), problems))
    return [trace for (group, _), trace in found.items() if group in groups]


@dataclass(frozen=True, slots=True)
class Rated:
    """A trace and what the rater said of it."""

    trace: Trace
    terms: TrajectoryTerms

    def value(self, term: str) -> float | None:
        """Return the value of a term."""
        return self.terms[term].value


def rate(traces: Sequence[Trace], solver: Policy, attempts: int) -> list[Rated]:
    """Rate traces, all at once."""

    async def all_of_them(rater: TemplateRater) -> list[TrajectoryTerms]:
        return list(await asyncio.gather(*(rater.rate(split(trace, RULE)) for trace in traces)))

    with open_grader("numeric") as grader:
        settings = TemplateSettings(n=attempts, max_tokens=TOKENS)
        rater = TemplateRater(ScriptedPolicy(write_template, "operations"), solver, grader, settings)
        return [Rated(*pair) for pair in zip(traces, asyncio.run(all_of_them(rater)), strict=True)]


def report(rated: Sequence[Rated]) -> Mapping[str, Any]:
    """Return means by kind, and what `r_final` and the lift tell apart."""
    found: dict[str, Any] = {"traces": len(rated), "problems": len({one.trace.group for one in rated})}
    told = [one for one in rated if one.value(WITH) is not None and one.value(LIFT) is not None]
    found["without a reward"] = len(rated) - len(told)
    for name in KINDS:
        own = [one for one in told if kind(one.trace) == name]
        groups = [str(one.trace.group) for one in own]
        found[name] = {"traces": len(own)} | {
            term: mean([float(one.value(term) or 0) for one in own], groups) for term in (WITH, WITHOUT, LIFT)
        }
    for wrong in (KINDS[1:], *((name,) for name in KINDS[1:])):
        own = [one for one in told if kind(one.trace) in ("right", *wrong)]
        values, groups = [float(one.value(WITH) or 0) for one in own], [str(one.trace.group) for one in own]
        labels = [bool(one.trace.correct) for one in own]
        lifts = [float(one.value(LIFT) or 0) for one in own]
        found[f"right against {' and '.join(wrong)}"] = {
            "r_final": auc(values, labels, groups),
            "r_final within a problem": mean_auc(values, labels, groups),
            "lift": auc(lifts, labels, groups),
        }
    return found


def main() -> None:
    """Teach the solver, rate, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="output folder of recipes.small_world.run")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--attempts", type=int, default=8, help="with the plan, and as many without; default 8")
    args = parser.parse_args()
    solver = args.world / "solver"
    settings = SFTSettings(LESSON, batch=64, at_once=64, learning_rate=2e-3, rank=None)
    print(teach(args.world / "student", lessons(args.world / "problems" / SPLITS[0].file), solver, settings))
    samples = args.world / f"{SPLITS[1].source}.candidates.jsonl"
    policy = LocalPolicy(str(solver), batch_sequences=256)
    try:
        rated = rate(chosen(samples, args.problems), policy, args.attempts)
    finally:
        policy.close()
    text = json.dumps(report(rated), indent=1)
    with atomic_path(args.output) as part:
        part.write_text(text + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
