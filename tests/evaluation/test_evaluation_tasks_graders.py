"""The graders that only benchmarks need: DABStep's rules, programs with tests as references, recorded verdicts."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import SandboxUnavailable, UsageError
from reasonflux_prm.evaluation.dabstep import DABStepGrader, same_dabstep_answer
from reasonflux_prm.evaluation.tasks import find_task, programs
from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.evaluation.tasks.graders import NAMES, open_task_grader
from reasonflux_prm.evaluation.tasks.programs import ProgramGrader, read_tests, write_tests
from reasonflux_prm.evaluation.tasks.references import References
from reasonflux_prm.grading.code import CodeTask
from reasonflux_prm.grading.verdict import ANSWER_UNREAD, NO_ANSWER, REFERENCE_UNREAD, Grade, Verdict
from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Trace
from reasonflux_prm.sandbox.sandbox import Sandbox

# --- DABStep --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        # Numbers with a decimal sign or groups, whatever stands around the other one.
        ("1,234.5", "1234.5", True),
        ("$0.99", "0.99 EUR", True),
        ("0.99", "no number", False),
        ("1,234", "1,235", False),
        ("0,99", "99", True),
        # Rounding to the fewer decimals; below 1 only closeness counts.
        ("12.345", "12.35", True),
        ("12.3", "12.4", False),
        ("3", "3.04", True),
        ("0.12", "0.123", False),
        ("0.12345", "0.12346", True),
        ("10000", "10000.9", True),
        ("-5", "5", True),
        ("73.15%", "73.15", True),
        # Lists in any order.
        ("NL, BE", "be; nl", True),
        ("[NL, BE]", "NL,BE", True),
        ("NL, BE", "NL", False),
        ("A: 1.5, B: 2", "b: 2.0, a: 1.5", True),
        ("1, 2", "1, 3", False),
        ("[1,234]", "1, 234", True),
        # Texts.
        ("Not Applicable", "not applicable", True),
        ("Not-Applicable", "not applicable", True),
        ("yes", "Yes, it is", False),
        ("yes", "Yes it is", True),
        ("no", "yes", False),
        ("the merchant Crossfit_Hanna in Paris", "the merchant Crossfit_Hanna in Pari", True),
        ("the merchant", "another one", False),
        ("", "", True),
        ("", "yes", False),
    ],
)
def test_the_rules_of_dabstep(one, other, same):
    assert same_dabstep_answer(one, other) is same
    assert same_dabstep_answer(f"  {one.upper()}\n", other) is same


@given(st.text("ab,;. $19%[]-", max_size=12), st.text("ab,;. $19%[]-", max_size=12))
def test_the_rules_of_dabstep_have_no_direction(one, other):
    assert same_dabstep_answer(one, other) == same_dabstep_answer(other, one)
    assert same_dabstep_answer(one, one)


def test_long_texts_take_no_time():
    began = time.monotonic()
    assert not same_dabstep_answer("merchant of fees " * 20000, "the fees of a merchant")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("NL, BE", "NL, BE"),
        (" 12.5 \n", "12.5"),
        ("A: 69.36", "A: 69.36"),
        ("I counted.\n\nFinal Answer: 7", "7"),
        ("**Final answer:** NL\nFinal Answer: BE", "BE"),
        ("Thought: I count.\nObservation: 7", None),
        ("", None),
    ],
)
def test_where_dabsteps_answer_stands(text, answer):
    assert DABStepGrader().find(text, "") == answer


def test_dabsteps_verdicts_and_votes():
    grader = DABStepGrader()
    assert grader.grade("7.00", "7") == Verdict(Grade.RIGHT, "7.00")
    assert grader.grade("8", "7") == Verdict(Grade.WRONG, "8")
    assert grader.grade("Thought: a\nb", "7") == Verdict(Grade.UNPARSED, None, NO_ANSWER)
    assert grader.groups(["NL, BE", None, "be;nl", "7", "NL, BE", "7.0"]) == [0, None, 0, 1, 0, 1]


# --- programs -------------------------------------------------------------------------------------------------------

CHECK = CodeTask("def check(candidate):\n    assert candidate(1) == 2\n", "check", "def inc(x):\n", "inc")
TESTS = write_tests(CHECK)


def test_tests_are_text_and_back():
    assert read_tests(TESTS) == CHECK
    pytest_style = CodeTask("from solution import f\ndef test_f(): f()\n", "pytest", solution="def f(): pass")
    assert read_tests(write_tests(pytest_style)) == pytest_style
    for text in (
        "42",
        "x",
        "[1]",
        "null",
        '{"tests": "a"}',
        '{"tests": "a", "style": "other"}',
        '{"tests": 1, "style": "check"}',
    ):
        assert read_tests(text) is None


class FakeCode:
    """Finds programs right that say so; keeps what it was given."""

    def __init__(self, verdict=None):
        self.texts, self.verdict = [], verdict

    def identity(self):
        return {"grader": "code", "fake": True}

    def grade(self, text, task):
        self.texts.append(text)
        program = programs.stated_program(text, task.names())
        return self.verdict or Verdict(Grade.RIGHT if "right" in program else Grade.WRONG, program, "why")


def fake(monkeypatch, verdict=None, **settings):
    code = FakeCode(verdict)
    monkeypatch.setattr(programs, "Sandbox", lambda *_, **__: None)
    monkeypatch.setattr(programs, "CodeGrader", lambda _: code)
    return ProgramGrader(**settings), code


def test_each_program_is_run_once_and_told_of(monkeypatch):
    told = []
    grader, code = fake(monkeypatch, progress=lambda *numbers: told.append(numbers))
    pairs = [
        ("def inc(x): 'right'", TESTS),
        ("def inc(x): 1", TESTS),
        (None, TESTS),
        ("def inc(x): 1", TESTS),
        ("x", "?"),
    ]
    verdicts = grader.grade_answers(pairs)
    assert [verdict.grade for verdict in verdicts] == ["right", "wrong", "unparsed", "wrong", "unparsed"]
    assert [verdict.reason for verdict in verdicts[2::2]] == [NO_ANSWER, f"{REFERENCE_UNREAD}: it holds no tests"]
    assert verdicts[0].answer == "def inc(x): 'right'"
    assert len(code.texts) == 2
    assert told == [(1, 2), (2, 2)]
    assert grader.identity() == {"grader": "code", "fake": True}


@pytest.mark.parametrize(
    "program", ["inc = lambda x: x", "```\nright\n```", "def inc(x):\n    '''\n```` ~~~~\n'''", "    return 1"]
)
def test_a_program_arrives_as_it_is(monkeypatch, program):
    grader, code = fake(monkeypatch)
    grader.grade_answer(program, TESTS)
    assert programs.stated_program(code.texts[0], ["inc"]) == program


def test_tests_that_fail_their_own_solution_are_no_reference(monkeypatch):
    broken = Verdict(Grade.UNPARSED, "p", "the tests fail the task's own solution (it is slow)")
    grader, _ = fake(monkeypatch, broken)
    verdict = grader.grade_answer("def inc(x): 1", TESTS)
    assert verdict.grade is Grade.UNPARSED
    assert verdict.reason.startswith(f"{REFERENCE_UNREAD}: the tests fail the task's own solution")


def test_without_a_sandbox_nothing_is_run(monkeypatch):
    given = []

    def none(*_, allow_unsafe):
        given.append(allow_unsafe)
        raise SandboxUnavailable("nothing isolates here")

    monkeypatch.setattr(programs, "Sandbox", none)
    monkeypatch.setattr(programs, "CodeGrader", lambda _: pytest.fail("it was opened"))
    with open_task_grader("code", allow_unsafe=True) as grader:
        verdict = grader.grade("```python\ndef inc(x): 1\n```", TESTS)
        assert (verdict.grade, verdict.answer) == (Grade.UNPARSED, "def inc(x): 1")
        assert verdict.reason.startswith(REFERENCE_UNREAD)
        assert grader.unavailable == "nothing isolates here"
        assert grader.identity() == {"grader": "code"}
    assert given == [True]


def test_real_programs_in_the_real_sandbox():
    try:
        Sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with open_task_grader("code") as grader:
        right = "```python\ndef inc(x):\n    return x + 1\n```"
        assert grader.grade(right, TESTS).right
        assert grader.grade(right.replace("+", "-"), TESTS).grade is Grade.WRONG
        broken = write_tests(CodeTask(CHECK.tests, "check", CHECK.prompt, "inc", solution="    return 7\n"))
        assert grader.grade(right, broken).reason.startswith(REFERENCE_UNREAD)


# --- the others -----------------------------------------------------------------------------------------------------


def test_graders_by_name():
    for name in NAMES:
        with open_task_grader(name) as grader:
            assert grader.name == name
    with pytest.raises(UsageError, match="unknown grader 'best'"):
        open_task_grader("best")


def test_the_recorded_grader_knows_nothing():
    with open_task_grader("recorded") as grader:
        assert grader.find("anything", "") == ""
        verdict = grader.grade("anything", "7")
        assert verdict.grade is Grade.UNPARSED
        assert not verdict.reason.startswith((NO_ANSWER, ANSWER_UNREAD, REFERENCE_UNREAD))


# --- references -----------------------------------------------------------------------------------------------------


def completed(task, traces, problems=()):
    return list(References(find_task(task), find_task(task).grader, problems).complete(traces))


def test_candidates_get_the_references_that_they_lack():
    problems = [Problem("a", "p\n", "7"), Problem("b", "q", "8")]
    traces = [
        Trace("0", "p", group="x"),
        Trace("1", "other words", group="b"),
        Trace("2", "p", answer="9"),
        Trace("3", "unknown", group="c"),
        Trace("b", "others"),
    ]
    assert [trace.answer for trace in completed("aime24", traces, problems)] == ["7", "8", "9", None, "8"]
    assert [trace.answer for trace in completed("gpqa", traces, problems)] == ["7", None, "9", None, None]


def test_scored_candidates_get_references_too():
    prm = PRMIdentity("p", "r", "f", "causal", "mean", 1.0)
    scored = ScoredTrace(Trace("0", "p"), Status.SCORED, (), (), None, 0.5, prm, 1)
    done = completed("aime24", [scored], [Problem("a", "p", "7")])[0]
    assert (done.trace.answer, done.reward) == ("7", 0.5)


def test_code_finds_its_tests_in_the_candidates_columns():
    columns = {"test": CHECK.tests, "entry_point": "inc", "prompt": "def inc(x):\n"}
    traces = [
        Trace("a#0", "def inc(x):\n", group="a", meta=columns),
        Trace("a#1", "def inc(x):\n", group="a", meta=columns, answer="    return x + 1"),
        Trace("b#0", "def inc(x):\n", group="b", answer=TESTS),
        Trace("c#0", "def dec(x):\n", group="c"),
        Trace("d#0", "def inc(x):\n", group="d", meta={"test": CHECK.tests, "entry_point": "inc"}),
    ]
    answers = [trace.answer for trace in completed("humaneval", traces)]
    assert [None if answer is None else read_tests(answer) for answer in answers] == [CHECK, CHECK, CHECK, None, CHECK]
    assert answers[0] is answers[1]
