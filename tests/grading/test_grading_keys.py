"""Two writings of one answer have one key, and what has one key is one answer."""

import time
from fractions import Fraction

import pytest

from reasonflux_prm.grading.keys import answer_key, is_words, read_answer, same_answer, same_number
from reasonflux_prm.grading.latex import to_latex
from reasonflux_prm.grading.numbers import read_number
from reasonflux_prm.grading.sentences import is_sentence, singled_out


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,200", "$1200.00$"),
        ("1{,}200", "1200"),
        (r"10{,}000", r"10\,000"),
        (r"\dfrac{3}{6}", "0.5"),
        (r"\frac12", "1/2"),
        (r"-\frac{1}{2}", "-0.50"),
        (r"1\frac{1}{2}", "1.5"),
        ("1 1/2", "3/2"),
        (r"-1\frac12", "-3/2"),
        ("1½", "1.5"),
        ("½", "1/2"),
        ("x = 5", "5"),
        ("5.", "5"),
        ("−7", "-7"),
        ("٣", "3"),
        ("(073)", "73"),
        ("18 dollars", r"\$18"),
        (r"6\text{ dollars}", "6"),
        (r"6\text{ cm}^2", "6"),
        (r"6\,\text{m}", "6 m"),
        ("10 m/s", "10"),
        ("5 hours", "5 hour"),
        ("50%", r"50\%"),
        ("50 percent", "50%"),
        (r"90^\circ", "90°"),
        (r"\text{(B)}", "(b)"),
        ("No solution.", r"\text{no solution}"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        ("3.0 + 4i", "3+4i"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{\sqrt2}{2}"),
        (r"4:30\text{ p.m.}", "4:30 p.m."),
    ],
)
def test_the_same_answer(one, other):
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", "-5"),
        ("1.2", "12"),
        ("3 pm", "3 am"),
        ("2 pi", "2"),
        ("(1,2)", "(1,3)"),
        ("1/0", "0"),
        ("x", "5"),
        ("x = 5", "y = 5"),
        (r"1\frac{1}{2}", "11/2"),
        (r"2\frac{3}{2}", "7/2"),
        (r"\frac{1}{2}x", r"\frac{1}{2x}"),
        ("2^{3}4", "2^{34}"),
        ("R/r", "r/R"),
        (r"\Delta", r"\delta"),
        ("3 sin x", "3 cos x"),
        ("5 million", "5"),
        ("5 and a half", "5"),
        ("5 dozen", "5"),
        ("10 hours", "10 minutes"),
        ("10 cents", "10 dollars"),
        ("10_2", "10_3"),
        ("", "0"),
    ],
)
def test_other_answers(one, other):
    assert not same_answer(one, other)
    assert not same_answer(other, one)


def test_keys_are_exact():
    assert answer_key("0.1") == Fraction(1, 10)
    long = "9" * 5000
    assert answer_key(long) == long


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("0.5", "1/2", True),
        ("0.333333", "1/3", True),
        ("0.33", "1/3", False),
        ("0.00000012", "0.00000013", False),
        ("10000001", "10000000", False),
        ("0.5", "50%", True),
        ("50", "50%", True),
        ("50%", "0.5", True),
        ("5000", "50%", False),
        ("10 hours", "10 minutes", False),
        ("10 red apples", "10", True),
        ("1e-9", "0", None),
        ("x", "0", None),
    ],
)
def test_the_same_number(answer, reference, same):
    assert same_number(read_answer(answer), read_answer(reference)) is same


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("$1,250 a day", 1250),
        ("3 + 4 = 7 apples", 7),
        (r"1.5 \times 10^{3}", 1500),
        ("2e-3", Fraction(1, 500)),
        ("Erin has 14 left", 14),
        ("costs $2.50 each", Fraction(5, 2)),
        ("about 3/4 of it", Fraction(3, 4)),
        ("30km", 30),
        ("between 5 and 6", None),
        ("5 dozen cookies", None),
        (r"12\pi square inches", None),
        ("it is 2x", None),
        ("so 3 + 4", None),
        ("x_1", None),
        ("none", None),
        ("", None),
        ("1" * 2000, None),
        ("1e3 apples", 1000),
        ("1e9999 apples", None),
    ],
)
def test_numbers_in_words(answer, number):
    reading = read_number(answer)
    assert (None if reading is None else reading.value) == number


@pytest.mark.parametrize(
    ("answer", "core"),
    [
        ("7", "7"),
        (r"x^2 \text{ square inches}", r"x^2 \text{ square inches}"),
        (r"\sin x + \log_{2} 3", r"\sin x + \log_{2} 3"),
        ("6abc", "6abc"),
        ("Erin has **14 lollipops** left", "14"),
        ("Sandra needs to babysit **5 times", "5"),
        ("The area is $4\\pi$ square feet", "4\\pi"),
        ("They spent $40 and $50 on toys", None),
        ("Argo has 50 toys left", "50"),
        ("Shannon makes **5 dozen** cookies", None),
        (r"18\text{ hours and }48\text{ minutes}", None),
        ("the 56 things are 6 others", None),
    ],
)
def test_what_a_sentence_singles_out(answer, core):
    assert singled_out(answer) == core
    assert is_sentence(answer) == (core != answer)


@pytest.mark.parametrize("answer", ["Tuesday", r"\text{no solution}", "Father-in-law", "Evelyn.", "übermäßig"])
def test_words(answer):
    assert is_words(answer)


@pytest.mark.parametrize("answer", ["5 apples", "x", "AB", "x + y", r"\infty", "sin x", "", "(B)", r"\frac{ab}{c}"])
def test_no_words(answer):
    assert not is_words(answer)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("6√2", r"6\sqrt{2}"),
        ("√(x+1)", r"\sqrt{x+1}"),
        ("3*sqrt(3)/2", r"3*\sqrt{3}/2"),
        ("x²+1", "x^{2}+1"),
        ("a₁", "a_{1}"),
        ("x**10", "x^{10}"),
        ("2^10", "2^{10}"),
        ("2*pi", r"2*\pi"),
        ("1.5e-3", r"1.5 \times 10^{-3}"),
        ("$x$", "x"),
        (r"\(x\)", "x"),
        ("2 i", "2i"),
    ],
)
def test_plain_text_as_latex(text, latex):
    assert to_latex(text) == latex


@pytest.mark.parametrize(
    "unit", [" ", "{", "}", "(", "1", "1,", "1 ", "a", "a ", r"\frac", r"\frac{", "-", "^", "√", "=", "*"]
)
def test_no_answer_takes_long(unit):
    for length in (900, 4 * 10**5):
        text = unit * (length // len(unit))
        started = time.perf_counter()
        for reading in (answer_key, is_words, is_sentence, singled_out, read_number):
            reading(text)
        assert time.perf_counter() - started < 2
