"""POST /score: the records of the offline engine, in order, whatever comes in."""

import json
import math

import pytest
from serving_parts import error_of, live, row

from reasonflux_prm.records import Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.serving.limits import ServiceLimits
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.write import scored_of, scored_row


def trace(number):
    return Trace(**row(number))


def assert_same(rows, expected):
    """Compare rows with scored traces; numbers to 1e-6, all else exactly."""
    assert len(rows) == len(expected)
    for got, wanted in zip(rows, map(scored_row, expected), strict=True):
        assert [step.pop("reward") for step in got["steps"]] == pytest.approx(
            [step.pop("reward") for step in wanted["steps"]], abs=1e-6
        )
        for name in ("reward", "trajectory_reward"):
            assert got.pop(name) == pytest.approx(wanted.pop(name), abs=1e-6)
        assert got == json.loads(json.dumps(wanted))


def test_records_are_those_of_the_engine_and_of_files(served, engine):
    traces = [trace(number) for number in range(20)]
    answer = served.post("/score", {"traces": [row(number) for number in range(20)]}).json()
    expected = list(engine.score(traces))
    read_back = [scored_of(Row("answer", line, one)) for line, one in enumerate(answer["scored"], 1)]
    assert [scored.trace for scored in read_back] == traces
    assert answer["rejects"] == []
    assert answer["usage"] == {"traces": 20, "tokens": sum(scored.tokens for scored in expected)}
    assert_same(answer["scored"], expected)


def test_one_record_need_not_stand_in_a_list(served):
    one, listed = (served.post("/score", {"traces": traces}).json() for traces in (row(1), [row(1)]))
    assert one == listed


@pytest.mark.parametrize(
    ("record", "thinking", "response"),
    [
        ({"problem": "p", "response": "<think>a</think>b"}, "a", "b"),
        ({"question": "p", "thinking_trajectories": ["a"], "attempt": "b"}, "a", "b"),
        (
            {
                "messages": [
                    {"role": "user", "content": "p"},
                    {"role": "assistant", "content": "b", "reasoning_content": "a"},
                ]
            },
            "a",
            "b",
        ),
        ({"prompt": "p", "completions": ["a", "b"], "labels": [True, False]}, "", "a\n\nb"),
    ],
)
def test_any_format_is_read(served, record, thinking, response):
    scored = served.post("/score", {"traces": record}).json()["scored"][0]
    assert scored["status"] == "scored"
    assert (scored["problem"], scored["thinking"]) == ("p", thinking)
    assert scored["response"].split() == response.split()


def test_several_traces_in_one_record(served):
    record = {"id": "x", "problem": "p", "candidates": [{"text": "one"}, {"text": "two"}]}
    scored = served.post("/score", {"traces": [record, row(3)]}).json()["scored"]
    assert [one["response"] for one in scored] == ["one", "two", "33"]


def test_a_bad_record_is_set_aside_and_the_rest_goes_on(served):
    answer = served.post("/score", {"traces": [row(1), {"text": 3}, row(2, thinking="", response=" "), row(4)]}).json()
    assert [(one["id"], one["status"]) for one in answer["scored"]] == [
        ("t1", "scored"),
        ("t2", "no-steps"),
        ("t4", "scored"),
    ]
    assert answer["scored"][1]["reward"] is None
    assert answer["scored"][1]["note"]
    assert [one["index"] for one in answer["rejects"]] == [1]
    assert "expected a problem" in answer["rejects"][0]["reason"]


def test_no_traces_give_no_records(served):
    assert served.post("/score", {"traces": []}).json()["scored"] == []


def test_options_of_a_request(served, prm):
    options = {"alpha": 0.25, "aggregation": "min", "steps": "sentence", "overflow": "refuse"}
    answer = served.post("/score", {"traces": [row(number) for number in range(5)], **options}).json()
    expected = list(Engine(prm, EngineSettings(**options)).score([trace(number) for number in range(5)]))
    assert_same(answer["scored"], expected)
    assert answer["scored"][0]["prm"]["aggregation"] == "min"
    assert answer["scored"][0]["prm"]["alpha"] == 0.25


