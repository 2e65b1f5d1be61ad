import pytest

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Step
from reasonflux_prm.traces.formats import FORMATS, detect, read_row

OPENTHOUGHTS = "<|begin_of_thought|>\n\nA\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nB\n\n<|end_of_solution|>"
CHANNELS = "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B<|return|>"
TURNS = [
    {"thought": "look", "code": "1+1", "observation": "2"},
    {"thought": "done", "action": {"name": "stop"}, "seconds": 3},
]
EXAMPLES = {
    "native": {"id": "x", "problem": "P", "thinking": "A", "response": "B"},
    "candidates": {"problem": "P", "candidates": [{"text": "B"}]},
    "prm800k": {
        "question": {"problem": "P"},
        "label": {"steps": [{"completions": [{"text": "s", "rating": 1}], "chosen_completion": 0}]},
    },
    "math-shepherd": {"input": "P? Step 1: s ки", "label": "P? Step 1: s +", "task": "GSM8K"},
    "trl": {"prompt": "P", "completions": ["s"], "labels": [True]},
    "agent": {"problem": "P", "trajectory": TURNS},
    "steps": {"problem": "P", "steps": ["s", "t"], "labels": [1, 0]},
    "openr1": {"problem": "P", "generations": ["<think>A</think>B"]},
    "s1k": {"question": "P", "thinking_trajectories": ["A"], "attempt": "B"},
    "messages": {"messages": [{"role": "user", "content": "P"}, {"role": "assistant", "content": "B"}]},
    "openthoughts": {"problem": "P", "response": OPENTHOUGHTS},
    "gpt-oss": {"problem": "P", "response": CHANNELS},
    "think": {"problem": "P", "response": "<think>A</think>B"},
    "plain": {"question": "P", "output": "B"},
}


def read_one(row, format="auto"):
    (trace,) = read_row(row, "f:1", format)
    return trace


