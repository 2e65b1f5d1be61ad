"""The best of N: every method against a calculation by hand, ties, and candidates that are out."""

import math
from pathlib import Path

import pytest

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Trace
from reasonflux_prm.search.best_of_n import METHODS, pick_all, pick_one
from reasonflux_prm.traces.read import read_traces

BON = Path(__file__).parents[2].parent / "shared" / "data" / "bon"


def scored(reward, answer=None, k=0, *, group="g", aggregation="mean", reference="7", **fields) -> ScoredTrace:
    response = "no idea" if answer is None else f"The answer is {answer}."
    trace = Trace(f"{group}#{k}", "p", response=response, answer=reference, group=group, **fields)
    status = Status.FAILED if reward is None else Status.SCORED
    prm = PRMIdentity("tiny", "0", "native", "causal", aggregation, 1.0)
    return ScoredTrace(trace, status, (), (), None, reward, prm, 0)


def group(*pairs, **fields) -> list[ScoredTrace]:
    return [scored(reward, answer, k, **fields) for k, (reward, answer) in enumerate(pairs)]


FIVE = group((0.9, "1"), (0.4, "7"), (0.6, "7.0"), (0.5, "2"), (None, "2"))


@pytest.mark.parametrize(
    ("method", "pick", "ties", "correct"),
    [("prm", 0, (), False), ("weighted", 2, (), True), ("majority", 1, (3,), True)],
)
def test_methods(method, pick, ties, correct):
    picked = pick_one(FIVE, method)
    assert (picked.pick, picked.ties, picked.correct, picked.note) == (pick, ties, correct, None)
    assert (picked.id, picked.pick_id, picked.method) == ("g", f"g#{pick}", method)
    assert picked.scores == (0.9, 0.4, 0.6, 0.5, None)
    assert picked.answers == ("1", "7", "7.0", "2", "2")


def test_the_first_of_equals_is_picked_and_the_others_are_named():
    assert (pick := pick_one(group((0.1, "1"), (0.5, "2"), (0.5, "3"), (0.5, None)))).pick == 1
    assert pick.ties == (2, 3)
    assert (pick := pick_one(group((0.2, "1"), (0.5, "2"), (0.3, "1")), "weighted")).pick == 2
    assert pick.ties == (1,)


@pytest.mark.parametrize(
    ("candidates", "method", "note"),
    [
        (group((None, "1"), (None, "2")), "prm", "no candidate has a reward"),
        (group((0.1, None), (0.2, None)), "majority", "no candidate states a final answer"),
        (group((0.1, None), (None, "2")), "weighted", "no candidate has both a reward and a final answer"),
    ],
)
def test_nothing_to_go_by(candidates, method, note):
    pick = pick_one(candidates, method)
    assert (pick.pick, pick.pick_id, pick.correct, pick.note) == (None, None, None, note)


def test_a_product_votes_with_the_product():
    """Sums of logarithms would make many good candidates lose against a single bad one."""
    candidates = group(*[(math.log(p), a) for p, a in ((0.5, "7"), (0.5, "7"), (0.6, "1"))], aggregation="product")
    assert pick_one(candidates, "weighted").correct is True


def test_negative_weights_are_refused():
    with pytest.raises(UsageError, match="at least 0"):
        pick_one(group((0.5, "1"), (-0.5, "1")), "weighted")
    assert pick_one(group((-0.5, "1"), (-0.2, "7")), "prm").pick == 1


def test_the_recorded_verdict_goes_before_the_comparison():
    assert pick_one([scored(1.0, "7", correct=False)]).correct is False
    assert pick_one([scored(1.0, "8", reference=None)]).correct is None
    assert pick_one([scored(1.0, None)]).correct is False


def test_votes_and_verdicts_are_the_graders():
    """By their texts all three answers differ; by algebra two are the same, and they are right."""
    candidates = group((0.1, r"$2\sqrt{2}$"), (0.5, "3"), (0.2, r"$\sqrt{8}$"), (0.1, None), reference=r"2\sqrt2")
    by_text = pick_one(candidates, "majority")
    assert (by_text.pick, by_text.ties, by_text.groups, by_text.correct) == (0, (1, 2), (0, 1, 2, None), True)
    with open_grader("math") as grader:
        by_algebra = pick_one(candidates, "majority", grader)
        assert (by_algebra.pick, by_algebra.ties, by_algebra.groups) == (0, (), (0, 1, 0, None))
        assert by_algebra.correct is True
        weighted = next(iter(pick_all(candidates, "weighted", grader)))
        assert (weighted.pick, weighted.correct, weighted.scores) == (1, False, (0.1, 0.5, 0.2, 0.1))
        assert pick_one(candidates, "prm", grader).groups == ()


def test_a_pick_that_cannot_be_graded_says_why():
    picked = pick_one([scored(1.0, "2 or 3", reference="7")], "prm", open_grader("numeric"))
    assert (picked.pick, picked.correct, picked.note) == (0, None, "the answer does not parse")
    picked = pick_one([scored(1.0, "2", reference="seven")], "prm", open_grader("numeric"))
    assert (picked.pick, picked.correct, picked.note) == (0, None, "the reference does not parse")


def test_groups():
    first, second = group((0.1, "1"), (0.2, "2")), group((0.4, "1"), (0.3, "2"), group="h")
    assert [(pick.id, pick.pick) for pick in pick_all([*first, *second])] == [("g", 1), ("h", 0)]
    with pytest.raises(InputError, match="'g' do not stand together"):
        list(pick_all([*first, *second, *first]))


def test_without_groups_the_problem_tells_candidates_together():
    traces = [Trace(f"t{k}", problem, response=f"A: {k // 2}") for k, problem in enumerate("ppppqqp")]
    picks = list(pick_all(traces, "majority"))
    assert [(pick.id, pick.pick_id, len(pick.answers)) for pick in picks] == [
        ("t0", "t0", 4),
        ("t4", "t4", 2),
        ("t6", "t6", 1),
    ]
    assert picks[0].ties == (2,)


def test_an_unknown_method():
    with pytest.raises(UsageError, match="prm, weighted, majority"):
        list(pick_all(FIVE, "best"))


@pytest.mark.parametrize("method", METHODS)
def test_a_row_is_json(method):
    row = pick_one(FIVE, method).row()
    assert list(row)[:5] == ["id", "pick", "pick_id", "method", "scores"]


@pytest.mark.skipif(not BON.exists(), reason="the shared data is not here")
def test_majority_on_real_candidates():
    """The data's README has 0.4776 for this file, with ties scored by expectation."""
    traces = list(read_traces(BON / "gsm8k_example_model_solutions.jsonl"))
    correct = {trace.id: trace.correct for trace in traces}
    picks = list(pick_all(traces, "majority"))
    # Answers that tie, the pick's included: each is right or wrong with all who give it.
    shares = [
        sum(correct[f"{pick.id}#{index}"] for index in (pick.pick, *pick.ties)) / (1 + len(pick.ties)) for pick in picks
    ]
    assert len(picks) == 936
    assert sum(shares) / len(picks) == pytest.approx(0.4776, abs=5e-5)
