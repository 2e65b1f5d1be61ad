"""The queue and its packs: full ones, in order, nothing lost; what is dropped is not read."""

import asyncio
import random
import threading

import pytest

from reasonflux_prm.records import Status
from reasonflux_prm.scoring.engine import Work
from reasonflux_prm.scoring.windows import Read, Window
from reasonflux_prm.serving.batching import FAULTS_IN_A_ROW, Batcher
from reasonflux_prm.serving.metrics import Metrics

BUDGET = 100


def work(*lengths, mark=0):
    return Work(
        [Window((mark,) * length, (Read(number, length - 1, 0, length),)) for number, length in enumerate(lengths)]
    )


class Reader:
    """Reads a window as its first token and its length; notes the packs; can be held up; fails on token 666."""

    def __init__(self, held=False):
        self.packs = []
        self.open, self.entered = threading.Event(), threading.Event()
        if not held:
            self.open.set()

    def __call__(self, jobs):
        self.entered.set()
        assert self.open.wait(20)
        self.packs.append([(window.tokens[0], len(window.tokens)) for _, window in jobs])
        if any(window.tokens[0] == 666 for _, window in jobs):
            raise RuntimeError("no such token")
        for one, window in jobs:
            one.rewards.update((read.target, window.tokens[0] + len(window.tokens) / 1000) for read in window.reads)


def batching(reader, check, wait_s=0.0):
    """Run a check with a batcher, on an event loop."""
    batcher = Batcher(reader, BUDGET, wait_s, Metrics())

    async def run():
        return await asyncio.wait_for(check(batcher), 30)

    try:
        return asyncio.run(run())
    finally:
        reader.open.set()
        assert batcher.close(20)


def test_every_work_gets_its_own_rewards():
    rng = random.Random(0)
    works = [work(*(rng.randint(1, 150) for _ in range(rng.randint(1, 6))), mark=number) for number in range(300)]
    reader = Reader()

    async def check(batcher):
        tickets = [batcher.submit(works[start : start + 3]) for start in range(0, 300, 3)]
        await asyncio.gather(*(ticket.done for ticket in tickets))

    batching(reader, check)
    for number, one in enumerate(works):
        assert one.rewards == {n: number + len(window.tokens) / 1000 for n, window in enumerate(one.windows)}
    for pack in reader.packs:
        assert len(pack) == 1 or sum(length for _, length in pack) <= BUDGET
    assert sum(map(len, reader.packs)) == sum(len(one.windows) for one in works)


def test_packs_are_filled_while_one_runs():
    reader = Reader(held=True)
    works = [work(30, mark=number) for number in range(7)]

    async def check(batcher):
        first = batcher.submit(works[:1])
        await asyncio.to_thread(reader.entered.wait, 20)
        rest = [batcher.submit([one]) for one in works[1:]]
        reader.open.set()
        await asyncio.gather(first.done, *(ticket.done for ticket in rest))

    batching(reader, check)
    assert [[mark for mark, _ in pack] for pack in reader.packs] == [[0], [1, 2, 3], [4, 5, 6]]


def test_a_pack_that_is_not_full_waits_for_others():
    reader = Reader()
    works = [work(10, mark=number) for number in range(3)]

    async def check(batcher):
        tickets = []
        for one in works:
            tickets.append(batcher.submit([one]))
            await asyncio.sleep(0.01)
        await asyncio.gather(*(ticket.done for ticket in tickets))

    batching(reader, check, wait_s=2.0)
    assert [[mark for mark, _ in pack] for pack in reader.packs] == [[0, 1, 2]]


def test_a_full_pack_waits_for_nobody():
    async def check(batcher):
        await batcher.submit([work(60), work(60)]).done

    reader = Reader()
    batching(reader, check, wait_s=0.5)
    assert len(reader.packs) == 2


