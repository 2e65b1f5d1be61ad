"""File to file: the output has the same bytes whatever happened on the way, and belongs to one run only."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_native import trace_row

from reasonflux_prm.errors import InputError, OutputError, ResumeError
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.scoring.engine import Engine, EngineSettings, score_traces
from reasonflux_prm.scoring.run import Input, run_scoring
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import read_scored

BAD_LINES = ("not json", '{"id": "x", "colour": "blue"}')


def write_input(path: Path, traces: int = 10, bad_every: int = 4) -> Path:
    """Write an input file with a bad line before every few good ones, and a trace without text."""
    lines = []
    for number in range(traces):
        if bad_every and number % bad_every == 0:
            lines.append(BAD_LINES[number // bad_every % len(BAD_LINES)])
        row = trace_row(number)
        if number == 5:
            row |= {"thinking": "", "response": " \n"}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_input(tmp_path_factory.mktemp("input") / "traces.jsonl")


def engine_of(prm, **settings):
    return Engine(prm, EngineSettings(**{"chunk_traces": 3, **settings}))


class Stop(BaseException):
    """Ends a run between two chunks, as Ctrl-C would."""


def stop_after(chunks: int):
    seen = []

    def hook(chunk, progress):
        seen.append(progress.traces)
        if len(seen) == chunks:
            raise Stop

    return hook


def interrupted(prm, source, output, chunks: int = 2, **settings) -> None:
    with pytest.raises(Stop):
        run_scoring(engine_of(prm, **settings), Input(str(source)), output, hook=stop_after(chunks))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


ALL_FILES = {"scored.jsonl", "scored.manifest.json", "scored.rejects.jsonl"}


# --- one run -------------------------------------------------------------------------------------------------------


def test_a_whole_run(prm, source, tmp_path):
    output = tmp_path / "deep" / "down" / "scored.jsonl"
    seen = []
    progress = run_scoring(
        engine_of(prm), Input(str(source)), output, hook=lambda chunk, so_far: seen.append(so_far.traces)
    )
    assert names(output.parent) == ALL_FILES
    traces = list(read_traces(source, rejects=lambda reject: None))
    records = list(read_scored(output))
    assert [record.trace.id for record in records] == [trace.id for trace in traces]
    for record, direct in zip(records, score_traces(prm, traces), strict=True):
        assert record.status is direct.status
        assert record.reward == (None if direct.reward is None else pytest.approx(direct.reward, abs=1e-5))
    assert seen == [3, 6, 9, 10]
    assert (progress.traces, progress.rejects, progress.unscored, progress.resumed_traces) == (10, 3, 1, 0)
    assert progress.counts == {"scored": 9, "no-steps": 1}
    assert progress.tokens == sum(record.tokens for record in records)
    manifest = read_manifest(output)
    assert manifest.counts == {"scored": 9, "no-steps": 1}
    assert manifest.rejects == 3
    assert manifest.settings["engine"]["chunk_traces"] == 3
    rejects = [json.loads(line) for line in (output.parent / "scored.rejects.jsonl").read_text().splitlines()]
    assert [reject["line"] for reject in rejects] == [1, 6, 11]
    assert all(reject["file"] == str(source) for reject in rejects)
    assert "invalid JSON" in rejects[0]["reason"]


def test_a_complete_run_is_not_done_again(prm, source, tmp_path):
    output = tmp_path / "scored.jsonl"
    first = run_scoring(engine_of(prm), Input(str(source)), output)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    idle = engine_of(prm)
    idle.score_chunks = lambda traces: pytest.fail("it scored again")
    again = run_scoring(idle, Input(str(source)), output)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    assert (again.traces, again.counts, again.rejects) == (first.traces, first.counts, first.rejects)
    assert again.resumed_traces == 10


def test_fresh_replaces_what_is_there(prm, source, tmp_path):
    output = tmp_path / "scored.jsonl"
    run_scoring(engine_of(prm), Input(str(source)), output)
    progress = run_scoring(engine_of(prm, alpha=0.5), Input(str(source)), output, resume=False)
    assert progress.resumed_traces == 0
    assert {record.prm.alpha for record in read_scored(output)} == {0.5}
    assert read_manifest(output).settings["prm"]["alpha"] == 0.5
    assert names(tmp_path) == ALL_FILES


def test_gzip(prm, source, tmp_path):
    plain, packed = tmp_path / "a" / "scored.jsonl", tmp_path / "b" / "scored.jsonl.gz"
    run_scoring(engine_of(prm), Input(str(source)), plain)
    interrupted(prm, source, packed)
    run_scoring(engine_of(prm), Input(str(source)), packed)
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert len(list(read_scored(packed))) == 10
    assert names(packed.parent) == {"scored.jsonl.gz", "scored.manifest.json", "scored.rejects.jsonl"}
    whole = tmp_path / "c" / "scored.jsonl.gz"
    run_scoring(engine_of(prm), Input(str(source)), whole)
    assert whole.read_bytes() == packed.read_bytes()


def test_an_input_of_rejects_only(prm, tmp_path):
    source = tmp_path / "traces.jsonl"
    source.write_text("no\nno again\n")
    output = tmp_path / "out" / "scored.jsonl"
    progress = run_scoring(engine_of(prm), Input(str(source)), output)
    assert (progress.traces, progress.rejects) == (0, 2)
    assert output.read_bytes() == b""
    assert names(output.parent) == ALL_FILES
    assert run_scoring(engine_of(prm), Input(str(source)), output).rejects == 2


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_input_leaves_nothing_behind(prm, tmp_path, content):
    source = tmp_path / "traces.jsonl"
    source.write_text(content)
    with pytest.raises(InputError):
        run_scoring(engine_of(prm), Input(str(source)), tmp_path / "out" / "scored.jsonl")
    assert names(tmp_path / "out") == set()


def test_a_missing_input(prm, tmp_path):
    with pytest.raises(InputError, match=r"nothing\.jsonl"):
        run_scoring(engine_of(prm), Input(str(tmp_path / "nothing.jsonl")), tmp_path / "scored.jsonl")
    assert names(tmp_path) == set()


# --- going on ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [1, 2, 3, 4])
def test_an_interrupted_run_goes_on(prm, source, tmp_path, chunks):
    whole, output = tmp_path / "whole" / "scored.jsonl", tmp_path / "cut" / "scored.jsonl"
    run_scoring(engine_of(prm), Input(str(source)), whole)
    interrupted(prm, source, output, chunks)
    assert not output.exists(), "no half output"
    scored = []
    engine = engine_of(prm)
    work = engine.score_chunks

    def watched(traces):
        for chunk in work(traces):
            scored.extend(chunk)
            yield chunk

    engine.score_chunks = watched
    progress = run_scoring(engine, Input(str(source)), output)
    assert progress.resumed_traces == min(3 * chunks, 10)
    assert len(scored) == 10 - progress.resumed_traces, "nothing is scored twice"
    assert progress.counts == {"scored": 9, "no-steps": 1}
    for name in ("scored.jsonl", "scored.rejects.jsonl"):
        assert (output.parent / name).read_bytes() == (whole.parent / name).read_bytes()
    assert names(output.parent) == ALL_FILES
    one, other = read_manifest(whole), read_manifest(output)
    assert (one.counts, one.rejects, one.settings) == (other.counts, other.rejects, other.settings)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"alpha": 0.5}, "alpha (1.0, now 0.5)"),
        ({"aggregation": "min"}, "aggregation ('mean', now 'min')"),
        ({"overflow": "tail"}, "overflow ('window', now 'tail')"),
        ({"context": 500}, "context (8192, now 500)"),
        ({"steps": "sentence"}, "steps ('adaptive', now 'sentence')"),
        ({"chunk_traces": 4}, "chunk_traces (3, now 4)"),
        ({"pack_tokens": 77, "chunk_tokens": 49_152}, "pack_tokens (1024, now 77)"),
    ],
)
@pytest.mark.parametrize("done", [True, False], ids=["finished", "interrupted"])
def test_a_run_of_other_settings(prm, source, tmp_path, settings, name, done):
    output = tmp_path / "scored.jsonl"
    if done:
        run_scoring(engine_of(prm), Input(str(source)), output)
    else:
        interrupted(prm, source, output)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ResumeError) as caught:
        run_scoring(engine_of(prm, **settings), Input(str(source)), output)
    assert name in str(caught.value)
    assert str(output) in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "nothing was touched"


def test_another_prm(prm, folders, source, tmp_path):
    output = tmp_path / "scored.jsonl"
    interrupted(prm, source, output)
    other = load_prm(str(folders["causal"]))
    other.spec = replace(other.spec, revision="0123456789ab")
    with pytest.raises(ResumeError, match=r"another prm\.revision \('[0-9a-f]{12}', now '0123456789ab'\)"):
        run_scoring(engine_of(other), Input(str(source)), output)


@pytest.mark.parametrize("where", ["end", "start", "same length", "limit", "other file"])
@pytest.mark.parametrize("done", [True, False], ids=["finished", "interrupted"])
def test_another_input(prm, tmp_path, where, done):
    source = write_input(tmp_path / "traces.jsonl")
    output = tmp_path / "out" / "scored.jsonl"
    if done:
        run_scoring(engine_of(prm), Input(str(source)), output)
    else:
        interrupted(prm, source, output)
    now = Input(str(source))
    if where == "limit":
        now = Input(str(source), limit=7)
    elif where == "other file":
        now = Input(str(write_input(tmp_path / "others.jsonl")))
    else:
        text = source.read_text("utf-8")
        extra = json.dumps(trace_row(99)) + "\n"
        last = text.rindex("42") if "42" in text else len(text) - 9
        changed = {"end": text + extra, "start": extra + text, "same length": f"{text[:last]}24{text[last + 2 :]}"}
        source.write_text(changed[where], encoding="utf-8")
    with pytest.raises(ResumeError, match=r"another input\.(digest|limit|source)"):
        run_scoring(engine_of(prm), now, output)


@pytest.mark.parametrize("manifest", [None, "not json", "{}", '{"schema": 1}'])
def test_an_output_of_another_program(prm, source, tmp_path, manifest):
    output = tmp_path / "scored.jsonl"
    output.write_text("precious\n")
    if manifest is not None:
        (tmp_path / "scored.manifest.json").write_text(manifest)
    with pytest.raises(ResumeError, match="choose another output"):
        run_scoring(engine_of(prm), Input(str(source)), output)
    assert output.read_text() == "precious\n"


def test_an_output_of_another_kind_of_run(prm, source, tmp_path):
    output = tmp_path / "scored.jsonl"
    run_scoring(engine_of(prm), Input(str(source)), output)
    path = tmp_path / "scored.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "kind": "picks"}))
    with pytest.raises(ResumeError, match="another kind"):
        run_scoring(engine_of(prm), Input(str(source)), output)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"settings": {}, "progress": {}}', '{"settings": {}, "progress": {"traces": 3}}']
)
def test_a_damaged_journal(prm, source, tmp_path, content):
    output = tmp_path / "scored.jsonl"
    interrupted(prm, source, output)
    (tmp_path / ".scored.jsonl.journal").write_text(content)
    with pytest.raises(ResumeError, match="--fresh to start over"):
        run_scoring(engine_of(prm), Input(str(source)), output)
    run_scoring(engine_of(prm), Input(str(source)), output, resume=False)
    assert len(list(read_scored(output))) == 10
    assert names(tmp_path) == ALL_FILES


def test_a_partial_file_shorter_than_its_journal(prm, source, tmp_path):
    output = tmp_path / "scored.jsonl"
    interrupted(prm, source, output)
    partial = tmp_path / ".scored.jsonl.partial"
    partial.write_bytes(partial.read_bytes()[:-1])
    with pytest.raises(ResumeError, match="--fresh to start over"):
        run_scoring(engine_of(prm), Input(str(source)), output)


def test_what_a_kill_left_behind_the_good_bytes_is_cut_off(prm, source, tmp_path):
    whole, output = tmp_path / "whole" / "scored.jsonl", tmp_path / "cut" / "scored.jsonl"
    run_scoring(engine_of(prm), Input(str(source)), whole)
    interrupted(prm, source, output)
    with (output.parent / ".scored.jsonl.partial").open("ab") as file:
        file.write(b'{"id": "t6", "sta')
    run_scoring(engine_of(prm), Input(str(source)), output)
    assert output.read_bytes() == whole.read_bytes()


def test_two_runs_at_once(prm, source, tmp_path):
    output = tmp_path / "scored.jsonl"
    met = []

    def hook(chunk, progress):
        with pytest.raises(ResumeError, match="another process is writing"):
            run_scoring(engine_of(prm), Input(str(source)), output, resume=bool(met))
        met.append(chunk)

    run_scoring(engine_of(prm), Input(str(source)), output, hook=hook)
    assert len(met) == 4
    assert len(list(read_scored(output))) == 10


def test_a_pipe_does_not_replace_an_output(prm, source, tmp_path):
    output = tmp_path / "scored.jsonl"
    run_scoring(engine_of(prm), Input(str(source)), output)
    before = output.read_bytes()
    with pytest.raises(ResumeError, match="pipe cannot be compared"):
        run_scoring(engine_of(prm), Input("-"), output)
    assert output.read_bytes() == before


# --- the disk ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("at", [0, 1, 5, 9])
def test_a_disk_that_fails(prm, source, tmp_path, monkeypatch, number, at):
    """Whichever of the writes fails, the error names the output, and the run can go on later."""
    whole, output = tmp_path / "whole" / "scored.jsonl", tmp_path / "cut" / "scored.jsonl"
    run_scoring(engine_of(prm), Input(str(source)), whole)
    sync, calls = os.fsync, []

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) > at:
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutputError, match=r"expected to write .*scored"):
        run_scoring(engine_of(prm), Input(str(source)), output)
    monkeypatch.undo()
    assert not output.exists()
    run_scoring(engine_of(prm), Input(str(source)), output)
    assert output.read_bytes() == whole.read_bytes()
    assert names(output.parent) == ALL_FILES


def test_a_folder_that_cannot_be_written(prm, source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        run_scoring(engine_of(prm), Input(str(source)), tmp_path / "file" / "scored.jsonl")


# --- kills ---------------------------------------------------------------------------------------------------------


class Host:
    """Talks to `run_host.py`."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("run_host.py")), str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, source: Path, output: Path, *, kill_after: float | None = None, **job) -> dict | None:
        """Run to the end and return the result, or None if it was killed (after some seconds)."""
        result = output.parent.with_name(output.parent.name + ".result")
        result.unlink(missing_ok=True)
        line = {"source": str(source), "output": str(output), "result": str(result), "chunk_traces": 2, **job}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        word, child = self.process.stdout.readline().split()
        assert word == "ready"
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it was done before
                os.kill(int(child), signal.SIGKILL)
        status = int(self.process.stdout.readline())
        assert status in (0, -signal.SIGKILL)
        return json.loads(result.read_text()) if status == 0 else None

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def host(folders):
    host = Host(folders["causal"])
    yield host
    host.close()


