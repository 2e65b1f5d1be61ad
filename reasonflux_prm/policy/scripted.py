"""A policy that answers from a script: deterministic, offline, for tests and documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reasonflux_prm.errors import PolicyError, PolicyStopped
from reasonflux_prm.policy.base import Completion, Outcome, Request

Answer = str | Completion | PolicyError | Sequence[str | Completion]
"""One text or completion (given `n` times), a sequence of at least `n` different ones, or an error to answer with."""


class ScriptedPolicy:
    """Answer each request from a mapping or a callable, word for word.

    Sampling settings change nothing: a script's texts are given whole, and logprobs only where the script has them. Of
    a text that begins with the request's prefix, what comes behind it is given.

    Args:
        script: last message's text -> answer, or a callable from the whole request to the answer. A `PolicyStopped` as
            the answer is raised, as a policy's contract has it.
        name: the name that records show.

    Example:
        >>> from reasonflux_prm.policy.base import Message, Request
        >>> policy = ScriptedPolicy({"2 + 2?": "4"})
        >>> policy.generate([Request((Message("user", "2 + 2?"),))])[0][0].text
        '4'
    """

    concurrency = 1
    """Answers come at once."""

    def __init__(self, script: Mapping[str, Answer] | Callable[[Request], Answer], name: str = "scripted") -> None:
        self._script = script
        self.name = name
        self.requests: list[Request] = []
        """Every request received, in order."""

    def identity(self) -> Mapping[str, Any]:
        """Return the name; a script that changes should change its name too."""
        return {"backend": "scripted", "model": self.name}

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer in order; a message without an answer, or with too few for `n`, is a `PolicyError` in its place.

        Raises:
            PolicyStopped: The script says so.
        """
        self.requests.extend(requests)
        return [self._answer(request) for request in requests]

    async def ask(self, request: Request) -> Outcome:
        """Answer one request.

        Raises:
            PolicyStopped: The script says so.
        """
        self.requests.append(request)
        return self._answer(request)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _answer(self, request: Request) -> Outcome:
        last = request.messages[-1].content
        if callable(self._script):
            answer = self._script(request)
        elif last in self._script:
            answer = self._script[last]
        else:
            return PolicyError(f"the script of policy '{self.name}' has no answer to the message {last[:80]!r}")
        if isinstance(answer, PolicyStopped):
            raise answer
        if isinstance(answer, PolicyError):
            return answer
        samples = [answer] * request.n if isinstance(answer, str | Completion) else list(answer)[: request.n]
        if len(samples) < request.n:
            return PolicyError(
                f"the script of policy '{self.name}' has {len(samples)} answers to {last[:80]!r}, and n is {request.n}"
            )
        return [
            Completion(sample.removeprefix(request.prefix)) if isinstance(sample, str) else sample for sample in samples
        ]