def test_every_format_has_an_example():
    assert list(EXAMPLES) == list(FORMATS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_format_is_detected_and_can_be_named(name):
    row = EXAMPLES[name]
    assert detect(row) == name
    assert read_row(row, "f:1") == read_row(row, "f:1", name)
    assert all(trace.problem.startswith("P") for trace in read_row(row, "f:1"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_named_format_that_does_not_fit_says_why(name):
    with pytest.raises(InputError, match="expected"):
        read_row({"n": 1}, "f:1", name)


def test_nothing_fits():
    with pytest.raises(InputError, match=r"the record has problem \(text\), answer \(text\)\. .*--map.*--format"):
        read_row({"problem": "P", "answer": "4"}, "f:1")


class TestIdentity:
    @pytest.mark.parametrize("column", ["id", "uuid", "_id", "unique_id", "question_id", "problem_id"])
    def test_id_columns(self, column):
        trace = read_one({"problem": "P", "response": "B", column: 7})
        assert trace.id == "7"
        assert trace.meta == {}

    def test_the_first_id_counts_and_the_other_survives(self):
        trace = read_one({"problem": "P", "response": "B", "uuid": "u", "id": "i"})
        assert (trace.id, trace.meta) == ("i", {"uuid": "u"})

    @pytest.mark.parametrize("value", [None, "", {"a": 1}, True, 1.5])
    def test_no_usable_id(self, value):
        trace = read_one({"problem": "P", "response": "B", "id": value})
        assert (trace.id, trace.meta) == ("f:1", {"id": value})

    def test_columns_of_other_names(self):
        row = {"problem": "P", "response": "B", "model": "m", "is_correct": 1, "ground_truth": 42, "source": "s"}
        trace = read_one(row | {"group": "g", "level": 3})
        assert (trace.policy, trace.correct, trace.answer, trace.source, trace.group) == ("m", True, "42", "s", "g")
        assert trace.meta == {"level": 3}

    def test_values_of_an_unknown_kind_survive(self):
        odd = {"correct": "yes", "answer": ["1", "2"], "model": {"name": "m"}, "source": True}
        trace = read_one({"problem": "P", "response": "B", **odd})
        assert (trace.correct, trace.answer, trace.policy, trace.source) == (None, None, None, None)
        assert trace.meta == odd


class TestNative:
    def test_marks_are_text(self):
        trace = read_one({"problem": "P", "thinking": "", "response": "<think>A</think>B"})
        assert (trace.thinking, trace.response) == ("", "<think>A</think>B")

    def test_truncated_thinking_is_open(self):
        row = {"problem": "P", "thinking": "A", "response": "", "truncated": True}
        assert not read_one(row).thinking_closed
        assert read_one(row | {"response": "B"}).thinking_closed
        assert read_one(row | {"thinking_closed": True}).thinking_closed

    def test_steps_as_spans(self):
        spans = [{"part": "thinking", "start": 0, "stop": 1}, {"part": "response", "start": 0, "stop": 1}]
        row = {"problem": "P", "thinking": "A", "response": "B"}
        trace = read_one(row | {"steps": spans, "step_labels": [True, None]})
        assert trace.steps == (Step("thinking", 0, 1), Step("response", 0, 1))
        assert trace.step_labels == (1.0, None)
        assert read_one(row | {"given_steps": spans}).steps == trace.steps

    @pytest.mark.parametrize(
        "span",
        [
            {"part": "thought", "start": 0, "stop": 1},
            {"part": ["thinking"], "start": 0, "stop": 1},
            {"part": "thinking", "start": 0, "stop": 2},
            {"part": "thinking", "start": 1, "stop": 0},
            {"part": "thinking", "start": -1, "stop": 1},
            {"part": "thinking", "start": 0.0, "stop": 1},
            {"part": "thinking", "start": 0, "stop": True},
            "thinking",
        ],
    )
    def test_bad_spans(self, span):
        with pytest.raises(InputError, match="`given_steps` 0"):
            read_one({"problem": "P", "thinking": "A", "response": "B", "given_steps": [span]})

    @pytest.mark.parametrize(("first", "second"), [("response", "thinking"), ("thinking", "thinking")])
    def test_spans_out_of_order(self, first, second):
        spans = [{"part": part, "start": 0, "stop": 1} for part in (first, second)]
        with pytest.raises(InputError, match="`given_steps` 1 to begin after"):
            read_one({"problem": "P", "thinking": "A", "response": "B", "given_steps": spans})

    def test_meta_that_is_not_ours_stays_one_column(self):
        row = {"problem": "P", "thinking": "A", "response": "B"}
        assert read_one(row | {"meta": "m"}).meta == {"meta": "m"}
        assert read_one(row | {"meta": {"k": 1}, "k": 2}).meta == {"k": 2, "meta": {"k": 1}}
        assert read_one(row | {"meta": {"k": 1}}).meta == {"k": 1}

    def test_columns_of_the_users_that_are_called_like_ours_survive(self):
        row = {"problem": "P", "thinking": "A", "response": "B", "reward": 0.5, "tokens": 3, "status": "ok"}
        assert read_one(row).meta == {"reward": 0.5, "tokens": 3, "status": "ok"}

    def test_label_rows_give_their_trace(self):
        row = {"id": "x", "status": "labelled", "steps": [], "trajectory": {}, "formula": "bounded"}
        trace = read_one(row | {"problem": "P", "thinking": "A", "response": "B"})
        assert (trace.id, trace.meta) == ("x", {})


class TestPlain:
    @pytest.mark.parametrize("column", ["problem", "question", "prompt", "instruction", "query", "input"])
    def test_problem_columns(self, column):
        assert read_one({column: "P", "response": "B"}).problem == "P"

    @pytest.mark.parametrize("column", ["response", "completion", "output", "generation", "text"])
    def test_response_columns(self, column):
        assert read_one({"problem": "P", column: "B"}).response == "B"

    def test_alpaca(self):
        assert read_one({"instruction": "I", "input": "X", "output": "B"}).problem == "I\n\nX"
        assert read_one({"instruction": "I", "input": "", "output": "B"}).problem == "I"

    def test_thinking_apart(self):
        trace = read_one({"question": "P", "reasoning_content": "A", "completion": "<think> is a tag"})
        assert (trace.thinking, trace.response) == ("A", "<think> is a tag")

    def test_thinking_without_response_and_the_reverse(self):
        trace = read_one({"problem": "P", "reasoning": "A", "answer": "4"})
        assert (trace.thinking, trace.response, trace.answer) == ("A", "", "4")
        trace = read_one({"problem": "P", "thinking": None, "response": "B"})
        assert (trace.thinking, trace.response, trace.meta) == ("", "B", {})

    def test_neither_text_is_a_trace_with_no_steps(self):
        trace = read_one({"problem": "P", "response": ""})
        assert (trace.thinking, trace.response) == ("", "")

    @pytest.mark.parametrize("row", [{"problem": "P", "answer": "B"}, {"question": "P", "solution": "B"}])
    def test_references_are_never_guessed_to_be_responses(self, row):
        with pytest.raises(InputError):
            read_row(row, "f:1")

    def test_no_problem(self):
        with pytest.raises(InputError, match=r"expected a problem as text.*--map problem=COLUMN"):
            read_row({"response": "B"}, "f:1")


class TestMarkedText:
    @pytest.mark.parametrize("column", ["response", "completion", "output", "generation", "text", "answer", "solution"])
    def test_think_columns(self, column):
        trace = read_one({"problem": "P", column: "<think>A</think>B"})
        assert (trace.thinking, trace.response, trace.answer) == ("A", "B", None)

    def test_unfinished(self):
        trace = read_one({"problem": "P", "response": "<think>A"})
        assert (trace.thinking, trace.response, trace.thinking_closed) == ("A", "", False)

    def test_named_think_takes_a_text_without_tags_for_unfinished_thinking(self):
        row = {"problem": "P", "response": "A"}
        assert read_one(row).response == "A"
        trace = read_one(row, "think")
        assert (trace.thinking, trace.response, trace.thinking_closed) == ("A", "", False)

    def test_thinking_apart_and_marks_cannot_both_be(self):
        with pytest.raises(InputError, match="another column has it"):
            read_row({"problem": "P", "reasoning": "A", "response": "<think>A</think>B"}, "f:1", "think")

    def test_openthoughts_conversations(self):
        turns = [{"from": "user", "value": "P"}, {"from": "assistant", "value": OPENTHOUGHTS}]
        row = {"system": "S", "conversations": turns}
        for name in ("auto", "openthoughts"):
            trace = read_one(row, name)
            assert (trace.problem, trace.thinking, trace.response) == ("P", "A", "B")
            assert trace.meta == {"system": "S"}
        with pytest.raises(InputError, match="expected marks"):
            read_row(row, "f:1", "gpt-oss")

    def test_openthoughts_metadata_subset(self):
        row = {"problem": "P", "deepseek_reasoning": "A", "deepseek_solution": "B", "ground_truth_solution": "G"}
        trace = read_one(row)
        assert (trace.thinking, trace.response, trace.meta) == ("A", "B", {"ground_truth_solution": "G"})

    def test_gpt_oss_transcript(self):
        text = "<|start|>system<|message|>S<|end|><|start|>user<|message|>P<|end|><|start|>assistant" + CHANNELS
        trace = read_one({"text": text})
        assert (trace.problem, trace.thinking, trace.response) == ("P", "A", "B")
        assert trace.meta == {"text": text}
        again = read_one({"text": f"{text}<|start|>user<|message|>Q<|end|><|start|>assistant{CHANNELS}"})
        assert again.problem == "User: P\n\nAssistant: B\n\nUser: Q"
        assert (again.thinking, again.response) == ("A", "B")


class TestMessages:
    def test_reasoning_content(self):
        for field in ("reasoning_content", "reasoning", "thinking"):
            assistant = {"role": "assistant", "content": "B", field: "A"}
            trace = read_one({"messages": [{"role": "user", "content": "P"}, assistant]})
            assert (trace.problem, trace.thinking, trace.response, trace.meta) == ("P", "A", "B", {})

    def test_content_parts(self):
        user = {"role": "user", "content": [{"type": "text", "text": "P"}]}
        parts = [{"type": "thinking", "thinking": "A"}, {"type": "text", "text": "B"}]
        trace = read_one({"messages": [user, {"role": "assistant", "content": parts}]})
        assert (trace.problem, trace.thinking, trace.response) == ("P", "A", "B")

    @pytest.mark.parametrize("text", ["<think>A</think>B", CHANNELS, OPENTHOUGHTS])
    def test_marks_in_the_content(self, text):
        trace = read_one({"conversations": [{"from": "human", "value": "P"}, {"from": "gpt", "value": text}]})
        assert (trace.problem, trace.thinking, trace.response) == ("P", "A", "B")

    def test_several_turns_and_a_system_message(self):
        messages = [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "P"},
            {"role": "assistant", "content": "<think>x</think>B1"},
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": "<think>A</think>B"},
        ]
        trace = read_one({"messages": messages})
        assert trace.problem == "User: P\n\nAssistant: <think>x</think>B1\n\nUser: Q"
        assert (trace.thinking, trace.response) == ("A", "B")
        assert trace.meta == {"messages": messages}

    def test_a_problem_column_is_preferred_to_its_wording_in_the_chat(self):
        messages = [{"role": "user", "content": "Box it. P"}, {"role": "assistant", "content": "B"}]
        trace = read_one({"problem": "P", "messages": messages})
        assert (trace.problem, trace.meta) == ("P", {"messages": messages})

    def test_of_two_chats_the_one_with_thinking_is_read(self):
        human = [{"role": "user", "content": "P"}, {"role": "assistant", "content": "reference"}]
        policy = [{"from": "user", "value": "P"}, {"from": "assistant", "value": "<think>A</think>B"}]
        assert read_one({"messages": human, "conversations": policy}).thinking == "A"

    @pytest.mark.parametrize(
        "completion", ["<think>A</think>B", [{"role": "assistant", "content": "<think>A</think>B"}]]
    )
    def test_conversational_prompt(self, completion):
        trace = read_one({"prompt": [{"role": "user", "content": "P"}], "completion": completion})
        assert (trace.problem, trace.thinking, trace.response, trace.meta) == ("P", "A", "B", {})

    def test_cut_off(self):
        messages = [{"role": "user", "content": "P"}, {"role": "assistant", "content": None, "reasoning_content": "A"}]
        assert not read_one({"messages": messages, "finish_reason": "length"}).thinking_closed

    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            ([{"role": "user", "content": "P"}], "got the roles user"),
            ([{"role": "assistant", "content": "B"}], "got the roles assistant"),
            (
                [{"role": "assistant", "content": "B"}, {"role": "user", "content": "P"}],
                "got the roles assistant, user",
            ),
            ([{"role": "system", "content": "S"}, {"role": "assistant", "content": "B"}], "got none"),
            ([{"role": "user", "content": 1}, {"role": "assistant", "content": "B"}], "content of message 0"),
        ],
    )
    def test_bad_chats(self, messages, reason):
        with pytest.raises(InputError, match=reason):
            read_row({"messages": messages}, "f:1")


