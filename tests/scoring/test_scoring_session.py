"""Sessions: whatever is appended, forked and taken back, the rewards are those of one pass over what is there."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_native import Reference, made_up

from reasonflux_prm.errors import ContextError, UsageError
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.families.implicit import ImplicitPRM
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.records import Part, SegmentedTrace, Step, Trace
from reasonflux_prm.scoring.engine import score_traces
from reasonflux_prm.scoring.session import Session, append_to

PROBLEM = "What is 12 + 30?"
TEXTS = [made_up(seed, thinking=1, response=0).trace.thinking for seed in range(30)]


@dataclass
class Written:
    """What a session should hold."""

    session: Session
    steps: list[tuple[str, Part]] = field(default_factory=list)

    def append(self, text: str, part: Part) -> None:
        self.session.append(text, part)
        self.steps.append((text, part))

    def fork(self) -> Written:
        return Written(self.session.fork(), self.steps[:])

    def rollback(self, count: int) -> None:
        self.session.rollback(count)
        self.steps = self.steps[: len(self.steps) - count]


def segmented(steps: list[tuple[str, Part]]) -> SegmentedTrace:
    texts: dict[Part, str] = {"thinking": "", "response": ""}
    spans = []
    for text, part in steps:
        spans.append(Step(part, len(texts[part]), len(texts[part]) + len(text)))
        texts[part] += text
    return SegmentedTrace(Trace("s", PROBLEM, texts["thinking"], texts["response"]), tuple(spans), "given")


def expect_one_pass(prm, written: list[Written], tolerance: float = 1e-4) -> None:
    written = [one for one in written if one.steps]
    for one, record in zip(written, score_traces(prm, [segmented(one.steps) for one in written]), strict=True):
        assert one.session.step_rewards == pytest.approx(list(record.step_rewards), abs=tolerance, rel=0)
        assert one.session.trajectory() == pytest.approx(record.trajectory_reward, abs=tolerance, rel=0)
        assert one.session.tokens == record.tokens - 1, "all but the marker"


def started(prm, *texts: str) -> Written:
    one = Written(Session(prm, PROBLEM))
    for text in texts:
        one.append(text, "thinking")
    return one


# --- equal to one pass ---------------------------------------------------------------------------------------------


def test_a_session_equals_the_reference(prm, folders):
    trace = made_up(3, thinking=4, response=2)
    session = Session(prm, trace.trace.problem)
    found = [session.append(trace.text(step), step.part) for step in trace.steps]
    expected = Reference(folders["causal"], "causal").whole(trace)
    assert found == pytest.approx([expected[number] for number in range(len(found))], abs=1e-4, rel=0)
    assert session.trajectory() == pytest.approx(expected[-1], abs=1e-4, rel=0)
    assert session.step_rewards == found
    assert len(session) == 6


def test_asking_for_the_trajectory_changes_nothing(prm):
    one = started(prm, *TEXTS[:3])
    held = one.session.tokens
    first = one.session.trajectory()
    assert one.session.trajectory() == first
    assert one.session.tokens == held
    one.append(TEXTS[3], "response")
    expect_one_pass(prm, [one])


PARTS = st.sampled_from(["thinking", "response"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 99), st.integers(0, 29), PARTS),
        st.tuples(st.just("append all"), st.integers(0, 29), PARTS),
        st.tuples(st.just("fork"), st.integers(0, 99)),
        st.tuples(st.just("rollback"), st.integers(0, 99), st.integers(0, 3)),
        st.tuples(st.just("trajectory"), st.integers(0, 99)),
        st.tuples(st.just("drop"), st.integers(0, 99)),
    ),
    min_size=4,
    max_size=18,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_any_program_equals_one_pass(prm, program):
    sessions = [Written(Session(prm, PROBLEM))]
    for name, *arguments in program:
        one = sessions[arguments[0] % len(sessions)]
        if name == "append":
            one.append(TEXTS[arguments[1]], arguments[2])
        elif name == "append all":
            text, part = arguments
            texts = [TEXTS[(text + number) % 30] for number in range(len(sessions))]
            found = append_to([other.session for other in sessions], texts, [part] * len(sessions))
            for other, own, reward in zip(sessions, texts, found, strict=True):
                other.steps.append((own, part))
                assert other.session.step_rewards[-1] == reward
        elif name == "fork" and len(sessions) < 5:
            sessions.append(one.fork())
        elif name == "rollback":
            one.rollback(min(arguments[1], len(one.steps)))
        elif name == "trajectory":
            assert (one.session.trajectory() is None) == (not one.steps)
        elif name == "drop" and len(sessions) > 1:
            sessions.remove(one)
            del one
            gc.collect(0)
        assert [len(other.session) for other in sessions] == [len(other.steps) for other in sessions]
    expect_one_pass(prm, sessions)


def test_a_session_outgrows_its_first_buffer(prm):
    one = started(prm, *TEXTS)
    twin = one.fork()
    twin.append(TEXTS[0], "response")
    one.append(TEXTS[1], "response")
    assert one.session.tokens > 512
    expect_one_pass(prm, [one, twin])


def test_several_sessions_in_one_pass(prm):
    several = [started(prm, *TEXTS[:count]) for count in (0, 1, 3)]
    calls = []
    decoder = prm.decoder

    class Counting:
        def __call__(self, *arguments):
            calls.append(arguments)
            return decoder(*arguments)

    prm.decoder = Counting()
    try:
        append_to([one.session for one in several], TEXTS[5:8], ["thinking", "response", "thinking"])
    finally:
        prm.decoder = decoder
    assert len(calls) == 1
    for one, text, part in zip(several, TEXTS[5:8], ["thinking", "response", "thinking"], strict=True):
        one.steps.append((text, part))
    expect_one_pass(prm, several)


def test_nothing_to_append(prm):
    assert append_to([], [], []) == []


# --- memory --------------------------------------------------------------------------------------------------------


def storage(one: Written) -> object:
    return one.session._caches[0]._storage


def test_forks_share_memory_until_they_diverge(prm):
    one = started(prm, *TEXTS[:2])
    twins = [one.fork() for _ in range(5)]
    assert {id(storage(twin)) for twin in twins} == {id(storage(one))}
    twins[0].append(TEXTS[2], "thinking")
    assert storage(twins[0]) is storage(one), "the first to go on writes behind what is shared"
    twins[1].append(TEXTS[3], "thinking")
    assert storage(twins[1]) is not storage(one), "the next finds the place taken"
    assert {id(storage(twin)) for twin in twins[2:]} == {id(storage(one))}
    twins[2].rollback(1)
    assert storage(twins[2]) is storage(one)
    twins[2].append(TEXTS[4], "thinking")
    assert storage(twins[2]) is not storage(one), "it must not write over what the others hold"
    expect_one_pass(prm, [one, *twins])


def test_a_session_alone_writes_in_place(prm):
    one = started(prm, *TEXTS[:3])
    before = storage(one)
    one.rollback(2)
    one.append(TEXTS[7], "thinking")
    twin = one.fork()
    twin.append(TEXTS[8], "thinking")
    del twin
    gc.collect()
    one.append(TEXTS[9], "thinking")
    assert storage(one) is before
    expect_one_pass(prm, [one])


# --- refusals, after which everything is as it was -----------------------------------------------------------------


def test_outgrowing_the_context_changes_nothing(folders):
    prm = load_prm(str(folders["causal"]))
    short, long = started(prm, TEXTS[0]), started(prm, *TEXTS[:4])
    held = long.session.tokens, short.session.tokens
    prm.spec = replace(prm.spec, context_length=long.session.tokens + 5)
    with pytest.raises(ContextError, match=f"the session holds {held[0]} tokens and the step adds"):
        append_to([short.session, long.session], [TEXTS[1], "twelve and thirty is forty-two"], ["thinking"] * 2)
    assert (long.session.tokens, short.session.tokens) == held
    assert (len(long.session), len(short.session)) == (4, 1)
    prm.spec = replace(prm.spec, context_length=8192)
    for one in (short, long):
        one.append(TEXTS[9], "response")
    expect_one_pass(prm, [short, long])


def test_a_full_session_cannot_take_the_marker(folders):
    prm = load_prm(str(folders["causal"]))
    one = started(prm, *TEXTS[:2])
    prm.spec = replace(prm.spec, context_length=one.session.tokens)
    with pytest.raises(ContextError):
        one.session.trajectory()
    prm.spec = replace(prm.spec, context_length=8192)
    expect_one_pass(prm, [one])


def test_a_problem_longer_than_the_context(folders):
    prm = load_prm(str(folders["causal"]))
    prm.spec = replace(prm.spec, context_length=8)
    with pytest.raises(ContextError, match="the PRM takes 8"):
        Session(prm, PROBLEM)


def test_a_failed_pass_changes_nothing(folders):
    prm = load_prm(str(folders["causal"]))
    one, two = started(prm, TEXTS[0]), started(prm, *TEXTS[1:3])
    twin = one.fork()
    last = prm.decoder.layers[-1]

    def out_of_memory(*_):
        raise torch.OutOfMemoryError("full")

    prm.decoder.layers[-1] = out_of_memory  # the layers before it have written their keys and values
    with pytest.raises(torch.OutOfMemoryError):
        append_to([one.session, two.session], TEXTS[5:7], ["thinking"] * 2)
    prm.decoder.layers[-1] = last
    for each, text in ((one, TEXTS[7]), (twin, TEXTS[8]), (two, TEXTS[9])):
        each.append(text, "thinking")
    expect_one_pass(prm, [one, two, twin])


def test_arguments_that_make_no_sense(prm, prms):
    one = started(prm, TEXTS[0])
    with pytest.raises(UsageError, match="different sessions of one PRM"):
        append_to([one.session, one.session], TEXTS[:2], ["thinking"] * 2)
    for blank in ("", " \n\n"):
        with pytest.raises(UsageError, match="a step must hold some text"):
            one.session.append(blank)
    with pytest.raises(UsageError, match="got 1 sessions, 2 texts and 1 parts"):
        append_to([one.session], TEXTS[:2], ["thinking"])
    for count in (-1, 2):
        with pytest.raises(UsageError, match=f"cannot take back {count} steps of a session that has 1"):
            one.session.rollback(count)
    one.session.rollback(0)
    expect_one_pass(prm, [one])
    with pytest.raises(UsageError, match="needs the whole response before the first step"):
        Session(prms["response_first"], PROBLEM)


def test_sessions_of_two_prms(prm, folders):
    other = load_prm(str(folders["causal"]))
    with pytest.raises(UsageError, match="of one PRM"):
        append_to([Session(prm, PROBLEM), Session(other, PROBLEM)], TEXTS[:2], ["thinking"] * 2)


def test_before_the_first_step(prm):
    session = Session(prm, PROBLEM)
    assert session.trajectory() is None
    assert session.step_rewards == []
    assert len(session) == 0
    assert session.tokens == len(prm.head(PROBLEM))


# --- a PRM of two bodies -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def implicit(tmp_path_factory):
    tokens = tiny.tokenizer()
    folders = []
    for seed in (1, 2):
        model = tiny.causal("qwen2", tokens.get_vocab_size(), seed)
        folder = tmp_path_factory.mktemp("implicit")
        tiny.write(folder, model.config, model.state_dict(), tokens, architecture="Qwen2ForCausalLM")
        folders.append(Checkpoint(folder, name=f"body {seed}"))
    return ImplicitPRM.load(*folders, beta=0.05)


def test_the_trajectory_of_a_cumulative_family(implicit):
    """Its trajectory reward is a sum over all steps, in a session as in one pass."""
    one = Written(Session(implicit, PROBLEM))
    for text in TEXTS[:3]:
        one.append(text + "\n\n", "thinking")
    expect_one_pass(implicit, [one])
    batch, _ = tiny.pack(implicit.encode(segmented(one.steps)).sequences)
    assert one.session.trajectory() == pytest.approx(implicit.forward(batch).sum().item(), abs=1e-4)


def test_when_the_second_body_fails_the_first_forgets(implicit):
    one = Written(Session(implicit, PROBLEM))
    one.append(TEXTS[0] + "\n\n", "thinking")
    layers = implicit.models[1].decoder.layers

    def out_of_memory(*_):
        raise torch.OutOfMemoryError("full")

    last, layers[-1] = layers[-1], out_of_memory
    with pytest.raises(torch.OutOfMemoryError):
        one.session.append(TEXTS[1] + "\n\n", "thinking")
    layers[-1] = last
    assert {cache.length for cache in one.session._caches} == {one.session.tokens}
    one.append(TEXTS[2] + "\n\n", "thinking")
    expect_one_pass(implicit, [one])
