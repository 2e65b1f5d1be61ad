"""Trees of a policy's own samples: the labels of steps and trajectories, and which samples make a tree."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from reasonflux_prm.records import Trace

pytest.importorskip("transformers")
from recipes.prm_first import sampled

REFERENCE = Trace(
    "p", "How many?", "He has 2*3 = 6 apples.\nHe eats 1, so 6-1 = 5 are left.", "The answer is \\boxed{5}.", answer="5"
)
SOLUTION = "He has 2*3 = <<2*3=6>>6 apples.\nHe eats 1, so 6-1 = <<6-1=5>>5 are left.\n#### 5"


def a_sample(thinking, answer, correct):
    return Trace(
        "s", "How many?", thinking, f"The answer is \\boxed{{{answer}}}.", answer="5", group="p", correct=correct
    )


def test_values_stand_behind_equals_signs():
    assert sampled.values("1+1 = $2, so 3*1,000=3,000. And x=4.5 == y") == [2, 3000, Fraction(9, 2)]
    assert sampled.values("no sum, 7 alone") == []


def test_a_thinking_step_is_right_up_to_the_first_value_that_the_reference_has_not():
    thinking = "He has 2*3 = 6 apples.\n\nHe eats 6/2 = 4 of them.\n\nSo 6-1 = 5 are left."
    found = sampled.branch(a_sample(thinking, 5, True), {6, 5})
    assert found["steps"][-1] == "The answer is \\boxed{5}."
    assert "".join(found["steps"][:-1]) == thinking
    wrong = next(number for number, text in enumerate(found["steps"]) if "= 4" in text)
    assert found["labels"] == [*([1.0] * wrong), *([0.0] * (len(found["steps"]) - 1 - wrong)), 1.0]
    assert (found["response"], found["label"], found["complete"]) == (len(found["steps"]) - 1, 1, True)


def test_a_sample_without_thinking_or_response_is_no_branch():
    assert sampled.branch(a_sample("", 5, True), {5}) is None
    assert sampled.branch(replace(a_sample("2*3 = 6", 5, True), response=""), {5}) is None


def test_a_tree_needs_samples_that_are_right_and_wrong():
    right, wrong = a_sample("2*3 = 6\n6-1 = 5", 5, True), a_sample("2+3 = 5\n5-1 = 4", 4, False)
    assert sampled.tree(REFERENCE, SOLUTION, [right, right]) is None
    found = sampled.tree(REFERENCE, SOLUTION, [right, wrong, wrong])
    assert [branch["label"] for branch in found["branches"]] == [1, 0]
    assert found["final"] == REFERENCE.response
    assert "".join(found["gold"]) == REFERENCE.thinking
