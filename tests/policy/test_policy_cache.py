import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reasonflux_prm.errors import PolicyError, PolicyStopped
from reasonflux_prm.policy import completion_store
from reasonflux_prm.policy.base import Completion, Message, PartlyAnswered, Request, TokenLogprob
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.completion_store import CompletionStore, Row, request_key
from reasonflux_prm.policy.scripted import ScriptedPolicy

ROOT = Path(__file__).parents[2]


def ask(content="hi", **settings):
    return Request((Message("user", content),), **settings)


def by_seed(request):
    """Texts that say which sample they are: content, and seed + index."""
    start = request.seed or 0
    return [f"{request.messages[-1].content} {start + index}" for index in range(request.n)]


@pytest.fixture
def cached(tmp_path):
    """Open the file in `tmp_path` around a policy; all are closed at the end."""
    opened = []

    def open_one(policy):
        opened.append(CachedPolicy(policy, tmp_path / "completions.sqlite"))
        return opened[-1]

    yield open_one
    for policy in opened:
        policy.close()


def texts(outcome):
    return [one.text for one in outcome]


def test_what_was_answered_is_not_asked_again_not_even_by_another_policy_object(cached):
    inner = ScriptedPolicy(by_seed)
    policy = cached(inner)
    first = policy.generate([ask("a"), ask("b", n=2)])
    assert (policy.hits, policy.misses) == (0, 3)
    assert policy.generate([ask("a"), ask("b", n=2)]) == first
    assert (policy.hits, policy.misses) == (3, 3)
    assert len(inner.requests) == 2
    policy.close()
    never = ScriptedPolicy({})
    assert cached(never).generate([ask("b", n=2), ask("a")]) == first[::-1]
    assert never.requests == []


def test_more_samples_pay_for_the_additional_ones_only(cached):
    inner = ScriptedPolicy(by_seed)
    policy = cached(inner)
    assert texts(policy.generate([ask("a", n=4, seed=10)])[0]) == ["a 10", "a 11", "a 12", "a 13"]
    (eight,) = policy.generate([ask("a", n=8, seed=10)])
    assert texts(eight) == [f"a {10 + index}" for index in range(8)]
    assert [(request.n, request.seed) for request in inner.requests] == [(4, 10), (4, 14)]
    assert (policy.hits, policy.misses) == (4, 8)
    assert texts(policy.generate([ask("a", n=2, seed=10)])[0]) == ["a 10", "a 11"]
    assert len(inner.requests) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message("system", "hi"),)},
        {"messages": (Message("user", "hi"), Message("assistant", "x"))},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"max_tokens": 7},
        {"stop": ("x",)},
        {"seed": 0},
        {"top_logprobs": 0},
    ],
)
def test_everything_an_answer_depends_on_is_part_of_the_key(change):
    assert request_key({"model": "a"}, replace(ask(), **change)) != request_key({"model": "a"}, ask())
    assert request_key({"model": "a"}, replace(ask(), **change)) == request_key(
        {"model": "a"}, replace(ask(), **change)
    )


def test_the_policys_identity_is_part_of_the_key_and_its_order_and_n_are_not(cached):
    assert request_key({"a": 1, "b": 2}, ask()) == request_key({"b": 2, "a": 1}, ask(n=3))
    assert request_key({"a": 1}, ask()) != request_key({"a": 2}, ask())
    for name in ("one", "two"):
        assert texts(cached(ScriptedPolicy({"hi": f"I am {name}"}, name)).generate([ask()])[0]) == [f"I am {name}"]


def test_messages_cannot_be_shifted_into_one_another():
    one = Request((Message("user", "a"), Message("user", "b")))
    other = Request((Message("user", 'a"], ["user", "b'),))
    assert request_key({}, one) != request_key({}, other)


@pytest.mark.parametrize(
    "completion",
    [
        Completion(""),
        Completion(
            "a\x00b\n\u2028", thinking="\ud800 lone", finish_reason="length", prompt_tokens=0, completion_tokens=9
        ),
        Completion(
            "Yes", logprobs=(TokenLogprob("Yes", -0.1, (("Yes", -0.1), ("No", float("-inf")))), TokenLogprob("", -3.0))
        ),
        Completion("no tokens", logprobs=()),
    ],
)
def test_a_completion_comes_back_as_it_was(tmp_path, completion):
    path = tmp_path / "c.sqlite"
    for store in (CompletionStore(path), CompletionStore(path)):
        store.write([Row(b"key", 0, completion)])
        assert store.read(b"key", 5) == [completion]
        store.close()


def test_failures_are_not_kept(cached):
    answers = iter([PolicyError("not today"), "fine"])
    policy = cached(ScriptedPolicy(lambda request: next(answers)))
    assert "not today" in str(policy.generate([ask()])[0])
    assert texts(policy.generate([ask()])[0]) == ["fine"]


