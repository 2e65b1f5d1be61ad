"""The packaged sample traces: readable, honestly labelled, and with something to choose from on every problem."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import pytest

from reasonflux_prm.records import Trace
from reasonflux_prm.traces.read import read_traces

DEMO = Path(str(files("reasonflux_prm.data").joinpath("demo.jsonl")))
PROBLEMS = Path(__file__).parents[1] / "recipes/demo_traces/problems.json"


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    return list(read_traces(DEMO))


def groups(traces: list[Trace]) -> dict[str, list[Trace]]:
    grouped = defaultdict(list)
    for trace in traces:
        assert trace.group is not None
        grouped[trace.group].append(trace)
    return grouped


def says(response: str, answer: str) -> bool:
    """Whether the last word with a digit in it is the answer: no regular expression, unlike the recipe's grader."""
    words = [word for word in response.replace("$", " ").split() if any(c.isdigit() for c in word)]
    return bool(words) and float(words[-1].strip(".,;:!?()*%").replace(",", "")) == float(answer)


def test_every_candidate_is_a_complete_trace_of_its_problem(traces: list[Trace]) -> None:
    by_problem = groups(traces)
    assert 10 <= len(by_problem) <= 12
    assert {len(candidates) for candidates in by_problem.values()} == {6}
    assert len({trace.id for trace in traces}) == len(traces)
    assert {trace.policy for trace in traces} == {"SmolLM2-135M-Instruct"}
    for trace in traces:
        assert trace.thinking.strip()
        assert trace.response.strip()
        assert trace.thinking_closed
        assert not trace.meta


def test_problems_and_answers_are_those_of_the_recipe(traces: list[Trace]) -> None:
    ours = {p["id"]: (p["problem"], p["answer"]) for p in json.loads(PROBLEMS.read_text(encoding="utf-8"))}
    for trace in traces:
        assert ours[str(trace.group)] == (trace.problem, trace.answer)


def test_verdicts_agree_with_the_last_number_of_the_response(traces: list[Trace]) -> None:
    for trace in traces:
        assert trace.answer is not None
        assert trace.correct is says(trace.response, trace.answer), trace.id


def test_every_problem_has_right_and_wrong_candidates_and_no_two_the_same(traces: list[Trace]) -> None:
    for group, candidates in groups(traces).items():
        assert {trace.correct for trace in candidates} == {True, False}, group
        assert len({(trace.thinking, trace.response) for trace in candidates}) == len(candidates), group


def test_texts_hold_no_control_characters_and_no_marks(traces: list[Trace]) -> None:
    for trace in traces:
        text = trace.problem + trace.thinking + trace.response
        # Every category of "other": control, format, surrogate, private use, unassigned.
        assert not [c for c in text if unicodedata.category(c)[0] == "C" and c != "\n"], trace.id
        assert "<|" not in text
        assert "think>" not in text


def test_file_is_small() -> None:
    assert DEMO.stat().st_size < 150_000


def test_the_recipe_counts_a_text_as_right_only_if_it_was_finished() -> None:
    from recipes.demo_traces.sample import grade

    right = grade("2 + 3 = 5\n</think>\nThe answer is 5.", 9, True, "5")
    assert (right.thinking, right.response) == ("2 + 3 = 5", "The answer is 5.")
    assert right.finished
    assert right.correct
    assert not grade("2 + 3 = 5\n</think>\nThe answer is 5", 9, False, "5").correct
    assert not grade("2 + 3 = 5. The answer is 5.", 9, True, "5").correct
    assert not grade("2 + 3 = 5\n</think>\nNot 5 but 6.", 9, True, "5").correct
    assert grade("a\n</think>\nIt is 1,200.0.", 9, True, "1200").correct


def test_the_recipe_keeps_the_first_different_finished_samples() -> None:
    from recipes.demo_traces.sample import Sample, pick_candidates

    right, wrong, other = (Sample("t", r, True, r == "5", 1) for r in ("5", "6", "7"))
    cut = Sample("t", "", False, False, 1)
    assert pick_candidates([cut, wrong, wrong, right, other], 2) == [wrong, right]
    assert pick_candidates([wrong, other, right], 2) is None
    assert pick_candidates([right, cut, right], 2) is None
