"""The engine: right numbers in any company, and a record with a reason for every trace that has none."""

from __future__ import annotations

import math
import random
import tracemalloc
import weakref
from dataclasses import replace

import pytest
import torch
from tiny_native import Reference, made_up, write_native

from reasonflux_prm.errors import UsageError
from reasonflux_prm.prm.base import PRM
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.records import SegmentedTrace, Status, Step, Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings, score_traces

LAYOUTS = ("causal", "response_first")
TRACES = [made_up(seed, thinking=1 + seed % 5, response=seed % 3) for seed in range(12)]


@pytest.fixture(scope="module")
def references(folders):
    return {layout: Reference(folders[layout], layout) for layout in LAYOUTS}


def score(prm, traces, **settings):
    return list(score_traces(prm, traces, EngineSettings(**settings)))


def rewards(record):
    return [*record.step_rewards, record.trajectory_reward]


def expect(record, expected: dict[int, float]):
    assert record.status is Status.SCORED, record.note
    found = {number: reward for number, reward in enumerate(record.step_rewards) if reward is not None}
    found[-1] = record.trajectory_reward
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-5, rel=0)


# --- the numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_scores_equal_the_reference(prms, references, layout):
    for segmented, record in zip(TRACES, score(prms[layout], TRACES), strict=True):
        expect(record, references[layout].whole(segmented))
        assert record.overflow is None
        assert record.trace is segmented.trace
        assert record.steps == segmented.steps


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("context", "overlap"), [(120, 0.5), (120, 0.0), (200, 0.3), (160, 0.9)])
def test_windows_equal_the_reference(prms, references, layout, context, overlap):
    long = [made_up(seed, thinking=14, response=1, longest=20) for seed in (1, 2)]
    whole = [references[layout].whole(trace) for trace in long]
    for segmented, alone, record in zip(
        long, whole, score(prms[layout], long, context=context, overlap=overlap), strict=True
    ):
        expected = references[layout].windowed(segmented, context, overlap)
        expect(record, expected)
        assert max(abs(expected[step] - alone[step]) for step in alone) > 1e-3, "windows do change what is read"
        assert f"tokens for a context of {context}: " in record.overflow
        assert record.tokens > sum(map(len, prms[layout].encode(segmented).sequences))


def test_a_step_longer_than_the_context(prm, references):
    long = made_up(5, thinking=3, response=1, longest=150)
    context = 90
    [record] = score(prm, [long], context=context)
    expect(record, references["causal"].windowed(long, context, 0.5))
    assert "shortened" in record.overflow


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_order_chunk_and_pack_give_the_same(prms, layout):
    prm = prms[layout]
    alone = {trace.trace.id: score(prm, [trace], context=150)[0] for trace in TRACES}
    for chunk_traces in range(1, len(TRACES) + 1):
        order = TRACES[:]
        random.Random(chunk_traces).shuffle(order)
        pack_tokens = (1, 64, 200, 1000, 10**6)[chunk_traces % 5]
        records = score(prm, order, context=150, chunk_traces=chunk_traces, pack_tokens=pack_tokens)
        assert [record.trace.id for record in records] == [trace.trace.id for trace in order]
        for record in records:
            one = alone[record.trace.id]
            assert rewards(record) == pytest.approx(rewards(one), abs=1e-5, rel=0)
            assert record.reward == pytest.approx(one.reward, abs=2e-5, rel=0)
            assert (record.tokens, record.overflow) == (one.tokens, one.overflow)


def test_chunks_close_at_tokens(prm):
    engine = Engine(prm, EngineSettings(chunk_tokens=200, pack_tokens=100))
    chunks = list(engine.score_chunks(TRACES))
    assert [record.trace for chunk in chunks for record in chunk] == [trace.trace for trace in TRACES]
    for chunk in chunks[:-1]:
        assert sum(record.tokens for record in chunk) >= 200
        assert sum(record.tokens for record in chunk[:-1]) < 200


def test_a_chunk_is_scored_before_the_next_is_read(prm):
    read = []

    def source():
        for trace in TRACES:
            read.append(trace)
            yield trace

    records = Engine(prm, EngineSettings(chunk_traces=3)).score(source())
    for number in range(3):
        next(records)
        assert len(read) == 3, f"after record {number + 1}"
    next(records)
    assert len(read) == 6


def test_no_traces(prm):
    assert score(prm, []) == []


