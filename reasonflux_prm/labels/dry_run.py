"""What labelling would ask, and what it could cost, without asking anybody.

The judge and the rater that were chosen are set to work on some traces, with policies that answer nothing or what keeps
them going for longest: a judge's reply is never given, an expert writes a template at once, and a solver is right but
for its second attempt, which is the end of the trace to a search for the first bad step: so it looks as long as it can.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.labels.choices import Choices, Role, open_judge, open_rater
from reasonflux_prm.policy.base import Completion, Outcome, Request
from reasonflux_prm.records import SegmentedTrace, Trace
from reasonflux_prm.steps.split import split

QUIET_S: Final = 0.25
"""Without a new request for so long, a trace's judge has asked all that it can before an answer comes."""

_TEMPLATE: Final = json.dumps(
    {"template": [{"stage": "Plan", "action": "Decide what to find.", "when": "At the start."}]}
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that would be made, and who would get it."""

    role: Role
    request: Request


class DryPolicy:
    """A policy of one role that notes what it is asked."""

    concurrency = 1

    def __init__(self, role: Role, trace: Trace, asked: list[Asked]) -> None:
        self.name = f"dry-{role}"
        self._role, self._trace, self._asked = role, trace, asked
        self._attempts = 0

    def identity(self) -> Mapping[str, Any]:
        """Return the name."""
        return {"model": self.name}

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer as `ask` does."""
        raise NotImplementedError("judges and raters ask one by one")

    async def ask(self, request: Request) -> Outcome:
        """Note a request; see the module for what comes back."""
        self._asked.append(Asked(self._role, request))
        if self._role == "judge":
            await asyncio.Event().wait()
        self._attempts += 1
        solved = "I do not know." if self._attempts == 2 else f"\\boxed{{{self._trace.answer}}}"
        return [Completion(_TEMPLATE if self._role == "writer" else solved)] * request.n

    def close(self) -> None:
        """There is nothing to close."""


def dry_requests(traces: Iterable[Trace], choices: Choices, grader: Callable[[], Grader], steps: str) -> list[Asked]:
    """Return what would be asked about some traces, in order, repeats for answers that cannot be used left out.

    Raises:
        UsageError: A setting is out of its range.
    """
    return asyncio.run(_all_requests(list(traces), choices, grader, steps))


async def _all_requests(
    traces: Sequence[Trace], choices: Choices, grader: Callable[[], Grader], steps: str
) -> list[Asked]:
    asked: list[list[Asked]] = []
    tasks: list[asyncio.Task[Any]] = []
    for trace in traces:
        with suppress(InputError):
            segmented = split(trace, steps)
            asked.append([])
            tasks += _at_work(segmented, choices, grader, asked[-1])
    pending, seen = set(tasks), -1
    while pending and seen < sum(map(len, asked)):
        seen = sum(map(len, asked))
        _, pending = await asyncio.wait(pending, timeout=QUIET_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [one for of_trace in asked for one in of_trace]


def _at_work(
    segmented: SegmentedTrace, choices: Choices, grader: Callable[[], Grader], asked: list[Asked]
) -> list[asyncio.Task[Any]]:
    policies: dict[Role, DryPolicy] = {}

    def policy(role: Role) -> DryPolicy:
        return policies.setdefault(role, DryPolicy(role, segmented.trace, asked))

    judge = open_judge(choices, policy, grader) if choices.quality in ("llm", "rollout", "consensus") else None
    rater = open_rater(choices, policy, grader) if choices.trajectory in ("template", "judge") else None
    work = [judge.judge(segmented) if judge else None, rater.rate(segmented) if rater else None]
    return [asyncio.ensure_future(one) for one in work if one is not None]
