import asyncio

import pytest

from reasonflux_prm.errors import PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy.base import Completion, Message, Request
from reasonflux_prm.policy.scripted import ScriptedPolicy


def ask(content, **settings):
    return Request((Message("system", "Be brief."), Message("user", content)), **settings)


def test_a_mapping_answers_the_last_message_and_a_miss_stops_no_neighbour():
    policy = ScriptedPolicy({"a": "one", "b": Completion("two", thinking="hm", finish_reason="length")})
    first, missing, last = policy.generate([ask("a", n=2), ask("c"), ask("b")])
    assert first == [Completion("one"), Completion("one")]
    assert isinstance(missing, PolicyError)
    assert "'c'" in str(missing)
    assert last == [Completion("two", thinking="hm", finish_reason="length")]
    assert [request.messages[-1].content for request in policy.requests] == ["a", "c", "b"]


def test_samples_are_taken_in_order_and_too_few_are_an_error():
    policy = ScriptedPolicy({"a": ["one", "two", "three"]})
    assert [sample.text for sample in policy.generate([ask("a", n=2)])[0]] == ["one", "two"]
    error = policy.generate([ask("a", n=4)])[0]
    assert isinstance(error, PolicyError)
    assert "3 answers" in str(error)


def test_a_callable_sees_the_whole_request_and_may_answer_with_an_error():
    refusal = PolicyError("no")
    policy = ScriptedPolicy(lambda request: refusal if request.seed == 1 else f"seed {request.seed}", name="oracle")
    assert policy.generate([ask("a", seed=1), ask("a", seed=2)]) == [refusal, [Completion("seed 2")]]
    assert policy.name == "oracle"


def test_a_stop_is_raised_by_both_ways_of_asking():
    policy = ScriptedPolicy({"a": PolicyStopped("budget"), "b": "fine"})
    with pytest.raises(PolicyStopped, match="budget"):
        policy.generate([ask("b"), ask("a")])
    with pytest.raises(PolicyStopped, match="budget"):
        asyncio.run(policy.ask(ask("a")))
    assert asyncio.run(policy.ask(ask("b"))) == [Completion("fine")]


def test_identity_is_the_name():
    assert ScriptedPolicy({}, "oracle").identity() == {"backend": "scripted", "model": "oracle"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"n": 0}, "n and max_tokens"),
        ({"max_tokens": 0}, "n and max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_logprobs": -1}, "top_logprobs"),
    ],
)
def test_a_request_outside_the_ranges_is_refused(settings, named):
    with pytest.raises(UsageError, match=named):
        ask("a", **settings)


def test_a_request_without_messages_is_refused():
    with pytest.raises(UsageError, match="at least one message"):
        Request(())


def test_equal_requests_are_one_key():
    assert len({ask("a", stop=("x",)), ask("a", stop=("x",)), ask("b")}) == 2