def test_what_came_before_a_failure_is_kept(cached):
    partly = PartlyAnswered("2 of 3")
    partly.completions = (Completion("one"), Completion("two"))
    answers = iter([partly, "three"])
    inner = ScriptedPolicy(lambda request: next(answers))
    policy = cached(inner)
    assert policy.generate([ask(n=3)]) == [partly]
    assert texts(policy.generate([ask(n=3)])[0]) == ["one", "two", "three"]
    assert inner.requests[1].n == 1


class Slow(ScriptedPolicy):
    """Answers after a moment; what `hold` names, only once it is let go."""

    concurrency = 8

    def __init__(self, script, hold=()):
        super().__init__(script)
        self.hold, self.cancelled, self.go = set(hold), [], None

    async def ask(self, request):
        self.requests.append(request)
        content = request.messages[-1].content
        try:
            await asyncio.sleep(60 if content in self.hold else 0.02)
        except asyncio.CancelledError:
            self.cancelled.append(content)
            raise
        return self._answer(request)


def test_equal_requests_under_way_share_one_call(cached):
    inner = Slow(by_seed)
    policy = cached(inner)

    async def several():
        return await asyncio.gather(*(policy.ask(ask("a", n=n, seed=0)) for n in (2, 1, 2, 5)))

    outcomes = asyncio.run(several())
    assert [texts(outcome) for outcome in outcomes] == [[f"a {index}" for index in range(n)] for n in (2, 1, 2, 5)]
    assert [request.n for request in inner.requests] == [2, 3]
    assert (policy.hits, policy.misses) == (1 + 2 + 2, 5)


def test_a_failure_is_shared_too_instead_of_being_asked_for_by_everyone_in_turn(cached):
    inner = Slow(lambda request: PolicyError("no"))
    outcomes = cached(inner).generate([ask("a")] * 6)
    assert [str(outcome) for outcome in outcomes] == ["no"] * 6
    assert len(inner.requests) == 1


def test_one_waiter_that_gives_up_leaves_the_others_their_answer(cached):
    inner = Slow(by_seed)
    policy = cached(inner)

    async def main():
        impatient = asyncio.create_task(policy.ask(ask("a")))
        patient = asyncio.create_task(policy.ask(ask("a")))
        await asyncio.sleep(0.005)
        impatient.cancel()
        return await patient

    assert texts(asyncio.run(main())) == ["a 0"]
    assert len(inner.requests) == 1
    assert inner.cancelled == []


def test_a_call_that_nobody_waits_for_is_given_up_and_does_not_harm_the_next(cached):
    inner = Slow(by_seed, hold=["a"])
    policy = cached(inner)

    async def main():
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(policy.ask(ask("a")), 0.05)
        inner.hold.clear()
        return await policy.ask(ask("a"))

    assert texts(asyncio.run(main())) == ["a 0"]
    assert inner.cancelled == ["a", "a"]


def test_a_stop_is_passed_on_once_what_is_under_way_has_been_kept(cached):
    class Stopping(Slow):
        async def ask(self, request):
            if request.messages[-1].content == "stop":
                raise PolicyStopped("budget")
            return await super().ask(request)

    policy = cached(Stopping(by_seed))

    async def main():
        """As a careless caller does it: the first error cancels everything else."""
        async with asyncio.TaskGroup() as group:
            for content in ("a", "b", "stop", "c", "stop"):
                group.create_task(policy.ask(ask(content)))

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    again = cached(ScriptedPolicy({}))
    assert [texts(outcome) for outcome in again.generate([ask("a"), ask("b"), ask("c")])] == [["a 0"], ["b 0"], ["c 0"]]


def test_where_another_process_was_faster_its_text_is_what_all_go_on_with(tmp_path):
    path = tmp_path / "c.sqlite"
    ours, theirs = CompletionStore(path), CompletionStore(path)
    assert theirs.write([Row(b"k", 0, Completion("theirs"))]) == [Completion("theirs")]
    rows = [Row(b"k", 0, Completion("ours")), Row(b"k", 1, Completion("more"))]
    assert ours.write(rows) == [Completion("theirs"), Completion("more")]
    assert ours.read(b"k", 9) == [Completion("theirs"), Completion("more")]


def test_rows_are_written_together_while_the_disk_is_busy(cached, monkeypatch):
    written = []
    write = CompletionStore.write

    def slow_write(store, rows):
        written.append(len(rows))
        time.sleep(0.05)
        return write(store, rows)

    monkeypatch.setattr(CompletionStore, "write", slow_write)
    policy = cached(Slow(by_seed))
    policy._policy.concurrency = 100
    policy.generate([ask(str(number)) for number in range(100)])
    assert sum(written) == 100
    assert len(written) < 20


WORKER = """
import sys
from pathlib import Path
from reasonflux_prm.policy.base import Completion, Message, Request
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.scripted import ScriptedPolicy
path, name = sys.argv[1:]
sys.stdin.readline()
policy = CachedPolicy(ScriptedPolicy(lambda request: f"by {name}"), Path(path))
outcomes = policy.generate([Request((Message("user", str(number)),)) for number in range(300)])
print(*(outcome[0].text for outcome in outcomes), sep="|")
"""


