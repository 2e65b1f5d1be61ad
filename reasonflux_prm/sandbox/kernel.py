"""The calls to the Linux kernel that Python has no function for.

Runs inside the sandbox too, in an interpreter that has the standard library and nothing else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource

# The module `signal` takes longer to load than the rest of the supervisor together.
SIGKILL = 9
_SIGINT = 2
_DEFAULT, _IGNORE = 0, 1

NEW_MOUNTS = 0x00020000
NEW_CGROUPS = 0x02000000
NEW_HOST_NAME = 0x04000000
NEW_IPC = 0x08000000
NEW_USERS = 0x10000000
NEW_PROCESSES = 0x20000000
NEW_NETWORK = 0x40000000

NO_SETUID, NO_DEVICES, NO_EXECUTION = 0x2, 0x4, 0x8
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
_DETACH = 2

ATTRIBUTE_READ_ONLY, ATTRIBUTE_NO_SETUID, ATTRIBUTE_NO_DEVICES, ATTRIBUTE_NO_EXECUTION = 0x1, 0x2, 0x4, 0x8
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442

_SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SECCOMP, _DROP_BOUND = 1, 4, 22, 24
_SET_SUBREAPER, _SET_NO_NEW_PRIVILEGES = 36, 38
_FILTER = 2
_CAPABILITY_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | ctypes.c_char_p | None) -> int:
    """Call a function of libc. Whole numbers are passed as long, which is what the kernel's own calls take."""
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = getattr(_libc, name)(*passed)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def unshare(namespaces: int) -> None:
    """Put this process into new namespaces (its children, for the process namespace)."""
    _call("unshare", namespaces)


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount a file system, or change how `target` is mounted."""
    from_where = None if source is None else os.fsencode(source)
    _call("mount", from_where, os.fsencode(target), None if kind is None else kind.encode(), flags, options.encode())


def protect_mount(target: str, attributes: int, *, recursive: bool) -> None:
    """Add attributes (read-only, ...) to a mount, and to all below it; needs Linux 5.12."""
    wanted = ctypes.create_string_buffer(attributes.to_bytes(8, "little"), 32)
    where = os.fsencode(target)
    _call("syscall", _MOUNT_SETATTR, _AT_FDCWD, where, _AT_RECURSIVE if recursive else 0, wanted, 32)


def pivot_root(new: str, old: str) -> None:
    """Make the mount at `new` the root, and let the former root appear at `old`."""
    _call("syscall", _PIVOT_ROOT[os.uname().machine], os.fsencode(new), os.fsencode(old))


def detach(target: str) -> None:
    """Unmount `target` and all below it at once, whoever still uses it."""
    _call("umount2", os.fsencode(target), _DETACH)


def set_host_name(name: str) -> None:
    """Name the machine, in this host name namespace."""
    _call("sethostname", name.encode(), len(name))


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. A change of user undoes it."""
    _call("prctl", _SET_PARENT_DEATH_SIGNAL, SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _call("prctl", _SET_SUBREAPER, 1, 0, 0, 0)


def drop_privileges(user: int | None) -> None:
    """Give up every capability for good, and become `user` (None: stay who we are)."""
    _call("prctl", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    for capability in range(64):
        try:
            _call("prctl", _DROP_BOUND, capability, 0, 0, 0)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            break
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = _CAPABILITY_VERSION.to_bytes(4, "little") + bytes(4)
    _call("capset", header, bytes(24))


def hide_memory() -> None:
    """Keep other processes of the same user out of this one's memory, open files and environment."""
    _call("prctl", _SET_DUMPABLE, 0, 0, 0, 0)


def install_filter(program: bytes) -> None:
    """Put a system call filter (see `seccomp`) on this process and all it starts; there is no way back."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    description = Program(len(program) // 8, program)
    if _libc.prctl(_SET_SECCOMP, ctypes.c_long(_FILTER), ctypes.byref(description)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def mind_interrupts(mind: bool) -> None:
    """Ignore SIGINT, which Python turns into an exception, or take it as any program does."""
    _libc.signal(_SIGINT, ctypes.c_void_p(_DEFAULT if mind else _IGNORE))


def set_limits(limits: dict[str, int]) -> None:
    """Set soft and hard limits, by the names in `resource` ("NPROC"); a limit that is lower already stays."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))
