"""Policies that walk a tree of their own, and searches put together in a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.base import Completion, Request
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.search.reader import open_reader
from reasonflux_prm.search.searcher import Searcher, SearchSettings
from reasonflux_prm.search.writing import Writing

STOP = "\n\n"
WORDS = ("so", "the", "sum", "of", "is", "then", "wait", "check", "this", "again", "therefore", "42", "12", "30", "x")


def number(*parts: object) -> int:
    """Return a number that looks random and depends on the parts only."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=6).digest(), "big")


def words(*parts: object, most: int = 8) -> str:
    """Return some words that depend on the parts only."""
    return " ".join(WORDS[number(*parts, at) % len(WORDS)] for at in range(1 + number(*parts) % most))


class TreePolicy(ScriptedPolicy):
    """Writes steps that depend on what stands before them, and on which of `branches` is drawn.

    A trace thinks for `thinking` steps and then answers with one. Child `b` of a prefix is drawn by the request's seed
    and the sample's index, so all `branches` of them can be had.
    """

    def __init__(self, thinking: int = 3, branches: int = 2, **options: Any) -> None:
        super().__init__(self._answers, name="tree")
        self.thinking, self.branches = thinking, branches
        self.fewer = options.get("fewer", 0)
        self.in_order = options.get("in_order", False)

    def _answers(self, request: Request) -> list[Completion]:
        return [self._child(request, at) for at in range(request.n)]

    def _child(self, request: Request, at: int) -> Completion:
        drawn = at if self.in_order else number(request.seed, at)
        problem = request.messages[-1].content
        if request.raw:
            return self.step(problem, request.prefix, drawn % self.branches)
        return self.whole(problem, request.prefix, request.seed, at)

    def step(self, problem: str, prefix: str, branch: int) -> Completion:
        """Return branch `branch` of a prefix."""
        done = prefix.count(STOP)
        opening = "<think>\n" if not prefix else ""
        text = opening + words(problem, prefix, branch)
        if done < self.thinking - 1:
            return counted(text, STOP)
        if done == self.thinking - 1:
            return counted(f"{text}\n</think>", STOP)
        return counted(f"The answer is {number(problem, prefix, branch) % 3}.", "")

    def whole(self, problem: str, prefix: str, seed: int | None, at: int) -> Completion:
        """Return a whole trace."""
        written = prefix
        while True:
            step = self.step(problem, written, number(seed, at, written) % self.branches)
            written += step.text + (step.stopped_at or "")
            if not step.stopped_at:
                break
        thinking, _, response = written.removeprefix("<think>\n").partition("\n</think>\n\n")
        return Completion(response, thinking, prompt_tokens=5, completion_tokens=len(written.split()), stopped_at=None)


def counted(text: str, stopped_at: str | None, finish: str = "stop") -> Completion:
    """Return a completion with its tokens counted in words."""
    return Completion(
        text,
        finish_reason=finish,
        prompt_tokens=5,
        completion_tokens=max(1, len(re.findall(r"\S+", text))),
        stopped_at=stopped_at,
    )


def searcher(method: Any, policy: Any, scorer: Any, *, pick: str = "prm", cap: int | None = None, **writing: Any):
    """Return a searcher with the grader `string`."""
    settings = SearchSettings(Writing(**writing), pick, cap, at_once=3)
    reader = None if scorer is None else open_reader(scorer)
    return Searcher(method, policy, reader, open_grader("string"), settings)


def problems(count: int = 3) -> list[Problem]:
    """Return some problems."""
    return [Problem(f"p{at}", f"What is {at} + 1?", str(at % 3)) for at in range(count)]


def answers(texts: Sequence[str]) -> Callable[[Request], list[str]]:
    """Return a script that gives whole traces one after the other, over all requests of a problem."""
    given = iter(texts)
    return lambda request: [next(given) for _ in range(request.n)]
