"""From step rewards to one number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import UsageError
from reasonflux_prm.scoring.aggregate import AGGREGATIONS, PRODUCT_FLOOR, aggregate

STEPS = [0.5, 0.25, 1.0]
BY_HAND = {
    "mean": (0.5 + 0.25 + 1.0) / 3,
    "min": 0.25,
    "product": math.log(0.125),
    "last": 1.0,
    "sum": 1.75,
    "weighted": (1 * 0.5 + 2 * 0.25 + 3 * 1.0) / 6,
}


def test_every_aggregation_is_checked_here():
    assert BY_HAND.keys() == AGGREGATIONS.keys()


@pytest.mark.parametrize("how", BY_HAND)
def test_by_hand(how):
    assert aggregate(STEPS, None, how) == pytest.approx(BY_HAND[how], abs=1e-12)


@pytest.mark.parametrize("how", BY_HAND)
def test_with_a_trajectory_reward(how):
    extra = 0.8 if how != "product" else math.log(0.8)
    assert aggregate(STEPS, 0.8, how, alpha=1.0) == pytest.approx(BY_HAND[how] + extra, abs=1e-12)
    assert aggregate(STEPS, 0.8, how, alpha=0.25) == pytest.approx(BY_HAND[how] + 0.25 * extra, abs=1e-12)
    assert aggregate(STEPS, 0.8, how, alpha=0.0) == pytest.approx(BY_HAND[how], abs=1e-12)


def test_the_defaults_are_the_papers():
    assert aggregate(STEPS, 0.8) == pytest.approx(1.75 / 3 + 0.8, abs=1e-12)


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=40),
    st.sampled_from(sorted(AGGREGATIONS)),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_a_step_without_a_reward_is_left_out(rewards, how, trajectory):
    known = [reward for reward in rewards if reward is not None]
    assert aggregate(rewards, trajectory, how) == aggregate(known, trajectory, how)


@pytest.mark.parametrize("how", sorted(AGGREGATIONS))
def test_none_is_not_zero(how):
    assert aggregate([1.0, None, 1.0], None, how) == aggregate([1.0, 1.0], None, how)
    if how != "sum":
        assert aggregate([1.0, None, None], None, how) > aggregate([1.0, 0.0, 0.0], None, how)


@pytest.mark.parametrize("how", sorted(AGGREGATIONS))
@pytest.mark.parametrize("steps", [[], [None], [None, None]])
def test_without_step_rewards_the_trajectory_reward_is_all(how, steps):
    expected = math.log(0.3) if how == "product" else 0.3
    assert aggregate(steps, 0.3, how, alpha=0.5) == pytest.approx(expected)
    assert aggregate(steps, None, how) is None


def test_a_product_of_thousands_does_not_underflow():
    low, high = aggregate([0.1] * 5000, None, "product"), aggregate([0.11] * 5000, None, "product")
    assert low == pytest.approx(5000 * math.log(0.1))
    assert low < high < 0


def test_a_zero_in_a_product_stays_finite_and_keeps_the_order():
    floor = math.log(PRODUCT_FLOOR)
    assert aggregate([0.0, 1.0], None, "product") == pytest.approx(floor)
    assert aggregate([0.0, 0.5], None, "product") < aggregate([0.0, 0.9], None, "product")
    assert aggregate([0.0, 0.0], None, "product") < aggregate([0.0, 0.9], None, "product")
    assert aggregate([1e-6] * 4, None, "product") > floor
    assert aggregate([1.0], 0.0, "product") == pytest.approx(floor)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.data())
def test_a_better_step_never_lowers_the_aggregate(rewards, data):
    at = data.draw(st.integers(0, len(rewards) - 1))
    better = [*rewards[:at], data.draw(st.floats(rewards[at], 1)), *rewards[at + 1 :]]
    for how in AGGREGATIONS:
        assert aggregate(better, None, how) >= aggregate(rewards, None, how) - 1e-12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_where_each_lies(rewards):
    least, most = min(rewards), max(rewards)
    for how in ("mean", "weighted", "min", "last"):
        assert least - 1e-12 <= aggregate(rewards, None, how) <= most + 1e-12
    assert aggregate(rewards, None, "product") <= 0


def test_later_steps_weigh_more():
    assert aggregate([0.0, 1.0], None, "weighted") == pytest.approx(2 / 3)
    assert aggregate([1.0, 0.0], None, "weighted") == pytest.approx(1 / 3)


def test_a_product_refuses_signs():
    with pytest.raises(UsageError, match=r"a product needs rewards of at least 0, got -0\.5; use --aggregation mean"):
        aggregate([0.3, -0.5], None, "product")
    with pytest.raises(UsageError, match="at least 0"):
        aggregate([0.3], -0.5, "product")
    assert aggregate([0.3, -0.5], -0.5, "min") == -1.0


def test_unknown_name():
    with pytest.raises(UsageError, match="unknown aggregation 'median'; there are mean, min, product, last, sum"):
        aggregate(STEPS, None, "median")
