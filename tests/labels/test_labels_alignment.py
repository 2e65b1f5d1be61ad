"""Alignment against the equations written out as loops."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonflux_prm.labels.alignment import (
    ALIGNMENTS,
    alignment_dtw,
    alignment_index,
    alignment_max,
    alignment_proportional,
)


def units(count, seed, width=5):
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosine(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def paths(steps, width):
    """Yield every path from (0, 0) to (steps - 1, width - 1)."""

    def extend(path):
        row, column = path[-1]
        if (row, column) == (steps - 1, width - 1):
            yield path
        for down, right in ((1, 1), (1, 0), (0, 1)):
            if row + down < steps and column + right < width:
                yield from extend([*path, (row + down, column + right)])

    return extend([(0, 0)])


def best_warp(thinking, response):
    """Dynamic time warping by trying every path."""
    distance = [[1 - cosine(s, a) for a in response] for s in thinking]
    best = min(paths(len(thinking), len(response)), key=lambda path: sum(distance[t][j] for t, j in path))
    return [max(1 - distance[t][j] for row, j in best if row == t) for t in range(len(thinking))]


sizes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))


@given(sizes)
def test_max_is_the_closest_response_step(size):
    thinking, response = units(size[0], size[2]), units(size[1], size[2] + 1)
    expected = [max(cosine(s, a) for a in response) for s in thinking]
    assert alignment_max(thinking, response) == pytest.approx(expected, abs=1e-6)


@given(sizes)
def test_index_is_the_paper_and_goes_on_with_the_last_response_step(size):
    thinking, response = units(size[0], size[2]), units(size[1], size[2] + 1)
    expected = [cosine(thinking[t - 1], response[min(t, size[1]) - 1]) for t in range(1, size[0] + 1)]
    assert alignment_index(thinking, response) == pytest.approx(expected, abs=1e-6)


@given(sizes)
def test_proportional_is_the_step_as_far_along(size):
    steps, width, seed = size
    thinking, response = units(steps, seed), units(width, seed + 1)
    # The quotient of integers below 2**53 is exact wherever it is a whole number, so ceil is safe here.
    expected = [cosine(thinking[t - 1], response[math.ceil(t * width / steps) - 1]) for t in range(1, steps + 1)]
    assert alignment_proportional(thinking, response) == pytest.approx(expected, abs=1e-6)


@given(sizes)
@settings(max_examples=60)
def test_dtw_is_the_best_of_all_paths(size):
    thinking, response = units(size[0], size[2]), units(size[1], size[2] + 1)
    assert alignment_dtw(thinking, response) == pytest.approx(best_warp(thinking, response), abs=1e-5)


def test_dtw_follows_the_order_where_max_does_not():
    north, east = np.eye(2, dtype=np.float32)
    response = np.stack([north, east])
    in_order, reversed_ = np.stack([north, north, east]), np.stack([east, east, north])
    assert alignment_dtw(in_order, response).tolist() == [1, 1, 1]
    assert alignment_max(reversed_, response).tolist() == [1, 1, 1]
    assert alignment_dtw(reversed_, response).sum() < 3


def test_dtw_sums_distances_and_not_similarities():
    """A sum of similarities, here 1.7 against 1.2, would take the way round by (s_2, a_1)."""
    s1, s2, a1, a2 = (
        np.array([[math.cos(math.radians(angle)), math.sin(math.radians(angle))]], np.float32)
        for angle in (10, 60, 0, 140)
    )
    found = alignment_dtw(np.concatenate([s1, s2]), np.concatenate([a1, a2]))
    assert found == pytest.approx([math.cos(math.radians(10)), math.cos(math.radians(80))], abs=1e-6)


@given(sizes)
def test_no_reading_is_above_max_and_all_are_cosines(size):
    thinking, response = units(size[0], size[2]), units(size[1], size[2] + 1)
    highest = alignment_max(thinking, response)
    for term in ALIGNMENTS.values():
        values = term(thinking, response)
        assert values.shape == (size[0],)
        assert values.dtype == np.float64
        assert (np.abs(values) <= 1).all()
        assert (values <= highest + 1e-6).all()


@given(st.integers(1, 6), st.integers(0, 10**6))
def test_equal_lengths_make_index_and_proportional_the_same(steps, seed):
    thinking, response = units(steps, seed), units(steps, seed + 1)
    assert alignment_index(thinking, response).tolist() == alignment_proportional(thinking, response).tolist()


@pytest.mark.parametrize("term", ALIGNMENTS.values(), ids=ALIGNMENTS)
def test_a_step_that_is_in_the_response_has_1(term):
    steps = units(300, 3)
    assert term(steps, steps) == pytest.approx(np.ones(300), abs=1e-6)


@pytest.mark.parametrize("term", ALIGNMENTS.values(), ids=ALIGNMENTS)
def test_no_thinking_has_no_values(term):
    assert term(np.empty((0, 5), np.float32), units(2, 0)).shape == (0,)


def test_rows_of_many_blocks_join():
    thinking, response = units(700, 1), units(90, 2)
    assert alignment_max(thinking, response) == pytest.approx((thinking @ response.T).max(axis=1), abs=1e-6)
    slow = dtw_table(thinking, response)
    assert alignment_dtw(thinking, response) == pytest.approx(slow, abs=1e-5)


def dtw_table(thinking, response):
    """The textbook's table, cell by cell, and the way back through it."""
    distance = 1 - thinking.astype(np.float64) @ response.T.astype(np.float64)
    costs = np.full(distance.shape, np.inf)
    for t, j in itertools.product(*map(range, distance.shape)):
        before = [costs[t - 1, j - 1]] * (t > 0 and j > 0) + [costs[t - 1, j]] * (t > 0) + [costs[t, j - 1]] * (j > 0)
        costs[t, j] = distance[t, j] + min(before, default=0.0)
    t, j = distance.shape[0] - 1, distance.shape[1] - 1
    found = np.full(len(thinking), -1.0)
    while True:
        found[t] = max(found[t], 1 - distance[t, j])
        moves = [move for move in ((1, 1), (1, 0), (0, 1)) if t >= move[0] and j >= move[1]]
        if not moves:
            return found
        down, right = min(moves, key=lambda move: costs[t - move[0], j - move[1]])
        t, j = t - down, j - right


@pytest.mark.parametrize("term", ALIGNMENTS.values(), ids=ALIGNMENTS)
def test_memory_is_linear_for_5000_steps(term):
    thinking, response = units(5000, 1, 64), units(1000, 2, 64)
    tracemalloc.start()
    try:
        term(thinking, response)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The whole table of similarities would be 20 MB in float32, 40 MB in float64.
    assert peak < 8e6
