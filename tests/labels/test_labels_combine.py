"""Combining against the paper's equation, term by term; bounded targets never leave [0, 1]."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from labels_strategies import formulas

from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.combine import (
    aggregate,
    combine,
    combine_all,
    combine_steps,
    out_of_range,
    trajectory_target,
)
from reasonflux_prm.labels.formula import ALIGNMENT_TERMS, DEFAULT_TERMS, Formula
from reasonflux_prm.records import LabelledTrace, LabelStatus, Step, Term, Trace

anything = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1.5, 1.5)
in_range = {
    **dict.fromkeys(ALIGNMENT_TERMS, st.floats(-1, 1)),
    "coherence": st.floats(-23, 18),
    **dict.fromkeys(("quality", "quality_correctness", "quality_progress"), st.floats(0, 1)),
}


def terms(**values):
    return {name: Term(value, None if value is not None else "why not") for name, value in values.items()}


def by_hand(values, formula):
    """Return a step's target as the docstring of `Formula` says it, for terms within their ranges."""
    have = [(name, values[name]) for name in formula.terms if values.get(name) is not None]
    if not have or any(values.get(name) is None for name in formula.requires):
        return None
    if formula.mode == "bounded":
        have = [
            (
                name,
                max(value, 0.0)
                if name in ALIGNMENT_TERMS
                else 1 / (1 + math.exp(-value))
                if name == "coherence"
                else value,
            )
            for name, value in have
        ]
    if formula.aggregation == "min":
        return min(value for _, value in have)
    if formula.aggregation == "softmax":
        weights = [math.exp(value) for _, value in have]
    elif formula.aggregation == "mean":
        weights = [1.0 for _ in have]
    else:
        weights = [formula.weights[formula.terms.index(name)] for name, _ in have]
    return sum(weight * value for weight, (_, value) in zip(weights, have, strict=True)) / sum(weights)


@given(formulas(), st.data())
def test_a_target_is_the_equation(formula, data):
    if formula.weights is not None:
        assume(min(formula.weights) > 1e-6 and max(formula.weights) < 1e6)
    steps = [
        {name: data.draw(st.none() | in_range[name]) for name in formula.terms}
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    found = combine_steps([terms(**step) for step in steps], formula)
    for target, step in zip(found, steps, strict=True):
        expected = by_hand(step, formula)
        assert target is None if expected is None else target == pytest.approx(expected, abs=1e-9)


@given(formulas(), st.data())
def test_bounded_never_leaves_0_to_1(formula, data):
    step = {name: data.draw(anything) for name in formula.terms}
    for target in combine_steps([terms(**step)], replace(formula, mode="bounded")):
        assert target is None or 0 <= target <= 1


@given(formulas(), st.data())
def test_bounded_rises_with_every_term(formula, data):
    """Of weighted means this is plain; a softmax over [0, 1] rises too, though not over wider ranges."""
    formula = replace(formula, mode="bounded")
    low = {name: data.draw(in_range[name]) for name in formula.terms}
    name = data.draw(st.sampled_from(formula.terms))
    high = low | {name: data.draw(in_range[name].filter(lambda value: value >= low[name]))}
    below, above = combine_steps([terms(**low), terms(**high)], formula)
    assert above >= below - 1e-12


@given(st.lists(st.floats(-23, 18), min_size=1, max_size=5))
def test_softmax_is_between_mean_and_maximum(values):
    (found,) = aggregate(np.array([values]), "softmax")
    assert sum(values) / len(values) - 1e-9 <= found <= max(values) + 1e-9


def test_softmax_passes_over_a_very_bad_term():
    """The paper's aggregation as printed: a smooth maximum, so nonsense costs next to nothing."""
    good_and_bad = terms(alignment_max=0.9, quality=1.0, coherence=-20.0)
    (literal,) = combine_steps([good_and_bad], Formula("literal"))
    assert literal == pytest.approx(0.9525, abs=1e-3)
    (bounded,) = combine_steps([good_and_bad], Formula())
    assert bounded < 0.8
    assert combine_steps([good_and_bad], Formula(aggregation="min")) == (pytest.approx(0, abs=1e-8),)


def test_extreme_raw_values_overflow_nothing():
    steps = [terms(alignment_max=1.0, quality=1.0, coherence=value) for value in (-4e6, 4e6)]
    assert combine_steps(steps, Formula("literal")) == (pytest.approx(1.0), pytest.approx(4e6))
    assert combine_steps(steps, Formula(aggregation="mean")) == (pytest.approx(2 / 3), 1.0)


def test_a_missing_term_is_not_0():
    step = terms(alignment_max=0.5, quality=None, coherence=None)
    assert combine_steps([step], Formula()) == (0.5,)
    assert combine_steps([{}], Formula()) == (None,)
    assert combine_steps([step], Formula(requires=("quality",))) == (None,)
    assert combine_steps([step], Formula(requires=("alignment_max",))) == (0.5,)
    assert combine_steps([], Formula()) == ()


def test_terms_that_weigh_nothing_make_no_target():
    formula = Formula.parse("bounded weighted(quality=1, coherence=0)")
    assert combine_steps([terms(coherence=3.0), terms(quality=0.25, coherence=3.0)], formula) == (None, 0.25)
    with pytest.raises(UsageError, match="needs a weight for each term"):
        aggregate(np.ones((1, 2)), "weighted")


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan, math.inf])
def test_a_quality_outside_its_range_is_not_taken_in_bounded(value):
    step = terms(quality=value, alignment_max=0.5)
    assert combine_steps([step], Formula()) == (0.5,)
    assert combine_steps([step], Formula(requires=("quality",))) == (None,)


