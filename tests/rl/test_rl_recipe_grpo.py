"""The recipe's table: pooled accuracies, paired differences, the course of training, alarms from a log."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("trl")  # what the recipe trains with

from recipes.grpo.measure import Graded
from recipes.grpo.sizes import REWARDS, SIZES
from recipes.grpo.table import Run, alarms, write_table
from recipes.grpo.work import Job, all_jobs, done, taken


def log(reward, accuracy, tokens=(100, 100), n=8):
    """Return a log whose numbers go from the first to the last of each pair; small waves give batches a deviation."""
    return [
        {
            "loss": 0.0,
            "kl": 0.01 * k,
            **{
                f"monitor/{name}": a + (b - a) * k / (n - 1) + 0.001 * (-1) ** k
                for name, (a, b) in {"reward": reward, "accuracy": accuracy, "tokens": tokens, "steps": (4, 4)}.items()
            },
            "monitor/auc": 0.6,
            "monitor/unscored": 0.0,
            "monitor/flat": 0.1,
        }
        for k in range(n)
    ]


def graded(*rights):
    return {"gsm8k": Graded({f"p{n}": list(own) for n, own in enumerate(rights)}, 120.0, 0.25)}


def test_the_table(tmp_path):
    runs = [
        Run("before", 0, [], graded([True], [False], [False], [False])),
        Run("rule", 0, log((0.5, 0.5), (0.2, 0.4)), graded([True], [True], [False], [False])),
        Run("rule", 1, log((0.5, 0.5), (0.2, 0.4)), graded([True], [False], [False], [False])),
        Run("prm", 0, log((0.5, 0.9), (0.3, 0.0), (100, 300)), graded([False], [False], [False], [False])),
        Run("prm", 1, log((0.5, 0.9), (0.3, 0.0)), graded([True], [False], [False], [False])),
    ]
    text = write_table(runs, SIZES["tiny"], {"size": "tiny"}, tmp_path)
    assert text == (tmp_path / "table.md").read_text("utf-8")
    rows = {row["reward"]: row for row in json.loads((tmp_path / "table.json").read_text("utf-8"))["rows"]}
    assert list(rows) == ["before", "rule", "prm"]
    assert rows["rule"]["gsm8k"]["accuracy"]["value"] == pytest.approx(3 / 8)
    assert rows["rule"]["gsm8k"]["by_seed"] == [0.5, 0.25]
    assert rows["prm"]["gsm8k"]["minus_rule"]["value"] == pytest.approx(1 / 8 - 3 / 8)
    assert rows["prm"]["gsm8k"]["accuracy"]["clusters"] == 4
    assert rows["prm"]["training_reward"][0] == pytest.approx([0.5286, 0.8714], abs=1e-3)
    assert rows["prm"]["alarms"] == [["gamed at 5", "longer at 7"], ["gamed at 5"]]
    assert "| prm | 2 | 0.125 (" in text
    assert "seed 0: gamed at 5, longer at 7" in text
    assert "| before | 1 | 0.250" in text


def test_a_calm_log_gives_no_alarm():
    assert alarms(log((0.5, 0.6), (0.3, 0.5)), 2) == []


def test_all_rewards_measure_outcome_and_prm():
    assert list(REWARDS) == ["rule", "blend", "process", "gated", "prm", "process-flat", "potential"]
    assert all(own.needs_prm and own.needs_outcome for own in REWARDS.values())


def test_only_seeds_that_both_have_are_compared_and_missing_runs_are_named(tmp_path):
    runs = [
        Run("rule", 0, log((0.5, 0.5), (0.2, 0.4)), graded([True], [False])),
        Run("rule", 1, log((0.5, 0.5), (0.2, 0.4)), graded([False], [False])),
        Run("prm", 1, log((0.5, 0.5), (0.2, 0.4)), graded([True], [True])),
    ]
    text = write_table(runs, SIZES["tiny"], {}, tmp_path, ["prm-0"])
    table = json.loads((tmp_path / "table.json").read_text("utf-8"))
    assert table["rows"][1]["gsm8k"]["minus_rule"]["value"] == 1.0
    assert table["missing"] == ["prm-0"]
    assert "Not done, and not in the table: prm-0." in text


def test_jobs_are_in_the_order_of_seeds():
    names = [job.name for job in all_jobs(["rule", "prm"], 2)]
    assert names == ["before-0", "rule-0", "prm-0", "rule-1", "prm-1"]


def test_a_run_is_taken_once(tmp_path):
    with taken(tmp_path / "rule-0") as first, taken(tmp_path / "rule-0") as second:
        assert (first, second) == (True, False)
    with taken(tmp_path / "rule-0") as again:
        assert again


def test_a_job_is_done_when_all_its_tests_are(tmp_path):
    folder = tmp_path / "before-0"
    folder.mkdir()
    tested = {"right": {"p0": [True]}, "tokens": 9.0, "cut": 0.0}
    (folder / "gsm8k.graded.json").write_text(json.dumps(tested), "utf-8")
    assert done(Job("before", 0), tmp_path, ["gsm8k", "svamp"]) is None
    (folder / "svamp.graded.json").write_text(json.dumps(tested), "utf-8")
    assert done(Job("before", 0), tmp_path, ["gsm8k", "svamp"]).tested["svamp"] == Graded(**tested)
