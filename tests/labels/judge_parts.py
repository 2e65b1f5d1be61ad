"""Stand-ins for the tests of judges and raters: traces cut by hand, policies that read what they are shown."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.base import Request
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.records import SegmentedTrace, Step, Trace

PROBLEM = "What is 6 times 7?"
CRITERIA = ("correctness", "coherence", "progress", "overall")
GRADER = open_grader("string")


def segmented(*thinking: str, response: Sequence[str] = (), answer: str | None = "42", **fields: Any) -> SegmentedTrace:
    """Cut a trace into exactly these steps."""
    steps: list[Step] = []
    for part, texts in (("thinking", thinking), ("response", response)):
        at = 0
        for text in texts:
            steps.append(Step(part, at, at + len(text)))
            at += len(text)
    trace = Trace("t", PROBLEM, "".join(thinking), "".join(response), answer=answer, **fields)
    return SegmentedTrace(trace, tuple(steps), "given")


def question(request: Request) -> str:
    """Return the user's turn that holds the material; a repair turn is another."""
    return next(message.content for message in request.messages if message.role == "user")


def mark(request: Request) -> str:
    return re.search(r"with the mark ([0-9a-f]{16})", question(request))[1]


def material(request: Request) -> list[dict[str, Any]]:
    """Return the records that a request shows, read as the prompt says they are to be read."""
    _, shown, _ = re.split(rf"^{mark(request)}$", question(request), flags=re.MULTILINE)
    return [json.loads(line) for line in shown.strip().splitlines()]


def asked(request: Request) -> list[int]:
    """Return the numbers of the steps that the last turn wants to have scored."""
    *_, found = re.findall(
        r"^(?:Score|Give the scores of) steps? ([\d, -]+)", request.messages[-1].content, re.MULTILINE
    )
    spans = [span.split("-") for span in found.strip(" ,").split(", ")]
    return [number for span in spans for number in range(int(span[0]), int(span[-1]) + 1)]


def entry(step: Any, value: Any, note: str = "", **fields: Any) -> dict[str, Any]:
    return {"step": step, **dict.fromkeys(CRITERIA, value), "note": note, **fields}


def answer(request: Request, entries: Sequence[Mapping[str, Any]], **fields: Any) -> str:
    return json.dumps({"review": mark(request), "scores": list(entries), **fields})


def reviewer(score: Callable[[int, str], float] = lambda number, text: number / 100) -> ScriptedPolicy:
    """A judge that keeps to the form and scores every step by its number and text."""

    def review(request: Request) -> str:
        texts = {record["step"]: record["text"] for record in material(request) if "step" in record}
        return answer(request, [entry(number, score(number, texts[number])) for number in asked(request)])

    return ScriptedPolicy(review)


def judged(judge: Any, trace: SegmentedTrace) -> list[dict[str, float | None]]:
    """Return the values of a judge's terms."""
    return [{name: term.value for name, term in terms.items()} for terms in asyncio.run(judge.judge(trace))]


def qualities(judge: Any, trace: SegmentedTrace) -> list[float | None]:
    return [terms["quality"] for terms in judged(judge, trace)]


def reasons(judge: Any, trace: SegmentedTrace) -> list[str | None]:
    return [terms["quality"].reason for terms in asyncio.run(judge.judge(trace))]


def rated(rater: Any, trace: SegmentedTrace) -> dict[str, Any]:
    return dict(asyncio.run(rater.rate(trace)))
