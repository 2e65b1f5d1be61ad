"""`label` against a real OpenAI-compatible server with a real small model: `transformers serve` and SmolLM2.

The model is no judge, and hardly a solver. What is seen is that every trace gets its labels or a reason, whatever a
real model writes, and that nothing is asked twice.
"""

from __future__ import annotations

import pytest
from cli_inputs import write_rows

from reasonflux_prm.labels.files import read_labelled
from reasonflux_prm.records import LabelStatus
from reasonflux_prm.traces.manifest import read_manifest
from tests.policy.serve_host import sampling_base, serving

# A request takes two seconds, and on a machine that others share a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROWS = [
    {"id": "right", "problem": "What is 2 + 3?", "thinking": "2 + 3 = 5.", "response": "The answer is 5."},
    {"id": "wrong", "problem": "What is 2 + 3?", "response": "The answer is 6."},
    {"id": "empty", "problem": "What is 2 + 3?", "thinking": " ", "response": ""},
]
LIMITS = ("--concurrency", 2, "--timeout", 900, "--grader", "numeric", "--alignment", "none", "--no-coherence")


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    base = sampling_base(tmp_path_factory.mktemp("served") / "base")
    with serving(base, tmp_path_factory.mktemp("serve") / "log") as url:
        yield f"{base}@{url}"


@pytest.fixture
def traces(tmp_path):
    return write_rows(tmp_path / "traces.jsonl", [{**row, "answer": "5"} for row in ROWS])


@pytest.mark.parametrize("way", ["llm", "rollout", "template"])
def test_every_trace_is_labelled_or_has_a_reason_and_nothing_is_asked_again(run, traces, tmp_path, spec, way):
    attempts = ("--solver", spec, "--attempts", 2, "--max-tokens", 24, "--judge-max-tokens", 40)
    ways = {
        "llm": ("--quality", "llm", "--judge", spec, "--judge-max-tokens", 40),
        "rollout": ("--quality", "rollout", "--solver", spec, "--rollouts", 2, "--max-tokens", 16),
        "template": ("--trajectory", "template", *attempts),
    }
    flags = (*ways[way], "--cache", tmp_path / "completions.sqlite", *LIMITS)
    code, _, err = run("label", traces, "-o", "labels.jsonl", *flags)
    assert code == 1, err
    right, wrong, empty = read_labelled(tmp_path / "labels.jsonl")
    assert [record.trace.id for record in (right, wrong, empty)] == ["right", "wrong", "empty"]
    assert (empty.status, empty.note) == (LabelStatus.NO_STEPS, "neither thinking nor response holds any text")
    for record in (right, wrong):
        # Graded without a policy, or by what the policy does with a template.
        assert record.status in (LabelStatus.LABELLED, LabelStatus.NO_TARGET)
        assert len(record.steps) == (2 if record is right else 1)
        for term in (*(terms["quality"] for terms in record.step_terms), record.trajectory_terms["trajectory"]):
            assert 0 <= term.value <= 1 if term.value is not None else term.reason
    if way == "rollout":
        assert {terms["quality"].value for record in (right, wrong) for terms in record.step_terms} <= {0.0, 0.5, 1.0}
    cost = read_manifest(tmp_path / "labels.jsonl").details["cost"]
    assert cost["requests"] >= 3
    assert not cost.get("failed")

    assert run("label", traces, "-o", "labels.jsonl", *flags)[2].startswith("labels.jsonl was complete")
    run("label", traces, "-o", "again.jsonl", *flags)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "labels.jsonl").read_bytes()
    assert read_manifest(tmp_path / "again.jsonl").details["cost"].get("requests", 0) == 0
