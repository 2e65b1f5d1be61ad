"""What the leak filter finds in a template, and what it lets pass."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.labels.trajectory.leak import find_leaks

CLEAN = """Translate the statement
Name both unknowns and write each condition as an equation
first, before anything is computed
Eliminate an unknown
Solve the simpler equation for one unknown and put it into the second
until a single unknown is left; the third condition is not needed
Check by symmetry; halve the interval (half-plane by half-plane), twice if need be, often, sixth sense aside
"""


@pytest.mark.parametrize("answer", ["42", "-7", r"\frac{1}{3}", "x + y", "Monday", "(B)", r"\pi", "50%", "no solution"])
def test_a_plan_in_words_is_clean(answer):
    assert find_leaks(CLEAN, answer) == ()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("multiply by 12", "12"),
        ("use 3.5 liters", "3.5"),
        ("about 1,200 cows", "1,200"),
        ("add .25", ".25"),
        ("take 3/4 of it", "3/4"),
        ("take 3 ⁄ 4 of it", "3 / 4"),
        (r"take $\frac{3}{4}$ of it", r"\frac{3}{4}"),
        (r"take $\dfrac34$", r"\dfrac34"),
        ("a rise of 15%", "15%"),
        (r"a rise of 15\%", r"15\%"),
        ("a rise of 15 percent", "15 percent"),
        ("square it: x²", "2"),
        ("x_1 and the rest", "1"),
        ("½ of the rest", "1/2"),
        ("stage Ⅻ", "Ⅻ"),
        ("first ① then", "1"),
        ("then ❷", "❷"),
        ("use ٣ here", "٣"),
        ("use １２ here", "12"),
        ("取十二个", "十二"),
        ("multiply by twelve", "twelve"),
        ("multiply by Twenty-One", "twenty one"),
        ("two hundred and five cows", "two hundred five"),
        ("three thousand four hundred", "three thousand four hundred"),
        ("a dozen eggs", "dozen"),
        ("a hundred times", "hundred"),
        ("set it to zero", "zero"),
        ("one third of it", "one third"),
        ("one-half of it", "one-half"),
        ("half of it", "half"),
        ("a quarter of it", "a quarter of"),
        ("a three-digit number", "three"),
    ],
)
def test_numbers_in_any_form_are_leaks(text, number):
    leaks = find_leaks(text, "99999")
    assert any(f"the number {number!r}" == leak for leak in leaks), leaks


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("you get 42", "42"),
        ("you get forty-two", "42"),
        ("you get 42.0", r"\boxed{42}"),
        ("you get 42", "So we have it.\n#### 42"),
        ("you get 42", "42 apples"),
        ("you get 42", "x = 42"),
        ("take three quarters: 0.75", r"\frac{3}{4}"),
        ("you get 6/8", "0.75"),
        ("you get 75%", "0.75"),
        ("you get one half", r"\frac12"),
        ("you get 50", "50%"),
        ("you get 0.5", r"50\%"),
        ("you get 1,200", "1200"),
        ("you are left with one", "1"),
        ("you get 7", "-7"),
        ("it falls on Monday", "Monday"),
        ("there is no  solution here", r"\text{no solution}"),
        ("conclude that the answer is no", "no"),
        ("you get y + x", "y+x"),
        (r"so $\left( a+b \right) / c$ remains", r"\frac{a+b}{c}"),
        (r"so \frac{a}{b} remains", "a/b"),
        ("a multiple of π", r"\pi"),
        (r"a multiple of \pi", "π"),
        ("the interval [a, b)", "[a,b)"),
        ("so (B) holds", "B"),
        ("choose option B", r"\text{(B)}"),
        ("the answer is C", "C"),
    ],
)
@pytest.mark.parametrize("problem", [None, "With 42, 7, 50, 1, 1200 and 6 / 8 on Monday."])
def test_the_answer_in_any_form_is_a_leak_also_where_numbers_are_allowed(text, answer, problem):
    assert any(leak.startswith("the final answer as ") for leak in find_leaks(text, answer, problem))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("connect point B with A line", "B"),
        ("take a point", "A"),
        ("every mondayish day", "Monday"),
        ("nothing is known", "no"),
        ("a pie chart", r"\pi"),
        ("expand xy+xz", "y+x"),
    ],
)
def test_what_only_looks_like_the_answer_passes(text, answer):
    assert find_leaks(text, answer) == ()


def test_a_box_is_a_leak():
    assert find_leaks(r"write \boxed{the result}", "42") == ("a box for the answer",)


def test_numbers_of_the_problem_pass_if_they_are_allowed():
    problem = "Twelve cows give 3.50 liters each, 20% of it is lost."
    text = "Multiply 12 by 3.5, then take off twenty percent, twelve times."
    assert len(find_leaks(text, "33.6")) == 4
    assert find_leaks(text, "33.6", problem) == ()
    assert find_leaks(text + " You get 42.", "33.6", problem) == ("the number '42'",)
    # A quotient of two of its numbers is a new one.
    assert find_leaks("take 12/20", "33.6", problem) == ("the number '12/20'",)


def test_each_leak_is_named_once():
    assert find_leaks("5 and 5 and 6", "7") == ("the number '5'", "the number '6'")


@given(st.integers(0, 10**9))
def test_any_integer_is_found_as_the_answer(number):
    assert find_leaks(f"so it is {number}.", str(number)) == (f"the final answer as {str(number)!r}",)
    assert find_leaks(f"so it is {number:,}.", str(number)) == (f"the final answer as {f'{number:,}'!r}",)


@given(st.text(max_size=80), st.text(min_size=1, max_size=20))
def test_any_text_and_answer_can_be_checked(text, answer):
    find_leaks(text, answer, text)


@pytest.mark.parametrize(
    "text", ["9" * 20_000, "1,000" * 5_000, "twenty " * 5_000, "{" * 20_000, r"\frac{1" * 5_000, "1/" * 10_000]
)
def test_time_is_linear(text):
    begun = time.perf_counter()
    find_leaks(text, "42", text)
    find_leaks("x" + text, text[:900])
    assert time.perf_counter() - begun < 2
