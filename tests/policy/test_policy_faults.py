"""The endpoint's client against a server that fails on purpose, and runs that are killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.policy import openai_compatible, retries
from reasonflux_prm.policy.base import Message, Request
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.completion_store import CompletionStore, request_key
from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy
from tests.policy.faulty_server import FAULTS, FaultyServer, identify

pytest.importorskip("openai")
ROOT = Path(__file__).parents[2]


def requests(count, **settings):
    return [Request((Message("user", f"question {number}"),), **settings) for number in range(count)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retries, "_FIRST_PAUSE_S", 0.02)


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request, monkeypatch):
    """What carries the SDK's requests: aiohttp where it is installed, or the SDK's own."""
    if request.param == "aiohttp":
        pytest.importorskip("aiohttp")
    else:
        monkeypatch.setattr(openai_compatible, "find_spec", lambda name: None)


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_alone_is_overcome(fault):
    with FaultyServer(share=0.5, faults=[fault]) as server:
        policy = OpenAICompatiblePolicy("m", server.url, timeout_s=1, retries=20)
        outcomes = policy.generate(requests(8))
        policy.close()
    assert [outcome[0].text for outcome in outcomes] == [f"echo: question {number}" for number in range(8)]
    assert server.met[fault] == policy.failures.total() > 0
    assert server.asked_after_answer == []


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_that_stays_is_one_clear_sentence(fault):
    with FaultyServer(share=1.0, faults=[fault]) as server:
        policy = OpenAICompatiblePolicy("m", server.url, timeout_s=0.5, retries=1)
        (outcome,) = policy.generate(requests(1))
        policy.close()
    assert isinstance(outcome, PolicyError)
    assert str(outcome).endswith("(2 attempts)")
    assert "\n" not in str(outcome)
    assert server.asked.total() == 2


def with_faults(count, concurrency, timeout_s, attempts):
    with FaultyServer(share=0.3) as server:
        policy = OpenAICompatiblePolicy(
            "m", server.url, concurrency=concurrency, timeout_s=timeout_s, retries=attempts - 1
        )
        outcomes = policy.generate(requests(count))
        policy.close()
    failed = 0
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, PolicyError):
            failed += 1
            assert f"({attempts} attempts)" in str(outcome)
        else:
            assert outcome[0].text == f"echo: question {number}"
    assert failed <= 5 * count * 0.3**attempts + 3
    assert server.asked_after_answer == []
    assert len(server.answered) == server.delivered == count - failed
    assert set(server.met) == set(FAULTS)
    assert server.asked.total() == policy.attempts
    assert server.most_under_way <= concurrency + server.met["hang"] + server.met["trickle"]


def test_a_share_of_faults_loses_nothing_and_repeats_nothing():
    with_faults(300, concurrency=48, timeout_s=3, attempts=4)


@pytest.mark.slow
def test_five_thousand_requests_with_thirty_in_a_hundred_failing():
    with_faults(5000, concurrency=64, timeout_s=5, attempts=4)


def test_each_completion_of_a_server_that_ignores_n_survives_faults():
    with FaultyServer(share=0.3, honours_n=False, faults=["500", "half a response", "malformed JSON"]) as server:
        policy = OpenAICompatiblePolicy("m", server.url, timeout_s=2, retries=10, concurrency=16)
        outcomes = policy.generate(requests(20, n=4, seed=1))
        policy.close()
    assert [len(outcome) for outcome in outcomes] == [4] * 20
    assert len(server.answered) == server.delivered == 80
    assert server.asked_after_answer == []


KILLED = """
import sys
from pathlib import Path
from reasonflux_prm.policy import retries
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy
from tests.policy.test_policy_faults import requests
retries._FIRST_PAUSE_S = 0.02
policy = CachedPolicy(OpenAICompatiblePolicy("m", sys.argv[1], concurrency=16, timeout_s=30), Path(sys.argv[2]))
policy.generate(requests(400))
policy.close()
"""


def committed(path):
    """The requests whose answers are in the file."""
    if not path.exists():
        return set()
    store = CompletionStore(path)
    identity = {"backend": "openai-compatible", "model": "m"}
    found = {request for request in requests(400) if store.read(request_key(identity, request), 1)}
    store.close()
    return found


@pytest.mark.parametrize("kills", [[150], pytest.param([60, 150, 250, 320], marks=pytest.mark.slow)])
def test_a_run_that_is_killed_asks_nothing_twice_that_was_kept(tmp_path, kills):
    path = tmp_path / "completions.sqlite"
    with FaultyServer(share=0.2, latency_s=0.03, faults=["429", "500", "half a response", "disconnect"]) as server:
        command = [sys.executable, "-c", KILLED, server.url, str(path)]
        for kill_after in kills:
            kept = {request.messages[0].content for request in committed(path)}
            asked_before = server.asked.copy()
            run = subprocess.Popen(command, cwd=ROOT)
            try:
                while server.delivered < kill_after:
                    assert run.poll() is None
                    time.sleep(0.002)
            finally:
                run.send_signal(signal.SIGKILL)
                run.wait()
            asked = {content_of(name) for name in server.asked - asked_before}
            assert asked
            assert not asked & kept
            assert len(committed(path)) >= len(kept) + 10
        kept = committed(path)
        asked_before = server.asked.copy()
        subprocess.run(command, cwd=ROOT, check=True, timeout=120)
        asked_last = server.asked - asked_before
    assert len(asked_last) == 400 - len(kept)
    assert len(committed(path)) == 400
    # Under way when the process was killed: answered to nobody, or not yet on the disk.
    assert len(set(server.asked_after_answer)) <= len(kills) * 16


def content_of(name):
    return name.split('"content": "')[1].split('"')[0]


def test_a_run_that_was_finished_asks_nothing(tmp_path):
    with FaultyServer() as server:
        for _ in range(2):
            policy = CachedPolicy(OpenAICompatiblePolicy("m", server.url), tmp_path / "c.sqlite")
            assert len(policy.generate(requests(20))) == 20
            policy.close()
    assert server.asked.total() == 20


def test_the_server_counts_by_request():
    body = {"messages": [{"role": "user", "content": "a"}], "seed": 1}
    assert identify(body) == identify({**body, "n": 3})
    assert identify(body) != identify({**body, "seed": 2})
    assert content_of(identify(body)) == "a"