def test_a_sum_that_no_float_holds_is_no_target():
    found = terms(quality=1.7e308, coherence=1.7e308)
    assert combine_steps(
        [found, terms(quality=0.5, coherence=0.5)], Formula.parse("literal mean(quality, coherence)")
    ) == (
        None,
        0.5,
    )


def test_literal_takes_what_is_finite():
    assert combine_steps([terms(quality=1.5)], Formula("literal")) == (1.5,)
    assert combine_steps([terms(quality=math.nan)], Formula("literal")) == (None,)


@pytest.mark.parametrize(
    ("value", "bounded", "literal"),
    [
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        (None, None, None),
        (1.01, None, 1.01),
        (-1.0, None, -1.0),
        (math.nan, None, None),
    ],
)
def test_the_trajectory_target_is_its_term(value, bounded, literal):
    rated = terms(trajectory=value, lift=0.5)
    assert trajectory_target(rated, Formula()) == bounded
    assert trajectory_target(rated, Formula("literal")) == literal
    assert trajectory_target({}, Formula()) is None


def labelled(step_terms, trajectory_terms=None, status=LabelStatus.LABELLED, note=None):
    trace = Trace("a", "problem", "x" * len(step_terms))
    steps = tuple(Step("thinking", index, index + 1) for index in range(len(step_terms)))
    nothing = (None,) * len(steps)
    rated = trajectory_terms or {}
    return LabelledTrace(trace, status, steps, tuple(step_terms), nothing, rated, None, "", note)


def test_a_label_is_recombined():
    raw = labelled([terms(quality=0.5), terms(quality=None)], terms(trajectory=0.75))
    once = combine(raw, Formula())
    assert (once.status, once.targets, once.trajectory_target) == (LabelStatus.LABELLED, (0.5, None), 0.75)
    assert once.formula == "bounded softmax(alignment_max, quality, coherence)"
    assert (once.trace, once.step_terms, once.trajectory_terms) == (raw.trace, raw.step_terms, raw.trajectory_terms)
    assert combine(combine(raw, Formula("literal", "min")), Formula()) == once


def test_the_status_follows_from_the_targets():
    raw = labelled([terms(quality=0.5)])
    without = combine(raw, Formula.parse("bounded mean(coherence)"))
    assert without.status is LabelStatus.NO_TARGET
    assert without.note == "neither a step nor the trajectory has the terms that bounded mean(coherence) needs"
    again = combine(without, Formula())
    assert (again.status, again.note) == (LabelStatus.LABELLED, None)
    only_trajectory = combine(labelled([], terms(trajectory=0.0)), Formula())
    assert (only_trajectory.status, only_trajectory.trajectory_target) == (LabelStatus.LABELLED, 0.0)


def test_many_are_combined_as_one_is():
    draw = np.random.default_rng(0)
    many = [
        labelled(
            [terms(quality=float(value), coherence=float(value) * 9) for value in draw.random(draw.integers(0, 40))],
            terms(trajectory=0.5) if number % 3 else {},
            LabelStatus.FAILED if number % 7 == 0 else LabelStatus.LABELLED,
        )
        for number in range(700)
    ]
    stream = combine_all(iter(many), Formula("literal"))
    found = [next(stream)]
    found += stream
    assert found == [combine(label, Formula("literal")) for label in many]
    assert list(combine_all([], Formula())) == []


@pytest.mark.parametrize("status", [LabelStatus.NO_STEPS, LabelStatus.FAILED])
def test_a_failure_stays_a_failure(status):
    failed = labelled([terms(quality=0.5)], status=status, note="why")
    found = combine(failed, Formula())
    assert (found.status, found.note, found.targets) == (status, "why", (None,))
    assert found.formula == str(Formula())


def test_what_left_its_range_is_counted():
    steps = [
        terms(alignment_max=0.5, quality=2.0, coherence=-15.0),
        terms(quality=-0.5, coherence=12.0),
        terms(quality=0.5),
    ]
    rated = terms(trajectory=1.5)
    literal = combine(labelled(steps, rated), Formula("literal"))
    assert out_of_range(literal) == {"target": 2, "trajectory_target": 1, "quality": 2, "trajectory": 1}
    bounded = combine(labelled(steps, rated), Formula())
    assert out_of_range(bounded) == {"quality": 2, "trajectory": 1}
    assert out_of_range(combine(labelled(steps, rated), Formula(terms=("alignment_max",)))) == {"trajectory": 1}
    assert out_of_range(combine(labelled([terms(alignment_max=1.5, coherence=math.inf)]), Formula())) == {
        "alignment_max": 1,
        "coherence": 1,
    }


def test_the_default_terms_are_the_papers_three():
    assert DEFAULT_TERMS == ("alignment_max", "quality", "coherence")
