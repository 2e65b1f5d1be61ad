"""Searching with PRMs of other kinds: rewards are those of one pass, and the counts say what was read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
from search_parts import TreePolicy, problems, searcher
from test_families_a import write_qwen, write_scalar
from test_search_tree import nodes_asked_for

from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.families.implicit import ImplicitPRM
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.records import PRMIdentity, ScoredTrace, SegmentedTrace, Status, Step, Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings, score_traces
from reasonflux_prm.search.beam import Beam
from reasonflux_prm.search.particles import Particles
from reasonflux_prm.search.reader import open_reader

PROBLEM = problems(1)[0]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families") / "qwen"
    write_qwen(folder, "byte-bpe", 2.0)
    return load_prm(str(folder), family="qwen-math")


@pytest.fixture(scope="module")
def scalar(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families") / "scalar"
    write_scalar(folder, "byte-bpe", 2.0)
    return load_prm(str(folder), family="reasonflux-scalar")


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


def again(engine, candidate) -> ScoredTrace:
    """Return what the engine says of a candidate as it stands."""
    whole = SegmentedTrace(candidate.trace, candidate.scored.steps, "given")
    (record,) = score_traces(engine.prm, [whole], engine.settings)
    return record


@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_a_trajectory_that_is_read_by_itself(qwen, alpha):
    assert qwen.spec.trajectory == "whole-response"
    engine, policy = Engine(qwen, EngineSettings(alpha=alpha)), TreePolicy()
    assert open_reader(engine).keeps_past
    (result,) = searcher(Beam(2, 2), policy, engine).search([PROBLEM])
    for candidate in result.candidates:
        expected = again(engine, candidate)
        assert candidate.scored.step_rewards == pytest.approx(expected.step_rewards, abs=1e-4)
        assert candidate.scored.trajectory_reward == pytest.approx(expected.trajectory_reward, abs=1e-4)
        assert candidate.scored.reward == pytest.approx(expected.reward, abs=1e-4)
        assert candidate.scored.tokens == expected.tokens


def test_a_cumulative_family(implicit):
    engine, policy = Engine(implicit), TreePolicy()
    for method in (Beam(2, 2), Particles(3)):
        (result,) = searcher(method, policy, engine).search([PROBLEM])
        for candidate in result.candidates:
            expected = again(engine, candidate)
            assert candidate.scored.reward == pytest.approx(expected.reward, abs=1e-3)
    assert not open_reader(engine).probabilities


def test_a_prm_without_step_rewards_is_steered_by_the_whole(scalar):
    engine, policy = Engine(scalar), TreePolicy()
    (result,) = searcher(Beam(2, 2), policy, engine).search([PROBLEM])
    for candidate in result.candidates:
        assert candidate.scored.reward == pytest.approx(again(engine, candidate).reward, abs=1e-4)
    read = 0
    for node in nodes_asked_for(policy):
        thinking, _, response = node.removeprefix("<think>\n").partition("</think>")
        (record,) = score_traces(scalar, [Trace("t", PROBLEM.problem, thinking, response)])
        read += record.tokens
    assert result.prm_tokens == read


class Verifier:
    """Stands in for a generative verifier: it cuts traces for itself, and fails on some."""

    identity = PRMIdentity("verifier", "0", "genprm", "causal", "min", 1.0)

    def settings_for_manifest(self):
        return {"samples": 1}

    def score_chunks(self, traces):
        for trace in traces:
            whole = trace.thinking + trace.response
            failed = "42" in trace.thinking
            reward = None if failed else len(whole) % 97 / 97
            yield [
                ScoredTrace(
                    trace,
                    Status.FAILED if failed else Status.SCORED,
                    (Step("thinking", 0, len(trace.thinking)),),
                    (reward,),
                    None,
                    reward,
                    self.identity,
                    len(whole.split()),
                )
            ]


def test_a_verifier_cuts_for_itself():
    policy = TreePolicy()
    (result,) = searcher(Beam(2, 2), policy, Verifier()).search([PROBLEM])
    for candidate in result.candidates:
        whole = candidate.trace.thinking + candidate.trace.response
        failed = "42" in candidate.trace.thinking
        assert candidate.scored.reward == (None if failed else len(whole) % 97 / 97)
        assert len(candidate.scored.steps) == 1
    assert result.prm_tokens > 0
    assert replace(result, note=None).row()["candidates"][0]["steps"][0]["start"] == 0
