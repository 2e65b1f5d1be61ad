"""What rewards tell apart within problems: by hand, and against the accuracy of choosing."""

import numpy as np
import pytest
from curve_samples import problem, problems
from hypothesis import given

from reasonflux_prm.evaluation.curves import Method, with_all
from reasonflux_prm.evaluation.markdown import markdown
from reasonflux_prm.evaluation.ranks import ranks_of
from reasonflux_prm.evaluation.report import selection_report


def test_by_hand():
    found = ranks_of(
        [
            problem([False, True, True], id="outlier", rewards={"a": (0.9, 0.5, 0.5)}),
            problem([True, False, None, False], id="ties", rewards={"a": (0.4, 0.4, None, 0.1)}),
            problem([False, False, False], id="all wrong", rewards={"a": (0.1, 0.2, 0.3)}),
            problem([True, True, True], id="no reward"),
        ],
        "a",
    )
    # A tie of one right and one wrong candidate is half right at both of its ranks; a problem without rewards is a tie
    # of all, and the fourth rank is not everybody's.
    assert [own.value for own in found.right] == pytest.approx(
        [(0 + 0.5 + 0 + 1) / 4, (1 + 0.5 + 0 + 1) / 4, (1 + 0 + 0 + 1) / 4]
    )
    # Pairs: (0.5 < 0.9) twice; 0.4 against 0.4 and 0.1. The candidate without a reward is in no pair.
    assert found.area.value == pytest.approx((0 + 0.75) / 2)
    assert (found.area.n, found.right[0].n) == (2, 4)


@given(problems(least=2))
def test_the_first_rank_is_the_choice_by_reward_and_all_ranks_are_all_candidates(drawn):
    name = next((name for own in drawn for name, row in own.rewards.items() if any(r is not None for r in row)), None)
    if name is None:
        return
    found = ranks_of(drawn, name, draws=20)
    assert found.right[0].value == pytest.approx(with_all(drawn, Method("prm", name)).accuracy.mean())
    share = np.mean([[verdict is True for verdict in own.correct] for own in drawn])
    assert np.mean([own.value for own in found.right]) == pytest.approx(share)


def test_without_right_and_wrong_there_is_no_area():
    report = selection_report([problem([True, True], rewards={"a": (0.1, 0.2)})], ["prm:a"], resamples=20)
    assert report.ranks[0].area is None
    assert report.row()["ranks"][0]["area_within_problems"] is None
    assert "| a | 1.000 | 1.000 |  |" in markdown(report)


def test_in_the_report():
    made = [problem([n % 3 == 0, n % 2 == 0], id=str(n), rewards={"a": (0.3, 0.1)}) for n in range(12)]
    report = selection_report(made, ["majority", "prm:a"], resamples=50)
    row = report.row()["ranks"][0]
    assert (row["prm"], [own["value"] for own in row["right"]]) == ("a", [pytest.approx(1 / 3, abs=1e-6), 0.5])
    assert (row["problems_with_both"], row["area_within_problems"]["value"]) == (6, pytest.approx(1 / 3, abs=1e-6))
    text = markdown(report)
    assert "| right, by rank of the reward within its problem | 1 | 2 | area within problems |" in text
    assert "| a | 0.333 | 0.500 | 0.333 (" in text
    assert selection_report(made, ["majority"], resamples=50).ranks == ()
