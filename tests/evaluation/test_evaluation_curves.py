"""Curves by hand, against choosing from every subset, and against the accuracies recorded with the real data."""

import math
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from curve_samples import problem, problems, slow_curve
from hypothesis import given, settings

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation import vote_curves
from reasonflux_prm.evaluation.candidates import problems_of
from reasonflux_prm.evaluation.curves import KINDS, Method, curve, subset_shares, with_all
from reasonflux_prm.traces.read import read_traces

BON = Path(__file__).parents[2].parent / "shared" / "data" / "bon"
needs_data = pytest.mark.skipif(not BON.is_dir(), reason="the shared data is not here")
METHODS = ("oracle", "prm:a", "weighted:a", "majority", "shortest", "longest", "pass@1")


def accuracy(own, method, ks=None, **options):
    return curve([own], Method.parse(method), ks or range(1, own.n + 1), **options).accuracy[0]


def test_methods_read_what_they_write():
    assert [str(Method.parse(text)) for text in METHODS] == list(METHODS)
    assert Method.parse("prm:org/name:8b") == Method("prm", "org/name:8b")
    assert {Method.parse(text).kind for text in METHODS} == set(KINDS)


@pytest.mark.parametrize("text", ["", "best", "prm", "majority:a", "oracle:", "weighted"])
def test_an_unknown_method_is_refused(text):
    with pytest.raises(UsageError, match="expected a method"):
        Method.parse(text)


def test_pass_at_k_is_the_unbiased_estimator():
    # 1 - C(n - c, k) / C(n, k) with n = 5, c = 2.
    own = problem([True, False, False, True, False])
    assert accuracy(own, "oracle") == pytest.approx([0.4, 1 - 3 / 10, 1 - 1 / 10, 1.0, 1.0])
    assert accuracy(own, "pass@1") == pytest.approx([0.4] * 5)


def test_best_of_k_by_hand():
    # Of three pairs the two with the last one pick it, and the third picks the first of its two.
    own = problem([True, False, False], rewards={"a": (0.5, 0.1, 0.9)})
    assert accuracy(own, "prm:a") == pytest.approx([1 / 3, 1 / 3, 0.0])


def test_ties_are_shared_and_counted():
    own = problem([True, False, False], rewards={"a": (0.9, 0.9, 0.1)})
    found = curve([own], Method("prm", "a"), [1, 2, 3])
    assert found.accuracy[0] == pytest.approx([1 / 3, (0.5 + 1 + 0) / 3, 0.5])
    assert found.tied[0] == pytest.approx([0, 1 / 3, 1])


def test_majority_by_hand():
    # Two candidates disagree or are the same answer; all three elect answer 0.
    own = problem([True, True, False], [0, 0, 1])
    found = curve([own], Method("majority"), [1, 2, 3])
    assert found.accuracy[0] == pytest.approx([2 / 3, (1 + 0.5 + 0.5) / 3, 1])
    assert found.tied[0] == pytest.approx([0, 2 / 3, 0])


def test_votes_without_answers():
    own = problem([True, False, False], [None, None, 1])
    found = curve([own], Method("majority"), [1, 2, 3])
    # Of the pairs one has nobody who states an answer: one of the two is chosen at random.
    assert found.accuracy[0] == pytest.approx([1 / 3, 0.5 / 3, 0])
    assert found.tied[0] == pytest.approx([0, 1 / 3, 0])
    assert curve([problem([True, False])], Method("majority"), [1, 2]).tied[0] == pytest.approx([0, 1])


def test_candidates_without_text_are_neither_shortest_nor_longest():
    own = problem([True, False, False], lengths=[0, 5, 9])
    assert accuracy(own, "shortest", [3]) == accuracy(own, "longest", [3]) == [0]
    assert accuracy(problem([True, False], lengths=[0, 0]), "shortest", [2]) == [0.5]


def test_rounding_makes_no_winner():
    own = problem([True, True, False], [0, 0, 1], rewards={"a": (0.1, 0.2, 0.3)})
    found = curve([own], Method("weighted", "a"), [3])
    assert (found.accuracy[0, 0], found.tied[0, 0]) == (0.5, 1)