def test_the_aggregate_is_of_the_settings(prm):
    trace = TRACES[4]
    [paper] = score(prm, [trace])
    steps = paper.step_rewards
    assert paper.reward == pytest.approx(sum(steps) / len(steps) + paper.trajectory_reward)
    [least] = score(prm, [trace], aggregation="min", alpha=0.5)
    assert least.reward == pytest.approx(min(steps) + 0.5 * paper.trajectory_reward, abs=1e-5)
    assert (least.prm.aggregation, least.prm.alpha) == ("min", 0.5)
    [without] = score(prm, [trace], aggregation="product", alpha=0.0)
    assert without.reward == pytest.approx(sum(map(math.log, steps)), abs=1e-4)
    assert paper.prm.layout == "causal"
    assert paper.prm.family == "native"


def test_the_family_has_the_last_word_on_rewards(folders):
    """Cumulative families turn raw rewards into step rewards, and all of them into the trajectory reward."""
    prm = load_prm(str(folders["causal"]))
    [raw] = score(prm, [TRACES[4]])
    prm.finish = lambda rewards: [sum(rewards[: n + 1]) for n in range(len(rewards))]
    prm.finish_trajectory = lambda rewards, read: sum(rewards) + 10 * read
    [record] = score(prm, [TRACES[4]], aggregation="last")
    total = sum(raw.step_rewards)
    assert record.step_rewards[-1] == pytest.approx(total)
    assert record.trajectory_reward == pytest.approx(total + 10 * raw.trajectory_reward)
    assert record.reward == pytest.approx(2 * total + 10 * raw.trajectory_reward)


# --- overflow ------------------------------------------------------------------------------------------------------


def test_head_scores_the_first_steps_as_a_shorter_trace_would_be(prm, references):
    long = made_up(3, thinking=12, response=0)
    [record] = score(prm, [long], context=150, overflow="head")
    count = sum(reward is not None for reward in record.step_rewards)
    assert 0 < count < len(long.steps)
    shorter = SegmentedTrace(long.trace, long.steps[:count], "blank-line")
    expect(record, references["causal"].whole(shorter))
    assert f"head kept, {len(long.steps) - count} of {len(long.steps)} steps left out" in record.overflow
    assert record.step_rewards[count:] == (None,) * (len(long.steps) - count)


def test_tail_scores_the_last_steps(prm, references):
    long = made_up(3, thinking=12, response=2)
    [record] = score(prm, [long], context=150, overflow="tail")
    count = sum(reward is not None for reward in record.step_rewards)
    assert 0 < count < len(long.steps)
    reading = references["causal"].reading(long)
    expect(record, references["causal"].read(reading.head, reading.pieces[-count - 1 :]))
    assert record.reward is not None


def test_refuse_says_why_and_goes_on(prm):
    long, short = made_up(3, thinking=12), made_up(4, thinking=1, response=0, longest=3)
    records = score(prm, [short, long, short], context=150, overflow="refuse")
    assert [record.status for record in records] == [Status.SCORED, Status.TOO_LONG, Status.SCORED]
    assert records[1].reward is None
    assert records[1].trajectory_reward is None
    assert records[1].step_rewards == (None,) * len(long.steps)
    assert records[1].tokens == 0
    assert "the PRM takes 150" in records[1].note


def test_a_problem_longer_than_the_context(prm):
    trace = made_up(4)
    long = SegmentedTrace(replace(trace.trace, problem="the sum of 12 " * 60), trace.steps, "blank-line")
    for overflow in ("window", "head", "tail"):
        records = score(prm, [long, trace], context=150, overflow=overflow)
        assert [record.status for record in records] == [Status.NO_ROOM, Status.SCORED]
        assert "which leaves no room for a step" in records[0].note


# --- traces with nothing to score ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_thinking_without_response_and_the_reverse(prms, references, layout):
    for counts in ((3, 0), (0, 3)):
        segmented = made_up(6, *counts)
        [record] = score(prms[layout], [segmented])
        expect(record, references[layout].whole(segmented))
        assert None not in record.step_rewards


@pytest.mark.parametrize(("thinking", "response"), [("", ""), (" \n\n ", ""), ("\n", "\t\n\n \n")])
@pytest.mark.parametrize("rule", ["adaptive", "blank-line", "sentence"])
def test_no_text_no_steps(prm, thinking, response, rule):
    empty = Trace("e", "What?", thinking, response)
    records = score(prm, [empty, TRACES[0].trace], steps=rule)
    assert [record.status for record in records] == [Status.NO_STEPS, Status.SCORED]
    assert records[0].reward is None
    assert set(records[0].step_rewards) <= {None}
    assert len(records[0].step_rewards) == len(records[0].steps)
    assert records[0].note == "neither thinking nor response holds any text"


