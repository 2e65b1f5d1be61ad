from __future__ import annotations

import asyncio

import pytest
from judge_parts import segmented

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.labels.judges import rules
from reasonflux_prm.labels.judges.rules import CLAIMS, FALSE, NO_CLAIM, RulesJudge
from reasonflux_prm.records import Term


@pytest.fixture(scope="module")
def judge():
    with RulesJudge(pool_size=1, timeout_s=20) as judge:
        yield judge


def judged(judge, *thinking, response=()):
    return asyncio.run(judge.judge(segmented(*thinking, response=response)))


def test_each_step_gets_the_share_of_its_claims_that_hold(judge):
    good, bad, half, none, blank = judged(
        judge, "6 * 7 = 42. ", "12 * 3 = 35. ", "2 + 2 = 4, 2 + 3 = 6. ", "I think so. ", " "
    )
    assert good == {"quality": Term(1.0), CLAIMS: Term(1.0), FALSE: Term(0.0)}
    assert bad == {"quality": Term(0.0, "12 * 3 = 35: left side is 36"), CLAIMS: Term(1.0), FALSE: Term(1.0)}
    assert half["quality"] == Term(0.5, "2 + 3 = 6: left side is 5")
    assert none == {"quality": Term(None, NO_CLAIM), CLAIMS: Term(0.0), FALSE: Term(0.0)}
    assert blank["quality"].value is None


def test_a_number_that_begins_with_its_point_is_read(judge):
    good, bad = judged(judge, "So .3 * 2 = 0.6. ", "Then .2 + 3 = .23. ")
    assert good["quality"] == Term(1.0)
    assert bad["quality"] == Term(0.0, ".2 + 3 = .23: left side is 3.2")


def test_algebra_is_decided_in_the_workers(judge):
    good, bad = judged(judge, "2x + 3 = 7, so 2x = 4. ", "3(x+2) = 3x + 5. ")
    assert good["quality"] == Term(1.0)
    assert bad["quality"] == Term(0.0, "3(x+2) = 3x + 5: left side is 3*x + 6")


def test_contradictions_count_in_the_response_and_not_in_thinking(judge):
    terms = judged(judge, "x = 3 + 4 = 7. ", "x = 9. ", response=["x = 3 + 4 = 7. ", "So x = 9. ", "Thus x = 7. "])
    assert [step["quality"].value for step in terms] == [1.0, None, 1.0, 0.0, None]
    assert terms[3]["quality"].reason == "x = 9: x was found to be 7"


def test_a_false_claim_stays_false_though_a_later_step_corrects_it(judge):
    terms = judged(judge, "12 * 3 = 35. ", "Wait, 12 * 3 = 36. ")
    assert [step["quality"].value for step in terms] == [0.0, 1.0]


def test_algebra_that_takes_too_long_is_left_open(monkeypatch):
    monkeypatch.setattr(rules, "WORKER", "time:sleep")
    with RulesJudge(pool_size=1, timeout_s=5) as judge:
        # time.sleep refuses a list: the worker answers with an error, as it does after a timeout.
        (found,) = judge.check("3(x+2) = 3x + 5")
    assert found.holds is None
    assert "TypeError" in found.why


def test_check_can_be_asked_without_a_trace(judge):
    assert [verdict.holds for verdict in judge.check("1 + 1 = 2 and 2x + 3x = 6x")] == [True, False]


def test_the_same_trace_gets_the_same_terms(judge):
    steps = ("(a+b)^2 = a^2 + b^2 + 2ab, 3 * 5 = 16. ", "x^2 = 9, so x = 4. ")
    assert judged(judge, *steps) == judged(judge, *steps)


def test_identity_tells_versions_and_limits(judge):
    identity = judge.identity()
    assert identity["judge"] == judge.name == "rules"
    assert identity["version"] == rules.VERSION
    assert identity["timeout_s"] == 20
    assert identity["sympy"]


def test_a_missing_sympy_is_said_at_once(monkeypatch):
    monkeypatch.setattr(rules, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"reasonflux-prm\[grade\]"):
        RulesJudge()


def test_a_limit_out_of_range_is_refused():
    with pytest.raises(UsageError):
        RulesJudge(timeout_s=0)
