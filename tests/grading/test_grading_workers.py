"""Whatever a function does to its worker, its neighbours' results come, in order, and no process stays."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reasonflux_prm.errors import ReasonFluxError, UsageError
from reasonflux_prm.grading.workers import AHEAD, Result, WorkerError, WorkerPool

HERE = Path(__file__).parent


def pool(function: str, **limits) -> WorkerPool:
    return WorkerPool(f"grading_functions:{function}", **limits)


def is_alive(pid: int) -> bool:
    """Whether a process is there, and is not only waiting for somebody to take note of its end."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()


def gone(pid: int, within_s: float = 5.0) -> bool:
    until = time.monotonic() + within_s
    while is_alive(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_results_come_in_order():
    with pool("same") as workers:
        assert [result.value for result in workers.map(range(1000))] == list(range(1000))
        assert workers.run({"a": (1, None)}) == Result({"a": (1, None)})
        assert workers.run("x" * 10**7).value == "x" * 10**7


BAD = {
    "swallow_everything": "took longer than 0.5 s",
    "power": "took longer than 0.5 s",
    "stop": "took longer than 0.5 s",
    "segfault": "the worker died (signal 11)",
    "leave": "SystemExit: 3",
    "leave_at_once": "the worker died (exit code 7)",
    "out_of_memory": "needed more memory than it may have",
    "unpicklable": "the result cannot be pickled (TypeError: cannot pickle '_thread.lock' object)",
    "raise_unspeakable": "Unspeakable",
    "recurse": "RecursionError: maximum recursion depth exceeded",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_item_harms_no_neighbour(name):
    items = [1, name, 2, name, 3]
    with pool("behave", timeout_s=0.5, memory_mb=512) as workers:
        results = list(workers.map(items))
    assert [result.value for result in results] == [1, None, 2, None, 3]
    assert [result.error for result in results] == [None, BAD[name], None, BAD[name], None]


def test_all_of_them_at_once():
    items = [*range(20), *BAD, *range(20)]
    with pool("behave", timeout_s=0.5, memory_mb=512) as workers:
        results = list(workers.map(items))
    assert [result.value for result in results] == [None if item in BAD else item for item in items]
    assert [result.error for result in results] == [BAD.get(item) for item in items]


def test_an_error_is_one_short_sentence():
    with pool("behave") as workers:
        error = workers.run("raise_long").error
    assert error.startswith("ValueError: xxx")
    assert len(error) == 500


def test_what_a_function_prints_goes_nowhere(capfd):
    with pool("chatter") as workers:
        assert workers.run(None) == Result("")
        assert workers.run(None) == Result("")
    assert capfd.readouterr() == ("", "")


def test_an_item_that_cannot_be_pickled():
    with pool("same") as workers:
        error = workers.run(threading.Lock()).error
        assert error == "the item cannot be pickled (TypeError: cannot pickle '_thread.lock' object)"
        assert workers.run(1).value == 1


class Here:
    """A class that the tests take away before the result is back."""


def test_a_result_that_cannot_be_read_back(monkeypatch):
    with pool("same") as workers:
        assert isinstance(workers.run(Here()).value, Here)
        request = pickle.dumps(Here())
        with monkeypatch.context() as patch:
            patch.setattr("pickle.dumps", lambda _: request)
            patch.delattr(sys.modules[__name__], "Here")
            assert workers.run(None).error.startswith("the result cannot be read back (")
        assert workers.run(2).value == 2


def test_a_worker_that_is_killed_from_outside_is_replaced():
    with pool("pid", size=1) as workers:
        first = workers.run(None).value
        assert workers.run(None).value == first
        os.kill(first, signal.SIGKILL)
        assert gone(first)
        second = workers.run(None)
        assert second.error is None
        assert second.value != first


def test_one_caller_needs_one_worker():
    with pool("pid", size=4) as workers:
        assert len({workers.run(None).value for _ in range(20)}) == 1


def test_map_is_lazy_and_bounded():
    taken = itertools.count()
    items = (next(taken) for _ in itertools.count())
    with pool("same", size=1) as workers:
        results = workers.map(items)
        assert next(taken) == 0, "nothing is taken before the first result is asked for"
        assert next(results).value == 1
        results.close()
        assert next(taken) <= AHEAD + 3
        assert workers.run(5).value == 5


def test_many_threads_share_a_pool():
    results = {}
    with pool("same") as workers:

        def ask(k):
            results[k] = [workers.run(item).value for item in range(k, k + 50)]

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {k: list(range(k, k + 50)) for k in range(8)}


def test_asyncio_is_not_held_up():
    async def both():
        with pool("nap", timeout_s=5) as workers:
            await workers.arun(0)
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            results = await asyncio.gather(*(workers.arun(0.2) for _ in range(4)))
            ticking.cancel()
            return results, ticks

    results, ticks = asyncio.run(both())
    assert [result.value for result in results] == [0.2] * 4
    assert ticks > 5


def test_a_hang_ends_on_time():
    with pool("nap", size=1, timeout_s=0.3) as workers:
        workers.run(0)
        started = time.monotonic()
        assert workers.run(60).error == "took longer than 0.3 s"
        assert time.monotonic() - started < 3


def test_closing_ends_what_runs():
    workers = pool("nap", size=1, timeout_s=60)
    workers.run(0)
    results = []
    asking = [threading.Thread(target=lambda: results.append(workers.run(60))) for _ in range(3)]
    for thread in asking:
        thread.start()
    time.sleep(0.2)
    workers.close()
    workers.close()
    for thread in asking:
        thread.join(5)
    assert results == [Result(None, "the worker pool was closed")] * 3
    with pytest.raises(UsageError, match="closed"):
        workers.run(0)


def test_no_process_outlives_its_pool():
    workers = pool("pid")
    closed = {result.value for result in workers.map(range(200))}
    workers.close()
    assert all(gone(pid) for pid in closed)
    workers = pool("pid")
    dropped = workers.run(None).value
    del workers
    gc.collect()
    assert gone(dropped)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the kernel's death signal")
@pytest.mark.parametrize("behaviour", ["same", "swallow_everything", "power"])
def test_no_worker_outlives_a_parent_that_is_killed(behaviour, tmp_path):
    """Neither one that waits for an item, nor one that is busy, with or without the interpreter's lock."""
    told = tmp_path / "pid"
    code = (
        f"import sys, time\nsys.path.insert(0, {str(HERE)!r})\n"
        "from reasonflux_prm.grading.workers import WorkerPool\n"
        "workers = WorkerPool('grading_functions:tell_pid_and_behave', size=1, timeout_s=600)\n"
        f"workers.run(({str(told)!r}, {behaviour!r}))\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 60
    while not told.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.1)
    worker = int(told.read_text())
    assert is_alive(worker)
    parent.kill()
    parent.wait()
    assert gone(worker)


def test_a_script_needs_no_guard_and_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nprint('started', flush=True)\nsys.path.insert(0, {str(HERE)!r})\n"
        "from reasonflux_prm.grading.workers import WorkerPool\n"
        "workers = WorkerPool('grading_functions:same')\nprint(workers.run(5).value)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("started\n5\n", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_gets_workers_of_its_own():
    with pool("pid", size=1) as workers:
        before = workers.run(None).value
        if (child := os.fork()) == 0:
            status = 1
            try:
                inside = workers.run(None)
                workers.close()
                status = int(inside.error is not None or inside.value == before)
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert workers.run(None).value == before


def test_workers_load_no_torch_and_know_no_main():
    """And of the parent's modules only those that their function needs."""
    with pool("loaded") as workers:
        assert workers.run(["torch", "numpy", "pytest", "reasonflux_prm", "grading_functions"]).value == [
            "grading_functions"
        ]
    with WorkerPool("reasonflux_prm.grading.algebra:compare", timeout_s=60) as workers:
        assert workers.run(("a+b", "b+a", False)).value == "same"


@pytest.mark.parametrize(
    ("function", "message"),
    [("grading_functions:nothing", "has no attribute 'nothing'"), ("no_such_module:f", "No module named")],
)
def test_a_function_that_cannot_be_imported(function, message):
    with WorkerPool(function) as workers:
        for _ in range(2):
            with pytest.raises(WorkerError, match=message):
                workers.run(1)
        with pytest.raises(ReasonFluxError):
            list(workers.map([1, 2, 3]))


@pytest.mark.parametrize("limits", [{"size": 0}, {"timeout_s": 0}, {"memory_mb": 0}])
def test_limits_that_make_no_sense(limits):
    with pytest.raises(UsageError, match="above 0"):
        pool("same", **limits)
    with pytest.raises(UsageError, match="module:name"):
        WorkerPool("same")
