"""A real OpenAI-compatible server with a real small model, driven end to end: `transformers serve` and SmolLM2.

Needs transformers[serving] and the base in the cache (`reasonflux-prm models fetch`).
"""

import pytest

from reasonflux_prm.errors import PolicyError, PolicyStopped
from reasonflux_prm.policy.base import Message, Request
from reasonflux_prm.policy.budget import Budget, BudgetedPolicy
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.local import LocalPolicy
from reasonflux_prm.policy.open import PolicySettings, open_policy
from tests.policy.serve_host import sampling_base, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return sampling_base(tmp_path_factory.mktemp("served") / "base")


@pytest.fixture(scope="module")
def url(base, tmp_path_factory):
    with serving(base, tmp_path_factory.mktemp("serve") / "log") as url:
        yield url


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
