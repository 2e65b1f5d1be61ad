"""A policy behind any endpoint that speaks the OpenAI chat protocol (`POST {base_url}/chat/completions`).

The `openai` SDK says how a client introduces itself and carries the requests, on an event loop that the policy owns.
Requests are made here, once serialised and with what they have in common made once: the SDK's own making of one takes
longer than sending it. Trying again is done here too, so that every attempt keeps to the rate limits, a server that
trickles is timed out, an answer that cannot be read counts as a failed attempt, and a request that has been answered is
never sent again.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from reasonflux_prm.errors import MissingExtra, PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy.base import Completion, Outcome, PartlyAnswered, Request
from reasonflux_prm.policy.chat_reply import CANNOT_CONTINUE, read_reply, request_body, request_bytes
from reasonflux_prm.policy.limits import RateLimit
from reasonflux_prm.policy.loop import LoopThread, answer_all
from reasonflux_prm.policy.retries import Concerns, Failure, failure_of, pause_s
from reasonflux_prm.policy.usage import estimated_prompt, usage_of

if TYPE_CHECKING:
    import httpx2

_MOST_S_TO_CONNECT = 15.0
_MOST_FAILED_IN_A_ROW = 20
"""Requests that fail after all attempts, without one answered in between, after which the server counts as gone."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What is still missing of a request, and who asks for it."""

    connection: _Connection
    request: Request
    have: int
    n: int
    stops: int
    """How often the policy had stopped when the request came."""


class _Connection:
    """What carries one request at a time.

    There is one for each request that may be under way: a client that holds many looks through all of them whenever a
    request comes or goes, which at some hundreds takes longer than the request.
    """

    def __init__(self, client: httpx2.AsyncClient, like: httpx2.Request) -> None:
        self._client = client
        self._like = like
        """What all requests have in common."""

    async def post(self, body: bytes) -> bytes:
        """Return what the server answers.

        Raises:
            httpx2.HTTPError: It does not, or with a status other than 200 or its like.
        """
        import httpx2

        like = self._like
        request = httpx2.Request(
            like.method,
            like.url,
            headers=like.headers,
            cookies=self._client.cookies,
            content=body,
            extensions=like.extensions.copy(),
        )
        response = await self._client.send(request)
        return response.raise_for_status().content

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def _connections(base_url: str, api_key: str | None, count: int, timeout_s: float) -> list[_Connection]:
    import httpx2
    import openai

    # The SDK refuses an empty key, which local servers do not ask for.
    key = api_key or os.environ.get("OPENAI_API_KEY") or "no-key"
    timeout = openai.Timeout(timeout_s, connect=min(timeout_s, _MOST_S_TO_CONNECT))
    tls = httpx2.create_ssl_context()
    # The SDK's own transport spends more on a request; see benchmarks/label_pipeline.py.
    http = openai.DefaultAioHttpClient if find_spec("aiohttp") else openai.DefaultAsyncHttpxClient
    clients = [http(base_url=base_url, timeout=timeout, verify=tls) for _ in range(count)]
    sdk = openai.AsyncOpenAI(api_key=key, base_url=base_url, http_client=clients[0])
    told = {**sdk.default_headers, **sdk.auth_headers}
    headers = {name: value for name, value in told.items() if isinstance(value, str)}  # others are left out
    like = clients[0].build_request("POST", "chat/completions", headers=headers)
    del like.headers["Content-Length"]  # each body has its own
    return [_Connection(client, like) for client in clients]


