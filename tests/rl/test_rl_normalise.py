"""Group normalisation: what sums to zero, what changes nothing, and TRL's own arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_strategies import by_group, shares

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.normalise import BASELINES, SCALES, group_advantages

named = st.tuples(st.sampled_from(["mean", "leave-one-out"]), st.sampled_from(SCALES))
some = st.lists(st.tuples(st.one_of(st.none(), shares), st.integers(0, 2)), min_size=1, max_size=15)


def test_a_group_by_hand():
    # Mean 0.5, deviation with Bessel's correction sqrt(1/3 * (4 * 0.25)) = 0.57735.
    found = group_advantages([1.0, 0.0, 1.0, 0.0], "aaaa", eps=0.0)
    assert found == pytest.approx([0.866025, -0.866025, 0.866025, -0.866025], abs=1e-6)
    assert group_advantages([1.0, 0.0, 0.0], "aaa", baseline="leave-one-out", scale="none") == [1.0, -0.5, -0.5]
    assert group_advantages([1.0, None], "aa", baseline="none", scale="none") == [1.0, 0.0]


@given(some, named)
def test_the_advantages_of_a_group_sum_to_zero(pairs, names):
    rewards, groups = [r for r, _ in pairs], [g for _, g in pairs]
    found = group_advantages(rewards, groups, baseline=names[0], scale=names[1])
    for group in by_group(found, groups):
        assert sum(group) == pytest.approx(0, abs=1e-6)


@given(some, named, st.floats(-5, 5).map(lambda x: round(x, 2)))
def test_what_all_rewards_have_in_common_changes_nothing(pairs, names, shift):
    groups = [g for _, g in pairs]
    one, other = (
        group_advantages([None if r is None else r + s for r, _ in pairs], groups, baseline=names[0], scale=names[1])
        for s in (0.0, shift)
    )
    # Deviations of some 1e-16 that should be 0 are as good as eps.
    assert one == pytest.approx(other, abs=1e-6)


@given(some, st.sampled_from(BASELINES), st.sampled_from(SCALES), st.randoms())
def test_the_order_of_rollouts_does_not_matter_and_unscored_ones_get_zero(pairs, baseline, scale, random):
    places = list(range(len(pairs)))
    random.shuffle(places)
    straight = group_advantages([r for r, _ in pairs], [g for _, g in pairs], baseline=baseline, scale=scale)
    mixed = group_advantages(
        [pairs[i][0] for i in places], [pairs[i][1] for i in places], baseline=baseline, scale=scale
    )
    assert mixed == pytest.approx([straight[i] for i in places], abs=1e-9)
    assert all(a == 0 for a, (r, _) in zip(straight, pairs, strict=True) if r is None)


def test_an_unscored_rollout_is_as_good_as_absent():
    rewards, groups = [0.2, None, 0.9, 0.4, None], "abaab"
    without = group_advantages([0.2, 0.9, 0.4], "aaa")
    assert group_advantages(rewards, groups) == pytest.approx([without[0], 0, without[1], without[2], 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "median"}, "unknown baseline 'median'; there are mean, leave-one-out, none"),
        ({"scale": "token"}, "unknown scale 'token'; there are group, batch, none"),
        ({"groups": "a"}, "expected one group for each reward, got 1 and 2"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        group_advantages(**{"rewards": [1.0, 0.0], "groups": "aa", **arguments})
