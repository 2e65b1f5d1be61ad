"""What hypothesis draws in several of the tests of labels."""

from hypothesis import strategies as st

from reasonflux_prm.labels.formula import ALIGNMENT_TERMS, Formula

names = st.sampled_from([*ALIGNMENT_TERMS, "coherence", "quality", "quality_correctness", "quality_progress"])


@st.composite
def formulas(draw):
    terms = tuple(draw(st.lists(names, min_size=1, max_size=8, unique=True)))
    aggregation = draw(st.sampled_from(["softmax", "mean", "min", "weighted"]))
    weights = None
    if aggregation == "weighted":
        weights = tuple(draw(st.lists(st.floats(1e-300, 1e300), min_size=len(terms), max_size=len(terms))))
    requires = tuple(draw(st.lists(st.sampled_from(terms), unique=True)))
    return Formula(draw(st.sampled_from(["bounded", "literal"])), aggregation, terms, weights, requires)
