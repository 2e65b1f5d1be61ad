"""Whole traces: samples and their votes, the rules of stopping early, caps, and all that a policy may do wrong."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import product

import pytest
from search_parts import STOP, TreePolicy, answers, counted, problems, searcher

from reasonflux_prm.errors import PolicyError, PolicyStopped, UsageError
from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.policy.base import Completion, PartlyAnswered
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.search.adaptive import Adaptive, lead_probability
from reasonflux_prm.search.beam import Beam
from reasonflux_prm.search.dvts import DVTS
from reasonflux_prm.search.methods import SEARCH_METHODS, open_method
from reasonflux_prm.search.particles import Particles
from reasonflux_prm.search.rebase import Rebase
from reasonflux_prm.search.result import SearchStatus
from reasonflux_prm.search.sample import Sample

PROBLEM = problems(1)[0]
STEPWISE = [Beam(2, 2), DVTS(2, 2), Particles(4), Rebase(4)]
ALL = [Sample(4), Adaptive(4), *STEPWISE]
each_method = pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
each_stepwise = pytest.mark.parametrize("method", STEPWISE, ids=lambda method: method.name)


def boxed(*given) -> list[str]:
    return [f"It is \\boxed{{{one}}}." for one in given]


def majority(method, texts):
    """Search among whole texts without a PRM."""
    policy = ScriptedPolicy(answers(texts))
    (result,) = searcher(method, policy, None, pick="majority").search([PROBLEM])
    return result, policy


# --- samples -------------------------------------------------------------------------------------------------------


def test_samples_are_scored_and_the_best_is_picked(engine):
    policy = TreePolicy()
    (result,) = searcher(Sample(6), policy, engine).search([PROBLEM])
    assert [one.trace.id for one in result.candidates] == [f"p0#{k}" for k in range(6)]
    rewards = [one.scored.reward for one in result.candidates]
    assert result.pick.pick == rewards.index(max(rewards))
    assert result.text == result.picked.trace.response
    assert result.answer == result.pick.answers[result.pick.pick]
    assert result.prm_tokens == sum(one.scored.tokens for one in result.candidates)
    assert result.policy_tokens == sum(one.tokens for one in result.candidates)
    assert (result.rounds, result.status, result.capped) == (1, SearchStatus.PICKED, False)


def test_a_vote_needs_no_prm():
    result, _ = majority(Sample(5), boxed(1, 2, 2, 3, 3))
    assert (result.pick.pick, result.ties, result.answer, result.prm_tokens) == (1, (3,), "2", 0)


def test_an_opening_is_part_of_the_trace():
    opening = "<think>\nOkay, "
    policy = ScriptedPolicy(lambda request: Completion("A: 4", "we add.") if request.prefix == opening else "")
    (result,) = searcher(Sample(1), policy, None, pick="majority", opening=opening).search([PROBLEM])
    assert result.picked.trace.thinking == "Okay, we add."


# --- stopping early ------------------------------------------------------------------------------------------------


def pick_of_all(texts) -> str:
    result, _ = majority(Sample(len(texts)), texts)
    return result.answer


def test_every_sequence_of_votes_gives_the_answer_of_all():
    saved = 0
    for given in product("123", repeat=7):
        texts = boxed(*given)
        result, policy = majority(Adaptive(7), texts)
        assert result.answer == pick_of_all(texts), given
        drawn = result.details["drawn"]
        assert drawn == sum(request.n for request in policy.requests) == len(result.candidates)
        assert result.details["saved"] == pytest.approx(1 - drawn / 7)
        saved += 7 - drawn
        assert drawn == first_decided(given), given
    assert saved > 0


def first_decided(given) -> int:
    """Return after how many votes nothing that could follow changes the winner, by trying all that could."""

    def winner(votes):
        counts = Counter(votes)  # in the order in which they came
        return max(counts, key=counts.__getitem__)

    for drawn in range(1, len(given)):
        seen = given[:drawn]
        challengers = [*dict.fromkeys(seen), "new"]
        left = len(given) - drawn
        if all(winner([*seen, *[other] * left]) == winner(seen) for other in challengers):
            return drawn
    return len(given)


def test_every_weighted_sequence_gives_the_answer_of_all(engine):
    stream = random.Random(0)
    early = 0
    for case in range(12):
        texts = [f"{word} \\boxed{{{stream.choice('1112')}}}." for word in stream.sample(range(1000), 9)]
        results = []
        for method in (Adaptive(9), Sample(9)):
            policy = ScriptedPolicy(answers(texts))
            results += searcher(method, policy, engine, pick="weighted").search([PROBLEM])
        assert results[0].answer == results[1].answer, case
        early += results[0].details["drawn"] < 9
    assert early, "or the test tests nothing"


def test_the_best_is_good_enough_within_the_tolerance(engine):
    policy = TreePolicy()
    (everything,) = searcher(Sample(8), policy, engine).search([PROBLEM])
    most = 2.0  # a mean of at most 1, and as much for the trajectory
    rewards = [one.scored.reward for one in everything.candidates]
    assert max(rewards) < most
    (result,) = searcher(Adaptive(8, tolerance=0.0), TreePolicy(), engine).search([PROBLEM])
    assert (result.details["drawn"], result.details["stopped"], result.details["saved"]) == (8, "all drawn", 0.0)
    (result,) = searcher(Adaptive(8, tolerance=2.0), TreePolicy(), engine).search([PROBLEM])
    assert (result.details["drawn"], result.details["stopped"]) == (1, "decided")
    enough = sorted(one.scored.reward for one in result.candidates)[-1]
    (result,) = searcher(Adaptive(8, tolerance=most - enough - 1e-3), TreePolicy(), engine).search([PROBLEM])
    for candidate in result.candidates[:-1]:
        assert candidate.scored.reward < enough + 1e-3


def test_confidence_is_the_posterior_of_the_lead():
    assert lead_probability(0, 0) == 0.5
    assert lead_probability(1, 0) == 0.75
    assert lead_probability(3, 3) == 0.5
    # The integral of x^3 (1 - x) above one half, over that on [0, 1].
    exact = ((1 / 4 - 1 / 5) - (1 / 64 - 1 / 160)) / (1 / 4 - 1 / 5)
    assert lead_probability(3, 1) == pytest.approx(exact)
    result, _ = majority(Adaptive(20, confidence=0.95), boxed(*"7777777"))
    assert (result.details["drawn"], result.details["stopped"], result.answer) == (4, "confident", "7")
    assert lead_probability(4, 0) >= 0.95 > lead_probability(3, 0)


@pytest.mark.parametrize(
    ("method", "pick", "message"),
    [
        (Adaptive(4, confidence=0.9), "prm", "a confidence goes with the pick majority"),
        (Adaptive(4, tolerance=0.1), "weighted", "a tolerance goes with the pick prm"),
        (Sample(4), "best", "unknown pick 'best'"),
    ],
)
def test_settings_that_do_not_go_together(engine, method, pick, message):
    with pytest.raises(UsageError, match=message):
        searcher(method, TreePolicy(), engine, pick=pick)


def test_rewards_without_a_bound_cannot_stop_early(engine):
    unbounded = Engine(engine.prm, EngineSettings(aggregation="sum"))
    with pytest.raises(UsageError, match="have no upper bound"):
        searcher(Adaptive(4), TreePolicy(), unbounded)
    searcher(Adaptive(4), TreePolicy(), unbounded, pick="majority")
    (result,) = searcher(Particles(4), TreePolicy(), unbounded).search([PROBLEM])
    assert result.status is SearchStatus.PICKED


def test_products_steer_as_products(engine):
    logarithms = Engine(engine.prm, EngineSettings(aggregation="product"))
    for method in (Adaptive(4), Particles(4), Beam(2, 2)):
        (result,) = searcher(method, TreePolicy(), logarithms).search([PROBLEM])
        best = max(one.scored.reward for one in result.candidates)
        assert result.picked.scored.reward == best < 0


def test_step_by_step_needs_a_prm():
    with pytest.raises(UsageError, match="the method beam needs a PRM"):
        searcher(Beam(), TreePolicy(), None, pick="majority")
    with pytest.raises(UsageError, match="the pick prm needs a PRM"):
        searcher(Sample(), TreePolicy(), None)


def test_methods_by_name():
    assert list(SEARCH_METHODS) == ["sample", "adaptive", "beam", "dvts", "particles", "rebase"]
    assert open_method("beam", {"width": 3, "expand": None, "n": None}) == Beam(3)
    with pytest.raises(UsageError, match="--n does not go with the method beam; it takes --width, --expand"):
        open_method("beam", {"n": 4})
    with pytest.raises(UsageError, match="unknown method"):
        open_method("bream", {})
    for bad in (lambda: Sample(0), lambda: Beam(0), lambda: Particles(4, 0), lambda: Adaptive(4, confidence=0.5)):
        with pytest.raises(UsageError):
            bad()


# --- caps ----------------------------------------------------------------------------------------------------------


@each_method
def test_a_cap_ends_the_search_with_what_there_is(engine, method):
    (free,) = searcher(method, TreePolicy(thinking=5), engine).search([PROBLEM])
    assert not free.capped
    spent = free.policy_tokens + free.prm_tokens
    (capped,) = searcher(method, TreePolicy(thinking=5), engine, cap=spent // 2).search([PROBLEM])
    took = capped.policy_tokens + capped.prm_tokens
    assert spent // 2 <= took < spent
    assert capped.capped
    assert capped.candidates
    assert capped.status is SearchStatus.PICKED
    assert capped.rounds < max(free.rounds, 4)


def test_a_cap_below_the_problem_leaves_nothing(engine):
    (result,) = searcher(Beam(), TreePolicy(), engine, cap=1).search([PROBLEM])
    assert (result.status, result.note) == (SearchStatus.FAILED, "the cap was reached before the first sample")


# --- what a policy may do ------------------------------------------------------------------------------------------


class Short(TreePolicy):
    """Gives one sample less than it is asked for, and says so or does not."""

    def __init__(self, honest) -> None:
        super().__init__()
        self.honest = honest

    async def ask(self, request):
        outcome = await super().ask(request)
        if not self.honest:
            return outcome[:-1]
        error = PartlyAnswered("the server went away")
        error.completions = tuple(outcome[:-1])
        return error


@each_method
@pytest.mark.parametrize("honest", [True, False])
def test_fewer_samples_than_asked_for_are_counted(engine, method, honest):
    (result,) = searcher(method, Short(honest), engine).search([PROBLEM])
    assert result.troubles["fewer-samples"] >= 1
    if method.name == "adaptive":  # its waves are of one sample, and one less is none
        assert (result.status, result.candidates) == (SearchStatus.FAILED, ())
        return
    assert result.status is SearchStatus.PICKED
    assert (result.troubles.get("refused", 0) > 0) == honest


@each_method
def test_a_policy_that_fails_leaves_the_others_alone(engine, method):
    class Failing(TreePolicy):
        async def ask(self, request):
            if "1 + 1" in request.messages[-1].content:
                return PolicyError("too long")
            if "2 + 1" in request.messages[-1].content:
                raise ValueError("a fault of the backend")
            return await super().ask(request)

    results = list(searcher(method, Failing(), engine).search(problems(4)))
    assert [result.status.value for result in results] == ["picked", "failed", "failed", "picked"]
    assert [result.note for result in results[1:3]] == ["too long", "ValueError: a fault of the backend"]
    assert all(result.troubles["refused"] for result in results[1:3])


@each_stepwise
def test_a_draft_that_cannot_go_on_stays_as_it_is(engine, method):
    class Stuck(TreePolicy):
        async def ask(self, request):
            return PolicyError("context full") if request.prefix.count(STOP) == 2 else await super().ask(request)

    (result,) = searcher(method, Stuck(thinking=4), engine).search([PROBLEM])
    assert result.status is SearchStatus.PICKED
    assert result.troubles["cut"] == len(result.candidates) == result.troubles["no-answer"]
    assert result.note == "context full"
    assert not any(one.ended for one in result.candidates)
    assert all(one.trace.thinking and not one.trace.thinking_closed for one in result.candidates)


@each_method
def test_a_stop_is_a_stop(engine, method):
    class Stopping(TreePolicy):
        async def ask(self, request):
            raise PolicyStopped("no more")

    with pytest.raises(PolicyStopped):
        list(searcher(method, Stopping(), engine).search(problems()))


@each_stepwise
def test_a_policy_that_never_stops_is_cut_off(engine, method):
    endless = ScriptedPolicy(lambda request: [counted("and on and on", "", "length")] * request.n)
    (result,) = searcher(method, endless, engine, max_steps=5).search([PROBLEM])
    assert {len(one.scored.steps) for one in result.candidates} == {5}
    assert result.troubles["cut"] == len(result.candidates)
    (result,) = searcher(method, endless, engine, max_tokens=9).search([PROBLEM])
    assert {len(one.scored.steps) for one in result.candidates} == {3}, "4 words a step"


@each_stepwise
def test_a_policy_of_white_space(engine, method):
    blank = ScriptedPolicy(lambda request: [counted("", STOP)] * request.n)
    (result,) = searcher(method, blank, engine).search([PROBLEM])
    assert result.troubles["blank"] >= 1
    assert result.troubles["no-text"] == len(result.candidates)
    assert result.status is SearchStatus.UNPICKED


def test_blank_lines_are_passed_over(engine):
    def script(request):
        blank = request.prefix.endswith("one" + STOP)
        text = "" if blank else "one" if not request.prefix else "A: 2"
        return [counted(text, "" if text == "A: 2" else STOP)] * request.n

    (result,) = searcher(Beam(1, 1), ScriptedPolicy(script), engine).search([PROBLEM])
    assert [one.text for one in result.candidates] == ["one\n\n\n\nA: 2"]
    assert "blank" not in result.troubles


def test_a_backend_that_does_not_tell_why_it_stopped(engine):
    silent = ScriptedPolicy(lambda request: [counted("The answer is 1.", None)] * request.n)
    (result,) = searcher(Beam(2, 2), silent, engine).search([PROBLEM])
    assert result.troubles["unclear-end"] == 4
    assert result.picked.ended


def test_candidates_without_text_or_answer_are_counted(engine):
    texts = ["", "no idea at all, sorry", "A: 1", "A: 1"]
    (result,) = searcher(Sample(4), ScriptedPolicy(answers(texts)), engine).search([PROBLEM])
    assert (result.troubles["no-text"], result.troubles["no-answer"]) == (1, 1)
    assert "no-reward" not in result.troubles
    result, _ = majority(Sample(2), texts[:2])
    assert (result.status, result.note) == (SearchStatus.UNPICKED, "no candidate states a final answer")


def test_references_that_do_not_parse_are_counted(engine):
    problem = Problem("p", "What?", " ")
    (result,) = searcher(Sample(1), ScriptedPolicy(answers(["A: 1"])), engine).search([problem])
    assert result.troubles["ungraded"] == 1
    assert result.pick.correct is None
    assert result.note == "the reference does not parse"


def test_rewards_that_are_no_numbers(engine, monkeypatch):
    monkeypatch.setattr(type(engine.prm), "read_out", lambda self, hidden: hidden[:, 0] * math.nan)
    for method in (Beam(2, 2), Particles(2), Rebase(2), DVTS(2, 2)):
        (result,) = searcher(method, TreePolicy(), engine).search([PROBLEM])
        assert result.status is SearchStatus.UNPICKED
        assert result.troubles["no-reward"] == len(result.candidates)
