import json

import pytest

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.traces.read import read_traces


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "x.jsonl"
        path.write_bytes(b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in rows))
        return path

    return write


GOOD = {"problem": "P", "response": "B"}


def test_traces_in_order_with_duplicate_ids(write):
    path = write(GOOD | {"id": "a"}, GOOD, GOOD | {"id": "a"})
    assert [trace.id for trace in read_traces(path)] == ["a", "x:2", "a"]


def test_formats_may_be_mixed(write):
    path = write(GOOD, {"problem": "P", "candidates": ["B", "C"]}, {"problem": "P", "steps": ["a"], "labels": [1]})
    assert [trace.id for trace in read_traces(str(path))] == ["x:1", "x:2#0", "x:2#1", "x:3"]


def test_without_rejects_the_first_bad_record_raises(write):
    found = read_traces(write(GOOD, b"nonsense\n", GOOD))
    assert next(found).id == "x:1"
    with pytest.raises(InputError, match=r"x\.jsonl:2: expected one JSON object a line"):
        next(found)


def test_with_rejects_reading_goes_on(write):
    path = write(GOOD, b"nonsense\n", {"a": 1, "b": "x" * 3000}, GOOD)
    rejects = []
    assert [trace.id for trace in read_traces(path, rejects=rejects.append)] == ["x:1", "x:4"]
    assert [(r.file, r.line) for r in rejects] == [(str(path), 2), (str(path), 3)]
    assert rejects[0].raw == "nonsense"
    assert len(rejects[1].raw) == 2000
    assert "the record has a (int), b (text)" in rejects[1].reason


def test_every_record_bad_is_not_an_error(write):
    rejects = []
    assert list(read_traces(write(b"1\n", b"2\n"), rejects=rejects.append)) == []
    assert len(rejects) == 2


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_empty(write, content):
    with pytest.raises(InputError, match=r"expected records in .*x\.jsonl, found none"):
        list(read_traces(write(content), rejects=lambda reject: None))


def test_limit_counts_good_records_and_keeps_groups_whole(write):
    path = write(b"1\n", {"problem": "P", "candidates": ["B", "C"]}, GOOD, GOOD)
    rejects = []
    assert [t.id for t in read_traces(path, limit=2, rejects=rejects.append)] == ["x:2#0", "x:2#1", "x:3"]
    assert len(rejects) == 1
    assert list(read_traces(path, limit=0)) == []


def test_limit_reads_no_further(write):
    assert len(list(read_traces(write(GOOD, b"nonsense\n"), limit=1))) == 1


def test_a_named_format_that_does_not_fit_is_rejected(write):
    rejects = []
    assert list(read_traces(write(GOOD), format="openr1", rejects=rejects.append)) == []
    assert "`generations`" in rejects[0].reason


class TestMap:
    def test_columns_of_the_users(self, write):
        path = write({"task": "P", "cot": "A", "final": "B", "score": 1})
        (trace,) = read_traces(path, columns={"problem": "task", "thinking": "cot", "response": "final"})
        assert (trace.problem, trace.thinking, trace.response, trace.meta) == ("P", "A", "B", {"score": 1})

    def test_a_column_in_the_place_survives(self, write):
        path = write({"problem": "short", "question": "P", "response": "B"})
        (trace,) = read_traces(path, columns={"problem": "question"})
        assert (trace.problem, trace.meta) == ("P", {"problem": "short"})

    def test_columns_can_change_places(self, write):
        path = write({"problem": "B", "response": "P"})
        (trace,) = read_traces(path, columns={"problem": "response", "response": "problem"})
        assert (trace.problem, trace.response, trace.meta) == ("P", "B", {})

    def test_other_formats(self, write):
        path = write({"q": "P", "samples": ["B", "<think>A</think>C"]})
        first, second = read_traces(path, columns={"problem": "q", "candidates": "samples"})
        assert (first.response, second.thinking, second.response) == ("B", "A", "C")

    def test_a_reference_column_can_be_named_the_response(self, write):
        (trace,) = read_traces(write({"problem": "P", "solution": "B"}), columns={"response": "solution"})
        assert trace.response == "B"

    def test_a_column_that_is_not_there(self, write):
        path = write(b"nonsense\n", GOOD)
        with pytest.raises(InputError, match=r"x\.jsonl:2: expected the column cot, .*the record has problem \(text\)"):
            list(read_traces(path, columns={"thinking": "cot"}, rejects=lambda reject: None))

    def test_a_column_that_later_records_lack(self, write):
        path = write({"q": "P", "response": "B", "gold": "4"}, {"q": "P", "response": "B"})
        assert [t.answer for t in read_traces(path, columns={"problem": "q", "answer": "gold"})] == ["4", None]

    def test_unknown_field(self, write):
        with pytest.raises(UsageError, match=r"FIELD one of id, problem.*got cot"):
            read_traces(write(GOOD), columns={"cot": "thinking"})


def test_wrong_usage_is_told_at_once(write):
    with pytest.raises(UsageError, match=r"auto or one of native, .*got jsonl"):
        read_traces(write(GOOD), format="jsonl")
    with pytest.raises(UsageError, match="0 or more, got -1"):
        read_traces(write(GOOD), limit=-1)


def test_parquet_end_to_end(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    messages = [{"role": "user", "content": "P"}, {"role": "assistant", "content": "<think>A</think>B"}]
    parquet.write_table(
        pyarrow.Table.from_pylist([{"messages": messages, "n": 1}, {"messages": None, "n": 2}]), tmp_path / "x.parquet"
    )
    rejects = []
    (trace,) = read_traces(tmp_path, rejects=rejects.append)
    assert (trace.id, trace.problem, trace.thinking, trace.response, trace.meta) == ("x:1", "P", "A", "B", {"n": 1})
    assert (rejects[0].line, rejects[0].raw) == (2, '{"messages": null, "n": 2}')
