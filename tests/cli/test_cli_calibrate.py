"""`calibrate`: maps and folders from scored traces, measured on rewards not seen, and whatever can be amiss."""

from __future__ import annotations

import json
import random

import pytest
from cli_inputs import write_rows

from reasonflux_prm.cli.main import main


@pytest.fixture(scope="session")
def labelled_rows():
    """Sixty traces with steps."""
    rng = random.Random(0)
    rows = []
    for k in range(60):
        steps = [f"Step {i}: {rng.randint(0, 99)} + {rng.randint(0, 99)}." for i in range(rng.randint(2, 6))]
        rows.append({"id": f"t{k}", "problem": f"Sum {k % 20}?", "steps": steps, "labels": [1] * len(steps)})
    return rows


@pytest.fixture
def labelled(labelled_rows, tmp_path):
    return write_rows(tmp_path / "dev.jsonl", labelled_rows)


@pytest.fixture(scope="session")
def scored_rows(labelled_rows, tiny_prm, tmp_path_factory):
    """The same, scored, with labels that rise with the rewards: the more likely good, the higher a reward ranks."""
    folder = tmp_path_factory.mktemp("scored")
    source = write_rows(folder / "dev.jsonl", labelled_rows)
    flags = ("--steps", "given", "--prm", str(tiny_prm))
    assert main(["score", str(source), "-o", str(folder / "raw.jsonl"), *flags]) == 0
    rng = random.Random(1)
    rows = [json.loads(line) for line in (folder / "raw.jsonl").read_text().splitlines()]
    steps = sorted(step["reward"] for row in rows for step in row["steps"])
    wholes = sorted(row["trajectory_reward"] for row in rows)
    for row in rows:
        row["step_labels"] = [float(rng.random() < 0.8 * _rank(steps, step["reward"])) for step in row["steps"]]
        row["correct"] = rng.random() < _rank(wholes, row["trajectory_reward"])
    return rows


def _rank(rewards, reward):
    return rewards.index(reward) / len(rewards)


@pytest.fixture
def scored(scored_rows, tmp_path):
    write_rows(tmp_path / "raw.jsonl", scored_rows)
    return write_rows(tmp_path / "scored.jsonl", scored_rows)


def rewards(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [step["reward"] for row in rows for step in row["steps"]], [row["trajectory_reward"] for row in rows]


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_a_calibrated_prm_scores_calibrated(run, scored, labelled, tmp_path, kind):
    flags = ("--map", kind, "--resamples", 50, "--target", "steps", "--figure", "r.svg")
    code, out, err = run("calibrate", scored, "-o", "calibrated", *flags)
    assert code == 0, err
    assert out.startswith("# Calibration of ")
    assert "| uncalibrated | " in out
    assert "| calibrated without the problem | " in out
    assert "Next: reasonflux-prm score TRACES --prm calibrated -o scored.jsonl" in err
    assert (tmp_path / "r.svg").read_text().startswith("<svg")
    record = json.loads((tmp_path / "calibrated" / "calibration.json").read_text())
    assert list(record["calibration"]) == ["steps"]
    before, after = record["report"][0]["measured"]
    assert after["error"]["value"] < before["error"]["value"]
    assert run("score", labelled, "-o", "again.jsonl", "--steps", "given", "--prm", "calibrated")[0] == 0
    raw, own = rewards(tmp_path / "raw.jsonl"), rewards(tmp_path / "again.jsonl")
    assert own[1] == raw[1], "the trajectory reward was left as it is"
    order = sorted(range(len(raw[0])), key=raw[0].__getitem__)
    assert [own[0][k] for k in order] == sorted(own[0])
    assert own[0] != raw[0]


def test_maps_alone_and_a_second_calibration_of_the_same_rewards(run, scored, labelled, tmp_path):
    flags = ("--resamples", 20)
    assert run("calibrate", scored, "-o", "maps.json", *flags)[0] == 0
    first = json.loads((tmp_path / "maps.json").read_text())["calibration"]
    assert set(first) == {"steps", "trajectory"}
    assert run("calibrate", scored, "-o", "calibrated", *flags)[0] == 0
    # Scored by the calibrated PRM, with the labels of before: its raw rewards are found again.
    assert run("score", labelled, "-o", "own.jsonl", "--steps", "given", "--prm", "calibrated")[0] == 0
    labels = {row["id"]: row for row in map(json.loads, scored.read_text().splitlines())}
    rows = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    for row in rows:
        row["step_labels"], row["correct"] = labels[row["id"]]["step_labels"], labels[row["id"]]["correct"]
    write_rows(tmp_path / "own.jsonl", rows)
    assert run("calibrate", "own.jsonl", "-o", "again.json", *flags)[0] == 0
    second = json.loads((tmp_path / "again.json").read_text())["calibration"]
    for target in first:
        assert second[target]["temperature"] == pytest.approx(first[target]["temperature"], rel=1e-3)
        assert second[target]["bias"] == pytest.approx(first[target]["bias"], abs=1e-3)


def test_another_file_to_measure_on(run, scored, tmp_path):
    code, out, _ = run("calibrate", scored, "-o", "m.json", "--test", scored, "--resamples", 20)
    assert code == 0
    assert "| another file, calibrated |" in out
    assert "| another file, uncalibrated |" in out


def test_outputs_are_not_replaced(run, scored):
    assert run("calibrate", scored, "-o", "m.json", "--resamples", 20)[0] == 0
    code, _, err = run("calibrate", scored, "-o", "m.json", "--resamples", 20)
    assert code == 2
    assert "m.json exists; choose another output, or pass --fresh" in err
    assert run("calibrate", scored, "-o", "m.json", "--resamples", 20, "--fresh")[0] == 0


def test_what_cannot_be_calibrated(run, scored, tmp_path, tiny_prm):
    rows = [json.loads(line) for line in scored.read_text().splitlines()]

    def calibrate(change, *flags):
        write_rows(tmp_path / "changed.jsonl", [change(json.loads(json.dumps(row))) for row in rows])
        code, _, err = run("calibrate", "changed.jsonl", "-o", "out", *flags)
        assert code == 2
        return err.splitlines()[-1]

    def all_good(row):
        return row | {"step_labels": [1.0] * len(row["step_labels"])}

    assert (
        "changed.jsonl, step rewards: expected labels of good and of wrong items to calibrate on, got all of "
        in calibrate(all_good)
    )
    assert "leave it as it is with --target trajectory" in calibrate(all_good)

    def none(row):
        return {name: own for name, own in row.items() if name not in ("step_labels", "given_steps")} | {
            "correct": None
        }

    assert "expected step labels" in calibrate(none)
    assert "got none" in calibrate(none, "--target", "steps")

    def reversed_labels(row):
        return row | {"step_labels": [float(step["reward"] < 0.3) for step in row["steps"]]}

    assert "no calibration can mend" in calibrate(reversed_labels)
    assert "is of revision" in calibrate(lambda row: row | {"prm": row["prm"] | {"revision": "other"}}).replace(
        "are of", "is of"
    )
    assert "only PRMs in our own format" in calibrate(lambda row: row | {"prm": row["prm"] | {"family": "skywork"}})
    assert "say with --prm where it is" in calibrate(lambda row: row | {"prm": row["prm"] | {"name": "gone"}})
    halves = iter(range(len(rows)))
    assert "found those of 2 PRMs" in calibrate(lambda row: row | {"prm": row["prm"] | {"name": f"{next(halves) % 2}"}})
    assert run("calibrate", scored, "-o", "out", "--figure", "f.png")[0] == 2
