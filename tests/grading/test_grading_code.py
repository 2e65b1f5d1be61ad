"""Programs are judged by their tests, and by nothing else that they do."""

from __future__ import annotations

import asyncio
import re

import pytest
from grading_fakes import BESIDE, EVERYWHERE

from reasonflux_prm.grading.code import CodeGrader, CodeTask
from reasonflux_prm.grading.verdict import Grade
from reasonflux_prm.sandbox.limits import Limits, Run, RunStatus
from reasonflux_prm.sandbox.sandbox import Sandbox, SandboxUnavailable

PROMPT = '''from typing import List


def half(x: float) -> float:
    """Return one half of x."""
    return x / 2


def add(a: int, b: int) -> int:
    """Return the sum.

    >>> add(1, 2)
    3
    """
'''
CHECK = """
METADATA = {}


def check(candidate):
    assert candidate(1, 2) == 3
    assert candidate(3, 4) == 7, "three and four"
    assert half(candidate(4, 4)) == 4.0
    assert add(20, 30) == 50
"""
GOOD = "def add(a, b):\n    return a + b\n"
ADD = CodeTask(CHECK, "check", PROMPT, "add")
PYTEST = """
from solution import add

def test_add():
    assert add(1, 2) == 3

def test_more():
    assert add(3, 4) == 7
"""
ADD_APART = CodeTask(PYTEST, "pytest", solution=GOOD)
ADD_BESIDE = CodeTask(PYTEST, "pytest")
STACK = CodeTask(
    """
import pytest
from solution import Stack, Empty, depth as how_deep

@pytest.fixture
def stack():
    made = Stack()
    made.push(1)
    yield made
    made.items.clear()

def test_push(stack):
    stack.push(2)
    assert (stack.pop(), stack.pop()) == (2, 1)

def test_empty():
    with pytest.raises(Empty, match="nothing"):
        Stack().pop()

class TestDepth:
    def setup_method(self):
        self.expected = 1

    def test_depth(self, stack):
        assert how_deep(stack) == self.expected
""",
    "pytest",
    solution="""
class Empty(Exception): pass
class Stack:
    def __init__(self): self.items = []
    def push(self, item): self.items.append(item)
    def pop(self):
        if not self.items: raise Empty("nothing there")
        return self.items.pop()
def depth(stack): return len(stack.items)
""",
)


@pytest.fixture(scope="module")
def grader() -> CodeGrader:
    try:
        return CodeGrader(Sandbox(Limits(cpu_s=3, wall_s=3, memory_mb=512)))
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def hurried(grader) -> CodeGrader:
    """Return a grader for programs that only time ends."""
    short = CodeGrader(Sandbox(Limits(cpu_s=3, wall_s=0.7, memory_mb=512)))
    short._ways[ADD_APART] = grader._way(ADD_APART)
    return short


def test_names():
    assert ADD.names() == ["add"]
    assert STACK.names() == ["Stack", "Empty", "depth"]
    assert CodeTask("from solution import (\n    a,\n    b)\nimport solution", "pytest").names() == ["a", "b"]


# --- right and wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [ADD, ADD_APART, ADD_BESIDE], ids=["check", "pytest apart", "pytest beside"])
def test_right(grader, task):
    verdict = grader.grade(f"Here you are.\n```python\n{GOOD}```", task)
    assert (verdict.grade, verdict.answer, verdict.reason) == (Grade.RIGHT, GOOD.rstrip("\n"), None)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (ADD, "check at `assert candidate(1, 2) == 3`: AssertionError"),
        (ADD_APART, "test_add at `assert add(1, 2) == 3`: AssertionError"),
        (ADD_BESIDE, "test_add at `assert add(1, 2) == 3`: AssertionError"),
    ],
)
def test_wrong_says_where(grader, task, reason):
    verdict = grader.grade("def add(a, b):\n    return a - b", task)
    assert (verdict.grade, verdict.reason) == (Grade.WRONG, reason)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def add(a, b) return", "SyntaxError"),
        ("import no_such_module\n" + GOOD, "no_such_module"),
        ("def ad(a, b): return a + b", r"assert candidate\(1, 2\) == 3"),  # the prompt's own, with no body
        ("```python\nadd = 5\n```", "not callable"),
        ("def add(a, b): raise KeyError('so')", "KeyError: 'so'"),
        ("class Odd(Exception): pass\ndef add(a, b): raise Odd('so')", "so"),
        ("def add(a, b): return a + b + add", "TypeError"),
        ("def add(a, b): return open('/etc/shadow').read()", "FileNotFoundError|No such file"),
        ("def add(a, b):\n    while True: pass", "took longer than 3 s"),
        ("def add(a, b): return bytearray(1 << 40)", "MemoryError"),
        ("def add(a, b): return object()", "cannot be passed"),
        ("def add(a, b): return add(a, b)", "RecursionError"),
        ("def add(a, b): import ctypes; ctypes.string_at(0)", "ended in the middle"),
        ("import os\ndef add(a, b): return os.fork() and a + b", "AssertionError|ended|makes no sense"),
        ("def add(a, b): return '\ud800'", "Unicode|surrogate|AssertionError"),
        ("def add(a, b):\n    yield a + b", "AssertionError"),
    ],
)
def test_wrong(grader, program, reason):
    verdict = grader.grade(program, ADD)
    assert verdict.grade is Grade.WRONG
    assert re.search(reason, verdict.reason), verdict.reason


