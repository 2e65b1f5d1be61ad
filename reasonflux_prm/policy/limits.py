"""Rate limits: so many requests, and so many tokens, a minute.

Starts are spaced evenly instead of being let go in bursts, because servers count over windows shorter than a minute:
a request of w tokens holds the next one back by w / limit minutes. Hence within any minute there start no more than
the allowed requests, and no more than the allowed tokens and one request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from reasonflux_prm.errors import UsageError

_LONGEST_NAP_S = 1.0
"""A waiter looks again at least this often, as an answer shorter than reckoned moves its turn forward."""
_MOST_LATE_S = 0.1
"""How much of a start's lateness is made up for by those behind it."""


class RateLimit:
    """Lets callers start one after another, in the order they came; for one event loop.

    Args:
        requests_per_minute: Most requests started in a minute; None for no limit.
        tokens_per_minute: Most tokens, read and written, of the requests started in a minute; None for no limit. A
            request that alone has more goes ahead and holds back those behind it.
        clock: Seconds, never going back.
        sleep: What waits.

    Raises:
        UsageError: A limit below 1.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        for name, limit in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
            if limit is not None and not limit >= 1:
                raise UsageError(f"{name} must be at least 1, and is {limit}")
        self._s_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._s_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._turn = asyncio.Lock()
        self._next_request = self._next_tokens = float("-inf")

    async def start(self, tokens: int) -> None:
        """Wait until a request that will take about `tokens` may start."""
        if not self._s_per_request and not self._s_per_token:
            return
        async with self._turn:
            due = self._clock()
            while (pause := max(self._next_request, self._next_tokens) - self._clock()) > 0:
                await self._sleep(min(pause, _LONGEST_NAP_S))
                due = max(self._next_request, self._next_tokens)
            # Reckoned from when it was due: a nap that overshoots would push back everyone behind.
            now = max(due, self._clock() - _MOST_LATE_S)
            self._next_request = now + self._s_per_request
            self._next_tokens = max(self._next_tokens, now) + tokens * self._s_per_token

    def settle(self, reckoned: int, taken: int) -> None:
        """Correct what `start` reckoned, once it is known how many tokens a request took."""
        self._next_tokens -= (reckoned - taken) * self._s_per_token
