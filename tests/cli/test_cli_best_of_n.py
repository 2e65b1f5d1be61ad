"""`best-of-n`: from candidates and from scored traces, by every method, in files and pipes."""

from __future__ import annotations

import json

import pytest
from cli_inputs import write_rows

from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.write import read_scored


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_candidates_are_scored_and_picked_from(run, candidates, tiny_prm, tmp_path):
    code, out, err = run("best-of-n", candidates, "-o", "picks.jsonl", "--prm", tiny_prm)
    assert (code, out) == (1, ""), "one candidate has no text"
    last = err.splitlines()[-1]
    assert last.startswith("picks.jsonl: 3 problems, 3 picks, ")
    assert "candidates: 6 scored, 1 no-steps" in last
    assert last.endswith("Next: reasonflux-prm view picks.scored.jsonl --picks picks.jsonl -o picks.html")
    picks = rows(tmp_path / "picks.jsonl")
    scored = list(read_scored(tmp_path / "picks.scored.jsonl"))
    rewards = {record.trace.id: record.reward for record in scored}
    assert [pick["id"] for pick in picks] == ["add", "half", "none"]
    for pick in picks:
        own = [rewards[f"{pick['id']}#{k}"] for k in range(len(pick["scores"]))]
        assert pick["scores"] == own
        assert own[pick["pick"]] == max(reward for reward in own if reward is not None)
        assert pick["pick_id"] == f"{pick['id']}#{pick['pick']}"
    assert picks[0]["answers"] == ["42", "43", "42.0"]
    assert picks[2]["answers"] == [None, None]
    assert picks[2]["scores"][1] is None
    manifest = read_manifest(tmp_path / "picks.jsonl")
    assert (manifest.kind, manifest.counts) == ("picks", {"picked": 3})


@pytest.mark.parametrize("method", ["prm", "weighted", "majority"])
def test_scored_traces_need_no_prm(run, candidates, tiny_prm, tmp_path, method, monkeypatch):
    run("score", candidates, "-o", "scored.jsonl", "--prm", tiny_prm)
    run("best-of-n", candidates, "-o", "direct.jsonl", "--prm", tiny_prm, "--method", "prm")
    monkeypatch.setattr("reasonflux_prm.prm.load.load_prm", lambda *_, **__: pytest.fail("it loaded a PRM"))
    code, _, err = run("best-of-n", "scored.jsonl", "-o", "picks.jsonl", "--method", method)
    assert code == (0 if method == "prm" else 1), "no candidate of one problem states an answer"
    assert "--picks picks.jsonl" in err
    picks = rows(tmp_path / "picks.jsonl")
    assert {pick["method"] for pick in picks} == {method}
    if method == "prm":
        assert picks == rows(tmp_path / "direct.jsonl")
    if method == "majority":
        assert [pick["pick"] for pick in picks] == [0, 0, None]
        assert picks[1]["ties"] == [1]


def test_majority_reads_candidates_and_loads_nothing(run, candidates, tmp_path, monkeypatch):
    monkeypatch.setattr("reasonflux_prm.prm.load.load_prm", lambda *_, **__: pytest.fail("it loaded a PRM"))
    with candidates.open("a") as stream:
        stream.write("not json\n")
    code, _, err = run("best-of-n", candidates, "-o", "picks.jsonl", "--method", "majority")
    assert code == 1
    assert "3 problems, 2 picks, 2 of 2 right where that is known (100.0%); candidates: 1 refused" in err
    assert [pick["correct"] for pick in rows(tmp_path / "picks.jsonl")] == [True, True, None]
    assert rows(tmp_path / "picks.jsonl")[2]["note"] == "no candidate states a final answer"
    assert len(rows(tmp_path / "picks.rejects.jsonl")) == 1


def test_the_grader_is_a_flag_and_in_the_manifest(run, tmp_path):
    texts = [r"The answer is $\sqrt{8}$.", "The answer is 3.", r"The answer is $2\sqrt{2}$."]
    row = {"id": "a", "problem": "p", "answer": "2*sqrt(2)", "candidates": texts}
    write_rows(tmp_path / "c.jsonl", [row])
    for grader, pick in (("string", (0, [1, 2], False)), ("math", (0, [], True)), (None, (0, [], True))):
        flags = [] if grader is None else ["--grader", grader]
        assert run("best-of-n", "c.jsonl", "-o", f"{grader}.jsonl", "--method", "majority", *flags)[0] == 0
        row = rows(tmp_path / f"{grader}.jsonl")[0]
        assert (row["pick"], row["ties"], row["correct"]) == pick
        settings = read_manifest(tmp_path / f"{grader}.jsonl").settings
        assert settings["grader"]["grader"] == (grader or "auto")
    code, _, err = run("best-of-n", "c.jsonl", "-o", "math.jsonl", "--method", "majority", "--grader", "string")
    assert code == 2
    assert "another grader" in err


