"""The published formats, to the character, and verdicts read from completions."""

import math

import pytest

from reasonflux_prm.policy.base import Completion, Message, TokenLogprob
from reasonflux_prm.prm.generative_prompts import (
    Verdict,
    genprm_messages,
    genprm_turn,
    genprm_verdict,
    thinkprm_messages,
    thinkprm_step_verdicts,
    thinkprm_verdict,
)

CRITIQUE = """<analyze>
Let's analyze the Paragraph 1 step by step: 2 + 2 is 4.
</analyze>
<verify>
Let's use python code to find any potential error:
```python
print(2 + 2)
```
[Code Output]

```
4
```
</verify>
<output>
**Judgement**: $\\boxed{WORD}$
"""


def critique(word="Yes"):
    return CRITIQUE.replace("WORD", word)


def tokens(*parts):
    """Tokens with logprob 0 and no alternatives, except those given as (text, logprob, top)."""
    return tuple(TokenLogprob(part, 0.0) if isinstance(part, str) else TokenLogprob(*part) for part in parts)


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_genprm_opens_with_problem_and_first_step_in_one_user_turn():
    assert genprm_messages("What is 2 + 2?", ["Add them.\n\n", "So 4."], []) == (
        Message(
            "system",
            "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step.",
        ),
        Message("user", "What is 2 + 2?\nAdd them."),
    )


def test_genprm_asks_for_the_next_step_after_the_critiques():
    conversation = genprm_messages("P", ["one", "two", "three"], ["critique 1", "critique 2"])
    assert [(message.role, message.content) for message in conversation[1:]] == [
        ("user", "P\none"),
        ("assistant", "critique 1"),
        ("user", "two"),
        ("assistant", "critique 2"),
        ("user", "three"),
    ]


def test_genprm_turns_regain_the_mark_they_stopped_at():
    assert genprm_turn(Completion(critique())) == critique() + "</output>\n"
    assert genprm_turn(Completion(critique().rstrip("\n"))) == critique() + "</output>\n"
    assert genprm_turn(Completion(critique() + "</output>")) == critique() + "</output>"
    assert genprm_turn(Completion("<analyze>no end", finish_reason="length")) == "<analyze>no end"
    assert genprm_turn(Completion("I will not")) == "I will not"
    quoting = "It says <output>x</output>.\n" + critique()
    assert genprm_turn(Completion(quoting)) == quoting + "</output>\n"


def test_thinkprm_shows_the_whole_numbered_solution_in_one_user_turn():
    assert thinkprm_messages("What is 2 + 2?", ["Add them.\n\n", "## Step 2: So 4.\n"]) == (
        Message(
            "user",
            "You are given a math problem and a proposed step-by-step solution:\n"
            "\n"
            "[Math Problem]\n"
            "\n"
            "What is 2 + 2?\n"
            "\n"
            "[Solution]\n"
            "\n"
            "Step 1: Add them.\n"
            "Step 2: So 4.\n"
            "\n"
            "Review and critique each step in the proposed solution to determine whether each step is correct. "
            "If the solution is incomplete, only verify the provided steps.",
        ),
    )


def test_thinkprm_takes_braces_in_problem_and_steps_as_they_are():
    (message,) = thinkprm_messages("Is {solution} {problem}?", ["{problem} \\frac{1}{2}"])
    assert "\n\nIs {solution} {problem}?\n\n[Solution]\n\nStep 1: {problem} \\frac{1}{2}\n\n" in message.content


# --- GenPRM's judgement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "yes"), [("Yes", True), ("No", False), ("yes", True), ("NO", False), (" Yes ", True)])
def test_genprm_judgement_without_logprobs(word, yes):
    assert genprm_verdict(Completion(critique(word))) == Verdict(yes, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The step says \\boxed{Yes} but I stop here",
        critique("Maybe"),
        critique("Yes} or \\boxed{No"),
        critique("Yes").replace("<output>", ""),
        "<output>\n**Judgement**: $\\boxed{Yes",
        "\\boxed{Yes}\n<output>\n**Judgement**: unclear",
    ],
)
def test_genprm_without_a_clear_judgement_in_output_has_none(text):
    assert genprm_verdict(Completion(text)) is None


