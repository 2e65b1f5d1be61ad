"""The package's cache folder: where it is, one writer at a time, hashes, and what a failed write means."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from reasonflux_prm.errors import OutputError, ReasonFluxError

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder for fetched and converted models; it may not exist yet.

    `REASONFLUX_PRM_CACHE` if set, else `reasonflux-prm` under `XDG_CACHE_HOME`, which is `~/.cache` by default.
    """
    if own := os.environ.get("REASONFLUX_PRM_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reasonflux-prm"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk, so that a rename that follows never shows half of it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def one_writer(target: Path, needed: int) -> Iterator[None]:
    """Hold the right to write `target` (a file or folder in the cache) against all other processes.

    The operating system takes the lock back from a process that dies, so a killed writer blocks nobody.

    Args:
        target: What is going to be written.
        needed: Bytes it takes; the file system must have them free.

    Raises:
        OutputError: The folder cannot be written, or the disk is full, now or later inside the block.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / f".{target.name}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.warning("waiting for another process, which is writing %s", target)
            lock.acquire()
    except OSError as error:
        raise _explained(error, target, needed) from error
    try:
        if not target.exists() and shutil.disk_usage(target.parent).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except ReasonFluxError:
        # Some of them are OSErrors too, and already say what happened.
        raise
    except OSError as error:
        raise _explained(error, target, needed) from error
    finally:
        lock.release()


def _explained(error: Exception, target: Path, needed: int) -> OutputError:
    return OutputError(
        f"{target} could not be written: {error}. It takes {needed / 1e6:,.0f} MB: free some space there, or name "
        "another folder in the environment variable REASONFLUX_PRM_CACHE."
    )