def test_a_long_trace_holds_up_nobody():
    reader = Reader(held=True)
    long, short = work(*[90] * 20, mark=1), work(90, mark=2)

    async def check(batcher):
        tickets = [batcher.submit([long]), batcher.submit([short])]
        reader.open.set()
        await asyncio.gather(*(ticket.done for ticket in tickets))

    batching(reader, check)
    assert [pack[0][0] for pack in reader.packs][:3] == [1, 2, 1]
    assert len(reader.packs) == 21


def test_what_does_not_fit_is_next():
    """Small ones may pass a large one, but only while it waits for its own pack."""
    reader = Reader(held=True)
    works = [work(60, mark=0), work(60, mark=1), *(work(20, mark=mark) for mark in (2, 3, 4, 5, 6))]

    async def check(batcher):
        tickets = [batcher.submit([work(5, mark=9)])]
        await asyncio.to_thread(reader.entered.wait, 20)
        tickets += [batcher.submit([one]) for one in works]
        reader.open.set()
        await asyncio.gather(*(ticket.done for ticket in tickets))

    batching(reader, check)
    assert [[mark for mark, _ in pack] for pack in reader.packs] == [[9], [0, 2, 3], [1, 4, 5], [6]]


def test_what_is_dropped_is_not_read():
    reader = Reader(held=True)

    async def check(batcher):
        first, dropped, last = (batcher.submit([work(80, mark=mark)]) for mark in (1, 2, 3))
        await asyncio.to_thread(reader.entered.wait, 20)
        batcher.drop(dropped)
        reader.open.set()
        await asyncio.gather(first.done, last.done)
        assert not dropped.done.done()

    batching(reader, check)
    assert [pack[0][0] for pack in reader.packs] == [1, 3]


def test_a_fault_is_that_of_its_own_trace():
    works = [work(10, mark=mark) for mark in (1, 2, 666, 3)]
    reader = Reader(held=True)

    async def check(batcher):
        tickets = [batcher.submit([one]) for one in works]
        reader.open.set()
        await asyncio.gather(*(ticket.done for ticket in tickets))
        assert batcher.alive

    batching(reader, check)
    assert [one.status for one in works] == [Status.SCORED, Status.SCORED, Status.FAILED, Status.SCORED]
    assert works[2].problem == "the PRM failed with RuntimeError: no such token"
    assert works[3].rewards == {0: 3.01}


def test_a_trace_that_fails_is_not_read_on():
    reader = Reader()

    async def check(batcher):
        await batcher.submit([work(90, 90, 90, mark=666)]).done
        await batcher.submit([work(90, mark=1)]).done

    batching(reader, check)
    assert reader.packs == [[(666, 90)], [(1, 90)]]


def test_a_prm_that_always_fails_is_not_alive():
    async def check(batcher):
        for _ in range(FAULTS_IN_A_ROW):
            assert batcher.alive
            await batcher.submit([work(10, mark=666)]).done
        assert not batcher.alive
        await batcher.submit([work(10, mark=1)]).done
        assert batcher.alive

    batching(Reader(), check)


@pytest.mark.parametrize("works", [[], [Work(status=Status.NO_STEPS)]])
def test_nothing_to_read_is_done_at_once(works):
    async def check(batcher):
        assert batcher.submit(works).done.done()

    batching(Reader(), check)


def test_closing_reads_what_waits():
    reader = Reader(held=True)
    works = [work(90, mark=number) for number in range(5)]

    async def check(batcher):
        tickets = [batcher.submit([one]) for one in works]
        threading.Timer(0.05, reader.open.set).start()
        assert await asyncio.to_thread(batcher.close, 20)
        await asyncio.gather(*(ticket.done for ticket in tickets))

    batching(reader, check, wait_s=5.0)
    assert len(reader.packs) == 5


def test_a_loop_that_has_ended_stops_nobody():
    reader = Reader(held=True)
    batcher = Batcher(reader, BUDGET, 0.0, Metrics())

    async def leave():
        batcher.submit([work(10)])

    asyncio.run(leave())

    async def stay():
        ticket = batcher.submit([work(10, mark=7)])
        reader.open.set()
        await asyncio.wait_for(ticket.done, 20)

    asyncio.run(stay())
    assert batcher.close(20)
