"""A policy that answers from a script: deterministic, offline, for tests and documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.policy.base import Completion, Outcome, Request

Answer = str | Completion | PolicyError | Sequence[str | Completion]
"""One text or completion (given `n` times), a sequence of at least `n` different ones, or an error to answer with."""


class ScriptedPolicy:
    """Answer each request from a mapping or a callable, word for word.

    Sampling settings change nothing: a script's texts are given whole, and logprobs only where the script has them.

    Args:
        script: last message's text -> answer, or a callable from the whole request to the answer.
        name: the name that records show.

    Example:
        >>> from reasonflux_prm.policy.base import Message, Request
        >>> policy = ScriptedPolicy({"2 + 2?": "4"})
        >>> policy.generate([Request((Message("user", "2 + 2?"),))])[0][0].text
        '4'
    """

    def __init__(self, script: Mapping[str, Answer] | Callable[[Request], Answer], name: str = "scripted") -> None:
        self._script = script
        self.name = name
        self.requests: list[Request] = []
        """Every request received, in order."""

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer in order; a message without an answer, or with too few for `n`, is a `PolicyError` in its place."""
        self.requests.extend(requests)
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Outcome:
        last = request.messages[-1].content
        if callable(self._script):
            answer = self._script(request)
        elif last in self._script:
            answer = self._script[last]
        else:
            return PolicyError(f"the script of policy '{self.name}' has no answer to the message {last[:80]!r}")
        if isinstance(answer, PolicyError):
            return answer
        samples = [answer] * request.n if isinstance(answer, str | Completion) else list(answer)[: request.n]
        if len(samples) < request.n:
            return PolicyError(
                f"the script of policy '{self.name}' has {len(samples)} answers to {last[:80]!r}, and n is {request.n}"
            )
        return [Completion(sample) if isinstance(sample, str) else sample for sample in samples]
