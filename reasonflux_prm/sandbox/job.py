"""What the supervisor inside the sandbox is told: types only, so that it need not load `typing` itself."""

from __future__ import annotations

from typing import TypedDict


class View(TypedDict):
    """The file system that the program sees, by absolute paths."""

    read_only: list[str]
    """Files and folders of the machine, at their own paths; no symbolic links."""
    covered: list[str]
    """Folders below these that are empty for the program."""
    links: list[tuple[str, str]]
    """Symbolic links: (what the link says, where it is)."""
    devices: list[str]
    folder: str
    """The one place that can be written to: a file system in memory, empty at first."""
    folder_bytes: int
    folder_files: int


class Job(TypedDict):
    """One program and what holds it; made of what `marshal` can carry."""

    own_namespaces: bool
    """Make the namespaces in the supervisor; False where bubblewrap makes them, or where there are none."""
    user_namespace: bool
    """Among them one of users, which needs no rights."""
    isolated: bool
    """False where nothing but limits holds the program."""
    user: int | None
    """The user to become; None to stay."""
    view: View
    """Built by the supervisor, or by bubblewrap; without isolation only the folder's path is used."""
    files: dict[str, bytes]
    """Paths below the view's folder, and what is in them."""
    command: list[str]
    """Run in the view's folder."""
    environment: dict[str, str]
    """All of it, but for HOME and TMPDIR, which are the view's folder."""
    limits: dict[str, int]
    """By their names in `resource`."""
    wall_s: float
    memory_bytes: int
    filter: bytes
    """See `seccomp`."""


class Report(TypedDict, total=False):
    """What the supervisor says of the program's end."""

    broken: str
    """Why the program never ran; then there is nothing else."""
    exceeded: str
    """The limit that it was stopped for: wall, memory, folder, files; or stopped, on our own word."""
    status: int
    """As `os.wait` gives it, where the program ended by itself."""
    cpu_s: float
    seconds: float
