"""The traces of many requests through one PRM: a bounded wait, full packs, one thread that owns the model.

Windows wait in the order of their traces. A pack is filled from the front; what does not fit stays where it is and is
tried again with the next pack, and a trace of many windows goes to the back after each of its packs, so that a long one
holds up nobody. A pack runs when it is full, or when its first trace has waited for `wait_s`; while one runs the next
gathers, so under load nothing waits for the clock.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reasonflux_prm.records import Status
from reasonflux_prm.scoring.engine import Work
from reasonflux_prm.scoring.windows import Window
from reasonflux_prm.serving.metrics import Metrics

_log = logging.getLogger(__name__)

LOOK_AHEAD = 256
"""Traces that are tried for one pack."""
FAULTS_IN_A_ROW = 3
"""Passes that fail one after the other, after which the PRM counts as broken."""


class Ticket:
    """The work of one request; `done` is set once all of it is read or has failed, in the request's loop."""

    def __init__(self, works: Sequence[Work]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = len(works)


@dataclass(slots=True, eq=False)
class _Entry:
    """One trace in the queue."""

    ticket: Ticket
    work: Work
    arrived: float
    windows: list[Window]
    next: int = 0
    """Of the windows, the first that is in no pack yet."""


class Batcher:
    """Packs what waits and runs it on a thread of its own.

    Args:
        run: Reads the windows of one pack: `Engine.run`.
        pack_tokens: Tokens of a pack; a longer window makes one by itself.
        wait_s: Seconds that the first trace of a pack waits for others.
        metrics: Told of every pack.
    """

    def __init__(
        self,
        run: Callable[[Sequence[tuple[Work, Window]]], None],
        pack_tokens: int,
        wait_s: float,
        metrics: Metrics,
    ) -> None:
        self._run, self.pack_tokens, self.wait_s, self._metrics = run, pack_tokens, wait_s, metrics
        self._entries: deque[_Entry] = deque()
        self._tokens = 0
        self._changed = threading.Condition()
        self._closing = False
        self._faults = 0
        self._rate = 0.0
        self._thread = threading.Thread(target=self._work, name="reasonflux-prm-model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the PRM can be expected to answer."""
        return self._thread.is_alive() and self._faults < FAULTS_IN_A_ROW

    @property
    def tokens_per_s(self) -> float:
        """Tokens that the PRM read in a second lately; 0 before the first pack."""
        return self._rate

    def submit(self, works: Sequence[Work]) -> Ticket:
        """Put the work of one request into the queue; work that has failed already, and so has no windows, is done."""
        waiting = [work for work in works if work.windows]
        ticket, now = Ticket(waiting), time.monotonic()
        if not waiting:
            ticket.done.set_result(None)
            return ticket
        with self._changed:
            self._entries.extend(_Entry(ticket, work, now, work.windows) for work in waiting)
            self._tokens += sum(work.tokens for work in waiting)
            self._changed.notify()
        return ticket

    def drop(self, ticket: Ticket) -> None:
        """Take what nobody waits for any more out of the queue; what is in a pack already runs to its end."""
        with self._changed:
            gone = [entry for entry in self._entries if entry.ticket is ticket]
            self._entries = deque(entry for entry in self._entries if entry.ticket is not ticket)
            self._tokens -= sum(_left(entry) for entry in gone)
        self._metrics.dropped(len(gone))

    def close(self, timeout_s: float) -> bool:
        """End the thread once the queue is empty; return whether it did in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- on the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while pack := self._next_pack():
            started = time.monotonic()
            jobs = [(entry.work, window) for entry, window in pack]
            self._faults = 0 if self._read(jobs) else self._faults + 1
            tokens = sum(len(window.tokens) for _, window in jobs)
            seconds = max(time.monotonic() - started, 1e-6)
            self._rate = tokens / seconds if not self._rate else 0.8 * self._rate + 0.2 * tokens / seconds
            self._metrics.packed(tokens, self.pack_tokens, seconds)
            self._finish(pack)

    def _read(self, jobs: Sequence[tuple[Work, Window]]) -> bool:
        """Run a pack, and where it fails its halves, so that a trace fails for its own tokens only.

        Returns:
            Whether the PRM read anything.
        """
        try:
            self._run(jobs)
            return True
        except Exception as error:
            if len(jobs) > 1:
                middle = len(jobs) // 2
                return any([self._read(jobs[:middle]), self._read(jobs[middle:])])
            _log.exception("a pass failed")
            jobs[0][0].fail(Status.FAILED, f"the PRM failed with {type(error).__name__}: {error}")
            return False

    def _next_pack(self) -> list[tuple[_Entry, Window]]:
        """Wait for a pack; an empty one is the end."""
        with self._changed:
            while not self._closing:
                if not self._entries:
                    self._changed.wait()
                elif self._tokens >= self.pack_tokens or (left := self._patience_s()) <= 0:
                    break
                else:
                    self._changed.wait(left)
            return self._fill()

    def _patience_s(self) -> float:
        return self._entries[0].arrived + self.wait_s - time.monotonic()

    def _fill(self) -> list[tuple[_Entry, Window]]:
        pack: list[tuple[_Entry, Window]] = []
        passed: list[_Entry] = []
        again: list[_Entry] = []
        room = self.pack_tokens
        while self._entries and room > 0 and len(passed) < LOOK_AHEAD:
            entry = self._entries.popleft()
            before = entry.next
            while entry.next < len(entry.windows) and (len(entry.windows[entry.next].tokens) <= room or not pack):
                window = entry.windows[entry.next]
                pack.append((entry, window))
                room -= len(window.tokens)
                entry.next += 1
            if entry.next < len(entry.windows):
                (passed if entry.next == before else again).append(entry)
        self._entries.extendleft(reversed(passed))
        self._entries.extend(again)
        self._tokens -= sum(len(window.tokens) for _, window in pack)
        return pack

    def _finish(self, pack: Sequence[tuple[_Entry, Window]]) -> None:
        """Tell the requests that have all they asked for."""
        ready: list[Ticket] = []
        with self._changed:
            for entry in {id(entry): entry for entry, _ in pack}.values():
                failed = entry.work.status is not Status.SCORED
                if failed and entry in self._entries:
                    self._entries.remove(entry)
                    self._tokens -= _left(entry)
                if failed or entry.next == len(entry.windows):
                    entry.ticket.left -= 1
                    ready += [entry.ticket] if entry.ticket.left == 0 else []
        loops = {ticket.done.get_loop() for ticket in ready}
        for loop in loops:
            own = [ticket for ticket in ready if ticket.done.get_loop() is loop]
            try:
                loop.call_soon_threadsafe(_resolve, own)
            except RuntimeError:  # the loop has ended, and with it everyone who waited
                continue


def _left(entry: _Entry) -> int:
    return sum(len(window.tokens) for window in entry.windows[entry.next :])


def _resolve(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        if not ticket.done.done():
            ticket.done.set_result(None)
