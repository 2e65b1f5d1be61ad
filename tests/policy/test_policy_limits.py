import asyncio

import pytest

from reasonflux_prm.errors import UsageError
from reasonflux_prm.policy.limits import RateLimit


class Clock:
    """Time that passes only while everyone sleeps; a sleeper wakes `late_s` after what it asked for."""

    def __init__(self, late_s=0.0):
        self.now, self.late_s = 0.0, late_s

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds + self.late_s
        await asyncio.sleep(0)


def limit(clock, requests=None, tokens=None):
    return RateLimit(requests, tokens, clock=clock, sleep=clock.sleep)


def starts(clock, limit, sizes):
    """When each of several callers that come at once is let go."""

    async def one(tokens, found):
        await limit.start(tokens)
        found.append(clock.now)

    async def main():
        found = []
        await asyncio.gather(*(one(tokens, found) for tokens in sizes))
        return found

    return asyncio.run(main())


def most_in_a_minute(times, weights):
    return max(
        sum(weight for time, weight in zip(times, weights, strict=True) if since <= time < since + 60 - 1e-6)
        for since in times
    )


@pytest.mark.parametrize("late_s", [0.0, 0.003])
@pytest.mark.parametrize("per_minute", [1, 30, 500])
def test_requests_a_minute_are_neither_exceeded_nor_wasted(per_minute, late_s):
    clock = Clock(late_s)
    times = starts(clock, limit(clock, requests=per_minute), [0] * (3 * per_minute))
    assert most_in_a_minute(times, [1] * len(times)) <= per_minute + (1 if late_s else 0)
    assert times[-1] <= 180


def test_tokens_a_minute_are_exceeded_by_one_request_at_most():
    clock = Clock()
    sizes = [10, 400, 90, 250, 1, 999] * 40
    times = starts(clock, limit(clock, tokens=1000), sizes)
    assert most_in_a_minute(times, sizes) <= 1000 + 999
    assert times[-1] == pytest.approx(60 * sum(sizes[:-1]) / 1000)


def test_the_tighter_of_both_limits_counts():
    clock = Clock()
    assert starts(clock, limit(clock, requests=60, tokens=600), [5, 20, 5, 5]) == [0, 1, 3, 4]


def test_a_request_larger_than_the_limit_goes_ahead_and_holds_back_the_next():
    clock = Clock()
    assert starts(clock, limit(clock, tokens=100), [300, 1]) == [0, 180]


def test_time_without_requests_is_not_saved_up():
    clock = Clock()
    rate = limit(clock, requests=60)
    starts(clock, rate, [0])
    clock.now = 100.0
    assert starts(clock, rate, [0, 0, 0]) == [100, 101, 102]


def test_an_answer_shorter_than_reckoned_lets_the_next_go_sooner_and_a_longer_one_later():
    clock = Clock()
    rate = limit(clock, tokens=60)
    assert starts(clock, rate, [100]) == [0]
    rate.settle(100, 10)
    assert starts(clock, rate, [1]) == [10]
    rate.settle(1, 31)
    assert starts(clock, rate, [1]) == [41]


def test_an_answer_that_comes_while_others_wait_moves_them_forward():
    clock = Clock()
    rate = limit(clock, tokens=60)

    async def main():
        await rate.start(1000)
        waiting = asyncio.create_task(rate.start(1))
        while clock.now < 5:
            await asyncio.sleep(0)
        rate.settle(1000, 7)
        await waiting
        return clock.now

    assert asyncio.run(main()) == pytest.approx(7, abs=1.01)


def test_without_limits_nobody_waits():
    clock = Clock()
    assert starts(clock, limit(clock), [1000] * 5) == [0] * 5


@pytest.mark.parametrize("wrong", [0, -1, 0.5, float("nan")])
def test_a_limit_below_one_is_refused(wrong):
    with pytest.raises(UsageError, match="requests_per_minute"):
        RateLimit(requests_per_minute=wrong)
    with pytest.raises(UsageError, match="tokens_per_minute"):
        RateLimit(tokens_per_minute=wrong)
