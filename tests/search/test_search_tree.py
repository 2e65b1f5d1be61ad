"""Search over trees of steps: against brute force, and against the PRM's own one pass over each trace."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from statistics import fmean

import pytest
from search_parts import STOP, TreePolicy, problems, searcher

from reasonflux_prm.policy.base import Request
from reasonflux_prm.records import SegmentedTrace, Step, Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings, score_traces
from reasonflux_prm.search.beam import Beam
from reasonflux_prm.search.draft import Draft
from reasonflux_prm.search.dvts import DVTS
from reasonflux_prm.search.particles import Particles, softmax
from reasonflux_prm.search.rebase import Rebase, shares

PROBLEM = problems(1)[0]
METHODS = [Beam(2, 2), DVTS(2, 2), Particles(4), Rebase(4)]


def asked(policy) -> str:
    return policy.requests[0].messages[-1].content


def steps_of(written: str) -> list[tuple[str, str]]:
    """Cut a trace of `TreePolicy` into steps, without any code of the package."""
    thinking, _, response = written.removeprefix("<think>\n").partition("</think>")
    parts = [("thinking", step) for step in thinking.split(STOP)] + [("response", response)]
    return [(part, text.strip()) for part, text in parts if text.strip()]


def one_pass(engine, written: str):
    """Return what the engine says of a trace with these steps."""
    texts = {"thinking": "", "response": ""}
    spans = []
    for part, text in steps_of(written):
        spans.append(Step(part, len(texts[part]), len(texts[part]) + len(text)))
        texts[part] += text
    trace = Trace("t", PROBLEM.problem, texts["thinking"], texts["response"])
    (scored,) = score_traces(engine.prm, [SegmentedTrace(trace, tuple(spans), "given")], engine.settings)
    return scored


def nodes_asked_for(policy) -> set[str]:
    """Return everything that was written, from the requests alone."""
    found = set()
    for request in policy.requests:
        for at in range(request.n):
            child = policy._child(request, at)
            found.add(request.prefix + child.text + child.stopped_at)
    return found


def tokens_of_nodes(engine, nodes) -> int:
    """Return the tokens that a PRM has to read for distinct nodes: the last step of each, behind its parent's."""
    total = len(engine.prm.head(PROBLEM.problem))
    for node in nodes:
        steps = steps_of(node)
        part, text = steps[-1]
        previous = steps[-2][0] if len(steps) > 1 else None
        total += len(engine.prm.step_piece(text, len(steps) - 1, part, previous).tokens)
    return total


def brute_force(engine, policy, width, expand):
    """Beam search over all texts, each scored by itself from its beginning."""
    question = asked(policy)
    value = {}

    def worth(written):
        if written not in value:
            value[written] = fmean(one_pass(engine, written).step_rewards)
        return value[written]

    beam, each = [("", False)], width * expand
    while not all(over for _, over in beam):
        pool = [one for one in beam if one[1]]
        for written, over in beam:
            for branch in range(0 if over else min(each, policy.branches)):
                child = policy.step(question, written, branch)
                pool.append((written + child.text + child.stopped_at, not child.stopped_at))
        beam = sorted(dict.fromkeys(pool), key=lambda one: -worth(one[0]))[:width]
        each = expand
    return [written for written, _ in beam]


def written_of(result) -> list[str]:
    return [STOP.join(text for _, text in steps_of(one.text)) for one in result.candidates]


@pytest.mark.parametrize(("width", "expand", "branches"), [(1, 3, 3), (2, 2, 2), (3, 2, 4), (4, 4, 4)])
def test_beam_search_is_brute_force(engine, width, expand, branches):
    policy = TreePolicy(thinking=3, branches=branches, in_order=True)
    (result,) = searcher(Beam(width, expand), policy, engine).search([PROBLEM])
    expected = brute_force(engine, policy, width, expand)
    assert written_of(result) == [STOP.join(text for _, text in steps_of(one)) for one in expected]
    rewards = [one_pass(engine, written).reward for written in expected]
    assert result.pick.pick == rewards.index(max(rewards))
    assert result.picked.scored.reward == pytest.approx(max(rewards), abs=1e-4)


