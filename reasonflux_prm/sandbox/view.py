"""Which files of the machine a program in the sandbox can read: the interpreter, the system's libraries, no more."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from pathlib import Path

from reasonflux_prm.errors import UsageError
from reasonflux_prm.sandbox.job import View
from reasonflux_prm.sandbox.limits import Limits

FOLDER = "/tmp"
"""Where the program runs, and all that it can write to."""
_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Links into /usr on most systems, folders of their own on others."""
_DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")
_LIBRARY_INDEX = "/etc/ld.so.cache"


def interpreter() -> str:
    """Return the path of the Python that runs us, without links and without its virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def view(limits: Limits, packages: Sequence[Path]) -> View:
    """Return the file system for one run.

    Args:
        limits: Sizes of the temporary folder.
        packages: Folders to show beside the interpreter.

    Raises:
        UsageError: One of `packages` is no folder, or is one that would show everything.
    """
    shown = ["/usr", os.path.realpath(sys.base_prefix), _LIBRARY_INDEX]
    for folder in packages:
        if not folder.is_dir() or folder.resolve() == Path("/"):
            raise UsageError(f"the sandbox can show folders of packages to a program, and {folder} is none")
        shown.append(str(folder.resolve()))
    # Whatever happens to be installed there would make programs work on one machine and fail on the next.
    covered = {os.path.realpath(path) for path in site.getsitepackages([sys.base_prefix]) if os.path.isdir(path)}
    shown += [path for path in _MERGED if not os.path.islink(path)]
    links = [(os.readlink(path), path) for path in _MERGED if os.path.islink(path)]
    return View(
        read_only=_outermost([path for path in shown if os.path.exists(path)]),
        covered=sorted(covered.difference(shown)),
        # Semaphores of `multiprocessing` live in /dev/shm; there they fall under the folder's limits.
        links=[*links, (FOLDER, "/dev/shm")],
        devices=list(_DEVICES),
        folder=FOLDER,
        folder_bytes=limits.file_mb << 20,
        folder_files=limits.files,
    )


def _outermost(paths: list[str]) -> list[str]:
    """Return `paths` in order, without those that lie below another one."""
    ordered = sorted(set(paths))
    return [path for path in ordered if not any(path.startswith(f"{other}/") for other in ordered)]
