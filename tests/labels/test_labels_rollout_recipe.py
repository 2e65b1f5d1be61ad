"""The recipe of rollout values on sums: what it makes is what it says, and an able policy is found to be able."""

from __future__ import annotations

import json
import re

import pytest
from judge_parts import GRADER

from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.labels.judges.rollout import RolloutJudge, RolloutSearchJudge, RolloutSettings
from reasonflux_prm.labels.pipeline import Labeller, LabelSettings
from reasonflux_prm.labels.run import run_labelling
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.traces.resumable import Input
from recipes.label_evidence.rollouts import measure, sums


def adder(request):
    """Go on from the last running total, as one who adds without a fault and does not look back."""
    text = request.messages[-1].content
    added = [int(number) for number in re.search(r"What is ([\d +]+)\?", text)[1].split(" + ")]
    totals = [int(number) for number in re.findall(r"= (\d+)\.", text)]
    rest = added[len(totals) + 1 :] if totals else added
    return [rf"\boxed{{{(totals or [0])[-1] + sum(rest)}}}"] * request.n


def test_a_slip_is_where_the_labels_say():
    rows = list(sums(30, 6, 0))
    assert len(rows) == 60
    assert len({tuple(row["step_labels"]) for row in rows}) == 6
    for row in rows:
        steps = [row["thinking"][step["start"] : step["stop"]] for step in row["steps"]]
        sound = [a + b == c for a, b, c in (map(int, re.findall(r"\d+", step)) for step in steps)]
        totals = [int(re.findall(r"\d+", step)[-1]) for step in steps]
        assert row["correct"] == (totals[-1] == int(row["answer"])) == all(sound)
        assert row["step_labels"] == [float(all(sound[: place + 1])) for place in range(len(steps))]


@pytest.fixture
def labelled(tmp_path):
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums(12, 9, 1)))

    def label(name, judge):
        labeller = Labeller(Formula.parse("bounded mean(quality)"), judge=judge, settings=LabelSettings(steps="given"))
        run_labelling(labeller, Input(str(tmp_path / "sums.jsonl")), tmp_path / name)
        return tmp_path / name

    return label


def test_an_able_policy_tells_every_prefix_and_a_search_asks_less(labelled):
    settings = RolloutSettings(n=2)
    full = labelled("full.jsonl", RolloutJudge(ScriptedPolicy(adder), GRADER, settings))
    policy = ScriptedPolicy(adder)
    report = measure(full, labelled("search.jsonl", RolloutSearchJudge(policy, GRADER, settings)))
    assert report["traces"] == 24
    assert report["prefixes"]["auc"]["value"] == 1
    by_steps = report["prefixes"]["auc_by_steps"]
    assert list(by_steps) == [str(steps) for steps in range(1, 9)]
    assert {1.0} == {one["value"] for one in by_steps.values() if one is not None}
    assert (report["prefixes"]["mean_value_right"]["value"], report["prefixes"]["mean_value_wrong"]["value"]) == (1, 0)
    by_all, by_search = report["first_error"]["all prefixes"], report["first_error"]["binary search"]
    assert by_all["found"]["value"] == by_search["found"]["value"] == 1
    assert by_all["prefixes_a_trace"]["value"] == 8
    assert by_search["prefixes_a_trace"]["value"] == len(policy.requests) / 24 <= (2 + 5) / 2


def test_a_policy_that_solves_nothing_finds_nothing_by_search(labelled):
    settings = RolloutSettings(n=2)
    lost = ScriptedPolicy(lambda request: ["I give up."] * request.n)
    full = labelled("full.jsonl", RolloutJudge(lost, GRADER, settings))
    report = measure(full, labelled("search.jsonl", RolloutSearchJudge(lost, GRADER, settings)))
    by_search = report["first_error"]["binary search"]
    assert by_search["told"]["value"] == by_search["found"]["value"] == 0
    assert report["first_error"]["all prefixes"]["told"]["value"] == 1
    assert report["prefixes"]["auc"]["value"] == 0.5
