import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import InputError
from reasonflux_prm.traces.formats import read_row
from reasonflux_prm.traces.step_lists import join_steps

TURNS = [
    {"thought": "look", "code": "1+1", "observation": "2"},
    {"thought": "done", "action": {"name": "stop"}, "seconds": 3},
]


def read_one(row, format="auto"):
    (trace,) = read_row(row, "f:1", format)
    return trace


def step_texts(trace):
    return [trace.text(step.part)[step.start : step.stop] for step in trace.steps]


class TestStepLists:
    def test_labels(self):
        trace = read_one({"problem": "P", "steps": ["a", "b", "c"], "labels": [1, 0.5, None]})
        assert trace.response == "a\n\nb\n\nc"
        assert step_texts(trace) == ["a\n\n", "b\n\n", "c"]
        assert trace.step_labels == (1.0, 0.5, None)

    @pytest.mark.parametrize("labels", [[1], [1, 2], [1, -1], [1, "good"], "11"])
    def test_bad_labels(self, labels):
        with pytest.raises(InputError, match="label"):
            read_row({"problem": "P", "steps": ["a", "b"], "labels": labels}, "f:1")

    @pytest.mark.parametrize(("label", "labels"), [(-1, (1.0, 1.0, 1.0)), (0, (0.0, None, None)), (2, (1.0, 1.0, 0.0))])
    def test_processbench(self, label, labels):
        row = {"id": "gsm8k-0", "generator": "m", "problem": "P", "steps": ["a", "b", "c"], "label": label}
        trace = read_one(row | {"final_answer_correct": False})
        assert (trace.step_labels, trace.policy, trace.correct, trace.meta) == (labels, "m", False, {})

    def test_processbench_out_of_range(self):
        with pytest.raises(InputError, match="one of the 1 steps, got 1"):
            read_row({"problem": "P", "steps": ["a"], "label": 1}, "f:1")

    def test_no_labels_and_no_steps(self):
        assert read_one({"problem": "P", "steps": ["a"], "labels": None}).step_labels == ()
        trace = read_one({"problem": "P", "steps": [], "labels": []})
        assert (trace.response, trace.steps) == ("", ())

    def test_trl(self):
        trace = read_one({"prompt": "P", "completions": ["a", "b"], "labels": [True, False]})
        assert (step_texts(trace), trace.step_labels) == (["a\n\n", "b"], (1.0, 0.0))

    def test_math_shepherd(self):
        text = "Is 1 - 1 + 2 = 2? Step 1: 1 - 1 = 0. {}\nStep 2: 0 + 2 = 2. The answer is: 2 {}"
        trace = read_one({"input": text.format("ки", "ки"), "label": text.format("+", "-"), "task": "GSM8K"})
        assert trace.problem == "Is 1 - 1 + 2 = 2?"
        assert step_texts(trace) == ["Step 1: 1 - 1 = 0.\n", "Step 2: 0 + 2 = 2. The answer is: 2"]
        assert (trace.step_labels, trace.meta) == ((1.0, 0.0), {"task": "GSM8K"})

    def test_math_shepherd_without_a_first_step(self):
        trace = read_one({"input": "How many? Two plus one. ки", "label": "How many? Two plus one. +"})
        assert (trace.problem, trace.response) == ("How many?", "Two plus one.")

    @pytest.mark.parametrize(
        ("input", "label"),
        [("P? Step 1: s ки", "P? Step 1: t +"), ("P? Step 1: s ки", "P? Step 1: s x"), ("s ки", "s +")],
    )
    def test_bad_math_shepherd(self, input, label):
        with pytest.raises(InputError, match="expected"):
            read_row({"input": input, "label": label}, "f:1")

    def test_prm800k(self):
        steps = [
            {"completions": [{"text": "a", "rating": 1}], "human_completion": None, "chosen_completion": 0},
            {"completions": [{"text": "x", "rating": -1}, {"text": "b", "rating": 0}], "chosen_completion": 1},
            {"completions": [], "human_completion": {"text": "c"}, "chosen_completion": None},
            {"completions": [{"text": "d", "rating": -1}], "human_completion": None, "chosen_completion": None},
        ]
        question = {"problem": "P", "ground_truth_answer": "4", "pre_generated_steps": ["a", "b", "c", "d", "e"]}
        row = {"labeler": "l", "question": question, "label": {"steps": steps, "finish_reason": "found_error"}}
        trace = read_one(row)
        assert step_texts(trace) == ["a\n\n", "b\n\n", "c\n\n", "d\n\n", "e"]
        assert trace.step_labels == (1.0, None, 1.0, 0.0, None)
        assert (trace.problem, trace.answer, trace.correct) == ("P", "4", None)
        assert trace.meta == {"labeler": "l", "question": {}, "label": {"finish_reason": "found_error"}}
        assert row["label"]["steps"] is steps

    def test_prm800k_that_left_the_generated_path(self):
        step = {"completions": [{"text": "z", "rating": 1}], "chosen_completion": 0}
        question = {"problem": "P", "pre_generated_steps": ["a", "b"]}
        trace = read_one({"question": question, "label": {"steps": [step], "finish_reason": "solution"}})
        assert (step_texts(trace), trace.correct) == (["z"], True)
        assert trace.meta["question"] == {"pre_generated_steps": ["a", "b"]}

    @pytest.mark.parametrize("step", [{"completions": []}, {"completions": [{"rating": 1}]}, "a"])
    def test_bad_prm800k(self, step):
        with pytest.raises(InputError, match="step 0"):
            read_row({"question": {"problem": "P"}, "label": {"steps": [step]}}, "f:1")


class TestAgents:
    def test_turns_are_steps_of_the_thinking(self):
        trace = read_one({"task_id": 1, "problem": "P", "trajectory": TURNS, "final_answer": "2", "answer": "3"})
        assert step_texts(trace) == [
            "Thought: look\nCode:\n1+1\nObservation: 2\n\n",
            'Thought: done\nAction: {"name": "stop"}',
        ]
        assert {step.part for step in trace.steps} == {"thinking"}
        assert (trace.response, trace.answer) == ("2", "3")
        assert trace.meta == {"task_id": 1, "trajectory": [{}, {"seconds": 3}]}
        assert TURNS[0]["thought"] == "look"

    @pytest.mark.parametrize("name", ["trajectory", "turns", "steps", "messages"])
    def test_containers_and_an_answer_in_the_last_turn(self, name):
        turns = [{"thought": "a", "observation": "b"}, {"final_answer": "2"}]
        trace = read_one({"question": "P", name: turns})
        assert (trace.thinking, trace.response, len(trace.steps)) == ("Thought: a\nObservation: b", "2", 1)
        assert trace.meta == {}


@given(st.lists(st.text(alphabet="ab\n", max_size=4), max_size=6))
def test_joined_steps_hold_every_step_in_its_span(texts):
    joined, stops = join_steps(texts)
    assert len(stops) == len(texts)
    spans = [joined[start:stop] for start, stop in zip((0, *stops), stops, strict=False)]
    assert "".join(spans) == joined
    assert [
        span.removesuffix("\n\n") if not text.endswith("\n") else span for span, text in zip(spans, texts, strict=True)
    ] == texts
    assert all(stop > start for start, stop in zip((0, *stops[:-1]), stops[:-1], strict=False))
