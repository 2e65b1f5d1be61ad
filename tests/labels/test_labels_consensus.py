"""The judges `consensus` and `recorded`."""

import asyncio
import json
from dataclasses import replace

import pytest
from judge_parts import GRADER, judged, qualities, reasons, reviewer
from judge_parts import segmented as cut

from reasonflux_prm.errors import PolicyStopped
from reasonflux_prm.labels.judges.consensus import ConsensusJudge
from reasonflux_prm.labels.judges.llm import LLMJudge
from reasonflux_prm.labels.judges.recorded import RecordedJudge
from reasonflux_prm.labels.judges.rollout import RolloutJudge
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.records import Step, Term, Trace
from reasonflux_prm.steps.split import split


class Fixed:
    """A judge that says what it was told to."""

    def __init__(self, name, *values, **details):
        self.name, self._values, self._details = name, values, details

    def identity(self):
        return {"judge": self.name}

    async def judge(self, segmented):
        return tuple(
            {"quality": Term(value, None if value is not None else "no claim"), **self._details}
            for value in self._values
        )


@pytest.mark.parametrize(
    ("first", "second", "value", "reason"),
    [
        (0.9, 0.6, 0.75, "llm says 0.9 and rules says 0.6"),
        (0.0, 0.25, 0.125, "llm says 0 and rules says 0.25"),
        (0.5, 1.0, 0.75, "llm says 0.5 and rules says 1"),
        (0.0, 0.5, 0.25, "llm says 0 and rules says 0.5"),
        (0.5, 0.5, 0.5, "llm says 0.5 and rules says 0.5"),
        (0.51, 0.49, None, "the judges disagree: llm says 0.51 and rules says 0.49"),
        (1.0, 0.0, None, "the judges disagree: llm says 1 and rules says 0"),
        (None, 1.0, None, "no agreement to be had: llm gives no value (no claim) and rules says 1"),
        (1.0, None, None, "no agreement to be had: llm says 1 and rules gives no value (no claim)"),
    ],
)
def test_a_quality_is_kept_where_both_judges_are_on_one_side(first, second, value, reason):
    judge = ConsensusJudge(Fixed("llm", first), Fixed("rules", second))
    ((terms),) = judged(judge, cut("a"))
    assert terms == {"quality": pytest.approx(value), "quality_llm": first, "quality_rules": second}
    assert reasons(judge, cut("a")) == [reason]


def test_details_of_both_judges_are_kept_under_their_names():
    judge = ConsensusJudge(
        Fixed("llm", 1.0, quality_progress=Term(0.25)), Fixed("llm", 0.75, quality_progress=Term(None, "x"))
    )
    (terms,) = asyncio.run(judge.judge(cut("a")))
    assert {name: term.value for name, term in terms.items()} == {
        "quality": 0.875,
        "quality_llm": 1.0,
        "quality_llm_progress": 0.25,
        "quality_llm_2": 0.75,
        "quality_llm_2_progress": None,
    }
    assert terms["quality_llm_2_progress"].reason == "x"


def test_a_reviewer_and_rollouts_agree_step_by_step():
    reviews = LLMJudge(reviewer(lambda number, text: 0.0 if "wrong" in text else 1.0))
    solver = ScriptedPolicy(
        lambda request: r"\boxed{41}" if "hidden" in request.messages[-1].content else r"\boxed{42}"
    )
    judge = ConsensusJudge(reviews, RolloutJudge(solver, GRADER))
    trace = cut("fine ", "a hidden error ", "wrong")
    assert qualities(judge, trace) == [1.0, None, 0.0]
    told = judge.identity()
    assert [one["judge"] for one in told["of"]] == ["llm", "rollout"]
    assert json.loads(json.dumps(told)) == told


def test_a_judge_that_stops_stops_the_other():
    ended = []

    class Waiting(Fixed):
        async def judge(self, segmented):
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(self.name)

    class Stopping(Fixed):
        async def judge(self, segmented):
            await asyncio.sleep(0)
            raise PolicyStopped("the budget is spent")

    with pytest.raises(PolicyStopped):
        asyncio.run(asyncio.wait_for(ConsensusJudge(Waiting("a"), Stopping("b")).judge(cut("x")), 5))
    assert ended == ["a"]


# --- recorded labels -------------------------------------------------------------------------------------------------

RECORD = Trace(
    "r",
    "P",
    thinking=" one.\n\ntwo. \n\nthree.",
    response="four.",
    steps=(Step("thinking", 1, 5), Step("thinking", 7, 12), Step("thinking", 14, 20), Step("response", 0, 5)),
    step_labels=(1.0, 0.0, None, 0.5),
)


def test_the_rule_given_maps_labels_one_to_one():
    judge = RecordedJudge()
    assert qualities(judge, split(RECORD, "given")) == [1.0, 0.0, None, 0.5]
    assert reasons(judge, split(RECORD, "given")) == [None, None, "the record has no label for this step", None]
    assert judge.identity() == {"judge": "recorded"}


def test_another_rule_keeps_the_labels_of_steps_that_are_the_same():
    assert qualities(RecordedJudge(), split(RECORD, "blank-line")) == [1.0, 0.0, None, 0.5]
    coarse = replace(RECORD, thinking=RECORD.thinking.replace("\n\n", ". "))
    assert qualities(RecordedJudge(), split(coarse, "blank-line")) == [None, 0.5]
    assert reasons(RecordedJudge(), split(coarse, "blank-line"))[0] == (
        "the step is no step of the record; the step rule 'given' keeps those"
    )


def test_text_that_the_recorded_steps_leave_over_has_no_label():
    trace = replace(RECORD, steps=RECORD.steps[1:2], step_labels=(0.25,))
    segmented = split(trace, "given")
    texts = [segmented.text(step).strip() for step in segmented.steps]
    assert texts == ["one.", "two.", "three.", "four."]
    assert qualities(RecordedJudge(), segmented) == [None, 0.25, None, None]


def test_a_record_without_labels_and_a_step_without_text():
    assert reasons(RecordedJudge(), cut("a", "b")) == ["the record came without step labels"] * 2
    blank = cut(" ", "a", steps=(Step("thinking", 1, 2),), step_labels=(1.0,))
    assert reasons(RecordedJudge(), blank) == ["the step has no text", None]
