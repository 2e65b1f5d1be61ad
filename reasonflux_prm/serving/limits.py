"""How much a service takes at a time, and what it says to whoever asks for more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, fields

from reasonflux_prm.errors import UsageError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Bounds of a service; with them its memory is bounded too.

    Raises:
        UsageError: A bound is below 1, or a time below 0.
    """

    queue_traces: int = 1024
    """Traces that wait or are being scored; above it a request gets 429."""
    queue_tokens: int = MIB
    """Tokens that wait or are being scored; above it a request gets 429."""
    body_bytes: int = 32 * MIB
    """Of one request's body; above it the request gets 413."""
    held_bytes: int = 256 * MIB
    """Of the bodies of all requests in progress; above it a request gets 429."""
    wait_s: float = 0.005
    """How long a pack that is not full waits for more traces."""
    body_s: float = 60.0
    """In which a request's body must have come; above it the request gets 408."""
    drain_s: float = 30.0
    """In which what was accepted is finished once the service is told to stop."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name.endswith("_s") else 1
            if value < least:
                raise UsageError(f"{field.name} must be at least {least}, got {value:g}")


class Refusal(Exception):
    """A request that gets an error as its answer.

    Args:
        status: Of HTTP.
        message: One sentence.
        kind: The class of the error, as the client raises it.
        retry_after_s: After which the same request may succeed; None if it never will.
    """

    def __init__(self, status: int, message: str, kind: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.retry_after_s = status, message, kind, retry_after_s

    def body(self) -> dict[str, dict[str, str | int]]:
        """Return the answer's body, in the form that OpenAI's and vLLM's servers have."""
        return {"error": {"message": self.message, "type": self.kind, "code": self.status}}

    def headers(self) -> dict[str, str]:
        """Return the answer's headers."""
        headers = {"retry-after": str(self.retry_after_s)} if self.retry_after_s is not None else {}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


class Room:
    """The places of a service for traces and tokens. It belongs to one event loop, so that nothing needs a lock.

    Args:
        traces: Places for traces.
        tokens: Places for tokens.
        retry_after_s: Says when some of them will be free.
    """

    def __init__(self, traces: int, tokens: int, retry_after_s: Callable[[], int]) -> None:
        self.most_traces, self.most_tokens = traces, tokens
        self.traces = self.tokens = 0
        self._retry_after_s = retry_after_s
        self._freed = asyncio.Event()

    def take(self, traces: int, tokens: int) -> None:
        """Take places.

        Raises:
            Refusal: 413 if there never will be so many, 429 if there are not now.
        """
        if traces > self.most_traces or tokens > self.most_tokens:
            raise Refusal(
                413,
                f"a request of {traces:,} traces and {tokens:,} tokens does not fit into a queue of "
                f"{self.most_traces:,} traces and {self.most_tokens:,} tokens; send fewer traces at a time",
                "InputError",
            )
        if not self._fits(traces, tokens):
            raise Refusal(
                429,
                f"the queue is full: it holds {self.traces:,} of {self.most_traces:,} traces and {self.tokens:,} of "
                f"{self.most_tokens:,} tokens; ask again later",
                "ServiceError",
                self._retry_after_s(),
            )
        self.traces += traces
        self.tokens += tokens

    async def wait(self, traces: int, tokens: int) -> None:
        """Take places as soon as there are so many.

        Raises:
            Refusal: There never will be.
        """
        while traces <= self.most_traces and tokens <= self.most_tokens and not self._fits(traces, tokens):
            self._freed.clear()
            await self._freed.wait()
        self.take(traces, tokens)

    def give(self, traces: int, tokens: int) -> None:
        """Give places back."""
        self.traces -= traces
        self.tokens -= tokens
        self._freed.set()

    def _fits(self, traces: int, tokens: int) -> bool:
        return self.traces + traces <= self.most_traces and self.tokens + tokens <= self.most_tokens
