"""The filter says what it should of every call, on both machines, by a small reading of its instructions."""

from __future__ import annotations

import errno
import struct

import pytest

from reasonflux_prm.sandbox.seccomp import seccomp_filter, supported

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, REFUSE, NO_SUCH_CALL, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
# Of the kernel's own tables: (x86_64, aarch64).
NUMBERS = {
    "read": (0, 63),
    "openat": (257, 56),
    "execve": (59, 221),
    "wait4": (61, 260),
    "futex": (202, 98),
    "mmap": (9, 222),
    "clone": (56, 220),
    "clone3": (435, 435),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ioctl": (16, 29),
    "prlimit64": (302, 261),
    "kill": (62, 129),
    "ptrace": (101, 117),
    "unshare": (272, 97),
    "mount": (165, 40),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "setns": (308, 268),
}


def verdict(program: bytes, number: int, arguments: tuple[int, ...] = (), arch: int = 0) -> int:
    """Do what the kernel does with a filter."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *[*arguments, *[0] * (6 - len(arguments))])
    instructions = [struct.unpack("=HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    at, register = 0, 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x20:
            (register,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            register &= value
        elif code == 0x06:
            return value
        else:
            holds = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[code]
            at += if_true if holds else if_false


def call(name: str, *arguments: int, machine: str, isolated: bool = True) -> int:
    number = NUMBERS[name][list(ARCH).index(machine)]
    return verdict(seccomp_filter(isolated=isolated, machine=machine), number, arguments, ARCH[machine])


@pytest.fixture(params=list(ARCH))
def machine(request) -> str:
    return request.param


@pytest.mark.parametrize("name", ["read", "openat", "execve", "wait4", "futex", "socketpair"])
def test_what_every_program_does(name, machine):
    assert call(name, machine=machine) == ALLOW


@pytest.mark.parametrize("name", ["ptrace", "unshare", "mount", "keyctl", "bpf", "io_uring_setup", "setns"])
def test_what_no_program_needs(name, machine):
    assert call(name, machine=machine) == REFUSE


def test_threads_and_processes_but_no_namespaces(machine):
    assert call("clone", 0x3D0F00, machine=machine) == ALLOW
    assert call("clone", 17, machine=machine) == ALLOW
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert call("clone", flag | 17, machine=machine) == REFUSE
    assert call("clone3", machine=machine) == NO_SUCH_CALL


def test_memory(machine):
    private, shared, shared_checked, of_a_file = 0x22, 0x21, 0x23, 0x01
    for flags, wanted in ((private, ALLOW), (shared, REFUSE), (shared_checked, REFUSE), (of_a_file, ALLOW)):
        assert call("mmap", 0, 4096, 3, flags, machine=machine) == wanted


@pytest.mark.parametrize("family", [1, 2, 10, 16, 17, 40])
def test_families_of_sockets(family, machine):
    wanted = ALLOW if family in (1, 2, 10) else REFUSE
    assert call("socket", family, machine=machine) == wanted
    assert call("socket", family, machine=machine, isolated=False) == REFUSE


def test_limits_of_oneself_only(machine):
    assert call("prlimit64", 0, machine=machine) == ALLOW
    assert call("prlimit64", 1, machine=machine) == REFUSE


def test_typing_into_a_terminal(machine):
    assert call("ioctl", 0, 0x5401, machine=machine) == ALLOW
    assert call("ioctl", 0, 0x5412, machine=machine) == REFUSE


def test_signals_to_everybody_where_no_namespace_holds_them(machine):
    everybody = 0xFFFFFFFFFFFFFFFF
    assert call("kill", everybody, 9, machine=machine) == ALLOW
    assert call("kill", everybody, 9, machine=machine, isolated=False) == REFUSE
    assert call("kill", 5, 9, machine=machine, isolated=False) == ALLOW


def test_other_ways_into_the_same_calls(machine):
    program = seccomp_filter(machine=machine)
    assert verdict(program, 0, arch=0x40000003) == KILL  # 32-bit x86
    assert verdict(program, 0x40000000, arch=ARCH[machine]) == REFUSE


def test_a_machine_without_a_table():
    assert not supported("riscv64")
    assert supported("aarch64")