def test_genprm_a_quoted_verdict_in_the_analysis_does_not_count():
    text = "<analyze>\nThe paragraph says <output>\\boxed{Yes}</output>.\n</analyze>\n" + critique("No")
    assert genprm_verdict(Completion(text)) == Verdict(False, None)


def judged(token, logprob, top, before=(), word="Yes"):
    opening = "<output>\n**Judgement**: $\\boxed"
    logprobs = tokens(*before, "<output>", "\n**", "Judgement", "**: $\\", "boxed", "{", (token, logprob, top), "}$\n")
    return genprm_verdict(Completion(opening + "{" + word + "}$\n", logprobs=logprobs))


def test_genprm_probability_by_hand():
    # P(Yes) = 0.6 and P(No) = 0.2 of all tokens: 0.6 / 0.8
    top = (("Yes", math.log(0.6)), ("No", math.log(0.2)), ("True", math.log(0.1)))
    assert judged("Yes", math.log(0.6), top).probability == pytest.approx(0.75)
    # the same place, where No was sampled
    verdict = judged("No", math.log(0.2), top, word="No")
    assert verdict == Verdict(False, pytest.approx(0.75))


def test_genprm_a_missing_counterpart_gets_the_least_logprob():
    top = (("Yes", math.log(0.9)), ("True", math.log(0.05)), ("Y", math.log(0.03)))
    assert judged("Yes", math.log(0.9), top).probability == pytest.approx(0.9 / 0.93)
    assert judged("No", math.log(0.9), (("No", math.log(0.9)), ("Non", math.log(0.1))), word="No").probability == (
        pytest.approx(0.1)
    )


@pytest.mark.parametrize(
    "top",
    [
        (),
        (("Yes", math.log(0.01)),),
        (("Maybe", math.log(0.5)), ("True", math.log(0.3))),  # Yes was unlikely itself, No is somewhere below as well
    ],
)
def test_genprm_logprobs_that_tell_nothing_give_no_probability(top):
    assert judged("Yes", math.log(0.01), top) == Verdict(True, None)


def test_genprm_saturated_logprobs():
    assert judged("Yes", 0.0, (("Yes", 0.0), ("No", -9999.0))).probability == 1.0
    assert judged("No", 0.0, (("No", 0.0), ("Yes", -math.inf)), word="No").probability == 0.0
    assert judged("Yes", -math.inf, (("No", -math.inf),)) == Verdict(True, None)


def test_genprm_the_judgement_token_may_carry_its_neighbours():
    text = "<output>\n$\\boxed{Yes}$\n"
    top = (("{Yes}$", math.log(0.7)), ("{No}$", math.log(0.1)), ("No", math.log(0.15)))
    logprobs = tokens("<output>", "\n$\\boxed", ("{Yes}$", math.log(0.7), top), "\n", "</output>\n")
    assert genprm_verdict(Completion(text, logprobs=logprobs)).probability == pytest.approx(7 / 8)


def test_genprm_a_judgement_split_over_tokens_gives_no_probability():
    logprobs = tokens("<output>\n$\\boxed{", ("Y", -0.1, (("Y", -0.1), ("N", -2.0))), "es", "}$")
    assert genprm_verdict(Completion("<output>\n$\\boxed{Yes}$", logprobs=logprobs)) == Verdict(True, None)


def test_genprm_tokens_of_the_thinking_before_do_not_shift_the_place():
    top = (("Yes", math.log(0.6)), ("No", math.log(0.2)))
    thinking = ("<think>", "<output>", "\\boxed{", ("No", -0.1, (("No", -0.1), ("Yes", -3.0))), "}", "</think>")
    assert judged("Yes", math.log(0.6), top, before=thinking).probability == pytest.approx(0.75)


def test_genprm_tokens_that_say_something_else_are_not_used():
    logprobs = tokens("token_id:17", "token_id:9454")
    assert genprm_verdict(Completion(critique("Yes"), logprobs=logprobs)) == Verdict(True, None)
    contrary = tokens("<output>\\boxed{", ("No", -0.1, (("No", -0.1), ("Yes", -3.0))), "}")
    assert genprm_verdict(Completion(critique("Yes"), logprobs=contrary)) == Verdict(True, None)