def test_a_blank_step_has_no_reward_and_no_influence(prm):
    text = "First, 12.\n\n   \n\nThen 30."
    spans = [(0, 12), (12, 17), (17, 25)]
    blank = SegmentedTrace(Trace("b", "Add.", text), tuple(Step("thinking", *span) for span in spans), "given")
    plain = SegmentedTrace(Trace("p", "Add.", text), (Step("thinking", 0, 17), Step("thinking", 17, 25)), "given")
    records = score(prm, [blank, plain])
    first, middle, last = records[0].step_rewards
    assert middle is None
    assert [first, last] == pytest.approx(list(records[1].step_rewards), abs=1e-6)
    assert records[0].reward == pytest.approx(records[1].reward, abs=1e-5), "it is not counted as 0"


def test_the_rule_given_needs_steps(prm):
    bare = Trace("bare", "Add.", "", "So it is 42.")
    cut = replace(bare, id="cut", steps=(Step("response", 0, 3), Step("response", 3, 12)))
    wrong = replace(bare, id="wrong", steps=(Step("response", 0, 99),))
    records = score(prm, [bare, cut, wrong, cut], steps="given")
    assert [record.status.value for record in records] == ["failed", "scored", "failed", "scored"]
    assert "trace 'bare' came without steps" in records[0].note
    assert "trace 'wrong'" in records[2].note
    assert len(records[1].step_rewards) == 2


def test_traces_are_cut_by_the_rule_of_the_settings(prm):
    trace = Trace("r", "Add.", "One. Two.\n\nThree.", "Four.")
    [by_line] = score(prm, [trace], steps="blank-line")
    [by_sentence] = score(prm, [trace], steps="sentence")
    assert len(by_line.steps) == 3
    assert len(by_sentence.steps) == 4


# --- the machine fails us ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite(folders, value):
    prm = load_prm(str(folders["causal"]))
    forward = prm.forward
    poisoned = prm.encode(TRACES[1]).sequences[0].head

    def broken(batch):
        found = forward(batch).clone()
        for read, position in enumerate(batch.reads.tolist()):
            start = max(s for s in batch.starts if s <= position)
            if tuple(batch.tokens[start : start + len(poisoned)].tolist()) == poisoned:
                found[read] = value
        return found

    prm.forward = broken
    records = score(prm, TRACES[:3])
    assert [record.status.value for record in records] == ["scored", "not-finite", "scored"]
    bad = records[1]
    assert bad.reward is None
    assert bad.trajectory_reward is None
    assert bad.step_rewards == (None,) * len(bad.steps)
    assert bad.tokens > 0
    assert "are NaN or infinite" in bad.note


def test_weights_that_are_not_finite(tmp_path):
    prm = load_prm(str(write_native(tmp_path)))
    prm.weight[0, 3] = math.nan
    records = score(prm, TRACES[:4])
    assert {record.status for record in records} == {Status.NOT_FINITE}


def cpu_shortage() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55)
    return caught.value


SHORTAGES = {
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": cpu_shortage,
    "python": MemoryError,
}


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_out_of_memory_halves_the_pack(folders, shortage):
    prm = load_prm(str(folders["causal"]))
    expected = score(prm, TRACES)
    forward, sizes = prm.forward, []
    error = SHORTAGES[shortage]()

    def small_only(batch):
        sizes.append(len(batch.starts) - 1)
        if sizes[-1] > 2:
            raise error
        return forward(batch)

    prm.forward = small_only
    records = score(prm, TRACES, pack_tokens=10**6)
    assert sizes[0] == len(TRACES)
    assert sum(size for size in sizes if size <= 2) == len(TRACES), "each once"
    for record, one in zip(records, expected, strict=True):
        assert record.status is Status.SCORED
        assert rewards(record) == pytest.approx(rewards(one), abs=1e-5)


def test_out_of_memory_once_is_forgotten(folders):
    prm = load_prm(str(folders["causal"]))
    forward, calls = prm.forward, []

    def once(batch):
        calls.append(batch)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("full")
        return forward(batch)

    prm.forward = once
    assert {record.status for record in score(prm, TRACES, pack_tokens=10**6)} == {Status.SCORED}
    assert len(calls) == 3


def test_out_of_memory_for_good_is_a_reason(folders):
    prm = load_prm(str(folders["causal"]))
    forward = prm.forward
    longest = max(TRACES, key=lambda trace: len(prm.encode(trace)))
    limit = len(prm.encode(longest))

    def never_the_longest(batch):
        if len(batch.tokens) >= limit:
            raise torch.OutOfMemoryError("full")
        return forward(batch)

    prm.forward = never_the_longest
    records = score(prm, TRACES)
    for trace, record in zip(TRACES, records, strict=True):
        assert record.status is (Status.OUT_OF_MEMORY if trace is longest else Status.SCORED)
    [bad] = [record for record in records if record.status is Status.OUT_OF_MEMORY]
    assert bad.note == f"a window of {limit:,} tokens does not fit in memory; score with a shorter context"
    assert bad.reward is None
    assert set(bad.step_rewards) == {None}


