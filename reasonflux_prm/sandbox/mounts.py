"""The file system that a program in the sandbox sees, built with mounts of its own. Runs inside the sandbox."""

from __future__ import annotations

import os

from reasonflux_prm.sandbox import kernel

# `typing` takes longer to load than all of this to run; type checkers take the name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from reasonflux_prm.sandbox.job import View

# Any folder that every machine has will do: it is covered only until the first change of root.
_COVERED = "/tmp"
_READ_ONLY = kernel.ATTRIBUTE_READ_ONLY | kernel.ATTRIBUTE_NO_SETUID
_PLAIN = kernel.NO_SETUID | kernel.NO_DEVICES


def enter_view(view: View) -> None:
    """Make `view` the whole file system of this process, which is the first of its process namespace."""
    kernel.mount(None, "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    kernel.mount("tmpfs", _COVERED, "tmpfs", _PLAIN, "size=1m,mode=755")
    os.chdir(_COVERED)
    os.mkdir("new")
    os.mkdir("old")
    # Nothing of the machine is covered any more once it hangs below /old, so any path of it can be bound.
    kernel.pivot_root(".", "old")
    os.chdir("/")
    kernel.mount("tmpfs", "/new", "tmpfs", _PLAIN, "size=1m,mode=755")
    os.mkdir(f"/new{view['folder']}")
    options = f"size={view['folder_bytes']},nr_inodes={view['folder_files']},mode=1777"
    kernel.mount("tmpfs", f"/new{view['folder']}", "tmpfs", _PLAIN, options)
    os.mkdir("/new/proc")
    kernel.mount("proc", "/new/proc", "proc", _PLAIN | kernel.NO_EXECUTION, "subset=pid")
    for path in view["read_only"]:
        _bind(path, kernel.ATTRIBUTE_NO_DEVICES)
    for path in view["covered"]:
        kernel.mount("tmpfs", f"/new{path}", "tmpfs", _PLAIN, "size=4k,mode=755")
        kernel.protect_mount(f"/new{path}", kernel.ATTRIBUTE_READ_ONLY, recursive=False)
    for device in view["devices"]:
        _bind(device, kernel.ATTRIBUTE_NO_EXECUTION)
    for text, where in view["links"]:
        os.makedirs(os.path.dirname(f"/new{where}"), exist_ok=True)
        os.symlink(text, f"/new{where}")
    kernel.protect_mount("/new", _READ_ONLY | kernel.ATTRIBUTE_NO_DEVICES, recursive=False)
    os.chdir("/new")
    kernel.pivot_root(".", ".")
    kernel.detach(".")
    os.chdir("/")


def _bind(path: str, attribute: int) -> None:
    source, target = f"/old{path}", f"/new{path}"
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb"):
            pass
    kernel.mount(source, target, None, kernel.BIND | kernel.RECURSIVE)
    kernel.protect_mount(target, _READ_ONLY | attribute, recursive=True)
