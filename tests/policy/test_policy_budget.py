import asyncio

import pytest

from reasonflux_prm.errors import PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy.base import Completion, Message, PartlyAnswered, Request
from reasonflux_prm.policy.budget import Budget, BudgetedPolicy, Spent, estimate
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.policy.usage import estimated_prompt, estimated_tokens


def ask(content="hi", **settings):
    return Request((Message("user", content),), **settings)


def counted(prompt_tokens=100, completion_tokens=50, name="scripted"):
    completion = Completion("fine", prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    return ScriptedPolicy(lambda request: completion, name)


def test_what_is_spent_is_read_from_the_servers_counts():
    policy = BudgetedPolicy(counted(), Budget(prices=(2.0, 10.0)))
    policy.generate([ask(str(number)) for number in range(4)])
    assert policy.spent == Spent(4, 400, 200, money=pytest.approx((400 * 2 + 200 * 10) / 1e6))
    assert str(policy.spent) == "4 requests, 600 tokens, 0.0028 in money"


def test_a_server_that_counts_nothing_is_estimated_and_this_is_said():
    policy = BudgetedPolicy(ScriptedPolicy(lambda request: Completion("a" * 35, thinking="b" * 70)))
    policy.generate([ask("c" * 350)])
    assert policy.spent == Spent(1, 104, 30, estimated=1)
    assert "(1 requests by estimate)" in str(policy.spent)


def test_requests_stop_at_the_budget_and_not_one_later():
    inner = counted()
    policy = BudgetedPolicy(inner, Budget(requests=3))
    with pytest.raises(PolicyStopped, match=r"budget of 3 requests is reached.*so far 3 requests, 450 tokens"):
        policy.generate([ask(str(number)) for number in range(10)])
    assert len(inner.requests) == 3


@pytest.mark.parametrize(
    ("budget", "answered"),
    [
        (Budget(tokens=0), 0),
        (Budget(tokens=151), 1),  # 150 spent, and the next prompt alone has 5
        (Budget(tokens=155), 2),
        (Budget(money=0.0, prices=(2.0, 10.0)), 0),
        (Budget(money=0.0007, prices=(2.0, 10.0)), 1),
        (Budget(money=0.00071, prices=(2.0, 10.0)), 2),
        (Budget(money=0.0, prices=(0.0, 0.0)), 5),
        (Budget(), 5),
    ],
)
def test_no_request_is_started_whose_known_part_goes_over(budget, answered):
    assert estimated_prompt(ask("0")) == 5
    inner = counted()
    policy = BudgetedPolicy(inner, budget)
    try:
        policy.generate([ask(str(number)) for number in range(5)])
    except PolicyStopped:
        assert answered < 5
    assert len(inner.requests) == answered == policy.spent.requests


def test_requests_under_way_count_before_they_are_answered():
    class Slow(ScriptedPolicy):
        concurrency = 8

        async def ask(self, request):
            self.requests.append(request)
            await asyncio.sleep(0.05)
            return [Completion("fine")]

    inner = Slow({})
    policy = BudgetedPolicy(inner, Budget(requests=3))
    with pytest.raises(PolicyStopped):
        policy.generate([ask(str(number)) for number in range(20)])
    assert len(inner.requests) == policy.spent.requests == 3


def test_a_smaller_request_does_not_slip_through_after_a_larger_one_was_refused():
    policy = BudgetedPolicy(counted(), Budget(tokens=50))
    for content in ("x" * 1000, "x"):
        with pytest.raises(PolicyStopped, match="50 tokens"):
            policy.generate([ask(content)])


def test_failures_are_counted_and_what_came_before_them_too():
    partly = PartlyAnswered("half")
    partly.completions = (Completion("a", prompt_tokens=7, completion_tokens=3),)
    policy = BudgetedPolicy(ScriptedPolicy({"a": PolicyError("no"), "b": partly}))
    policy.generate([ask("a"), ask("b")])
    assert policy.spent == Spent(2, 7, 3, failed=2)
    assert "2 requests failed" in str(policy.spent)


def test_what_is_under_way_is_let_go_when_a_request_is_cancelled():
    class Hanging(ScriptedPolicy):
        async def ask(self, request):
            await asyncio.sleep(60)

    policy = BudgetedPolicy(Hanging({}), Budget(tokens=1000))

    async def main():
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(policy.ask(ask("x" * 1000)), 0.001)

    asyncio.run(main())
    assert policy.spent == Spent(20, failed=20)


def test_answers_from_a_cache_are_free(tmp_path):
    requests = [ask(str(number)) for number in range(3)]
    for expected in (3, 0):
        inner = BudgetedPolicy(counted(), Budget(requests=3))
        policy = CachedPolicy(inner, tmp_path / "completions.sqlite")
        policy.generate(requests)
        assert inner.spent.requests == expected
        policy.close()


def test_the_wrapped_policy_shows_through():
    inner = counted(name="inner")
    policy = BudgetedPolicy(inner, Budget(requests=1))
    assert (policy.name, policy.concurrency, policy.identity()) == ("inner", 1, inner.identity())


def test_an_estimate_is_the_most_that_requests_can_cost():
    requests = [ask("x" * 350, n=3, max_tokens=100), ask("y" * 35, max_tokens=10)]
    assert estimate(requests, prices=(1.0, 100.0)) == Spent(
        2, 104 + 14, 310, estimated=2, money=pytest.approx((118 + 31_000) / 1e6)
    )
    assert estimate(requests).money is None


def test_tokens_of_other_scripts_are_estimated_by_their_bytes():
    assert estimated_tokens("") == 0
    assert estimated_tokens("数学" * 50) == 86
    assert estimated_tokens("\ud800") == 1  # a lone surrogate must not raise here


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"requests": -1}, "requests"),
        ({"tokens": -1}, "tokens"),
        ({"money": float("nan"), "prices": (1, 1)}, "money"),
        ({"money": 1.0}, "prices"),
        ({"prices": (1.0, -1.0)}, "prices"),
    ],
)
def test_a_budget_that_makes_no_sense(settings, named):
    with pytest.raises(UsageError, match=named):
        Budget(**settings)