def test_a_trace_that_is_given_up_costs_no_more_passes(folders):
    prm = load_prm(str(folders["causal"]))
    calls = []

    def never(batch):
        calls.append(batch)
        raise torch.OutOfMemoryError("full")

    prm.forward = never
    [record] = score(prm, [made_up(1, thinking=30)], context=120, pack_tokens=1)
    assert record.status is Status.OUT_OF_MEMORY
    assert len(calls) == 1


def test_the_memory_of_a_failed_pass_is_free_before_the_next(folders):
    class Activations:
        """Stands for the tensors that a pass holds."""

    prm = load_prm(str(folders["causal"]))
    forward, passes = prm.forward, []

    def greedy(batch):
        assert all(activations() is None for activations in passes), "what the failed pass held is still there"
        held = Activations()
        passes.append(weakref.ref(held))
        if len(batch.starts) > 2:
            raise torch.OutOfMemoryError("full")
        return forward(batch)

    prm.forward = greedy
    assert {record.status for record in score(prm, TRACES[:4], pack_tokens=10**6)} == {Status.SCORED}
    assert len(passes) == 7


def test_other_errors_are_not_taken_for_a_shortage(folders):
    prm = load_prm(str(folders["causal"]))

    def broken(batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    prm.forward = broken
    with pytest.raises(RuntimeError, match="mat1"):
        score(prm, TRACES[:1])


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overflow": "cut"}, "unknown overflow 'cut'; there are window, refuse, head, tail"),
        ({"steps": "lines"}, "unknown step rule 'lines'"),
        ({"overlap": 1.0}, "overlap must be at least 0 and below 1, got 1"),
        ({"overlap": -0.1}, "overlap must be"),
        ({"overlap": math.nan}, "overlap must be"),
        ({"context": 0}, "context must be between 1 and the PRM's 8,192 tokens, got 0"),
        ({"context": 8193}, "context must be between 1 and the PRM's 8,192 tokens, got 8,193"),
        ({"aggregation": "median"}, "unknown aggregation 'median'"),
        ({"alpha": math.nan}, "alpha must be a finite number"),
        ({"alpha": math.inf}, "alpha must be a finite number"),
        ({"pack_tokens": 0}, "pack_tokens must be at least 1, got 0"),
        ({"chunk_traces": 0}, "chunk_traces must be at least 1, got 0"),
        ({"chunk_tokens": -5}, "chunk_tokens must be at least 1, got -5"),
    ],
)
def test_settings_that_make_no_sense(prm, settings, message):
    with pytest.raises(UsageError, match=message):
        Engine(prm, EngineSettings(**settings))


def test_settings_that_make_no_sense_with_this_prm(folders):
    prm: PRM = load_prm(str(folders["causal"]))
    prm.spec = replace(prm.spec, score_range=(-1.0, 1.0))
    with pytest.raises(UsageError, match="a product needs rewards of at least 0"):
        Engine(prm, EngineSettings(aggregation="product"))
    prm.spec = replace(prm.spec, has_steps=False, trajectory="only")
    with pytest.raises(UsageError, match="alpha 0 throws it away"):
        Engine(prm, EngineSettings(alpha=0.0))


# --- size ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trace_of_200_000_tokens(tmp_path):
    """Windows keep the memory of activations to one pack, however long the trace."""
    shapes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
    }
    prm = load_prm(str(write_native(tmp_path, shapes=shapes)))
    thinking = "\n\n".join(f"Step {n}: the sum of 12 and 30 is 42, so the answer is 42 again." for n in range(12_000))
    trace = Trace("long", "What is 12 + 30?", thinking, "It is 42.")
    widest = 0
    forward = prm.forward

    def watched(batch):
        nonlocal widest
        widest = max(widest, len(batch.tokens))
        return forward(batch)

    prm.forward = watched
    [record] = score(prm, [trace])
    assert record.status is Status.SCORED
    assert record.tokens > 200_000
    assert None not in record.step_rewards
    assert "windows" in record.overflow
    assert widest <= 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_traces(tmp_path):
    shapes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    prm = load_prm(str(write_native(tmp_path, shapes={**shapes, "num_key_value_heads": 1})))

    def peak(count: int) -> int:
        source = (Trace(f"t{n}", "Add.", f"Step {n}: 12 and 30.\n\n42.", "It is 42.") for n in range(count))
        tracemalloc.reset_peak()
        settings = EngineSettings(chunk_traces=32)
        assert sum(record.status is Status.SCORED for record in score_traces(prm, source, settings)) == count
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        peak(64)  # what is made once
        few = peak(100)
        many = peak(10_000)
    finally:
        tracemalloc.stop()
    assert many < 1.2 * few + 200_000
