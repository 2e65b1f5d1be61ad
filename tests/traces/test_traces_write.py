import contextlib
import errno
import json
import os
import sys
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import DownloadError, InputError, OutputError
from reasonflux_prm.records import PRMIdentity, Reject, ScoredTrace, Status, Step, Trace
from reasonflux_prm.traces import write
from reasonflux_prm.traces.formats import read_row
from reasonflux_prm.traces.native import RESERVED, trace_row
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import (
    RejectsWriter,
    atomic_path,
    json_line,
    read_scored,
    scored_row,
    side_path,
    synced_meanwhile,
    writing,
)

PRM = PRMIdentity("embedded", "0123456789ab", "native", "causal", "mean", 1.0)
TRACE = Trace(id="x", problem="P", thinking="AA", response="B", meta={"level": 2})
SCORED = ScoredTrace(
    trace=TRACE,
    status=Status.SCORED,
    steps=(Step("thinking", 0, 2), Step("response", 0, 1)),
    step_rewards=(0.25, None),
    trajectory_reward=0.5,
    reward=0.75,
    prm=PRM,
    tokens=12,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
names = (
    texts
    | st.sampled_from(sorted(RESERVED))
    | st.sampled_from(["model", "truncated", "finish_reason", "candidates", "uuid"])
)
rewards = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def spans(draw, thinking, response):
    found = []
    for part, text in (("thinking", thinking), ("response", response)):
        cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)))
        found += [Step(part, a, b) for a, b in pairwise(cuts)]
    return tuple(found)


@st.composite
def traces(draw):
    thinking, response = draw(texts), draw(texts)
    steps = draw(spans(thinking, response))
    return Trace(
        id=draw(texts.filter(bool)),
        problem=draw(texts),
        thinking=thinking,
        response=response,
        answer=draw(st.none() | texts),
        source=draw(st.none() | texts),
        policy=draw(st.none() | texts),
        correct=draw(st.none() | st.booleans()),
        group=draw(st.none() | texts),
        thinking_closed=draw(st.booleans()),
        steps=steps,
        step_labels=tuple(draw(st.none() | st.floats(0, 1)) for _ in steps) if draw(st.booleans()) else (),
        meta=draw(st.dictionaries(names, json_values, max_size=4) | st.just({"truncated": True})),
    )


@st.composite
def scored_traces(draw):
    trace = draw(traces())
    steps = draw(spans(trace.thinking, trace.response))
    return ScoredTrace(
        trace=trace,
        status=draw(st.sampled_from(Status)),
        steps=steps,
        step_rewards=tuple(draw(rewards) for _ in steps),
        trajectory_reward=draw(rewards),
        reward=draw(rewards),
        prm=PRMIdentity(*(draw(texts) for _ in range(5)), draw(st.floats(0, 10))),
        tokens=draw(st.integers(0, 10**9)),
        overflow=draw(st.none() | texts),
        note=draw(st.none() | texts),
    )


@given(traces())
def test_a_trace_survives_its_row(trace):
    row = json.loads(json_line(trace_row(trace)))
    assert read_row(row, "f:1") == [trace]


@given(st.lists(scored_traces(), min_size=1, max_size=3))
def test_scored_traces_survive_the_disk(tmp_path_factory, scored):
    path = tmp_path_factory.mktemp("scored") / "x.jsonl"
    path.write_bytes(b"".join(json_line(scored_row(one)) for one in scored))
    assert list(read_scored(path)) == scored
    assert list(read_traces(path)) == [one.trace for one in scored]


def test_the_columns_of_a_scored_row_and_their_order():
    assert list(scored_row(SCORED).items()) == [
        ("id", "x"),
        ("status", "scored"),
        (
            "steps",
            [
                {"part": "thinking", "start": 0, "stop": 2, "reward": 0.25},
                {"part": "response", "start": 0, "stop": 1, "reward": None},
            ],
        ),
        ("trajectory_reward", 0.5),
        ("reward", 0.75),
        (
            "prm",
            {
                "name": "embedded",
                "revision": "0123456789ab",
                "family": "native",
                "layout": "causal",
                "aggregation": "mean",
                "alpha": 1.0,
            },
        ),
        ("tokens", 12),
        ("overflow", None),
        ("note", None),
        ("problem", "P"),
        ("thinking", "AA"),
        ("response", "B"),
        ("answer", None),
        ("source", None),
        ("policy", None),
        ("correct", None),
        ("group", None),
        ("level", 2),
    ]


