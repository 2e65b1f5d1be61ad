"""First errors by hand, and the chosen threshold against trying every one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.first_error import choose_threshold, hits, lowest, predict, weighted_f1
from reasonflux_prm.evaluation.intervals import bootstrap

REWARDS = [[0.9, 0.4, 0.1], [0.8, 0.7], [0.3, 0.9], [0.6, None, 0.2]]


@pytest.mark.parametrize(
    ("rewards", "threshold", "expected"),
    [
        ([0.9, 0.4, 0.1], 0.5, 1),
        ([0.9, 0.5], 0.5, None),
        ([None, 0.2], 0.5, 1),
        ([], 0.5, None),
        ([None], 0.5, None),
    ],
)
def test_predict(rewards, threshold, expected):
    assert predict(rewards, threshold) == expected


def test_lowest():
    assert [lowest(rewards) for rewards in REWARDS] == [2, 1, 0, 2]
    assert lowest([0.5, None, 0.5]) == 0
    assert lowest([None]) is None


def test_f1_by_hand():
    firsts = [1, None, 1, 2]
    found = hits(REWARDS, firsts, 0.5)
    assert found == [True, True, False, True]
    # 2 of 3 with an error, 1 of 1 without: 2 * (2/3) * 1 / (2/3 + 1)
    assert weighted_f1(found, firsts)(np.ones((1, 4)))[0] == pytest.approx(0.8)
    weights = np.array([[1.0, 1, 2, 0], [0, 0, 1, 1], [0, 1, 1, 0]])
    # 1 of 3 and 1 of 1; nothing without an error; 0 of 1 and 1 of 1
    assert weighted_f1(found, firsts)(weights) == pytest.approx([0.5, math.nan, 0.0], nan_ok=True)
    assert weighted_f1([False, False], [0, None])(np.ones((1, 2)))[0] == 0
    assert bootstrap(weighted_f1(found, firsts), "abcd").value == pytest.approx(0.8)


def f1(rewards, firsts, threshold):
    """Count, in the plainest way."""
    shares = []
    for kind in (True, False):
        own = [(r, first) for r, first in zip(rewards, firsts, strict=True) if (first is None) is kind]
        shares.append(sum(predict(r, threshold) == first for r, first in own) / len(own))
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


LEVELS = [None, 0.0, 0.1, 0.3, 0.5, 0.7, 1.0]
TRACES = st.lists(
    st.lists(st.sampled_from(LEVELS), min_size=1, max_size=5).flatmap(
        lambda r: st.tuples(st.just(r), st.one_of(st.none(), st.integers(0, len(r) - 1)))
    ),
    min_size=2,
    max_size=12,
)


@given(TRACES)
def test_no_threshold_is_better(traces):
    rewards, firsts = zip(*traces, strict=True)
    if None not in firsts or all(first is None for first in firsts):
        with pytest.raises(UsageError, match="one of the two kinds"):
            choose_threshold(rewards, firsts)
        return
    chosen = choose_threshold(rewards, firsts)
    assert math.isfinite(chosen)
    # Between any two of these levels all thresholds judge alike.
    best = max(f1(rewards, firsts, t) for t in (-1, 0.05, 0.2, 0.4, 0.6, 0.9, 2, *LEVELS[1:]))
    assert f1(rewards, firsts, chosen) == pytest.approx(best)


def test_threshold_by_hand():
    # The wrong step at 0.4 needs a threshold above 0.4, the right trace one of at most 0.7: the end of what both allow.
    assert choose_threshold([[0.9, 0.4, 0.1], [0.8, 0.7]], [1, None]) == 0.7


def test_refuses_other_lengths():
    with pytest.raises(UsageError, match="1 for 2 traces"):
        hits([[0.1], [0.2]], [0], 0.5)
