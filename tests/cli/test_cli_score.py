"""`score` and what holds for every command: output, messages, exit codes, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from cli_inputs import ROOT, write_rows

from reasonflux_prm.cli.options import DTYPES
from reasonflux_prm.prm.load import DTYPES as LOAD_DTYPES
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.write import read_scored


def test_score_writes_records_and_says_what_is_next(run, traces, tiny_prm, tmp_path):
    code, out, err = run("score", traces, "-o", "scored.jsonl", "--prm", tiny_prm)
    assert (code, out) == (0, "")
    assert err.splitlines()[-1] == ("scored.jsonl: 40 scored. Next: reasonflux-prm view scored.jsonl -o scored.html")
    assert [record.trace.id for record in read_scored(tmp_path / "scored.jsonl")] == [f"t{i}" for i in range(40)]
    code, _, err = run("score", traces, "-o", "scored.jsonl", "--prm", tiny_prm)
    assert code == 0
    assert "was complete" in err


def test_refused_and_unscored_records_are_counted(run, tiny_prm, tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_text(
        '{"id": "a", "problem": "p", "response": "r"}\nnot json\n{"id": "b", "problem": "p", "response": ""}\n'
    )
    code, _, err = run("score", path, "-o", "out/scored.jsonl", "--prm", tiny_prm)
    assert code == 1
    assert "1 scored, 1 no-steps, 1 refused (see out/scored.rejects.jsonl)" in err.splitlines()[-1]
    reject = json.loads((tmp_path / "out" / "scored.rejects.jsonl").read_text())
    assert (reject["line"], reject["raw"]) == (2, "not json")
    assert run("score", path, "-o", "-", "--prm", tiny_prm)[0] == 1


def test_flags_reach_the_engine(run, traces, tiny_prm, tmp_path):
    flags = (
        "--limit 5 --steps blank-line --alpha 0.5 --aggregation min --overflow tail --overlap 0.25 --context 300 "
        "--dtype bfloat16 --device cpu --pack-tokens 64 --family native"
    )
    assert run("score", traces, "-o", "scored.jsonl", "--prm", tiny_prm, *flags.split())[0] == 0
    settings = read_manifest(tmp_path / "scored.jsonl").settings
    expected = {
        "aggregation": "min",
        "alpha": 0.5,
        "overflow": "tail",
        "overlap": 0.25,
        "context": 300,
        "pack_tokens": 64,
        "steps": "blank-line",
        "dtype": "bfloat16",
        "device": "cpu",
    }
    assert expected.items() <= settings["engine"].items()
    assert settings["input"]["limit"] == 5
    assert settings["prm"]["alpha"] == 0.5
    assert len(list(read_scored(tmp_path / "scored.jsonl"))) == 5


def test_columns_and_format(run, tiny_prm, tmp_path):
    path = write_rows(tmp_path / "mine.jsonl", [{"task": "1 + 1?", "reply": "<think>One.</think>Two."}])
    flags = ("--map", "problem=task,response=reply", "--format", "think")
    assert run("score", path, "-o", "scored.jsonl", "--prm", tiny_prm, *flags)[0] == 0
    (record,) = read_scored(tmp_path / "scored.jsonl")
    assert (record.trace.problem, record.trace.thinking, record.trace.response) == ("1 + 1?", "One.", "Two.")


def test_another_runs_output_is_not_touched(run, traces, tiny_prm, tmp_path):
    run("score", traces, "-o", "scored.jsonl", "--prm", tiny_prm)
    before = (tmp_path / "scored.jsonl").read_bytes()
    code, _, err = run("score", traces, "-o", "scored.jsonl", "--prm", tiny_prm, "--alpha", "0")
    assert code == 2
    assert "another engine.alpha (1.0, now 0.0)" in err
    assert (tmp_path / "scored.jsonl").read_bytes() == before
    assert run("score", traces, "-o", "scored.jsonl", "--prm", tiny_prm, "--alpha", "0", "--fresh")[0] == 0
    assert (tmp_path / "scored.jsonl").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "the following arguments are required"),
        (["bogus"], 2, "invalid choice: 'bogus'"),
        (["score"], 2, "the following arguments are required: TRACES, -o/--output"),
        (["score", "x", "-o", "y", "--steps", "bogus"], 2, "invalid choice: 'bogus'"),
        (["score", "x", "-o", "y", "--limit", "0"], 2, "expected a whole number of at least 1, got '0'"),
        (["score", "x", "-o", "y", "--map", "problem"], 2, "expected FIELD=COLUMN,..., got 'problem'"),
        (["score", "x", "-o", "y", "--lim", "3"], 2, "unrecognized arguments: --lim 3"),
        (["score", "missing.jsonl", "-o", "y"], 2, "missing.jsonl"),
        (["score", "traces.jsonl", "-o", "y", "--prm", "no/such/folder"], 2, "'no/such/folder' is not a PRM"),
        (["score", "traces.jsonl", "-o", "y", "--map", "problem=task"], 2, "expected the column task"),
        (["score", "traces.jsonl", "-o", "y", "--overlap", "1", "--prm", "TINY"], 2, "overlap must be"),
        (["score", "traces.jsonl", "-o", "y", "--context", "9999", "--prm", "TINY"], 2, "not between 1 and 512"),
        (["score", "traces.jsonl", "-o", "y", "--samples", "2", "--prm", "TINY"], 2, "--samples does not go with"),
        (["score", "traces.jsonl", "-o", "y", "--prm", "genprm"], 2, "--policy-model"),
        (
            ["score", "traces.jsonl", "-o", "y", "--prm", "genprm", "--dtype", "float32", "--pack-tokens", "9"],
            2,
            "--dtype, --pack-tokens does not go with --prm genprm",
        ),
        (["view", "traces.jsonl"], 2, "expected a row that `reasonflux-prm score` wrote"),
    ],
)
def test_errors_are_one_sentence(run, traces, tiny_prm, tmp_path, arguments, code, message):
    got, out, err = run(*(str(tiny_prm) if argument == "TINY" else argument for argument in arguments))
    assert (got, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not [path for path in tmp_path.iterdir() if path.name not in ("traces.jsonl",)], "nothing is left behind"


def test_an_empty_file(run, tiny_prm, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    code, _, err = run("score", "empty.jsonl", "-o", "scored.jsonl", "--prm", tiny_prm)
    assert code == 2
    assert "empty" in err


def test_debug_shows_the_traceback(run):
    code, _, err = run("score", "missing.jsonl", "-o", "y", "--debug")
    assert code == 2
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (OSError(28, "No space left on device"), 3, "No space left on device"),
        (MemoryError(), 3, "out of memory"),
        (RuntimeError("odd"), 3, "RuntimeError: odd (--debug shows where)"),
    ],
)
def test_what_else_can_go_wrong(run, traces, monkeypatch, raised, code, message):
    import reasonflux_prm.prm.load

    def fails(*_, **__):
        raise raised

    monkeypatch.setattr(reasonflux_prm.prm.load, "load_prm", fails)
    got, _, err = run("score", traces, "-o", "scored.jsonl")
    assert got == code
    assert message in err
    assert "Traceback" not in err


def test_what_steers_a_terminal_is_written_out(run):
    assert "\x1b" not in run("score", "\x1b[31mred.jsonl", "-o", "y")[2]


def test_dtypes_are_those_that_load():
    assert set(DTYPES) == set(LOAD_DTYPES)


# --- pipes, signals ------------------------------------------------------------------------------------------------


def test_pipes(shell, run, traces, tiny_prm, tmp_path):
    piped = shell("score", "-", "-o", "-", "--prm", tiny_prm, stdin=traces.read_bytes())
    assert piped.returncode == 0, piped.stderr
    assert piped.stderr.splitlines()[-1] == b"40 scored."
    run("score", traces, "-o", "scored.jsonl", "--prm", tiny_prm)
    assert piped.stdout == (tmp_path / "scored.jsonl").read_bytes()
    picked = shell("best-of-n", "-", "-o", "-", stdin=piped.stdout)
    assert picked.returncode == 0, picked.stderr
    assert len(picked.stdout.splitlines()) == 40
    again = shell("score", "-", "-o", "scored.jsonl", "--prm", tiny_prm, stdin=traces.read_bytes())
    assert again.returncode == 2
    assert b"through a pipe" in again.stderr


def start(tmp_path, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "reasonflux_prm.cli.main", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


TRACES = 150


@pytest.fixture
def long_traces(tmp_path):
    """So many that a run lasts; with one token a pack every trace is a chunk of its own."""
    text = "\n\n".join(f"Step {k}: and so it goes on, {k} times." for k in range(6))
    return write_rows(
        tmp_path / "long.jsonl", [{"id": f"t{i}", "problem": "p?", "response": text} for i in range(TRACES)]
    )


def done(tmp_path) -> int:
    journal = tmp_path / ".scored.jsonl.journal"
    return json.loads(journal.read_text())["progress"]["traces"] if journal.exists() else 0


def wait_until_done(process, tmp_path, number: int) -> None:
    deadline = time.monotonic() + 60
    while done(tmp_path) < number:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_started_again_the_bytes_are_the_same(run, tmp_path, long_traces, tiny_prm):
    arguments = ("score", long_traces, "--prm", tiny_prm, "--pack-tokens", 1)
    killed = start(tmp_path, *arguments, "-o", "scored.jsonl")
    wait_until_done(killed, tmp_path, 3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "scored.jsonl").exists()
    assert 3 <= done(tmp_path) < TRACES
    code, _, err = run(*arguments, "-o", "scored.jsonl")
    assert code == 0
    assert f"of {TRACES} traces had been scored before the interruption" in err
    assert run(*arguments, "-o", "whole.jsonl")[0] == 0
    assert (tmp_path / "scored.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_ctrl_c_says_that_the_run_can_go_on(tmp_path, long_traces, tiny_prm):
    process = start(tmp_path, "score", long_traces, "--prm", tiny_prm, "--pack-tokens", 1, "-o", "scored.jsonl")
    wait_until_done(process, tmp_path, 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"the same command goes on from there" in said
    assert b"Traceback" not in said
    assert done(tmp_path) >= 2


def test_a_reader_that_goes_away(tmp_path, long_traces, tiny_prm):
    process = start(tmp_path, "score", long_traces, "--prm", tiny_prm, "--pack-tokens", 1, "-o", "-")
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) == 141
    assert said == b""