def test_the_prompts_imports_and_helpers_are_there(grader):
    assert grader.grade("def add(a, b):\n    pair: List[int] = [a, b]\n    return int(half(2 * sum(pair)))", ADD).right


def test_the_body_alone_goes_on_from_the_prompt(grader):
    assert grader.grade("    return a + b\n", ADD).right
    assert grader.grade("```python\n    return a + b\n```", ADD).right


def test_a_program_without_its_text(grader):
    odd = 'def add(a, b):\n    """</think> <output>```"""\n    return a + b'
    assert grader.grade_program(odd, ADD).right
    assert grader.grade_program(None, ADD).grade is Grade.UNPARSED


def test_printing_does_no_harm(grader):
    assert grader.grade("print('loud', flush=True)\ndef add(a, b):\n    print(a)\n    return a + b", ADD).right
    assert grader.grade("def add(a, b):\n    print('x' * 3_000_000)\n    return a + b", ADD).right


def test_objects_are_tested_beside_the_program(grader):
    assert grader._way(STACK)[0] == "beside"
    assert grader._way(ADD_APART)[0] == "apart"
    assert grader.grade(STACK.solution, STACK).right
    assert not grader.grade(STACK.solution.replace("raise Empty", "raise ValueError"), STACK).right
    assert not grader.grade(STACK.solution.replace("len(", "1 + len("), STACK).right


VALUES = CodeTask(
    """
import pytest
from solution import *

@pytest.mark.parametrize("value", [
    None, True, 0, -5, 2 ** 80, 1.5, float("inf"), 1e-320, 1j, "", "\\u00e9\\n\\ud800", b"\\xff", [], [[1], (2,)], (1,),
    set(), {1, 2}, frozenset({1}), {}, {"a": [1], 2: None, (1, 2): {3}}, range(3), bytearray(b"x"),
])
def test_same(value):
    result = same(value)
    assert result == value and type(result) is type(value)

def test_not_a_number(): assert same(float("nan")) != same(float("nan"))
def test_rare():
    assert fraction() == 0.5
    assert list(countdown(3)) == [3, 2, 1]
    assert next(countdown(2)) == 2
    assert dict(counted("aab")) == {"a": 2, "b": 1}
    assert sorted(keys()) == ["a", "b"]
def test_functions_cross_both_ways():
    assert adder(3)(4) == 7
    assert twice(lambda value: value + 1, 5) == 7
    assert [same(word) for word in sorted(["bb", "a"], key=len_of)] == ["a", "bb"]
def test_arguments_change_in_place():
    numbers, table = [3, 1, 2], {}
    assert sort(numbers, table) is None
    assert (numbers, table) == ([1, 2, 3], {"done": True})
def test_named(): assert named(1, b=2, **{"c": 3}) == {"b": 2, "c": 3}
def test_constant(): assert LIMIT == 10 and NAMES == ["x"]
def test_errors():
    with pytest.raises(ValueError, match="^bad 5$"): fail(5)
    with pytest.raises(KeyError): fail("key")
    with pytest.raises(Special) as caught: fail(None)
    assert str(caught.value) == "special" and caught.type is Special and issubclass(Special, LookupError)
    with pytest.raises(SystemExit): fail("exit")
def test_approx(): assert third() == pytest.approx(0.333333333) and [third()] != pytest.approx([0.3])
""",
    "pytest",
    solution="""
import sys
from collections import Counter
from fractions import Fraction
LIMIT, NAMES = 10, ["x"]
class Special(LookupError): pass
def same(value): return value
def fraction(): return Fraction(1, 2)
def countdown(n): yield from range(n, 0, -1)
def counted(text): return Counter(text)
def keys(): return {"b": 1, "a": 2}.keys()
def adder(n): return lambda m: n + m
def twice(f, x): return f(f(x))
def len_of(x): return len(x)
def sort(numbers, table):
    numbers.sort()
    table["done"] = True
def named(a, **rest): return rest
def third(): return 1 / 3
def fail(how):
    if how is None: raise Special("special")
    if how == "key": raise KeyError(how)
    if how == "exit": sys.exit(3)
    raise ValueError(f"bad {how}")
""",
)