def test_a_product_of_hundreds_of_steps_still_votes():
    rewards = (-2000.0, -2000.5, -2000.6)
    own = problem([True, False, False], [0, 1, 1], rewards={"a": rewards}, logarithmic=frozenset("a"))
    assert math.exp(-0.5) + math.exp(-0.6) > 1
    assert accuracy(own, "weighted:a", [3]) == [0]
    assert accuracy(own, "prm:a", [3]) == [1]


@given(problems())
@settings(max_examples=50, deadline=None)
@pytest.mark.parametrize("method", METHODS)
def test_equals_choosing_from_every_subset(method, made):
    ks = range(1, made[0].n + 1)
    found = curve(made, Method.parse(method), ks)
    slow = [[slow_curve(own, method, k) for k in ks] for own in made]
    assert found.accuracy == pytest.approx(np.array(slow), abs=1e-12)
    assert not found.error.any()
    whole = with_all(made, Method.parse(method))
    assert whole.accuracy[:, 0] == pytest.approx(found.accuracy[:, -1], abs=1e-12)
    assert whole.tied[:, 0] == pytest.approx(found.tied[:, -1], abs=1e-12)


@given(problems(count=1))
@settings(max_examples=60, deadline=None)
def test_ties_equal_those_of_every_subset(made):
    (own,) = made
    ks = range(1, own.n + 1)

    def tied(values, k):
        tops = [sorted(subset)[-2:] for subset in combinations(values, k)]
        return sum(k > 1 and top[0] == top[1] for top in tops) / len(tops)

    def tied_votes(k):
        counts = [Counter(g for g in subset if g is not None).most_common(2) for subset in combinations(own.groups, k)]
        return sum(k > 1 if not top else len(top) > 1 and top[0][1] == top[1][1] for top in counts) / len(counts)

    rewards = [-math.inf if reward is None else reward for reward in own.rewards["a"]]
    lengths = [length or -math.inf for length in own.lengths]
    slow = {"prm:a": lambda k: tied(rewards, k), "longest": lambda k: tied(lengths, k), "majority": tied_votes}
    for method, of in slow.items():
        found = curve(made, Method.parse(method), ks).tied[0]
        assert found == pytest.approx([of(k) for k in ks], abs=1e-12), method


@given(problems(least=2))
@settings(max_examples=40, deadline=None)
def test_counted_majority_equals_a_vote_with_equal_weights(made):
    equal = [problem(own.correct, own.groups, id=own.id, rewards={"a": (0.25,) * own.n}) for own in made]
    ks = range(1, made[0].n + 1)
    counted, weighed = (curve(equal, Method.parse(text), ks) for text in ("majority", "weighted:a"))
    assert counted.accuracy == pytest.approx(weighed.accuracy, abs=1e-12)
    assert counted.tied == pytest.approx(weighed.tied, abs=1e-12)


def many(n, count, seed=0):
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        answers = random.integers(0, random.integers(2, 9), size=n)
        rewards = random.random(n) + (answers == 0) * 0.2
        made.append(
            problem((answers == 0).tolist(), answers.tolist(), id=f"p{number}", rewards={"a": tuple(rewards.tolist())})
        )
    return made


def test_drawn_subsets_agree_with_all_of_them_and_know_their_error():
    made, method, ks = many(10, 12), Method("weighted", "a"), [2, 5, 10]
    exact = curve(made, method, ks, samples=252)
    drawn = curve(made, method, ks, samples=200, seed=3)
    assert exact.error.tolist() == [0, 0, 0]
    assert drawn.error[0] == drawn.error[2] == 0 < drawn.error[1] < 0.02
    assert drawn.accuracy[:, [0, 2]] == pytest.approx(exact.accuracy[:, [0, 2]])
    assert abs((drawn.accuracy - exact.accuracy)[:, 1].mean()) < 4 * drawn.error[1]
    assert drawn.tied == pytest.approx(exact.tied, abs=0.2)


