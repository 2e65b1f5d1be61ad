"""What the monitor counts, and when it cries."""

from __future__ import annotations

import random

import pytest

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.monitor import Monitor, MonitorSettings, batch_signs, repeated_share
from reasonflux_prm.rl.rollouts import Rollout

SETTINGS = MonitorSettings(window=5)


def batch(rng, accuracy=0.5, reward=0.5, tokens=100, agree=True, groups=16, size=4):
    """Return a batch with noise about the given means; right rollouts have the higher rewards if they `agree`."""
    found = []
    for group in range(groups):
        for _ in range(size):
            right = rng.random() < accuracy
            noise = rng.uniform(0, 0.1) * (1 if right == agree else -1)
            found.append(Rollout(group, round(tokens * rng.uniform(0.9, 1.1)), float(right), reward + noise))
    return found


def alarms(batches, texts=(), settings=SETTINGS):
    monitor = Monitor(settings)
    return [alarm.kind for one in batches for alarm in monitor.update(one, texts)[1]]


def drift(n, **ends):
    """Return n batches whose means go from the first to the last of each pair."""
    rng = random.Random(0)
    return [batch(rng, **{name: a + (b - a) * k / (n - 1) for name, (a, b) in ends.items()}) for k in range(n)]


def test_a_healthy_run_is_quiet():
    assert alarms(drift(30, accuracy=(0.4, 0.7), reward=(0.5, 0.7), tokens=(100, 140))) == []


def test_reward_up_and_accuracy_down_is_gaming():
    assert alarms(drift(30, accuracy=(0.6, 0.1), reward=(0.5, 0.9))) == ["gamed"]
    assert alarms(drift(30, accuracy=(0.6, 0.1), reward=(0.5, 0.1))) == []


@pytest.mark.parametrize(("last", "kind"), [(400, "longer"), (20, "shorter")])
def test_length_that_goes_wild(last, kind):
    assert alarms(drift(20, tokens=(100, last))) == [kind]


def test_an_alarm_is_given_again_only_after_it_has_ceased():
    rng = random.Random(1)
    run = [100] * 10 + [500] * 10 + [100] * 10 + [500] * 10
    assert alarms([batch(rng, tokens=tokens) for tokens in run]) == ["longer", "longer"]


def test_a_prm_that_works_against_the_verifier():
    rng = random.Random(2)
    assert alarms([batch(rng, agree=False) for _ in range(10)]) == ["disagree"]


def test_groups_without_spread_and_rollouts_without_rewards():
    same = [Rollout(n // 4, 10, 1.0, 0.5) for n in range(16)]
    assert alarms([same] * 10) == ["flat"]
    missing = [Rollout(n // 4, 10, float(n % 2), 0.1 * (n % 4), note="x" if n % 4 == 0 else None) for n in range(16)]
    assert alarms([missing] * 10) == ["unscored"]


def test_texts_that_repeat_themselves():
    rng = random.Random(3)
    assert repeated_share("so the sum is 4 and the sum is 5") == 0
    assert repeated_share("so it is " * 50) > 0.9
    assert repeated_share("too short") == 0
    assert alarms([batch(rng) for _ in range(10)], ["wait let me check this again " * 20]) == []  # from the start
    monitor = Monitor(SETTINGS)
    kinds = []
    for n in range(10):
        text = "wait let me check this again " * (20 if n >= 5 else 1)
        kinds += [alarm.kind for alarm in monitor.update(batch(rng), [text])[1]]
    assert kinds == ["repetitive"]


def test_the_numbers_of_a_batch_by_hand():
    signs = batch_signs(
        [
            Rollout("a", 4, 1.0, 0.8, (0.5, None), (1, 3)),
            Rollout("a", 2, 0.0, 0.8),
            Rollout("a", 2, 0.0, 0.2),
            Rollout("b", 4, 1.0, 0.5),
            Rollout("b", 4, 1.0, 0.5),
            Rollout("c", 8, None, None, note="no steps"),
        ]
    )
    assert signs.metrics() == pytest.approx(
        {
            "reward": 2.8 / 5,
            "accuracy": 3 / 5,
            "auc": 0.75,  # a tie and a win
            "tokens": 4,
            "steps": 2 / 6,
            "group_std": (0.34641 + 0) / 2,
            "flat": 0.5,
            "unscored": 1 / 6,
        },
        abs=1e-4,
    )


def test_what_is_refused():
    with pytest.raises(UsageError, match="a window of at least 2 batches"):
        MonitorSettings(window=1)
    with pytest.raises(UsageError, match="a batch needs at least one rollout"):
        batch_signs([])
