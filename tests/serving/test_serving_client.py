"""The client: the engine's records, in order, from a service that is busy, slow, gone or another's."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from serving_parts import HeldService, live, row

from reasonflux_prm.errors import InputError, ServiceError, UsageError
from reasonflux_prm.records import Status, Step, Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.serving.calls import Patience
from reasonflux_prm.serving.client import AsyncClient, Client
from reasonflux_prm.serving.limits import ServiceLimits
from reasonflux_prm.serving.remote import RemoteScorer

HASTY = Patience(timeout_s=20, busy_s=20, attempts=2)


def traces(count, **fields):
    return [Trace(**row(number), meta={"kept": number}, **fields) for number in range(count)]


def assert_equal(got, expected):
    """Compare records; rewards to 1e-6, all else exactly, the traces' identity included."""
    assert len(got) == len(expected)
    for one, wanted in zip(got, expected, strict=True):
        assert one.trace == wanted.trace
        assert (one.status, one.steps, one.prm, one.tokens) == (wanted.status, wanted.steps, wanted.prm, wanted.tokens)
        assert (one.overflow, one.note) == (wanted.overflow, wanted.note)
        assert list(one.step_rewards) == pytest.approx(list(wanted.step_rewards), abs=1e-6)
        assert (one.reward, one.trajectory_reward) == pytest.approx((wanted.reward, wanted.trajectory_reward), abs=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_records_are_those_of_the_engine(served, engine, batch):
    with Client(served.url, batch=batch) as client:
        assert_equal(client.score(traces(20)), list(engine.score(traces(20))))
        assert client.score([]) == []


def test_from_an_event_loop(served, engine):
    async def score():
        async with AsyncClient(served.url, batch=3) as client:
            return await asyncio.gather(client.score(traces(5)), client.score(traces(9)))

    five, nine = asyncio.run(score())
    assert_equal(five, list(engine.score(traces(5))))
    assert_equal(nine, list(engine.score(traces(9))))


def test_settings_of_a_call(served, prm):
    settings = {"alpha": 0.5, "aggregation": "min", "steps": "sentence", "overflow": "refuse", "overlap": 0.25}
    with Client(served.url) as client:
        assert_equal(
            client.score(traces(4), **settings), list(Engine(prm, EngineSettings(**settings)).score(traces(4)))
        )


def test_given_steps_are_sent(served, prm):
    thinking = row(0)["thinking"]
    given = traces(1, steps=(Step("thinking", 0, 9), Step("thinking", 9, len(thinking)), Step("response", 0, 2)))
    with Client(served.url) as client:
        got = client.score(given, steps="given")
    assert len(got[0].steps) == 3
    assert_equal(got, list(Engine(prm, EngineSettings(steps="given")).score(given)))


def test_a_trace_that_cannot_be_scored_stops_nobody(served):
    half = Trace("half", "p", response="\ud800")
    with Client(served.url) as client:
        got = client.score([*traces(2), half, Trace("empty", "p"), *traces(1)])
    assert [one.status for one in got] == [
        Status.SCORED,
        Status.SCORED,
        Status.FAILED,
        Status.NO_STEPS,
        Status.SCORED,
    ]
    assert "half" in got[2].note
    assert got[2].prm == got[0].prm


def test_batches_that_are_too_large_are_cut(prm, engine):
    limits = ServiceLimits(queue_traces=4, body_bytes=3000)
    with live(prm, limits=limits) as small, Client(small.url, batch=32, concurrency=1) as client:
        long = Trace("long", "p", response="so " * 2000)
        got = client.score([*traces(13), long])
        assert_equal(got[:13], list(engine.score(traces(13))))
        assert got[13].status is Status.TOO_LONG
        assert "at most 3,000 bytes" in got[13].note


def test_a_busy_service_is_waited_for(prm, engine):
    with live(prm, limits=ServiceLimits(queue_traces=2), service_class=HeldService) as busy:
        threading.Timer(0.3, busy.service.held.open.set).start()
        with Client(busy.url, batch=1, concurrency=6) as client:
            assert_equal(client.score(traces(8)), list(engine.score(traces(8))))
        assert busy.count('reasonflux_prm_requests_total{code="429",endpoint="/score"}') > 0


def test_patience_ends(prm):
    limits = ServiceLimits(queue_traces=1)
    with live(prm, limits=limits, service_class=HeldService) as busy:
        thread = threading.Thread(target=busy.post, args=("/score", {"traces": row(1)}))
        thread.start()
        assert busy.service.held.entered.wait(20)
        full = pytest.raises(ServiceError, match="429: the queue is full: it holds 1 of 1 traces")
        with Client(busy.url, patience=Patience(busy_s=0.5)) as client, full:
            client.score(traces(1))
        busy.service.held.open.set()
        thread.join(20)


def test_a_wrong_token(prm):
    with live(prm, token="right") as guarded:
        with Client(guarded.url, token="right") as client:
            assert client.score(traces(1))[0].status is Status.SCORED
        with Client(guarded.url, token="wrong") as client:
            assert client.healthy()
            with pytest.raises(ServiceError, match="answered 401") as caught:
                client.score(traces(1))
            assert "wrong" not in str(caught.value)


def test_the_token_of_the_environment(prm, monkeypatch):
    monkeypatch.setenv("REASONFLUX_PRM_TOKEN", "right")
    with live(prm, token="right") as guarded, Client(guarded.url) as client:
        assert client.score(traces(1))[0].status is Status.SCORED


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"aggregation": "median"}, "aggregation"),
        ({"alpha": float("inf")}, "Infinity"),
        ({"overlap": 3.0}, "overlap"),
    ],
)
def test_settings_that_are_none(served, settings, says):
    with Client(served.url) as client, pytest.raises(InputError, match=says):
        client.score(traces(1), **settings)


