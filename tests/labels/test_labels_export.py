"""Recombining and exporting: the same rows as by the long way, bytes for bytes, and none that say what is not so."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from label_parts import labeller, trace, traces, write_traces
from test_labels_files import labels

from reasonflux_prm.errors import InputError, ResumeError, UsageError
from reasonflux_prm.labels import handing_over
from reasonflux_prm.labels import recombine as module
from reasonflux_prm.labels.combine import combine, out_of_range
from reasonflux_prm.labels.export import Exported, export_labels, training_row
from reasonflux_prm.labels.files import labelled_row, read_labelled
from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.labels.recombine import Batch, combine_rows, recombine
from reasonflux_prm.labels.run import run_labelling
from reasonflux_prm.records import LabelledTrace, LabelStatus, Step, Term
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.resumable import Input
from reasonflux_prm.traces.write import json_line

FORMULAS = (
    "bounded softmax(alignment_max, quality, coherence)",
    "literal mean(quality, coherence)",
    "bounded weighted(quality!=2, alignment_max=1)",
    "literal min(alignment_dtw)",
)


def lines_of(records) -> list[bytes]:
    return [json_line(labelled_row(record)) for record in records]


def the_long_way(records, formula: str) -> bytes:
    return b"".join(lines_of(combine(record, Formula.parse(formula)) for record in records))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine under load
@given(labels())
def test_taken_apart_or_decoded_the_rows_are_the_same(record):
    for formula in FORMULAS:
        encoded, counts, strays = combine_rows(formula, Batch("file", 1, lines_of([record])))
        assert encoded == the_long_way([record], formula)
        assert counts.total() == 1
        # `label` never gives a trace that failed a target; such a row keeps what it has, uncounted.
        if formula.startswith("literal") and record.status not in (LabelStatus.NO_STEPS, LabelStatus.FAILED):
            assert strays == out_of_range(combine(record, Formula.parse(formula)))


def test_rows_in_our_form_are_taken_apart(monkeypatch):
    records = list(labeller().label(traces(9)))
    monkeypatch.setattr(module, "_decoded", lambda *_: pytest.fail("it was decoded"))
    for formula in FORMULAS:
        assert combine_rows(formula, Batch("file", 1, lines_of(records)))[0] == the_long_way(records, formula)


FORGERIES = (
    '}, "target": 0.9}',
    '"quality": {"value": 1.0, "reason": null}',
    '}, "formula": "bounded", "note": null, "steps": [',
    '{"part": "thinking", "start": 0',
    '\\"}, "target": 1}\\\\"',
)


@pytest.mark.parametrize("text", FORGERIES)
def test_texts_that_look_like_a_row_are_left_alone(text):
    record = next(labeller().label([trace(3)]))
    step, rest = record.step_terms[0], record.step_terms[1:]
    forged = dataclasses.replace(
        record,
        trace=dataclasses.replace(record.trace, id=text, problem=text, meta={text: text, "deep": json.loads("[{}]")}),
        step_terms=({**step, "quality": Term(0.25, text), "coherence": Term(None, text)}, *rest),
        trajectory_terms={"trajectory": Term(0.5, text)},
        status=LabelStatus.FAILED,
        note=text,
    )
    for one in (forged, dataclasses.replace(forged, status=LabelStatus.LABELLED)):
        for formula in FORMULAS:
            assert combine_rows(formula, Batch("file", 1, lines_of([one])))[0] == the_long_way([one], formula)


def test_rows_of_another_form_are_decoded():
    records = list(labeller().label(traces(4)))
    compact = [json.dumps(labelled_row(record), separators=(",", ":")).encode() + b"\n" for record in records]
    assert combine_rows(FORMULAS[0], Batch("file", 1, [*compact, b"\n"]))[0] == the_long_way(records, FORMULAS[0])


@pytest.mark.parametrize("value", [b"true", b'"much"', b"[1"])
def test_a_term_that_is_no_number_is_named(value):
    (line,) = lines_of(labeller().label([trace(1)]))
    broken = re.sub(rb'"quality": {"value": [^,]*', b'"quality": {"value": ' + value, line)
    assert broken != line
    with pytest.raises(InputError, match=r"^file:7: expected"):
        combine_rows(FORMULAS[0], Batch("file", 7, [broken]))


def test_a_row_that_is_no_label_is_named():
    with pytest.raises(InputError, match=r"^file:12: expected a label as one JSON object"):
        combine_rows(FORMULAS[0], Batch("file", 10, [*lines_of(labeller().label([trace(1)])), b"\n", b"no\n"]))
    with pytest.raises(InputError, match=r"^file:1: expected a row that"):
        combine_rows(FORMULAS[0], Batch("file", 1, [b'{"id": "a"}\n']))


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    run_labelling(labeller(), Input(str(write_traces(tmp_path / "traces.jsonl", 30))), tmp_path / "labels.jsonl")
    return tmp_path / "labels.jsonl"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_file(source, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(module, "BATCH_BYTES", 4000)
    formula = Formula.parse("literal mean(coherence)")
    done = recombine(str(source), tmp_path / "new.jsonl", formula, processes=processes)
    assert done.counts == {"labelled": 29, "no-steps": 1}
    assert done.strays["target"] > 3
    assert (tmp_path / "new.jsonl").read_bytes() == the_long_way(read_labelled(source), str(formula))
    manifest = read_manifest(tmp_path / "new.jsonl")
    assert (manifest.kind, dict(manifest.counts)) == ("labels", {"labelled": 29, "no-steps": 1})
    assert manifest.settings["labels"] == {
        **read_manifest(source).settings["labels"],
        "formula": "literal mean(coherence)",
    }
    assert recombine(str(source), tmp_path / "new.jsonl", formula).finished_before
    with pytest.raises(ResumeError, match=r"another labels\.formula"):
        recombine(str(source), tmp_path / "new.jsonl", Formula())


def test_rows_too_long_for_their_place_come_through_the_pipe(source, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES", 4000)
    long = handing_over.PLACE_BYTES + 1
    first, *others = source.read_bytes().splitlines(keepends=True)
    longer = first.replace(b'"problem": "', b'"problem": "' + b"x" * long, 1)
    assert len(longer) == len(first) + long
    source.write_bytes(b"".join([*others, longer, *others]))
    recombine(str(source), tmp_path / "new.jsonl", Formula("bounded", "min"), processes=2, resume=False)
    assert (tmp_path / "new.jsonl").read_bytes() == the_long_way(read_labelled(source), str(Formula("bounded", "min")))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_row_that_is_no_label_is_named_wherever_it_stands(source, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(module, "BATCH_BYTES", 4000)
    lines = source.read_bytes().splitlines(keepends=True)
    (tmp_path / "bad.jsonl").write_bytes(b"".join([*lines[:20], b"\n", lines[20], b"no\n", *lines[21:]]))
    with pytest.raises(InputError, match=r"bad\.jsonl:23: expected a label as one JSON object"):
        recombine(str(tmp_path / "bad.jsonl"), tmp_path / "new.jsonl", Formula(), processes=processes)
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize("size", [1, 7, 4000, 1 << 20])
def test_spans_hold_every_row_once_whatever_their_size(source, monkeypatch, size):
    monkeypatch.setattr(module, "BATCH_BYTES", size)
    lines = source.read_bytes().rstrip(b"\n").splitlines(keepends=True)
    source.write_bytes(b"\n" + b"".join(lines))
    batches = [span.read(span.first()) for span in module._rows(str(source))]
    assert [line for batch in batches for line in batch.lines] == [b"\n", *lines]
    assert [batch.first for batch in batches] == [
        1 + sum(len(one.lines) for one in batches[:number]) for number in range(len(batches))
    ]


def test_back_and_forth_gives_the_same_bytes(source, tmp_path):
    recombine(str(source), tmp_path / "one.jsonl", Formula.parse("literal min(quality)"))
    recombine(str(tmp_path / "one.jsonl"), tmp_path / "two.jsonl", Formula())
    assert (tmp_path / "two.jsonl").read_bytes() == source.read_bytes()


def test_other_forms(source, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    expected = the_long_way(read_labelled(source), str(Formula("bounded", "min")))
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(source.read_bytes()))
    recombine(str(tmp_path / "packed.jsonl.gz"), tmp_path / "new.jsonl.gz", Formula("bounded", "min"))
    assert gzip.decompress((tmp_path / "new.jsonl.gz").read_bytes()) == expected
    recombine(str(source), tmp_path / "new.parquet", Formula("bounded", "min"))
    recombine(str(tmp_path / "new.parquet"), tmp_path / "back.jsonl", Formula("bounded", "min"))
    (tmp_path / "plain.jsonl").write_bytes(expected)
    ours, theirs = (list(read_labelled(tmp_path / name)) for name in ("back.jsonl", "plain.jsonl"))
    assert [(one.targets, one.step_terms) for one in ours] == [(one.targets, one.step_terms) for one in theirs]

    class Pipe:
        buffer = io.BytesIO(source.read_bytes())

    monkeypatch.setattr(sys, "stdin", Pipe)
    recombine("-", tmp_path / "piped.jsonl", Formula("bounded", "min"))
    assert (tmp_path / "piped.jsonl").read_bytes() == expected
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"no\n"])
def test_a_source_without_labels_leaves_nothing(tmp_path, content):
    (tmp_path / "source.jsonl").write_bytes(content)
    for name in ("new.jsonl", "new.parquet"):
        with pytest.raises(InputError):
            recombine(str(tmp_path / "source.jsonl"), tmp_path / name, Formula())
    assert {path.name for path in tmp_path.iterdir()} == {"source.jsonl"}


# --- training rows -------------------------------------------------------------------------------------------------


def label_of(*targets: float | None, trajectory: float | None = 0.75) -> LabelledTrace:
    texts = [f"Step {number}.\n\n" for number in range(len(targets))]
    starts = [sum(map(len, texts[:number])) for number in range(len(texts))]
    steps = tuple(Step("thinking", start, start + len(text)) for start, text in zip(starts, texts, strict=True))
    one = dataclasses.replace(trace(0), thinking="".join(texts))
    return LabelledTrace(
        one, LabelStatus.LABELLED, steps, ({},) * len(steps), targets, {}, trajectory, "bounded mean(quality)"
    )


def test_rows_as_trl_takes_them():
    assert training_row(label_of(0.9, 0.5, 0.49), "trl") == {
        "prompt": "What is 0?",
        "completions": ["Step 0.", "Step 1.", "Step 2."],
        "labels": [True, True, False],
    }
    assert training_row(label_of(0.9, 0.5), "trl", threshold=0.6)["labels"] == [True, False]


def test_soft_rows():
    assert training_row(label_of(0.9, 0.5, trajectory=None), "soft") == {
        "id": "t0",
        "prompt": "What is 0?",
        "completions": ["Step 0.", "Step 1."],
        "labels": [0.9, 0.5],
        "trajectory": None,
    }


def test_a_step_without_a_target_belongs_to_the_next_that_has_one(tmp_path):
    row = training_row(label_of(None, None, 0.9, None, 0.1, None), "trl")
    assert row["completions"] == ["Step 0.\n\nStep 1.\n\nStep 2.", "Step 3.\n\nStep 4."]
    assert row["labels"] == [True, False]
    records = [label_of(None, None, 0.9, None, 0.1, None), label_of(None, None), label_of(1.0)]
    done = export_labels(records, tmp_path / "rows.jsonl", "trl")
    assert done == Exported(2, 3, 3, {"steps behind the last target": 1, "labelled": 1})
    assert training_row(label_of(None), "trl") is None


@pytest.mark.parametrize("form", ["trl", "soft"])
def test_targets_outside_their_range_are_no_labels(form):
    with pytest.raises(InputError, match=r"trace 't0': expected the target of step 2 in \[0, 1\], got 1\.5; bring"):
        training_row(label_of(0.5, 1.5), form)


@pytest.mark.parametrize("threshold", [0.0, 1.5, float("nan")])
def test_thresholds_out_of_range(tmp_path, threshold):
    with pytest.raises(UsageError):
        export_labels([label_of(0.5)], tmp_path / "rows.jsonl", "trl", threshold=threshold)


def test_nothing_to_export_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="found none"):
        export_labels([label_of(None)], tmp_path / "rows.parquet", "trl")
    assert list(tmp_path.iterdir()) == []


def test_every_form_holds_the_same_rows(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    records = [label_of(0.9, None, 0.1), label_of(0.0, 1.0)]
    for name in ("rows.jsonl", "rows.jsonl.gz", "rows.parquet"):
        export_labels(records, tmp_path / name, "trl")
    plain = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    packed = gzip.decompress((tmp_path / "rows.jsonl.gz").read_bytes())
    assert packed == (tmp_path / "rows.jsonl").read_bytes()
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert table.to_pylist() == plain
    assert [str(field.type) for field in table.schema] == ["string", "list<element: string>", "list<element: bool>"]


def test_trl_reads_the_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    export_labels([label_of(0.9, 0.1)], tmp_path / "rows.jsonl", "trl")
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[0]["labels"] == [True, False]
