"""Runs a program that nobody has read, and gives back what it printed and how it ended."""

from __future__ import annotations

import ast
import functools
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import cast

from reasonflux_prm.errors import SandboxUnavailable, UsageError
from reasonflux_prm.sandbox import backends
from reasonflux_prm.sandbox.backends import Backend
from reasonflux_prm.sandbox.capture import Stream, pump
from reasonflux_prm.sandbox.job import Job, Report
from reasonflux_prm.sandbox.limits import Limits, Run, RunStatus
from reasonflux_prm.sandbox.seccomp import seccomp_filter, supported
from reasonflux_prm.sandbox.view import interpreter, view

PROGRAM = "program.py"
"""The file that `Sandbox.run` puts the program into."""
_GRACE_S = 10.0
"""The supervisor keeps the wall-clock limit; only where it fails do we, this much later."""
_MOST_REPORTED = 1 << 16


class Sandbox:
    """Runs Python programs, each in a sandbox of its own. Safe to use from several threads at once.

    A program sees the interpreter and the system's libraries read-only, an empty folder of its own in memory, its own
    processes, no network, and an environment without anything of ours. docs/sandbox.md says what holds it, and what
    does not.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        backend: str = "auto",
        *,
        packages: Sequence[Path] = (),
        allow_unsafe: bool = False,
    ) -> None:
        """Choose what holds the programs, and make sure that it does.

        Args:
            limits: What each run may use.
            backend: A value of `Backend` that isolates, or `auto` for the first that works here.
            packages: Folders (such as site-packages) that programs may import from, beside the standard library.
            allow_unsafe: Run programs with limits only where nothing isolates them; every `Run` then says so.

        Raises:
            SandboxUnavailable: Nothing here isolates a program, or `backend` does not.
            UsageError: There is no such backend, or one of `packages` is no folder.
        """
        self.limits = limits or Limits()
        self._packages = [Path(folder) for folder in packages]
        self._view = view(self.limits, self._packages)
        self.backend = _choose(backend, allow_unsafe)

    @property
    def isolates(self) -> bool:
        """Whether programs are kept from the rest of the machine; False only where `allow_unsafe` was needed."""
        return self.backend is not Backend.NONE

    def run(
        self,
        code: str,
        stdin: str | bytes = "",
        files: Mapping[str, str | bytes] | None = None,
        arguments: Sequence[str] = (),
    ) -> Run:
        """Run a Python program to its end, or to the first limit that it exceeds.

        Args:
            code: The program.
            stdin: What it can read from its standard input.
            files: Further files for its folder, from where it can import them too: relative paths and contents.
            arguments: Its command line.

        Raises:
            UsageError: A path in `files` leads out of the folder.
        """
        return _run(self.backend, self._job(code, files or {}, arguments), _bytes(stdin), self.limits)

    def _job(self, code: str, files: Mapping[str, str | bytes], arguments: Sequence[str]) -> Job:
        limits, isolated = self.limits, self.backend is not Backend.NONE
        own_view = self._view
        if not isolated:
            folder = os.path.join(tempfile.gettempdir(), f"sandbox-{os.urandom(8).hex()}")
            own_view = {**own_view, "folder": folder}
        return Job(
            own_namespaces=self.backend in (Backend.NAMESPACES, Backend.USER_NAMESPACES),
            user_namespace=self.backend is Backend.USER_NAMESPACES,
            isolated=isolated,
            user=backends.user_inside(self.backend),
            view=own_view,
            files={_inside(name): _bytes(text) for name, text in {**files, PROGRAM: code}.items()},
            command=[interpreter(), "-B", "-s", PROGRAM, *arguments],
            environment=_environment(self._packages),
            limits=_resource_limits(limits, isolated),
            wall_s=limits.wall_s,
            memory_bytes=limits.memory_mb << 20,
            filter=seccomp_filter(isolated=isolated),
        )


def _bytes(text: str | bytes) -> bytes:
    # What a model wrote may hold half of a surrogate pair, which has no UTF-8.
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise UsageError(f"a file for the sandbox needs a path below its folder, and {name!r} is none")
    return str(path)


def _environment(packages: Sequence[Path]) -> dict[str, str]:
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        # The order of sets, and with it what many programs print, is the same in every run.
        "PYTHONHASHSEED": "0",
        # Their thread pools would take up the limit of processes.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if packages:
        environment["PYTHONPATH"] = ":".join(str(folder.resolve()) for folder in packages)
    return environment


def _resource_limits(limits: Limits, isolated: bool) -> dict[str, int]:
    return {
        "CPU": math.ceil(limits.cpu_s),
        "AS": limits.memory_mb << 20,
        "FSIZE": limits.file_mb << 20,
        "NOFILE": limits.open_files,
        # One more for the supervisor, which runs as the same user.
        "NPROC": limits.processes + 1 + (0 if isolated else _tasks_of_this_user()),
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
        "NICE": 0,
        "RTPRIO": 0,
        "SIGPENDING": 256,
    }


def _tasks_of_this_user() -> int:
    """Count the threads that the kernel charges to us, when no namespace or user of its own separates the program."""
    if os.geteuid() == 0:
        return 0
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == os.getuid():
                count += sum(1 for _ in (folder / "task").iterdir())
        except OSError:
            continue  # it has ended
    return count


def _run(backend: Backend, job: Job, stdin: bytes, limits: Limits) -> Run:
    kept = limits.output_kb << 10
    control_read, control_write = os.pipe()
    report_read, report_write = os.pipe()
    with open(control_write, "wb", buffering=0) as control, open(report_read, "rb", buffering=0) as report:
        try:
            process = subprocess.Popen(
                backends.command(backend, job["view"], control_read, report_write),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=(control_read, report_write),
                start_new_session=True,
                cwd="/",
                env={"LANG": "C.UTF-8"},
            )
        finally:
            os.close(control_read)
            os.close(report_write)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        streams = [Stream(process.stdout, kept), Stream(process.stderr, kept), Stream(report, _MOST_REPORTED)]
        try:
            with process.stdin, process.stdout, process.stderr:
                deadline = time.monotonic() + limits.wall_s + _GRACE_S
                _send(control.fileno(), backends.message(job))
                ended = pump(streams, process.stdin, stdin, process.pid, deadline, control.close)
                if ended:
                    process.wait()
        finally:
            # Also on an exception in the middle: the supervisor's first sign is the end of `control`.
            control.close()
            if process.poll() is None:
                _end(process)
    return _outcome(backend, streams, limits)


def _send(control: int, message: bytes) -> None:
    rest = memoryview(message)
    try:
        while rest:
            rest = rest[os.write(control, rest) :]
    except BrokenPipeError:
        return  # the supervisor has ended already; its report, or the lack of one, says why


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the supervisor; what it supervises dies with it."""
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _outcome(backend: Backend, streams: Sequence[Stream], limits: Limits) -> Run:
    stdout, stderr, report = (bytes(stream.kept).decode("utf-8", "replace") for stream in streams)
    said = cast(Report, ast.literal_eval(report)) if report else Report(broken=_last_words(stderr))
    status, exit_code, reason = RunStatus.OK, None, None
    if "broken" in said:
        status, reason = RunStatus.BROKEN, f"the sandbox ({backend}) failed: {said['broken']}"
    elif any(stream.overflowed for stream in streams):
        status, reason = RunStatus.OUTPUT_LIMIT, f"printed more than {limits.output_kb} KiB"
    elif said.get("exceeded") == "stopped":
        status, reason = RunStatus.BROKEN, f"the sandbox ({backend}) failed: it was ended from outside"
    elif "exceeded" in said:
        status, reason = _exceeded(said["exceeded"], limits)
    else:
        exit_code = os.waitstatus_to_exitcode(said["status"])
        status, reason = _ended(exit_code, said["cpu_s"], limits)
    return Run(status, exit_code, stdout, stderr, said.get("seconds", 0.0), str(backend), reason)


