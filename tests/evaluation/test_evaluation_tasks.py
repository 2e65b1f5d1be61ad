"""Benchmarks: what their records look like on the hub and in local files, and what is asked. All items are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.evaluation.tasks import TASKS, base, find_task
from reasonflux_prm.evaluation.tasks.base import Problem, load, size_note
from reasonflux_prm.evaluation.tasks.graders import NAMES
from reasonflux_prm.evaluation.tasks.programs import read_tests
from reasonflux_prm.grading.code import CodeTask
from reasonflux_prm.steps.split import RULE_NAMES
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.tables import is_dataset_id

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "problems"
OPTIONS = {f"Incorrect Answer {k}": f"{k} suns" for k in (1, 2, 3)}
GPQA = {"Question": "How many moons?", "Correct Answer": "two moons", **OPTIONS, "Record ID": "rec1"}
CHECK = {
    "task_id": "HumanEval/0",
    "prompt": "def inc(x):\n",
    "canonical_solution": "    return x + 1\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    "entry_point": "inc",
}
PYTEST = {
    "question_id": "Prefill_1",
    "question": "Write `inc`.",
    "solution": "def inc(x):\n    return x + 1\n",
    "test": "from solution import inc\n\ndef test_inc():\n    assert inc(1) == 2\n",
    "test_info": [{"function_name": "inc"}],
}


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "row", "problem"),
    [
        (
            "aime24",
            {"id": 60, "problem": "p", "solution": "s", "answer": "073", "url": "u", "year": "2024"},
            ("60", "p", "073"),
        ),
        ("aime25", {"id": "0", "problem": "p", "answer": "70"}, ("0", "p", "70")),
        (
            "math500",
            {"problem": "p", "solution": "s", "answer": "\\frac12", "level": 2, "unique_id": "test/a/1.json"},
            ("test/a/1.json", "p", "\\frac12"),
        ),
        ("amc23", {"id": 3, "question": "p", "answer": 27.0, "url": "u"}, ("3", "p", "27.0")),
        ("gsm8k", {"question": "p", "answer": "2 * 9 = <<2*9=18>>18\n#### 18"}, ("x:1", "p", "18")),
        ("gsm8k", {"id": "a", "problem": "p", "answer": "18"}, ("a", "p", "18")),
        (
            "svamp",
            {"ID": "chal-1", "Body": "Jo has 3 cats", "Question": "How many legs?", "Answer": "12.0", "Type": "m"},
            ("chal-1", "Jo has 3 cats. How many legs?", "12.0"),
        ),
        (
            "svamp",
            {"ID": "chal-2", "Body": "Jo has 3 cats.", "Question": "How many legs?", "Answer": 12},
            ("chal-2", "Jo has 3 cats. How many legs?", "12"),
        ),
        (
            "olympiadbench",
            {"id": 1606, "question": "q", "context": "c", "final_answer": ["$1$", "$2$"], "unit": None},
            ("1606", "c\n\nq", "$1$, $2$"),
        ),
        (
            "olympiadbench",
            {"id": 7, "question": "q", "context": None, "final_answer": None},
            ("7", "q", None),
        ),
        (
            "scienceagentbench",
            {"instance_id": 1, "task_inst": "Train it.", "domain": "Chemistry"},
            ("1", "Train it.", None),
        ),
        (
            "dabstep",
            {"task_id": "5", "question": "q", "guidelines": "A number.", "level": "easy", "answer": "NL"},
            ("5", "q\n\nA number.", "NL"),
        ),
        ("dabstep", {"task_id": "6", "question": "q", "guidelines": "g", "answer": ""}, ("6", "q\n\ng", None)),
        ("custom", {"question": "q", "ground_truth": "B"}, ("x:1", "q", "B")),
    ],
)
def test_records_of_the_hub_and_of_files(name, row, problem):
    read = find_task(name).read(Row("x.jsonl", 1, row), 0)
    assert (read.id, read.problem, read.answer) == problem
    assert not {"solution", "answer"} & read.columns.keys()


@pytest.mark.parametrize("name", [task.name for task in TASKS if task.grader not in ("code",)])
def test_the_local_form_is_the_same_for_all(name, tmp_path):
    path = write(tmp_path / "p.jsonl", [{"id": "a", "problem": "p", "answer": "7", "subject": "s", "solution": "t"}])
    assert load(find_task(name), path) == [Problem("a", "p", "7", {"subject": "s"})]


def test_code_has_tests_as_its_reference(tmp_path):
    humaneval = load(find_task("humaneval"), write(tmp_path / "h.jsonl", [CHECK]))[0]
    assert (humaneval.id, humaneval.problem) == ("HumanEval/0", CHECK["prompt"])
    tests = CodeTask(CHECK["test"], "check", CHECK["prompt"], "inc", CHECK["canonical_solution"])
    assert read_tests(humaneval.answer) == tests
    kodcode = load(find_task("kodcode"), write(tmp_path / "k.jsonl", [PYTEST]))[0]
    assert (kodcode.id, kodcode.problem) == ("Prefill_1", "Write `inc`.")
    assert read_tests(kodcode.answer) == CodeTask(PYTEST["test"], "pytest", solution=PYTEST["solution"])
    older = {**{name: value for name, value in PYTEST.items() if name != "test"}, "test_code": PYTEST["test"]}
    assert load(find_task("kodcode"), write(tmp_path / "o.jsonl", [older]))[0].answer == kodcode.answer


@pytest.mark.parametrize(("name", "row"), [("humaneval", CHECK), ("kodcode", PYTEST)])
def test_code_without_tests_is_refused(name, row, tmp_path):
    row = {key: value for key, value in row.items() if key != "test"}
    with pytest.raises(InputError, match=r"p.jsonl:1: expected te"):
        load(find_task(name), write(tmp_path / "p.jsonl", [row]))


# --- GPQA ---------------------------------------------------------------------------------------------------------


def gpqa(row=GPQA, seed=0) -> Problem:
    return find_task("gpqa").read(Row("x", 1, row), seed)


def options(problem: Problem) -> dict[str, str]:
    return dict(line[1:].split(") ", 1) for line in problem.problem.splitlines()[2:])


def test_the_options_of_gpqa_are_shuffled_by_seed_and_question():
    problem = gpqa()
    assert (problem.id, problem.problem.splitlines()[0]) == ("rec1", "How many moons?")
    assert options(problem)[problem.answer] == "two moons"
    assert sorted(options(problem).values()) == sorted(["two moons", *OPTIONS.values()])
    assert gpqa() == problem
    assert gpqa({**GPQA, **dict(zip(OPTIONS, reversed(OPTIONS.values()), strict=True))}) == problem
    letters = [gpqa(seed=seed).answer for seed in range(400)]
    assert all(70 <= letters.count(letter) <= 130 for letter in "ABCD")
    letters = [gpqa({**GPQA, "Question": f"{k}?"}).answer for k in range(400)]
    assert all(70 <= letters.count(letter) <= 130 for letter in "ABCD")


def test_bad_options_of_gpqa_are_refused():
    with pytest.raises(InputError, match="two of them are the same"):
        gpqa({**GPQA, "Incorrect Answer 2": " two moons"})
    with pytest.raises(InputError, match="expected text in the column Incorrect Answer 3, got NoneType"):
        gpqa({**GPQA, "Incorrect Answer 3": None})


# --- loading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        ("aime24", "aime24", 30),
        ("aime25", "aime25", 30),
        ("amc23", "amc23", 40),
        ("math500", "math500", 500),
        ("gsm8k", "gsm8k_test", 1319),
        ("svamp", "svamp", 1000),
        ("olympiadbench", "olympiadbench", 300),
    ],
)
def test_the_shared_problems_load(name, file, size):
    path = DATA / f"{file}.jsonl"
    if not path.exists():
        pytest.skip("the shared data is not here")
    problems = load(find_task(name), path)
    assert len(problems) == size
    assert all(problem.answer and problem.problem.strip() and "####" not in problem.answer for problem in problems)
    assert (size_note(find_task(name), size) is None) == (name != "olympiadbench")


def test_bad_records_are_named_and_the_others_load(tmp_path):
    rows = [{"id": "a", "problem": "p"}, {"id": "b"}, {"id": "a", "problem": "q"}, {"id": "c", "problem": "r"}]
    path = write(tmp_path / "p.jsonl", rows)
    refused = []
    assert [problem.id for problem in load(find_task("aime24"), path, rejects=refused.append)] == ["a", "c"]
    assert [(reject.line, reject.reason[:18]) for reject in refused] == [
        (2, "expected a problem"),
        (3, "a problem with the"),
    ]
    with pytest.raises(InputError, match=r"p\.jsonl:2: expected a problem as text"):
        load(find_task("aime24"), path)
    assert len(load(find_task("aime24"), path, limit=1)) == 1
    with pytest.raises(InputError, match=r"expected problems of AIME 2024 in .*, found none"):
        load(find_task("aime24"), write(tmp_path / "none.jsonl", rows[1:2]), rejects=refused.append)


def test_a_task_loads_from_its_place_on_the_hub(monkeypatch):
    asked = []

    def rows(source):
        asked.append(source)
        return iter([Row(source, 1, GPQA)])

    monkeypatch.setattr(base, "open_source", rows)
    assert load(find_task("gpqa"), seed=3) == [gpqa(seed=3)]
    assert asked == ["Idavidrein/gpqa:gpqa_diamond:train"]
    with pytest.raises(UsageError, match="name a file or a data set with --problems"):
        load(find_task("custom"))


def test_the_size_of_a_benchmark_is_watched():
    assert size_note(find_task("svamp"), 300) is None
    assert size_note(find_task("custom"), 5) is None
    assert size_note(find_task("svamp"), 29) == (
        "29 problems, and SVAMP has 300 or 1,000: do not report this as a result on SVAMP"
    )


# --- the list -----------------------------------------------------------------------------------------------------


def test_the_list_is_sound():
    assert len({task.name for task in TASKS}) == len(TASKS)
    for task in TASKS:
        assert task.grader in NAMES
        assert task.steps in RULE_NAMES
        assert (task.source is None) == (task.name == "custom")
        assert task.source is None or is_dataset_id(task.source)
    with pytest.raises(UsageError, match="unknown task 'aime23'; there are aime24, "):
        find_task("aime23")


def test_agents_are_cut_by_turns_and_cannot_be_sampled():
    agents = {task.name for task in TASKS if task.ask is None}
    assert agents == {"scienceagentbench", "dabstep"} == {task.name for task in TASKS if task.steps == "turn"}


@pytest.mark.parametrize("task", [task for task in TASKS if task.ask], ids=lambda task: task.name)
def test_prompts_hold_the_problem_and_say_where_the_answer_goes(task):
    said = task.ask(Problem("a", "PROBLEM {x} %s"))
    assert "PROBLEM {x} %s" in said
    assert ("```python" in said) == (task.grader == "code")
    assert ("\\boxed{}" in said) == (task.grader != "code")
