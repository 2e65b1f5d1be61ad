"""What the attacks could reach on this machine, were they let: bait, and whether it was taken."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reasonflux_prm.sandbox.backends import Backend
from reasonflux_prm.sandbox.limits import Limits, Run, RunStatus
from reasonflux_prm.sandbox.sandbox import Sandbox, why_not

ROOT = Path(__file__).parents[2]
HOST = Path(__file__).with_name("sandbox_host.py")
ORDINARY_USER = 54321
Runner = Callable[[str, Limits, dict[str, str]], Run]


@dataclass
class Bait:
    """Things of this machine that a program in the sandbox must neither see nor touch."""

    told: dict[str, Any]
    canary: subprocess.Popen[bytes]
    doors: list[socket.socket]
    marker: str
    folders: list[Path] = field(default_factory=list)

    def taken(self) -> list[str]:
        """Say what was touched."""
        found = []
        if self.canary.poll() is not None:
            found.append("the canary process is dead")
        for door in self.doors:
            try:
                door.recv(1) if door.type == socket.SOCK_DGRAM else door.accept()
            except BlockingIOError:
                continue
            found.append(f"something came in at {door.getsockname()}")
        found += [f"{path} was written" for folder in self.folders for path in folder.glob(f"*{self.marker}*")]
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    line = Path(f"/proc/{name}/cmdline").read_bytes()
                except OSError:
                    continue
                if self.marker.encode() in line:
                    found.append(f"process {name} is left")
        return found


def _door(family: int, kind: int, address: object) -> socket.socket:
    door = socket.socket(family, kind)
    door.bind(address)
    if kind == socket.SOCK_STREAM:
        door.listen()
    door.setblocking(False)
    return door


@pytest.fixture(scope="module")
def bait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bait]:
    folder = tmp_path_factory.mktemp("bait")
    for parent in [folder, *folder.parents[:2]]:
        parent.chmod(parent.stat().st_mode | 0o055)  # so that it is not the folder's mode that keeps them out
    secret, marker = secrets.token_hex(16), f"marker{secrets.token_hex(8)}"
    (folder / "secret.txt").write_text(secret)
    canary = subprocess.Popen(["sleep", "300"], start_new_session=True)
    tcp = _door(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    udp = _door(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
    abstract = f"sandbox-{marker[:14]}"
    doors = [tcp, udp, _door(socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "door"))]
    doors.append(_door(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{abstract}"))
    (folder / "door").chmod(0o777)
    told = {
        "tcp": tcp.getsockname()[1],
        "udp": udp.getsockname()[1],
        "unix": str(folder / "door"),
        "abstract": abstract,
        "canary": canary.pid,
        "canary_group": canary.pid,
        "pytest": os.getpid(),
        "pytest_group": os.getpgrp(),
        "secret_folder": str(folder),
        "secret_file": str(folder / "secret.txt"),
        "secret": secret,
        "marker": marker,
        "home": str(Path.home()),
        "root": os.path.expanduser("~root"),
        "project": str(ROOT),
        "host": socket.gethostname(),
        "interpreter": [os.path.realpath(sys.base_prefix), "/usr"],
    }
    os.environ["SANDBOX_TEST_SECRET"] = secret
    written = ["/", "/usr", "/usr/lib", "/etc", "/tmp", "/var/tmp", "/dev/shm", "/run", Path.home(), ROOT, folder]
    written += [Path(os.__file__).parent]
    try:
        yield Bait(told, canary, doors, marker, [Path(place) for place in written])
    finally:
        del os.environ["SANDBOX_TEST_SECRET"]
        canary.kill()
        canary.wait()
        for door in doors:
            door.close()


@dataclass
class OtherUser:
    """Sandboxes of a process that runs as an ordinary user, though we are root."""

    process: subprocess.Popen[str]

    def run(self, code: str, limits: Limits, files: dict[str, str], backend: str, arguments: Sequence[str] = ()) -> Run:
        request = {"code": code, "limits": asdict(limits), "files": files, "backend": backend, "arguments": arguments}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "its process ended"}')
        if "error" in answer:
            pytest.skip(answer["error"])
        return Run(**{**answer, "status": RunStatus(answer["status"])})


@pytest.fixture(scope="session")
def readable_host() -> Iterator[Path]:
    """Give the host in a copy of the project that any user may read; a checkout may be its owner's alone."""
    folder = Path(tempfile.mkdtemp(prefix="sandbox-host-"))
    try:
        package = folder / "reasonflux_prm"
        shutil.copytree(ROOT / "reasonflux_prm" / "sandbox", package / "sandbox")
        for module in ("__init__.py", "errors.py", "records.py"):
            shutil.copy(ROOT / "reasonflux_prm" / module, package)
        host = folder / HOST.relative_to(ROOT)
        host.parent.mkdir(parents=True)
        shutil.copy(HOST, host)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield host
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def other_user(readable_host: Path) -> Iterator[OtherUser]:
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    if python is None or subprocess.run([python, "-c", check]).returncode:
        pytest.skip("an ordinary user has no Python 3.11 outside of root's home folder")
    environment = {
        "SANDBOX_TEST_SECRET": os.environ.get("SANDBOX_TEST_SECRET", "do not tell"),
        "PATH": os.environ["PATH"],
    }
    process = subprocess.Popen(
        [python, "-B", str(readable_host), str(ORDINARY_USER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd="/",
    )
    with process:
        yield OtherUser(process)
        assert process.stdin is not None
        process.stdin.close()


BACKENDS = [Backend.BUBBLEWRAP, Backend.NAMESPACES, Backend.USER_NAMESPACES]


AS_ROOT = ["bubblewrap", "namespaces", "ordinary user: bubblewrap", "ordinary user: user-namespaces"]


@pytest.fixture(scope="module", params=AS_ROOT if os.geteuid() == 0 else ["bubblewrap", "user-namespaces"])
def runner(request: pytest.FixtureRequest, bait: Bait) -> Runner:
    """Return what runs a program in one kind of sandbox; its probe has found all limits in force."""
    user, _, name = request.param.rpartition(": ")
    backend = Backend(name)
    if user:
        host: OtherUser = request.getfixturevalue("other_user")
        return lambda code, limits, files: host.run(code, limits, files, backend)
    if reason := why_not(backend):
        pytest.skip(f"{backend} does not isolate here: {reason}")
    return lambda code, limits, files: Sandbox(limits, backend).run(code, files=files)


@pytest.fixture(scope="session")
def backend() -> Backend:
    """Return the backend that is chosen here."""
    for found in BACKENDS:
        if why_not(found) is None:
            return found
    pytest.skip(f"nothing isolates programs here: {'; '.join(str(why_not(found)) for found in BACKENDS)}")
