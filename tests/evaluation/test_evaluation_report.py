"""The report of what N buys: its numbers, what it leaves out and says so, and that it is the same bytes every time."""

import json
from pathlib import Path

import numpy as np
import pytest
from curve_samples import problem

from reasonflux_prm.errors import InputError, UsageError
from reasonflux_prm.evaluation.candidates import Trouble, problems_of
from reasonflux_prm.evaluation.curves import Method, curve
from reasonflux_prm.evaluation.intervals import bootstrap, paired_difference
from reasonflux_prm.evaluation.markdown import markdown
from reasonflux_prm.evaluation.metrics import weighted_mean
from reasonflux_prm.evaluation.report import selection_report
from reasonflux_prm.evaluation.resampled_means import ResampledMeans
from reasonflux_prm.traces.read import read_traces

BON = Path(__file__).parents[2].parent / "shared" / "data" / "bon"
needs_data = pytest.mark.skipif(not BON.is_dir(), reason="the shared data is not here")


def made(count=12, n=4, seed=0, **fields):
    random = np.random.default_rng(seed)
    problems = []
    for number in range(count):
        answers = random.integers(0, 3, size=n).tolist()
        rewards = {"a": tuple(random.random(n).tolist())}
        own = {"rewards": rewards, "cluster": f"c{number // 2}", "id": f"p{number}", **fields}
        problems.append(problem([answer == 0 for answer in answers], answers, **own))
    return problems


def of(report, method):
    return next(own for own in report.curves if str(own.method) == method)


def test_the_numbers_are_those_of_the_curves_with_intervals_by_cluster():
    problems = made()
    report = selection_report(problems, ["prm:a", "majority"], resamples=200, seed=5)
    clusters = [own.cluster for own in problems]
    names = ("prm:a", "majority", "pass@1")
    found = {name: curve(problems, Method.parse(name), [1, 2, 3, 4]).accuracy for name in names}
    for at, point in enumerate(of(report, "prm:a").points):
        own, majority, chance = (weighted_mean(found[name][:, at]) for name in names)
        options = {"draws": 200, "seed": 5}
        assert point.k == at + 1
        for interval, expected in (
            (point.accuracy, bootstrap(own, clusters, **options)),
            (point.minus["majority"], paired_difference(own, majority, clusters, **options)),
            (point.minus["pass@1"], paired_difference(own, chance, clusters, **options)),
        ):
            assert (interval.value, interval.low, interval.high) == pytest.approx(
                (expected.value, expected.low, expected.high)
            )
            assert (interval.n, interval.clusters) == (12, 6)
    assert "majority" not in of(report, "majority").points[0].minus
    assert (report.problems, report.candidates, report.clusters) == (12, 48, 6)


def test_resampled_means_need_a_problem():
    for problems, options in ((0, {}), (2, {"draws": 0}), (2, {"level": 1.0})):
        with pytest.raises(UsageError, match="at least one problem, one draw and a level"):
            ResampledMeans(np.zeros((problems, 1)), ["a"] * problems, **options)


def test_one_cluster_has_no_interval():
    report = selection_report(made(2), ["majority"], [4])
    assert (of(report, "majority").whole.accuracy.low, report.clusters) == (None, 1)
    assert "(" not in markdown(report).split("| majority | ")[1].split("|")[0]


def test_every_method_that_can_be_had():
    report = selection_report(made())
    assert [str(own.method) for own in report.curves] == [
        "oracle",
        "prm:a",
        "weighted:a",
        "majority",
        "longest",
        "shortest",
        "pass@1",
    ]
    assert report.ks == (1, 2, 3, 4)
    assert report.notes == ()


def test_methods_that_cannot_be_had_are_left_out_and_named():
    rewards = {"low": (-1.0, 0.5, 0.2, 0.1), "none": (None,) * 4}
    report = selection_report(made(3, rewards=rewards))
    assert {str(own.method) for own in report.curves} & {"prm:none", "weighted:low"} == set()
    assert report.notes == (
        "The weighted vote by low is left out: weighted votes need rewards of at least 0, and low gives -1.",
        "The PRM none is left out: no candidate has a reward of it.",
    )
    assert report.unscored == {"low": 0, "none": 12}
    with pytest.raises(UsageError, match="leave weighted:low out"):
        selection_report(made(3, rewards=rewards), ["weighted:low"])


def test_problems_of_several_sizes():
    problems = [*made(3, 2), *(own for own in made(6, 4, seed=1))]
    report = selection_report(problems, ["majority"])
    assert report.ks == (1, 2)
    assert report.notes[0].startswith(
        "k ends at 2: 3 of 9 problems have no more than 2 candidates, such as 'p0', others"
    )
    whole = of(report, "majority").whole.accuracy.value
    assert whole == pytest.approx(np.mean([curve([p], Method("majority"), [p.n]).accuracy[0, 0] for p in problems]))
    assert "| choice among all 2 to 4 |" in markdown(report)
    large = selection_report(problems, ["majority"], min_candidates=3)
    assert (large.ks, large.problems) == ((1, 2, 3, 4), 6)
    assert large.notes == ("3 problems are left out: they have fewer than 3 candidates.",)


def test_sizes_that_are_asked_for():
    assert selection_report(made(), ["majority"], [4, 1, 4]).ks == (1, 4)
    report = selection_report(made(), ["majority"], [2, 8])
    assert (report.ks, len(report.notes)) == ((2,), 1)
    for ks in ([], [0, 1], [8]):
        with pytest.raises(UsageError, match="sizes from 1 to 4"):
            selection_report(made(), ["majority"], ks)
    with pytest.raises(UsageError, match="at least one method"):
        selection_report(made(), [])


