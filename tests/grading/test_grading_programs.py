"""Where a text holds its program."""

from __future__ import annotations

import pytest

from reasonflux_prm.grading.programs import defines, stated_program

F = "def f(x):\n    return x"
G = "def g():\n    return 0"


def block(code: str, language: str = "python", fence: str = "```") -> str:
    return f"{fence}{language}\n{code}\n{fence}"


@pytest.mark.parametrize(
    "text",
    [
        block(F),
        block(F, ""),
        block(F, "py"),
        block(F, "Python"),
        block(F, fence="~~~"),
        block(F, fence="````"),
        F,
        f"\n\n{F}\n",
        f"Here it is:\n{block(G)}\nNo, this:\n{block(F)}\nDone.",
        f"{block(F)}\nwhich prints\n{block('1', '')}",
        f"{block(F)}\n{block('pip install x', 'bash')}",
        f"<think>First {block(G)}</think>\n{block(F)}",
        f"<think>no closing fence ```python\n{G}</think>{block(F)}",
        f"<output>\n{block(F)}\n</output>\nSome more: {block(G)}",
        f"<output>{F}</output>",
        f"<output>{G}</output> or <output>{F}</output><output> </output>",
        f"<output>\n{F}",
        f"Cut off:\n```python\n{F}",
        f"```python title=x\n{F}\n```",
        f"  ```python\n{F}\n  ```",
        f"{block(F)}\n```python\n```",
    ],
)
def test_found(text):
    assert stated_program(text) == F


NO_PROGRAM = ["", "   \n", "I do not know.", "The answer is 42.", block("1", "bash"), "<output></output>"]
LONG = ["```" * 50_000, "`" * 100_000, "```python\n" * 20_000, "<output>" * 20_000, "def " * 50_000]
DEFINING = ["def f():", "async def f(x):", "class f:", "f = lambda: 0", "f: int = 1", f"{G}\n\n{F}"]


@pytest.mark.parametrize("text", NO_PROGRAM)
def test_not_found(text):
    assert stated_program(text) is None


def test_the_block_that_defines_the_name_counts():
    text = f"{block(F)}\nFor example:\n{block('print(f(1))')}"
    assert stated_program(text) == "print(f(1))"
    assert stated_program(text, ["f"]) == F
    assert stated_program(text, ["other"]) == "print(f(1))"


def test_of_two_that_define_it_the_last():
    assert stated_program(f"{block(F)}\n{block(F + ' + 1')}", ["f"]) == F + " + 1"


def test_the_body_alone_keeps_its_indentation():
    assert stated_program("    return x\n") == "    return x"


def test_backticks_in_the_program():
    code = 'def f():\n    """Use `f`."""\n    return "```"'
    assert stated_program(block(code)) == code


@pytest.mark.parametrize("program", DEFINING)
def test_defines(program):
    assert defines(program, ["f"])


@pytest.mark.parametrize("program", ["def ff():", "  def f():", "print(f)", "x.f = 1", "# def f", ""])
def test_defines_not(program):
    assert not defines(program, ["f"])


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
@pytest.mark.timeout(5)
def test_long_texts_take_no_time(text):
    stated_program(text, ["f"])