def test_pooling_model_and_health(served, prm):
    with Client(served.url) as client:
        labels = client.pooling(["one", [5, 6, 7]])
        assert [len(one) for one in labels][1] == 3
        assert client.model()["id"] == prm.spec.name
        assert client.healthy()
        with pytest.raises(InputError, match="token ids"):
            client.pooling([[10**9]])


def test_a_closed_client(served):
    client = Client(served.url)
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.score(traces(1))


def test_no_service_there():
    with Client("http://127.0.0.1:9", patience=HASTY) as client:
        assert not client.healthy()
        with pytest.raises(ServiceError, match=r"could not be reached .* check that a service runs at this address"):
            client.score(traces(1))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://[", ""])
def test_no_address(url):
    with pytest.raises(UsageError, match="expected the address of a service"):
        Client(url)


@pytest.mark.parametrize(("batch", "concurrency"), [(0, 1), (1, 0)])
def test_nothing_at_a_time(batch, concurrency):
    with pytest.raises(UsageError, match="at least 1"):
        Client("http://127.0.0.1:9", batch=batch, concurrency=concurrency)


# --- a server that is not ours, or not well ------------------------------------------------------------------------


class Other:
    """A server that gives prepared answers, the last one for ever."""

    def __init__(self, *answers):
        self.asked = 0
        self._answers = answers

    def __enter__(self):
        other = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

            def do_GET(self):
                answer = other._answers[min(other.asked, len(other._answers) - 1)]
                other.asked += 1
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


BUSY = (503, {"retry-after": "0"}, b'{"error": {"message": "soon", "type": "ServiceError", "code": 503}}')
EMPTY = (200, {}, b'{"scored": [], "rejects": []}')


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (EMPTY, "a form that is not ours"),
        ((200, {}, b"<h1>hello</h1>"), "expected JSON"),
        ((200, {}, b'{"scored": [{}], "rejects": []}'), "a form that is not ours"),
        ((200, {}, b'{"scored": 3}'), "a form that is not ours"),
        ((404, {}, b"not here"), "answered 404: not here"),
        ((500, {}, b'{"error": {"message": "oh", "type": "ServiceError", "code": 500}}'), "answered 500: oh"),
        ((400, {}, b'{"error": {"message": "oh", "type": "SystemExit", "code": 400}}'), "answered 400: oh"),
        ((502, {}, b""), "answered 502: Bad Gateway"),
        (None, "broke off"),
    ],
)
def test_answers_of_others(answer, says):
    wrong = pytest.raises(ServiceError, match=says)
    with Other(answer) as other, Client(other.url, patience=HASTY) as client, wrong:
        client.score(traces(1))


def test_failures_are_tried_again(served):
    good = served.post("/score", {"traces": row(0), "echo": False}).content
    with Other(None, BUSY, BUSY, BUSY, (200, {}, good)) as other, Client(other.url, patience=HASTY) as client:
        assert client.score(traces(1))[0].status is Status.SCORED
        assert other.asked == 5


def test_refusals_are_not_tried_again():
    refusal = (422, {}, json.dumps({"error": {"message": "no", "type": "UsageError", "code": 422}}).encode())
    with Other(refusal) as other, Client(other.url, patience=HASTY) as client:
        with pytest.raises(UsageError, match="no"):
            client.score(traces(1))
        assert other.asked == 1


def test_an_answer_that_does_not_come(prm):
    with live(prm, service_class=HeldService) as held:
        late = pytest.raises(ServiceError, match=r"no answer within 0\.2 s")
        with Client(held.url, patience=Patience(timeout_s=0.2, attempts=2)) as client, late:
            client.score(traces(1))
        held.service.held.open.set()


# --- file to file --------------------------------------------------------------------------------------------------


def test_a_run_scores_by_a_service(served, prm):
    with Client(served.url) as client:
        scorer = RemoteScorer(client, alpha=0.5, aggregation="min", steps="sentence", overflow=None, overlap=None)
        chunks = list(scorer.score_chunks(traces(5)))
        expected = Engine(prm, EngineSettings(alpha=0.5, aggregation="min", steps="sentence"))
        assert_equal([one for chunk in chunks for one in chunk], list(expected.score(traces(5))))
        assert scorer.identity == expected.identity
        assert scorer.settings_for_manifest() == expected.settings_for_manifest()
