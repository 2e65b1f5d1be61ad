import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.traces.marks import (
    SOLUTION_PAIR,
    THINK_PAIRS,
    THOUGHT_PAIR,
    Parts,
    split_channels,
    split_marks,
    split_think,
    split_thought,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>A</think>B", Parts("A", "B")),
        ("<think>\nA\n</think>\n\nB\n", Parts("A", "B")),
        ("A</think>B", Parts("A", "B")),
        ("<think>A", Parts("A", "", closed=False)),
        ("<think>\n\n</think>\n\nB", Parts("", "B")),
        ("<think>A</think>", Parts("A", "")),
        ("Sure. <think>A</think>B", Parts("Sure. A", "B")),
        # doubled opening tag: the template writes one, the policy another
        ("<think>\n<think>\nA</think>B", Parts("A", "B")),
        ("<think>A <think> B</think>C", Parts("A <think> B", "C")),
        # nested, repeated, interleaved
        ("<think>A<think>B</think>C</think>D", Parts("A<think>B</think>C", "D")),
        ("<think>A</think>B<think>C</think>D", Parts("A</think>B<think>C", "D")),
        ("A</think>B<think>C</think>D", Parts("A</think>B<think>C", "D")),
        # tags that the response only quotes
        ("<think>A</think>The tag </think> ends it", Parts("A", "The tag </think> ends it")),
        ("A</think>The tag </think> ends it", Parts("A", "The tag </think> ends it")),
        ("<think>A</think>Write <think> first", Parts("A", "Write <think> first")),
        ("[THINK]A[/THINK]B", Parts("A", "B")),
        ("<thinking>A</thinking>B", Parts("A", "B")),
        ("◁think▷A◁/think▷B", Parts("A", "B")),
    ],
)
def test_think_tags(text, parts):
    assert split_think(text) == parts
    assert split_marks(text) == parts


@pytest.mark.parametrize("text", ["", "no tags", "a < b think > c", "<|channel|> is a token", "analysis of the task"])
def test_text_without_marks_is_left_alone(text):
    assert split_marks(text) is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "<|begin_of_thought|>\n\nA\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nB\n\n<|end_of_solution|>",
            Parts("A", "B"),
        ),
        ("<|begin_of_thought|>A<|end_of_thought|>B", Parts("A", "B")),
        ("<|begin_of_thought|>A", Parts("A", "", closed=False)),
        ("<|begin_of_thought|>A<|begin_of_solution|>B", Parts("A", "B")),
        ("A<|begin_of_solution|>B<|end_of_solution|>", Parts("A", "B")),
        ("A<|end_of_thought|><|begin_of_solution|>B", Parts("A", "B")),
    ],
)
def test_openthoughts_marks(text, parts):
    assert split_thought(text) == parts
    assert split_marks(text) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B<|return|>",
            Parts("A", "B"),
        ),
        (
            "<|start|>assistant<|channel|>analysis<|message|>A<|end|>"
            "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
            "<|start|>functions.f to=assistant<|channel|>commentary<|message|>7<|end|>"
            "<|start|>assistant<|channel|>final<|message|>B",
            Parts("A\n\n{}\n\n7", "B"),
        ),
        ("<|channel|>analysis<|message|>A", Parts("A", "", closed=False)),
        ("<|channel|>analysis<|message|>A<|end|>", Parts("A", "")),
        ("<|channel|>final<|message|>B<|return|>", Parts("", "B")),
        ("x <|channel|>final<|message|>B", Parts("x", "B")),
        ("<|channel|>analysis<|message|>A<|channel|>final<|message|>B", Parts("A", "B")),
        ("analysisA.assistantfinalB", Parts("A.", "B")),
    ],
)
def test_channels(text, parts):
    assert split_channels(text) == parts
    assert split_marks(text) == parts


def _without(text, marks):
    for mark in marks:
        text = text.replace(mark, "")
    return re.sub(r"\s", "", text)


_words = st.text(alphabet="ab \n<>/", max_size=6)


@given(st.lists(st.one_of(_words, st.sampled_from(THINK_PAIRS[0])), max_size=12))
def test_think_tags_lose_no_text(pieces):
    text = "".join(pieces)
    parts = split_think(text)
    if parts is None:
        assert "<think>" not in text
        assert "</think>" not in text
        return
    assert _without(parts.thinking + parts.response, THINK_PAIRS[0]) == _without(text, THINK_PAIRS[0])
    assert parts.closed == ("</think>" in text) or parts.response == ""


_openthoughts = (*THOUGHT_PAIR, *SOLUTION_PAIR)


@given(st.lists(st.one_of(_words, st.sampled_from(_openthoughts)), max_size=12))
def test_openthoughts_marks_lose_no_text(pieces):
    text = "".join(pieces)
    parts = split_thought(text)
    if parts is not None:
        assert _without(parts.thinking + parts.response, _openthoughts) == _without(text, _openthoughts)


@given(
    st.lists(st.text(alphabet="ab \n", max_size=6), max_size=4),
    st.one_of(st.none(), st.text(alphabet="ab \n", max_size=6)),
)
def test_channels_lose_no_text(thoughts, final):
    text = "".join(f"<|start|>assistant<|channel|>analysis<|message|>{thought}<|end|>" for thought in thoughts)
    if final is not None:
        text += f"<|start|>assistant<|channel|>final<|message|>{final}<|return|>"
    if not text:
        return
    parts = split_channels(text)
    assert re.sub(r"\s", "", parts.thinking) == re.sub(r"\s", "", "".join(thoughts))
    assert parts.response == (final or "").strip()
    assert parts.closed
