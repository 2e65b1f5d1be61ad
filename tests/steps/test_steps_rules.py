"""The rules blank-line, numbered and turn on hand-written text."""

import pytest
from steps_texts import pieces_of

from reasonflux_prm.steps.rules import blank_line_ends, numbered_ends
from reasonflux_prm.steps.turns import turn_ends


def cut(rule, marked):
    """Check that the rule cuts a text just where it is marked with a bar."""
    text = marked.replace("|", "")
    assert "|".join(pieces_of(text, rule(text))) == marked


@pytest.mark.parametrize(
    "marked",
    [
        "a\nb\n\n|c\n\n\n\n|d\n",
        "a\r\n\r\n|b",
        "\n\na\n\n|b\n\n",
        "a\n \nb",
        "```\na\n\n|b\n```",
    ],
)
def test_blank_lines_are_the_papers_and_make_no_empty_steps(marked):
    cut(blank_line_ends, marked)


@pytest.mark.parametrize(
    "marked",
    [
        "Plan:\n|1. Add\n2 and 3\n\n|2. Multiply\n|3. Done\n",
        "\n1) Add\n|2) Multiply",
        "Intro\n\n|Step 1: a\n|Step 2: b\n|step 3 c",
        "**Step 1:** a\n|**Step 2:** b",
        "### Step 1\na\n|### Step 2\nb",
        "## 1. A\n|## 2. B\n|## **3.** C".replace("**3.**", "3."),
        "**1. A**\n|**2. B**",
        "x\n|Step 1: a\n|1. p\n|2. q\n|Step 2: b\n|1. p\n|2. q",
        "x\n|1. a\n|   1. p\n|   2. q\n|2. b",
        "0. a\n|1. b",
        "It was\n1998. A year\n3.14 is pi\n1,000 too\n7. no list",
        "a 1. b 2. c\nsee Step 1",
        "x\n|1. a\n```\n1. code\n2. code\n```\n|2. b",
        "x\n|1. a\n3. c\n|2. b",
    ],
)
def test_numbered_items_that_count_up_begin_steps(marked):
    cut(numbered_ends, marked)


@pytest.mark.parametrize(
    "marked",
    [
        "I plan.\nThought: a\nAction: b\nObservation: c\n|Thought: d\nAction: e\nObservation: f\n|Final Answer: g",
        "Thought: a\nCode:\n```py\nThought: x\nAction: y\nThought: z\n```<end_code>\nObservation: b\n|Thought: c",
        "Thought: a\n|Thought: b\nAction: c\nAction Input: d",
        "Thought 1: a\nAction 1: s\nObservation 1: o\n|Thought 2: b",
        "**Thought:** a\n**Code:** b\n\n|**Thought:** c",
        "Action: a\nObservation: b\n|Action: c\nObservation: d\n",
        "I will\n<code>a</code>\n<observation>b</observation>\n|Now\n<code>c</code>\n<observation>d</observation>\n",
        "I will <execute>a</execute>\nObservation: b\n|Thought: c",
        "a <execute>b</execute>\n\n|c <execute>d</execute>\n|so e",
        "<thought>a</thought><code>b</code><output>c</output>\n|<thought>d</thought>",
        "No marks at all.\n\nNone.",
    ],
)
def test_a_turn_is_thought_code_and_observation(marked):
    cut(turn_ends, marked)
