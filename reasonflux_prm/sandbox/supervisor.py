"""Inside the sandbox: starts the program, watches what it uses, and takes everything down with itself at the end.

Where there is a process namespace the supervisor is its first process, so that nothing in it outlives the supervisor,
and no signal from within reaches it.
"""

from __future__ import annotations

import os
import select
import time

from reasonflux_prm.sandbox import kernel
from reasonflux_prm.sandbox.mounts import enter_view

# `typing` takes longer to load than all of this; type checkers take the name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from reasonflux_prm.sandbox.job import Job, Report

NOBODY = 65534
"""The user inside a user namespace."""
_TICK_MS = 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PARENT, _PAGES = 1, 21
"""Fields of /proc/PID/stat, counted from the state, which follows the name in brackets."""


def main(job: Job, control: int, report: int) -> NoReturn:
    """Run the job's program in what the job asks for, write a `Report` to `report` as a literal, and end.

    The end of `control` (its other end was closed, also by the death of whoever held it) ends the program at once.
    """
    said: Report
    try:
        os.set_inheritable(control, False)
        os.set_inheritable(report, False)
        if job["own_namespaces"]:
            _enter_namespaces(job)
        elif not job["isolated"]:
            kernel.adopt_orphans()
        said = _supervise(job, control)
    except BaseException as error:
        said = {"broken": f"{type(error).__name__}: {error}"}
    try:
        os.write(report, repr(said).encode())
    finally:
        os._exit(0)


def _enter_namespaces(job: Job) -> None:
    """Return in a new process, the first of new namespaces, with the job's view as its file system."""
    kernel.die_with_parent()
    wanted = kernel.NEW_MOUNTS | kernel.NEW_PROCESSES | kernel.NEW_NETWORK | kernel.NEW_IPC
    wanted |= kernel.NEW_HOST_NAME | kernel.NEW_CGROUPS
    user, group = os.geteuid(), os.getegid()
    if job["user_namespace"]:
        kernel.unshare(wanted | kernel.NEW_USERS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{NOBODY} {user} 1")
        _write("/proc/self/gid_map", f"{NOBODY} {group} 1")
    else:
        kernel.unshare(wanted)
    first = os.fork()
    if first:
        # What the first process writes decides; this one is there to be found, and killed, by its parent.
        os.waitpid(first, 0)
        os._exit(0)
    kernel.die_with_parent()
    kernel.set_host_name("sandbox")
    enter_view(job["view"])


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _supervise(job: Job, control: int) -> Report:
    if not job["isolated"]:
        # Slow to load, and not needed where the folder vanishes by itself.
        from shutil import rmtree
    kernel.mind_interrupts(False)
    kernel.drop_privileges(job["user"])
    kernel.die_with_parent()
    kernel.hide_memory()
    folder = job["view"]["folder"]
    if not job["isolated"]:
        os.mkdir(folder, 0o700)
    try:
        for name, content in job["files"].items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(content)
        began = time.monotonic()
        return _watch(job, _start(job), control, began)
    finally:
        if not job["isolated"]:
            _kill_descendants()
            rmtree(folder, ignore_errors=True)


def _start(job: Job) -> int:
    """Start the program and return its process id, once it runs."""
    told, failure = os.pipe()
    child = os.fork()
    if child:
        os.close(failure)
        with open(told, "rb") as pipe:
            if message := pipe.read():
                raise OSError(message.decode())
        return child
    try:
        os.setsid()
        folder = job["view"]["folder"]
        os.chdir(folder)
        kernel.set_limits(job["limits"])
        kernel.mind_interrupts(True)
        kernel.install_filter(job["filter"])
        os.execve(job["command"][0], job["command"], {**job["environment"], "HOME": folder, "TMPDIR": folder})
    except BaseException as error:
        os.write(failure, f"the program could not be started: {error}".encode())
    os._exit(127)


def _watch(job: Job, child: int, control: int, began: float) -> Report:
    """Wait for the program's end, or for the first limit that it exceeds."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(os.pidfd_open(child), select.POLLIN)
    while True:
        ready = [handle for handle, _ in poll.poll(_TICK_MS)]
        seconds = time.monotonic() - began
        if control in ready:
            return {"exceeded": "stopped", "seconds": seconds}
        for ended, status, cpu_s in _reap():
            if ended == child:
                return {"status": status, "cpu_s": cpu_s, "seconds": seconds}
        if seconds > job["wall_s"]:
            return {"exceeded": "wall", "seconds": seconds}
        if exceeded := _exceeded(job):
            return {"exceeded": exceeded, "seconds": seconds}


def _reap() -> list[tuple[int, int, float]]:
    """Return process id, wait status and processor seconds of every child that has ended."""
    ended = []
    try:
        while (found := os.wait4(-1, os.WNOHANG))[0]:
            process, status, usage = found
            ended.append((process, status, usage.ru_utime + usage.ru_stime))
    except ChildProcessError:
        pass
    return ended


def _exceeded(job: Job) -> str | None:
    """Return which limit all processes together exceed, if any."""
    used = sum(_descendants().values()) * _PAGE
    if job["isolated"]:
        view = job["view"]
        disk = os.statvfs(view["folder"])
        in_folder = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        if disk.f_files - disk.f_ffree > view["folder_files"]:
            return "files"
        if in_folder > view["folder_bytes"]:
            return "folder"
        used += in_folder
    return "memory" if used > job["memory_bytes"] else None


def _descendants() -> dict[int, int]:
    """Return process id and resident pages of every process below this one."""
    parents, pages = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended
            parents[int(name)], pages[int(name)] = int(fields[_PARENT]), int(fields[_PAGES])
    below = {os.getpid()}
    # A child's number may be smaller than its parent's once the numbers have gone round.
    while more := {process for process, parent in parents.items() if parent in below} - below:
        below |= more
    return {process: pages[process] for process in below - {os.getpid()}}


def _kill_descendants() -> None:
    """Kill what is left without a process namespace; the orphans come to us, so in the end we see them all."""
    deadline = time.monotonic() + 5
    while (left := _descendants()) and time.monotonic() < deadline:
        for process in left:
            try:  # noqa: SIM105 - contextlib would be loaded for this alone
                os.kill(process, kernel.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.002)
        _reap()
