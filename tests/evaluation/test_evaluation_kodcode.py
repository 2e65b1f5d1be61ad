"""KodCode in the layout of its published rows: what is read, what a policy is asked, and programs against the tests.

Written by hand after the published data's forms: a function that the question does not name, a class with tests in a
class, `import *`, and tests that import nothing.
"""

from __future__ import annotations

import json

import pytest

from reasonflux_prm.errors import SandboxUnavailable
from reasonflux_prm.evaluation.tasks import find_task
from reasonflux_prm.evaluation.tasks.base import load
from reasonflux_prm.evaluation.tasks.programs import ProgramGrader, read_tests
from reasonflux_prm.grading.verdict import NO_ANSWER, REFERENCE_UNREAD, Grade
from reasonflux_prm.sandbox.sandbox import Sandbox


def row(name, question, solution, test, declaration=""):
    return {
        "style": "instruct",
        "subset": "Prefill",
        "question_id": f"Prefill_{name}_I",
        "question": question,
        "solution": solution,
        "test": test,
        "test_info": [
            {"function_declaration": declaration, "function_name": name, "parameter_list": "(x)", "docstring": "D."}
        ],
        "gpt_pass_sequence": [1, 0, 1],
        "gpt_pass_trial_num": 2,
        "gpt_difficulty": "medium",
        "gpt_pass_percentage": 0.66,
    }


SORT = row(
    "sort_words",
    "Write a function that sorts words by length, then by the alphabet. It raises a ValueError for anything else.",
    "def sort_words(words):\n    if not all(isinstance(w, str) for w in words):\n        raise ValueError('words')\n"
    "    return sorted(words, key=lambda w: (len(w), w))\n",
    "import pytest\nfrom solution import sort_words\n\n@pytest.mark.parametrize('given, sorted_', [\n"
    "    (['bb', 'a'], ['a', 'bb']),\n    ([], []),\n])\ndef test_order(given, sorted_):\n"
    "    assert sort_words(given) == sorted_\n\ndef test_others():\n"
    "    with pytest.raises(ValueError, match='words'):\n"
    "        sort_words([1])\n",
    "def sort_words(words):",
)
TREE = row(
    "depth",
    "Write a function for the depth of a binary tree, and its class of nodes.",
    "class Node:\n    def __init__(self, left=None, right=None):\n        self.left, self.right = left, right\n\n\n"
    "def depth(node):\n    return 0 if node is None else 1 + max(depth(node.left), depth(node.right))\n",
    "from solution import depth, Node\n\nclass TestDepth:\n    def setup_method(self):\n"
    "        self.one = Node()\n\n    def test_none(self):\n        assert depth(None) == 0\n\n"
    "    def test_two(self):\n        assert depth(Node(self.one)) == 2\n",
    "def depth(node: Node) -> int:",
)
STAR = row(
    "halve",
    "Halve a number.",
    "def halve(x):\n    return x / 2\n",
    "from solution import *\n\ndef test_halve():\n    assert halve(3) == 1.5\n",
)
BARE = row(
    "twice",
    "Double a number.",
    "def twice(x):\n    return 2 * x\n",
    "def test_twice():\n    assert twice(3) == 6\n",
)
PACKAGE = row(
    "zeros",
    "Make an array of zeros.",
    "import no_such_package\n\ndef zeros(n):\n    return no_such_package.zeros(n)\n",
    "from solution import zeros\n\ndef test_zeros():\n    assert len(zeros(2)) == 2\n",
)
ROWS = [SORT, TREE, STAR, BARE, PACKAGE]
TASK = find_task("kodcode")


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "kodcode.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ROWS), "utf-8")
    return load(TASK, path)


def test_what_is_asked_names_what_the_tests_import(problems):
    asked = [TASK.ask(problem) for problem in problems]
    assert "sort_words" not in SORT["question"]
    assert "It has to define:\n\n    def sort_words(words):\n" in asked[0]
    assert "    def depth(node: Node) -> int:\n" in asked[1]
    assert "    halve\n" in asked[2]
    assert problems[0].id == "Prefill_sort_words_I"
    assert problems[0].problem == SORT["question"], "candidates of others are found by the question as it is"
    assert problems[0].columns["subset"] == "Prefill"
    assert SORT["solution"] not in json.dumps(dict(problems[0].columns))


def test_without_test_info_the_imported_names_are_asked_for(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text(json.dumps({name: value for name, value in TREE.items() if name != "test_info"}) + "\n")
    assert "    depth\n    Node\n" in TASK.ask(load(TASK, path)[0])


def test_tests_that_import_nothing_see_all_of_the_program(problems):
    assert read_tests(problems[2].answer).tests == STAR["test"]
    assert read_tests(problems[3].answer).tests == "from solution import *\n\n" + BARE["test"]


def test_programs_against_the_published_forms_of_tests(problems):
    try:
        Sandbox()
    except SandboxUnavailable as error:
        pytest.skip(f"no sandbox here: {error}")
    wrong = {
        "sort_words": "def sort_words(words):\n    return sorted(words)\n",
        "depth": "class Node:\n    def __init__(self, *_): pass\n\ndef depth(node):\n    return 0\n",
        "halve": "def halve(x):\n    return x // 2\n",
        "twice": "def twice(x):\n    return x\n",
    }
    by_name = dict(zip(wrong, problems, strict=False))
    with ProgramGrader() as grader:
        pairs = [
            (f"So:\n```python\n{one['solution']}```\n", own.answer) for one, own in zip(ROWS, problems, strict=True)
        ]
        pairs += [(f"```python\n{program}```", by_name[name].answer) for name, program in wrong.items()]
        pairs += [("I do not know.", problems[0].answer)]
        verdicts = grader.grade_many(pairs)
    assert [verdict.grade for verdict in verdicts] == [Grade.RIGHT] * 4 + [Grade.UNPARSED] + [Grade.WRONG] * 4 + [
        Grade.UNPARSED
    ]
    assert verdicts[4].reason.startswith(REFERENCE_UNREAD)
    assert verdicts[-1].reason == NO_ANSWER
    assert "test_others" in verdicts[5].reason
