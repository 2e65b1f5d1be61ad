"""What every request passes before it is looked at: the token, the kind of body, its size, the time it takes to come.

The body is read whole here, within its bounds, and handed on; so that a client that hangs up in the middle, or sends
more than it may, costs nothing further in. Everything that is answered is counted.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from reasonflux_prm.serving.limits import MIB, Refusal
from reasonflux_prm.serving.service import Service, stopping

_log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS: Final = frozenset({"/health", "/health/live", "/health/ready"})
"""Answered without the token: probes have none."""
HUNG_UP = 499
"""Counted, and read by nobody: nginx's code for a client that closed the connection."""


class HungUp(Exception):
    """The client went away before its answer."""


class Gate:
    """An ASGI application in front of another.

    Args:
        app: What answers requests that pass.
        service: Whose limits and counts these are.
        token: What a request must bear; None lets everyone in.
        paths: The paths that are counted under their own names.
    """

    def __init__(self, app: App, service: Service, token: str | None, paths: frozenset[str]) -> None:
        self._app, self._service, self._paths = app, service, paths
        self._token = None if token is None else token.encode()
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, answer = time.monotonic(), _Answer(send)
        try:
            await self._pass(scope, receive, answer)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except HungUp:
            answer.status = HUNG_UP
        except Exception:  # a fault of ours; it was answered with 500 where it happened
            _log.exception("%s %s failed", scope["method"], scope["path"])
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._service.metrics.answered(path, answer.status, time.monotonic() - started)
        return None

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if scope["path"] not in OPEN_PATHS:
            self._check_token(headers.get(b"authorization", b""))
        if scope["method"] in ("GET", "HEAD"):
            return await self._app(scope, receive, answer)
        if self._service.draining:
            raise stopping()
        body = _Body(self._service, declared(headers))
        if self._held + body.size > self._service.limits.held_bytes:
            raise Refusal(
                429,
                f"requests of {self._held / MIB:,.0f} MiB are in progress, and this one would go above the limit of "
                f"{self._service.limits.held_bytes / MIB:,.0f} MiB; ask again later",
                "ServiceError",
                self._service.retry_after_s(),
            )
        self._held += body.size
        try:
            data = await body.read(receive, self._grow)
            if data:
                check_kind(headers.get(b"content-type", b""))
            await self._app(scope, _replayed(data, receive), answer)
        finally:
            self._held -= body.size
        return None

    def _check_token(self, given: bytes) -> None:
        scheme, _, token = given.partition(b" ")
        if self._token is None:
            return
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise Refusal(
                401, "expected the header Authorization: Bearer TOKEN with this service's token", "ServiceError"
            )

    def _grow(self, more: int) -> None:
        self._held += more


class _Body:
    """The body of one request on its way in; `size` is what it may hold so far."""

    def __init__(self, service: Service, size: int | None) -> None:
        self._most, self._seconds = service.limits.body_bytes, service.limits.body_s
        if size is not None and size > self._most:
            raise self._too_large(f"{size:,}")
        self.size = size or 0

    async def read(self, receive: Receive, grow: Callable[[int], None]) -> bytes:
        """Return all of it.

        Raises:
            Refusal: It is too large, or does not come in time.
            HungUp: It never comes.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._whole(receive, grow)
        except TimeoutError:
            raise Refusal(
                408, f"expected the whole body within {self._seconds:g} s, got a part of it", "ServiceError"
            ) from None

    async def _whole(self, receive: Receive, grow: Callable[[int], None]) -> bytes:
        chunks: list[bytes] = []
        read = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HungUp
            chunk: bytes = message.get("body", b"")
            read += len(chunk)
            if read > self._most:
                raise self._too_large("more")
            if read > self.size:
                grow(read - self.size)
                self.size = read
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)

    def _too_large(self, got: str) -> Refusal:
        return Refusal(
            413,
            f"expected a body of at most {self._most:,} bytes, got {got}; send less at a time",
            "InputError",
        )


class _Answer:
    """Passes an answer on, and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        body = json.dumps(refusal.body()).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers()}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await self({"type": "http.response.body", "body": body})


def declared(headers: dict[bytes, bytes]) -> int | None:
    """Return what `Content-Length` says; the server has checked its form."""
    value = headers.get(b"content-length")
    return int(value) if value is not None and value.isdigit() else None


def check_kind(content_type: bytes) -> None:
    """Refuse a body that does not say it is JSON.

    So that no page in a browser can make it send one: it would have to ask first, and is not allowed.

    Raises:
        Refusal: It says something else, or nothing.
    """
    kind = content_type.partition(b";")[0].strip().lower()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        got = kind.decode("latin-1") or "no such header"
        raise Refusal(415, f"expected the header Content-Type: application/json, got {got}", "InputError")


def _replayed(data: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body in one piece, and after it what the connection says."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": data, "more_body": False}

    return replay
