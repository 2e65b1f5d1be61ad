"""The recipe of the label evidence: a method is judged within a problem as well as over all of them."""

from __future__ import annotations

from recipes.label_evidence.measure import auc, mean_auc


def test_telling_easy_problems_from_hard_ones_is_nothing_within_a_problem():
    # Three right of four on the easy one and one of four on the hard one; the score knows the problem alone.
    rights = [True, True, True, False, True, False, False, False]
    problems = ["easy"] * 4 + ["hard"] * 4
    scores = [1.0] * 4 + [0.0] * 4
    assert auc(scores, rights, problems)["value"] == 0.75
    assert mean_auc(scores, rights, problems)["value"] == 0.5


def test_problems_without_both_are_left_out_and_the_others_count_alike():
    rights = [True, True, True, False, False, False, True]
    problems = ["all right", "all right", "told", "told", "mistaken", "mistaken", "mistaken"]
    within = mean_auc([0.1, 0.2, 0.9, 0.3, 0.8, 0.7, 0.6], rights, problems)
    assert (within["value"], within["n"]) == (0.5, 2)
    assert mean_auc([0.1, 0.2], [True, True], ["a", "a"]) is None
