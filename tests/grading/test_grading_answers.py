"""Final answers are found where they stand."""

import time

import pytest

from reasonflux_prm.grading.answers import final_answer, stated_answer
from reasonflux_prm.records import Trace


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"\boxed{1}, no, \boxed{2}", "2"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\fbox{7}", "7"),
        (r"the set \{ \boxed{4} \}", "4"),
        (r"#### 9, but \boxed{2}", "2"),
        (r"\boxed{2 and #### 5", None),
        (r"\boxed{5}. Let me write it down: \boxed{}", "5"),
        (r"\boxed{5} and then \boxed{ }", "5"),
        ("\\boxed{}\n#### 5", "5"),
        (r"either $\boxed{-1}$ or $\boxed{2}$.", "-1, 2"),
        (r"\boxed{1}, \boxed{2}, and \boxed{3}", "1, 2, 3"),
        (r"\boxed{7} \boxed{1} and \boxed{1}", "1"),
        (r"\boxed{1} so, by what was said above and by the lemma, also \boxed{2}", "2"),
        ("#### 12\n", "12"),
        ("#### 12\nmore\n#### 13 apples ", "13 apples"),
        ("<answer> 27 </answer>", "27"),
        ("<answer> 27 </answer> <answer> </answer>", "27"),
        ("The answer is 12. Then we stop.", "12"),
        ("the answer is 12.5.", "12.5"),
        ("Final Answer: $x=3$.", "$x=3$"),
        ("**Answer:** 42", "42"),
        ("The answer is\n\n 4", "4"),
        ("the answer is 3.0 bolts.", "3.0 bolts"),
        ("A: 250", "250"),
        ("A: 1\nB: 2\n**A:** 3\n", "3"),
        ("The answer is 1\nA: 2", "2"),
        ("We add.\n\n**Final Answer**\n\n$$w = 6 - 5i$$\n", "$$w = 6 - 5i$$"),
        ("## Answer\n12", "12"),
        ("**Note**: think\nThus, 196 has **9** divisors.", "9"),
        ("**Cost:**\nIn total $80 + $150 = **$230**", "$230"),
        ("**Breakdown:**", None),
        ("-128\n", "-128"),
        ("Father", "Father"),
        ("P ∨ R", "P ∨ R"),
        ("I give up.", None),
        ("3\n4", None),
        ("an answer issue", None),
        ("", None),
        (" \n\t", None),
        ("\\boxed{", None),
        ("\x00", "\x00"),
    ],
)
def test_where_an_answer_stands(text, answer):
    assert stated_answer(text) == answer


def test_the_thinking_has_the_say_only_without_a_response():
    assert final_answer(Trace("t", "p", thinking=r"\boxed{1}", response="A: 2")) == "2"
    assert final_answer(Trace("t", "p", thinking=r"\boxed{1}", response="I give up.")) is None
    assert final_answer(Trace("t", "p", thinking=r"\boxed{1}")) == "1"


@pytest.mark.parametrize(
    "unit",
    [
        " ",
        "\n",
        "*",
        "{",
        "}",
        r"\boxed{",
        r"\boxed{1}, ",
        r"\boxed{1} ",
        "<answer>",
        "answer is ",
        "answer:\n",
        "answer ",
        "**a",
        "**a** ",
        "#### ",
        "1 ",
        "a-",
        "$1",
    ],
)
def test_no_text_takes_long(unit):
    """Time grows with the length of the text, and not with its square."""
    text = "answer: " + unit * (4 * 10**5 // len(unit))
    started = time.perf_counter()
    stated_answer(text)
    stated_answer(unit * (4 * 10**5 // len(unit)))
    assert time.perf_counter() - started < 5
