"""The pool depends on what is in the input and on nothing else; draws keep to other problems."""

import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.labels.negatives import NegativePool, problem_key
from reasonflux_prm.records import SegmentedTrace, Step, Trace


def trace(problem, steps, *, id="t", group=None):
    """Return a trace whose thinking consists of `steps`."""
    ends = [0, *itertools.accumulate(map(len, steps))]
    spans = tuple(Step("thinking", start, stop) for start, stop in itertools.pairwise(ends))
    return SegmentedTrace(Trace(id, problem, "".join(steps), group=group), spans, "given")


def corpus(problems, steps, per_trace=10):
    return [
        trace(f"problem {p}", [f"step {s + first} of {p}.\n\n" for s in range(per_trace)], id=f"{p}-{first}")
        for p in range(problems)
        for first in range(0, steps, per_trace)
    ]


def owner(text):
    return text.split(" of ")[1].rstrip(".")


def same(first, second):
    return first.identity() == second.identity() and first.texts == second.texts


@pytest.mark.parametrize(("problems", "steps"), [(3, 40), (50, 30), (600, 20)])
def test_order_and_repeats_change_nothing(problems, steps):
    traces = corpus(problems, steps)
    pool = NegativePool.build(traces, size=512, seed=3)
    shuffled = traces + traces[: len(traces) // 2]
    random.Random(0).shuffle(shuffled)
    assert same(NegativePool.build(shuffled, size=512, seed=3), pool)
    assert not same(NegativePool.build(traces, size=512, seed=4), pool)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_any_order_gives_the_same_pool(pairs, shuffle):
    traces = [trace(f"p{problem}", [f"{step} of {problem}"]) for problem, step in pairs]
    shuffled = list(traces)
    shuffle.shuffle(shuffled)
    assert same(NegativePool.build(traces, size=32), NegativePool.build(shuffled, size=32))


def test_many_problems_give_16_steps_each_and_few_give_more():
    many = NegativePool.build(corpus(600, 40), size=512)
    assert {len(list(group)) for _, group in itertools.groupby(map(owner, many.texts))} == {16}
    assert len(many.texts) == 512
    few = NegativePool.build(corpus(2, 400), size=512)
    assert [len(list(group)) for _, group in itertools.groupby(map(owner, few.texts))] == [256, 256]


def test_one_talkative_problem_does_not_crowd_out_the_others():
    traces = [*corpus(1, 2000), trace("quiet", [f"only {n} of quiet" for n in range(20)])]
    pool = NegativePool.build(traces, size=64)
    assert sum(owner(text) == "quiet" for text in pool.texts) == 20
    assert len(pool.texts) == 20 + 32


def test_memory_is_bounded_while_building(monkeypatch):
    held = []
    sample = NegativePool.build.__globals__["_Sample"]
    add = sample.add

    def watched(self, segmented):
        add(self, segmented)
        held.append(sum(map(len, self._kept.values())))

    monkeypatch.setattr(sample, "add", watched)
    NegativePool.build(corpus(300, 100), size=128)
    assert max(held) <= 2 * 128 + 10


def test_draws_keep_to_other_problems_and_repeat_none():
    traces = corpus(20, 30)
    pool = NegativePool.build(traces, size=128)
    for segmented in traces:
        drawn = pool.draw(segmented, 16)
        assert drawn.shape == (10, 16)
        for row in drawn:
            assert len(set(row.tolist())) == 16
            assert owner(segmented.text(segmented.steps[0]).strip()) not in {owner(pool.texts[i]) for i in row}


def test_draws_leave_out_what_the_trace_says_itself():
    others = [trace(f"p{n}", ["Wait.\n\n", *[f"{s} of {n}" for s in range(8)]]) for n in range(4)]
    pool = NegativePool.build(others, size=64)
    assert "Wait." in pool.texts
    said = pool.draw(trace("new", ["Hm. ", "Wait. "]), 32)
    assert "Wait." not in {pool.texts[i] for i in said.flat}
    unsaid = pool.draw(trace("new", ["Hm. "]), 36)
    assert "Wait." in {pool.texts[i] for i in unsaid.flat}


def test_draws_follow_from_seed_problem_and_step_number():
    traces = corpus(20, 10)
    pool = NegativePool.build(traces, size=256, seed=1)
    first, *_ = traces
    drawn = pool.draw(first, 5)
    renamed = trace(first.trace.problem, ["what ever", "else"], id="another")
    assert pool.draw(renamed, 5).tolist() == drawn[:2].tolist()
    assert pool.draw(traces[1], 5).tolist() != drawn.tolist()
    problems = {key: [] for key in pool._keys}
    for key, text in zip(pool._keys, pool.texts, strict=True):
        problems[key].append(text)
    assert NegativePool(2, problems).draw(first, 5).tolist() != drawn.tolist()


def test_draws_are_the_same_for_ever():
    """They are part of what a label means, so no release and no machine may change them."""
    pool = NegativePool.build(corpus(6, 10), size=64, seed=0)
    drawn = pool.draw(trace("problem 2", ["a", "b"]), 4)
    assert [[pool.texts[index] for index in row] for row in drawn] == GOLDEN


GOLDEN = [
    ["step 1 of 3.", "step 9 of 4.", "step 5 of 3.", "step 7 of 3."],
    ["step 2 of 3.", "step 7 of 4.", "step 6 of 1.", "step 1 of 4."],
]


def test_steps_share_the_negatives_evenly():
    pool = NegativePool.build(corpus(9, 10), size=256)
    drawn = pool.draw(trace("new", [f"{n}" for n in range(90)]), 16)
    assert set(np.bincount(drawn.ravel()).tolist()) == {16}


@pytest.mark.parametrize(("problems", "said"), [(0, "0 of 0 other problems"), (1, "10 of 1 other problem;")])
def test_too_few_other_problems_are_said(problems, said):
    pool = NegativePool.build(corpus(problems, 10), size=64)
    with pytest.raises(InputError, match=f"needs 16 steps of other problems, and the input has {said}"):
        pool.draw(trace("new", ["a"]), 16)


def test_one_problem_is_no_other_problem():
    traces = corpus(1, 30)
    with pytest.raises(InputError, match="0 of 0 other problems; label more problems together"):
        NegativePool.build(traces).draw(traces[0], 16)


def test_a_trace_without_steps_draws_nothing():
    assert NegativePool.build(corpus(5, 10)).draw(trace("new", []), 16).shape == (0, 16)


def test_what_tells_problems_apart():
    assert problem_key(Trace("a", "1 + 1?\n")) == problem_key(Trace("b", " 1 +  1?", group="g"))
    assert problem_key(Trace("a", "1 + 1?")) != problem_key(Trace("a", "1 + 2?"))
    assert problem_key(Trace("a", " ", group="g")) == problem_key(Trace("b", "", group="g"))
    assert problem_key(Trace("a", "")) != problem_key(Trace("b", ""))
    assert problem_key(Trace("a", "")) != problem_key(Trace("b", "a"))


def test_blank_steps_and_odd_texts(tmp_path):
    odd = [trace(f"p{n} \ud800", [" \n", f"half a pair \udfff {n}", "\x00", "é漢"]) for n in range(10)]
    pool = NegativePool.build(odd)
    assert "" not in pool.texts
    pool.save(tmp_path / "pool.json")
    assert same(NegativePool.load(tmp_path / "pool.json"), pool)


def test_a_saved_pool_draws_the_same(tmp_path):
    traces = corpus(20, 10)
    pool = NegativePool.build(traces, size=64, seed=5)
    pool.save(tmp_path / "pool.json")
    loaded = NegativePool.load(tmp_path / "pool.json")
    assert same(loaded, pool)
    assert loaded.draw(traces[3], 7).tolist() == pool.draw(traces[3], 7).tolist()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema": 2, "seed": 0, "problems": {}}',
        '{"schema": 1, "seed": 0, "problems": {"xyz": ["a"]}}',
        json.dumps({"schema": 1, "seed": 0, "problems": {"f" * 17: ["a"]}}),
    ],
)
def test_what_is_no_pool_is_refused(tmp_path, content):
    path = tmp_path / "pool.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"pool\.json should be a pool of negatives .* leave it out"):
        NegativePool.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="should be a pool of negatives"):
        NegativePool.load(tmp_path / "none.json")


def test_a_pool_too_small_is_refused():
    with pytest.raises(UsageError, match="at least 32 steps, got 31"):
        NegativePool.build([], size=31)
