"""Paired comparisons by hand, against the whole binomial sum, and on candidates that differ in number."""

from dataclasses import asdict
from math import comb

import pytest
from curve_samples import problem

from reasonflux_prm.errors import UsageError
from reasonflux_prm.evaluation.candidates import join
from reasonflux_prm.evaluation.curves import Method
from reasonflux_prm.evaluation.intervals import paired_difference
from reasonflux_prm.evaluation.metrics import weighted_mean
from reasonflux_prm.evaluation.paired import compare, sign_test

UP, DOWN, FLAT = (0.9, 0.1), (0.1, 0.9), (0.5, 0.5)


def pairs(*rewards, correct=(True, False)):
    """Make one problem for each pair of what two PRMs say of its candidates."""
    return [problem(correct, id=f"p{number}", rewards={"a": a, "b": b}) for number, (a, b) in enumerate(rewards)]


def test_by_hand():
    made = pairs((UP, DOWN), (UP, DOWN), (UP, DOWN), (DOWN, UP), (UP, UP), (FLAT, FLAT))
    found = compare(made, "prm:a", Method("prm", "b"))
    assert found.accuracy == pytest.approx((4.5 / 6, 2.5 / 6))
    assert found.difference.value == pytest.approx(2 / 6)
    assert (found.first_better, found.second_better, found.equal) == (3, 1, 2)
    assert found.p == pytest.approx(2 * (1 + 4) / 16)
    assert str(found).startswith("prm:a minus prm:b: +0.333 (")
    assert "they differ on 4, 3 for the first and 1 for the second (sign test, p = 0.625)" in str(found)


def test_the_interval_is_the_paired_bootstrap():
    made = pairs(*[(UP, DOWN)] * 5, *[(DOWN, UP)] * 3, *[(UP, UP)] * 4)
    found = compare(made, "prm:a", "prm:b", resamples=300, seed=4)
    a = weighted_mean([1.0] * 5 + [0.0] * 3 + [1.0] * 4)
    b = weighted_mean([0.0] * 5 + [1.0] * 3 + [1.0] * 4)
    expected = paired_difference(a, b, [own.id for own in made], draws=300, seed=4)
    assert asdict(found.difference) == pytest.approx(asdict(expected))


def test_half_a_win_is_a_win():
    found = compare(pairs((UP, FLAT)), "prm:a", "prm:b")
    assert (found.first_better, found.difference.value, found.p) == (1, 0.5, 1)


def test_the_same_problem_twice_is_one_for_the_test():
    made = [problem((True, False), id=str(k), cluster="x", rewards={"a": UP, "b": DOWN}) for k in range(9)]
    found = compare(made, "prm:a", "prm:b")
    assert (found.first_better, found.p, found.difference.low) == (1, 1, None)


def test_problems_may_have_different_numbers_of_candidates():
    small = problem((True,), id="s", rewards={"a": (0.5,), "b": (0.1,)})
    found = compare([*pairs((UP, DOWN)), small], "prm:a", "prm:b")
    assert (found.first_better, found.equal) == (1, 1)


def test_problems_without_verdicts_are_out():
    unknown = problem((None, None), id="u", rewards={"a": UP, "b": UP})
    assert compare([*pairs((UP, DOWN)), unknown], "prm:a", "prm:b").difference.n == 1
    with pytest.raises(UsageError, match="got 1 without any"):
        compare([unknown], "prm:a", "prm:b")


def test_methods_of_any_kind_are_compared():
    made = [problem((True, True, False), (0, 0, 1), id="p", rewards={"a": (0.1, 0.2, 0.9)})]
    assert compare(made, "prm:a", "majority").difference.value == -1


def test_a_prm_without_rewards():
    with pytest.raises(UsageError, match="expected rewards of 'c'"):
        compare(pairs((UP, DOWN)), "prm:a", "prm:c")


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 0), (0, 5), (7, 9), (30, 12), (1, 1)])
def test_the_sign_test_is_the_binomial_tail(first, second):
    n = first + second
    tail = sum(comb(n, i) for i in range(n + 1) if abs(i - n / 2) >= abs(first - n / 2)) / 2**n
    assert sign_test(first, second) == pytest.approx(min(1, tail))
    assert sign_test(first, second) == sign_test(second, first)


def test_the_sign_test_of_many_problems():
    assert sign_test(5000, 5000) == 1
    # Four standard deviations; the normal tail with the correction for steps.
    assert sign_test(5200, 4800) == pytest.approx(6.6e-5, rel=0.05)
    assert sign_test(1000, 0) == pytest.approx(2.0**-999)
    assert sign_test(2000, 0) == 0


def test_two_scorings_of_the_same_candidates():
    first = [problem((True, False), rewards={"a": UP}, fingerprint="f")]
    second = [problem((True, False), rewards={"b": DOWN}, fingerprint="f")]
    assert compare(join(first, second), "prm:a", "prm:b").difference.value == 1


def test_a_row_is_json_values():
    row = compare(pairs((UP, DOWN), (UP, UP)), "prm:a", "prm:b").row()
    assert (row["first"], row["accuracy"], row["difference"]["clusters"]) == ("prm:a", [1.0, 0.5], 2)
