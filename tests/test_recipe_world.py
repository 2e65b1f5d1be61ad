"""The small world: its stories and solutions hold together, errors are errors, and its model can say all of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest

pytest.importorskip("trl")  # what the recipe trains with

from reasonflux_prm.evaluation.tasks import gsm8k
from reasonflux_prm.evaluation.tasks.base import load
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.labels.trajectory.leak import find_leaks
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.records import Trace
from reasonflux_prm.steps.split import split
from recipes.small_world import reasons, story, template, world
from recipes.small_world.base import GAP, STEP, TRACE, write_base
from recipes.small_world.corrupt import corrupted
from recipes.small_world.run import RULE, World
from recipes.student.form import chat_row, reference_traces
from recipes.student.tests import named

TOLD = {"finds": "+", "buys": "+", "gets": "+", "loses": "-", "sells": "-", "drops": "-", "doubles": "*", "half": "/"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def files(folder):
    patch = pytest.MonkeyPatch()
    small = [world.Split(split.file, split.source, 120, split.events) for split in world.SPLITS]
    patch.setattr(world, "SPLITS", tuple(small))
    world.write_problems(folder)
    patch.undo()
    return [folder / split.file for split in small]


def rows(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_no_story_is_told_twice(files):
    told = [row["problem"] for file in files for row in rows(file)]
    assert len(told) == len(set(told)) == 360


def test_solutions_do_what_the_stories_tell(files):
    for row in (row for file in files for row in rows(file)):
        signs = [TOLD[word] for word in re.findall(r"\w+", row["problem"]) if word in TOLD]
        held = int(re.search(r"has (\d+)", row["problem"])[1])
        *lines, last = row["solution"].splitlines()
        for sign, line in zip(signs, lines, strict=True):
            before, by, after = re.fullmatch(rf".*: (\d+)\{sign}(\d+)=<<.*>>(\d+)", line).groups()
            assert int(before) == held
            held = {"+": held + int(by), "-": held - int(by), "*": held * int(by), "/": held / int(by)}[sign]
            assert int(after) == held <= world.MOST
        assert last == f"#### {row['answer']}" == f"#### {int(held)}"


def test_stories_are_read_back(files):
    for trace in (trace for file in files for trace in reference_traces(file, GAP)):
        assert story.worked(trace.thinking) == story.solution(trace.problem)
        labelled = story.with_truth(trace, RULE)
        assert labelled.step_labels == (1.0,) * (trace.thinking.count("=") + 1)


def test_a_step_is_right_if_all_is_right_up_to_it(files):
    trace = next(t for t in reference_traces(files[0], GAP) if t.thinking.count("=") == 4)
    first, second, *rest = trace.thinking.split(GAP)
    for other in (second + "1", "well", second.replace("Second", "Third")):
        wrong = replace(trace, thinking=GAP.join([first, other, *rest]), correct=False)
        assert story.with_truth(wrong, RULE).step_labels == (1.0, 0.0, 0.0, 0.0, 0.0)
    longer = replace(trace, thinking=GAP.join([first, second, *rest, rest[-1]]))
    assert story.with_truth(longer, RULE).step_labels == (1.0, 1.0, 1.0, 1.0, 0.0, 1.0)


def test_longer_stories_are_longer_than_any_that_is_learnt(files):
    learnt, longer = ([row["solution"].count("\n") for row in rows(files[number])] for number in (0, 2))
    assert max(learnt) < min(longer)


def test_files_that_are_there_are_what_would_be_written(files, tmp_path, monkeypatch):
    small = [world.Split(split.file, split.source, 120, split.events) for split in world.SPLITS]
    monkeypatch.setattr(world, "SPLITS", tuple(small))
    world.write_problems(tmp_path)
    assert [(tmp_path / file.name).read_bytes() for file in files] == [file.read_bytes() for file in files]


def test_corrupted_solutions_have_one_slip_and_go_on_from_it(files):
    with open_grader("numeric") as grader:
        for trace in reference_traces(files[0], GAP):
            wrong = corrupted(trace)
            lines = [re.fullmatch(r".*: (\d+)([-+*/])(\d+)=(\d+)", line).groups() for line in wrong.thinking.split(GAP)]
            slips = [
                number
                for number, (before, sign, by, after) in enumerate(lines)
                if world.worked_out(int(before), sign, int(by)) != int(after)
            ]
            assert len(slips) == 1
            assert all(one[3] == other[0] for one, other in pairwise(lines))
            assert wrong.response == f"The answer is \\boxed{{{lines[-1][3]}}}."
            assert not grader.grade(wrong.response, str(trace.answer)).right
            assert corrupted(trace) == wrong


def test_every_line_is_a_step(files):
    trace = next(reference_traces(files[0], GAP))
    steps = split(trace, RULE).steps
    assert [step.part for step in steps] == [*["thinking"] * len(trace.thinking.split(GAP)), "response"]


def test_the_model_reads_and_writes_all_of_it(files, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_base(files[0], tmp_path / "random")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "random")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "random")
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    for trace in reference_traces(files[2], GAP):
        row = chat_row(trace)
        ids = tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False)
        assert row["completion"][0]["content"] in tokenizer.decode(ids)
        assert len(ids) <= model.config.max_position_embeddings
    digits = tokenizer.convert_ids_to_tokens(tokenizer("1234", add_special_tokens=False)["input_ids"])
    assert digits == ["1", "2", "3", "4"]
    assert all(len(tokenizer.encode(token)) == 1 for token in (STEP, TRACE))


def test_tables_have_the_names_of_the_files_problems(files, tmp_path):
    assert [named(gsm8k.TASK, file).name for file in files[1:]] == ["small-world-test", "small-world-longer"]
    assert len(load(named(gsm8k.TASK, files[1]), files[1])) == 120
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"id": "a", "problem": "1+1?", "answer": "2"}\n')
    assert named(gsm8k.TASK, plain) is gsm8k.TASK


@pytest.mark.parametrize(
    ("thinking", "slipless", "follows"),
    [
        ("First finds 3: 20+3=23\n\nSecond keeps half: 24/2=12", True, True),
        ("First finds 3: 20+3=24\n\nSecond keeps half: 24/2=12", False, True),
        ("First finds 3: 20+3=23\n\nSecond keeps half: 23/2=11", False, True),
        ("First doubles them: 20*2=40\n\nSecond keeps half: 40/2=20", True, False),
        ("First finds 3: 20+3=23", True, False),
        ("So it is 12.", False, False),
    ],
)
def test_slips_and_misread_stories_are_told_apart(thinking, slipless, follows):
    problem = "Ann has 20 pens.\nFirst finds 3.\nSecond keeps half.\nHow many pens does Ann have now?"
    scored = SimpleNamespace(trace=Trace("a", problem, thinking, "12"))
    assert reasons.without_slip(scored) is slipless
    assert reasons.follows(scored) is follows


def test_prm_and_pool_have_problems_of_their_own():
    from recipes.small_world import run

    assert run.LEARNT.stop <= run.POOLED.start < run.POOLED.stop <= world.SPLITS[0].problems
    assert list(World(None, 1).stages()) == [
        "problems", "teach", "sample", "label", "train", "choose", "select", "grpo",
    ]  # fmt: skip


# --- the template reward -------------------------------------------------------------------------------------------


def obey(request):
    """Solve a story as a plan says, or, without one, by adding everything; numbers are read rightly."""
    text = request.messages[-1].content
    held = int(re.search(r"has (\d+)", text)[1])
    by = [
        int(found or 2) for found in re.findall(r"^(?:First|Second|Third|Fourth) \D*?(\d+)?\D*?\.$", text, re.MULTILINE)
    ]
    signs = {action: sign for sign, action in template.ACTIONS.items()}
    told = [signs[action] for action in re.findall(r"^\d\. \w+: (.*)$", text, re.MULTILINE)]
    for sign, number in zip(told or "+" * len(by), by, strict=True):
        held = world.worked_out(held, sign, number)
    return f"The answer is \\boxed{{{held}}}."


def test_the_template_reward_is_that_of_the_strategy_and_not_of_the_numbers(files):
    right = next(t for t in reference_traces(files[0], GAP) if "-" in t.thinking and "+" in t.thinking)
    last = right.thinking.splitlines()[-1]
    slip = replace(right, id="slip", thinking=right.thinking.replace(last, last + "1"), correct=False)
    turned = right.thinking.translate(str.maketrans("+-", "-+"))
    other = replace(right, id="other", thinking=turned, correct=False)
    assert [template.kind(t) for t in (right, slip, other)] == list(template.KINDS)
    rated = template.rate([right, slip, other], ScriptedPolicy(obey), 2)
    assert [one.value("with_template") for one in rated] == [1.0, 1.0, 0.0]
    assert [one.value("without_template") for one in rated] == [0.0, 0.0, 0.0]
    found = template.report([replace(one, trace=replace(one.trace, group="p")) for one in rated])
    assert found["right against other number"]["r_final within a problem"]["value"] == 0.5
    assert found["right against other strategy"]["r_final within a problem"]["value"] == 1.0


def test_plans_are_what_stories_ask_for_and_give_nothing_away(files):
    rows_ = template.lessons(files[0])
    for number, (trace, row) in enumerate(zip(reference_traces(files[0], GAP), rows_, strict=True)):
        assert template.strategy(trace.thinking) == template.asked(trace.problem)
        shown = "\n".join(f"{stage['stage']}\n{stage['action']}" for stage in template.stages(trace.thinking))
        assert find_leaks(shown, trace.answer) == ()
        assert ("Follow this plan" in row["prompt"][0]["content"]) == bool(number % 3)
