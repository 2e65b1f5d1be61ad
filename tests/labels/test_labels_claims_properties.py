from __future__ import annotations

import re
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from reasonflux_prm.labels.claims.algebra import answer
from reasonflux_prm.labels.claims.check import Known, check
from reasonflux_prm.labels.claims.expressions import Call, Num
from reasonflux_prm.labels.claims.parser import NotParsed, Parser
from reasonflux_prm.labels.claims.tokens import tokenize
from reasonflux_prm.labels.claims.values import NoValue, evaluate

# Numbers of three digits and more: in smaller ones a changed digit can turn one claim into another true one.
numbers = st.integers(100, 99_999)
SIGNS = {
    "+": [
        "{} + {}",
        "{}+{}",
        "{} plus {}",
        "${} + {}$",
        "${} + ${}",
        "({}) + ({})",
        r"\({} + {}\)",
        "{} apples + {} apples",
    ],
    "-": ["{} - {}", "{}-{}", "{} minus {}", "{} − {}", r"$ {} - {} $", "{} – {}"],
    "*": ["{} * {}", "{}*{}", "{} x {}", "{} × {}", "{} times {}", r"${} \times {}$", r"\({} \cdot {}\)", "({})({})"],
    "/": ["{} / {}", "{}/{}", "{} ÷ {}", "{} divided by {}", r"$\frac{{{}}}{{{}}}$", r"${} \div {}$"],
}
RESULTS = ["{} = {}", "So {} = {}.", "We get {} = {}, and go on.", "<<{}={}>>", "{}\n= {}", "Thus,\n{} = {}"]
SAID = ["{} is {}.", "That means {} equals {}."]


def grouped(number):
    return f"{number:,}"


@st.composite
def statements(draw):
    """Draw (text before the result, result, text behind): a true statement with a whole result."""
    sign = draw(st.sampled_from(sorted(SIGNS)))
    a, b = draw(numbers), draw(numbers)
    if sign == "/":
        a, result = a * b, a
    else:
        result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    assume(abs(result) >= 100)
    write = draw(st.sampled_from([str, grouped]))
    form = draw(st.sampled_from(SIGNS[sign]))
    frame = draw(st.sampled_from(RESULTS + ([] if "apples" in form or sign == "/" else SAID)))
    assume(not ("\n" in frame and "$" in form))
    assume(frame not in SAID or form != "{}-{}")  # "August 1-17 is 17 days"
    assume(not ("<<" in frame and "\n" in form))
    left = form.format(write(a), write(b))
    before, behind = frame.format(left, "@").split("@")
    return before, write(result) if result >= 0 else f"-{write(-result)}", behind


def judge(text):
    return [verdict.holds for verdict in check(text, Known(), answer)]


@given(statements())
def test_true_statements_come_out_true(statement):
    before, result, behind = statement
    assert judge(before + result + behind) == [True]


@given(statements(), st.data())
def test_one_digit_changed_comes_out_false(statement, data):
    before, result, behind = statement
    places = [match.start() for match in re.finditer(r"\d", result)]
    place = data.draw(st.sampled_from(places))
    digits = [digit for digit in "0123456789" if digit != result[place] and (digit != "0" or place != places[0])]
    wrong = result[:place] + data.draw(st.sampled_from(digits)) + result[place + 1 :]
    assert judge(before + wrong + behind) == [False]


@st.composite
def expressions(draw, depth=3):
    """Draw (text, value) of an expression with explicit brackets."""
    if depth == 0 or draw(st.booleans()):
        value = draw(st.integers(0, 999))
        return str(value), Fraction(value)
    (left, a), (right, b) = draw(expressions(depth=depth - 1)), draw(expressions(depth=depth - 1))
    sign = draw(st.sampled_from("+-*/"))
    assume(sign != "/" or b != 0)
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[sign]
    return f"({left} {sign} {right})", value


@given(expressions())
def test_expressions_have_their_value(expression):
    text, value = expression
    tokens = tokenize(text)
    parser = Parser(tokens, 0, len(tokens))
    assert evaluate(parser.expression()) == value
    assert parser.position == len(tokens)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=4), st.integers(-9, 9), st.integers(1, 9))
def test_expansions_hold_and_wrong_ones_do_not(roots, shift, power):
    product = "".join(f"(x {'-' if root >= 0 else '+'} {abs(root)})" for root in roots)
    coefficients = [1]
    for root in roots:
        coefficients = [a - root * b for a, b in zip([*coefficients, 0], [0, *coefficients], strict=True)]

    def written(row):
        degree = len(row) - 1
        terms = [f"{'-' if c < 0 else '+'} {abs(c)} x^{degree - place}" for place, c in enumerate(row) if c]
        return " ".join(terms).removeprefix("+ ").replace(" x^0", "")

    assert judge(f"${product} = {written(coefficients)}$") == [True]
    wrong = [*coefficients[:-1], coefficients[-1] + power]
    assert judge(f"${product} = {written(wrong)}$") == [False]


@given(st.text(alphabet="0123456789+-*/^=()[]{}.,!%$\\ xyisof\n<>√½²_|", max_size=60))
def test_no_text_is_too_strange(text):
    for verdict in check(text, Known(), answer):
        assert 0 <= verdict.start < verdict.stop <= len(text)


@given(st.text(alphabet="0123456789+-*/^()!%. ", max_size=30))
def test_what_python_makes_of_an_expression_is_what_we_make_of_it(text):
    """Where both see an expression of whole numbers, brackets and + - * /, they agree on its value."""
    assume(re.fullmatch(r"[\d+\-*/() ]+", text) and not re.search(r"\*\*|//|---", text))
    assume(not re.search(r"\d\s+\d|\d\s*\(|\)\s*[\d(]|(?<!\d)0\d|/[^+\-*]*/", text))
    try:
        expected = eval(re.sub(r"(\d+)", r"Fraction(\1)", text), {"Fraction": Fraction})
    except (SyntaxError, ZeroDivisionError, TypeError):
        return
    assume(isinstance(expected, Fraction))
    tokens = tokenize("=" + text)[1:]
    parser = Parser(tokens, 0, len(tokens))
    assert evaluate(parser.expression()) == expected
    assert parser.position == len(tokens)


def test_what_cannot_be_evaluated_has_no_value():
    for op, args in (
        ("/", (1, 0)),
        ("^", (9, 999_999)),
        ("!", (10**6,)),
        ("sqrt", (-1,)),
        ("log", (0,)),
        ("mod", (1, 0)),
    ):
        try:
            found = evaluate(Call(op, tuple(Num(Fraction(arg)) for arg in args)))
        except (NoValue, NotParsed):
            continue
        raise AssertionError(f"{op}{args} gave {found}")
