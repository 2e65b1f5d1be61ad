"""The adaptive rule: bounds, and cuts that read as steps of reasoning."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps_texts import cut_inside, pieces_of, texts, with_pieces

from reasonflux_prm.errors import UsageError
from reasonflux_prm.steps.adaptive import AdaptiveBounds, adaptive_ends
from reasonflux_prm.steps.estimate import estimate_tokens
from reasonflux_prm.steps.protect import protected_spans
from reasonflux_prm.steps.sentences import dot_binds


def places_between_words(text, start, stop):
    """Offsets in text[start:stop] behind white space where nothing forbids a cut, found one by one."""
    spans = protected_spans(text)
    for gap in re.finditer(r"(?<=\S)\s+(?=\S)", text[start:stop]):
        dot, behind = start + gap.start() - 1, start + gap.end()
        breaking = gap.group().strip("\u00a0\u2007\u202f")
        if (
            breaking
            and not cut_inside([behind], spans)
            and not (text[dot] == "." and dot_binds(text, dot, text[behind]))
        ):
            yield behind


@given(text=st.one_of(texts, with_pieces().map(lambda made: made[0])), low=st.integers(1, 20), more=st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_a_step_leaves_the_bounds_only_if_it_cannot_be_joined_or_cut(text, low, more):
    bounds = AdaptiveBounds(low, low + more)
    ends = adaptive_ends(text, bounds)
    sizes = [estimate_tokens(step) for step in pieces_of(text, ends)]
    for index, size in enumerate(sizes):
        if size < bounds.min_tokens:
            assert all(
                size + other > bounds.max_tokens
                for other in sizes[max(0, index - 1) : index] + sizes[index + 1 : index + 2]
            )
        if size > bounds.max_tokens:
            assert not list(places_between_words(text, [0, *ends][index], ends[index]))


@pytest.mark.parametrize(("low", "high"), [(0, 5), (9, 8), (-1, -1)])
def test_bounds_that_no_step_can_keep_are_refused(low, high):
    with pytest.raises(UsageError, match=f"1 <= min_tokens <= max_tokens, got {low} and {high}"):
        AdaptiveBounds(low, high)


def test_bounds_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        AdaptiveBounds().min_tokens = 3


def check(marked, bounds=None):
    """Check that the rule cuts a text just where it is marked with a bar."""
    text = marked.replace("|", "")
    assert "|".join(pieces_of(text, adaptive_ends(text, bounds))) == marked


def test_paragraphs_of_a_good_size_stay_as_they_are():
    check(
        "Okay, so I need to find how many apples are left over when the baskets are shared out. Let me set it up.\n\n"
        "|First, there are 48 apples and 5 baskets, and each basket takes the same number of apples as the others.\n\n"
        "|So each basket takes 9 apples, since 5 * 9 = 45, and that leaves 48 - 45 = 3 apples over in the end."
    )


def test_fragments_join_the_side_they_belong_to():
    check(
        "So the total that she pays for the three shirts and the hat is 3 * 12 + 8 = 44 dollars.\n\n"
        "|Wait.\n\nHmm.\n\nShe also has a coupon, which takes 10 dollars off the price of everything she buys.\n\n"
        "|So the total is then 44 - 10 = 34 dollars, and the change from 50 dollars is 16 dollars."
    )


def test_a_lead_in_stays_with_its_formula_and_the_formula_with_its_legend():
    check(
        "We know that the future value of such a row of deposits is given by the formula:\n\n"
        "\\[ F = P \\cdot \\frac{(1 + r)^n - 1}{r} \\]\n\n"
        "where P is the deposit of each year and r is the rate that we are looking for.\n\n"
        "|Plugging in what we are given in the problem, we get the equation for the rate:\n\n"
        "66,200 = 20,000 * [(1 + r)^3 - 1] / r\n\n"
        "|Now I need to solve this equation for r, which may be done by setting x = 1 + r first."
    )


def test_a_turn_of_the_thinking_begins_a_step_inside_a_long_paragraph():
    check(
        "If he works 30 years, that is 10 years beyond the first 20, and he earns 5% for each of them. So he gets 50% "
        "of the full pension, which comes to 25,000 dollars in a year. "
        "|Wait, but maybe the 5% already starts to count from the first year he works there. Then 30 years would be "
        "150% of the pension, and that makes no sense, so the first reading is the right one."
    )


def test_a_wall_of_text_is_split_between_sentences():
    wall = "We take the next number and add it to the sum. " * 40
    sizes = [estimate_tokens(step) for step in pieces_of(wall, adaptive_ends(wall))]
    assert min(sizes) >= 16
    assert max(sizes) <= 160
    assert all(step.endswith("sum. ") for step in pieces_of(wall, adaptive_ends(wall)))


def test_a_sentence_over_the_bounds_is_split_between_clauses_first():
    check(
        "seven plus eight is fifteen, |nine plus ten is nineteen, |one plus two is three",
        AdaptiveBounds(4, 8),
    )
    words = "word " * 400
    assert all(16 <= estimate_tokens(step) <= 160 for step in pieces_of(words, adaptive_ends(words)))


def test_what_cannot_be_cut_stays_whole_over_the_bounds():
    formula = "\\[ " + " + ".join(f"x_{i}" for i in range(200)) + " \\]"
    before = "Adding up all of the two hundred terms that we have found so far gives us this long sum here: "
    after = "And so we are done with the sum of them all, which is as long as we had feared it to be."
    check(f"{before}|{formula}\n\n|{after}")
    check("a" * 5000)
    check("1" * 5000)


def test_an_open_dollar_does_not_keep_a_text_together():
    text = "He pays $5 for it. She has $x and more of them. " * 30
    steps = pieces_of(text, adaptive_ends(text, AdaptiveBounds(16, 30)))
    assert max(map(estimate_tokens, steps)) <= 30
    assert all(step.endswith(". ") for step in steps)


def test_numbered_items_and_bullets_of_an_answer():
    check(
        "To find the number of arrangements around the table, we follow these steps one after the other:\n\n"
        "1. **Count all arrangements:** there are 10 plates, so around a circle there are 9! = 362880 of them.\n"
        "|2. **Count the bad ones:** the two green plates form a unit, so there are 8! * 2 = 80640 of them.\n"
        "|3. **Subtract:** the number of good arrangements is 362880 - 80640 = 282240, which is our answer.\n"
    )


def test_a_heading_goes_with_what_it_heads():
    check(
        "So the answer follows from the two equations that we have set up and solved before.\n\n"
        "|### Check\n\n"
        "We put x = 3 and y = 4 back into both equations and find that 3 + 4 = 7 and 3 * 4 = 12 hold."
    )


def test_solutions_of_one_line_a_step_are_cut_at_lines():
    check(
        "In May she sold half as many clips as in April, which is 48 / 2 = 24 clips.\n"
        "|Together she sold 48 + 24 = 72 clips in the two months of April and May.\n"
    )
