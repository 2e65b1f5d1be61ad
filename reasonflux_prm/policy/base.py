"""What a policy is: chat requests in, completions out.

A backend answers one request (`ask`) or many (`generate`). It owes its callers four things: answers in the order of
the requests, exactly `n` completions for each, a failing request as a value that leaves its neighbours alone, and no
number that the model did not give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from reasonflux_prm.errors import PolicyError, UsageError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation to complete, `n` times. Hashable: equal requests ask for the same thing.

    Raises:
        UsageError: no message, or a setting outside its range.
    """

    messages: tuple[Message, ...]
    n: int = 1
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 2048
    """Most tokens to write in each completion, thinking included."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion; they are not part of its text."""
    seed: int | None = None
    """Sampling seed, honoured as far as the backend can; None leaves it to the backend."""
    top_logprobs: int | None = None
    """How many alternatives to report at every token written (0: the chosen token only); None asks for no logprobs."""
    prefix: str = ""
    """What the assistant has already written, thinking and its marks included; completions go on from there, and hold
    only what comes behind it. `max_tokens` does not count it. A server must be able to continue an assistant's message
    (vLLM and SGLang are)."""
    raw: bool = False
    """Whether `Completion.text` is what was written as it is, thinking and its marks left in it."""

    def __post_init__(self) -> None:
        if not self.messages:
            raise UsageError("a request needs at least one message, and got none")
        if self.n < 1 or self.max_tokens < 1:
            raise UsageError(f"n and max_tokens must be at least 1, and are {self.n} and {self.max_tokens}")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UsageError(
                f"temperature must be at least 0 and top_p in (0, 1], and they are {self.temperature} and {self.top_p}"
            )
        if self.top_logprobs is not None and self.top_logprobs < 0:
            raise UsageError(f"top_logprobs must be at least 0, and is {self.top_logprobs}")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was written, with the natural logarithm of its probability."""

    token: str
    """Its text; the tokens of a completion joined give what was written, thinking and marks possibly included."""
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    """The most likely tokens here and their logprobs, best first; the chosen one may or may not be among them."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a policy."""

    text: str
    """What it says, without the thinking."""
    thinking: str = ""
    """The thinking before it, without its marks; empty if there is none or the backend hides it."""
    finish_reason: str = "stop"
    """`stop` (it ended by itself or at a stop text), `length` (cut off at `max_tokens`), or the backend's own word."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One for each token written; None if they were not asked for or the backend gave none."""
    prompt_tokens: int | None = None
    """Tokens read for this completion. A backend that reads a prompt once for n completions reports it on the first
    and 0 on the others, so that sums are right. None if the backend does not count."""
    completion_tokens: int | None = None
    """Tokens written, thinking included; a sum over n completions stands on the first, as for `prompt_tokens`."""
    stopped_at: str | None = None
    """The stop text that it met; empty if it met none, None if there were none to meet or the backend does not tell."""


Outcome = list[Completion] | PolicyError
"""What became of one request: exactly `n` completions, or the error that stopped it."""


class PartlyAnswered(PolicyError):
    """A request that failed after some of its `n` completions had come; a cache keeps those, so none is paid twice."""

    completions: tuple[Completion, ...] = ()


class Policy(Protocol):
    """A model that writes text.

    A request that fails on its own is *returned* as a `PolicyError` in its place, and the others are answered. What
    stops them all (a wrong key, an unknown model, a server that is gone, a budget that is spent) is *raised* as
    `PolicyStopped`.
    """

    @property
    def name(self) -> str:
        """The model's name, as records show it."""

    @property
    def concurrency(self) -> int:
        """How many requests to keep under way so that the policy is never idle; more may be asked, and wait."""

    def identity(self) -> Mapping[str, Any]:
        """Return what answers depend on besides the request, in JSON values: part of cache keys and manifests.

        It holds no key and no address: the same model served elsewhere is the same policy.
        """

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer every request, in order, from plain code.

        Raises:
            PolicyStopped: No request will succeed from here on. Those that were under way have come to their end.
        """

    async def ask(self, request: Request) -> Outcome:
        """Answer one request, from any event loop; a cancelled one is given up.

        Raises:
            PolicyStopped: No request will succeed from here on.
        """

    def close(self) -> None:
        """Let go of connections, threads and models; requests under way are given up. Closing twice does no harm."""
