"""Targets sit where scoring reads: in every layout, with masks, in windows, and with nothing cut in silence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from training_tiny import config, label_rows, labelled, trl_rows, write_rows

from reasonflux_prm.errors import ContextError
from reasonflux_prm.prm.encoding import TRAJECTORY
from reasonflux_prm.training.examples import encode
from reasonflux_prm.training.model import open_base
from reasonflux_prm.training.run import prepare


@pytest.fixture
def prm_input(bases, tmp_path):
    def make(**changes):
        settings = config(tmp_path / "x", tmp_path / "out", bases["qwen2"], **changes)
        return open_base(settings).input(settings.context), settings

    return make


def decoded(prm, example):
    """Return for each read the text of its piece, without the control token."""
    return [prm.tokenizer.decode(example.tokens[a : b - 1].tolist()) for a, b in example.spans]


@pytest.mark.parametrize("layout", ["causal", "response_first"])
def test_each_target_is_read_at_the_control_token_behind_its_own_text(prm_input, layout):
    prm, settings = prm_input(layout=layout)
    for label in labelled(12):
        (example,) = encode(label, 0, prm, settings).windows
        steps = example.steps.tolist()
        expected = [n for n, target in enumerate(label.targets) if target is not None]
        assert sorted(step for step in steps if step != TRAJECTORY) == expected
        for step, read, target, text in zip(steps, example.reads, example.targets, decoded(prm, example), strict=True):
            token = int(example.tokens[read])
            if step == TRAJECTORY:
                assert token == prm.marker
                assert target == pytest.approx(label.trajectory_target)
            else:
                assert token == prm.separator
                own = label.steps[step]
                assert label.trace.text(own.part)[own.start : own.stop].strip() in text
                assert target == pytest.approx(label.targets[step])


def test_response_stands_before_the_thinking_where_the_layout_says_so(prm_input):
    label = next(label for label in labelled(5) if label.trajectory_target is not None)
    thinking = {n for n, step in enumerate(label.steps) if step.part == "thinking"}
    orders = {}
    for layout in ("causal", "response_first"):
        prm, settings = prm_input(layout=layout)
        steps = encode(label, 0, prm, settings).windows[0].steps.tolist()
        orders[layout] = ["t" if step in thinking else "r" for step in steps if step != TRAJECTORY]
    assert orders["causal"] == sorted(orders["causal"], reverse=True)
    assert orders["response_first"] == sorted(orders["response_first"])


def test_weights_are_those_of_the_printed_objective(prm_input):
    prm, settings = prm_input(lambda_step=2.0, lambda_final=3.0)
    label = next(label for label in labelled(9) if label.trajectory_target is not None)
    (example,) = encode(label, 0, prm, settings).windows
    number = sum(target is not None for target in label.targets)
    for step, weight in zip(example.steps, example.weights, strict=True):
        assert weight == pytest.approx(3.0 if step == TRAJECTORY else 2.0 / number)
    assert example.share == pytest.approx(1.0)


def test_weighting_by_step_counts_every_read_alike(prm_input):
    prm, settings = prm_input(weighting="step")
    (example,) = encode(labelled(2)[1], 0, prm, settings).windows
    assert set(example.weights.tolist()) == {1.0}
    assert example.share == len(example.reads)


def test_terms_without_weight_are_not_read(prm_input):
    label = labelled(2)[1]
    prm, settings = prm_input(lambda_final=0.0)
    assert TRAJECTORY not in encode(label, 0, prm, settings).windows[0].steps
    prm, settings = prm_input(lambda_step=0.0)
    assert encode(label, 0, prm, settings).windows[0].steps.tolist() == [TRAJECTORY]


def test_nothing_stands_behind_the_last_read(prm_input):
    prm, settings = prm_input()
    label = labelled(2)[1]
    label = replace(label, targets=(0.5, *[None] * (len(label.targets) - 1)), trajectory_target=None)
    (example,) = encode(label, 0, prm, settings).windows
    assert example.reads.tolist() == [len(example.tokens) - 1]


def test_a_long_trace_is_windowed_with_each_target_once(prm_input):
    prm, settings = prm_input(context=60)
    label = max(labelled(30), key=lambda label: len(label.steps))
    encoded = encode(label, 0, prm, settings)
    assert len(encoded.windows) > 1
    assert encoded.note is not None
    assert all(len(window) <= 60 for window in encoded.windows)
    found = [step for window in encoded.windows for step in window.steps.tolist()]
    wanted = [n for n, target in enumerate(label.targets) if target is not None]
    wanted += [TRAJECTORY] if label.trajectory_target is not None else []
    assert sorted(found) == sorted(wanted)
    assert sum(window.share for window in encoded.windows) == pytest.approx(1.0)


def test_a_long_trace_is_refused_where_that_was_asked_for(prm_input):
    prm, settings = prm_input(context=60, overflow="refuse")
    label = max(labelled(30), key=lambda label: len(label.steps))
    with pytest.raises(ContextError):
        encode(label, 0, prm, settings)


def test_refused_traces_are_counted(bases, tmp_path):
    path = write_rows(tmp_path / "labels.jsonl", label_rows(30))
    settings = config(path, tmp_path / "out", bases["qwen2"], context=60, overflow="refuse", dev_share=0.0)
    data = prepare(settings).data
    assert data.left_out["too-long"] == len(data.rejects) > 0
    assert data.train.traces + len(data.rejects) == 30
    assert "the PRM takes 60" in data.rejects[0].reason


def test_dev_and_train_share_no_problem_and_lose_no_trace(bases, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", trl_rows(80))
    data = prepare(config(path, tmp_path / "out", bases["qwen2"])).data
    assert data.train.groups
    assert data.dev.groups
    assert not data.train.groups & data.dev.groups
    assert data.train.traces + data.dev.traces == 80
    assert len(data.dev.kept) == data.dev.traces


FORMATS = {
    "prm800k": {
        "question": {"problem": "What is 1 + 1?", "ground_truth_answer": "2"},
        "label": {
            "steps": [
                {"completions": [{"text": "1 + 1 = 2", "rating": 1}], "chosen_completion": 0},
                {"completions": [{"text": "so 3", "rating": -1}], "chosen_completion": 0},
            ],
            "finish_reason": "found_error",
        },
    },
    "math-shepherd": {
        "input": "What is 1 + 1? Step 1: 1 + 1 = 2 ки\nStep 2: so 3 ки",
        "label": "What is 1 + 1? Step 1: 1 + 1 = 2 +\nStep 2: so 3 -",
        "task": "GSM8K",
    },
    "trl": {"prompt": "What is 1 + 1?", "completions": ["1 + 1 = 2", "so 3"], "labels": [True, False]},
    "processbench": {"problem": "What is 1 + 1?", "steps": ["1 + 1 = 2", "so 3"], "label": 1},
}


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_other_tools_are_read(bases, tmp_path, name):
    path = write_rows(tmp_path / "rows.jsonl", [FORMATS[name]])
    (example,) = prepare(config(path, tmp_path / "out", bases["qwen2"], dev_share=0.0)).data.train.examples
    assert example.steps.tolist() == [0, 1]
    assert example.targets.tolist() == [1.0, 0.0]


def test_recorded_verdicts_become_trajectory_targets_only_if_asked_for(bases, tmp_path):
    rows = [{**row, "correct": number % 2 == 0} for number, row in enumerate(trl_rows(8))]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    settings = config(path, tmp_path / "out", bases["qwen2"], dev_share=0.0)
    plain = prepare(settings)
    assert not plain.data.train.trajectory_targets
    assert plain.base.settings.marker is None
    asked = prepare(replace(settings, outcome_targets=True))
    assert asked.data.train.trajectory_targets == {1.0: 4, 0.0: 4}
    assert asked.base.settings.marker == "<extra_1>"
