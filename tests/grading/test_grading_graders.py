"""Each grader by its rules, on what models write and on what nobody should."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.grading.algebra import compare
from reasonflux_prm.grading.grader import Grader, bare_reference
from reasonflux_prm.grading.graders import NAMES, AutoGrader, default_grader, open_grader
from reasonflux_prm.grading.math_grader import MathGrader
from reasonflux_prm.grading.verdict import ANSWER_UNREAD, NO_ANSWER, REFERENCE_UNREAD, Grade, Verdict

DATA = Path(__file__).parents[2].parent / "shared" / "data"
RIGHT, WRONG, UNPARSED = Grade.RIGHT, Grade.WRONG, Grade.UNPARSED
CHEAP = ("numeric", "choice", "string", "exact")


@pytest.fixture(scope="module")
def math():
    with MathGrader() as grader:
        yield grader


@pytest.fixture(scope="module")
def auto():
    with AutoGrader() as grader:
        yield grader


# --- math -----------------------------------------------------------------------------------------------------------

ANSWERS = [
    ("0.5", "1/2", RIGHT),
    (r"\frac{1}{2}", "0.5", RIGHT),
    ("0.333333", r"\frac13", RIGHT),
    ("0.33", r"\frac13", WRONG),
    ("3.14", r"\pi", WRONG),
    (r"\sqrt{8}", r"2\sqrt{2}", RIGHT),
    ("2*sqrt(2)", r"2\sqrt{2}", RIGHT),
    ("2√2", r"2\sqrt{2}", RIGHT),
    ("9-5=4", "4", RIGHT),
    ("9-5=4", "3", WRONG),
    ("x=5", "5", RIGHT),
    ("5", "x=5", RIGHT),
    ("y = 5", "x = 5", WRONG),
    ("2, 1", "1, 2", RIGHT),
    (r"\{2, 1\}", "1, 2", RIGHT),
    (r"x=1 \text{ or } x=2", "1,2", RIGHT),
    ("1", "1,2", WRONG),
    ("1, 2, 3", "1,2", WRONG),
    (r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2", RIGHT),
    ("(2, 1)", "(1, 2)", WRONG),
    ("(1, 2)", r"\left(1, 2\right)", RIGHT),
    ("[1,2]", "[1,2)", WRONG),
    (r"x \le 3", r"(-\infty,3]", RIGHT),
    (r"(-\infty,3]", r"x \le 3", RIGHT),
    ("y^2+x^2=1", "x^2+y^2=1", RIGHT),
    ("x^2+y^2=2", "x^2+y^2=1", WRONG),
    ("b+a", "a+b", RIGHT),
    ("(x+1)^2", "x^2+2x+1", RIGHT),
    ("x**10", "x^{10}", RIGHT),
    (r"5\text{ cm}", "5", RIGHT),
    ("10 hours", "10 minutes", WRONG),
    ("50%", "0.5", RIGHT),
    (r"50\%", "50", RIGHT),
    ("1 1/2", r"\frac{3}{2}", RIGHT),
    (r"1\frac{1}{2}", "5.5", WRONG),
    ("1,234,567", "1234567", RIGHT),
    ("−7", "-7", RIGHT),
    ("٣", "3", RIGHT),
    ("3 i", "3i", RIGHT),
    (r"\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", RIGHT),
    (r"1.2 \times 10^{5}", "120000", RIGHT),
    ("tuesday", r"\text{Tuesday}", RIGHT),
    ("an ellipse", r"\text{ellipse}", RIGHT),
    ("Monday", r"\text{Tuesday}", WRONG),
    ("It is not Tuesday, I think", "Tuesday", UNPARSED),
    ("Erin has **14 lollipops** left", "14", RIGHT),
    ("Erin has 14 lollipops left", "15", WRONG),
    ("The area is $\\sqrt{8}$ square feet", r"2\sqrt{2}", RIGHT),
    ("between 3 and 4 lollipops left", "3", UNPARSED),
    ("no solution", "5", UNPARSED),
    ("3", "@#!", UNPARSED),
    ("@#!", "3", UNPARSED),
    ("t(0,4]", "t(0,4]", RIGHT),
]


@pytest.mark.parametrize(("answer", "reference", "grade"), ANSWERS)
def test_math(math, answer, reference, grade):
    assert math.grade_answer(answer, reference).grade is grade


def test_math_many_at_once_is_math_one_by_one(math):
    verdicts = math.grade_answers([(answer, reference) for answer, reference, _ in ANSWERS])
    assert [verdict.grade for verdict in verdicts] == [grade for _, _, grade in ANSWERS]
    assert [verdict.answer for verdict in verdicts] == [answer for answer, _, _ in ANSWERS]


@pytest.mark.parametrize(
    ("text", "reference", "verdict"),
    [
        (r"so \boxed{5}", "5", Verdict(RIGHT, "5")),
        (r"so \boxed{5}", r"thus \boxed{5}", Verdict(RIGHT, "5")),
        ("The answer is 72.", "48 + 24 = 72\n#### 72", Verdict(RIGHT, "72")),
        (r"\boxed{1} and $\boxed{2}$", "2, 1", Verdict(RIGHT, "1, 2")),
        (r"\boxed{5}, so \boxed{}", "5", Verdict(RIGHT, "5")),
        (r"<think>\boxed{5}</think> It is \boxed{6}", "5", Verdict(WRONG, "6")),
        ("I do not know it.", "5", Verdict(UNPARSED, None, NO_ANSWER)),
        ("", "5", Verdict(UNPARSED, None, NO_ANSWER)),
        (" \n", "5", Verdict(UNPARSED, None, NO_ANSWER)),
        (r"\boxed{5}", " ", Verdict(UNPARSED, "5", REFERENCE_UNREAD)),
        (r"\boxed{x}", "@#!", Verdict(UNPARSED, "x", REFERENCE_UNREAD)),
        (r"\boxed{@#!}", "5", Verdict(UNPARSED, "@#!", ANSWER_UNREAD)),
    ],
)
@pytest.mark.parametrize("name", ["math", "auto"])
def test_verdicts_on_texts(name, text, reference, verdict, request):
    grader: Grader = request.getfixturevalue(name)
    assert grader.grade(text, reference) == verdict
    assert asyncio.run(grader.agrade(text, reference)) == verdict


HOSTILE = {
    r"9^{9^{9^{9}}}": "took longer than 2 s",
    "100000000!": "took longer than 2 s",
    r"\frac{1}{" * 10000 + "2" + "}" * 10000: "the answer does not parse: it has 100,001 characters",
    r"\frac{1}{" * 80 + "2" + "}" * 80: None,
    "1" * 10**6: "the answer does not parse: it has 1,000,000 characters",
    "x" * 10**6: "the answer does not parse: it has 1,000,000 characters",
    "(" * 400 + "1" + ")" * 400: None,
    "{" * 300: None,
    "\x00": ANSWER_UNREAD,
    "}{": ANSWER_UNREAD,
    "\\": ANSWER_UNREAD,
    "\ud800": ANSWER_UNREAD,
    "$$": ANSWER_UNREAD,
}


def test_an_answer_that_hangs_harms_no_neighbour():
    with MathGrader(size=1, timeout_s=2) as grader:
        first, hung, last = grader.grade_answers([("b+a", "a+b"), (r"9^{9^{9^{9}}}", "7"), ("c+a", "a+c")])
    assert (first.grade, last.grade) == (RIGHT, RIGHT)
    assert hung == Verdict(UNPARSED, r"9^{9^{9^{9}}}", "took longer than 2 s")


@pytest.mark.slow
def test_hostile_answers_get_a_verdict_and_harm_no_neighbour():
    pairs = [pair for answer in HOSTILE for pair in ((answer, "7"), (f"x+{len(answer)}", f"{len(answer)}+x"))]
    with MathGrader(timeout_s=2) as grader:
        verdicts = grader.grade_answers(pairs)
    assert [verdict.grade for verdict in verdicts[1::2]] == [RIGHT] * len(HOSTILE)
    assert [verdict.answer for verdict in verdicts[::2]] == list(HOSTILE)
    for verdict, reason in zip(verdicts[::2], HOSTILE.values(), strict=True):
        assert verdict.grade is not RIGHT
        if reason is not None:
            assert (verdict.grade, verdict.reason) == (UNPARSED, reason)


@pytest.mark.slow
def test_hostile_references_get_a_verdict_too():
    with MathGrader(timeout_s=2) as grader:
        grades = {grader.grade_answer("7", reference).grade for reference in HOSTILE}
    assert RIGHT not in grades


def test_from_threads_beside_a_foreign_alarm(math):
    fired = []
    before = signal.signal(signal.SIGALRM, lambda *_: fired.append(1))
    verdicts = {}
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)

        def grade(k):
            verdicts[k] = math.grade_answer(f"(x+{k})^2", f"x^2+{2 * k}x+{k * k}").grade

        threads = [threading.Thread(target=grade, args=(k,)) for k in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until = time.monotonic() + 5
        while not fired and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert verdicts == dict.fromkeys(range(1, 9), RIGHT)
    assert fired == [1]


def test_from_asyncio_many_at_once(math):
    async def grade():
        return await asyncio.gather(*(math.agrade(rf"\boxed{{(x+{k})^2}}", f"x^2+{2 * k}x+{k * k}") for k in range(8)))

    assert {verdict.grade for verdict in asyncio.run(grade())} == {RIGHT}


def test_the_comparison_is_no_part_of_this_process():
    code = (
        "import sys\nfrom reasonflux_prm.grading.graders import open_grader\n"
        "with open_grader('math') as grader:\n"
        "    assert grader.grade_answer('b+a', 'a+b').right\n"
        "print(*sorted({'math_verify', 'sympy', 'torch', 'asyncio'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_either_may_be_the_reference():
    assert compare(("2x+1", "y=2x+1", False)) == "same"
    assert compare((r"x \in [1,2]", "[1,2]", True)) == compare(("[1,2]", r"x \in [1,2]", True)) == "same"


# --- the others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("(B)", "B"),
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{(B)}}", "B"),
        (r"$\boxed{\textbf{(B) } 12}$", "B"),
        (r"\boxed{\mathrm{B}}", "B"),
        ("Answer: B. because it floats", "B"),
        ("Answer: B because it floats", "B"),
        ("**Answer: (B)**", "B"),
        ("The correct answer is **B**.", "B"),
        ("The correct answer is option B", "B"),
        ("the answer is (b).", "B"),
        ("We conclude.\n\nB) 12 m/s", "B"),
        ("We conclude.\n\n**B**", "B"),
        ("Therefore option B holds, as was to be shown.", "B"),
        ("That leaves (B), clearly.", "B"),
        ("Answer: A because", "A"),
        ("Answer: A, C and D", "ACD"),
        ("Answer: (c), (a)", "AC"),
        ("Answer: A dog", None),
        ("Answer: I think so", None),
        ("Answer: Apples", None),
        (r"\boxed{42}", None),
        ("What a dog", None),
        ("", None),
    ],
)
def test_choice(text, letters):
    grader = open_grader("choice")
    for reference in ("A", "B", "(C)", "ACD", "A, C"):
        verdict = grader.grade(text, reference)
        if letters is None:
            assert verdict.grade is UNPARSED
        else:
            wanted = "".join(letter for letter in reference if letter.isalpha())
            assert verdict.grade is (RIGHT if letters == wanted else WRONG)
    assert grader.groups(["(B)", r"\text{b}", "A", None, "Option B", "yes"]) == [0, 0, 1, None, 0, 2]


@pytest.mark.parametrize(
    ("answer", "reference", "grade"),
    [
        ("$1,250 a day", "1250", RIGHT),
        ("3 + 4 = 7", "7.0", RIGHT),
        ("7", "48 / 2\n#### 7", RIGHT),
        ("0.5", r"\frac{1}{2}", RIGHT),
        ("7.1", "7", WRONG),
        ("5 or 6", "5", UNPARSED),
        ("five", "5", UNPARSED),
        ("5", "five", UNPARSED),
    ],
)
def test_numeric(answer, reference, grade):
    assert open_grader("numeric").grade_answer(answer, reference).grade is grade


def test_string_and_exact():
    string, exact = open_grader("string"), open_grader("exact")
    assert string.grade_answer(r"\frac12", "0.5").grade is RIGHT
    assert string.grade_answer(r"\sqrt8", r"2\sqrt2").grade is WRONG
    assert exact.grade_answer(" Yes ", "Yes").grade is RIGHT
    assert exact.grade_answer("yes", "Yes").grade is WRONG
    assert exact.grade_answer("yes", "").grade is UNPARSED


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("B", "choice"),
        ("(c)", "choice"),
        (r"\text{(D)}", "choice"),
        ("x", "math"),
        ("12", "math"),
        ("Tuesday", "math"),
        ("1 2\n3 4", "string"),
        ("x" * 1001, "string"),
    ],
)
def test_auto_goes_by_the_reference(auto, reference, name):
    assert auto.pick(reference).name == name
    assert auto.grade_answer(reference, reference).grade is RIGHT
    assert auto.grade_answer("3.75", reference).grade is not RIGHT


def test_auto_looks_for_letters_where_the_reference_is_one(auto):
    assert auto.grade("That leaves (B), clearly.", "B").grade is RIGHT
    assert auto.grade("That leaves (B), clearly.", "7") == Verdict(UNPARSED, None, NO_ANSWER)


# --- groups ---------------------------------------------------------------------------------------------------------


def test_groups_by_algebra(math):
    answers = [r"2\sqrt{2}", "1/2", None, r"\sqrt{8}", "0.5", "x", "Monday", "monday", "2*sqrt(2)", r"\frac{2}{4}", ""]
    assert math.groups(answers) == [0, 1, None, 0, 1, 2, 3, 3, 0, 1, 4]
    assert math.groups([]) == []
    assert math.groups([None, None]) == [None, None]


def test_equations_between_numbers_are_their_right_side(math):
    """Two of them are not one answer for both being true."""
    assert math.groups(["3-10=-7", "4", "9-5=4", "9-5", "3 - 5 = -2", "-7"]) == [0, 1, 1, 1, 2, 0]
    assert math.grade_answer("9 - 5 = 4", "4").right
    assert not math.grade_answer("3 - 5 = -2", "9-5=4").right


def test_groups_do_not_depend_on_the_order_of_a_pair(math):
    answers = ["x = 5", "5", r"(-\infty, 3]", r"x \le 3", "y = 5"]
    assert math.groups(answers) == [0, 0, 1, 1, 0]
    assert math.groups(answers[::-1]) == [0, 1, 1, 0, 0]


def test_groups_leave_percentages_apart(math):
    assert math.groups(["0.5", "50", "50%"]) == [0, 1, 1]


def test_groups_are_bounded(math, monkeypatch):
    monkeypatch.setattr("reasonflux_prm.grading.math_grader.MOST_COMPARISONS", 1)
    assert math.groups(["a+b", "b+a", "(x+1)x", "x^2+x"]) == [0, 0, 1, 2]


def test_a_chain_of_the_same_is_one_group():
    class Near(type(open_grader("exact"))):
        def alike(self, answers):
            return ((i, j) for i in range(len(answers)) for j in range(i) if abs(int(answers[i]) - int(answers[j])) < 2)

    near = Near("near", str, str.__eq__)
    assert near.groups(["1", "5", "3", "2", "6", "9"]) == [0, 1, 0, 0, 1, 2]


def test_groups_survive_what_hangs():
    with MathGrader(timeout_s=2) as grader:
        assert grader.groups([r"9^{9^{9^{9}}}", "b+a", "a+b"]) == [0, 1, 1]


# --- names, identities, extras --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_identities_are_json_and_name_the_grader(name):
    with open_grader(name) as grader:
        identity = json.loads(json.dumps(dict(grader.identity())))
    assert identity["grader"] == grader.name == name
    assert identity["version"] >= 1
    assert ("math-verify" in identity) == (name not in CHEAP)


def test_auto_changes_with_math():
    with open_grader("auto") as auto, open_grader("math") as math:
        assert auto.identity()["math"] == math.identity()["version"]


def test_names():
    assert default_grader() == "auto"
    with pytest.raises(UsageError, match="auto, math, numeric"):
        open_grader("best")


def test_without_math_verify(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert default_grader() == "string"
    for name in ("math", "auto"):
        with pytest.raises(MissingExtra, match=r"pip install 'reasonflux-prm\[grade\]'"):
            open_grader(name)
    for name in CHEAP:
        assert open_grader(name).grade(r"\boxed{B}", "B").grade is (UNPARSED if name == "numeric" else RIGHT)


def test_bare_references():
    assert bare_reference(" 5 ") == "5"
    assert bare_reference("6 + 6 = 12\n#### 12") == "12"
    assert bare_reference(r"hence \boxed{\frac12}.") == r"\frac12"
    assert bare_reference("the answer is up to you") == "the answer is up to you"


# --- any text -----------------------------------------------------------------------------------------------------

FRAGMENTS = st.lists(
    st.sampled_from(
        [
            *"0123456789.,;:=-+/*^_{}()[]$%\\ \n\x00xABC√²½−٣∞",
            r"\frac",
            r"\boxed{",
            r"\text{",
            "**",
            "answer is ",
            "####",
        ]
    )
    | st.text(max_size=3),
    max_size=20,
).map("".join)


@given(FRAGMENTS, FRAGMENTS)
def test_no_text_is_too_much_for_what_decides_at_once(text, reference):
    for name in CHEAP:
        grader = open_grader(name)
        verdict = grader.grade(text, reference)
        assert (verdict.grade is UNPARSED) == (verdict.reason is not None)
        assert grader.groups([text, reference, text])[::2] in ([0, 0],)
    with MathGrader() as grader:
        grader.decide(text, reference)
        assert grader.decide(text, text) is None or grader.decide(text, text).grade is not WRONG
        grader.key(text)


# --- real data ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="the shared data is not here")
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("bon/math_cot_100", 1.0),
        ("bon/gsm8k_example_model_solutions", 1.0),
        pytest.param("bon/amc23_llama3b_think", 1.0, marks=pytest.mark.slow),
        pytest.param("bon/aime24_llama3b_think", 1.0, marks=pytest.mark.slow),
        # Its verdicts are those of task-specific scorers: any formula of a kind, partial credit for the wrong form.
        pytest.param("bon/reasoning_gym_multi_model", 0.88, marks=pytest.mark.slow),
        ("problems/math500", 1.0),
        ("problems/gsm8k_test", 1.0),
        ("problems/svamp", 1.0),
        ("problems/aime25", 1.0),
    ],
)
def test_verdicts_agree_with_recorded_ones(auto, name, least):
    from benchmarks.grading import agreement, graded

    rows = graded(DATA / f"{name}.jsonl", auto)
    assert agreement(rows)["agreement"] >= least
