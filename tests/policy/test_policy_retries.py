import time
from email.utils import formatdate

import pytest

from reasonflux_prm.policy.retries import pause_s, retry_after_s


def test_pauses_grow_are_spread_over_their_whole_range_and_stay_bounded():
    for attempts, most in ((1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (60, 30.0)):
        pauses = [pause_s(attempts, 0.0) for _ in range(400)]
        assert 0 <= min(pauses) < 0.1 * most
        assert 0.9 * most < max(pauses) <= most


def test_what_the_server_asks_for_is_waited_for_in_full():
    pauses = [pause_s(1, 7.0) for _ in range(100)]
    assert min(pauses) >= 7
    assert len(set(pauses)) > 90  # clients that were sent away together do not come back together


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "12"}, 12),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": ""}, 0),
        ({"retry-after": "12", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "12", "retry-after-ms": "x"}, 12),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_retry_after_in_seconds(headers, seconds):
    assert retry_after_s(headers) == seconds


def test_retry_after_as_a_date():
    assert retry_after_s({"retry-after": formatdate(time.time() + 90, usegmt=True)}) == pytest.approx(90, abs=3)