def test_the_error_is_the_spread_over_seeds():
    made, method = many(12, 5), Method("weighted", "a")
    runs = [curve(made, method, [5], samples=60, seed=seed) for seed in range(60)]
    spread = np.std([run.accuracy.mean() for run in runs], ddof=1)
    assert np.mean([run.error[0] for run in runs]) == pytest.approx(spread, rel=0.3)


def test_a_seed_gives_the_same_curve_and_another_seed_another():
    made, method = many(12, 3), Method("weighted", "a")
    one, same, other = (curve(made, method, [6], samples=50, seed=seed).accuracy for seed in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()


def test_a_crowd_is_drawn_from_even_for_majority(monkeypatch):
    made, ks = many(10, 6), [3, 5]
    counted = curve(made, Method("majority"), ks)
    monkeypatch.setattr("reasonflux_prm.evaluation.curves.MOST_COUNTED", 9)
    drawn = curve(made, Method("majority"), ks, samples=100)
    assert drawn.accuracy != pytest.approx(counted.accuracy, abs=1e-12)
    assert abs(drawn.accuracy.mean() - counted.accuracy.mean()) < 4 * drawn.error.max()


def test_numbers_of_subsets_fit_as_far_as_they_are_counted():
    n = vote_curves.MOST_COUNTED
    own = problem([k % 3 == 0 for k in range(n)], [k % 3 for k in range(n)])
    found = curve([own], Method("majority"), range(1, n + 1))
    assert found.accuracy[0, 0] == pytest.approx(np.mean([k % 3 == 0 for k in range(n)]), rel=1e-12)
    # Answers 0 and 1 have 43 votes each, answer 2 has 42.
    assert (found.accuracy[0, -1], found.tied[0, -1]) == (pytest.approx(0.5), pytest.approx(1))
    assert subset_shares(n)[n - 1, 1] == pytest.approx((n - 1) / n)


def test_problems_of_several_sizes_keep_their_places():
    small, large = problem([True], id="s"), problem([False, True, True], id="l", rewards={"a": (0.9, 0.1, 0.2)})
    found = curve([large, small, large], Method("oracle"), [1])
    assert found.accuracy[:, 0] == pytest.approx([2 / 3, 1, 2 / 3])
    assert with_all([large, small], Method("prm", "a")).accuracy[:, 0].tolist() == [0, 1]


def test_the_errors_of_several_sizes_add_up():
    made = [*many(12, 2), *many(10, 1)]
    both = curve(made, Method("weighted", "a"), [5], samples=50)
    one, other = (curve(part, Method("weighted", "a"), [5], samples=50) for part in (made[:2], made[2:]))
    assert both.error[0] ** 2 == pytest.approx((2 / 3 * one.error[0]) ** 2 + (1 / 3 * other.error[0]) ** 2)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("majority", {"ks": [4]}, "sizes from 1 to 3"),
        ("majority", {"ks": [0]}, "sizes from 1 to 3"),
        ("majority", {"ks": []}, "got sizes none"),
        ("majority", {"ks": [1], "samples": 1}, "at least 2 samples"),
        ("prm:b", {"ks": [1]}, "no candidate has one"),
        ("weighted:a", {"ks": [1]}, "rewards of at least 0, and a gives -0.5"),
    ],
)
def test_refuses(method, options, message):
    own = problem([True, False, False], [0, 1, 1], rewards={"a": (-0.5, 0.1, 0.2), "b": (None,) * 3})
    with pytest.raises(UsageError, match=message):
        curve([own], Method.parse(method), **options)


@needs_data
@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("gsm8k_example_model_solutions", (0.3769, 0.4776, 0.6763)),
        ("amc23_llama3b_think", (0.1429, 0.2333, 0.7)),
        ("math_cot_100", (0.9177, 0.9304, 0.9747)),
        ("aime24_llama3b_think", (0.1042, 0.2222, 1.0)),
    ],
)
def test_the_recorded_accuracies(name, recorded):
    made = problems_of(read_traces(BON / f"{name}.jsonl"))
    found = [with_all(made, Method.parse(text)).accuracy.mean() for text in ("pass@1", "majority", "oracle")]
    assert found == pytest.approx(recorded, abs=5e-5)