def test_problems_without_verdicts_are_left_out():
    unknown = problem((None, None), id="u", troubles={Trouble.NO_REFERENCE: 1})
    report = selection_report([unknown, *made(4)], ["pass@1"])
    assert report.problems == 4
    assert report.notes == ("1 of 5 problems are left out: none of their candidates has a verdict.",)
    assert report.troubles[Trouble.NO_REFERENCE].named == ("u",)
    for nothing in ([], [unknown]):
        with pytest.raises(InputError, match="got none"):
            selection_report(nothing)


def test_tokens():
    known = {"policy_tokens": (10, 20, 30, 40), "prm_tokens": {"a": (1, 2, 3, 6)}}
    report = selection_report(made(3, **known), ["prm:a", "majority", "pass@1"], [1, 2])
    best, majority, chance = (own.points[1] for own in report.curves)
    assert (best.policy_tokens, best.prm_tokens) == (50, 6)
    assert (majority.policy_tokens, majority.prm_tokens) == (50, 0)
    assert (chance.policy_tokens, chance.prm_tokens) == (25, 0)
    assert (report.curves[0].whole.policy_tokens, report.curves[0].whole.prm_tokens) == (100, 12)


def test_tokens_that_are_not_known_are_none():
    partly = {"policy_tokens": (10, None, 30, 40), "prm_tokens": {}}
    point = selection_report(made(3, **partly), ["prm:a"], [2]).curves[0].points[0]
    assert (point.policy_tokens, point.prm_tokens) == (None, None)


def test_ties_are_counted_in_problems():
    problems = made(3, rewards={"a": (0.5, 0.5, 0.1, 0.1)}) + made(2, seed=1)
    report = selection_report(problems, ["prm:a", "oracle"], [4])
    assert (report.curves[0].points[0].tied, report.curves[1].points[0].tied) == (3, None)


def test_whether_a_prm_beats_majority_is_said():
    def report(good, *, count=40):
        rewards = {"a": (0.9, 0.1, 0.2) if good else (0.1, 0.9, 0.8)}
        groups = ((0, 1, 1) if good else (0, 0, 1),) * count
        correct = (True, False, False) if good else (True, True, False)
        problems = [problem(correct, own, id=str(k), rewards=rewards) for k, own in enumerate(groups)]
        return selection_report(problems, ["prm:a", "majority"])

    assert report(True).findings() == ["With all candidates, best by a is above majority: +1.000 (+1.000 to +1.000)."]
    assert (
        "is below majority: -0.500"
        in selection_report(
            [problem((True, True, False), (0, 0, 1), id=str(k), rewards={"a": (0.5, 0.1, 0.5)}) for k in range(9)]
        ).findings()[0]
    )
    mixed = selection_report(made(), ["prm:a", "majority"]).findings()
    assert "cannot be told apart from majority" in mixed[0]


def test_drawn_subsets_show_their_error():
    report = selection_report(made(4, n=12), ["weighted:a", "majority"], [1, 6, 12], samples=50)
    drawn = [point.monte_carlo_error for point in of(report, "weighted:a").points]
    assert drawn[0] is drawn[2] is None
    assert 0 < drawn[1] < 0.1
    assert of(report, "majority").points[1].monte_carlo_error is None


def test_the_same_bytes_every_time():
    problems = made(6, n=12)
    one, same, other = (selection_report(problems, samples=20, resamples=50, seed=seed).to_json() for seed in (1, 1, 2))
    assert one == same != other


def test_json():
    report = selection_report(made(4), ["prm:a", "oracle"], [1, 4], resamples=50, about={"file": "x|y"})
    row = json.loads(report.to_json())
    assert (row["schema"], row["kind"], row["about"]) == (1, "selection", {"file": "x|y"})
    assert row["settings"] == {
        "methods": ["prm:a", "oracle"],
        "ks": [1, 4],
        "samples": 2000,
        "resamples": 50,
        "seed": 0,
        "level": 0.95,
        "min_candidates": 1,
    }
    first = row["curves"][0]
    assert (first["method"], [point["k"] for point in first["points"]], first["all"]["k"]) == ("prm:a", [1, 4], None)
    assert first["points"][1]["value"] == first["all"]["value"]
    assert set(first["all"]) >= {"low", "high", "tied", "policy_tokens", "prm_tokens", "minus_pass@1", "minus_majority"}


def test_markdown():
    problems = made(4, rewards={"a|b\n`": (0.9, 0.5, 0.1, 0.2)}, troubles={Trouble.NO_ANSWER: 2})
    text = markdown(selection_report([*problems, *made(3, seed=1, troubles={Trouble.SINGLE: 1})]))
    assert text.startswith(
        "7 problems, 28 candidates; in brackets 95% bootstrap intervals, 2,000 resamples by problem."
    )
    assert "| best by a\\|b ` |" in text
    assert "| accuracy at k = | 1 | 2 | 4 |" in text
    assert "- no-answer: 8 candidates of 4 problems (p0, p1, p2, p3)." in text
    assert "- single: 3 problems (p0, p1, p2)." in text
    assert "- 12 candidates have no reward of a|b" in text.replace("\\|", "|")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {8, 5, 6}


@needs_data
@pytest.mark.parametrize("path", sorted(BON.glob("*.jsonl")), ids=lambda path: path.stem)
def test_real_candidates(path):
    problems = problems_of(read_traces(path), recorded=["rm_score"])
    report = selection_report(problems, resamples=100)
    best = {str(own.method): own.whole.accuracy.value for own in report.curves}
    assert best["oracle"] == max(best.values())
    assert all(own.points[0].accuracy.value == pytest.approx(best["pass@1"]) for own in report.curves)
    if path.stem == "math_cot_100":
        assert best["prm:rm_score"] > best["majority"] > best["pass@1"]
    else:
        assert report.notes[-1].startswith("The PRM rm_score is left out")