def same_as(output: Path, whole: Path) -> None:
    assert output.read_bytes() == whole.read_bytes()
    ours, theirs = (path.with_name("scored.rejects.jsonl") for path in (output, whole))
    assert ours.exists() == theirs.exists()
    assert not ours.exists() or ours.read_bytes() == theirs.read_bytes()
    one, other = read_manifest(output), read_manifest(whole)
    assert (one.counts, one.rejects, one.settings) == (other.counts, other.rejects, other.settings)


@pytest.mark.parametrize(
    "resume",
    [
        pytest.param(True, id="from nothing"),
        pytest.param(False, id="over an older output", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("start", range(4))
def test_a_kill_before_anything_done_to_the_disk(host, source, tmp_path, start, resume):
    """The run is killed before each sync, each move and each removal in turn, and started again."""
    whole = tmp_path / "whole" / "scored.jsonl"
    events = host.run(source, whole, chunk_traces=4)["events"]
    assert events > 15
    for number in range(start, events, 4):
        output = tmp_path / f"cut{number}" / "scored.jsonl"
        if not resume:
            host.run(source, output, chunk_traces=4)
        assert host.run(source, output, chunk_traces=4, kill_at=number, resume=resume) is None
        again = host.run(source, output, chunk_traces=4)
        assert again.get("error") is None, f"killed at {number}: {again}"
        assert (again["traces"], again["counts"], again["rejects"]) == (10, {"scored": 9, "no-steps": 1}, 3)
        same_as(output, whole)
        if resume:
            assert names(output.parent) == ALL_FILES
        assert host.run(source, output, chunk_traces=4)["resumed"] == 10


@pytest.mark.parametrize("seed", range(6))
def test_kills_at_random_moments(host, tmp_path, seed):
    source = write_input(tmp_path / "traces.jsonl", 30)
    whole, output = tmp_path / "whole" / "scored.jsonl", tmp_path / "cut" / "scored.jsonl"
    started = time.monotonic()
    host.run(source, whole)
    duration = time.monotonic() - started
    rng, kills = random.Random(seed), 0
    while host.run(source, output, kill_after=rng.uniform(0, duration)) is None:
        kills += 1
        assert kills < 200, "it does not come forward"
    same_as(output, whole)
    assert names(output.parent) == ALL_FILES


@pytest.mark.parametrize("bad_every", [4, 0], ids=["with rejects", "without"])
def test_a_disk_that_is_full(host, tmp_path, bad_every):
    """The system refuses to let files grow; whatever had been written stays good."""
    source = write_input(tmp_path / "traces.jsonl", bad_every=bad_every)
    whole, output = tmp_path / "whole" / "scored.jsonl", tmp_path / "cut" / "scored.jsonl"
    host.run(source, whole)
    size = whole.stat().st_size
    for limit in (100, size // 3, size // 2, size - 1):
        result = host.run(source, output, file_bytes=limit)
        assert result["error"] == "OutputError", result
        assert "free some space" in result["message"]
        assert not output.exists()
    assert host.run(source, output)["resumed"] > 0
    same_as(output, whole)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(host, tmp_path):
    few = write_input(tmp_path / "few.jsonl", 200)
    many = tmp_path / "many.jsonl"
    with many.open("w") as file:
        for _ in range(25):
            file.write(few.read_text())
    one = host.run(few, tmp_path / "few" / "scored.jsonl", chunk_traces=32)
    other = host.run(many, tmp_path / "many" / "scored.jsonl", chunk_traces=32)
    assert other["traces"] == 25 * one["traces"]
    assert other["peak_mib"] < one["peak_mib"] + 15
