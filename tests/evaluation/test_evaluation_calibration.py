"""Fits against scikit-learn, a slow search and hand-made cases; errors of calibration by hand; order is kept."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from reasonflux_prm.errors import InputError
from reasonflux_prm.evaluation.calibration import (
    Items,
    bins_of,
    brier,
    calibration_error,
    cross_fitted,
    fit,
    fit_isotonic,
    fit_temperature,
    items_of,
    log_loss,
    pool,
)
from reasonflux_prm.prm.calibration import TIE_SLOPE, logit
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Step, Trace

REWARDS = st.lists(st.tuples(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.25, 1.0])), min_size=2, max_size=40)


def items(rewards, labels, clusters=None):
    return Items(tuple(rewards), tuple(map(float, labels)), tuple(clusters or map(str, range(len(rewards)))))


def made_up(n, temperature, bias, seed=0):
    """Return items whose labels are drawn with the odds that a temperature and a bias say."""
    rng = random.Random(seed)
    rewards = [rng.random() for _ in range(n)]
    odds = [logit(reward) / temperature + bias for reward in rewards]
    return items(rewards, [rng.random() < 1 / (1 + np.exp(-z)) for z in odds], [str(k % 97) for k in range(n)])


def plain(statistic, n):
    return float(statistic(np.ones((1, n)))[0])


def test_temperature_and_bias_are_found_again():
    found = fit_temperature(made_up(40_000, 2.5, -0.7))
    assert found.temperature == pytest.approx(2.5, rel=0.03)
    assert found.bias == pytest.approx(-0.7, abs=0.03)


def test_temperature_has_the_greatest_likelihood():
    own = made_up(300, 0.5, 0.3, seed=1)
    found = fit_temperature(own)
    good = sum(own.labels)
    targets = [(good + 1) / (good + 2) if y else 1 / (len(own) - good + 2) for y in own.labels]

    def loss(temperature, bias):
        odds = np.array([logit(r) / temperature + bias for r in own.rewards])
        return float((np.logaddexp(0, odds) - np.array(targets) * odds).sum())

    best = loss(found.temperature, found.bias)
    for t in (0.99, 1.01):
        for b in (-0.01, 0.01):
            assert best < loss(found.temperature * t, found.bias + b)


def test_rewards_that_separate_give_a_finite_temperature():
    found = fit_temperature(items([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]))
    # With targets of 3/4 and 1/4 the best line is bounded; by symmetry there is no bias.
    assert 1 < found.temperature < 2
    assert found.bias == pytest.approx(0, abs=1e-9)
    assert 0.75 < found(0.9) < 0.9


def test_pool_by_hand():
    # 3 (1) and 4 (0) go together, then with 5 (0.4): (1 + 0 + 0.4) / 3.
    blocks = pool(np.array([1.0, 3, 4, 5, 6]), np.array([0.0, 1, 0, 0.4, 1]), np.ones(5))
    assert blocks == [(1.0, 0.0, 1.0), (pytest.approx(4.0), pytest.approx(1.4 / 3), 3.0), (6.0, 1.0, 1.0)]


@given(REWARDS, st.integers(0, 9))
def test_pool_is_scikit_learns(rows, seed):
    x, y = np.array(rows).T
    x = np.round(x * 64)  # scikit-learn takes rewards that are very close for equal
    weights = np.random.default_rng(seed).integers(1, 4, len(x)).astype(float)
    expected = IsotonicRegression().fit(x, y, weights).predict(x)
    blocks = pool(x, y, weights)
    assert sum(weight for *_, weight in blocks) == pytest.approx(weights.sum())
    for value, own in zip(x, expected, strict=True):
        assert min(abs(block - own) for _, block, _ in blocks) < 1e-9, value


def test_isotonic_by_hand():
    # With half a good item at 0.1 and half a wrong one at 0.9: 0.1 -> (0 + .5) / 1.5 = 1/3, 0.9 -> 1 / 1.5 = 2/3.
    found = fit_isotonic(items([0.1, 0.9], [0, 1]))
    assert found(0.1) == pytest.approx(1 / 3, abs=TIE_SLOPE)
    assert found(0.9) == pytest.approx(2 / 3, abs=TIE_SLOPE)
    assert found(0.5) == pytest.approx(1 / 2, abs=TIE_SLOPE)
    assert found(0.0) == pytest.approx(1 / 3, abs=TIE_SLOPE)
    assert found(0.0) < found(0.05) < found(0.1), "order is kept where the data say nothing of it"


@given(REWARDS, st.sampled_from(["temperature", "isotonic"]))
def test_order_is_kept_and_maps_can_be_undone(rows, kind):
    x, y = zip(*rows, strict=True)
    try:
        found = fit(items(x, y), kind)
    except InputError:
        return
    ordered = sorted(set(x))
    mapped = [found(value) for value in ordered]
    assert all(0 <= value <= 1 for value in mapped)
    assert mapped == sorted(mapped)
    if kind == "isotonic":
        assert len(set(mapped)) == len({round(value, 9) for value in ordered}) or min(np.diff(ordered)) < 1e-9
        assert [found.raw(value) for value in mapped] == pytest.approx(ordered, abs=1e-8)


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_what_cannot_be_calibrated(kind):
    with pytest.raises(InputError, match="all of 2 equal to 1"):
        fit(items([0.1, 0.2], [1, 1]), kind)
    with pytest.raises(InputError, match="got none"):
        fit(items([], []), kind)
    with pytest.raises(InputError, match="no calibration can mend"):
        fit(items([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1]), kind)
    with pytest.raises(InputError, match="no calibration can mend"):
        fit(items([0.5, 0.5, 0.5], [0, 1, 1]), kind)


def test_cross_fitted_never_sees_its_own_problem():
    own = made_up(500, 2.0, 0.0)
    held = cross_fitted(own, "temperature")
    name = own.clusters[0]
    flipped = [1 - y if c == name else y for y, c in zip(own.labels, own.clusters, strict=True)]
    again = cross_fitted(items(own.rewards, flipped, own.clusters), "temperature")
    mine = [k for k, c in enumerate(own.clusters) if c == name]
    assert [held.rewards[k] for k in mine] == [again.rewards[k] for k in mine]
    assert held.rewards != again.rewards
    assert cross_fitted(items([0.1, 0.9], [0, 1], ["p", "p"]), "temperature") is None
    assert cross_fitted(items([0.1, 0.9], [0, 1], ["p", "q"]), "temperature") is None


def test_bins():
    assert bins_of([0, 0.09, 0.1, 0.95, 1.0], 10).tolist() == [0, 0, 1, 9, 9]
    assert bins_of([0.1, 0.2, 0.3, 0.4], 2, "mass").tolist() == [0, 0, 1, 1]
    assert bins_of([0.1, 0.3, 0.3, 0.3], 2, "mass").tolist() == [0, 1, 1, 1], "equal rewards stay together"


def test_errors_by_hand():
    own = items([0.2, 0.4, 0.9, 0.7], [0, 1, 1, 1])
    # Two bins: |(.2 + .4) - 1| / 4 + |(.9 + .7) - 2| / 4
    assert plain(calibration_error(own, 2), 4) == pytest.approx(0.2)
    assert plain(calibration_error(own, 2, "mass"), 4) == pytest.approx(0.2)
    # One bin: |2.2 - 3| / 4
    assert plain(calibration_error(own, 1), 4) == pytest.approx(0.2)
    assert plain(calibration_error(own, 4, "mass"), 4) == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4)
    assert plain(brier(own), 4) == pytest.approx((0.04 + 0.36 + 0.01 + 0.09) / 4)
    expected = -(np.log(0.8) + np.log(0.4) + np.log(0.9) + np.log(0.7)) / 4
    assert plain(log_loss(own), 4) == pytest.approx(expected)


def test_a_weight_of_two_is_the_item_twice():
    once, twice = items([0.2, 0.4, 0.9], [0, 1, 1]), items([0.2, 0.4, 0.4, 0.9], [0, 1, 1, 1])
    weights = np.array([[1.0, 2.0, 1.0]])
    assert calibration_error(once, 2)(weights)[0] == pytest.approx(plain(calibration_error(twice, 2), 4))


def test_calibration_lowers_the_error_on_other_data():
    found = fit(made_up(5_000, 3.0, 0.8, seed=1), "isotonic")
    other = made_up(5_000, 3.0, 0.8, seed=2)
    before = plain(calibration_error(other), 5_000)
    after = plain(calibration_error(other.mapped(found)), 5_000)
    assert before > 0.15
    assert after < 0.03


def scored(step_rewards, labels, correct, trajectory, status=Status.SCORED):
    steps = tuple(Step("response", k, k + 1) for k in range(len(labels)))
    trace = Trace("t", " p ", response="x" * len(labels), correct=correct, steps=steps, step_labels=labels)
    identity = PRMIdentity("n", "r", "native", "causal", "mean", 1.0)
    return ScoredTrace(trace, status, steps, step_rewards, trajectory, 0.5, identity, 1)


def test_items_of_scored_traces():
    traces = [
        scored((0.1, None, 0.3), (1.0, 0.0, None), True, 0.7),
        scored((0.2,), (0.5,), None, 0.9),
        scored((None,), (1.0,), True, None, Status.FAILED),
    ]
    assert items_of(traces, "steps") == Items((0.1, 0.2), (1.0, 0.5), ("p", "p"))
    assert items_of(traces, "trajectory") == Items((0.7,), (1.0,), ("p",))
    with pytest.raises(InputError, match=r"got -1 in 't'"):
        items_of([scored((-1.0,), (1.0,), True, 0.5)], "steps")
