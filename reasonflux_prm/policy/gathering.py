"""Requests that come one by one, from any thread or event loop, answered together on one thread.

Models in this process are fastest on many requests at once, and must not be run by two threads. So what is asked while
a round runs waits for the next one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from reasonflux_prm.errors import PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy.base import Outcome, Request

_GATHER_S = 0.01
"""Seconds that the first request of a round waits for company; nothing beside the time that a round takes."""

_CLOSED = "this policy is closed; open it again to ask it anything"

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Asked:
    """A request and whoever waits for its outcome."""

    request: Request
    future: Future[Outcome] = field(default_factory=Future)

    @property
    def given_up(self) -> bool:
        """Whether nobody waits any more."""
        return self.future.cancelled()

    def answer(self, outcome: Outcome) -> None:
        """Hand over the outcome; the first one counts."""
        with suppress(InvalidStateError):  # given up, or answered before
            self.future.set_result(outcome)


class Gatherer:
    """Collects requests and has them answered in rounds.

    Args:
        answer_round: Answers every one of the requests it is given, on a thread that is always the same. What it
            leaves unanswered when it raises gets that as its error; a `PolicyStopped` is raised to all.
    """

    def __init__(self, answer_round: Callable[[list[Asked]], None]) -> None:
        self._answer_round = answer_round
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._lock = threading.Lock()
        self._waiting: list[Asked] = []
        self._closed = False

    def generate(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer every request, in order.

        Raises:
            PolicyStopped: No request will succeed.
        """
        asked = [self._put(request) for request in requests]
        try:
            return [one.future.result() for one in asked]
        finally:
            for one in asked:  # does nothing to those that are done
                one.future.cancel()

    async def ask(self, request: Request) -> Outcome:
        """Answer one request.

        Raises:
            PolicyStopped: No request will succeed.
        """
        return await asyncio.wrap_future(self._put(request).future)

    def run(self, work: Callable[[], T]) -> T:
        """Do work on the thread that answers, between two rounds; what it raises is raised here.

        Raises:
            UsageError: This is closed.
        """
        with self._lock:
            if self._closed:
                raise UsageError(_CLOSED)
            future = self._thread.submit(work)
        return future.result()

    def close(self) -> None:
        """Give up what waits, and wait for the round that runs to notice."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, []
        for asked in waiting:
            asked.future.cancel()
        self._thread.shutdown(wait=True)

    @property
    def closed(self) -> bool:
        """Whether a round that runs should end."""
        return self._closed

    def _put(self, request: Request) -> Asked:
        asked = Asked(request)
        with self._lock:
            if self._closed:
                raise UsageError(_CLOSED)
            self._waiting.append(asked)
            # One task a request, of which the first takes all that wait and the others find nothing to do.
            self._thread.submit(self._round)
        return asked

    def _round(self) -> None:
        if not self._waiting:
            return
        time.sleep(_GATHER_S)
        with self._lock:
            gathered, self._waiting = self._waiting, []
        gathered = [asked for asked in gathered if not asked.given_up]
        if not gathered:
            return
        try:
            self._answer_round(gathered)
        except PolicyStopped as stop:
            for asked in gathered:
                if not asked.future.done():
                    asked.future.set_exception(stop)
        except Exception as error:  # a model's own code can raise anything, and nobody may wait for ever
            for asked in gathered:
                asked.answer(PolicyError(f"the model failed with {type(error).__name__}: {error}"))
        for asked in gathered:
            asked.answer(PolicyError("the policy was closed before this request was answered"))
