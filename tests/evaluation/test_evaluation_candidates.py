"""Candidates gathered by problem: verdicts, answers, rewards, tokens, and everything that can be amiss, by name."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.evaluation.candidates import (
    Trouble,
    join,
    prm_names,
    problems_of,
    read_candidates,
    vote_weights,
)
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.grading.verdict import Grade, Verdict
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Trace
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.write import json_line, scored_row

BON = Path(__file__).parents[2].parent / "shared" / "data" / "bon"


def trace(k=0, answer="7", *, group="g", reference="7", **fields) -> Trace:
    fields = {"problem": f"problem {group}", "response": f"The answer is {answer}.", **fields}
    return Trace(f"{group}#{k}", answer=reference, group=group, **fields)


def scored(own: Trace, reward, *, prm="tiny", aggregation="mean", tokens=10) -> ScoredTrace:
    identity = PRMIdentity(prm, "0", "native", "causal", aggregation, 1.0)
    return ScoredTrace(own, Status.FAILED if reward is None else Status.SCORED, (), (), None, reward, identity, tokens)


def one(*traces, **options):
    (found,) = problems_of(traces, **options)
    return found


def test_a_problem():
    traces = [trace(0, "7"), trace(1, "7.0", thinking="Hm."), trace(2, "8")]
    found = one(*(scored(own, reward) for own, reward in zip(traces, (0.5, None, 0.25), strict=True)))
    assert (found.id, found.n, found.ids) == ("g", 3, ("g#0", "g#1", "g#2"))
    assert found.correct == (True, True, False)
    assert found.groups == (0, 0, 1)
    assert found.lengths == tuple(len(own.thinking + own.response) for own in traces)
    assert found.rewards == {"tiny": (0.5, None, 0.25)}
    assert found.prm_tokens == {"tiny": (10, 10, 10)}
    assert found.policy_tokens == ()
    assert found.troubles == {}


def test_the_recorded_verdict_counts_unless_it_is_graded_anew():
    traces = [trace(0, "7", correct=False), trace(1, "8"), trace(2, "7", correct=True)]
    found = one(*traces)
    assert found.correct == (False, False, True)
    assert Trouble.VERDICT_DIFFERS not in found.troubles
    found = one(*traces, regrade=True)
    assert found.correct == (True, False, True)
    assert found.troubles == {Trouble.VERDICT_DIFFERS: 1}


def test_no_text_and_no_answer():
    found = one(trace(0, response=" \n"), trace(1, response="I cannot say which it might be."), trace(2))
    assert found.correct == (False, False, True)
    assert found.groups == (None, None, 0)
    assert found.lengths[0] == 0 < found.lengths[1]
    assert found.troubles == {Trouble.NO_TEXT: 1, Trouble.NO_ANSWER: 1}


def test_an_answer_is_sought_in_the_thinking_where_there_is_no_response():
    assert one(trace(0, thinking="So the answer is 7.", response=""), trace(1)).groups == (0, 0)


def test_one_candidate():
    assert one(trace()).troubles == {Trouble.SINGLE: 1}


def test_an_answer_that_does_not_parse_is_wrong():
    with open_grader("numeric") as grader:
        found = one(trace(0, "seven or so"), trace(1, "7"), grader=grader)
    assert found.correct == (False, True)
    assert found.troubles == {Trouble.ANSWER_UNREAD: 1}


def test_a_reference_that_does_not_parse_leaves_all_verdicts_open():
    with open_grader("numeric") as grader:
        found = one(*(trace(k, "1", reference="see above") for k in range(2)), grader=grader)
        assert found.correct == (None, None)
        assert found.troubles == {Trouble.REFERENCE_UNREAD: 1}
        mixed = [trace(0, "1", reference="see above", correct=True), trace(1, reference="see above", response="?")]
        assert one(*mixed, trace(2, "1", reference="see above"), grader=grader).correct == (True, None, None)


def test_a_problem_without_reference():
    assert one(trace(0, reference=None), trace(1, reference=None)).troubles == {Trouble.NO_REFERENCE: 1}
    assert one(trace(0, reference=None, correct=True), trace(1, reference=None)).correct == (True, None)


class GivesUp(Grader):
    """A grader that takes too long for one answer."""

    def __init__(self):
        self._inner = open_grader("string")

    def identity(self):
        return {}

    def key(self, answer):
        return self._inner.key(answer)

    def decide(self, answer, reference):
        if answer == "9":
            return Verdict(Grade.UNPARSED, answer, "took longer than 5 s")
        return self._inner.decide(answer, reference)


def test_a_grader_that_gives_up():
    found = one(trace(0, "9"), trace(1, "7"), trace(2, "9", correct=True), grader=GivesUp(), regrade=True)
    assert found.correct == (None, True, True)
    assert found.troubles == {Trouble.UNGRADED: 2}


def test_candidates_that_come_twice_or_apart():
    again = [trace(0), trace(1, "8"), trace(0, group="h"), trace(0), trace(2, "8"), trace(1, "9", group="h")]
    g, h = problems_of(again)
    assert g.ids == ("g#0", "g#1", "g#2")
    assert g.troubles == {Trouble.REPEATED: 1, Trouble.APART: 1}
    assert h.troubles == {Trouble.APART: 1}
    # The same text under another id is another candidate: small policies repeat themselves.
    assert one(trace(0), trace(1)).n == 2


def test_without_groups_the_problem_tells_candidates_together():
    traces = [dataclasses.replace(trace(k, group=name), group=None) for name in "ab" for k in range(2)]
    assert [(found.id, found.n) for found in problems_of(traces)] == [("a#0", 2), ("b#0", 2)]


def test_one_problem_under_two_ids_is_one_cluster():
    first, second, other = problems_of([trace(problem="x"), trace(group="h", problem="x"), trace(group="i")])
    assert first.cluster == second.cluster != other.cluster


def test_recorded_rewards_and_tokens():
    rows = [{"rm": 1, "policy_tokens": 12}, {"rm": None, "completion_tokens": 5}, {"rm": "high", "policy_tokens": -1}]
    found = one(*(trace(k, meta=row) for k, row in enumerate(rows)), recorded=["rm", "other"])
    assert found.rewards == {"rm": (1.0, None, None), "other": (None, None, None)}
    assert found.policy_tokens == (12, 5, None)
    clash = trace(0, meta={"rm": 9, "candidate": {"rm": 0.5}})
    assert one(clash, recorded=["rm"]).rewards == {"rm": (0.5,)}


def test_a_product_weighs_what_it_is():
    found = one(*(scored(trace(k), r, aggregation="product") for k, r in enumerate((-900.0, None, -901.0))))
    assert found.logarithmic == {"tiny"}
    assert vote_weights(found, "tiny") == pytest.approx((1.0, None, math.exp(-1)))
    assert vote_weights(found, "other") == (None, None, None)


def test_entries_must_be_as_many_as_candidates():
    found = one(trace(0), trace(1))
    with pytest.raises(UsageError, match="got 2 verdicts, 1 of rm"):
        dataclasses.replace(found, rewards={"rm": (1.0,)})
    with pytest.raises(UsageError, match="at least one candidate"):
        dataclasses.replace(found, correct=(), groups=(), lengths=(), ids=())


def test_join():
    traces = [trace(k, group=group) for group in "gh" for k in range(2)]
    first = problems_of(scored(own, 0.5) for own in traces)
    second = problems_of([scored(own, 0.25, tokens=99) for own in traces], name="b")
    g, h = join(first, second[::-1])
    assert (g.id, h.id) == ("g", "h")
    assert g.rewards == {"tiny": (0.5, 0.5), "b": (0.25, 0.25)}
    assert g.prm_tokens == {"tiny": (10, 10), "b": (99, 99)}
    assert prm_names([g, h]) == ["tiny", "b"]


def test_join_refuses_other_candidates():
    own = problems_of([trace(0), trace(1)])
    for other in ([trace(0), trace(1, "8")], [trace(0), trace(2)], [trace(0)]):
        with pytest.raises(InputError, match=r"compared on the same candidates.*'g', whose candidates differ"):
            join(own, problems_of(other))
    with pytest.raises(InputError, match="'h', which only one of them has"):
        join(own, problems_of([trace(0), trace(1), trace(0, group="h")]))
    scores = problems_of([scored(trace(), 0.5)])
    with pytest.raises(UsageError, match="called 'tiny'"):
        join(scores, scores)


def test_any_file_of_candidates(tmp_path):
    plain, file = tmp_path / "plain.jsonl", tmp_path / "scored.jsonl"
    row = {"id": "q", "problem": "p", "answer": "7", "candidates": [{"text": "#### 7", "policy_tokens": 3}, "#### 8"]}
    plain.write_text(json.dumps(row) + "\n{broken\n")
    refused = []
    found = problems_of(read_candidates(plain, refused.append))
    assert len(refused) == 1
    assert (found[0].correct, found[0].policy_tokens) == ((True, False), (3, None))
    file.write_bytes(b"".join(json_line(scored_row(scored(own, 0.5))) for own in read_traces(plain, rejects=id)))
    (again,) = problems_of(read_candidates(file))
    assert (again.rewards, again.fingerprint) == ({"tiny": (0.5, 0.5)}, found[0].fingerprint)


@pytest.mark.skipif(not BON.is_dir(), reason="the shared data is not here")
def test_grading_anew_agrees_with_the_recorded_verdicts():
    found = problems_of(read_traces(BON / "gsm8k_example_model_solutions.jsonl"), regrade=True)
    assert len(found) == 936
    assert sum(own.troubles.get(Trouble.VERDICT_DIFFERS, 0) for own in found) <= 5
