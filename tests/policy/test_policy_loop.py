import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError

import pytest

from reasonflux_prm.errors import PolicyStopped, UsageError
from reasonflux_prm.policy.loop import LoopThread, answer_all


async def double(number):
    await asyncio.sleep(0)
    return 2 * number


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "test"]


def test_work_is_done_from_plain_code_from_other_loops_and_from_its_own():
    loop = LoopThread("test")

    async def nested():
        return await loop.call(double(3))

    assert loop.run(double(1)) == 2
    assert asyncio.run(loop.call(double(2))) == 4
    assert loop.run(nested()) == 6
    loop.close()
    assert threads() == []


def test_nothing_is_started_before_there_is_work():
    LoopThread("test")
    assert threads() == []


def test_errors_come_back_as_they_are():
    loop = LoopThread("test")

    async def fail():
        raise PolicyStopped("no")

    with pytest.raises(PolicyStopped, match="no"):
        loop.run(fail())
    loop.close()


def test_closing_cancels_what_runs_and_does_the_last_thing():
    done = []

    async def last():
        done.append("last")

    async def forever():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            done.append("cancelled")
            raise

    loop = LoopThread("test", last)

    def wait():
        try:
            loop.run(forever())
        except CancelledError:
            done.append("told")

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not threads():
        time.sleep(0.001)
    time.sleep(0.05)
    loop.close()
    waiting.join(5)
    assert sorted(done) == ["cancelled", "last", "told"]
    with pytest.raises(UsageError, match="closed"):
        loop.run(double(1))


def test_a_thread_ends_with_its_owner():
    loop = LoopThread("test")
    loop.run(double(1))
    del loop
    gc.collect()
    assert threads() == []


def test_cancelling_the_caller_cancels_the_work():
    loop = LoopThread("test")
    seen = threading.Event()

    async def forever():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.set()
            raise

    async def impatient():
        await asyncio.wait_for(loop.call(forever()), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert seen.wait(5)
    loop.close()


def test_answers_are_in_order_and_bounded():
    under_way, most = 0, 0

    async def ask(number):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001 * (number % 7))
        under_way -= 1
        return number

    assert asyncio.run(answer_all(ask, range(50), 4)) == list(range(50))
    assert most == 4


def test_after_a_stop_no_request_is_started_and_those_under_way_come_to_their_end():
    asked, ended = [], []

    async def ask(number):
        asked.append(number)
        if number == 2:
            raise PolicyStopped("enough")
        await asyncio.sleep(0.02)
        ended.append(number)

    with pytest.raises(PolicyStopped, match="enough"):
        asyncio.run(answer_all(ask, range(50), 4))
    assert set(asked) <= {0, 1, 2, 3}
    assert set(ended) == set(asked) - {2}


INTERRUPTED = """
import sys
from reasonflux_prm.policy.base import Message, Request
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy
from tests.policy.faulty_server import FaultyServer
from pathlib import Path
with FaultyServer(share=1.0, faults=["hang"]) as server:
    policy = CachedPolicy(OpenAICompatiblePolicy("m", server.url), Path(sys.argv[1]))
    print("ready", flush=True)
    policy.generate([Request((Message("user", str(number)),)) for number in range(100)])
"""


def test_ctrl_c_ends_a_run_that_waits_for_a_hanging_server(tmp_path):
    pytest.importorskip("openai")
    run = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "c.sqlite")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    )
    assert run.stdout.readline() == "ready\n"
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "never retrieved" not in errors
    assert "was destroyed" not in errors
    assert run.returncode != 0