def test_a_beam_that_holds_all_finds_the_best_of_all(engine):
    policy = TreePolicy(thinking=2, branches=3, in_order=True)
    (result,) = searcher(Beam(27, 3), policy, engine).search([PROBLEM])
    question, everything = asked(policy), []
    for branches in product(range(3), repeat=3):
        written = ""
        for branch in branches:
            child = policy.step(question, written, branch)
            written += child.text + child.stopped_at
        everything.append(one_pass(engine, written).reward)
    assert len(result.candidates) == len(set(everything))
    assert result.picked.scored.reward == pytest.approx(max(everything), abs=1e-4)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_rewards_are_those_of_one_pass_and_nothing_is_read_twice(engine, method):
    policy = TreePolicy(thinking=4, branches=3)
    (result,) = searcher(method, policy, engine).search([PROBLEM])
    assert len(result.candidates) == 4 or method.name in ("beam", "dvts")
    for candidate in result.candidates:
        scored = candidate.scored
        expected = one_pass(engine, candidate.text)
        assert scored.step_rewards == pytest.approx(expected.step_rewards, abs=1e-4)
        assert scored.trajectory_reward == pytest.approx(expected.trajectory_reward, abs=1e-4)
        assert scored.reward == pytest.approx(expected.reward, abs=1e-4)
        assert scored.tokens == expected.tokens
        assert candidate.ended
        assert [scored.trace.text(step.part)[step.start : step.stop].strip() for step in scored.steps] == [
            text for _, text in steps_of(candidate.text)
        ]
    nodes = nodes_asked_for(policy)
    markers = len({one.text for one in result.candidates})
    assert result.prm_tokens == tokens_of_nodes(engine, nodes) + markers
    sent = sum(policy._child(request, at).completion_tokens for request in policy.requests for at in range(request.n))
    assert result.policy_tokens == sent


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_same_seed_gives_the_same_and_another_another(engine, method):
    def run(seed):
        policy = TreePolicy(thinking=4, branches=5)
        return [result.row() for result in searcher(method, policy, engine, seed=seed).search(problems())]

    first = run(0)
    assert run(0) == first
    assert run(1) != first


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_prm_without_sessions_reads_whole_drafts(engines, method):
    policy = TreePolicy(thinking=3, branches=2)
    (result,) = searcher(method, policy, engines["response_first"]).search([PROBLEM])
    for candidate in result.candidates:
        assert candidate.scored.reward == pytest.approx(one_pass(engines["response_first"], candidate.text).reward)
    read = sum(one_pass(engines["response_first"], node).tokens for node in nodes_asked_for(policy))
    assert result.prm_tokens == read, "every draft from its beginning, and the finished ones not once more"
    found = searcher(method, policy, engines["response_first"]).identity()
    assert found["prm"]["keeps_past"] is False


def test_a_trace_that_outgrows_the_context_is_read_in_windows(engine):
    policy = TreePolicy(thinking=6, branches=2)
    prm = engine.prm
    spec = prm.spec
    long = len(prm.head(PROBLEM.problem)) + 60
    small = Engine(prm, EngineSettings(context=long))
    try:
        prm.spec = replace(spec, context_length=long)
        (result,) = searcher(Beam(2, 2), policy, small).search([PROBLEM])
        for candidate in result.candidates:
            expected = one_pass(small, candidate.text)
            assert expected.overflow, "or the test tests nothing"
            assert candidate.scored.reward == pytest.approx(expected.reward, abs=1e-4)
            assert candidate.scored.overflow == expected.overflow
    finally:
        prm.spec = spec


