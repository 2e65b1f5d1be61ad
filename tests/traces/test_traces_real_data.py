"""Every record of the real data reads, and nothing is lost on the way. Skipped where the data is not at hand."""

import json
from pathlib import Path

import pytest

from reasonflux_prm.traces.formats import detect, read_row
from reasonflux_prm.traces.native import trace_row
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import json_line

DATA = Path(__file__).parents[2].parent / "shared" / "data"
FORMAT = {"bon": "candidates", "steps": "steps", "traces": "native"}
FILES = sorted(path for folder in FORMAT for path in (DATA / folder).glob("*.jsonl"))
needs_data = pytest.mark.skipif(not FILES, reason="the shared data is not here")


def rows(path):
    with path.open("rb") as stream:
        return [json.loads(line) for line in stream]


@needs_data
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_record_reads(path):
    records = rows(path)
    traces = list(read_traces(path))
    assert len(traces) == sum(len(row.get("candidates", [row])) for row in records)
    assert {detect(row) for row in records} == {FORMAT[path.parent.name]}
    assert all(trace.problem and (trace.thinking or trace.response) for trace in traces)
    assert len({trace.id for trace in traces}) == len(traces)
    assert [read_row(json.loads(json_line(trace_row(trace))), "f:1") for trace in traces[:50]] == [
        [t] for t in traces[:50]
    ]


@needs_data
@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "steps"], ids=lambda path: path.stem)
def test_steps_and_labels_are_those_of_the_record(path):
    for row, trace in zip(rows(path), read_traces(path), strict=True):
        spans = [trace.response[step.start : step.stop] for step in trace.steps]
        assert "".join(spans) == trace.response
        assert [span.removesuffix("\n\n") for span in spans] == row["steps"]
        assert list(trace.step_labels) == (row["labels"] or [])
        assert trace.correct == row.get("final_correct", row.get("solution_correct"))


@needs_data
@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "traces"], ids=lambda path: path.stem)
def test_marked_text_splits_into_the_recorded_parts(path):
    for row in rows(path):
        closed = bool(row["response"])
        text = f"<think>\n{row['thinking']}\n" + (f"</think>\n\n{row['response']}" if closed else "")
        (trace,) = read_row({"problem": row["problem"], "response": text}, "f:1", "think")
        assert (trace.thinking, trace.response) == (row["thinking"].strip(), row["response"].strip())
        assert trace.thinking_closed == closed