def test_requests_with_different_options_share_packs(served, prm):
    """What is mixed in one pass must not mix what comes out."""
    answers = {
        alpha: served.post("/score", {"traces": row(7), "alpha": alpha}).json()["scored"][0]["reward"]
        for alpha in (0.0, 1.0, 2.0)
    }
    assert math.isclose(answers[2.0] - answers[1.0], answers[1.0] - answers[0.0], abs_tol=1e-6)


def test_without_echo_the_trace_stays_out(served):
    scored = served.post("/score", {"traces": row(1), "echo": False}).json()["scored"][0]
    assert list(scored) == [
        "id",
        "status",
        "steps",
        "trajectory_reward",
        "reward",
        "prm",
        "tokens",
        "overflow",
        "note",
    ]


LONG = row(0, thinking="\n\n".join(f"Then {number} is the next one, and so on." for number in range(110)))


@pytest.mark.parametrize(
    ("overflow", "status"),
    [("window", "scored"), ("head", "scored"), ("tail", "scored"), ("refuse", "too-long")],
)
def test_ten_times_the_context(short_prm, overflow, status):
    expected = list(Engine(short_prm, EngineSettings(overflow=overflow)).score([Trace(**LONG)]))
    assert len(short_prm.encode(Engine(short_prm).prepare(Trace(**LONG)).segmented)) > 10 * 128
    with live(short_prm) as short:
        scored = short.post("/score", {"traces": LONG, "overflow": overflow}).json()["scored"][0]
    assert scored["status"] == status
    assert (scored["overflow"] is None) == (status == "too-long")
    assert_same([scored], expected)


def test_more_tokens_than_the_queue_ever_takes(prm):
    with live(prm, limits=ServiceLimits(queue_tokens=1000)) as small:
        reply = small.post("/score", {"traces": LONG})
        assert reply.status_code == 413
        assert "does not fit into a queue of 1,024 traces and 1,000 tokens" in error_of(reply)
        assert small.post("/score", {"traces": [row(1)]}).status_code == 200
        assert (small.service.room.traces, small.service.room.tokens) == (0, 0)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "invalid JSON"),
        (b"[1]", 400, "got an array"),
        (b"\xff", 400, "expected UTF-8"),
        (b'{"traces": {"problem": "\\ud800"}}', 400, "half a surrogate pair"),
        (b'{"traces": [], "alpha": NaN}', 400, "NaN"),
        (b'{"traces": [], "alpha": 1e999}', 400, "1e999"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"traces": [], "alpha": ' + b"9" * 5000 + b"}", 400, "out of range"),
        (b"", 422, "the body"),
        (b"{}", 422, "traces: field required"),
        (b'{"traces": 3}', 422, "traces"),
        (b'{"traces": [3]}', 422, "traces"),
        (b'{"traces": [], "trace": 1}', 422, "trace: extra inputs"),
        (b'{"traces": [], "aggregation": "median"}', 422, "aggregation"),
        (b'{"traces": [], "steps": "words"}', 422, "steps"),
        (b'{"traces": [], "overflow": "cut"}', 422, "overflow"),
        (b'{"traces": [], "overlap": 1}', 422, "overlap"),
        (b'{"traces": [], "overlap": false}', 422, "overlap"),
        (b'{"traces": [], "alpha": "1"}', 422, "alpha"),
        (b'{"traces": [], "echo": 1}', 422, "echo"),
    ],
)
def test_what_is_no_request(served, body, status, says):
    reply = served.post("/score", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status
    assert says in error_of(reply)


def test_paths_that_are_not_there(served):
    for reply in (served.get("/"), served.get("/score"), served.post("/nothing", {})):
        assert reply.status_code in (404, 405)
        assert "GET /openapi.json" in error_of(reply)
