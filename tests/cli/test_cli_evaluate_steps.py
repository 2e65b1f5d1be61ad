"""`evaluate` with step benchmarks: from a file to a report, again from what is on the disk, and what is refused."""

from __future__ import annotations

import json
import random

import pytest
from cli_inputs import write_rows


@pytest.fixture
def bench(tmp_path):
    """Twelve solutions of GSM8K's and MATH's subsets, and a bad record."""
    rng = random.Random(0)
    rows = []
    for k in range(12):
        steps = [f"Step {i}: {rng.randint(0, 99)} apples." for i in range(3)]
        label = rng.choice([0, 1, 2]) if k % 2 else -1
        rows.append({"id": f"{'gsm8k' if k < 6 else 'math'}-{k}", "problem": f"p{k}", "steps": steps, "label": label})
    return write_rows(tmp_path / "bench.jsonl", [*rows, {"id": "math-99", "problem": "p", "steps": ["a"], "label": 3}])


def read(path):
    return json.loads(path.read_text("utf-8"))


def test_processbench_from_a_file(run, bench, tiny_prm, tmp_path):
    command = ("evaluate", "processbench", "--file", bench, "--prm", tiny_prm, "-o", "r.json", "--resamples", 20)
    code, out, err = run(*command)
    assert code == 1, "one record was refused"
    assert out.startswith("# ProcessBench\n")
    assert (tmp_path / "r.md").read_text() == out
    assert "1 refused (see r.traces.rejects.jsonl)" in err.splitlines()[-1]
    assert "Next: reasonflux-prm view r.scored.jsonl -o r.html" in err
    assert "`label` to be -1 or the index" in (tmp_path / "r.traces.rejects.jsonl").read_text()
    report = read(tmp_path / "r.json")
    f1 = [m for m in report["measures"] if m["metric"].startswith("F1") and m["scope"] == "mean of the subsets"]
    assert {m["way"] for m in f1} == {"PRM", "earlier step", "shorter step"}
    assert set(report["thresholds"]) == {"PRM", "earlier step", "shorter step"}
    assert report["settings"]["threshold"] == 0.5
    assert report["details"]["scoring"]["prm"]["alpha"] == 0.0
    before = (tmp_path / "r.json").read_bytes()
    code, _, err = run(*command)
    assert "r.scored.jsonl was complete: nothing was left to score" in err
    assert (tmp_path / "r.json").read_bytes() == before
    code, _, err = run(*command, "--threshold", "0.3")
    assert code == 2
    assert "a report of other settings, such as threshold (None, now 0.3)" in err
    code, out, _ = run(*command, "--threshold", "0.3", "--fresh", "--dev", bench)
    assert code == 1
    assert "threshold chosen on the dev set" in out
    assert "threshold 0.3" in out


def test_what_an_earlier_run_scored_is_judged_again_without_a_prm(run, bench, tiny_prm, tmp_path):
    start = ("evaluate", "processbench", "--resamples", 20)
    run(*start, "--file", bench, "--prm", tiny_prm, "-o", "r.json", "--dev", bench)
    code, out, _ = run(*start, "--file", "r.scored.jsonl", "--dev", "r.dev.scored.jsonl", "-o", "again.json")
    assert code == 0, "the record that was refused is not there any more"
    assert out == (tmp_path / "r.md").read_text()
    assert read(tmp_path / "again.json")["measures"] == read(tmp_path / "r.json")["measures"]
    code, _, _ = run(*start, "--file", "r.scored.jsonl", "--check-claims", "-o", "checked.json")
    assert code == 0
    names = {json.loads(line)["prm"]["name"] for line in (tmp_path / "checked.checked.jsonl").open(encoding="utf-8")}
    assert len(names) == 1
    assert names.pop().endswith("+claims")


def test_scored_files_that_say_nothing_of_the_benchmark_are_refused(run, bench, tiny_prm, tmp_path):
    start = ("evaluate", "processbench", "--resamples", 20)
    run(*start, "--file", bench, "--prm", tiny_prm, "-o", "r.json")
    for words, expected in (
        (("--file", "r.scored.jsonl", "--prm", tiny_prm), "is scored already, so --limit and flags"),
        (("--file", "r.scored.jsonl", "--limit", 2), "is scored already, so --limit and flags"),
        (("--file", "r.scored.jsonl", "--file", bench), "bench.jsonl is not scored, and other files are"),
        (("--file", "r.scored.jsonl", "--file", "r.scored.jsonl"), "expected one scored file in --file"),
    ):
        code, _, err = run(*start, *words, "-o", "x.json")
        assert code == 2
        assert expected in err
    code, _, err = run("evaluate", "prmbench", "--file", "r.scored.jsonl", "-o", "x.json")
    assert code == 2
    assert "expected in r.scored.jsonl what an earlier `evaluate prmbench` scored" in err


def test_flags_that_mean_nothing_are_refused(run, bench, tiny_prm):
    start = ("evaluate", "processbench", "--file", bench, "--prm", tiny_prm, "-o", "r.json")
    for flags in (("--n", 4), ("--steps", "turn"), ("--alpha", 2), ("--candidates", bench), ("--regrade",)):
        code, _, err = run(*start, *flags)
        assert code == 2
        assert f"{flags[0]}: that means nothing to the step benchmark processbench" in err
    code, _, err = run("evaluate", "gsm8k", "--candidates", bench, "--file", bench, "-o", "r.json")
    assert code == 2
    assert "--file: that goes with step benchmarks only" in err
    assert run("evaluate", "processbench", "--prm", tiny_prm)[0] == 2
    code, _, err = run("evaluate", "steps", "--prm", tiny_prm, "-o", "r.json")
    assert code == 2
    assert "name its file with --file" in err


def test_they_are_listed(run):
    code, out, _ = run("evaluate", "--list")
    assert code == 0
    assert "| prmbench | 6,216 traces | hitsmy/PRMBench_Preview | step labels | Apache-2.0 |" in out