def test_columns_of_the_users_that_clash_go_into_meta():
    trace = Trace(id="x", problem="P", response="B", meta={"reward": 1, "meta": 2, "free": 3})
    row = trace_row(trace)
    assert row["meta"] == {"reward": 1, "meta": 2}
    assert row["free"] == 3
    assert "reward" not in row


class TestReadScored:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"status": "fine"}, "'fine' is not a valid Status"),
            ({"prm": {"name": "x"}}, "wrong"),
            ({"steps": [{"part": "thinking", "start": 0, "stop": 9, "reward": 1}]}, "`steps` 0"),
            ({"steps": [{"part": "thinking", "start": 0, "stop": 1}]}, "wrong 'reward'"),
            ({"reward": "high"}, "rewards to be numbers or null, got 'high'"),
            ({"thinking": None}, "a row that `reasonflux-prm score` wrote"),
        ],
    )
    def test_bad_rows(self, tmp_path, change, reason):
        path = tmp_path / "x.jsonl"
        path.write_bytes(json_line(scored_row(SCORED)) + json_line(scored_row(SCORED) | change))
        with pytest.raises(InputError, match=rf"x\.jsonl:2: .*{reason}"):
            list(read_scored(path))

    def test_bad_json(self, tmp_path):
        (tmp_path / "x.jsonl").write_bytes(b"{\n")
        with pytest.raises(InputError, match=r"x\.jsonl:1: expected one JSON object a line"):
            list(read_scored(tmp_path / "x.jsonl"))


class TestJsonLine:
    def test_text_is_utf8_and_line_ends_are_escaped(self):
        line = json_line({"b": "é\u2028\u2029\x85\n", "a": 1})
        assert line == b'{"b": "\xc3\xa9\\u2028\\u2029\\u0085\\n", "a": 1}\n'

    @given(st.dictionaries(texts, json_values, max_size=3))
    def test_one_line_for_every_reader(self, record):
        line = json_line(record)
        assert json.loads(line) == record
        assert len(line.decode().splitlines()) == 1

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", object()])
    def test_what_does_not_fit(self, value):
        with pytest.raises(InputError, match="expected the record 'r' to fit into JSON"):
            json_line({"id": "r", "x": value})


class TestAtomicPath:
    def test_the_file_appears_whole(self, tmp_path):
        target = tmp_path / "new" / "x.jsonl"
        with atomic_path(target) as part:
            part.write_bytes(b"text")
            assert not target.exists()
        assert target.read_bytes() == b"text"
        assert list(target.parent.iterdir()) == [target]

    def test_an_error_leaves_the_old_file(self, tmp_path):
        target = tmp_path / "x.jsonl"
        target.write_bytes(b"old")
        with contextlib.suppress(RuntimeError), atomic_path(target) as part:
            part.write_bytes(b"new")
            raise RuntimeError
        assert target.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [target]

    def test_what_a_killed_run_left_is_overwritten(self, tmp_path):
        (tmp_path / ".x.jsonl.part").write_bytes(b"left over, and longer")
        with atomic_path(tmp_path / "x.jsonl") as part:
            part.write_bytes(b"new")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
    def test_full_disk(self, tmp_path):
        target = tmp_path / "x.jsonl"
        message = r"expected to write .*x\.jsonl, got: No space left on device; free some"
        with pytest.raises(OutputError, match=message), atomic_path(target), open("/dev/full", "wb") as stream:
            stream.write(b"text")
        assert list(tmp_path.iterdir()) == []

    def test_full_disk_at_the_end(self, tmp_path, monkeypatch):
        def fail(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match="No space left on device"), atomic_path(tmp_path / "x.jsonl") as part:
            part.write_bytes(b"text")
        assert list(tmp_path.iterdir()) == []

    def test_errors_of_the_block_that_are_not_the_disks(self, tmp_path):
        with pytest.raises(DownloadError), atomic_path(tmp_path / "x.jsonl"):
            raise DownloadError("offline")
        with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x.jsonl"):
            (tmp_path / "other").read_bytes()

    def test_a_file_where_the_directory_should_be(self, tmp_path):
        (tmp_path / "x").write_bytes(b"")
        with pytest.raises(OutputError, match="choose another output"), atomic_path(tmp_path / "x" / "y.jsonl"):
            pass


