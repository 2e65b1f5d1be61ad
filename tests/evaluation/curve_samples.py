"""Problems with candidates for the tests of curves and reports, and the slow way to get a curve."""

from itertools import combinations

from hypothesis import strategies as st

from reasonflux_prm.evaluation import selection
from reasonflux_prm.evaluation.candidates import ProblemCandidates

# Sums of these are exact, so no tie is missed or made by rounding.
REWARDS = st.sampled_from([None, 0.0, 0.125, 0.25, 0.5, 0.75])


def problem(correct, groups=None, *, id="p", cluster=None, lengths=None, **fields) -> ProblemCandidates:
    n = len(correct)
    return ProblemCandidates(
        id=id,
        cluster=cluster or id,
        correct=tuple(correct),
        groups=tuple(groups) if groups is not None else (None,) * n,
        lengths=tuple(lengths) if lengths is not None else (100,) * n,
        **fields,
    )


@st.composite
def problems(draw, least=1, most=6, count=3):
    """Draw up to `count` problems with equally many candidates."""
    n = draw(st.integers(least, most))
    made = []
    for number in range(draw(st.integers(1, count))):
        lists = (
            st.lists(values, min_size=n, max_size=n)
            for values in (
                st.sampled_from([True, False, None]),
                st.sampled_from([None, 0, 1, 2]),
                st.integers(0, 3),
                REWARDS,
            )
        )
        correct, groups, lengths, rewards = (draw(own) for own in lists)
        made.append(
            problem(correct, groups, id=f"p{number}", lengths=lengths, rewards={"a": (0.5, *rewards[1:])}),
        )
    return made


def slow_curve(own: ProblemCandidates, method: str, k: int) -> float:
    """Choose from every subset of size k, with the functions of `selection`, and average."""
    values = [_choice(own, method, subset) for subset in combinations(range(own.n), k)]
    return sum(values) / len(values)


def _choice(own: ProblemCandidates, method: str, subset: tuple[int, ...]) -> float:
    correct = [own.correct[i] is True for i in subset]
    groups = [None if own.groups[i] is None else str(own.groups[i]) for i in subset]
    lengths = [own.lengths[i] or None for i in subset]
    kind, _, prm = method.partition(":")
    rewards = [own.rewards[prm][i] for i in subset] if prm else []
    match kind:
        case "pass@1":
            return selection.mean(correct)
        case "oracle":
            return selection.oracle(correct)
        case "prm":
            return selection.highest(rewards, correct)
        case "weighted":
            return selection.vote(groups, correct, rewards)
        case "majority":
            return selection.vote(groups, correct)
        case "shortest":
            return selection.highest([None if length is None else -length for length in lengths], correct)
        case "longest":
            return selection.highest(lengths, correct)
    raise AssertionError(method)
