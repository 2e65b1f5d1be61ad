"""The contract of every rule, and `given`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps_texts import pieces_of, texts

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.records import Step, Trace
from reasonflux_prm.steps.adaptive import AdaptiveBounds
from reasonflux_prm.steps.split import RULE_NAMES, RULES, split


@pytest.mark.parametrize("rule", RULES)
@given(text=texts)
@settings(max_examples=150, deadline=None)
def test_a_rule_gives_ends_that_rise_to_the_length_and_no_step_of_white_space(rule, text):
    ends = RULES[rule](text)
    assert all(a < b for a, b in zip([0, *ends], ends, strict=False))
    assert ends == sorted(set(ends))
    assert ends[-1:] == ([len(text)] if text else [])
    if text.strip():
        assert all(step.strip() for step in pieces_of(text, ends))
    else:
        assert len(ends) == bool(text)
    assert ends == RULES[rule](text)


@pytest.mark.parametrize("rule", RULES)
@given(text=texts)
@settings(max_examples=80, deadline=None)
def test_blank_lines_stay_with_the_step_before(rule, text):
    for step in pieces_of(text, RULES[rule](text))[1:]:
        assert not step.lstrip(" \t\r").startswith("\n")


@pytest.mark.parametrize("rule", RULES)
@given(thinking=texts, response=texts)
@settings(max_examples=60, deadline=None)
def test_steps_joined_are_the_parts_and_thinking_comes_first(rule, thinking, response):
    segmented = split(Trace("t", "p", thinking, response), rule)
    assert segmented.rule == rule
    for part, text in (("thinking", thinking), ("response", response)):
        assert "".join(segmented.text(step) for step in segmented.steps if step.part == part) == text
    assert [s.part for s in segmented.steps] == sorted((s.part for s in segmented.steps), reverse=True)


@st.composite
def traces_with_steps(draw: st.DrawFn) -> Trace:
    parts = {"thinking": draw(texts), "response": draw(texts)}
    steps = []
    for part, text in parts.items():
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
        steps += [Step(part, a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    return Trace("t", "p", **parts, steps=tuple(steps) or (Step("thinking", 0, 0),))


@given(trace=traces_with_steps())
@settings(max_examples=150, deadline=None)
def test_given_steps_are_kept_and_the_rest_is_filled(trace):
    segmented = split(trace, "given")
    for part in ("thinking", "response"):
        steps = [step for step in segmented.steps if step.part == part]
        assert "".join(map(segmented.text, steps)) == trace.text(part)
        assert not trace.text(part).strip() or all(segmented.text(step).strip() for step in steps)
    for step in trace.steps:
        text = trace.text(step.part)
        if not text[step.start : step.stop].strip():
            continue
        start = step.start if text[: step.start].strip() else 0
        kept = next(s for s in segmented.steps if s.part == step.part and s.start == start)
        assert kept.stop >= step.stop
        assert not text[step.stop : kept.stop].strip()


def test_given_text_between_the_steps_is_a_step_and_white_space_joins_the_one_before():
    trace = Trace(
        "t",
        "p",
        "\na.\n\nb. rest c.\n",
        "r",
        steps=(Step("thinking", 1, 3), Step("thinking", 5, 7), Step("thinking", 13, 15)),
    )
    segmented = split(trace, "given")
    assert [segmented.text(step) for step in segmented.steps] == ["\na.\n\n", "b.", " rest ", "c.\n", "r"]


@pytest.mark.parametrize(
    "steps", [(Step("thinking", 0, 9),), (Step("thinking", 2, 4), Step("thinking", 3, 5)), (Step("response", 0, 1),)]
)
def test_given_steps_that_do_not_fit_are_refused_by_name(steps):
    with pytest.raises(InputError, match=r"'t9'.*in order within the \d+ characters"):
        split(Trace("t9", "p", "abcdef", steps=steps), "given")


def test_given_needs_steps():
    with pytest.raises(InputError, match="'t9' came without steps"):
        split(Trace("t9", "p", "abc"), "given")


def test_an_unknown_rule_is_refused_with_the_names_of_all():
    with pytest.raises(UsageError, match=f"choose one of {', '.join(RULE_NAMES)}"):
        split(Trace("t", "p", "abc"), "paragraph")


def test_bounds_belong_to_the_adaptive_rule():
    trace = Trace("t", "p", "One is odd. Two is even. Three is odd. Four is even.")
    assert len(split(trace, bounds=AdaptiveBounds(1, 4)).steps) == 4
    assert len(split(trace).steps) == 1
    with pytest.raises(UsageError, match="'sentence' has no token bounds"):
        split(trace, "sentence", bounds=AdaptiveBounds())


def test_a_trace_without_text_has_no_steps():
    assert split(Trace("t", "p")).steps == ()
