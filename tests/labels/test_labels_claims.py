from __future__ import annotations

import pytest

from reasonflux_prm.labels.claims.algebra import answer
from reasonflux_prm.labels.claims.check import Known, check, draft_claims


def verdicts(text, problem="", **values):
    return check(text, Known(problem, values), answer)


def holds(text, problem="", **values):
    return [verdict.holds for verdict in verdicts(text, problem, **values)]


TRUE = [
    "48/2 = 24",
    "12 * 3 = 36",
    "2 + 3 = 5 = 10/2",
    "He sold 48/2 = <<48/2=24>>24 clips.",
    "20% of 50 is 10",
    "$5 x 3 = $15",
    "3 hours * 60 minutes/hour = 180 minutes",
    r"\frac{3}{4} \times 8 = 6",
    r"$\frac12 \cdot \sqrt{16} = 2$",
    r"\( 2^{10} = 1024 \)",
    r"\[ 90 \div 2 = \boxed{45} \]",
    "5 × 3 ÷ 2 − 1 = 6.5",
    "5 plus 3 is 8",
    "half of 10 is 5",
    "two thirds of 12 = 8",
    "10 divided by 4 equals 2.5",
    "7 squared is 49",
    "100/3 = 33.33",
    "100/3 ≈ 33",
    "2/3 = 0.66",
    "22/7 is approximately 3.14",
    "1,000 + 2,500 = 3,500",
    r"1{,}000 \cdot 2 = 2\,000",
    "1 1/2 + 2 1/2 = 4",
    r"$2\frac{1}{2} \times 2 = 5$",
    r"$2\frac{1}{2} \times 2 = 2$",
    "17 mod 5 = 2",
    r"$17 \equiv 2 \pmod{5}$",
    "5! = 120",
    r"$\binom{5}{2} = 10$",
    "3 * 4 > 11",
    "2 * 1.3 million = 2.6 million",
    "2 million + 500,000 = 2.5 million",
    r"$1.23 \times 10^3 = 1234$",
    r"$2^5 \ge 32$",
    "2 + 2 != 5",
    "(-3)^2 = 9",
    "-3^2 = -9",
    "√(16) + 2³ = 12",
    r"$\sin 30^\circ = \frac{1}{2}$",
    "sin(30) = 0.5",
    r"$\log_2 8 = 3$",
    "log(1000) = 3",
    r"$\pi \cdot 3^2 = 9\pi$",
    "25 / 1/5 = 125",
    "7*6*5 / 3*2*1 = 35",
    "$600 + 30% = $780",
    "½ + ¼ = 0.75",
    "3/3 - 2/3 = 1/3 of $150",
    "4 * 6 = 24!",
    "25 * 4 = 100.0",
    "(2+3)(4) = 20",
    "10 (5 + 5) = 100",
    "2**3 = 8",
    "**3 + 4 = 7**",
    "- 3 + 4 = 7",
    "it was 11/18*162 = 99.00000000000001",
]
FALSE = [
    ("12 * 3 = 35", "left side is 36"),
    ("He has <<12*3=35>>35 apples", "left side is 36"),
    ("2 + 3 = 5 = 10/5", "right side is 2"),
    ("30% of 50 is 10", "left side is 15"),
    ("half of 10 is 6", "left side is 5"),
    (r"\frac{3}{4} \times 8 = 5", "left side is 6"),
    (r"$\binom{5}{2} = 20$", "left side is 10"),
    (r"$17 \equiv 3 \pmod{5}$", "they differ by 14, modulo 5"),
    ("100/3 = 33.5", "left side is 100/3"),
    ("100/3 ≈ 50", "left side is 100/3"),
    ("3 * 4 > 12", "left side is 12"),
    ("$5 * 3 = $16", "left side is 15"),
    ("3 apples + 4 apples = 8 apples", "left side is 7"),
    ("18 + 5 - 9 = 15 - 9", "left side is 14, right side is 6"),
    ("100 * 100 = 10010", "left side is 10000"),
    ("20 * 3 = 2^6", "left side is 60, right side is 64"),
    (r"$\sqrt{2} = 1.52$", "left side is 1.41421"),
    ("1/7 = 0.16", "left side is 1/7"),
]
NO_CLAIM = [
    "Let x = 5.",
    "f(x) = x^2",
    "There are 5 apples.",
    "The average of 3 + 5 = 4",
    "1 + 2 + ... + 10 = 55",
    "20 of 50 = 40%",
    "On day 1 * 2 = 20",
    "Total + 5 * 3 = 20",
    r"$101_2 + 1 = 6$",
    r"\begin{pmatrix} 1 & 2 \end{pmatrix} = 3",
    "The ratio is 3:4 = 6:8",
    "75% of it is $60",
    "3/4 is $24",
    "1 USD = 32.35 rupees",
    "x + y = 12",
    "At 0900 - 0130 = 0730",
    "7th grade + 8th grade = 1170",
    "Drop 8 degrees = 2 - 8",
    "```python\nx = 3 + 4 == 8\n```",
    "[asy] draw(1+1=3); [/asy]",
    "See https://example.org/?a=1+1",
]
OPEN = [
    ("is 12 * 3 = 35?", "it is a question"),
    ("Suppose 12 * 3 = 35.", "it is tentative"),
    ("12 * 3 = 35. Wait, no, it is 36.", "it is taken back"),
    ("12 * 3 = 35, which is wrong.", "it is taken back"),
    ("I wrongly said 12 * 3 = 35.", "it is quoted"),
    ("5 + 3 = 8 * 2 = 16", None),
    ("7/2 = 3", None),
    ("1/7 = 0.15", None),
    ("3 hours + 30 minutes = 210 minutes", None),
    ("$2 * 3 = 600 cents", None),
    ("49/2 = 24*2 + 1", None),
    ("3/2 = $1.50 + $3.00 = $4.50", None),
    ("3 pencils + 1 eraser = 124 cents", None),
    ("36x2 - 4 = 0", None),
    ("1/0 = 5", None),
    ("9**9**9 = 5", None),
    ("99999! = 3", None),
]


