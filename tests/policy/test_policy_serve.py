"""A real OpenAI-compatible server with a real small model, driven end to end: `transformers serve` and SmolLM2.

Needs transformers[serving] and the base in the cache (`reasonflux-prm models fetch`).
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from reasonflux_prm.errors import PolicyError, PolicyStopped
from reasonflux_prm.policy.base import Message, Request
from reasonflux_prm.policy.budget import Budget, BudgetedPolicy
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.local import LocalPolicy
from reasonflux_prm.policy.open import PolicySettings, open_policy
from reasonflux_prm.storage import cache_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base, with leave to sample: `transformers serve` is greedy at every temperature without it."""
    for module in ("openai", "fastapi", "uvicorn", "transformers"):
        pytest.importorskip(module)
    from reasonflux_prm.prm.embedded.fetch import SMOLLM2
    from reasonflux_prm.prm.embedded.install import ensure_base

    if not list(cache_folder().glob(f"{SMOLLM2.name}-*.gguf")):
        pytest.skip("the base is not in the cache")
    folder = tmp_path_factory.mktemp("served") / "base"
    folder.mkdir()
    for file in ensure_base().iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").write_text('{"do_sample": true, "eos_token_id": 2}')
    return folder


@pytest.fixture(scope="module")
def url(base, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(base)]
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--device", "cpu", "--dtype", "float32", "--port", str(port), "--host", "127.0.0.1"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    try:
        until = time.monotonic() + 240
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            # Not /v1/models, which never lists a local folder.
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture
def served(base, url):
    policy = open_policy(f"{base}@{url}", PolicySettings(concurrency=2, timeout_s=200, retries=1))
    yield policy
    policy.close()


def ask(content, **settings):
    return Request((Message("user", content),), **{"temperature": 0.0, "max_tokens": 24, **settings})


QUESTIONS = ["What is the capital of France?", "Write one short sentence about rain.", "What is 2 + 2?"]


def test_a_served_model_says_what_the_same_model_says_in_this_process(served, base):
    outcomes = served.generate([ask(question) for question in QUESTIONS])
    local = LocalPolicy(str(base), device="cpu")
    expected = local.generate([ask(question) for question in QUESTIONS])
    local.close()
    assert "Paris" in outcomes[0][0].text
    assert [outcome[0].text.strip() for outcome in outcomes] == [outcome[0].text.strip() for outcome in expected]
    assert [outcome[0].prompt_tokens for outcome in outcomes] == [outcome[0].prompt_tokens for outcome in expected]
    assert [outcome[0].finish_reason for outcome in outcomes] == [outcome[0].finish_reason for outcome in expected]


def test_n_samples_come_from_a_server_that_ignores_n_and_are_cached(served, tmp_path):
    budgeted = BudgetedPolicy(served, Budget(requests=2))
    policy = CachedPolicy(budgeted, tmp_path / "completions.sqlite")
    request = ask(QUESTIONS[1], temperature=1.0, seed=5, n=2, max_tokens=12)
    (first,) = policy.generate([request])
    assert served.attempts == 2
    assert len({one.text for one in first}) == 2
    assert policy.generate([request]) == [first]
    assert served.attempts == 2
    assert budgeted.spent.requests == 1
    assert budgeted.spent.completion_tokens > 0


def test_logprobs_that_the_server_ignores_are_none(served):
    (outcome,) = served.generate([ask(QUESTIONS[2], top_logprobs=2, max_tokens=4)])
    assert outcome[0].logprobs is None


def test_an_unknown_model_is_one_clear_sentence(url):
    policy = open_policy(f"no/such-model@{url}", PolicySettings(timeout_s=60, retries=0))
    try:
        (outcome,) = policy.generate([ask(QUESTIONS[0])])
    except PolicyStopped as stop:
        outcome = stop
    policy.close()
    assert isinstance(outcome, PolicyError)
    assert "no/such-model" in str(outcome)