def test_dvts_keeps_its_subtrees_apart(engine):
    policy = TreePolicy(thinking=2, branches=4, in_order=True)
    (result,) = searcher(DVTS(2, 2), policy, engine).search([PROBLEM])
    question = asked(policy)
    expected = []
    for subtree in ((0, 1), (2, 3)):
        written, choices = "", subtree
        while True:
            children = [policy.step(question, written, branch) for branch in choices]
            texts = [written + child.text + child.stopped_at for child in children]
            values = [fmean(one_pass(engine, text).step_rewards) for text in texts]
            at = values.index(max(values))
            written, choices = texts[at], (0, 1)
            if not children[at].stopped_at:
                break
        expected.append(STOP.join(text for _, text in steps_of(written)))
    assert written_of(result) == expected


def test_particles_are_resampled_by_their_odds(engine):
    """Of many particles over one step, the shares of the texts follow the odds of their rewards."""
    policy = TreePolicy(thinking=2, branches=2, in_order=True)
    list(searcher(Particles(2000), policy, engine).search([PROBLEM]))
    question = asked(policy)
    first = [policy.step(question, "", branch) for branch in range(2)]
    rewards = [one_pass(engine, child.text).step_rewards[0] for child in first]
    odds = [reward / (1 - reward) for reward in rewards]
    second = [request for request in policy.requests if request.prefix]
    drawn = {request.prefix: request.n for request in second if request.prefix.count(STOP) == 1}
    share = drawn[first[0].text + STOP] / 2000
    assert share == pytest.approx(odds[0] / sum(odds), abs=0.04)


def test_softmax_and_shares():
    assert softmax([0.0, 0.0], 1.0) == [0.5, 0.5]
    assert softmax([float("-inf"), 0.0], 1.0) == [0.0, 1.0]
    assert softmax([float("-inf")] * 4, 1.0) == [0.25] * 4
    assert shares([0.9, 0.9, 0.1], 4, 0.1) == [2, 2, 0]
    assert shares([0.5, 0.5, 0.5], 4, 1.0) == [2, 1, 1]
    assert sum(shares([0.1, 0.7, 0.3, 0.2], 7, 0.3)) == 7


def test_partial_thinking_is_read_as_thinking(engine, monkeypatch):
    seen = []
    from reasonflux_prm.scoring import session

    appended = session.append_to

    def spy(sessions, texts, parts):
        seen.extend(zip(texts, parts, strict=True))
        return appended(sessions, texts, parts)

    monkeypatch.setattr(session, "append_to", spy)
    policy = TreePolicy(thinking=3, branches=2)
    list(searcher(Beam(2, 2), policy, engine).search([PROBLEM]))
    assert {part for text, part in seen if "answer is" in text} == {"response"}
    assert {part for text, part in seen if "answer is" not in text} == {"thinking"}


def test_late_marks_are_read_again(engine):
    class Unopened(TreePolicy):
        def step(self, problem, prefix, branch):
            child = super().step(problem, prefix, branch)
            return replace(child, text=child.text.removeprefix("<think>\n"))

    policy = Unopened(thinking=3, branches=2)
    (result,) = searcher(Beam(1, 2), policy, engine).search([PROBLEM])
    assert result.troubles["late-mark"] >= 1
    expected = one_pass(engine, result.picked.text)
    assert result.picked.scored.reward == pytest.approx(expected.reward, abs=1e-4)
    opened = TreePolicy(thinking=3, branches=2)
    (told,) = searcher(Beam(1, 2), opened, engine, opening="<think>\n").search([PROBLEM])
    assert "late-mark" not in told.troubles


def test_the_tree_policy_is_asked_for_prefixes(engine):
    policy = TreePolicy(thinking=2, branches=2)
    list(searcher(Beam(2, 2), policy, engine, opening="<think>\n", step_tokens=50, max_tokens=60).search([PROBLEM]))
    first, second = policy.requests[0], policy.requests[1]
    assert isinstance(first, Request)
    assert (first.prefix, first.n, first.raw, first.stop, first.max_tokens) == ("<think>\n", 4, True, (STOP,), 50)
    assert second.n == 2
    assert second.max_tokens <= 60
    assert Draft().extended(second.prefix).steps
