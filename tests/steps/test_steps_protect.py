r"""Formulas and code are found; prices and what was never closed are not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps_texts import FORMULAS, cut_inside, texts, with_pieces

from reasonflux_prm.steps.adaptive import AdaptiveBounds, adaptive_ends
from reasonflux_prm.steps.protect import outside, protected_spans
from reasonflux_prm.steps.rules import sentence_ends


def found(text):
    return [text[start:stop] for start, stop in protected_spans(text)]


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_or_fence_is_found_whole(formula):
    assert found(f"We have\n{formula} and so on.") == [formula.strip("\n")]


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $10 together.",
        "She has $5. He has $10, so $15 in all. That is $5 more.",
        "First $1000: 30% * $1000 = $300. Then $450-$150=$300.",
        "10*$2,500 = $25,000 and $50k/year plus $3.50, so more than 20$.",
        "They paid 5$, then 10$ for it.",
        "Escaped \\$5 and \\$10 here, with x\\$y.",
        "The price of $5 per kg, in US$ or A$ terms.",
        "Unclosed \\( x + 1\n\nmore text \\) here",
        "Unclosed \\[ x + 1 and \\begin{align} y and ``` code",
        "A $x that is open.\n\nAnd another$ here.",
        "Really $$$ cheap $$$ stuff",
        "array \\\\[2pt] and \\\\(x\\\\)",
        "```python and nothing else\ncode",
    ],
)
def test_prices_escapes_and_the_unclosed_protect_nothing(text):
    assert found(text) == []


def test_an_opener_is_given_up_at_the_next_one():
    assert found("so \\( a. B \\( c. D \\) e") == ["\\( c. D \\)"]
    assert found("so \\[ a. B \\[ c. D \\] e") == ["\\[ c. D \\]"]
    assert found("\\begin{a} x \\begin{a} y \\end{a} z") == ["\\begin{a} y \\end{a}"]
    assert found("it costs $5 but $x = 2$ holds") == ["$x = 2$"]
    assert found("```py\na\n```py\nb\n```\nc") == ["```py\nb\n```"]


def test_fences_close_with_their_own_run_and_may_carry_a_tag():
    assert found("a\n````\n```\nx\n```\n````\nb") == ["````\n```\nx\n```\n````"]
    assert found("Code:\n```py\nf(1)\n```<end_code>\nx") == ["```py\nf(1)\n```<end_code>"]
    assert found("a ```inline``` b\n``` c ``` d\ne") == []


def test_marks_in_code_are_code():
    assert found("```\na \\( b $x\n```\nThen c \\) and d$ end") == ["```\na \\( b $x\n```"]


@given(text=texts)
@settings(max_examples=200, deadline=None)
def test_spans_are_disjoint_and_in_order(text):
    offsets = [offset for span in protected_spans(text) for offset in span]
    assert offsets == sorted(offsets)
    assert all(0 <= offset <= len(text) for offset in offsets)


@given(
    cuts=st.lists(st.integers(0, 50)).map(sorted),
    edges=st.lists(st.integers(0, 50), unique=True).map(sorted),
)
def test_outside_keeps_just_the_cuts_in_no_span(cuts, edges):
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    assert list(outside(cuts, spans)) == [cut for cut in cuts if not cut_inside([cut], spans)]


@given(made=with_pieces(), low=st.integers(1, 8), more=st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_no_rule_cuts_inside_a_formula_a_fence_a_number_or_an_abbreviation(made, low, more):
    text, spans = made
    assert cut_inside(adaptive_ends(text, AdaptiveBounds(low, low + more)), spans) == []
    assert cut_inside(sentence_ends(text), spans) == []
