"""What a program in the sandbox may use, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from reasonflux_prm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use; every value is positive."""

    cpu_s: float = 10.0
    """Seconds of processor time, for each process of the program; rounded up to a whole second."""
    wall_s: float = 10.0
    """Seconds from the program's start to its end, whatever it does or waits for."""
    memory_mb: int = 1024
    """MiB: address space of each process, and memory of all its processes with the temporary folder."""
    file_mb: int = 64
    """MiB: the largest file, and the temporary folder as a whole."""
    files: int = 2048
    """Files and folders in the temporary folder."""
    open_files: int = 128
    """Files, pipes and sockets open at once, for each process."""
    processes: int = 32
    """Processes and threads at once."""
    output_kb: int = 1024
    """KiB of standard output, and as much again of standard error."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise UsageError(f"the sandbox's limit {field.name} must be positive, and is {value!r}")


class RunStatus(StrEnum):
    """How a program ended."""

    OK = "ok"
    """By itself, with exit code 0."""
    FAILED = "failed"
    """By itself, with another exit code or by a signal of its own making (a crash)."""
    TIMEOUT = "timeout"
    """It took longer than `cpu_s` or `wall_s`."""
    OUTPUT_LIMIT = "output-limit"
    """It printed more than `output_kb`."""
    KILLED = "killed"
    """It used more memory or made more files than it may."""
    BROKEN = "broken"
    """The sandbox itself failed; this says nothing about the program."""


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one program."""

    status: RunStatus
    exit_code: int | None
    """The program's exit code, or minus the signal that ended it; None if it did not end by itself."""
    stdout: str
    """What it printed, up to the limit; bytes that are no UTF-8 are replaced."""
    stderr: str
    seconds: float
    """Wall-clock time from the program's start to its end, without the sandbox's own."""
    backend: str
    """What held it: `bubblewrap`, `namespaces`, `user-namespaces`, or `none (unsafe)`."""
    reason: str | None = None
    """One sentence, for every status but OK."""

    @property
    def isolated(self) -> bool:
        """Whether the program was kept from the rest of the machine."""
        return self.backend != UNSAFE


UNSAFE = "none (unsafe)"
"""The backend's name in every run that limits bound, but nothing isolated."""
