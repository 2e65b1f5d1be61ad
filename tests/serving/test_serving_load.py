"""Two hundred clients at once: no answer lost, none swapped, memory flat; and clients that hang up."""

import asyncio
import gc
import random
import socket
import time
from functools import cache

import httpx
import psutil
import pytest
from serving_parts import HeldService, error_of, live, row

from reasonflux_prm.records import Trace
from reasonflux_prm.serving.limits import ServiceLimits

CLIENTS = 200
POOL = 300
"""Different traces."""


@cache
def made_up(number):
    """Return a record that only this number has, of one step to eight."""
    rng = random.Random(number)
    steps = (f"Number {number}, step {step}: " + "so " * rng.randint(1, 6) for step in range(rng.randint(1, 8)))
    return row(number, thinking="\n\n".join(steps))


@pytest.fixture(scope="module")
def expected(engine):
    rows = [made_up(number) for number in range(POOL)]
    return {one.trace.id: one for one in engine.score(Trace(**one) for one in rows)}


async def ask(client, numbers):
    """Send one request and return the records; waits where the service is busy."""
    while True:
        reply = await client.post("/score", json={"traces": [made_up(number) for number in numbers]})
        if reply.status_code != 429:
            assert reply.status_code == 200, reply.text
            return reply.json()["scored"]
        await asyncio.sleep(0.1 * int(reply.headers["retry-after"]))


async def crowd(url, rounds, sizes):
    """Run all clients at once, each sending request after request; return the answers by client and round."""
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def one(number):
            rng = random.Random(number)
            answers = []
            for _ in range(rounds):
                numbers = [rng.randrange(POOL) for _ in range(rng.choice(sizes))]
                answers.append((numbers, await ask(client, numbers)))
            return answers

        return await asyncio.gather(*(one(number) for number in range(CLIENTS)))


def check(answers, expected):
    """Every record is that of its own trace, in the place of its request."""
    records = 0
    for numbers, scored in (pair for client in answers for pair in client):
        assert [one["id"] for one in scored] == [f"t{number}" for number in numbers]
        for one in scored:
            wanted = expected[one["id"]]
            assert one["status"] == "scored"
            assert one["thinking"] == wanted.trace.thinking
            assert [step["reward"] for step in one["steps"]] == pytest.approx(list(wanted.step_rewards), abs=1e-6)
            assert one["reward"] == pytest.approx(wanted.reward, abs=1e-6)
            records += 1
    return records


def test_the_made_up_traces_can_be_told_apart(expected):
    assert len({round(one.reward, 5) for one in expected.values()}) > 0.9 * len(expected)


def test_two_hundred_clients(prm, expected):
    with live(prm) as service:
        answers = asyncio.run(crowd(service.url, 1, (1,)))
        records = check(answers, expected)
        assert service.count('reasonflux_prm_traces_total{status="scored"}') == records
        assert service.count("reasonflux_prm_queue_traces") == service.count("reasonflux_prm_queue_tokens") == 0
        passes, tokens = (service.count(f"reasonflux_prm_{name}_total") for name in ("passes", "tokens"))
        assert tokens == sum(expected[one["id"]].tokens for client in answers for _, scored in client for one in scored)
        assert tokens / passes > 0.5 * service.service.engine.pack_tokens


@pytest.mark.slow
def test_two_hundred_clients_for_a_while(prm, expected):
    """A queue that is too small for them refuses many times and loses nothing; memory stays where it was."""
    with live(prm, limits=ServiceLimits(queue_traces=300)) as service:
        sizes = []
        for _ in range(6):
            check(asyncio.run(crowd(service.url, 2, (1, 2, 3))), expected)
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss / 2**20)
        assert service.count('reasonflux_prm_requests_total{code="429",endpoint="/score"}') > 0
    # The first crowds fill caches and pools; after them nothing may grow.
    assert max(sizes[3:]) - max(sizes[:3]) < 8, sizes


