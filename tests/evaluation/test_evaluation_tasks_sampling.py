"""Candidates from a policy: in order, with what is missing counted, and nothing fatal but a policy that has stopped."""

from __future__ import annotations

import asyncio
import json

import pytest

from reasonflux_prm.errors import PolicyError, PolicyStopped, UsageError
from reasonflux_prm.evaluation.tasks import find_task
from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.evaluation.tasks.sampling import AHEAD, SamplingSettings, write_candidates
from reasonflux_prm.policy.base import Completion, PartlyAnswered
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.traces.read import read_traces

TASK = find_task("math500")
PROBLEMS = [Problem(str(k), f"What is {k} + 1?", str(k + 1), {"level": k}) for k in range(6)]


def partly(*completions):
    error = PartlyAnswered("the server was restarted")
    error.completions = completions
    return error


def script(request):
    """Answer the first problem in full, the others with something amiss."""
    number = next(k for k in range(6) if f"What is {k} +" in request.messages[-1].content)
    return {
        0: [Completion("\\boxed{1}", "I add.", completion_tokens=5), Completion("<think>\nhm\n</think>\nIt is 1.")],
        1: partly(Completion("2")),
        2: PolicyError("the prompt is too long"),
        3: [Completion("", "I never", "length"), Completion("4")],
        4: partly(),
        5: "6",
    }[number]


def sample(tmp_path, policy, problems=PROBLEMS, n=2, **settings):
    path = tmp_path / "c.jsonl"
    told = []
    tally = write_candidates(
        TASK, problems, policy, SamplingSettings(n, **settings), path, lambda own: told.append(own.problems)
    )
    assert told == list(range(1, len(problems) + 1))
    return tally, [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_candidates_come_in_order_with_all_that_is_missing_counted(tmp_path):
    policy = ScriptedPolicy(script)
    tally, rows = sample(tmp_path, policy, max_tokens=100, seed=3)
    assert [row["id"] for row in rows] == ["0", "1", "3", "5"]
    assert rows[0] == {
        "id": "0",
        "problem": "What is 0 + 1?",
        "answer": "1",
        "source": "math500",
        "policy": "scripted",
        "level": 0,
        "candidates": [
            {"thinking": "I add.", "response": "\\boxed{1}", "finish_reason": "stop", "completion_tokens": 5},
            {"thinking": "", "response": "<think>\nhm\n</think>\nIt is 1.", "finish_reason": "stop"},
        ],
    }
    assert (tally.problems, tally.asked, tally.came, tally.cut, tally.short, tally.without) == (6, 12, 7, 1, 1, 2)
    assert dict(tally.reasons) == {"the server was restarted": 2, "the prompt is too long": 1}
    assert str(tally).startswith("7 of 12 samples of 6 problems, 1 cut off, 1 problems with fewer than asked for, ")
    assert json.dumps(tally.row())
    request = policy.requests[0]
    assert (request.n, request.temperature, request.top_p, request.max_tokens, request.seed) == (2, 0.6, 0.95, 100, 3)
    assert request.messages[0].content == TASK.ask(PROBLEMS[0])


def test_the_file_reads_as_candidates(tmp_path):
    sample(tmp_path, ScriptedPolicy(script))
    traces = list(read_traces(tmp_path / "c.jsonl"))
    assert [trace.id for trace in traces] == ["0#0", "0#1", "1#0", "3#0", "3#1", "5#0", "5#1"]
    assert (traces[1].thinking.strip(), traces[1].response.strip()) == ("hm", "It is 1.")
    assert [trace.thinking_closed for trace in traces[:4]] == [True, True, True, False]
    assert {(trace.answer, trace.policy, trace.group) for trace in traces[:2]} == {("1", "scripted", "0")}


def test_a_policy_that_gives_fewer_without_an_error(tmp_path):
    class Lazy(ScriptedPolicy):
        async def ask(self, request):
            return [Completion("1")]

    tally, rows = sample(tmp_path, Lazy({}), PROBLEMS[:2], n=3)
    assert [len(row["candidates"]) for row in rows] == [1, 1]
    assert (tally.short, dict(tally.reasons)) == (2, {"the policy gave 1 samples of 3": 2})


def test_a_crash_in_one_request_is_its_own(tmp_path):
    def crash(request):
        if "2 +" in request.messages[-1].content:
            raise ZeroDivisionError("by zero")
        return "1"

    tally, rows = sample(tmp_path, ScriptedPolicy(crash))
    assert len(rows) == 5
    assert dict(tally.reasons) == {"ZeroDivisionError: by zero": 1}


def test_a_policy_that_stops_leaves_no_file(tmp_path):
    with pytest.raises(PolicyStopped, match="wrong key"):
        sample(tmp_path, ScriptedPolicy(lambda _: PolicyStopped("wrong key")))
    assert list(tmp_path.iterdir()) == []


def test_a_bounded_number_of_problems_is_under_way_and_a_slow_one_holds_up_none(tmp_path):
    class Slow(ScriptedPolicy):
        concurrency = 2
        under_way = most = 0

        def __init__(self):
            super().__init__({})
            self.order = []

        async def ask(self, request):
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            text = request.messages[-1].content
            await asyncio.sleep(0.05 if "What is 0 +" in text else 0.001)
            self.under_way -= 1
            self.order.append(text)
            return [Completion("1")] * request.n

    policy = Slow()
    problems = [Problem(str(k), f"What is {k} + 1?") for k in range(30)]
    _, rows = sample(tmp_path, policy, problems)
    assert [row["id"] for row in rows] == [problem.id for problem in problems]
    assert policy.most == AHEAD * 2
    assert policy.order.index(TASK.ask(problems[0])) >= AHEAD * 2 - 1


def test_what_cannot_be_sampled_is_refused(tmp_path):
    with pytest.raises(UsageError, match="trajectories that an agent records"):
        write_candidates(find_task("dabstep"), PROBLEMS, ScriptedPolicy({}), SamplingSettings(2), tmp_path / "c.jsonl")
    with pytest.raises(UsageError, match="top_p"):
        SamplingSettings(2, top_p=0)
