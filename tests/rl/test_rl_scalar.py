"""Blend and gate, the filters, and the overlong penalty."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_strategies import by_group, shares

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.filters import among_right, consistent, filtered, when_degenerate
from reasonflux_prm.rl.length import overlong
from reasonflux_prm.rl.normalise import group_advantages
from reasonflux_prm.rl.scalar import blend, gated

outcomes = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 0.5, 1.0]))
logits = st.floats(-50, 50)


def test_the_papers_blend():
    assert blend([1.0, 0.0], [0.5, 0.8], beta=0.25) == pytest.approx([0.75 + 0.125, 0.2])
    assert blend([1.0], [0.4]) == pytest.approx([0.25 + 0.75 * 0.4])  # the release's beta


def test_a_blend_lacks_what_one_part_lacks_if_it_counts():
    assert blend([1.0, None], [None, 0.5]) == [None, None]
    assert blend([1.0, None], [None, 0.5], beta=1) == [None, 0.5]
    assert blend([1.0, None], [None, 0.5], beta=0) == [1.0, None]


@given(st.lists(st.tuples(outcomes, st.one_of(st.none(), logits))), shares)
def test_a_gate_never_rewards_wrong_answers(pairs, alpha):
    found = gated([o for o, _ in pairs], [r for _, r in pairs], alpha, "sigmoid")
    for (outcome, reward), value in zip(pairs, found, strict=True):
        if outcome is not None and outcome <= 0:
            assert value == outcome
        elif outcome is not None and reward is not None:
            assert (1 - alpha) * outcome - 1e-12 <= value <= outcome + 1e-12
        else:
            assert value is None


@given(st.lists(logits, min_size=2, max_size=2), shares)
def test_a_gate_rises_with_the_reward_of_right_answers(rewards, alpha):
    low, high = sorted(rewards)
    found = gated([1.0, 1.0], [low, high], alpha, "sigmoid")
    assert found[0] <= found[1]


def test_a_gate_by_hand():
    assert gated([1.0, 0.0, -1.0], [0.5, 0.9, 0.9]) == [pytest.approx(0.9), 0.0, -1.0]
    with pytest.raises(UsageError, match=r"a gate needs rewards in \[0, 1\], got 1\.4; use link='sigmoid' for logits"):
        gated([1.0], [1.4])


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_are_checked(share):
    with pytest.raises(UsageError, match="beta must be in"):
        blend([], [], share)
    with pytest.raises(UsageError, match="alpha must be in"):
        gated([], [], share)
    with pytest.raises(UsageError, match="keep must be in"):
        consistent([], [], [], share)


# --- filters -------------------------------------------------------------------------------------------------------


def test_the_filter_keeps_those_on_which_both_agree():
    verdicts = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    rewards = [0.9, 0.2, 0.5, 0.1, 0.8, 0.3, 0.7, 0.1]
    kept = consistent(verdicts, rewards, "a" * 8)
    assert [i for i, keep in enumerate(kept) if keep] == [0, 3, 4, 6]  # two right, two wrong
    proportional = consistent(verdicts, rewards, "a" * 8, balance=False)
    assert [i for i, keep in enumerate(proportional) if keep] == [0, 2, 3, 6]
    assert consistent([1.0, 1.0], [0.1, 0.2], "aa", 0.5) == [True, True]
    assert filtered([1.0, 0.0], [False, True]) == [None, 0.0]


@given(st.lists(st.tuples(outcomes, st.one_of(st.none(), shares), st.integers(0, 2)), max_size=20), shares)
def test_the_filter_keeps_the_best_right_and_the_worst_wrong(rows, keep):
    verdicts, rewards, groups = ([row[k] for row in rows] for k in range(3))
    kept = consistent(verdicts, rewards, groups, keep)
    for group in by_group(list(zip(verdicts, rewards, kept, strict=True)), groups):
        assert not any(k for o, r, k in group if o is None or r is None)
        scored = [(o > 0, r, k) for o, r, k in group if o is not None and r is not None]
        for right, sign in ((True, 1), (False, -1)):
            best = [sign * r for verdict, r, k in scored if verdict is right and k]
            gone = [sign * r for verdict, r, k in scored if verdict is right and not k]
            assert not best or not gone or min(best) >= max(gone)
        if len({right for right, _, _ in scored}) == 2:
            assert sum(k for _, _, k in scored) == max(1, round(keep * len(scored)))
            # Even, but for groups that have too few of one kind.
            counts = [[k for right, _, k in scored if right is side] for side in (True, False)]
            if abs(sum(counts[0]) - sum(counts[1])) > 1:
                assert any(all(side) for side in counts)


def test_the_prm_speaks_where_the_verifier_is_silent():
    verdicts, rewards, groups = [1.0, 0.0, 0.0, 0.0], [0.1, 0.9, 0.2, 0.6], "aabb"
    found = when_degenerate(verdicts, rewards, groups, weight=0.5)
    assert found[:2] == group_advantages([1.0, 0.0], "aa")
    assert found[2:] == pytest.approx([0.5 * a for a in group_advantages([0.2, 0.6], "bb")])


def test_the_prm_orders_the_right_only():
    verdicts, rewards, groups = [1.0, 1.0, 0.0, None], [0.9, 0.1, 0.99, 0.5], "aaaa"
    found = among_right(verdicts, rewards, groups, weight=0.5)
    plain = group_advantages(verdicts, groups)
    assert found[2:] == plain[2:]
    assert found[0] - plain[0] == pytest.approx(0.5 * group_advantages([0.9, 0.1], "aa")[0])
    assert found[0] > found[1] > found[2]


def test_the_overlong_penalty():
    assert overlong([10, 80, 90, 100, 150], limit=100, buffer=20) == [0.0, 0.0, -0.5, -1.0, -1.0]
    with pytest.raises(UsageError, match="between 1 token and the limit's 10, got 20"):
        overlong([], 10, 20)