class TestSamples:
    def test_candidates(self):
        row = {
            "id": "p",
            "problem": "P",
            "answer": "4",
            "level": 2,
            "candidates": [
                {"text": "B", "correct": True, "model": "m", "pred": "4"},
                {"thinking": "A", "response": "B", "level": 9, "id": "own"},
                "<think>A</think>B",
            ],
        }
        first, second, third = read_row(row, "f:1")
        assert [t.id for t in (first, second, third)] == ["p#0", "p#1", "p#2"]
        assert {t.group for t in (first, second, third)} == {"p"}
        assert {t.answer for t in (first, second, third)} == {"4"}
        assert (first.thinking, first.response, first.correct, first.policy) == ("", "B", True, "m")
        assert first.meta == {"level": 2, "pred": "4"}
        assert second.meta == {"level": 2, "candidate": {"level": 9, "id": "own"}}
        assert (third.thinking, third.response) == ("A", "B")

    @pytest.mark.parametrize(
        ("candidates", "reason"),
        [([], "at least one entry"), ([1], "candidate 0"), (["B", {"score": 1}], "candidate 1")],
    )
    def test_bad_candidates(self, candidates, reason):
        with pytest.raises(InputError, match=reason):
            read_row({"problem": "P", "candidates": candidates}, "f:1")

    def test_openr1(self):
        row = {
            "uuid": "u",
            "problem": "P",
            "solution": "S",
            "answer": "4",
            "generations": ["<think>A</think>B", "<think>A"],
            "correctness_math_verify": [True, None],
            "correctness_llama": [None, False],
            "is_reasoning_complete": [True, False],
            "finish_reasons": None,
            "messages": [{"role": "user", "content": "P"}, {"role": "assistant", "content": "<think>A</think>B"}],
        }
        first, second = read_row(row, "f:1")
        assert (first.id, second.id, first.group, second.group) == ("u#0", "u#1", "u", "u")
        assert (first.thinking, first.response, first.correct) == ("A", "B", True)
        assert (second.thinking, second.response, second.thinking_closed, second.correct) == ("A", "", False, False)
        assert first.answer == "4"
        assert first.meta["solution"] == "S"
        assert (first.meta["is_reasoning_complete"], second.meta["is_reasoning_complete"]) == (True, False)
        assert "messages" not in first.meta

    def test_s1k(self):
        row = {"question": "P", "solution": "4", "cot": None, "thinking_trajectories": ["A", "C"], "attempt": "B"}
        trace = read_one(row)
        assert (trace.problem, trace.thinking, trace.response, trace.answer) == ("P", "A\nC", "B", "4")
        assert trace.meta == {"cot": None}

    def test_s1k_with_two_policies(self):
        row = {
            "question": "P",
            "solution": "4",
            "deepseek_thinking_trajectory": "A",
            "deepseek_attempt": "B",
            "deepseek_grade": "Yes",
            "deepseek_grade_reason": "right",
            "gemini_thinking_trajectory": "C",
            "gemini_attempt": "D",
            "gemini_grade": "No",
        }
        deepseek, gemini = read_row(row, "f:1")
        assert (deepseek.id, deepseek.group, deepseek.policy) == ("f:1#deepseek", "f:1", "deepseek")
        assert (deepseek.thinking, deepseek.response, deepseek.correct) == ("A", "B", True)
        assert deepseek.meta == {"deepseek_grade": "Yes", "deepseek_grade_reason": "right"}
        assert (gemini.thinking, gemini.response, gemini.correct) == ("C", "D", False)
