"""The recipe of the small judge: it learns what it will be asked, the truth, and nothing that it is tested on."""

from __future__ import annotations

import json
from random import Random

import pytest

from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.labels.judges.llm import LLMJudge
from reasonflux_prm.labels.pipeline import Labeller, LabelSettings
from reasonflux_prm.labels.run import run_labelling
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.traces.resumable import Input
from recipes.label_evidence import rollouts
from recipes.label_evidence.judge import calculation, changed_solutions, mark_in, measure, other_sums, part, scores
from recipes.prm_135m.gold import is_dev


def tree(number):
    """A tree of three right steps, one error that is carried on, one that breaks off, and a step said once more."""
    return {
        "id": f"gsm8k-train-{number}",
        "problem": f"Tom has {number} boxes of 2 pens, gives 1 pen away and gets 5. How many has he?",
        "answer": str(2 * number + 4),
        "style": {"joiner": "\n"},
        "part": "thinking",
        "gold": [f"{number} x 2 = {2 * number}", f"He keeps {2 * number} - 1 = {2 * number - 1} pens."],
        "final": f"The answer is {2 * number + 4}.",
        "branches": [
            {"at": 0, "steps": ["1 + 1 = 3", "3 - 1 = 2", "2"], "complete": True, "label": 0, "kind": "operand"},
            {"at": 1, "steps": ["He keeps 9 - 1 = 7 pens."], "complete": False, "label": 0, "kind": "arithmetic"},
            {"at": 1, "steps": [f"{number} x 2 = {2 * number}"], "complete": False, "label": 0, "kind": "repeat"},
        ],
    }


@pytest.fixture
def trees(tmp_path):
    path = tmp_path / "trees.jsonl"
    path.write_text("".join(json.dumps(tree(number)) + "\n" for number in range(2, 80)))
    return path


def label(tmp_path, policy):
    """Have the sums that are evaluated labelled by the judge `llm`, from file to file."""
    rows = list(rollouts.sums(8, 5, 3))
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = LabelSettings(steps="given")
    labeller = Labeller(Formula.parse("bounded mean(quality)"), judge=LLMJudge(policy), settings=settings)
    run_labelling(labeller, Input(str(tmp_path / "traces.jsonl")), tmp_path / "labels.jsonl")
    return rows, tmp_path / "labels.jsonl"


def test_a_prompt_is_what_a_labelling_run_asks(tmp_path):
    rows = list(rollouts.sums(2, 5, 3 + 5))  # those of five numbers among `other_sums(8, 3)`
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = ScriptedPolicy(lambda request: "no review")
    labeller = Labeller(
        Formula.parse("bounded mean(quality)"), judge=LLMJudge(policy), settings=LabelSettings(steps="given")
    )
    run_labelling(labeller, Input(str(tmp_path / "sums.jsonl")), tmp_path / "labels.jsonl")
    asked = [[{"role": turn.role, "content": turn.content} for turn in one.messages] for one in policy.requests]
    taught = list(other_sums(8, 3))
    assert len({row["id"] for row in taught}) == len(taught) == 16
    made = [row["prompt"] for row in taught if row["problem"].count("+") == 4]
    assert len(made) == 4
    assert all(prompt in asked for prompt in made)
    assert "reference_answer" in made[0][1]["content"]


def test_what_is_learnt_reads_as_the_truth(trees):
    rows = list(changed_solutions(trees, 30, Random(0)))
    assert len(rows) == 60
    kinds = set()
    for right, wrong in zip(rows[::2], rows[1::2], strict=True):
        said = [json.loads(row["completion"][0]["content"]) for row in (right, wrong)]
        assert {one["review"] for one in said} == {mark_in(row["prompt"][-1]["content"]) for row in (right, wrong)}
        good, bad = ([entry["overall"] for entry in one["scores"]] for one in said)
        assert good == [1] * len(bad)
        kinds.add(tuple(bad))
        number = int(right["problem"].split()[2])
        notes = [entry["note"] for entry in said[0]["scores"]]
        assert notes == [entry["note"] for entry in said[1]["scores"]]  # the truth, whatever the step says
        meant = [f"{number} * 2 = {2 * number}", f"{2 * number} - 1 = {2 * number - 1}", str(2 * number + 4)]
        assert notes == meant[: len(notes)]
    assert kinds == {(0, 0.2, 0.2), (1, 0)}


