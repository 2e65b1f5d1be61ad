"""Choices among candidates by hand, in any order, and against the accuracies recorded with the real data."""

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.selection import highest, mean, oracle, vote
from reasonflux_prm.traces.read import read_traces

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "bon"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not here")


@pytest.mark.parametrize(
    ("scores", "correct", "expected"),
    [
        ([0.1, 0.9, 0.5], [False, True, False], 1.0),
        ([0.9, 0.9, 0.5], [False, True, True], 0.5),
        ([None, 0.1], [True, False], 0.0),
        ([None, None, None], [True, False, False], 1 / 3),
        ([-math.inf, None], [True, False], 0.5),
        ([-7.0], [True], 1.0),
    ],
)
def test_highest(scores, correct, expected):
    assert highest(scores, correct) == expected


@pytest.mark.parametrize(
    ("preds", "correct", "weights", "expected"),
    [
        (["3", "3", "4"], [False, False, True], None, 0.0),
        (["3", "4", "4", "3"], [False, True, True, False], None, 0.5),
        (["1", "2", "3"], [True, False, False], None, 1 / 3),
        ([None, None, "4"], [False, False, True], None, 1.0),
        ([None, None], [True, False], None, 0.5),
        (["3", "3", "4"], [False, False, True], [0.2, 0.3, 0.6], 1.0),
        (["3", "3", "4"], [False, False, True], [0.3, 0.3, 0.6], 0.5),
        (["3", "4"], [False, True], [0.0, None], 0.5),
        # Equal texts with unequal verdicts share their answer's votes.
        (["3", "3", "4"], [True, False, False], None, 0.5),
    ],
)
def test_vote(preds, correct, weights, expected):
    assert vote(preds, correct, weights) == expected


def test_mean_and_oracle():
    assert mean([True, False, False, True]) == 0.5
    assert (oracle([False, True]), oracle([False, False])) == (1.0, 0.0)


@given(
    st.lists(
        st.tuples(st.sampled_from([None, 0.0, 0.1, 0.2, 0.7]), st.sampled_from([None, "1", "2"]), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter(candidates, shuffle):
    def choices(rows):
        scores, preds, correct = zip(*rows, strict=True)
        return highest(scores, correct), vote(preds, correct), vote(preds, correct, scores), mean(correct)

    shuffled = candidates[:]
    shuffle.shuffle(shuffled)
    assert choices(shuffled) == pytest.approx(choices(candidates))


def test_an_expectation_is_what_chance_gives():
    chance = random.Random(0)
    scores, correct = [0.5, 0.5, 0.5, 0.1], [True, False, False, True]
    picks = [max(range(4), key=lambda i: (scores[i], chance.random())) for _ in range(20_000)]
    assert highest(scores, correct) == pytest.approx(sum(correct[i] for i in picks) / 20_000, abs=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([]), "at least one candidate"),
        (lambda: highest([], []), "at least one candidate"),
        (lambda: highest([1.0], [True, False]), "1 values and 2 verdicts"),
        (lambda: highest([math.nan, 1.0], [True, False]), "NaN"),
        (lambda: vote(["1"], [True], [-0.5]), "0 or more, got -0.5"),
        (lambda: vote(["1"], [True], [math.inf]), "0 or more, got inf"),
        (lambda: vote(["1", "2"], [True, False], [1.0]), "1 values and 2 verdicts"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(UsageError, match=message):
        call()


@needs_data
@pytest.mark.parametrize(
    ("name", "problems", "recorded"),
    [
        ("gsm8k_example_model_solutions", 936, (0.3769, 0.4776, 0.6763)),
        ("amc23_llama3b_think", 30, (0.1429, 0.2333, 0.7)),
        ("math_cot_100", 79, (0.9177, 0.9304, 0.9747)),
        ("aime24_llama3b_think", 6, (0.1042, 0.2222, 1.0)),
    ],
)
def test_recorded_accuracies(name, problems, recorded):
    groups = {}
    for trace in read_traces(DATA / f"{name}.jsonl"):
        groups.setdefault(trace.group, []).append((trace.meta["pred"], trace.correct is True))
    rows = []
    for own in groups.values():
        preds, correct = zip(*own, strict=True)
        rows.append((mean(correct), vote(preds, correct), oracle(correct)))
    assert len(rows) == problems
    assert tuple(sum(column) / problems for column in zip(*rows, strict=True)) == pytest.approx(recorded, abs=5e-5)
