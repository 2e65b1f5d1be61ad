"""The files of a run: one writer at a time. What a whole run does is tested with its users, scoring and labelling."""

from __future__ import annotations

import pytest
from filelock import FileLock, Timeout

from reasonflux_prm.errors import ResumeError
from reasonflux_prm.traces.run_files import RunFiles, difference


def test_a_second_writer_is_kept_away(tmp_path):
    files = RunFiles(tmp_path / "out.jsonl")
    with files.only_writer(), pytest.raises(ResumeError, match=r"another process is writing .*out\.jsonl"):
        RunFiles(tmp_path / "out.jsonl").only_writer().__enter__()
    with RunFiles(tmp_path / "out.jsonl").only_writer():
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("again", [True, False], ids=["there is a new one", "there is none"])
def test_the_lock_is_on_the_file_that_has_the_name(tmp_path, monkeypatch, again):
    """The run before us removes the lock file just when we have opened it; a lock on it would keep nobody away."""
    files = RunFiles(tmp_path / "out.jsonl")
    acquire, raced = FileLock.acquire, []

    def late(self, *arguments, **options):
        held = acquire(self, *arguments, **options)
        if not raced:
            raced.append(self)
            files.lock.unlink()
            if again:
                files.lock.touch()
        return held

    monkeypatch.setattr(FileLock, "acquire", late)
    with files.only_writer():
        assert raced
        with pytest.raises(Timeout):
            acquire(FileLock(files.lock), timeout=0)


def test_differences_are_named_from_the_top():
    old = {"a": {"b": 1, "c": 2}, "d": 3}
    assert difference(old, old) is None
    assert difference(old, {**old, "d": 4}) == "d (3, now 4)"
    assert difference(old, {"a": {"b": 1}, "d": 3}) == "a.c (2, now None)"