def test_scores_follow_the_prompts_rubric():
    right, first, later = scores([1.0, 0.0, 0.0])
    assert set(right.values()) == {1}
    assert set(first.values()) == {0}
    assert (later["correctness"], later["coherence"]) == (0, 1)
    assert later["overall"] < 0.5


def test_nothing_that_is_evaluated_is_learnt(trees, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rollouts", "make", str(tmp_path / "sums.jsonl")])
    rollouts.main()
    evaluated = {json.loads(line)["problem"] for line in (tmp_path / "sums.jsonl").open()}
    assert len(evaluated) == 40
    taught = [row["problem"] for row in other_sums(160, -4)]  # its sums of four numbers are those of seed 0
    assert not evaluated & set(taught)
    assert len(taught) == 2 * 3 * 40
    ids = {row["id"].rsplit("-", 1)[0] for row in changed_solutions(trees, 1000, Random(0))}
    held = {f"gsm8k-train-{number}" for number in range(2, 80) if is_dev(f"gsm8k-train-{number}")}
    assert held
    assert not held & ids
    assert len(held | ids) == 78


@pytest.mark.parametrize(
    ("step", "note"),
    [
        ("Ella's score is 40 items - 4 items = 36 items.", "40 - 4 = 36"),
        (r"So, $3 \times \$5 = \$15$ a day", "3 * 5 = 15"),
        ("He ran 40 hours/week x 2 weeks = <<40*2=80>>80 hours", "40 * 2 = 80"),
        ("With 3 apples and (2+4)*1,000=6,000, more", "( 2 + 4 ) * 1,000 = 6,000"),
        ("The answer is 1,200.", "1,200"),
        ("Let x be it.", ""),
        ("Thus x = 5", "5"),
    ],
)
def test_a_note_is_the_calculation_without_its_words(step, note):
    assert calculation(step) == note


def adder(request):
    """Review sums without a fault."""
    material = [json.loads(line) for line in request.messages[-1].content.splitlines() if line.startswith("{")]
    total, entries = None, []
    for one in material:
        if "step" in one:
            first, second, result = (int(word) for word in one["text"].rstrip(".\n ").replace("=", "+").split("+"))
            total = (first if total is None else total) + second
            said = float(total == result)
            scored = dict.fromkeys(("correctness", "coherence", "progress", "overall"), said)
            note = f"{total - second} + {second} = {total}"
            entries.append({"step": one["step"], "note": note, **scored})
    return json.dumps({"review": mark_in(request.messages[-1].content), "scores": entries})


def test_an_able_judge_is_found_to_be_able(tmp_path):
    rows, labels = label(tmp_path, ScriptedPolicy(adder))
    report = measure(labels)
    wrong = sum(step == 0 for row in rows for step in row["step_labels"])
    none = {"neither": 0, "untold": 0}
    assert report["sides"]["quality"]["right"] == {"good": 64 - wrong, "bad": 0, **none}
    assert report["sides"]["quality"]["wrong"] == {"good": 0, "bad": wrong, **none}
    areas = [area["value"] for area in report["step_auc_by_place"]["quality"].values()]
    assert areas == [1, 1, 1, 1]
    assert report["unread"] == []
    assert report["step_auc"]["quality"]["value"] == report["step_auc_within_trace"]["quality"]["value"] == 1
    assert report["step_auc"]["the note is what the step says"]["value"] == 1
    assert report["step_auc"]["earlier step"]["value"] < 1


def test_a_judge_that_writes_no_review_is_told_and_not_scored(tmp_path):
    _, labels = label(tmp_path, ScriptedPolicy(lambda request: "I would rather not."))
    report = measure(labels)
    assert report["sides"]["quality"]["right"]["untold"] + report["sides"]["quality"]["wrong"]["untold"] == 64
    assert report["step_auc"]["quality"] is None
    assert sum(count for _, count in report["unread"]) == 64
    assert report["step_auc"]["quality, silence 0.5"]["value"] == 0.5


def test_a_part_of_a_set_is_drawn_by_problems_and_length_alone(tmp_path):
    rows = [row for terms in (4, 6) for row in rollouts.sums(20, terms, 0)]
    for name, given in (("a", rows), ("b", rows[::-1])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in given))
    taken = part(tmp_path / "a", 10, 4)
    assert {len(row["steps"]) for row in taken} == {3}
    assert {row["id"] for row in taken} == {row["id"] for row in part(tmp_path / "b", 10, 4)}
    assert len(taken) == 10