class OpenAICompatiblePolicy:
    """A model served at `base_url`.

    Args:
        model: The name that the server knows the model by.
        base_url: The address up to and including the version, such as `http://127.0.0.1:8000/v1`.
        api_key: The key; by default the environment's `OPENAI_API_KEY`, or none (most local servers want none).
        concurrency: Most requests under way at a time. One that waits to be tried again keeps its place, so a server
            that is overloaded is asked less.
        timeout_s: Seconds for an attempt from its start to the last byte of its answer.
        retries: Attempts after the first.
        requests_per_minute: Most attempts started in a minute; None for no limit.
        tokens_per_minute: Most tokens of the attempts started in a minute, read and written; None for no limit.
            Prompts are estimated, and what will be written is taken to be as long as answers were on average so far.

    Raises:
        MissingExtra: The `openai` SDK is not installed.
        UsageError: A setting is outside its range.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        timeout_s: float = 600.0,
        retries: int = 5,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        if concurrency < 1 or not timeout_s > 0 or retries < 0:
            raise UsageError(
                "an endpoint needs concurrency >= 1, timeout_s > 0 and retries >= 0, and got "
                f"concurrency={concurrency}, timeout_s={timeout_s}, retries={retries}"
            )
        if not base_url.startswith(("http://", "https://")):
            raise UsageError(f"base_url must start with http:// or https://, and is {base_url!r}")
        try:
            import openai  # noqa: F401 - the one that is missed, if any
        except ImportError as error:
            raise MissingExtra(
                'an OpenAI-compatible endpoint needs the openai SDK: pip install "reasonflux-prm[policy]"'
            ) from error
        self.name = model
        self.concurrency = concurrency
        self.attempts = 0
        """Requests sent so far, those that failed included."""
        self.failures: Counter[str] = Counter()
        """Attempts that failed so far, by what went wrong."""
        self._where = f"the server at {base_url}"
        self._attempts_each, self._timeout_s = retries + 1, timeout_s
        self._limit = RateLimit(requests_per_minute, tokens_per_minute)
        connections = _connections(base_url, api_key, concurrency, timeout_s)
        self._places: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
        for connection in connections:
            self._places.put_nowait(connection)

        async def close_connections() -> None:
            for connection in connections:
                await connection.close()

        self._loop = LoopThread("policy", last=close_connections)
        self._limit_field = "max_tokens"
        self._takes_n = True
        self._answered = self._failed_in_a_row = self._stops = 0
        self._last_stop = ""
        self._completions = self._tokens_written = 0

    def identity(self) -> Mapping[str, Any]:
        """Return the model's name: two servers that call different models by one name cannot be told apart."""
        return {"backend": "openai-compatible", "model": self.name}

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer in order, `concurrency` requests at a time; a request that fails is a `PolicyError` in its place.

        Raises:
            PolicyStopped: Wrong key, unknown model, or a server that is gone.
        """
        return self._loop.run(answer_all(self._answer, requests, self.concurrency))

    async def ask(self, request: Request) -> Outcome:
        """Answer one request.

        Raises:
            PolicyStopped: Wrong key, unknown model, or a server that is gone.
        """
        return await self._loop.call(self._answer(request))

    def close(self) -> None:
        """Close the connections; requests under way are given up."""
        self._loop.close()

    async def _answer(self, request: Request) -> Outcome:
        """Ask until there are `n` completions: servers that ignore `n` give one at a time."""
        completions: list[Completion] = []
        stops = self._stops
        connection = await self._places.get()
        try:
            while (have := len(completions)) < request.n:
                n = request.n - have if self._takes_n else 1
                outcome = await self._some(_Question(connection, request, have, n, stops))
                if isinstance(outcome, PolicyError):
                    if not completions:
                        return outcome
                    partly = PartlyAnswered(f"{have} of {request.n} completions came, and then {outcome}")
                    partly.completions = tuple(completions)
                    return partly
                completions += outcome
        finally:
            self._places.put_nowait(connection)
        return completions[: request.n]

    async def _some(self, question: _Question) -> Outcome:
        """Try until there is one answer, with one completion or more."""
        answered, connected = self._answered, False
        for attempt in range(1, self._attempts_each + 1):
            if self._stops != question.stops:
                # What came before a stop stops with it, or each of thousands would find out for itself; what comes
                # after it is a new try.
                raise PolicyStopped(self._last_stop)
            body = request_body(self.name, question.request, question.n, question.have, self._limit_field)
            try:
                return await self._attempt(question, body)
            except Exception as error:  # whatever one request runs into must not stop its neighbours
                failure = failure_of(error, self._where, self.name, self._timeout_s)
            self.failures[failure.kind] += 1
            connected |= failure.concerns is not Concerns.CONNECTION
            if failure.status in (400, 422) and (outcome := await self._asked_otherwise(question, body, failure)):
                return outcome
            if not failure.again or attempt == self._attempts_each:
                break
            await asyncio.sleep(pause_s(attempt, failure.after_s))
        if question.request.prefix and failure.status in (400, 422):
            failure = replace(failure, reason=f"{failure.reason}; {CANNOT_CONTINUE}")
        gone = not connected and self._answered == answered
        return self._given_up(failure, attempt, gone)

    async def _attempt(self, question: _Question, body: dict[str, Any]) -> list[Completion]:
        request = question.request
        mean = self._tokens_written / self._completions if self._completions else request.max_tokens
        taken = estimated_prompt(request)
        reckoned = taken + round(question.n * min(mean, request.max_tokens))
        await self._limit.start(reckoned)
        try:
            self.attempts += 1
            async with asyncio.timeout(self._timeout_s):
                content = await question.connection.post(request_bytes(body))
            completions = read_reply(content, request)
            used = usage_of(request, completions)
            taken = used.prompt_tokens + used.completion_tokens
        finally:
            self._limit.settle(reckoned, taken)
        self._tokens_written += used.completion_tokens
        self._completions += len(completions)
        self._answered += 1
        self._failed_in_a_row = 0
        return completions

    async def _asked_otherwise(self, question: _Question, body: dict[str, Any], failure: Failure) -> Outcome | None:
        """Ask without what some servers refuse: `max_tokens` (OpenAI's reasoning models), `n` (llama.cpp)."""
        if "max_tokens" in body and "max_completion_tokens" in failure.said:
            self._limit_field = "max_completion_tokens"
            return await self._some(question)
        if question.n == 1:
            return None
        outcome = await self._some(replace(question, n=1))
        if not isinstance(outcome, PolicyError):
            self._takes_n = False
        return outcome

    def _given_up(self, failure: Failure, attempts: int, gone: bool) -> PolicyError:
        """Return the error of one request.

        Raises:
            PolicyStopped: It is an error of every request.
        """
        reason = failure.reason if attempts == 1 else f"{failure.reason} ({attempts} attempts)"
        if failure.concerns is Concerns.REQUEST:
            return PolicyError(reason)
        self._failed_in_a_row += 1
        misnamed = failure.concerns is Concerns.MODEL and not self._answered
        if not (failure.concerns is Concerns.ALL or gone or misnamed):
            if self._failed_in_a_row < _MOST_FAILED_IN_A_ROW:
                return PolicyError(reason)
            reason = f"none of the last {self._failed_in_a_row} requests was answered; the last one: {reason}"
        self._stops += 1
        self._last_stop = reason
        self._failed_in_a_row = 0
        raise PolicyStopped(reason)
