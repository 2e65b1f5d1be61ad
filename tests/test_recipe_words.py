"""The word problems of `recipes/words`: every story can be told, and wrong solutions are wrong as they say."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from recipes.prm_135m.samples import graded
from recipes.prm_first.sampled import claims_hold, traces, trees, values
from recipes.words.write import STORIES, Story, StoryError, fill, problems, read_stories, tell, value, work_out
from recipes.words.wrong import KINDS, candidates, carried, steps_of, versions

MARK = re.compile(r"(\d+) ([-+*/]) (\d+) = <<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")
ALL = [story for path in sorted(STORIES.glob("*.toml")) for story in read_stories(path)]
TOLD: dict[str, Any] = {
    "id": "story-0-0-1",
    "problem": "Tom had 12 pens and 3 caps. He lost 4 of the pens. How many pens and caps has he now?",
    "answer": "11",
    "solution": "He has 12 - 4 = <<12-4=8>>8 pens.\nWith the caps it makes 8 + 3 = <<8+3=11>>11.\n#### 11",
    "others": ["He had 12 + 3 = <<12+3=15>>15 things.\n#### 15"],
    "source": "words",
}


@pytest.mark.parametrize("path", sorted(STORIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_question_is_told_and_its_solution_works_out(path: Path) -> None:
    for story in read_stories(path):
        for question in range(len(story.questions)):
            row = tell(story, question, random.Random(7))
            assert not re.search(r"[{}\[\]]", row["problem"] + row["solution"]), row
            *steps, last = row["solution"].splitlines()
            for step in steps:
                found = MARK.search(step)
                assert found, row
                a, sign, b, *marked, result = found.groups()
                assert marked == [a, sign, b, result]
                assert value(int(a), sign, int(b)) == int(result)
            assert last == f"#### {result}"
            assert row["answer"] == result
            assert all(other.splitlines()[-1] != last for other in row["others"])


def test_set_aside_stories_are_told_in_no_problem_to_learn_from() -> None:
    dev, train = ([story for story in ALL if story.dev == side] for side in (True, False))
    assert len(dev) > 10
    assert len(train) > 100
    told = [{row["id"].rsplit("-", 2)[0] for row in problems(side, 400, 0)} for side in (dev, train)]
    assert not told[0] & told[1]


def test_problems_are_the_same_for_a_seed_and_all_different() -> None:
    first, again, other = (list(problems(ALL, 700, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len({row["problem"] for row in first}) == 700


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["There are [a+b] and [a-b]."], "expected one calculation"),
        (["There are [a+q]."], "is no number that is known"),
    ],
)
def test_a_line_that_cannot_be_worked_out_is_named(lines: list[str], message: str) -> None:
    with pytest.raises(StoryError, match=message):
        work_out(lines, {"a": 5, "b": 3})


def test_a_result_that_is_no_whole_number_is_drawn_again() -> None:
    assert work_out(["[a/b]"], {"a": 7, "b": 2}) is None
    assert work_out(["[a-b]"], {"a": 3, "b": 2}) is None  # one thing would need another grammar
    assert work_out(["[a*b=c]", "[c-b]"], {"a": 3, "b": 2}) == (["3 * 2 = <<3*2=6>>6", "6 - 2 = <<6-2=4>>4"], 4)


def test_a_story_that_cannot_be_told_says_which() -> None:
    story = Story("file-3", {"a": (2, 9)}, {}, "{A} has {a} {z}.", [], [["How many?", "[a+a]"]])
    with pytest.raises(StoryError, match=r"file-3, question 0: no such slot: \{z\}"):
        tell(story, 0, random.Random(0))


def test_sentences_begin_with_capitals() -> None:
    assert fill("{x} cost {a}. {A.he} buys. {x} sell", {"a": 3}, {"x": ("pens", {}), "A": ("Tom", {"he": "he"})}) == (
        "Pens cost 3. He buys. Pens sell"
    )


def test_a_wrong_value_is_carried_on() -> None:
    steps = steps_of(TOLD["solution"])
    done = carried(steps, 0, steps[0]._replace(sign="+", result=16))
    assert done is not None
    assert [str(step) for step in done] == ["He has 12 + 4 = 16 pens.", "With the caps it makes 16 + 3 = 19."]


def test_versions_are_of_all_kinds_and_only_right_ones_give_the_answer() -> None:
    found = list(versions(TOLD))
    assert {kind for kind, _, _ in found} == set(KINDS)
    for kind, steps, answer in found:
        sums = all(value(step.a, step.sign, step.b) == step.result for step in steps)
        assert sums or kind == "slip"
        if kind == "right":
            assert answer == 11
    drawn = candidates(TOLD, 20, random.Random(0))
    stated = [candidate["response"] for candidate in drawn if "11}" not in candidate["response"]]
    assert len(stated) >= 10
    assert len(drawn) > len(stated)


def test_only_the_kinds_that_are_asked_for_are_drawn() -> None:
    for candidate in candidates(TOLD, 20, random.Random(0), ("operation", "operand")):
        for line in candidate["thinking"].splitlines():
            a, sign, b, result = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", line)[0]
            assert value(int(a), sign, int(b)) == int(result)


def test_samples_with_a_false_claim_are_left_out(tmp_path: Path) -> None:
    pytest.importorskip("sympy")
    (tmp_path / "p.jsonl").write_text(json.dumps(TOLD) + "\n", "utf-8")
    shown = [
        {"thinking": "He has 12 - 4 = 8 pens and 8 + 3 = 11 things.", "response": "The answer is \\boxed{11}."},
        {"thinking": "He has 12 - 4 = 9 pens.", "response": "The answer is \\boxed{9}."},
        {"thinking": "He has 12 + 4 = 16 pens.", "response": "The answer is \\boxed{16}."},
    ]
    row = {**{name: TOLD[name] for name in ("id", "problem", "answer", "source")}, "candidates": shown}
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    samples = list(claims_hold(graded(tmp_path / "c.jsonl")))
    kept = [trace.response for trace in traces(tmp_path / "p.jsonl", samples)]
    assert kept == ["The answer is \\boxed{11}.", "The answer is \\boxed{16}."]
    (tree,) = trees(tmp_path / "p.jsonl", samples)
    assert [branch["label"] for branch in tree["branches"]] == [1, 0]


def test_wrong_solutions_are_labelled_step_by_step(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(TOLD) + "\n", "utf-8")
    right = "He lost four of the pens that he had at the beginning, so that there are now 12 - 4 = 8 pens in his bag."
    shown = [
        {
            "thinking": f"{right}\n\nThen it makes 8 - 3 = 5 of them in the end, and that is all there is.",
            "response": "The answer is \\boxed{5}.",
        },
        {"thinking": "He has 12 + 4 = 16 pens.", "response": "The answer is \\boxed{16}."},
    ]
    row = {**{name: TOLD[name] for name in ("id", "problem", "answer", "source")}, "candidates": shown}
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    samples = list(graded(tmp_path / "c.jsonl"))
    assert list(trees(tmp_path / "p.jsonl", samples)) == []  # none is right
    (tree,) = trees(tmp_path / "p.jsonl", samples, mixed=False)
    assert [branch["labels"][-1] for branch in tree["branches"]] == [0.0, 0.0]
    labels = [trace.step_labels for trace in traces(tmp_path / "p.jsonl", samples)]
    assert [found[0] for found in labels if found] == [1.0, 0.0]
    assert values(TOLD["solution"]) == [8, 11]
