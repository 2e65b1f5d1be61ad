"""Formulas as text, there and back, and what is refused."""

import pytest
from hypothesis import given
from labels_strategies import formulas

from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.formula import DEFAULT_TERMS, Formula


@given(formulas())
def test_what_is_written_is_read_back(formula):
    assert Formula.parse(str(formula)) == formula


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("bounded", Formula()),
        ("literal", Formula("literal")),
        (" bounded  min ", Formula(aggregation="min")),
        ("bounded softmax(alignment_max, quality, coherence)", Formula()),
        (
            "literal mean( quality ! ,coherence )",
            Formula("literal", "mean", ("quality", "coherence"), None, ("quality",)),
        ),
        (
            "bounded weighted(quality!=2, coherence=0.5)",
            Formula("bounded", "weighted", ("quality", "coherence"), (2.0, 0.5), ("quality",)),
        ),
    ],
)
def test_what_can_be_written(text, formula):
    assert Formula.parse(text) == formula


def test_how_it_is_written():
    assert str(Formula()) == "bounded softmax(alignment_max, quality, coherence)"
    weighted = Formula("literal", "weighted", ("quality", "coherence"), (2, 0.1), ("quality",))
    assert str(weighted) == "literal weighted(quality!=2, coherence=0.1)"
    assert Formula(requires=("coherence", "alignment_max")).requires == ("alignment_max", "coherence")


def test_a_term_is_left_out():
    assert Formula().without("quality") == Formula(terms=("alignment_max", "coherence"))
    weighted = Formula.parse("bounded weighted(quality!=2, coherence!=1)")
    assert str(weighted.without("quality")) == "bounded weighted(coherence!=1)"
    assert [str(Formula(aggregation="min").without(name)) for name in DEFAULT_TERMS] == [
        "bounded min(quality, coherence)",
        "bounded min(alignment_max, coherence)",
        "bounded min(alignment_max, quality)",
    ]
    with pytest.raises(UsageError, match="no term 'quality' to leave out"):
        Formula().without("quality").without("quality")
    with pytest.raises(UsageError, match="at least one term"):
        Formula(terms=("quality",)).without("quality")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a formula such as 'bounded softmax"),
        ("bounded softmax(quality", "expected a formula such as"),
        ("bounded softmax(quality) and more", "expected a formula such as"),
        ("mean(quality)", "expected a formula such as .* got 'mean\\(quality\\)'"),
        ("strict", "mode is bounded or literal, not 'strict'"),
        ("bounded median", "aggregation is softmax or mean or min or weighted, not 'median'"),
        ("bounded mean()", "expected a term such as quality, quality! or quality=2 .* got ''"),
        ("bounded mean(quality,,coherence)", "got ''"),
        ("bounded mean(quality coherence)", "got 'quality coherence'"),
        ("bounded mean(quality, quality)", "at least one term, each once, got \\(quality, quality\\)"),
        ("bounded mean(lift)", "no term of a step is called 'lift'; a formula takes alignment_max"),
        ("bounded mean(quality=2)", "weights go with the aggregation 'weighted'"),
        ("bounded weighted(quality)", "got the aggregation 'weighted' and no weights"),
        ("bounded weighted", "got the aggregation 'weighted' and no weights"),
        ("bounded weighted(quality=1, coherence)", "expected 2 weights of 0 or more, not all of them 0, got 1"),
        ("bounded weighted(quality=-1, coherence=2)", "got -1, 2"),
        ("bounded weighted(quality=0, coherence=0)", "not all of them 0"),
        ("bounded weighted(quality=nan)", "got nan"),
        ("bounded weighted(quality=inf)", "got inf"),
        ("bounded weighted(quality=a)", "expected a number as a weight .* got 'a'"),
    ],
)
def test_what_is_no_formula_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        Formula.parse(text)


def test_only_its_own_terms_can_be_required():
    with pytest.raises(UsageError, match="can require only terms that it takes, not coherence"):
        Formula(terms=("quality",), requires=("coherence",))