def test_a_full_queue(prm):
    limits = ServiceLimits(queue_traces=3)
    with live(prm, limits=limits, service_class=HeldService) as busy:

        async def check():
            async with httpx.AsyncClient(base_url=busy.url, timeout=60) as client:
                waiting = asyncio.create_task(client.post("/score", json={"traces": [row(1), row(2)]}))
                await until(lambda: busy.service.room.traces == 2)
                full = await client.post("/score", json={"traces": [row(3), row(4)]})
                fits = asyncio.create_task(client.post("/score", json={"traces": [row(5)]}))
                await until(lambda: busy.service.room.traces == 3)
                busy.service.held.open.set()
                return full, await waiting, await fits

        full, *others = asyncio.run(check())
        assert full.status_code == 429
        assert int(full.headers["retry-after"]) >= 1
        assert "the queue is full: it holds 2 of 3 traces" in error_of(full)
        assert [other.status_code for other in others] == [200, 200]
        never = busy.post("/score", {"traces": [row(number) for number in range(4)]})
        assert never.status_code == 413
        assert "send fewer traces at a time" in error_of(never)


def test_a_queue_that_is_full_of_tokens(prm, engine):
    tokens = [engine.prepare(Trace(**row(number))).tokens for number in (1, 2, 3)]
    limits = ServiceLimits(queue_tokens=sum(tokens) - 1)
    with live(prm, limits=limits, service_class=HeldService) as busy:

        async def check():
            async with httpx.AsyncClient(base_url=busy.url, timeout=60) as client:
                waiting = asyncio.create_task(client.post("/score", json={"traces": [row(1)]}))
                await until(lambda: busy.service.room.tokens)
                full = await client.post("/score", json={"traces": [row(2), row(3)]})
                busy.service.held.open.set()
                return full, await waiting

        full, waited = asyncio.run(check())
        assert (full.status_code, waited.status_code) == (429, 200)
        assert f"it holds 1 of 1,024 traces and {tokens[0]} of {sum(tokens) - 1}" in error_of(full)
        assert (busy.service.room.traces, busy.service.room.tokens) == (0, 0)


async def until(holds):
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to it")


@pytest.mark.parametrize("path", ["/score", "/get_reward", "/pooling"])
def test_a_client_that_hangs_up(prm, path):
    """What it asked for is dropped if nobody has begun with it, and its place is free at once."""
    bodies = {
        "/score": '{"traces": [{"problem": "p", "response": "gone"}]}',
        "/get_reward": '{"query": ["gone"]}',
        "/pooling": '{"input": "gone"}',
    }
    body = bodies[path]
    with live(prm, service_class=HeldService) as service:

        async def check():
            async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
                first = asyncio.create_task(client.post("/score", json={"traces": row(1)}))
                await until(service.service.held.entered.is_set)
                host, port = httpx.URL(service.url).netloc.decode().split(":")
                with socket.create_connection((host, int(port))) as connection:
                    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                    await until(lambda: service.service.room.traces == 2 and len(service.service._batcher._entries))
                await until(lambda: service.service.room.traces == 1)
                assert not service.service._batcher._entries
                service.service.held.open.set()
                return await first

        assert asyncio.run(check()).status_code == 200
        assert service.count("reasonflux_prm_dropped_traces_total") == 1
        assert service.count(f'reasonflux_prm_requests_total{{code="499",endpoint="{path}"}}') == 1
        assert service.post("/score", {"traces": row(2)}).status_code == 200


def test_clients_that_hang_up_in_the_middle_of_a_body(prm):
    with live(prm) as service:
        host, port = httpx.URL(service.url).netloc.decode().split(":")
        for _ in range(20):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
                connection.sendall(b'Content-Length: 100\r\n\r\n{"traces"')
        deadline = time.monotonic() + 10
        while service.count('reasonflux_prm_requests_total{code="499",endpoint="/score"}') < 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert service.post("/score", {"traces": row(2)}).status_code == 200
