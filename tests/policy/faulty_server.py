"""An OpenAI-compatible server on this machine that fails on purpose: `from tests.policy.faulty_server import ...`.

It runs on a thread of its own and counts by request: how often each was asked, which were answered, and which were
asked again after their answer had been delivered whole.
"""

import asyncio
import json
import random
import threading
from collections import Counter
from email.utils import formatdate

FAULTS = (
    "429",
    "429 with Retry-After",
    "429 with a date",
    "500",
    "503 in HTML",
    "half a response",
    "malformed JSON",
    "empty choices",
    "wrong shape",
    "disconnect",
    "reset after the head",
    "trickle",
    "hang",
)


def choice(text, **fields):
    return {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **fields}


def identify(body):
    """What makes a request the same one: messages and seed, not how often it was tried."""
    return json.dumps([body["messages"], body.get("seed")])


class FaultyServer:
    """A server that answers `share` of its requests with one of `faults`.

    Args:
        answer: From a request's body to a text, a list of choices, or (status, headers, bytes).
        share: Of all requests, how many meet a fault, in [0, 1].
        faults: Which; names in `FAULTS`.
        seed: Of the choice of faults.
        latency_s: Seconds before anything is sent back.
        retry_after_s: What `Retry-After` says.
        honours_n: Whether it gives `n` choices; they differ by their index.
        usage: Whether it counts tokens.
    """

    def __init__(
        self,
        answer=lambda body: "echo: " + body["messages"][-1]["content"],
        *,
        share=0.0,
        faults=FAULTS,
        seed=0,
        latency_s=0.0,
        retry_after_s=0.05,
        honours_n=True,
        usage=True,
    ):
        self.answer, self.share, self.faults, self.latency_s = answer, share, tuple(faults), latency_s
        self.retry_after_s, self.honours_n, self.usage = retry_after_s, honours_n, usage
        self.asked, self.answered, self.met = Counter(), Counter(), Counter()
        self.asked_after_answer, self.bodies = [], []
        self.delivered = 0  # answers with status 200, of all requests together
        self.under_way = self.most_under_way = self.connections = 0
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self):
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                try:
                    if not await self._request(body, writer):
                        return
                finally:
                    self.under_way -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _request(self, body, writer):
        """Answer or fail; returns whether the connection may be used again."""
        name = identify(body)
        self.bodies.append(body)
        self.asked[name] += 1
        if self.answered[name]:
            self.asked_after_answer.append(name)
        fault = self._random.choice(self.faults) if self._random.random() < self.share else None
        await asyncio.sleep(self.latency_s)
        status, headers, payload = self._payload(body)
        if fault is None:
            await _send(writer, status, headers, payload)
            if status == 200:
                self.answered[name] += 1
                self.delivered += 1
            return True
        self.met[fault] += 1
        return await self._fail(fault, writer, payload)

    def _payload(self, body):
        answer = self.answer(body)
        if isinstance(answer, tuple):
            return answer
        choices = answer if isinstance(answer, list) else [choice(answer)]
        if isinstance(answer, str) and self.honours_n:
            choices = [choice(answer + (f" #{index}" if index else "")) for index in range(body.get("n", 1))]
        usage = {"usage": {"prompt_tokens": 10, "completion_tokens": 5 * len(choices)}} if self.usage else {}
        return 200, {}, json.dumps({"choices": choices, **usage}).encode()

    async def _fail(self, fault, writer, payload):
        error = json.dumps({"error": {"message": f"planned: {fault}"}}).encode()
        whole = {
            "429": (429, {}, error),
            "429 with Retry-After": (429, {"Retry-After": self.retry_after_s}, error),
            "429 with a date": (429, {"Retry-After": formatdate(usegmt=True)}, error),
            "500": (500, {}, error),
            "503 in HTML": (503, {"Content-Type": "text/html"}, b"<h1>busy</h1>"),
            "malformed JSON": (200, {}, payload[: len(payload) // 2]),
            "empty choices": (200, {}, b'{"choices": []}'),
            "wrong shape": (200, {}, b'{"choices": [{"message": {"content": 3}}]}'),
        }
        if fault in whole:
            await _send(writer, *whole[fault])
            return True
        if fault == "half a response":
            await _send(writer, 200, {"Content-Length": len(payload)}, payload[: len(payload) // 2])
        elif fault == "reset after the head":
            await _send(writer, 200, {"Content-Length": len(payload)}, b"")
            writer.transport.abort()
        elif fault == "trickle":
            await _send(writer, 200, {"Content-Length": len(payload)}, b"")
            for byte in payload:
                await asyncio.sleep(0.1)
                writer.write(bytes([byte]))
                await writer.drain()
        elif fault == "hang":
            await asyncio.sleep(60)
        return False


async def _send(writer, status, headers, payload):
    headers = {"Content-Type": "application/json", "Content-Length": len(payload), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + payload)
    await writer.drain()