def test_values_functions_and_errors_cross_unharmed(grader):
    assert grader._way(VALUES) == ("apart", "")
    verdict = grader.grade(VALUES.solution, VALUES)
    assert verdict.right, verdict.reason


# --- what the tests may use of pytest ---------------------------------------------------------------------------------


def judged(grader, tests: str, program: str = GOOD) -> tuple[str, str | None]:
    verdict = grader.grade(program, CodeTask(f"import pytest\nfrom solution import add\n{tests}", "pytest"))
    return verdict.grade, verdict.reason


@pytest.mark.parametrize(
    ("tests", "grade", "reason"),
    [
        (
            "@pytest.mark.parametrize('a, b', [(1, 2), pytest.param(3, 4, id='x')])\n"
            "def test_it(a, b): assert add(a, b) > a",
            "right",
            None,
        ),
        (
            "@pytest.mark.parametrize('a', [1, 2])\n@pytest.mark.parametrize('b', [1, -9])\n"
            "def test_it(a, b): assert add(a, b) > 0",
            "wrong",
            "test_it",
        ),
        ("def test_it(capsys):\n    print('x')\n    assert capsys.readouterr().out == 'x\\n'", "right", None),
        ("def test_it(tmp_path):\n    (tmp_path / 'x').write_text('y')", "right", None),
        (
            "@pytest.fixture()\ndef two(): return 2\n@pytest.fixture\ndef four(two): return add(two, two)\n"
            "def test_it(four): assert four == 4",
            "right",
            None,
        ),
        (
            "import unittest\nclass TestIt(unittest.TestCase):\n    def test_it(self): self.assertEqual(add(1, 1), 3)",
            "wrong",
            "TestIt.test_it",
        ),
        (
            "class TestIt:\n    @pytest.mark.parametrize('a', [1])\n    def test_it(self, a): assert add(a, a) == 2",
            "right",
            None,
        ),
        ("def test_it():\n    with pytest.raises(ZeroDivisionError): add(1, 1)", "wrong", "did not raise"),
        ("def test_it(): pytest.fail('on purpose')", "wrong", "on purpose"),
        ("def test_it(): pytest.raises(TypeError, add, 1, 'x')", "right", None),
        ("@pytest.mark.slow\ndef test_it(): assert add(1, 1) == 2", "right", None),
        ("@pytest.mark.skip(reason='no')\ndef test_not(): assert False\ndef test_it(): add(1, 1)", "right", None),
        ("@pytest.mark.skip\ndef test_not(): assert True", "unparsed", "skipped"),
        ("def helper(): pass", "unparsed", "no tests"),
        ("def test_it(monkeypatch): pass", "unparsed", "fixture monkeypatch"),
        ("def test_it(): pytest.importorskip('x')", "unparsed", "pytest.importorskip"),
        ("@pytest.mark.skipif(True, reason='')\ndef test_it(): pass", "unparsed", "skipif"),
        ("def test_it(: pass", "unparsed", "do not compile"),
        ("assert add(1, 1) == 3\ndef test_it(): pass", "wrong", r"assert add\(1, 1\) == 3"),
        ("from solution import missing\ndef test_it(): pass", "wrong", "missing"),
    ],
)
def test_pytest(grader, tests, grade, reason):
    judgement = judged(grader, tests)
    assert judgement[0] == grade, judgement
    assert re.search(reason, judgement[1] or "") if reason else judgement[1] is None


