"""Label rows: they come back as they went, from JSON lines and from Parquet, as labels and as traces."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_parts import LengthEmbedding, labeller, trace, traces

from reasonflux_prm.errors import InputError, MissingExtra
from reasonflux_prm.labels import tables
from reasonflux_prm.labels.files import is_labelled, labelled_row, read_labelled
from reasonflux_prm.labels.tables import write_table
from reasonflux_prm.records import LabelledTrace, LabelStatus, Step, Term, Trace
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import json_line

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
terms = st.dictionaries(
    st.sampled_from(["quality", "coherence", "alignment_max"]), st.builds(Term, numbers, st.none() | texts)
)
values = st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner, max_size=3))


@st.composite
def labels(draw) -> LabelledTrace:
    thinking, response = draw(texts), draw(texts)
    steps = [Step("thinking", 0, len(thinking))] * bool(thinking) + [Step("response", 0, len(response))] * bool(
        response
    )
    meta = draw(st.dictionaries(st.sampled_from(["topic", "status", "trajectory", "note", "formula"]), values))
    one = Trace(draw(texts.filter(bool)), draw(texts), thinking, response, draw(st.none() | texts), meta=meta)
    each = {"min_size": len(steps), "max_size": len(steps)}
    return LabelledTrace(
        one,
        draw(st.sampled_from(list(LabelStatus))),
        tuple(steps),
        tuple(draw(st.lists(terms, **each))),
        tuple(draw(st.lists(numbers, **each))),
        draw(terms),
        draw(numbers),
        "bounded mean(quality)",
        draw(st.none() | texts),
    )


def write(path, records):
    path.write_bytes(b"".join(json_line(labelled_row(record)) for record in records))
    return path


@settings(max_examples=30, deadline=None)
@given(st.lists(labels(), min_size=1, max_size=3))
def test_round_trip(tmp_path_factory, records):
    path = write(tmp_path_factory.mktemp("labels") / "labels.jsonl", records)
    assert list(read_labelled(path)) == records
    assert list(read_traces(path)) == [record.trace for record in records]


def test_a_row_is_as_documented():
    (labelled,) = labeller().label([trace(0)])
    row = labelled_row(labelled)
    assert list(row)[:6] == ["id", "status", "steps", "trajectory", "formula", "note"]
    assert row["steps"][0].keys() == {"part", "start", "stop", "terms", "target"}
    assert row["steps"][0]["terms"]["quality"].keys() == {"value", "reason"}
    assert row["trajectory"]["terms"]["lift"] == {"value": None, "reason": "no control"}
    assert is_labelled(row)
    assert not is_labelled({"id": "a", "problem": "p", "steps": []})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "odd"}, "wrong 'odd' is not a valid LabelStatus"),
        ({"steps": 3}, "expected a row that `reasonflux-prm label` wrote"),
        ({"trajectory": None}, "expected the column trajectory to be an object, got null"),
        ({"formula": None}, "expected the column formula to be text"),
        ({"trajectory": {"terms": {}, "target": "high"}}, "expected terms and targets to be numbers or null"),
        ({"trajectory": {"terms": {"a": 3}, "target": 1}}, "expected a label, got a wrong"),
    ],
)
def test_what_is_no_label(tmp_path, change, reason):
    (labelled,) = labeller().label([trace(0)])
    (tmp_path / "l.jsonl").write_text("\n" + json.dumps({**labelled_row(labelled), **change}))
    with pytest.raises(InputError, match=r"l\.jsonl:2: ") as caught:
        list(read_labelled(tmp_path / "l.jsonl"))
    assert reason in str(caught.value)


# --- Parquet -------------------------------------------------------------------------------------------------------


def table(tmp_path, records):
    pytest.importorskip("pyarrow")
    write_table(write(tmp_path / "labels.jsonl", records), tmp_path / "labels.parquet")
    return tmp_path / "labels.parquet"


def test_a_table_holds_the_labels(tmp_path):
    given_steps = (Step("thinking", 0, 4),)
    records = [
        *labeller().label(traces(7)),
        *labeller().label([trace(8, steps=given_steps, step_labels=(1.0,), answer="8", correct=True)]),
        *labeller().label([Trace("empty", "p"), Trace("cut", "p", "Thought.", thinking_closed=False)]),
    ]
    assert list(read_labelled(table(tmp_path, records))) == records
    assert [one.id for one in read_traces(tmp_path / "labels.parquet")] == [record.trace.id for record in records]


def test_columns_of_every_kind(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    metas = [
        {"n": 1, "x": 1, "s": "a", "l": [1, 2], "m": "a", "deep": {"a": [1]}, "b": True, "none": None, "big": 2**70},
        {"n": 2, "x": 0.5, "s": None, "l": [], "m": 3, "deep": {}, "b": None, "none": None, "big": 1},
        {"l": [0.5], "status": "odd"},
    ]
    records = [
        dataclasses.replace(one, trace=dataclasses.replace(one.trace, meta=meta))
        for one, meta in zip(labeller().label(traces(3)), metas, strict=True)
    ]
    path = table(tmp_path, records)
    kinds = {field.name: str(field.type) for field in pyarrow.parquet.read_schema(path)}
    assert {name: kinds[name] for name in metas[0]} == {
        "n": "int64",
        "x": "double",
        "s": "string",
        "l": "list<element: double>",
        "m": "string",
        "deep": "string",
        "b": "bool",
        "none": "null",
        "big": "string",
    }
    first, second, third = (record.trace.meta for record in read_labelled(path))
    assert (first["n"], first["x"], first["l"], first["deep"], first["m"]) == (1, 1.0, [1.0, 2.0], '{"a": [1]}', '"a"')
    assert (second["m"], second["big"], third["meta"]) == ("3", "1", '{"status": "odd"}')


@pytest.mark.parametrize("records", [[Trace("a", "p")], [trace(1)]], ids=["no steps", "no terms"])
def test_a_table_without_terms(tmp_path, records):
    class Nothing:
        def identity(self):
            return {}

        async def judge(self, segmented):
            return ({},) * len(segmented.steps)

    class NoTerms(LengthEmbedding):
        def terms(self, batch):
            return [({},) * len(one.steps) for one in batch]

    class NoRating(Nothing):
        async def rate(self, segmented):
            return {}

    labelled = list(labeller(Nothing(), NoRating(), NoTerms()).label(records))
    assert list(read_labelled(table(tmp_path, labelled))) == labelled


def test_row_groups_are_bounded(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 3000)
    records = list(labeller().label(traces(40)))
    path = table(tmp_path, records)
    assert pyarrow.parquet.ParquetFile(path).num_row_groups > 5
    assert list(read_labelled(path)) == records


def test_without_pyarrow(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"reasonflux-prm\[data\]"):
        write_table(write(tmp_path / "l.jsonl", []), tmp_path / "l.parquet")
