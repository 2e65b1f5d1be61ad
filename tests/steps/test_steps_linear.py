"""No text makes a rule slow: a quadratic scan of these would take minutes to hours."""

import time

import pytest

from reasonflux_prm.steps.split import RULES

REPEATED = [
    *("$", "(", "`", "7", " ", ".", "\n", "\\", "#", "*", ",", "，", "。", "a ", ". ", ".\n", "\n\n ", "\u00a0", "\t"),
    *(
        "$1,",
        "$x ",
        "$$ ",
        "\\(",
        "\\[",
        "\\begin{a}",
        "\\end{a}",
        "```\n",
        "```a\n",
        "1. ",
        "1.\n",
        "Step 1\n",
        "e.g. ",
    ),
    *("<code>", "</code>", "Thought:\n", "Wait. ", "$a$ ", "Hmm.\n\n", "- "),
]
SHAPED = {
    "a price with commas": lambda size: "$1" + "," * size,
    "a heading of spaces": lambda size: "# " + " " * size,
    "an indented word": lambda size: " " * size + "x",
    "closing brackets": lambda size: "." + ")" * size,
    "nested environments": lambda size: "\\begin{a}" * (size // 20) + "x. " + "\\end{a}" * (size // 20),
    "fences of many lengths": lambda size: "\n".join("`" * run for run in range(3, int((2 * size) ** 0.5))),
}
TEXTS = {repr(text): lambda size, text=text: (text * (size // len(text) + 1))[:size] for text in REPEATED} | SHAPED


def run_rules(make, size, limit):
    text = make(size)
    for name, rule in RULES.items():
        started = time.process_time()
        ends = rule(text)
        assert ends[-1] == len(text)
        assert time.process_time() - started < limit, name


@pytest.mark.parametrize("text", TEXTS)
def test_small_texts_are_cut_at_once(text):
    run_rules(TEXTS[text], 20_000, 2)


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_a_million_characters_are_cut_in_seconds(text):
    run_rules(TEXTS[text], 1_000_000, 60)


def test_a_trace_of_200_000_tokens_is_cut_in_seconds():
    paragraph = (
        "So \\( x_{12} = 3.5 \\), and that costs $5. Wait, let me check: 3 + 4 = 7.\n\nHmm. Then we go on with it.\n\n"
    )
    run_rules(lambda size: paragraph * (size // len(paragraph)), 700_000, 10)
