"""AUC against counting pairs; rewards meet the labels of their own steps."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.metrics import auc, labelled_steps, weighted_auc, weighted_mean
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Step, Trace

ITEMS = st.lists(st.tuples(st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0]), st.booleans()), min_size=1, max_size=30)


def counted_auc(items):
    """Compare every right item with every wrong one."""
    pairs = [(r > w) + 0.5 * (r == w) for (r, a), (w, b) in product(items, items) if a and not b]
    return sum(pairs) / len(pairs) if pairs else None


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 3 / 4),
        # (0.5 over 0.2) + half (0.5 against 0.5) + (0.9 over 0.2) + (0.9 over 0.5), of 4 pairs
        ([0.2, 0.5, 0.5, 0.9], [0, 1, 0, 1], 3.5 / 4),
        ([1, 1, 1], [True, False, False], 1 / 2),
        ([2, 1], [False, True], 0.0),
        ([1, 2, 3], [1, 1, 1], None),
        ([1], [0], None),
    ],
)
def test_auc_by_hand(scores, labels, expected):
    assert auc(scores, labels) == expected


@given(ITEMS)
def test_auc_counts_pairs(items):
    scores, labels = zip(*items, strict=True)
    assert auc(scores, labels) == pytest.approx(counted_auc(items))


@given(ITEMS, st.integers(0, 1000))
def test_a_weight_is_so_many_copies(items, seed):
    scores, labels = (np.array(column, float) for column in zip(*items, strict=True))
    weights = np.random.default_rng(seed).integers(0, 4, size=(5, len(items)))
    aucs = weighted_auc(scores, labels)(weights.astype(float))
    means = weighted_mean(scores)(weights.astype(float))
    for row, own_auc, own_mean in zip(weights, aucs, means, strict=True):
        copies = [item for item, count in zip(items, row, strict=True) for _ in range(count)]
        expected = counted_auc(copies)
        assert np.isnan(own_auc) if expected is None else own_auc == pytest.approx(expected)
        assert np.isnan(own_mean) if not copies else own_mean == pytest.approx(np.mean([s for s, _ in copies]))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "at least one number"),
        ([1.0, 2.0], [1], "2 scores and 1 labels"),
        ([1.0, float("nan")], [0, 1], "finite scores"),
        ([1.0, 2.0], [0, 0.5], "labels of 0 and 1"),
        ([[1.0], [2.0]], [0, 1], "the shape"),
    ],
)
def test_auc_refuses(scores, labels, message):
    with pytest.raises(UsageError, match=message):
        auc(scores, labels)


PRM = PRMIdentity("p", "r", "native", "causal", "mean", 1.0)


def scored(steps, labels, found, rewards, status=Status.SCORED):
    trace = Trace("t", "problem", response="a" * 9, steps=tuple(steps), step_labels=tuple(labels))
    return ScoredTrace(trace, status, tuple(found), tuple(rewards), None, 0.5, PRM, 9)


def test_labelled_steps_meet_by_where_they_begin():
    given = [Step("response", 0, 3), Step("response", 3, 3), Step("response", 3, 6), Step("response", 7, 9)]
    # The rule `given` joins what is between two steps to the first; an empty step begins where the next one does.
    found = [Step("response", 0, 3), Step("response", 3, 7), Step("response", 7, 9)]
    (row,) = labelled_steps([scored(given, [1.0, None, 0.0, None], found, [0.9, 0.2, None])])
    assert row.rewards == (0.9, 0.2, 0.2, None)
    assert row.labels == (True, None, False, None)
    assert row.first_error == 2
    assert row.known() == [(0, 0.9, True), (2, 0.2, False)]


def test_labelled_steps_leave_out_what_has_no_score_or_label():
    step = [Step("response", 0, 9)]
    failed = scored(step, [1.0], step, [None], Status.FAILED)
    unlabelled = scored(step, [], step, [0.5])
    right = scored(step, [1.0], step, [0.5])
    assert [row.trace for row in labelled_steps([failed, unlabelled, right])] == [right]
    assert labelled_steps([right])[0].first_error is None
