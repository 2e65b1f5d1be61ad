"""Coherence against the paper's equation, and its bounded form against a softmax."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.coherence import coherence, probability

cosines = st.floats(-1, 1)
steps = st.integers(1, 6).flatmap(
    lambda count: st.lists(
        st.tuples(cosines, st.lists(cosines, min_size=count, max_size=count)), min_size=1, max_size=4
    )
)
temperatures = st.floats(0.05, 2)


def columns(cases):
    return [true for true, _ in cases], [negatives for _, negatives in cases]


@given(steps, temperatures)
def test_raw_is_the_paper_as_printed(cases, tau):
    expected = [
        math.log(math.exp(true / tau) / sum(math.exp(other / tau) for other in negatives)) for true, negatives in cases
    ]
    assert coherence(*columns(cases), tau) == pytest.approx(expected, abs=1e-9)


@given(steps, temperatures)
def test_bounded_is_the_softmax_with_the_true_step_among_the_negatives(cases, tau):
    expected = [
        math.exp(true / tau) / sum(math.exp(other / tau) for other in [true, *negatives]) for true, negatives in cases
    ]
    assert probability(coherence(*columns(cases), tau)) == pytest.approx(expected, abs=1e-9)


@given(steps, temperatures)
def test_raw_stays_within_its_documented_range(cases, tau):
    values = coherence(*columns(cases), tau)
    count = len(cases[0][1])
    assert (values >= -2 / tau - math.log(count) - 1e-9).all()
    assert (values <= 2 / tau - math.log(count) + 1e-9).all()


def test_a_cold_temperature_overflows_nothing():
    values = coherence([1.0, -1.0], [[-1.0, -0.9], [1.0, 0.9]], 1e-6)
    assert values == pytest.approx([1.9e6, -2e6])
    assert probability(values).tolist() == [1.0, 0.0]


def test_as_close_as_each_negative_is_one_in_all_of_them():
    assert probability(coherence([0.3], [[0.3] * 16])) == pytest.approx([1 / 17])


def test_more_of_the_same_negatives_lower_it_by_their_logarithm():
    once, twice = coherence([0.5], [[0.1, 0.2]]), coherence([0.5], [[0.1, 0.2] * 2])
    assert once - twice == pytest.approx([math.log(2)])


def test_probability_of_nothing_is_nothing():
    assert np.isnan(probability(math.nan))
    assert probability([-1e300, 0.0, 1e300]).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("tau", [0.0, -0.1, math.inf, math.nan])
def test_a_temperature_must_be_above_0(tau):
    with pytest.raises(UsageError, match=r"temperature above 0 .* 0\.1 is the default"):
        coherence([0.5], [[0.1]], tau)


@pytest.mark.parametrize("shape", [(3, 0), (3,)])
def test_there_must_be_negatives(shape):
    with pytest.raises(UsageError, match=r"at least one a step"):
        coherence(np.zeros(3), np.zeros(shape))
