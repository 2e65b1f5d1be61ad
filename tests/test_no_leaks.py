"""Nothing of the machine it was written on is in the project, and its tests reach no network."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from network_guard import is_here

ROOT = Path(__file__).parents[1]
# Spelt with a star, so that this file holds none of them.
_STARRED = ("pypi*org", "pythonhosted*org", "npmjs*", "deb.debian*org", "download.pytorch*org", "crates*io")
REGISTRIES = tuple(name.replace("*", ".") for name in _STARRED)
PATHS = rb"(?<![\w.~-])/(?:work|root|home/\w+|Users/\w+|opt/(?:wheels|pypi))(?=[/\s\"'`)]|$)"
LEAK = re.compile(b"|".join([*(re.escape(name.encode()) for name in REGISTRIES), PATHS]), re.MULTILINE)


def files() -> list[Path]:
    """Return what is committed, and what the next commit could take."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_machine_path_and_no_registry_host():
    leaks = []
    for path in files():
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if found := LEAK.search(line):
                leaks.append(f"{path.relative_to(ROOT)}:{number}: {found[0].decode()}")
    assert leaks == []


@pytest.mark.parametrize("text", ["cd *root/x", "'*work'", "*home/me/x", f"https:**{REGISTRIES[0]}*simple"])
def test_what_counts_as_a_leak(text):
    assert LEAK.search(text.replace("*", "/").encode())


@pytest.mark.parametrize("text", ["https:**example.org*root/x", "a*work/b", "*workers", "~*home"])
def test_what_does_not(text):
    assert not LEAK.search(text.replace("*", "/").encode())


def test_the_guard_stops_a_connection():
    # Connecting a datagram socket sends nothing, so even without the guard no packet would leave.
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
        pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"),
    ):
        out.connect(("192.0.2.1", 9))


def test_the_guard_stops_a_look_up():
    with pytest.raises(pytest.fail.Exception, match=r"example\.org"):
        socket.getaddrinfo("example.org", 80)


def test_the_guard_lets_loopback_pass():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


@pytest.mark.parametrize("address", [("127.0.0.1", 1), ("::1", 1, 0, 0), "localhost", None, b"\0a", "/tmp/a", (0, 0)])
def test_addresses_of_this_machine(address):
    assert is_here(address)


@pytest.mark.parametrize("address", [("10.0.0.1", 1), ("0.0.0.1", 1), ("::2", 1, 0, 0), "example.org", b"example.org"])
def test_addresses_elsewhere(address):
    assert not is_here(address)
