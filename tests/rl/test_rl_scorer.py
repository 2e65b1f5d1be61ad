"""Completions to rollouts: text, ids, thinking that came apart, verdicts, and what is counted as missing."""

from __future__ import annotations

import pytest
import tiny
from stand_ins import IDENTITY, LetterPRM, letter_reward

from reasonflux_prm.errors import UsageError
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.grading.verdict import NO_ANSWER, REFERENCE_UNREAD, Grade, Verdict
from reasonflux_prm.records import ScoredTrace, Status, Trace
from reasonflux_prm.rl.scorer import Overlong, RolloutScorer, Sampled, open_score, outcome_of, unit_reward

TOKENIZER = tiny.tokenizer("byte", (*tiny.CHATML, "<think>", "</think>"))


def ids(text):
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def scorer(**settings):
    return RolloutScorer(LetterPRM().score, grader=open_grader("string"), tokenizer=TOKENIZER, **settings)


def test_ids_alone_are_enough():
    text = "<think>\nabcdefg\n</think>\n\n\\boxed{4}<|im_end|>"
    (found,) = scorer()([Sampled("p", "2+2", None, ids(text), answer="4")])
    assert (found.completion.thinking, found.completion.response) == ("abcdefg", "\\boxed{4}")
    rollout = found.rollout
    assert rollout.tokens == len(ids(text)) == 1 + 8 + 1 + 1 + 2 + 9 + 1
    # "abcde" ends with token 6 (mark, line break, five letters), "fg" with 8, "\boxe" with 17; the end mark is the
    # last step's.
    assert rollout.step_ends == (6, 8, 17, 22)
    assert rollout.thinking_steps == 2
    assert rollout.step_rewards == tuple(map(letter_reward, ("abcde", "fg", "\\boxe", "d{4}")))
    assert (rollout.outcome, rollout.note) == (1.0, None)


def test_text_alone_has_rewards_but_no_places():
    prm = LetterPRM()
    (found,) = RolloutScorer(prm.score)([Sampled("p", "q", "<think>a</think>b")])
    assert (prm.seen[0].problem, prm.seen[0].thinking, prm.seen[0].response) == ("q", "a", "b")
    assert found.rollout.reward is not None
    assert (found.rollout.step_ends, found.rollout.outcome, found.verdict) == ((), None, None)


def test_thinking_that_came_apart_and_thinking_that_was_cut():
    prm = LetterPRM()
    samples = [Sampled("p", "q", "b", thinking="a"), Sampled("p", "q", "so it goes", thinking_open=True, answer="4")]
    _, cut = RolloutScorer(prm.score, grader=open_grader("string"))(samples)
    assert [(t.thinking, t.response, t.thinking_closed) for t in prm.seen] == [
        ("a", "b", True),
        ("so it goes", "", False),
    ]
    assert cut.rollout.outcome == 0.0, "a completion without a response has no answer"


def test_ids_without_a_tokenizer_are_refused():
    with pytest.raises(
        UsageError, match="as token ids only, and there is no tokenizer to decode them; pass the policy's"
    ):
        RolloutScorer(LetterPRM().score)([Sampled("p", "q", None, [1, 2])])


def test_completions_without_steps_are_counted():
    own = scorer()
    found = own([Sampled("p", "q", None, ids(text), answer="4") for text in ("<|im_end|>", "\\boxed{4}")])
    assert found[0].rollout.note == "no-steps: no text"
    assert (found[0].rollout.reward, found[0].rollout.outcome, found[0].rollout.tokens) == (None, 0.0, 1)
    assert found[1].rollout.reward is not None
    assert own.counts == {"no-steps: no text": 1}


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (None, None),
        (Verdict(Grade.RIGHT, "4"), 1.0),
        (Verdict(Grade.WRONG, "5"), 0.0),
        (Verdict(Grade.UNPARSED, None, NO_ANSWER), 0.0),
        (Verdict(Grade.UNPARSED, "4", REFERENCE_UNREAD), None),
        (Verdict(Grade.UNPARSED, "4", "took too long"), None),
    ],
)
def test_outcomes(verdict, outcome):
    assert outcome_of(verdict) == outcome


def test_the_reward_of_a_trace_has_the_range_of_a_steps():
    trace = Trace("t", "p", "", "a")
    record = ScoredTrace(trace, Status.SCORED, (), (0.4, None), 0.8, 1.2, IDENTITY, 1)
    assert unit_reward(record) == pytest.approx(0.6)
    for other in (
        ScoredTrace(trace, Status.SCORED, (), (0.4,), None, 0.4, IDENTITY, 1),  # no trajectory reward
        ScoredTrace(trace, Status.SCORED, (), (None,), 0.8, 0.8, IDENTITY, 1),  # nothing but it
    ):
        assert unit_reward(other) == other.reward


def test_the_overlong_penalty_is_added_to_outcomes():
    found = scorer(penalty=Overlong(limit=20, buffer=10))(
        [Sampled("p", "q", None, ids(" " * n + "\\boxed{4}"), answer="4") for n in (0, 6, 20)]
    )
    assert [own.rollout.outcome for own in found] == [1.0, 0.5, 0.0]
    with pytest.raises(UsageError, match="the overlong penalty counts tokens"):
        scorer(penalty=Overlong(20, 10))([Sampled("p", "q", "\\boxed{4}", answer="4")])


def test_what_scores():
    prm = LetterPRM()
    assert open_score(prm) == prm.score
    with pytest.raises(UsageError, match="an engine has its settings already"):
        open_score(prm, alpha=0.5)
