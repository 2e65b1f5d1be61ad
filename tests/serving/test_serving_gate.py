"""What a request passes before it is looked at: the token, its kind, its size, its time."""

import socket
import time

import httpx
import pytest
from serving_parts import HeldService, error_of, live, row

from reasonflux_prm.errors import UsageError
from reasonflux_prm.serving.limits import ServiceLimits

TOKEN = "a token of our own"


@pytest.fixture(scope="module")
def guarded(prm):
    with live(prm, limits=ServiceLimits(body_bytes=2000, body_s=0.5, held_bytes=3000), token=TOKEN) as service:
        yield service


def bearing(token, scheme="Bearer"):
    return {"authorization": f"{scheme} {token}"}


WRONG = [
    {},
    bearing("another"),
    bearing(TOKEN[:-1]),
    bearing(TOKEN + "x"),
    bearing(TOKEN, "Basic"),
    bearing("\xe9"),
    {"authorization": TOKEN},
    {"authorization": "Bearer"},
]
PATHS = [("POST", "/score"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/no")]


@pytest.mark.parametrize("headers", WRONG)
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_wrong_token(guarded, headers, method, path):
    headers = {name: value.encode("latin-1") for name, value in headers.items()}
    reply = httpx.request(method, guarded.url + path, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in reply.text
    assert "Authorization: Bearer" in error_of(reply)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_right_token(guarded, scheme):
    assert guarded.post("/score", {"traces": row(1)}, headers=bearing(TOKEN, scheme)).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_probes_need_no_token(guarded, path):
    assert guarded.get(path).json()["ready"] is True


def test_a_body_that_says_it_is_too_large(guarded):
    reply = guarded.post("/score", content=b" " * 2001, headers={**bearing(TOKEN), "content-type": "application/json"})
    assert reply.status_code == 413
    assert "at most 2,000 bytes, got 2,001" in error_of(reply)


def test_a_body_that_turns_out_too_large(guarded):
    """Sent in chunks, a body does not say how long it is; one that never ends is refused all the same."""
    with socket.create_connection(httpx.URL(guarded.url).netloc.decode().split(":")) as connection:
        head = f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        connection.settimeout(10)
        for _ in range(30):
            connection.sendall(b"64\r\n" + b" " * 100 + b"\r\n")
            time.sleep(0.005)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come(guarded):
    with socket.create_connection(httpx.URL(guarded.url).netloc.decode().split(":")) as connection:
        head = f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1999\r\n\r\n{{".encode())
        connection.settimeout(10)
        time.sleep(0.1)
        # What it may still send counts, or many of its kind would fill the memory.
        crowded = guarded.post("/score", {"traces": row(1, note="x" * 1200)}, headers=bearing(TOKEN))
        assert crowded.status_code == 429
        assert crowded.headers["retry-after"] == "1"
        assert "in progress" in error_of(crowded)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert guarded.post("/score", {"traces": row(1, note="x" * 1200)}, headers=bearing(TOKEN)).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_is_not_said_to_be_json(guarded, kind):
    reply = guarded.post("/score", content=b'{"traces": []}', headers={**bearing(TOKEN), "content-type": kind})
    assert reply.status_code == 415
    assert "Content-Type: application/json" in error_of(reply)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/vnd.api+json"])
def test_a_body_that_is_said_to_be_json(guarded, kind):
    reply = guarded.post("/score", content=b'{"traces": []}', headers={**bearing(TOKEN), "content-type": kind})
    assert reply.status_code == 200


def test_a_service_that_stops_takes_nothing_more(prm):
    with live(prm, service_class=HeldService) as stopping:
        stopping.service.drain()
        reply = stopping.post("/score", {"traces": row(1)})
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) > 0
        assert "stopping" in error_of(reply)
        health = stopping.get("/health")
        assert health.status_code == 503
        assert health.json() == {"live": True, "ready": False, "queue_traces": 0, "queue_tokens": 0}
        assert stopping.get("/health/ready").status_code == 503
        assert stopping.get("/health/live").status_code == 200


@pytest.mark.parametrize("name", ["queue_traces", "queue_tokens", "body_bytes", "held_bytes"])
def test_limits_of_nothing(name):
    with pytest.raises(UsageError, match=name):
        ServiceLimits(**{name: 0})
    with pytest.raises(UsageError, match="drain_s"):
        ServiceLimits(drain_s=-1)
