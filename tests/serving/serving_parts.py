"""A service on this machine's loopback, in a thread of the test's process, and requests to it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from reasonflux_prm.serving.app import create_app
from reasonflux_prm.serving.host import Host, address_of, bind
from reasonflux_prm.serving.pooling import Pooler
from reasonflux_prm.serving.service import Service


@dataclass
class Live:
    """A service that runs."""

    url: str
    service: Service
    host: Host

    def post(self, path, body=None, **options):
        options = {"json": body, **options} if body is not None else options
        return httpx.post(self.url + path, timeout=60, **options)

    def get(self, path, **options):
        return httpx.get(self.url + path, timeout=60, **options)

    def count(self, name):
        """Return one number of /metrics."""
        return metric(self.get("/metrics").text, name)


@contextmanager
def live(prm, settings=None, limits=None, *, token=None, pooling=None, service_class=Service):
    """Run a service until the block ends."""
    service = service_class(prm, settings, limits)
    host = Host(create_app(service, Pooler(prm, pooling), token), service)
    bound = bind("127.0.0.1", 0)
    url = address_of(bound)
    started = threading.Event()
    thread = threading.Thread(target=host.serve_until_stopped, args=(bound, started.set))
    thread.start()
    try:
        assert started.wait(20)
        yield Live(url, service, host)
    finally:
        host.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


class SlowEngine:
    """Stands before an engine's `run` and holds it up until it is let go."""

    def __init__(self, engine):
        self._run = engine.run
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, jobs):
        self.entered.set()
        assert self.open.wait(60)
        self._run(jobs)


class HeldService(Service):
    """A service whose PRM reads nothing before `held.open` is set."""

    def __init__(self, prm, settings=None, limits=None):
        super().__init__(prm, settings, limits)
        self.held = SlowEngine(self.engine)
        self._batcher._run = self.held


def metric(text, name):
    values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == name]
    return float(values[0]) if values else 0.0


def row(number, **columns):
    """Return a record of some 30 tokens that only this number has."""
    thinking = f"We need {number} + 30.\n\nThe units give {number % 10}.\n\nWait, so the sum is {number + 30}."
    return {
        "id": f"t{number}",
        "problem": f"What is {number} + 30?",
        "thinking": thinking,
        "response": f"{number + 30}",
    } | columns


def error_of(reply):
    """Return the sentence of an error, after checking its form."""
    body = json.loads(reply.content)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "code"}
    assert body["error"]["code"] == reply.status_code
    assert body["error"]["message"]
    assert "\n" not in body["error"]["message"]
    return body["error"]["message"]