# --- fakes ------------------------------------------------------------------------------------------------------------


ENDLESS = [EVERYWHERE[name] for name in ("sleeps through it", "turns the clock off", "stops the runner")]


@pytest.mark.parametrize("program", EVERYWHERE.values(), ids=EVERYWHERE)
@pytest.mark.parametrize("task", [ADD, ADD_APART], ids=["check", "pytest apart"])
def test_fakes_fail(grader, hurried, task, program):
    if program in ENDLESS:
        grader = hurried
    assert grader.grade(f"```python\n{program}\n```", task).grade is Grade.WRONG


@pytest.mark.parametrize("name", [name for name in EVERYWHERE if name not in BESIDE])
def test_fakes_fail_beside_the_program(grader, hurried, name):
    if EVERYWHERE[name] in ENDLESS:
        grader = hurried
    assert grader.grade(f"```python\n{EVERYWHERE[name]}\n```", ADD_BESIDE).grade in (Grade.WRONG, Grade.UNPARSED)


@pytest.mark.parametrize("name", sorted(BESIDE))
def test_what_remains_beside_the_program(grader, name):
    # docs/sandbox.md says so; whoever closes one of these changes it there too.
    assert grader.grade(f"```python\n{EVERYWHERE[name]}\n```", ADD_BESIDE).right


# --- what can go wrong ------------------------------------------------------------------------------------------------


def test_no_program(grader):
    verdict = grader.grade("I give up.", ADD)
    assert (verdict.grade, verdict.answer, verdict.reason) == (Grade.UNPARSED, None, "no program stated")


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (CodeTask(PYTEST, "pytest", solution="def add(a, b): return 0"), "fail the task's own solution .test_add at"),
        (CodeTask("def check(c): assert c(1, 1) == 3", "check", PROMPT, "add", "    return a + b"), "own solution"),
        (CodeTask("def chek(c): pass", "check", PROMPT, "add"), "the tests do not run .KeyError: 'check'"),
        (CodeTask("def check(c):", "check", PROMPT, "add"), "the tests do not run .IndentationError"),
    ],
)
def test_tests_that_do_not_work(grader, task, reason):
    verdict = grader.grade(GOOD, task)
    assert verdict.grade is Grade.UNPARSED
    assert re.search(reason, verdict.reason), verdict.reason


def test_a_broken_sandbox_is_tried_twice_and_is_no_wrong_answer(grader, monkeypatch):
    broken = Run(RunStatus.BROKEN, None, "", "", 0.0, "namespaces", "the sandbox failed: no memory")
    runs = iter([broken, None, broken, broken])
    real = Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda self, *a, **k: next(runs) or real(self, *a, **k))
    assert grader.grade(GOOD, ADD).right
    verdict = grader.grade(GOOD, ADD)
    assert (verdict.grade, verdict.reason) == (Grade.UNPARSED, "the sandbox failed: no memory")


def test_verdicts_without_a_sandbox_say_so(grader, monkeypatch):
    monkeypatch.setattr(Sandbox, "isolates", property(lambda self: False))
    assert grader.grade(GOOD, ADD).reason == "all tests passed; not sandboxed"
    assert grader.grade("def add(a, b): return 0", ADD).reason.endswith("; not sandboxed")


def test_many_in_order(grader):
    texts = [GOOD if number % 2 else "def add(a, b): return 0" for number in range(6)]
    verdicts = grader.grade_many([(text, ADD) for text in texts], workers=3)
    assert [verdict.right for verdict in verdicts] == [False, True] * 3


def test_from_asyncio(grader):
    async def both():
        return await asyncio.gather(grader.agrade(GOOD, ADD), grader.agrade("no program", ADD))

    assert [verdict.grade for verdict in asyncio.run(both())] == [Grade.RIGHT, Grade.UNPARSED]


def test_identity_names_what_verdicts_depend_on(grader):
    identity = grader.identity()
    assert identity["grader"] == "code"
    assert identity["wall_s"] == 3
    assert identity["sandbox"] in ("bubblewrap", "namespaces", "user-namespaces")
