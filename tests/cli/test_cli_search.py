"""`search`: every method from problems to answers, with a tiny model that writes and a tiny PRM that reads."""

from __future__ import annotations

import json
import sys

import pytest
from cli_inputs import ROOT, write_rows

from reasonflux_prm.traces.manifest import read_manifest

pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory):
    """A folder with a tiny random language model."""
    sys.path.append(str(ROOT))
    from tests.policy.tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("policy") / "tiny")


@pytest.fixture
def problems(tmp_path):
    """Two problems, and two records that are none."""
    rows = [
        {"id": "add", "problem": "12 + 30?", "answer": "42"},
        {"id": "half", "question": "Half of 84?", "answer": "42"},
        {"id": "none"},
        {"id": "add", "problem": "again"},
    ]
    return write_rows(tmp_path / "problems.jsonl", rows)


@pytest.fixture
def search(run, problems, tiny_prm, tiny_policy, tmp_path):
    """Run `search` on the problems; return exit code, results and standard error."""

    def call(method, *flags, prm=tiny_prm, output="answers.jsonl"):
        common = ["--policy", f"local:{tiny_policy}", "--max-tokens", 24, "--step-tokens", 8, "--cache", "c.sqlite"]
        code, out, err = run(
            "search", problems, "-o", output, "--method", method, "--prm", prm, "--grader", "string", *common, *flags
        )
        lines = out if output == "-" else (tmp_path / output).read_text() if (tmp_path / output).exists() else ""
        return code, [json.loads(line) for line in lines.splitlines()], err

    return call


@pytest.mark.parametrize(
    ("method", "flags", "candidates"),
    [
        ("sample", ["--n", 3], 3),
        ("adaptive", ["--n", 3], 3),
        ("beam", ["--width", 2, "--expand", 2], 2),
        ("dvts", ["--width", 2, "--expand", 2], 2),
        ("particles", ["--n", 3, "--balance", 2], 3),
        ("rebase", ["--n", 3], 3),
    ],
)
def test_methods(search, tmp_path, method, flags, candidates):
    code, found, err = search(method, *flags)
    assert code == 1, "two records are no problems"
    assert [row["id"] for row in found] == ["add", "half"]
    for row in found:
        assert len(row["candidates"]) == candidates
        rewards = [one["reward"] for one in row["candidates"]]
        assert row["picked"]["pick"] == rewards.index(max(rewards))
        assert row["cost"]["policy_tokens"] > 0
        assert all(one["completion_tokens"] <= 24 + 8 for one in row["candidates"])
    last = err.splitlines()[-1]
    assert last.startswith("answers.jsonl: 2 problems, 2 picks, 0 of 2 right where that is known (0.0%)")
    assert "2 refused (see answers.rejects.jsonl)" in last
    assert last.endswith("Next: reasonflux-prm score answers.jsonl -o answers.scored.jsonl")
    manifest = read_manifest(tmp_path / "answers.jsonl")
    assert (manifest.kind, manifest.counts, manifest.rejects) == ("search", {"picked": 2}, 2)
    assert manifest.settings["search"]["method"]["name"] == method
    _, again, err = search(method, *flags)
    assert again == found
    assert "was complete" in err


def test_a_majority_without_a_prm(search):
    _, found, _ = search("sample", "--n", 2, "--pick", "majority", prm="none")
    assert all(row["cost"]["prm_tokens"] == 0 for row in found)


def test_a_cap_and_a_pipe(search):
    code, found, err = search("beam", "--cap-tokens", 60, "--stop", r"a\n", "--stop", "q", output="-")
    assert code == 1
    assert all(row["capped"] for row in found)
    assert "2 problems reached the cap" in err.splitlines()[-1]
    assert "refused" in err.splitlines()[0]


@pytest.mark.parametrize(
    ("method", "flags", "message"),
    [
        ("beam", ["--n", 4], "--n does not go with the method beam; it takes --width, --expand"),
        ("sample", ["--width", 4], "--width does not go with the method sample"),
        ("beam", ["--steps", "sentence"], "--steps cuts finished traces"),
        ("beam", ["--prm", "none"], "the method beam needs a PRM"),
        ("sample", ["--pick", "majority"], "a majority of whole traces uses no PRM"),
        ("sample", ["--prm", "none", "--alpha", "0"], "without a PRM"),
        ("sample", ["--temperature", "-1"], "temperature must be at least 0"),
        ("adaptive", ["--confidence", "0.9"], "a confidence goes with the pick majority"),
        ("sample", ["--policy", "nobody"], "a policy is named as"),
    ],
)
def test_flags_that_do_not_go_together(search, tmp_path, method, flags, message):
    code, found, err = search(method, *flags)
    assert (code, found) == (2, [])
    assert message in err
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_task_without_problems_of_its_own(run, tiny_policy):
    code, _, err = run("search", "-o", "a.jsonl", "--method", "sample", "--policy", f"local:{tiny_policy}")
    assert code == 2
    assert "the task custom has no problems of its own" in err
