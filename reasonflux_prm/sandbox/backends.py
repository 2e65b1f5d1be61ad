"""What can hold a program on this machine: how each backend is started, and whether it really isolates here."""

from __future__ import annotations

import functools
import json
import marshal
import os
import random
import shutil
from collections.abc import Sequence
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

from reasonflux_prm.sandbox.job import Job, View
from reasonflux_prm.sandbox.limits import UNSAFE
from reasonflux_prm.sandbox.supervisor import NOBODY
from reasonflux_prm.sandbox.view import interpreter


class Backend(StrEnum):
    """What keeps a program from the rest of the machine."""

    BUBBLEWRAP = "bubblewrap"
    """The program `bwrap`, as root or as any user."""
    NAMESPACES = "namespaces"
    """Namespaces that we make ourselves, as root."""
    USER_NAMESPACES = "user-namespaces"
    """Namespaces that we make ourselves as an ordinary user, where the system lets users have them."""
    NONE = UNSAFE
    """Nothing: limits, the filter of system calls, an empty environment and the kill at the end are all there is."""


# Run in this order in an interpreter that has the standard library only, so each may import those before it.
_INSIDE = ("kernel", "mounts", "supervisor")
_BOOT = """import marshal, sys
control, report = map(int, sys.argv[1:])
with open(control, "rb", closefd=False) as file:
    modules, job = marshal.load(file)
for name, code in modules:
    sys.modules[name] = module = type(sys)(name)
    exec(code, module.__dict__) if code else setattr(module, "__path__", [])
module.main(job, control, report)
"""


@functools.cache
def _modules() -> list[tuple[str, CodeType | None]]:
    """Return names and code of the modules that run inside, where the package itself cannot be seen.

    A package has no code: inside it is an empty module, there for the names below it.
    """
    package = __package__
    found: list[tuple[str, CodeType | None]] = [(package.partition(".")[0], None), (package, None)]
    for name in _INSIDE:
        path = import_module(f"{package}.{name}").__file__
        assert path is not None
        source = Path(path).read_bytes()
        found.append((f"{package}.{name}", compile(source, f"<{name} of the sandbox>", "exec", dont_inherit=True)))
    return found


def message(job: Job) -> bytes:
    """Return what the supervisor reads first: its own code, and the job."""
    parts: Any = (_modules(), job)
    return marshal.dumps(parts)


def command(backend: Backend, view: View, control: int, report: int) -> list[str]:
    """Return the command that starts the supervisor; `control` and `report` are the pipes that it inherits."""
    # -I and -S: nothing of the user's, and a faster start; the program itself runs without them.
    supervisor = [interpreter(), "-I", "-S", "-c", _BOOT, str(control), str(report)]
    if backend is not Backend.BUBBLEWRAP:
        return supervisor
    return [*_bubblewrap(view), "--", *supervisor]


def _bubblewrap(view: View) -> list[str]:
    found = shutil.which("bwrap")
    assert found is not None
    arguments = [found, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--hostname", "sandbox", "--new-session", "--die-with-parent", "--as-pid-1"]
    if os.geteuid() == 0:
        # Real root inside a user namespace would still be root to the limits and to the files; so no such namespace,
        # and the supervisor becomes an ordinary user, for which it needs these two.
        arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    arguments += ["--perms", "1777", "--size", str(view["folder_bytes"]), "--tmpfs", view["folder"], "--proc", "/proc"]
    for name in _not_of_processes():
        arguments += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for kind, paths in (("--ro-bind", view["read_only"]), ("--dev-bind", view["devices"])):
        for path in paths:
            # What bubblewrap makes by itself on the way to a folder may be closed to the program's user.
            for parent in reversed(Path(path).parents[:-1]):
                arguments += ["--perms", "0755", "--dir", str(parent)]
            arguments += [kind, path, path]
    for path in view["covered"]:
        arguments += ["--perms", "0755", "--size", "4096", "--tmpfs", path, "--remount-ro", path]
    for text, where in view["links"]:
        arguments += ["--symlink", text, where]
    return [*arguments, "--remount-ro", "/", "--chdir", "/"]


@functools.cache
def _not_of_processes() -> list[str]:
    """Return the files of /proc that describe the machine; bubblewrap cannot leave them out, as we do ourselves.

    Its folders (/proc/sys and the like) stay: without rights nothing in them can be changed.
    """
    return sorted(entry.name for entry in os.scandir("/proc") if entry.is_file(follow_symlinks=False))


def user_inside(backend: Backend) -> int | None:
    """Return the user that the supervisor becomes: one of its own for each run if we are root, else None (stay).

    The kernel counts processes by user, so runs that share a user would share their limit with each other and with
    whatever else runs as that user.
    """
    if os.geteuid() != 0 or backend is Backend.USER_NAMESPACES:
        return None
    mapped = Path("/proc/self/uid_map").read_text("ascii").split()
    end = max(int(first) + int(count) for first, count in zip(mapped[::3], mapped[2::3], strict=True))
    # Away from the users that systems and containers hand out, where the map of this container leaves a choice.
    return min(end, 0x7000_0000) - 2 - random.randrange(4096)


def candidates() -> Sequence[Backend]:
    """Return the backends worth a try here, best first."""
    own = Backend.NAMESPACES if os.geteuid() == 0 else Backend.USER_NAMESPACES
    return [Backend.BUBBLEWRAP, own]


def missing(backend: Backend) -> str | None:
    """Return what `backend` plainly lacks here, as a clause; None if a try has to show."""
    if backend is Backend.BUBBLEWRAP and shutil.which("bwrap") is None:
        return "bwrap is not installed"
    if backend is Backend.NAMESPACES and os.geteuid() != 0:
        return "it needs root"
    if backend is Backend.USER_NAMESPACES and os.geteuid() == 0:
        return "it needs an ordinary user: root in a user namespace is still root to the limits"
    return None


# Each `if` is a way out that must be shut. The fork bomb is a small one; connecting a datagram socket sends nothing.
PROBE = """
import errno, json, os, socket, sys
open_ways = []
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
if os.getuid() == 0 or int(status["CapEff"], 16) or int(status["CapBnd"], 16) and status["NoNewPrivs"].strip() != "1":
    open_ways.append("the program keeps rights")
if status["Seccomp"].strip() != "2":
    open_ways.append("system calls are not filtered")
if sum(name.isdigit() for name in os.listdir("/proc")) > 2:
    open_ways.append("processes of the machine can be seen")
try:
    way = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
except PermissionError:
    pass
else:
    if way.connect_ex(("192.0.2.1", 9)) != errno.ENETUNREACH:
        open_ways.append("there is a network")
if set(os.listdir("/")) & {"home", "boot", "srv", "var", "run", "sys"}:
    open_ways.append("the machine's files can be seen")
for place in ("/", "/usr", os.path.dirname(os.__file__)):
    if os.access(place, os.W_OK):
        open_ways.append(f"{place} can be written to")
read, write = os.pipe()
for _ in range(int(sys.argv[1]) + 2):
    try:
        if not os.fork():
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    except BlockingIOError:
        break
else:
    open_ways.append("the number of processes is not limited")
print(json.dumps(open_ways))
"""


def reading_of_probe(stdout: str) -> str | None:
    """Return what the probe found open, as a clause, or None if nothing is."""
    found = json.loads(stdout)
    return ", ".join(found) if found else None