def _last_words(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    return lines[-1][:300] if lines else "it ended without a report"


def _exceeded(limit: str, limits: Limits) -> tuple[RunStatus, str]:
    if limit == "wall":
        return RunStatus.TIMEOUT, f"took longer than {limits.wall_s:g} s"
    return RunStatus.KILLED, {
        "memory": f"used more than {limits.memory_mb} MiB of memory",
        "folder": f"wrote more than {limits.file_mb} MiB",
        "files": f"made more than {limits.files} files",
    }[limit]


def _ended(exit_code: int, cpu_s: float, limits: Limits) -> tuple[RunStatus, str | None]:
    if exit_code == 0:
        return RunStatus.OK, None
    if exit_code > 0:
        return RunStatus.FAILED, f"ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name if -exit_code in list(signal.Signals) else f"signal {-exit_code}"
    if exit_code in (-signal.SIGKILL, -signal.SIGXCPU) and cpu_s >= math.ceil(limits.cpu_s) - 0.1:
        return RunStatus.TIMEOUT, f"took longer than {limits.cpu_s:g} s of processor time"
    if exit_code == -signal.SIGKILL:
        return RunStatus.KILLED, "was killed (SIGKILL), by itself or by the system for want of memory"
    return RunStatus.FAILED, f"ended by {name}"


# --- choosing ---------------------------------------------------------------------------------------------------------

_REMEDY = (
    "Install bubblewrap (Debian and Ubuntu: apt-get install bubblewrap), let this user have user namespaces, or run "
    "as root with CAP_SYS_ADMIN; --unsafe-no-sandbox (allow_unsafe=True) runs such programs with limits only."
)
_PROBE_LIMITS = Limits(cpu_s=5, wall_s=10, memory_mb=512, file_mb=4, files=64, processes=4, output_kb=64)


def _choose(name: str, allow_unsafe: bool) -> Backend:
    choices = [str(backend) for backend in Backend if backend is not Backend.NONE]
    if name != "auto" and name not in choices:
        raise UsageError(f"a sandbox's backend is auto, {', '.join(choices)}; got {name!r}")
    wanted = backends.candidates() if name == "auto" else [Backend(name)]
    failures = []
    for backend in wanted:
        if (reason := why_not(backend)) is None:
            return backend
        failures.append(f"{backend}: {reason}")
    if allow_unsafe:
        tried = _unchecked(Backend.NONE).run("")
        if tried.status is RunStatus.OK:
            return Backend.NONE
        failures.append(f"{Backend.NONE}: {tried.reason}")
    raise SandboxUnavailable(
        f"Nothing on this machine keeps a program from the rest of it ({'; '.join(failures)}). {_REMEDY}"
    )


def _unchecked(backend: Backend) -> Sandbox:
    """Return a sandbox to try a backend with, which making one the usual way would ask for."""
    sandbox = Sandbox.__new__(Sandbox)
    sandbox.limits, sandbox.backend, sandbox._packages = _PROBE_LIMITS, backend, []
    sandbox._view = view(_PROBE_LIMITS, [])
    return sandbox


@functools.cache
def why_not(backend: Backend) -> str | None:
    """Return why `backend` does not isolate programs on this machine, or None if it does; found out by trying."""
    if not sys.platform.startswith("linux") or not supported():
        return f"it needs Linux on x86-64 or ARM64, and this is {sys.platform} on {os.uname().machine}"
    if reason := backends.missing(backend):
        return reason
    run = _unchecked(backend).run(backends.PROBE, arguments=[str(_PROBE_LIMITS.processes)])
    if run.status is not RunStatus.OK:
        return f"{run.reason} ({_last_words(run.stderr)})" if run.status is RunStatus.FAILED else run.reason
    return backends.reading_of_probe(run.stdout)
