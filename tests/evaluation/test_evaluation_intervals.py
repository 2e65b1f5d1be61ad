"""Bootstrap intervals: against a slow resampling of items, against theory, and what clusters and pairs do to them."""

import numpy as np
import pytest

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation import intervals
from reasonflux_prm.evaluation.intervals import Interval, bootstrap, paired_difference
from reasonflux_prm.evaluation.metrics import auc, weighted_auc, weighted_mean


def slow_interval(statistic, clusters, draws, seed):
    """Draw whole clusters and collect their items, one resample after the other."""
    names = list(dict.fromkeys(clusters))
    members = [[i for i, cluster in enumerate(clusters) if cluster == name] for name in names]
    drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    values = [statistic([i for number in row for i in members[number]]) for row in drawn]
    return np.quantile([value for value in values if value is not None], [0.025, 0.975])


@pytest.fixture
def items():
    random = np.random.default_rng(3)
    clusters = random.integers(12, size=60).tolist()
    labels = random.random(60) < 0.6
    scores = np.round(random.normal(size=60) + labels, 1)
    return scores, labels, clusters


def test_equals_resampling_items(items):
    scores, labels, clusters = items
    found = bootstrap(weighted_auc(scores, labels), clusters, draws=300, seed=5)
    assert found.value == auc(scores, labels)
    assert (found.n, found.clusters) == (60, 12)
    assert [found.low, found.high] == pytest.approx(
        slow_interval(lambda rows: auc(scores[rows], labels[rows]), clusters, 300, 5)
    )
    mean = bootstrap(weighted_mean(scores), clusters, draws=300, seed=5)
    assert [mean.low, mean.high] == pytest.approx(slow_interval(lambda rows: scores[rows].mean(), clusters, 300, 5))


def test_memory_bound_changes_nothing(items, monkeypatch):
    scores, labels, clusters = items
    whole = bootstrap(weighted_auc(scores, labels), clusters)
    monkeypatch.setattr(intervals, "_CELLS", 7 * len(scores))
    assert bootstrap(weighted_auc(scores, labels), clusters) == whole


def test_width_is_that_of_theory():
    values = np.random.default_rng(0).normal(size=900)
    found = bootstrap(weighted_mean(values), range(900))
    expected = 1.96 * values.std() / 30
    assert found.high - found.value == pytest.approx(expected, rel=0.1)
    assert found.value - found.low == pytest.approx(expected, rel=0.1)


def test_copies_within_a_cluster_make_it_no_surer():
    values = np.random.default_rng(0).normal(size=50)
    single = bootstrap(weighted_mean(values), range(50))
    copied = bootstrap(weighted_mean(np.repeat(values, 8)), np.repeat(range(50), 8).tolist())
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high))
    assert (copied.n, copied.clusters) == (400, 50)


def test_95_percent_hold_the_truth():
    random = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        values = (random.normal(size=(60, 1)) + random.normal(size=(60, 4))).ravel()
        found = bootstrap(weighted_mean(values), np.repeat(range(60), 4).tolist(), draws=300)
        held += found.low <= 0 <= found.high
    # Binomial(300, 0.95) has a standard deviation of 0.0126; were single items drawn, about 0.78 would be.
    assert 0.90 <= held / 300 <= 0.985


def test_seed(items):
    scores, labels, clusters = items
    first, again, other = (bootstrap(weighted_auc(scores, labels), clusters, seed=s) for s in (0, 0, 1))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_a_difference_is_paired(items):
    scores, _, clusters = items
    same = weighted_mean(scores)
    assert paired_difference(same, same, clusters) == Interval(0.0, 0.0, 0.0, 60, 12)
    shifted = paired_difference(weighted_mean(scores + 2), same, clusters)
    assert (shifted.value, shifted.low, shifted.high) == pytest.approx((2, 2, 2))
    noise = scores + np.random.default_rng(0).normal(size=60) / 10
    pair = paired_difference(weighted_mean(noise), same, clusters)
    alone = bootstrap(same, clusters)
    assert pair.high - pair.low < (alone.high - alone.low) / 4


def test_without_a_value():
    assert bootstrap(weighted_auc([1, 2], [1, 1]), ["a", "b"]) == Interval(None, None, None, 2, 2)
    assert bootstrap(weighted_mean([1, 2]), ["a", "a"]) == Interval(1.5, None, None, 2, 1)


def test_resamples_without_a_value_are_left_out():
    # Only the resamples that hold both problems have an AUC, and it is 1 in each of them.
    assert bootstrap(weighted_auc([2, 1], [1, 0]), ["a", "b"]) == Interval(1.0, 1.0, 1.0, 2, 2)


@pytest.mark.parametrize(
    ("clusters", "settings", "message"),
    [([], {}, "at least one item"), (["a"], {"draws": 0}, "at least one draw"), (["a"], {"level": 1.0}, "a level")],
)
def test_refuses(clusters, settings, message):
    with pytest.raises(UsageError, match=message):
        bootstrap(weighted_mean([1.0]), clusters, **settings)
