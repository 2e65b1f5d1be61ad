"""Keeps Python code in the tests' own process from reaching any other machine."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

import pytest

_WHERE = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0}
"""Events of Python's own auditing, and which of their arguments says where to."""


def install() -> None:
    """Fail every test that asks for a connection or a look-up beyond this machine; there is no way back."""
    sys.addaudithook(_loopback_only)


def is_here(address: Any) -> bool:
    """Return whether a socket address, or a host's name, is this machine itself."""
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if not isinstance(host, str):
        return True  # none given, or a family such as netlink, which never leaves the machine
    if host in ("", "localhost") or host[0] in "/\0":
        return True  # a wildcard, this machine's name for itself, or a Unix socket
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _loopback_only(event: str, args: tuple[Any, ...]) -> None:
    # pytest.fail is no Exception, so code under test that retries or reports a failed connection cannot hide it.
    if event in _WHERE and not is_here(args[_WHERE[event]]):
        pytest.fail(f"a test reached for the network: {event} to {args[_WHERE[event]]!r}; tests may use loopback only")
