"""Final answers are found where they stand, and two writings of one answer are the same."""

from fractions import Fraction
from pathlib import Path

import pytest

from reasonflux_prm.evaluation.answers import answer_key, final_answer, same_answer, stated_answer
from reasonflux_prm.records import Trace
from reasonflux_prm.traces.read import read_traces

BON = Path(__file__).parents[2].parent / "shared" / "data" / "bon"


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
        ("\\boxed{}\n#### 5", "5"),
        ("#### 12\n", "12"),
        ("#### 12\nmore\n#### 13 apples ", "13 apples"),
        ("<answer> 27 </answer>", "27"),
        ("The answer is 12. Then we stop.", "12"),
        ("the answer is 12.5.", "12.5"),
        ("Final Answer: $x=3$.", "$x=3$"),
        ("**Answer:** 42", "42"),
        ("The answer is\n\n 4", "4"),
        ("the answer is 3.0 bolts.", "3.0 bolts"),
        ("A: 250", "250"),
        ("A: 1\nB: 2\n**A:** 3\n", "3"),
        ("The answer is 1\nA: 2", "2"),
        ("an answer issue", None),
        ("", None),
        ("\\boxed{", None),
    ],
)
def test_where_an_answer_stands(text, answer):
    assert stated_answer(text) == answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,200", "$1200.00$"),
        ("1{,}200", "1200"),
        (r"\dfrac{3}{6}", "0.5"),
        (r"\frac12", "1/2"),
        (r"-\frac{1}{2}", "-0.50"),
        ("x = 5", "5"),
        ("5.", "5"),
        ("18 dollars", r"\$18"),
        (r"6\text{ dollars}", "6"),
        ("50%", r"50\%"),
        (r"90^\circ", "90"),
        (r"\text{(B)}", "(b)"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        ("3.0 + 4i", "3+4i"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{\sqrt2}{2}"),
    ],
)
def test_the_same_answer(one, other):
    assert same_answer(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("5", "-5"), ("1.2", "12"), ("3 pm", "3 am"), ("2 pi", "2"), ("(1,2)", "(1,3)"), ("1/0", "0"), ("x", "5")],
)
def test_other_answers(one, other):
    assert not same_answer(one, other)


def test_keys_are_exact():
    assert answer_key("0.1") == Fraction(1, 10)
    long = "9" * 5000
    assert answer_key(long) == long


def test_the_thinking_has_the_say_only_without_a_response():
    assert final_answer(Trace("t", "p", thinking=r"\boxed{1}", response="A: 2")) == "2"
    assert final_answer(Trace("t", "p", thinking=r"\boxed{1}", response="I give up.")) is None
    assert final_answer(Trace("t", "p", thinking=r"\boxed{1}")) == "1"


@pytest.mark.parametrize(
    "text",
    ["answer:" + " " * 10**5, r"\boxed{" * 10**5, "{" * 10**5, "<answer>" * 10**5, "answer is " * 10**5, "\n" * 10**5],
    ids=["spaces", "boxes", "braces", "tags", "phrases", "lines"],
)
@pytest.mark.timeout(5)
def test_no_text_takes_long(text):
    stated_answer(text + "\n" + text)
    answer_key(text)


@pytest.mark.skipif(not BON.exists(), reason="the shared data is not here")
@pytest.mark.parametrize("name", ["gsm8k_example_model_solutions", "math_cot_100"])
def test_verdicts_agree_with_math_verify(name):
    traces = list(read_traces(BON / f"{name}.jsonl"))
    for trace in traces:
        answer = final_answer(trace)
        assert (answer is not None and same_answer(answer, trace.answer)) == trace.correct, trace.id
    assert len(traces) > 500