def worker(path, name):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_many_processes_share_a_file_that_none_of_them_has_made(tmp_path):
    path = tmp_path / "new" / "completions.sqlite"
    workers = [worker(path, str(number)) for number in range(4)]
    for one in workers:
        one.stdin.write("go\n")
        one.stdin.flush()
    answers = [one.communicate(timeout=120) for one in workers]
    assert [errors for _, errors in answers] == [""] * 4
    assert len({out for out, _ in answers}) == 1, "two processes went on with different texts"
    assert len(answers[0][0].split("|")) == 300
    store = CompletionStore(path)
    assert len(store._reader.execute("SELECT * FROM completions").fetchall()) == 300
    assert store._reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_writer_waits_for_another_process(tmp_path):
    path = tmp_path / "c.sqlite"
    store = CompletionStore(path)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    letting_go = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    letting_go.start()
    assert store.write([Row(b"k", 0, Completion("a"))]) == [Completion("a")]
    letting_go.join()
    other.close()


def test_a_killed_process_leaves_a_whole_file(tmp_path):
    path = tmp_path / "c.sqlite"
    writing = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import itertools, sys\n"
            "from pathlib import Path\n"
            "from reasonflux_prm.policy.base import Completion\n"
            "from reasonflux_prm.policy.completion_store import CompletionStore, Row\n"
            "store = CompletionStore(Path(sys.argv[1]))\n"
            "for number in itertools.count():\n"
            "    store.write([Row(number.to_bytes(8, 'big'), 0, Completion('x' * 1000))])\n"
            "    print(number, flush=True)\n",
            str(path),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    while writing.stdout.readline() != "40\n":
        pass
    writing.send_signal(signal.SIGKILL)
    written = 40 + len(writing.stdout.read().splitlines())
    writing.wait()
    store = CompletionStore(path)
    assert all(store.read(number.to_bytes(8, "big"), 1) for number in range(written + 1))


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be read as one" * 30, b"SQLite format 3\x00" + b"\xff" * 5000]
)
def test_a_damaged_file(tmp_path, content):
    path = tmp_path / "c.sqlite"
    path.write_bytes(content)
    with pytest.raises(PolicyStopped, match="is damaged"):
        CachedPolicy(ScriptedPolicy({}), path)
    assert path.read_bytes() == content


def test_a_file_that_is_damaged_further_in(tmp_path, cached):
    cached(ScriptedPolicy(by_seed)).generate([ask(str(number)) for number in range(500)])
    path = tmp_path / "completions.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    policy = cached(ScriptedPolicy(by_seed))
    with pytest.raises(PolicyStopped, match="is damaged"):
        policy.generate([ask(str(number)) for number in range(500)])


def test_a_row_that_is_not_ours(tmp_path):
    store = CompletionStore(tmp_path / "c.sqlite")
    store._writer.execute("INSERT INTO completions VALUES (?, 0, '{\"words\": 3}')", (b"k",))
    with pytest.raises(PolicyStopped, match="is damaged"):
        store.read(b"k", 1)


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(PolicyStopped, match="is not a cache of completions"):
        CachedPolicy(ScriptedPolicy({}), path)


def test_a_file_of_a_later_version(tmp_path, monkeypatch):
    path = tmp_path / "c.sqlite"
    monkeypatch.setattr(completion_store, "_SCHEMA", 2)
    CompletionStore(path).close()
    monkeypatch.undo()
    with pytest.raises(PolicyStopped, match="of this version"):
        CompletionStore(path)


def test_a_full_disk(tmp_path):
    path = tmp_path / "c.sqlite"
    policy = CachedPolicy(ScriptedPolicy(lambda request: "x" * 10_000), path)
    policy.generate([ask("small")])
    # What SQLite says when the disk is full, without filling one.
    (pages,) = policy._store._writer.execute("PRAGMA page_count").fetchone()
    policy._store._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(PolicyStopped, match=r"cannot be used \(database or disk is full\); check the disk"):
        policy.generate([ask(str(number)) for number in range(20)])
    assert texts(policy.generate([ask("small")])[0]) == ["x" * 10_000]  # what is in it is still there
    policy.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PolicyStopped, match="cannot be used"):
        CachedPolicy(ScriptedPolicy({}), tmp_path / "c.sqlite")


def test_a_path_that_is_a_folder(tmp_path):
    with pytest.raises(PolicyStopped, match="cannot be used"):
        CachedPolicy(ScriptedPolicy({}), tmp_path)


def test_the_wrapped_policy_shows_through(cached):
    inner = ScriptedPolicy({}, "inner")
    policy = cached(inner)
    assert (policy.name, policy.concurrency, policy.identity()) == ("inner", 1, inner.identity())
