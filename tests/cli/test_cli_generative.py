"""Generative verifiers: the same records and files, asked of a served model."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cli_inputs import write_rows

from reasonflux_prm.errors import PolicyError, UsageError
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.records import Status, Step, Trace
from reasonflux_prm.scoring.generative_run import CHUNK_TRACES, GenerativeScorer
from reasonflux_prm.scoring.run import Input, run_scoring
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.write import read_scored

CHAIN = "Step 1: fine. \\boxed{correct}\nStep 2: no. \\boxed{incorrect}\n</think>\nIs the solution correct? No"
TRACE = Trace("t", "1 + 1?", response="One.\n\nThree.")


def verifier(request):
    """Answer ThinkPRM's question; a request that names trouble fails."""
    asked = request.messages[-1].content
    return PolicyError("refused") if "trouble" in asked else CHAIN


def scorer(policy=None, **settings) -> GenerativeScorer:
    return GenerativeScorer(policy or ScriptedPolicy(verifier, "judge"), "thinkprm", steps="blank-line", **settings)


def only(chunks):
    (chunk,) = chunks
    return chunk


def test_a_record():
    (record,) = only(scorer().score_chunks([TRACE]))
    assert (record.status, record.step_rewards, record.trajectory_reward) == (Status.SCORED, (1.0, 0.0), 0.0)
    assert record.reward == 0.5
    assert (record.prm.name, record.prm.family, record.prm.aggregation) == ("judge", "thinkprm", "mean")
    assert record.steps == (Step("response", 0, 6), Step("response", 6, 12))


def test_settings():
    (record,) = only(scorer(aggregation="min", alpha=0.0).score_chunks([TRACE]))
    assert (record.reward, record.prm.alpha) == (0.0, 0.0)
    policy = ScriptedPolicy(verifier)
    only(scorer(policy, samples=3).score_chunks([TRACE]))
    assert policy.requests[-1].n == 3
    for wrong in ({"aggregation": "best"}, {"alpha": float("nan")}, {"samples": 0}):
        with pytest.raises(UsageError):
            scorer(**wrong)


def test_a_trace_that_cannot_be_scored_stops_nobody():
    traces = [Trace("empty", "p"), Trace("bad", "trouble", response="x"), TRACE]
    records = only(scorer().score_chunks(traces))
    assert [record.status for record in records] == [Status.NO_STEPS, Status.FAILED, Status.SCORED]
    assert "refused" in records[1].note
    (record,) = only(GenerativeScorer(ScriptedPolicy(verifier), "thinkprm", steps="given").score_chunks([TRACE]))
    assert record.status is Status.FAILED
    assert "came without steps" in record.note


def test_a_chunk_of_failures_is_kept_while_the_server_answers():
    (record,) = only(scorer().score_chunks([Trace("bad", "trouble", response="x")]))
    assert record.status is Status.FAILED


def test_a_server_that_goes_away_stops_the_run_which_goes_on_later(tmp_path):
    answers = [0]

    def dies(request):
        answers[0] += 1
        return verifier(request) if answers[0] <= CHUNK_TRACES + 1 else PolicyError("gone")

    path = write_rows(
        tmp_path / "t.jsonl",
        [{"id": f"t{i}", "problem": "p", "response": "One.\n\nTwo."} for i in range(CHUNK_TRACES + 4)],
    )
    with pytest.raises(PolicyError, match="gone"):
        run_scoring(
            scorer(ScriptedPolicy(lambda _: PolicyError("gone"), "judge")), Input(str(path)), tmp_path / "a.jsonl"
        )
    output = tmp_path / "scored.jsonl"
    with pytest.raises(PolicyError, match="gone"):
        run_scoring(scorer(ScriptedPolicy(dies, "judge")), Input(str(path)), output)
    assert not output.exists()
    progress = run_scoring(scorer(), Input(str(path)), output)
    assert (progress.traces, progress.resumed_traces, progress.unscored) == (CHUNK_TRACES + 4, CHUNK_TRACES, 0)
    run_scoring(scorer(), Input(str(path)), tmp_path / "whole.jsonl")
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


class _Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choices = [{"message": {"content": CHAIN}, "finish_reason": "stop"}] * body.get("n", 1)
        answer = json.dumps({"choices": choices}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_command_line(run, tmp_path, url):
    pytest.importorskip("openai")
    path = write_rows(tmp_path / "t.jsonl", [{"id": "t", "problem": "p", "response": "One.\n\nTwo."}])
    flags = ("--prm", "thinkprm", "--policy-model", "m", "--policy-url", url, "--steps", "blank-line", "--samples", 2)
    code, _, err = run("score", path, "-o", "scored.jsonl", *flags)
    assert code == 0, err
    (record,) = read_scored(tmp_path / "scored.jsonl")
    assert (record.step_rewards, record.prm.name) == ((1.0, 0.0), "m")
    assert read_manifest(tmp_path / "scored.jsonl").settings["engine"] == {"samples": 2, "steps": "blank-line"}


def test_a_server_that_is_not_there(run, tmp_path, monkeypatch):
    openai = pytest.importorskip("openai")
    monkeypatch.setattr(openai, "OpenAI", lambda **given: _OpenAI(**{**given, "max_retries": 0}))
    path = write_rows(tmp_path / "t.jsonl", [{"id": "t", "problem": "p", "response": "One."}])
    flags = ("--prm", "thinkprm", "--policy-model", "m", "--policy-url", "http://127.0.0.1:9/v1")
    code, _, err = run("score", path, "-o", "scored.jsonl", *flags)
    assert code == 3
    assert "could not be reached" in err
    assert not (tmp_path / "scored.jsonl").exists()


def _OpenAI(**given):
    from openai._client import OpenAI

    return OpenAI(**given)