def test_writing_names_the_file():
    with (
        pytest.raises(OutputError, match=r"expected to write out\.jsonl, got: Permission denied; choose another"),
        writing("out.jsonl"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("output", "beside"),
    [("d/x.jsonl", "d/x.m"), ("x.jsonl.gz", "x.m"), ("x.html", "x.m"), ("x", "x.m"), ("x.y.parquet", "x.y.m")],
)
def test_side_path(tmp_path, output, beside):
    assert side_path(tmp_path / output, ".m") == tmp_path / beside


class TestRejectsWriter:
    REJECT = Reject("x.jsonl", 3, "expected UTF-8", "\ufffd…")

    def test_rejects_are_written(self, tmp_path):
        with RejectsWriter(tmp_path / "out.jsonl") as rejects:
            rejects(self.REJECT)
            rejects(self.REJECT)
        assert rejects.count == 2
        assert [path.name for path in tmp_path.iterdir()] == ["out.rejects.jsonl"]
        first, second = rejects.path.read_text(encoding="utf-8").splitlines()
        assert first == second
        assert json.loads(first) == {"file": "x.jsonl", "line": 3, "reason": "expected UTF-8", "raw": "\ufffd…"}

    def test_none_leaves_no_file_and_takes_an_old_one_away(self, tmp_path):
        (tmp_path / "out.rejects.jsonl").write_text("old")
        with RejectsWriter(tmp_path / "out.jsonl") as rejects:
            pass
        assert rejects.count == 0
        assert list(tmp_path.iterdir()) == []

    def test_an_error_keeps_the_old_file(self, tmp_path):
        (tmp_path / "out.rejects.jsonl").write_text("old")
        with contextlib.suppress(RuntimeError), RejectsWriter(tmp_path / "out.jsonl") as rejects:
            rejects(self.REJECT)
            raise RuntimeError
        assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]

    def test_full_disk(self, tmp_path, monkeypatch):
        rejects = RejectsWriter(tmp_path / "out.jsonl")

        class Full:
            def write(self, data):
                raise OSError(errno.ENOSPC, "No space left on device")

        rejects._stream = Full()
        with pytest.raises(OutputError, match=r"out\.rejects\.jsonl, got: No space left"):
            rejects(self.REJECT)

    def test_together_with_reading(self, tmp_path):
        (tmp_path / "in.jsonl").write_bytes(b'nonsense\n{"problem": "P", "response": "B"}\n')
        with RejectsWriter(tmp_path / "out.jsonl") as rejects:
            assert len(list(read_traces(tmp_path / "in.jsonl", rejects=rejects))) == 1
        assert rejects.count == 1


def test_reading_and_writing_load_nothing_heavy():
    import subprocess

    code = (
        "import sys, reasonflux_prm.traces.read, reasonflux_prm.traces.manifest\n"
        "print(sorted({'torch', 'numpy', 'pyarrow', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_what_the_disk_refuses_meanwhile_is_an_error_of_the_block(tmp_path, monkeypatch):
    asked = threading.Event()

    def refuse(descriptor):
        asked.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", refuse, raising=False)
    monkeypatch.setattr(write, "_SYNC_EVERY_S", 0.01)

    def write_slowly():
        with atomic_path(tmp_path / "x.jsonl") as part, part.open("wb") as stream, synced_meanwhile(stream):
            stream.write(b"1")
            assert asked.wait(30)

    with pytest.raises(OutputError, match="free some space"):
        write_slowly()
    assert not list(tmp_path.iterdir())


def test_a_file_is_synced_while_it_is_written(tmp_path, monkeypatch):
    synced, asked = [], threading.Event()

    def note(descriptor):
        synced.append(descriptor)
        asked.set()

    monkeypatch.setattr(os, "fdatasync", note, raising=False)
    monkeypatch.setattr(write, "_SYNC_EVERY_S", 0.01)
    with (tmp_path / "x").open("wb") as stream:
        with synced_meanwhile(stream):
            assert asked.wait(30)
        assert set(synced) == {stream.fileno()}
    seen = len(synced)
    time.sleep(0.05)
    assert len(synced) == seen
