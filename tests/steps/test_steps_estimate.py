"""The token estimate."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps_texts import pieces_of, texts

from reasonflux_prm.steps.adaptive import AdaptiveBounds, adaptive_ends
from reasonflux_prm.steps.estimate import estimate_tokens

# Counted with the tokenizer of SmolLM2.
COUNTED = {
    "Okay, so I need to find the number of apples that are left. Wait, let me check that again.": 23,
    "So, \\( \\frac{0.06}{12} = 0.005 \\), and therefore \\( (1.005)^{12} \\approx 1.0617 \\).": 50,
    "She sold 48/2 = 24 clips in May, so 48 + 24 = 72 clips altogether.\n\nThe answer is 72.": 39,
    "def area(radius):\n    return 3.14159 * radius ** 2\n": 21,
    "Alternatively, consider the quadratic x^2 + x - 2.31 = 0, whose discriminant is sqrt(10.24) = 3.2.": 38,
}


@pytest.mark.parametrize("text", COUNTED)
def test_the_estimate_is_near_a_real_tokenizers_count(text):
    assert estimate_tokens(text) == pytest.approx(COUNTED[text], rel=0.15)


@given(text=texts)
@settings(max_examples=200, deadline=None)
def test_visible_text_has_tokens_and_no_more_than_characters(text):
    assert bool(text.strip()) <= estimate_tokens(text) <= len(text)


@given(text=texts, low=st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_estimates_of_the_steps_sum_to_that_of_the_text(text, low):
    steps = pieces_of(text, adaptive_ends(text, AdaptiveBounds(low, 2 * low)))
    assert sum(map(estimate_tokens, steps)) == estimate_tokens(text)