def test_without_math_verify_the_grader_is_string(run, candidates, tmp_path, monkeypatch):
    monkeypatch.setattr("reasonflux_prm.grading.math_grader.can_do_algebra", lambda: False)
    monkeypatch.setattr("reasonflux_prm.grading.graders.can_do_algebra", lambda: False)
    run("best-of-n", candidates, "-o", "picks.jsonl", "--method", "majority")
    assert read_manifest(tmp_path / "picks.jsonl").settings["grader"]["grader"] == "string"
    code, _, err = run("best-of-n", candidates, "-o", "other.jsonl", "--method", "majority", "--grader", "math")
    assert code == 2
    assert "pip install 'reasonflux-prm[grade]'" in err


def test_limit_counts_problems(run, candidates, tiny_prm, tmp_path):
    flags = ("--limit", 2, "--prm", tiny_prm)
    assert run("best-of-n", candidates, "-o", "picks.jsonl", *flags)[0] == 0
    run("score", candidates, "-o", "scored.jsonl", "--prm", tiny_prm)
    assert run("best-of-n", "scored.jsonl", "-o", "again.jsonl", "--limit", 2)[0] == 0
    picks, again = (rows(tmp_path / name) for name in ("picks.jsonl", "again.jsonl"))
    assert [pick["pick_id"] for pick in picks] == [pick["pick_id"] for pick in again]
    assert [pick["id"] for pick in picks] == ["add", "half"]


def test_another_runs_picks_are_not_touched(run, candidates, tmp_path):
    run("best-of-n", candidates, "-o", "picks.jsonl", "--method", "majority")
    before = (tmp_path / "picks.jsonl").read_bytes()
    assert run("best-of-n", candidates, "-o", "picks.jsonl", "--method", "majority")[0] == 1
    assert (tmp_path / "picks.jsonl").read_bytes() == before
    code, _, err = run("best-of-n", candidates, "-o", "picks.jsonl", "--method", "majority", "--limit", 1)
    assert code == 2
    assert "another input.limit (None, now 1)" in err
    assert (tmp_path / "picks.jsonl").read_bytes() == before
    assert run("best-of-n", candidates, "-o", "picks.jsonl", "--method", "majority", "--limit", 1, "--fresh")[0] == 0
    assert len(rows(tmp_path / "picks.jsonl")) == 1


@pytest.mark.parametrize(
    ("source", "flags", "message"),
    [
        ("scored.jsonl", ["--alpha", "0.5"], "scored already"),
        ("scored.jsonl", ["--format", "native"], "scored already"),
        ("candidates.jsonl", ["--method", "majority", "--prm", "x"], "majority uses no PRM"),
        ("candidates.jsonl", ["--method", "best"], "invalid choice: 'best'"),
    ],
)
def test_flags_that_go_with_nothing(run, candidates, tiny_prm, source, flags, message):
    run("score", candidates, "-o", "scored.jsonl", "--prm", tiny_prm)
    code, _, err = run("best-of-n", source, "-o", "picks.jsonl", *flags)
    assert code == 2
    assert message in err


def test_groups_that_are_torn_apart(run, candidates, tiny_prm, tmp_path):
    run("score", candidates, "-o", "scored.jsonl", "--prm", tiny_prm)
    lines = (tmp_path / "scored.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "torn.jsonl").write_text("".join([*lines[1:], lines[0]]))
    code, _, err = run("best-of-n", "torn.jsonl", "-o", "picks.jsonl")
    assert code == 2
    assert "'add' do not stand together" in err
    assert not (tmp_path / "picks.jsonl").exists()


def test_a_pipe_is_scored_into_a_file(shell, run, candidates, tiny_prm, tmp_path):
    run("best-of-n", candidates, "-o", "direct.jsonl", "--prm", tiny_prm)
    piped = shell("best-of-n", "-", "-o", "picks.jsonl", "--prm", tiny_prm, stdin=candidates.read_bytes() + b"bad\n")
    assert piped.returncode == 1
    assert b"1 refused (see picks.scored.rejects.jsonl)" in piped.stderr
    assert rows(tmp_path / "picks.jsonl") == rows(tmp_path / "direct.jsonl")
    again = shell("best-of-n", "-", "-o", "picks.jsonl", "--prm", tiny_prm, stdin=candidates.read_bytes())
    assert again.returncode == 2
    assert b"--fresh" in again.stderr


def test_refused_records_are_said_where_there_is_no_file_for_them(run, tiny_prm, tmp_path):
    path = write_rows(tmp_path / "c.jsonl", [{"id": "a", "problem": "p", "candidates": ["A: 1", "A: 2"]}])
    with path.open("a") as stream:
        stream.write("bad\n")
    code, out, err = run("best-of-n", path, "-o", "-", "--prm", tiny_prm)
    assert code == 1
    assert json.loads(out)["answers"] == ["1", "2"]
    assert f"refused {path}:2: " in err
    assert err.splitlines()[-1].endswith("candidates: 2 scored, 1 refused.")
