"""The system calls that a program in the sandbox may not make, as a filter for the kernel (seccomp, classic BPF).

Namespaces and a user without rights already stop most of what these calls do. The filter closes what is left
open to an ordinary user: new user namespaces, kernel parts with a history of holes (io_uring, bpf, perf, keyrings),
sockets that no network namespace holds (vsock reaches the host of a virtual machine), and memory that no limit counts.
"""

from __future__ import annotations

import errno
import os
import struct

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}

# Name: (x86_64, aarch64); None where the machine has no such call. From the kernel's unistd.h.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "semget": (64, 190),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "settimeofday": (164, 170),
    "shmat": (30, 196),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
# Looked at by their arguments.
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_IOCTL = (16, 29)
_KILL = (62, 129)
_MMAP = (9, 222)
_PRLIMIT = (302, 261)
_SOCKET = (41, 198)

_NEW_NAMESPACES = 0x7E020000
"""All CLONE_NEW* flags that share a word with the termination signal."""
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into a terminal."""
_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET and AF_INET6: what the network namespace holds."""
_SHARED_ANONYMOUS = 0x21
"""MAP_SHARED and MAP_ANONYMOUS: memory that stays when no process has it mapped any more, so that nobody counts it."""

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000
"""System calls of the x32 ABI, another way into the same calls."""


def supported(machine: str | None = None) -> bool:
    """Return whether there is a filter for `machine` (by default this one)."""
    return (machine or os.uname().machine) in _AUDIT_ARCH


def seccomp_filter(*, isolated: bool = True, machine: str | None = None) -> bytes:
    """Return the filter as the array of `struct sock_filter` that the kernel takes.

    Args:
        isolated: Whether namespaces hold the program. Without them no socket may be made at all, and no signal sent
            to all processes at once.
        machine: As `os.uname` names it; by default this one.

    Raises:
        KeyError: There is no filter for `machine`; see `supported`.
    """
    machine = machine or os.uname().machine
    column = _COLUMN[machine]
    refuse = _returned(errno.EPERM)
    program = [
        _instruction(_LOAD, _ARCH_AT),
        _instruction(_IF_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _NUMBER_AT),
        *_when(_IF_AT_LEAST, _X32, refuse),
        # The flags of clone3 lie in memory, where no filter looks. Told that there is no such call, libc uses clone.
        *_when(_IF_EQUAL, _CLONE3[column], _returned(errno.ENOSYS)),
    ]
    for numbers in _NUMBERS.values():
        number = numbers[column]
        if number is not None:
            program += _when(_IF_EQUAL, number, refuse)
    program += _for_call(_CLONE[column], 0, _when(_IF_ANY_BIT, _NEW_NAMESPACES, refuse))
    program += _for_call(_IOCTL[column], 1, [i for code in _TERMINAL_INPUT for i in _when(_IF_EQUAL, code, refuse)])
    both = [_instruction(_AND, _SHARED_ANONYMOUS), *_when(_IF_EQUAL, _SHARED_ANONYMOUS, refuse)]
    program += _for_call(_MMAP[column], 3, both)
    # A process may lower the limits of any other of the same user, so of the supervisor too.
    program += _for_call(_PRLIMIT[column], 0, [*_when(_IF_EQUAL, 0, _ALLOW), _instruction(_RETURN, refuse)])
    families = [i for family in _FAMILIES if isolated for i in _when(_IF_EQUAL, family, _ALLOW)]
    program += _for_call(_SOCKET[column], 0, [*families, _instruction(_RETURN, refuse)])
    if not isolated:
        program += _for_call(_KILL[column], 0, _when(_IF_EQUAL, 0xFFFFFFFF, refuse))
    return b"".join([*program, _instruction(_RETURN, _ALLOW)])


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _returned(error: int) -> int:
    return 0x00050000 | error


def _when(test: int, value: int, verdict: int) -> list[bytes]:
    return [_instruction(test, value, 0, 1), _instruction(_RETURN, verdict)]


def _for_call(number: int, argument: int, checks: list[bytes]) -> list[bytes]:
    """Run `checks` on the low half of an argument of one system call; what they let pass is allowed."""
    body = [_instruction(_LOAD, _ARGUMENTS_AT + 8 * argument), *checks, _instruction(_RETURN, _ALLOW)]
    return [_instruction(_IF_EQUAL, number, 0, len(body)), *body]