@pytest.mark.parametrize("text", TRUE)
def test_true_claims_hold(text):
    found = holds(text)
    assert found
    assert set(found) == {True}


@pytest.mark.parametrize(("text", "why"), FALSE)
def test_false_claims_are_told_with_what_is_true(text, why):
    false = [verdict for verdict in verdicts(text) if verdict.holds is False]
    assert len(false) == 1
    assert why is None or false[0].why == why


@pytest.mark.parametrize("text", NO_CLAIM)
def test_what_is_no_claim_is_not_judged(text):
    assert False not in holds(text)
    assert True not in holds(text)


@pytest.mark.parametrize(("text", "why"), OPEN)
def test_what_may_be_meant_otherwise_is_left_open(text, why):
    found = verdicts(text)
    assert [verdict for verdict in found if verdict.holds is False] == []
    assert why is None or why in [verdict.why for verdict in found]


@pytest.mark.parametrize(
    "text",
    [
        "(x+1)^2 = x^2 + 2x + 1",
        r"$\frac{x^2 - 1}{x - 1} = x + 1$",
        "2x + 3 = 7, so 2x = 4",
        r"\begin{align*} 2x + 3 &= 7 \\ 2x &= 4 \end{align*}",
        "10b = 180. Dividing both sides by 10: b = 18",
        "x^2 = 4, so x = -2",
        "3x = 10, so x = 3.33",
        r"$3ab(a+b) = 3a^2b + 3ab^2$",
        r"$\sin^2 x + \cos^2 x = 1$",
    ],
)
def test_true_algebra_holds(text):
    assert holds(text) == [True]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(x+1)^2 = x^2 + 3x + 1", "left side is x^2 + 2*x + 1"),
        ("3(x+2) = 3x + 5", "left side is 3*x + 6"),
        ("2x + 3x = 6x", "left side is 5*x"),
        ("2x + 3 = 7, so 2x = 5", "by the equation before, x is 2"),
        ("2x + 3 = 7 -> x = 5", "by the equation before, x is 2"),
        ("10b = 180. Dividing both sides by 10: b = 180", "by the equation before, b is 18"),
        ("x^2 = 4, so x = 3", "by the equation before, x is -2 or 2"),
    ],
)
def test_false_algebra_is_told(text, why):
    assert [(verdict.kind, verdict.holds, verdict.why) for verdict in verdicts(text)] == [("algebra", False, why)]


@pytest.mark.parametrize(
    "text",
    [
        "(x - 3)^2 = x^2 + 7",
        "x^2 + y^2 = 25",
        "If b = 2, then 4a = 4(a - 3).",
        "x = 2 or x = 3",
        "x - 2 = 0 or x - 3 = 0",
        "2x = 4 and 3x = 9",
        "Case 1: 2x = 4. Case 2: 2x = 6.",
        "(1 + i)(1 - i) = 1 - i^2 + 5i",
        "f(3) - f(2) = 4, so f(4) - f(3) = 5",
        "|x| = 3, so x = 3",
    ],
)
def test_conditions_and_cases_are_no_claims(text):
    assert False not in holds(text)


def test_a_claim_that_the_problem_makes_is_quoted():
    assert holds("So 3 + 4 = 8", problem="In a strange land 3 + 4 = 8. What is 5 + 5?") == [None]


def test_problems_with_rules_of_their_own_are_left_alone():
    assert holds("4 + 3 = 12", problem="Add 4 and 3 in base 5.") == [None]
    assert holds("4 + 3 = 7", problem="Add 4 and 3 in base 5.") == [True]


def test_values_of_earlier_steps_are_put_in():
    assert holds("A - B = 3 - (-7) = 10", A=3, B=-7) == [True, True]
    assert holds("A - B = 3 - 7 = -4", A=3, B=-7) == [False, True]
    assert holds("A - B = 12", A=3, B=-7) == []


def test_a_second_value_contradicts_the_first():
    (found,) = verdicts("Thus, x = 9.", x=7)
    assert (found.kind, found.holds, found.why) == ("contradiction", False, "x was found to be 7")
    for text in ("If x = 9, it fails.", "Or x = 9.", "Now x = 9.", "Case 2: x = 9", "Thus x = 7.0", "Thus x = 7.04"):
        assert False not in holds(text, x=7), text


def test_offsets_point_at_the_claim():
    text = "First, 2 + 2 = 4 apples <<3+3=7>>."
    found = verdicts(text)
    assert [text[verdict.start : verdict.stop] for verdict in found] == ["2 + 2 = 4", "3+3=7"]
    assert [verdict.claim for verdict in found] == ["2 + 2 = 4", "3+3=7"]


def test_a_claim_made_twice_counts_once():
    assert holds("12*3 = <<12*3=36>>36 and 12 * 3 = 36") == [True]


def test_a_step_that_gives_a_name_two_values_unsettles_it():
    draft = draft_claims("x = 3. Then x = 4. Thus y = 2 + 3 = 5.", Known())
    assert draft.unsettled == {"x"}
    assert draft.found["y"] == 5
