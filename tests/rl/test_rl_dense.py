"""Token advantages: by hand, by properties, and the best policy of a small decision process under shaping."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_strategies import by_group, rollouts, shares

from reasonflux_prm.errors import UsageError
from reasonflux_prm.rl.dense import CREDITS, credit_weights, padded, process, token_values
from reasonflux_prm.rl.normalise import group_advantages
from reasonflux_prm.rl.potential import potential, shaping
from reasonflux_prm.rl.rollouts import Rollout
from reasonflux_prm.rl.shaping import SHAPINGS, Process, open_shaping


def test_a_token_has_what_is_to_come_from_its_step_on():
    assert token_values([1.0, 2.0, 4.0], [1, 2, 4], 6).tolist() == [7, 7, 6, 4, 4, 0]
    # Two steps that end in one token are both behind it.
    assert token_values([1.0, 2.0], [1, 1], 2).tolist() == [3, 3]


def test_rows_are_padded():
    assert padded([np.ones(1), np.ones(2)], 3).tolist() == [[1, 0, 0], [1, 1, 0]]
    assert padded([], 2).shape == (0, 2)
    with pytest.raises(UsageError, match="a rollout of 2 tokens does not fit in 1"):
        padded([np.ones(2)], 1)


def test_process_supervision_of_grpo_to_the_letter():
    """arXiv:2402.03300, 4.1.3, computed here with nothing of the package."""
    group = [
        Rollout("p", 4, 1.0, None, (0.9, 0.5), (1, 3)),
        Rollout("p", 3, 0.0, None, (0.1, None, 0.2), (0, 1, 2)),
    ]
    steps = np.array([0.9, 0.5, 0.1, 0.2])
    first = (np.array([0.9, 0.5]) - steps.mean()) / (steps.std(ddof=1) + 1e-4)
    second = (np.array([0.1, 0.2]) - steps.mean()) / (steps.std(ddof=1) + 1e-4)
    found = process(group, beta=1)
    assert found[0] == pytest.approx([first.sum(), first.sum(), first[1], first[1]])
    assert found[1] == pytest.approx([second.sum(), second[1], second[1]])


@given(rollouts(complete=True), st.sampled_from(CREDITS), st.sampled_from(["group", "batch", "none"]), st.booleans())
def test_the_values_of_a_groups_steps_sum_to_zero(batch, credit, scale, by_part):
    found = process(batch, beta=1, credit=credit, scale=scale, by_part=by_part)
    for group in by_group([row[0] for row in found], [r.group for r in batch]):
        # A rollout's first token has the sum of its steps.
        assert sum(group) == pytest.approx(0, abs=1e-6)


@given(rollouts(), st.sampled_from(["mean", "min"]), st.sampled_from(["mean", "leave-one-out"]))
def test_the_first_token_has_the_advantage_of_the_rollouts_value(batch, credit, baseline):
    steps = [[reward for reward, _ in rollout.known_steps] for rollout in batch]
    values = [
        sum(w * r for w, r in zip(credit_weights(own, credit), own, strict=True)) if own else None for own in steps
    ]
    expected = group_advantages(values, [r.group for r in batch], baseline=baseline)
    found = process(batch, beta=1, credit=credit, baseline=baseline)
    assert [row[0] for row in found] == pytest.approx(expected, abs=1e-5)


def test_a_part_that_is_always_low_is_not_unlearnt():
    """By hand: thinking steps of 0.8 and 1, 0.9; response steps of 0.1, and 0.3."""
    group = [
        Rollout("p", 6, None, None, (0.8, 1.0, 0.1), (1, 3, 5), 2),
        Rollout("p", 4, None, None, (0.9, 0.3), (1, 3), 1),
    ]
    plain = process(group, beta=1, credit="mean", scale="none")
    assert max(plain[0][-1], plain[1][-1]) < 0
    found = process(group, beta=1, credit="mean", scale="none", by_part=True)
    # A weight is 1/3 in the first rollout and 1/2 in the second.
    thinking = (0.8 / 3 + 1.0 / 3 + 0.9 / 2) / (2 / 3 + 1 / 2)
    response = (0.1 / 3 + 0.3 / 2) / (1 / 3 + 1 / 2)
    first = np.array([(0.8 - thinking) / 3, (1.0 - thinking) / 3, (0.1 - response) / 3])
    second = np.array([(0.9 - thinking) / 2, (0.3 - response) / 2])
    assert found[0] == pytest.approx(np.repeat(first[::-1].cumsum()[::-1], 2))
    assert found[1] == pytest.approx(np.repeat(second[::-1].cumsum()[::-1], 2))
    assert found[0][-1] < 0 < found[1][-1]
    # What a part has more of in every rollout says nothing.
    more = [
        Rollout(r.group, r.tokens, None, None, (*r.step_rewards[:-1], r.step_rewards[-1] + 0.5), r.step_ends, n)
        for r, n in zip(group, (2, 1), strict=True)
    ]
    assert np.concatenate(process(more, beta=1, credit="mean", by_part=True)) == pytest.approx(
        np.concatenate(process(group, beta=1, credit="mean", by_part=True))
    )


@given(rollouts(), st.sampled_from(CREDITS), st.sampled_from(["mean", "leave-one-out"]))
def test_one_part_has_the_groups_baseline(batch, credit, baseline):
    thinking = [replace(rollout, thinking_steps=len(rollout.step_ends)) for rollout in batch]
    found = process(thinking, beta=1, credit=credit, baseline=baseline, by_part=True)
    for row, expected in zip(found, process(batch, beta=1, credit=credit, baseline=baseline), strict=True):
        assert row == pytest.approx(expected)


def test_a_part_that_no_other_rollout_has_is_not_compared():
    group = [Rollout("p", 2, None, None, (0.8, 0.4), (0, 1), 1), Rollout("p", 1, None, None, (0.2,), (0,), 1)]
    found = process(group, beta=1, baseline="leave-one-out", scale="none", by_part=True)
    assert [row.tolist() for row in found] == [pytest.approx([0.6, 0.0]), pytest.approx([-0.6])]


def test_min_credit_may_leave_a_part_without_weight():
    group = [Rollout("p", 2, None, None, (0.8, 0.4), (0, 1), 1), Rollout("p", 2, None, None, (0.9, 0.2), (0, 1), 1)]
    found = process(group, beta=1, credit="min", temperature=0, scale="none", by_part=True)
    assert [row.tolist() for row in found] == [pytest.approx([0.1, 0.1]), pytest.approx([-0.1, -0.1])]


def test_by_part_needs_parts():
    with pytest.raises(UsageError, match="of group 'p' does not tell which of its steps are thinking"):
        process([Rollout("p", 1, None, None, (0.5,), (0,))], beta=1, by_part=True)
    with pytest.raises(UsageError, match="-1 of its 1 steps cannot be thinking"):
        Rollout("p", 1, None, None, (0.5,), (0,), -1)


@given(rollouts(), shares, st.sampled_from(CREDITS))
def test_process_and_outcome_are_mixed(batch, beta, credit):
    whole = [r if r.outcome is not None and r.known_steps else Rollout(r.group, r.tokens) for r in batch]
    outcome = group_advantages([r.outcome for r in whole], [r.group for r in whole])
    steps = process(whole, beta=1, credit=credit)
    for row, part, dense in zip(process(whole, beta=beta, credit=credit), outcome, steps, strict=True):
        assert row == pytest.approx((1 - beta) * part + beta * dense, abs=1e-9)


@given(rollouts(complete=True), st.floats(-3, 3).map(lambda x: round(x, 2)), st.floats(0.5, 4))
def test_process_does_not_mind_the_scale_of_rewards(batch, shift, factor):
    other = [
        Rollout(r.group, r.tokens, r.outcome, r.reward, tuple(factor * x + shift for x in r.step_rewards), r.step_ends)
        for r in batch
    ]
    for one, two in zip(process(batch, eps=1e-12), process(other, eps=1e-12), strict=True):
        # Where the deviation is rounding alone, so is the advantage.
        if np.abs(one).max() < 1e3:
            assert one == pytest.approx(two, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", SHAPINGS)
@given(data=st.data())
def test_a_rollout_that_lacks_something_teaches_nothing_and_changes_nothing(name, data):
    shaping_, batch = open_shaping(name), data.draw(rollouts())
    found = shaping_.advantages(batch)
    kept = [n for n, rollout in enumerate(batch) if shaping_.unscored(rollout) is None]
    alone = shaping_.advantages([batch[n] for n in kept])
    for n, row in zip(kept, alone, strict=True):
        assert found[n] == pytest.approx(row, abs=1e-9)
    assert all(not found[n].any() for n in set(range(len(batch))) - set(kept))
    assert [len(row) for row in found] == [rollout.tokens for rollout in batch]


# --- length --------------------------------------------------------------------------------------------------------

steps_ = st.lists(shares, min_size=1, max_size=8)


def value(step_rewards, **settings):
    """Return the process value of a rollout alone: no baseline, no scale."""
    rollout = Rollout("p", len(step_rewards), None, None, tuple(step_rewards), tuple(range(len(step_rewards))))
    return process([rollout], beta=1, baseline="none", scale="none", **settings)[0][0]


@given(steps_, shares)
def test_padding_gains_nothing_with_a_guard(steps, padding):
    longer = [*steps, padding]
    assert value(longer, credit="min", temperature=0) <= value(steps, credit="min", temperature=0) + 1e-12
    assert value(longer, step_cost=1.0) <= value(steps, step_cost=1.0) + 1e-12
    assert value(longer, credit="mean") <= max(value(steps, credit="mean"), padding) + 1e-12


@given(steps_, st.floats(0.01, 1))
def test_padding_pays_without_one(steps, padding):
    assert value([*steps, padding]) > value(steps)


def test_min_credit_goes_to_the_worst_step():
    weights = credit_weights([0.9, 0.1, 0.8], "min")
    assert sum(weights) == pytest.approx(1)
    assert weights[1] > 0.99
    assert credit_weights([0.5, 0.5], "min", 0) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 2}, "beta must be in \\[0, 1\\], got 2"),
        ({"credit": "max"}, "unknown credit 'max'; there are sum, mean, min"),
        ({"temperature": -1}, "temperature must be at least 0, got -1"),
        ({"step_cost": -1}, "step_cost must be at least 0, got -1"),
        ({"step_cost": 1, "credit": "mean"}, "leave it at 0 with 'mean'"),
        ({"by_part": True, "baseline": "none"}, "by_part says which steps a baseline is of, and there is none"),
    ],
)
def test_what_process_refuses(settings, message):
    with pytest.raises(UsageError, match=message):
        Process(**settings)


# --- shaping -------------------------------------------------------------------------------------------------------


@given(steps_, st.floats(0.5, 1), shares)
def test_shaping_telescopes(potentials, gamma, initial):
    rewards = shaping(potentials, gamma, initial)
    assert sum(gamma**j * reward for j, reward in enumerate(rewards)) == pytest.approx(-initial, abs=1e-9)
    assert shaping(potentials, gamma, initial) == shaping([*potentials[:-1], 9.0], gamma, initial)


# A decision process over words: at each of three steps one of three letters, or an end at once with "e".
LETTERS, DEPTH = "abe", 3
RNG = np.random.default_rng(1)
OUTCOMES: dict[str, float] = {}
POTENTIALS: dict[str, float] = {}


def words(state=""):
    """Yield all finished words from a state on."""
    if state.endswith("e") or len(state) == DEPTH:
        yield state
        return
    for letter in LETTERS:
        yield from words(state + letter)


def states():
    return sorted({word[:n] for word in words() for n in range(len(word))}, key=len, reverse=True)


for word in words():
    OUTCOMES[word] = float(RNG.random() < 0.3)
for state in {word[:n] for word in words() for n in range(DEPTH + 1)}:
    POTENTIALS[state] = float(RNG.normal(scale=5))  # a PRM that is plainly wrong


def best_actions(gamma, pay=lambda path, ends, gamma: 0.0):
    """Return the set of best letters in every state, by backward induction.

    `pay(path, ends, gamma)` is what a step earns besides the outcome; `path` holds the potentials of the states up to
    the one behind it, in which the rollout ends or does not.
    """
    value = {}
    best = {}
    for state in states():
        returns = {}
        for letter in LETTERS:
            after = state + letter
            ends = after in OUTCOMES
            path = [POTENTIALS[after[:n]] for n in range(1, len(after) + 1)]
            paid = pay(path, ends, gamma)
            returns[letter] = paid + (OUTCOMES[after] if ends else gamma * value[after])
        value[state] = max(returns.values())
        best[state] = {letter for letter, r in returns.items() if r > value[state] - 1e-9}
    return best


def step_shaping(path, ends, gamma):
    # A rollout that goes on has a step behind this one, whatever it is.
    return shaping(path if ends else [*path, 0.0], gamma, POTENTIALS[""])[len(path) - 1]


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_the_best_policy_stays_the_best_under_shaping(gamma):
    plain = best_actions(gamma)
    assert best_actions(gamma, step_shaping) == plain
    assert any(len(best) < len(LETTERS) for best in plain.values()), "a process without choices would prove nothing"


def test_the_same_numbers_as_plain_step_rewards_change_the_best_policy():
    plain = best_actions(1.0)
    assert best_actions(1.0, lambda path, ends, gamma: path[-1]) != plain


def gradient(advantage_of):
    """Return the exact policy gradient of a softmax policy over all words, for given token advantages."""
    logits = {state: np.random.default_rng(len(state)).normal(size=len(LETTERS)) for state in states()}
    total = {state: np.zeros(len(LETTERS)) for state in logits}
    for word in words():
        chance, scores = 1.0, []
        for n, letter in enumerate(word):
            policy = np.exp(logits[word[:n]]) / np.exp(logits[word[:n]]).sum()
            chance *= policy[LETTERS.index(letter)]
            scores.append((word[:n], np.eye(len(LETTERS))[LETTERS.index(letter)] - policy))
        for (state, score), advantage in zip(scores, advantage_of(word), strict=True):
            total[state] += chance * advantage * score
    return np.concatenate([total[state] for state in states()])


def test_potential_has_the_gradient_of_the_outcome_in_expectation():
    def rollout(word):
        potentials = tuple(POTENTIALS[word[:n]] for n in range(1, len(word) + 1))
        return Rollout("p", len(word), OUTCOMES[word], None, potentials, tuple(range(len(word))))

    def shaped(word):
        return potential([rollout(word)], weight=1, baseline="none", scale="none", centre=False)[0]

    plain = gradient(lambda word: [OUTCOMES[word]] * len(word))
    assert gradient(shaped) == pytest.approx(plain, abs=1e-9)
    assert np.abs(plain).max() > 0.01
    # Step rewards that are not potentials have another gradient.
    dense = gradient(lambda word: process([rollout(word)], beta=1, baseline="none", scale="none")[0])
    assert np.abs(dense - plain).max() > 0.1


def test_potential_by_hand():
    group = [
        Rollout("p", 5, 1.0, None, (0.2, 0.8, 0.9), (1, 2, 4)),
        Rollout("p", 2, 0.0, None, (0.5, 0.1), (0, 1)),
    ]
    one, two = potential(group, weight=1, scale="none", centre=False)
    # Mean outcome 0.5; a step's tokens have the outcome, less the potential before the step, less the mean.
    assert one == pytest.approx([0.5, 0.5, 0.3, -0.3, -0.3])
    assert two == pytest.approx([-0.5, -1.0])
    # The potentials before second steps have the mean 0.35; that before the third has nothing beside it.
    one, two = potential(group, weight=1, scale="none")
    assert one == pytest.approx([0.5, 0.5, 0.65, 0.5, 0.5])
    assert two == pytest.approx([-0.5, -0.65])


def test_the_weight_of_potentials_is_that_of_least_squares():
    """Against numpy's, on deviations from the means of group and place."""
    rng = np.random.default_rng(0)
    batch = []
    for n in range(64):
        right = float(rng.random() < 0.4)
        steps = (0.3 * right + rng.normal(size=3)).round(3)
        batch.append(Rollout(n // 8, 4, right, None, (*steps.tolist(), 0.5), (0, 1, 2, 3)))
    inner = np.array([r.step_rewards[:3] for r in batch]).reshape(8, 8, 3)
    inner = (inner - inner.mean(axis=1, keepdims=True)).reshape(64, 3)
    outcomes = np.array([r.outcome for r in batch])
    centred = (outcomes.reshape(8, 8) - outcomes.reshape(8, 8).mean(axis=1, keepdims=True)).reshape(64)
    weight = np.linalg.lstsq(inner.reshape(-1, 1), np.repeat(centred, 3), rcond=None)[0][0]
    assert weight > 0.01
    fitted = np.array(potential(batch, scale="none"))
    assert fitted == pytest.approx(np.array(potential(batch, weight=float(weight), scale="none")))
    # So no other weight leaves less noise in the advantages of later steps.
    for other in (0.0, 0.5 * weight, 2 * weight):
        assert (
            np.square(fitted[:, 1:]).mean()
            < np.square(potential(batch, weight=float(other), scale="none"))[:, 1:].mean()
        )


def test_a_prm_that_is_against_the_outcome_has_no_weight():
    batch = [Rollout("p", 2, float(n % 2), None, (0.1 * (1 - n % 2), 0.5), (0, 1)) for n in range(4)]
    assert np.array(potential(batch)) == pytest.approx(np.array(potential(batch, weight=0)))


@given(rollouts(complete=True), st.floats(-2, 2).map(lambda x: round(x, 2)))
def test_a_prm_that_is_too_mild_is_as_good_when_centred(batch, shift):
    for settings in ({}, {"weight": 1.0}):
        found = []
        for more in (0.0, shift):
            steps = [tuple(x + more * (n + 1) for n, x in enumerate(r.step_rewards)) for r in batch]
            other = [replace(r, step_rewards=own) for r, own in zip(batch, steps, strict=True)]
            found.append(potential(other, scale="none", **settings))
        for one, two in zip(*found, strict=True):
            assert one == pytest.approx(two, abs=1e-6)


def test_without_weight_the_outcome_is_left():
    batch = [Rollout("p", 2, float(n % 2), None, (0.1 * n, 0.5), (0, 1)) for n in range(4)]
    found = potential(batch, weight=0, scale="none")
    assert [row.tolist() for row in found] == [[-0.5] * 2, [0.5] * 2, [-0.5] * 2, [0.5] * 2]


# --- the methods by name -------------------------------------------------------------------------------------------


def test_methods_are_opened_by_name():
    assert open_shaping("process", credit="min", temperature=0.0) == Process(credit="min", temperature=0.0)
    with pytest.raises(UsageError, match="unknown shaping 'dense'; there are rule, prm, blend"):
        open_shaping("dense")
    with pytest.raises(UsageError, match="blend has no setting alpha; it has baseline, scale, beta"):
        open_shaping("blend", alpha=0.2)
    with pytest.raises(UsageError, match="temperature belongs to credit 'min'"):
        open_shaping("process", temperature=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_rewards": (1.0,)}, "as many step rewards as step ends, got 1 and 0"),
        ({"step_rewards": (1.0, 1.0), "step_ends": (2, 1)}, "step ends must rise from 0 to 2"),
        ({"step_rewards": (1.0,), "step_ends": (3,)}, "step ends must rise from 0 to 2"),
        ({"reward": float("nan")}, "a reward is nan; give None where there is none"),
    ],
)
def test_a_rollout_is_checked(arguments, message):
    with pytest.raises(UsageError, match=message):
        Rollout("p", 3, **arguments)


def test_words_of_the_process_are_all_there():
    assert len(list(words())) == len(OUTCOMES) == 1 + 2 * (1 + 2 * 3)
    assert set(itertools.chain.from_iterable(OUTCOMES)) == set(LETTERS)
