"""Candidates from a policy: N samples of every problem of a task, written as a candidates file.

What one problem runs into leaves the others alone. Nothing is lost by a kill if the policy keeps its completions
(`policy.cache.CachedPolicy`): the same call then asks only for what is missing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from reasonflux_prm.errors import PolicyError, PolicyStopped, ReasonFluxError, UsageError
from reasonflux_prm.evaluation.tasks.base import Problem, Task
from reasonflux_prm.policy.base import Completion, Message, Outcome, PartlyAnswered, Policy, Request
from reasonflux_prm.traces.write import atomic_path, json_line

AHEAD: Final = 4
"""Problems under way for each request that the policy takes at a time, so that a slow one holds up none behind it."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How candidates are sampled.

    Raises:
        UsageError: A setting is outside its range.
    """

    n: int
    temperature: float = 0.6
    """As DeepSeek-R1's model card advises for thinking models, and as SCATR samples (arXiv:2604.16535)."""
    top_p: float = 0.95
    max_tokens: int = 16384
    """Thinking included."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.request("")

    def request(self, text: str) -> Request:
        """Return the request for one problem."""
        return Request((Message("user", text),), self.n, self.temperature, self.top_p, self.max_tokens, seed=self.seed)


@dataclass(slots=True)
class SampleTally:
    """What became of the problems that were asked."""

    problems: int = 0
    asked: int = 0
    """Candidates."""
    came: int = 0
    cut: int = 0
    """Candidates that were cut off at `max_tokens`."""
    short: int = 0
    """Problems with fewer candidates than were asked for, but some."""
    without: int = 0
    """Problems without any candidate; they are not in the file."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why candidates are missing, by the first words of the message."""

    def row(self) -> dict[str, Any]:
        """Return the tally as JSON values."""
        return {**asdict(self), "reasons": dict(self.reasons.most_common())}

    def __str__(self) -> str:
        text = f"{self.came:,} of {self.asked:,} samples of {self.problems:,} problems"
        if self.cut:
            text += f", {self.cut:,} cut off"
        if self.short:
            text += f", {self.short:,} problems with fewer than asked for"
        if self.without:
            text += f", {self.without:,} problems without any"
        return text + "".join(f"; {count:,} times: {reason}" for reason, count in self.reasons.most_common(3))


def write_candidates(
    task: Task,
    problems: Iterable[Problem],
    policy: Policy,
    settings: SamplingSettings,
    output: Path,
    progress: Callable[[SampleTally], None] | None = None,
) -> SampleTally:
    """Sample candidates of every problem into a file that `score` and `evaluate` read; whole or not at all.

    Args:
        task: Says what is asked.
        problems: In the order of the file.
        policy: Who is asked.
        settings: How.
        output: A `.jsonl` file.
        progress: Told after each problem.

    Raises:
        UsageError: The task's candidates can only be recorded.
        PolicyStopped: No request will succeed from here on; nothing is written.
        OutputError: The file cannot be written.
    """
    ask = task.ask
    if ask is None:
        raise UsageError(
            f"candidates for {task.name} are trajectories that an agent records; give them as --candidates"
        )
    tally = SampleTally()
    with atomic_path(output) as part, part.open("wb") as stream:

        def take(problem: Problem, outcome: Outcome) -> None:
            if completions := _count(tally, settings.n, outcome):
                stream.write(json_line(_row(task, problem, policy.name, completions)))
            if progress:
                progress(tally)

        asyncio.run(_ask_all(policy, settings, problems, ask, take))
    return tally


async def _ask_all(
    policy: Policy,
    settings: SamplingSettings,
    problems: Iterable[Problem],
    ask: Callable[[Problem], str],
    take: Callable[[Problem, Outcome], None],
) -> None:
    """Ask for every problem, a bounded number at a time, and hand the outcomes on in order."""
    under_way: deque[tuple[Problem, asyncio.Task[Outcome]]] = deque()

    async def take_first() -> None:
        problem, task = under_way[0]
        outcome = await task
        under_way.popleft()
        take(problem, outcome)

    try:
        for problem in problems:
            if len(under_way) >= AHEAD * policy.concurrency:
                await take_first()
            under_way.append((problem, asyncio.create_task(_ask_one(policy, settings.request(ask(problem))))))
        while under_way:
            await take_first()
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


async def _ask_one(policy: Policy, request: Request) -> Outcome:
    try:
        return await policy.ask(request)
    except PolicyStopped:
        raise
    except Exception as error:  # whatever one request runs into must not stop its neighbours
        return error if isinstance(error, PolicyError) else PolicyError(f"{type(error).__name__}: {error}")


def _count(tally: SampleTally, n: int, outcome: Outcome) -> Sequence[Completion]:
    """Count what came of one problem, and return its completions."""
    error = outcome if isinstance(outcome, ReasonFluxError) else None
    completions: Sequence[Completion] = ()
    if not isinstance(outcome, PolicyError):
        completions = outcome[:n]
    elif isinstance(outcome, PartlyAnswered):
        completions = outcome.completions[:n]
    tally.problems += 1
    tally.asked += n
    tally.came += len(completions)
    tally.cut += sum(one.finish_reason == "length" for one in completions)
    if len(completions) < n:
        tally.short += bool(completions)
        tally.without += not completions
        tally.reasons[str(error)[:200] if error else f"the policy gave {len(completions)} samples of {n}"] += 1
    return completions


def _row(task: Task, problem: Problem, policy: str, completions: Sequence[Completion]) -> Mapping[str, Any]:
    return {
        "id": problem.id,
        "problem": problem.problem,
        "answer": problem.answer,
        "source": task.name,
        "policy": policy,
        **problem.columns,
        "candidates": [_candidate(one) for one in completions],
    }


def _candidate(completion: Completion) -> dict[str, Any]:
    tokens = completion.completion_tokens
    return {
        "thinking": completion.thinking,
        "response": completion.text,
        "finish_reason": completion.finish_reason,
        **({} if tokens is None else {"completion_tokens": tokens}),
    }
