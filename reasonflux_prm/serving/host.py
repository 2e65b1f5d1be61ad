"""A service on a port: the socket, the signals, and the end of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from types import FrameType

import uvicorn

from reasonflux_prm.errors import UsageError
from reasonflux_prm.serving.gate import App
from reasonflux_prm.serving.service import Service

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 2048
_KEEP_ALIVE_S = 120
"""Long beside what clients allow themselves, so that one which lags does not send on a connection that just closed."""
_LAST_ANSWERS_S = 2.0
"""For the answers that say that the service gave up."""
_SWITCH_S = 0.001
"""Python's threads change places so often. The thread that owns the model gives its place up in every operation, and
would at the usual 5 ms wait that long for it whenever another thread is busy."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that has the address but does not listen yet: a port in use is told before a PRM is loaded.

    Raises:
        UsageError: The address is taken, or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise UsageError(
            f"cannot serve at {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from error
    return bound


def address_of(bound: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Host(uvicorn.Server):
    """Serves until it is told to stop, then finishes what was accepted.

    Args:
        app: From `create_app`.
        service: What it scores with.
    """

    def __init__(self, app: App, service: Service) -> None:
        self._service = service
        drain_s = service.limits.drain_s
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            lifespan="off",
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=drain_s + _LAST_ANSWERS_S,  # type: ignore[arg-type]
            server_header=False,
        )
        super().__init__(config)

    def serve_until_stopped(self, bound: socket.socket, started: Callable[[], None] = lambda: None) -> bool:
        """Serve; return once all is done.

        Args:
            bound: From `bind`.
            started: Called when requests are taken.

        Returns:
            Whether everything that was accepted was answered; False if a forward pass still runs, on a daemon thread.
        """
        sys.setswitchinterval(_SWITCH_S)
        self._started = started
        asyncio.run(self.serve(sockets=[bound]))
        return self._service.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port."""
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing more, finish, and after `drain_s` give up what is left."""
        self._service.drain()
        late = asyncio.get_running_loop().call_later(self._service.limits.drain_s, self._service.abort)
        await super().shutdown(sockets)
        late.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop at the first signal and at once at the second; unlike the base class, never die of one."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; asked a second time, leave everything."""
        self.force_exit = self.should_exit
        self.should_exit = True


def leave(code: int) -> None:
    """End the process although a forward pass still runs on a thread that cannot be stopped."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
