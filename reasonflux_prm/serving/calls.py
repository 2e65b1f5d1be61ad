"""One call of a service: tried again while that may help, and its failures as this package's errors."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reasonflux_prm import errors
from reasonflux_prm.errors import InputError, MissingExtra, ReasonFluxError, ServiceError, UsageError
from reasonflux_prm.policy.chat_reply import server_message
from reasonflux_prm.policy.retries import pause_s, retry_after_s

if TYPE_CHECKING:
    import httpx

_BUSY: Final = (429, 503)
"""Tried again for as long as the caller has patience: nothing is wrong but the time."""
_BROKEN: Final = (408, 502, 504)


_ADDRESS: Final = re.compile(r"https?://(?:[^\s/?#\[\]]+|\[[0-9a-fA-F:.]+\](?::\d+)?)(?:/[^\s?#]*)?")


class TooLarge(InputError):
    """A request holds more than the service takes at a time; its parts may fit."""


@dataclass(frozen=True, slots=True)
class Patience:
    """When to give up.

    Args:
        timeout_s: Seconds for one attempt, from the first byte sent to the last one received.
        busy_s: Seconds in which a service that says it is busy is asked again.
        attempts: Attempts where the service cannot be reached, breaks off or does not answer in time.
    """

    timeout_s: float = 600.0
    busy_s: float = 600.0
    attempts: int = 5


class Caller:
    """Calls one service. It belongs to the event loop of its first call.

    Args:
        url: The service's address, without a path.
        token: What requests bear, or None.
        patience: When to give up.
        connections: Connections at a time.

    Raises:
        UsageError: That is no address.
        MissingExtra: httpx is not installed.
    """

    def __init__(self, url: str, token: str | None, patience: Patience, connections: int) -> None:
        if not _ADDRESS.fullmatch(url):
            raise UsageError(f"expected the address of a service, such as http://127.0.0.1:8000, got {url!r}")
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra('a client of a service needs httpx: pip install "reasonflux-prm[serve]"') from error
        self.url, self._patience = url.rstrip("/"), patience
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=headers,
            timeout=patience.timeout_s,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=False,  # a proxy for the internet is not the way to a service beside us
        )

    async def post(self, path: str, body: bytes) -> dict[str, Any]:
        """Send a JSON body and return the answer.

        Raises:
            ServiceError: It could not be had.
            UsageError: A setting of the request is not one that the service takes.
            InputError: The request holds something that the service cannot read.
            TooLarge: It holds too much.
        """
        return await self._call("POST", path, body)

    async def get(self, path: str) -> dict[str, Any]:
        """Return an answer.

        Raises:
            ServiceError: It could not be had.
        """
        return await self._call("GET", path, None)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        give_up = time.monotonic() + self._patience.busy_s
        failures = busy = 0
        while True:
            outcome = await self._attempt(method, path, body)
            if not isinstance(outcome, _Failure):
                return outcome
            busy, failures = busy + outcome.busy, failures + (not outcome.busy)
            pause = pause_s(min(busy, 4) if outcome.busy else failures, outcome.after_s)
            if not outcome.again or failures >= self._patience.attempts or time.monotonic() + pause > give_up:
                raise outcome.error
            await asyncio.sleep(pause)

    async def _attempt(self, method: str, path: str, body: bytes | None) -> dict[str, Any] | _Failure:
        import httpx

        headers = {"content-type": "application/json"} if body is not None else {}
        try:
            async with asyncio.timeout(self._patience.timeout_s):
                reply = await self._http.request(method, path, content=body, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            reason = f"{self.url} gave no answer within {self._patience.timeout_s:g} s; raise timeout_s"
            return _Failure(ServiceError(reason), again=True)
        except httpx.ConnectError as error:
            reason = f"{self.url} could not be reached ({error}); check that a service runs at this address"
            return _Failure(ServiceError(reason), again=True)
        except httpx.HTTPError as error:
            reason = f"{self.url} broke off ({error or type(error).__name__}); see its log"
            return _Failure(ServiceError(reason), again=True)
        return self._read(path, reply)

    def _read(self, path: str, reply: httpx.Response) -> dict[str, Any] | _Failure:
        try:
            answer = json.loads(reply.content)
        except ValueError:
            answer = None
        if reply.status_code == 200 and isinstance(answer, dict):
            return answer
        if reply.status_code == 200:
            reason = f"expected JSON from {self.url}{path}, got something else; is it a service of reasonflux-prm?"
            return _Failure(ServiceError(reason), again=False)
        said = server_message(answer if isinstance(answer, dict) else reply.text) or reply.reason_phrase
        busy = reply.status_code in _BUSY
        return _Failure(
            self._error(reply.status_code, answer, said),
            again=busy or reply.status_code in _BROKEN,
            busy=busy,
            after_s=retry_after_s(reply.headers),
        )

    def _error(self, status: int, answer: Any, said: str) -> ReasonFluxError:
        said = f"{self.url} answered {status}: {said}"
        if status == 413:
            return TooLarge(said)
        try:
            named = getattr(errors, str(answer["error"]["type"]), ServiceError)
        except (KeyError, TypeError):
            named = ServiceError
        ours = isinstance(named, type) and issubclass(named, ReasonFluxError) and status in (400, 422)
        return named(said) if ours else ServiceError(said)


@dataclass(frozen=True, slots=True)
class _Failure:
    """An attempt that failed."""

    error: ReasonFluxError
    again: bool
    busy: bool = False
    after_s: float = 0.0