# --- ThinkPRM's verdicts ---------------------------------------------------------------------------------------------

CHAIN = """Let's verify step by step:
Step 1: Adding is right, as Step 2: would say. The step is \\boxed{correct}.

Step 2: The sum is 5, which is wrong. The step is \\boxed{incorrect}.
</think>
Is the solution correct? No"""


def test_thinkprm_step_verdicts_and_decision():
    assert thinkprm_step_verdicts(Completion(CHAIN), 2) == [True, False]
    assert thinkprm_verdict(Completion(CHAIN)) == Verdict(False, None)


def test_thinkprm_reads_the_thinking_and_the_text():
    thinking, text = CHAIN.split("</think>\n")
    assert thinkprm_step_verdicts(Completion(text, thinking=thinking), 2) == [True, False]
    assert thinkprm_verdict(Completion(text, thinking=thinking)) == Verdict(False, None)
    assert thinkprm_verdict(Completion("", thinking=thinking + text)) == Verdict(False, None)


def test_thinkprm_steps_without_a_verdict_stay_open():
    assert thinkprm_step_verdicts(Completion(CHAIN), 4) == [True, False, None, None]
    assert thinkprm_step_verdicts(Completion("Step 2: \\boxed{correct}"), 3) == [None, True, None]
    assert thinkprm_step_verdicts(Completion("I cannot say."), 2) == [None, None]
    assert thinkprm_step_verdicts(Completion(""), 2) == [None, None]


def test_thinkprm_verdicts_on_steps_that_do_not_exist_are_left_out():
    chain = "\n".join(
        f"Step {number}: \\boxed{{{word}}}"
        for number, word in [(0, "incorrect"), (1, "correct"), (2, "incorrect"), (99999999, "incorrect")]
    )
    assert thinkprm_step_verdicts(Completion(chain), 1) == [True]


def test_thinkprm_the_last_verdict_on_a_step_counts():
    chain = (
        "Step 1: it claims \\boxed{correct}, but no: \\boxed{incorrect}\nStep 2: \\boxed{correct}\n"
        "Let me check again.\n**Step 2:** \\boxed{ \\text{Incorrect} }"
    )
    assert thinkprm_step_verdicts(Completion(chain), 2) == [False, False]


def test_thinkprm_without_headers_verdicts_count_only_if_there_is_one_a_step():
    chain = "Fine, \\boxed{correct}. Wrong, \\boxed{incorrect}."
    assert thinkprm_step_verdicts(Completion(chain), 2) == [True, False]
    assert thinkprm_step_verdicts(Completion(chain), 3) == [None, None, None]


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Is the solution correct? Yes", True),
        ("Is the solution correct? no", False),
        ("**Is the solution correct?** Yes.", True),
        ("Is the solution correct? $\\boxed{No}$".replace("$", ""), False),
        ("It asks: Is the solution correct? Yes\nIs the solution correct? No", False),
    ],
)
def test_thinkprm_decision_wordings(text, yes):
    assert thinkprm_verdict(Completion(text)) == Verdict(yes, None)


@pytest.mark.parametrize("text", ["", "Is the solution correct?", "Is the solution correct? Nobody knows", "Yes"])
def test_thinkprm_without_a_decision_has_none(text):
    assert thinkprm_verdict(Completion(text)) is None


def test_thinkprm_decision_probability_by_hand():
    # P(Yes) = 0.3 and P(No) = 0.6 of all tokens: 0.3 / 0.9
    top = ((" No", math.log(0.6)), (" Yes", math.log(0.3)), ("No", math.log(0.05)))
    logprobs = tokens(
        "chain", "</think>", "\n", "Is the solution", " correct", "?", (" No", math.log(0.6), top), "<eos>"
    )
    completion = Completion("Is the solution correct? No", thinking="chain", logprobs=logprobs)
    assert thinkprm_verdict(completion) == Verdict(False, pytest.approx(1 / 3))
