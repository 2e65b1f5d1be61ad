"""The client against a real HTTP server on this machine: every answer below crosses a socket."""

import asyncio
import builtins
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reasonflux_prm.errors import MissingExtra, PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy import retries
from reasonflux_prm.policy.base import Completion, Message, PartlyAnswered, Request, TokenLogprob
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy

pytest.importorskip("openai")


class Server:
    """Hand each POST to `self.answer(body) -> (status, headers, text)` and keep what came."""

    def __init__(self):
        self.answer = lambda body: ok("hello")
        self.bodies, self.paths, self.keys, self.headers, self.times, self.policies = [], [], [], [], [], []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.bodies.append(body)
                    outer.paths.append(self.path)
                    outer.keys.append(self.headers["Authorization"])
                    outer.headers.append(self.headers)
                    outer.times.append(time.monotonic())
                    outer.under_way += 1
                    outer.most_under_way = max(outer.most_under_way, outer.under_way)
                status, headers, text = outer.answer(body)
                with outer.lock:
                    outer.under_way -= 1
                payload = text.encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def policy(self, **settings):
        policy = OpenAICompatiblePolicy("tiny", self.url, **{"retries": 0, "timeout_s": 10, **settings})
        self.policies.append(policy)
        return policy

    def close(self):
        self.released.set()
        for policy in self.policies:
            policy.close()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(retries, "_FIRST_PAUSE_S", 0.02)
    running = Server()
    yield running
    running.close()


def choice(text, **fields):
    return {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **fields}


def ok(*choices, usage=None):
    built = [choice(one) if isinstance(one, str | None) else one for one in choices]
    return 200, {}, json.dumps({"choices": built, **({"usage": usage} if usage else {})})


def failure(status, message, **headers):
    return status, headers, json.dumps({"error": {"message": message}})


def ask(content="hi", **settings):
    return Request((Message("user", content),), **settings)


def error_of(policy, request=None):
    """What is said of a request that fails and leaves others their chance."""
    (outcome,) = policy.generate([request or ask()])
    assert isinstance(outcome, PolicyError)
    assert "\n" not in str(outcome)
    return str(outcome)


def stop_of(policy, request=None):
    """What is said when no request has a chance."""
    with pytest.raises(PolicyStopped) as stop:
        policy.generate([request or ask()])
    assert "\n" not in str(stop.value)
    return str(stop.value)


def test_the_request_that_is_sent_and_the_answer_that_is_read(server):
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    server.answer = lambda body: ok({**choice("Paris"), "finish_reason": "length"}, usage=usage)
    messages = (Message("system", "Be brief."), Message("user", "Capital of France?"))
    request = Request(messages, temperature=0.5, top_p=0.9, max_tokens=12, stop=("\n",), seed=3)
    assert server.policy(api_key="k-1").generate([request]) == [
        [Completion("Paris", finish_reason="length", prompt_tokens=7, completion_tokens=3)]
    ]
    assert server.paths == ["/v1/chat/completions"]
    assert server.keys == ["Bearer k-1"]
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Capital of France?"},
            ],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 12,
            "stop": ["\n"],
            "seed": 3,
        }
    ]


def test_the_key_comes_from_the_environment_unless_given(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    server.policy().generate([ask()])
    server.policy(api_key="given").generate([ask()])
    assert server.keys == ["Bearer from-env", "Bearer given"]


def test_a_request_says_what_the_sdk_says_and_keeps_the_servers_cookies(server, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    server.answer = lambda body: (200, {"Set-Cookie": "place=7; Path=/"}, ok("hello")[2])
    server.policy(concurrency=1).generate([ask("one"), ask("two")])
    first, second = server.headers
    assert (first["OpenAI-Organization"], first["Cookie"], second["Cookie"]) == ("org-1", None, "place=7")
    assert first["User-Agent"].startswith("AsyncOpenAI/")
    assert first["Content-Type"] == "application/json"


def test_answers_keep_the_order_of_the_requests_and_the_bound_on_concurrency(server):
    def slow_for_small_numbers(body):
        number = int(body["messages"][0]["content"])
        time.sleep(0.01 * (12 - number))
        return ok(f"answer {number}")

    server.answer = slow_for_small_numbers
    outcomes = server.policy(concurrency=3).generate([ask(str(number)) for number in range(12)])
    assert [outcome[0].text for outcome in outcomes] == [f"answer {number}" for number in range(12)]
    assert 1 < server.most_under_way <= 3


def test_no_requests_no_answers(server):
    assert server.policy().generate([]) == []
    assert server.bodies == []


def test_one_failing_request_stops_no_neighbour(server):
    server.answer = lambda body: failure(400, "bad") if body["messages"][0]["content"] == "1" else ok("fine")
    outcomes = server.policy().generate([ask(str(number)) for number in range(3)])
    assert [isinstance(outcome, PolicyError) for outcome in outcomes] == [False, True, False]


def test_text_that_cannot_be_sent_is_that_requests_error(server):
    outcomes = server.policy().generate([ask("lone surrogate \ud800"), ask("fine")])
    assert isinstance(outcomes[0], PolicyError)
    assert outcomes[1][0].text == "hello"


def test_n_is_asked_once_where_the_server_honours_it(server):
    usage = {"prompt_tokens": 5, "completion_tokens": 30}
    server.answer = lambda body: ok(*[f"sample {index}" for index in range(body["n"])], usage=usage)
    (samples,) = server.policy().generate([ask(n=3)])
    assert [sample.text for sample in samples] == ["sample 0", "sample 1", "sample 2"]
    assert [sample.prompt_tokens for sample in samples] == [5, 0, 0]
    assert sum(sample.completion_tokens for sample in samples) == 30
    assert len(server.bodies) == 1


def test_n_is_made_up_where_the_server_ignores_it_with_another_seed_each_time(server):
    server.answer = lambda body: ok(f"seed {body['seed']}", usage={"prompt_tokens": 5, "completion_tokens": 2})
    (samples,) = server.policy().generate([ask(n=3, seed=10)])
    assert [sample.text for sample in samples] == ["seed 10", "seed 11", "seed 12"]
    assert [body.get("n") for body in server.bodies] == [3, 2, None]
    assert sum(sample.prompt_tokens for sample in samples) == 15


def test_more_choices_than_asked_are_not_handed_on(server):
    server.answer = lambda body: ok("one", "two", "three")
    assert len(server.policy().generate([ask(n=2)])[0]) == 2


def test_logprobs_are_asked_for_and_read(server):
    entries = [
        {
            "token": "Yes",
            "logprob": -0.25,
            "top_logprobs": [{"token": "No", "logprob": -2}, {"token": "Yes", "logprob": -0.25}],
        },
        {"token": "!", "logprob": -1.5, "top_logprobs": []},
    ]
    server.answer = lambda body: ok(choice("Yes!", logprobs={"content": entries}))
    (outcome,) = server.policy().generate([ask(top_logprobs=2)])
    assert server.bodies[0]["logprobs"] is True
    assert server.bodies[0]["top_logprobs"] == 2
    assert outcome[0].logprobs == (
        TokenLogprob("Yes", -0.25, (("Yes", -0.25), ("No", -2.0))),
        TokenLogprob("!", -1.5, ()),
    )


@pytest.mark.parametrize(
    "reported",
    [
        None,
        {"content": None},
        {"content": []},
        {"content": [{"token": "Yes"}]},
        {"content": [{"token": "Yes", "logprob": -0.1}, {"token": None, "logprob": -0.1}]},
        {"content": [{"token": "Yes", "logprob": float("nan")}]},
        {"content": "Yes"},
        [1],
    ],
)
def test_logprobs_that_are_not_there_are_never_made_up(server, reported):
    server.answer = lambda body: ok(choice("Yes", logprobs=reported))
    (outcome,) = server.policy().generate([ask(top_logprobs=2)])
    assert outcome[0].logprobs is None
    assert outcome[0].text == "Yes"


def test_logprobs_that_were_not_asked_for_are_left_out(server):
    server.answer = lambda body: ok(choice("Yes", logprobs={"content": [{"token": "Yes", "logprob": -0.1}]}))
    assert server.policy().generate([ask()])[0][0].logprobs is None
    assert "logprobs" not in server.bodies[0]


@pytest.mark.parametrize(
    ("message", "text", "thinking"),
    [
        ({"content": "4", "reasoning_content": "2 and 2"}, "4", "2 and 2"),
        ({"content": "4", "reasoning": "2 and 2"}, "4", "2 and 2"),
        ({"content": None, "reasoning_content": "cut off"}, "", "cut off"),
        ({"content": "<think>\n2 and 2\n</think>\n\n4"}, "4", "2 and 2"),
        ({"content": "2 and 2\n</think>\n\n4"}, "4", "2 and 2"),
        ({"content": "<think>\n2 and"}, "", "2 and"),
        ({"content": "the mark <think> opens and </think> closes"}, "the mark <think> opens and </think> closes", ""),
        ({"content": " 4\n"}, " 4\n", ""),
        ({"content": None}, "", ""),
    ],
)
def test_thinking_is_kept_apart(server, message, text, thinking):
    server.answer = lambda body: ok({"message": message, "finish_reason": None})
    (outcome,) = server.policy().generate([ask()])
    assert outcome == [Completion(text, thinking=thinking, finish_reason="unknown")]


def test_a_wrong_key(server):
    server.answer = lambda body: failure(401, "Incorrect API key")
    message = stop_of(server.policy(api_key="secret-key", retries=3))
    assert "refused the API key (HTTP 401: Incorrect API key)" in message
    assert "OPENAI_API_KEY" in message
    assert "secret-key" not in message
    assert len(server.bodies) == 1  # no retry can mend a wrong key


def test_an_unknown_model(server):
    server.answer = lambda body: failure(404, "The model `tiny` does not exist.")
    message = stop_of(server.policy(retries=3))
    assert "'tiny'" in message
    assert "does not exist" in message
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [403, 404])
def test_what_looks_like_a_wrong_model_is_one_requests_error_once_others_were_answered(server, status):
    server.answer = lambda body: failure(status, "flagged") if body["messages"][0]["content"] == "bad" else ok("fine")
    policy = server.policy()
    policy.generate([ask()])
    assert "flagged" in error_of(policy, ask("bad"))
    assert policy.generate([ask()])[0][0].text == "fine"


@pytest.mark.parametrize(
    ("status", "error"),
    [(402, {"message": "no credit"}), (429, {"message": "no credit", "code": "insufficient_quota"})],
)
def test_an_empty_account(server, status, error):
    server.answer = lambda body: (status, {}, json.dumps({"error": error}))
    assert "paid first" in stop_of(server.policy(retries=3))
    assert len(server.bodies) == 1


def test_after_a_stop_no_other_request_is_started(server):
    server.answer = lambda body: failure(401, "no")
    policy = server.policy(concurrency=2)
    with pytest.raises(PolicyStopped):
        policy.generate([ask(str(number)) for number in range(50)])
    assert len(server.bodies) <= 2


def test_retry_after_is_honoured(server):
    server.answer = lambda body: failure(429, "slow", **{"Retry-After": "1"}) if len(server.bodies) == 1 else ok("done")
    assert server.policy(retries=1).generate([ask()])[0][0].text == "done"
    assert server.times[1] - server.times[0] >= 1.0  # the client's own first pause is at most 20 ms here


def test_a_server_that_asks_for_an_hour_stops_the_run(server):
    server.answer = lambda body: failure(429, "daily limit", **{"Retry-After": "3600"})
    assert "asks to wait 3,600 s" in stop_of(server.policy(retries=3))


def test_a_rate_limit_that_stays(server):
    server.answer = lambda body: failure(429, "slow down", **{"Retry-After": "0.01"})
    policy = server.policy(retries=2)
    message = error_of(policy)
    assert "asked too often (HTTP 429: slow down)" in message
    assert "(3 attempts)" in message
    assert len(server.bodies) == 3
    assert (policy.attempts, dict(policy.failures)) == (3, {"HTTP 429": 3})


def test_a_server_error_is_tried_again(server):
    server.answer = lambda body: failure(500, "oops") if len(server.bodies) < 3 else ok("after all")
    assert server.policy(retries=2).generate([ask()])[0][0].text == "after all"


def test_a_server_error_that_stays(server):
    server.answer = lambda body: (500, {"Content-Type": "text/html"}, "<h1>oops</h1>\n" * 100)
    message = error_of(server.policy())
    assert "failed on its side (HTTP 500" in message
    assert len(message) < 600


def test_a_server_that_fails_every_request_stops_the_run(server):
    server.answer = lambda body: failure(502, "bad gateway")
    policy = server.policy(concurrency=4)
    with pytest.raises(PolicyStopped, match=r"none of the last 2\d requests was answered.*bad gateway"):
        policy.generate([ask(str(number)) for number in range(100)])
    assert len(server.bodies) < 30


def test_requests_that_are_refused_one_by_one_do_not_stop_the_run(server):
    server.answer = lambda body: failure(400, "too long")
    outcomes = server.policy().generate([ask(str(number)) for number in range(50)])
    assert all("too long" in str(outcome) for outcome in outcomes)


def test_a_server_that_refuses_n_is_asked_for_one_at_a_time(server):
    server.answer = lambda body: failure(400, "one choice only") if body.get("n") else ok(f"seed {body['seed']}")
    policy = server.policy()
    for _ in range(2):
        (samples,) = policy.generate([ask(n=2, seed=5)])
        assert [sample.text for sample in samples] == ["seed 5", "seed 6"]
    assert [body.get("n") for body in server.bodies] == [2, None, None, None, None]


def test_a_request_that_is_refused_with_any_n_leaves_n_as_it_is(server):
    server.answer = lambda body: failure(400, "too long") if body["messages"][0]["content"] == "long" else ok("a", "b")
    policy = server.policy()
    assert "too long" in error_of(policy, ask("long", n=2))
    policy.generate([ask(n=2)])
    assert [body.get("n") for body in server.bodies] == [2, None, 2]


def test_a_model_that_wants_max_completion_tokens_gets_them(server):
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.answer = lambda body: failure(400, said) if "max_tokens" in body else ok("fine")
    policy = server.policy()
    outcomes = policy.generate([ask(str(number), max_tokens=7) for number in range(8)])
    assert [outcome[0].text for outcome in outcomes] == ["fine"] * 8
    policy.generate([ask()])
    assert server.bodies[-1]["max_completion_tokens"] == 2048


def test_completions_that_came_before_a_failure_are_not_lost(server):
    server.answer = lambda body: ok("one") if len(server.bodies) < 3 else failure(500, "oops")
    (outcome,) = server.policy().generate([ask(n=4)])
    assert isinstance(outcome, PartlyAnswered)
    assert str(outcome).startswith("2 of 4 completions came")
    assert [one.text for one in outcome.completions] == ["one", "one"]


def test_a_refused_request_repeats_the_servers_words(server):
    server.answer = lambda body: (422, {}, json.dumps({"detail": [{"loc": ["body", "top_p"], "msg": "extra"}]}))
    message = error_of(server.policy())
    assert "HTTP 422" in message
    assert "top_p" in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"choices": [', "not JSON"),
        ("", "not JSON"),
        ("[]", "no choices"),
        ('{"choices": []}', "no choices"),
        ('{"choices": [3]}', "choice 0"),
        ('{"choices": [{"message": {"content": 3}}]}', "choice 0"),
        ('{"choices": [{"message": {"content": "a"}}, {}]}', "choice 1"),
        ('{"error": {"message": "upstream is down"}}', "upstream is down"),
    ],
)
def test_a_malformed_answer(server, text, named):
    server.answer = lambda body: (200, {}, text)
    assert named in error_of(server.policy())


@pytest.mark.parametrize("text", ["half a rep", '{"choices": []}'])
def test_a_malformed_answer_is_asked_for_again(server, text):
    server.answer = lambda body: (200, {}, text) if len(server.bodies) == 1 else ok("whole")
    policy = server.policy(retries=1)
    assert policy.generate([ask()])[0][0].text == "whole"
    assert dict(policy.failures) == {"malformed answer": 1}


def test_a_server_that_hangs(server):
    server.answer = lambda body: (server.released.wait(30), ok("late"))[1]
    started = time.monotonic()
    message = error_of(server.policy(timeout_s=0.3))
    assert "no answer within 0.3 s" in message
    assert time.monotonic() - started < 5


def test_a_refused_connection(server):
    server.http.shutdown()
    server.http.server_close()
    policy = server.policy(timeout_s=2, retries=2)
    message = stop_of(policy)
    assert "could not be reached" in message
    assert "(3 attempts)" in message
    assert server.url in message
    assert dict(policy.failures) == {"no connection": 3}


def test_a_stop_ends_all_that_wait_and_a_later_request_tries_anew(server, tmp_path):
    """As a careless caller does it: thousands of asks at once, on a server that is not there yet."""
    server.http.shutdown()
    server.http.server_close()
    policy = server.policy(retries=3, timeout_s=5)
    cached = CachedPolicy(policy, tmp_path / "c.sqlite")

    async def all_at_once():
        return await asyncio.gather(*(cached.ask(ask(str(number))) for number in range(2000)), return_exceptions=True)

    outcomes = asyncio.run(all_at_once())
    assert {type(outcome) for outcome in outcomes} == {PolicyStopped}
    assert policy.attempts < 400
    assert "could not be reached" in stop_of(cached)
    cached.close()


def test_asks_from_several_event_loops_and_plain_code_share_one_policy(server):
    server.answer = lambda body: ok(body["messages"][0]["content"])
    policy = server.policy(concurrency=3)

    async def several(letter):
        outcomes = await asyncio.gather(*(policy.ask(ask(f"{letter}{number}")) for number in range(6)))
        return [outcome[0].text for outcome in outcomes]

    async def plain_code_inside_a_running_loop():
        return policy.generate([ask("inside")])[0][0].text

    for letter in "ab":
        assert asyncio.run(several(letter)) == [f"{letter}{number}" for number in range(6)]
    assert asyncio.run(plain_code_inside_a_running_loop()) == "inside"
    assert policy.generate([ask("c")])[0][0].text == "c"
    assert server.most_under_way <= 3


def test_a_cancelled_ask_gives_its_place_to_another(server):
    server.answer = lambda body: (
        (server.released.wait(30), ok("late"))[1] if body["messages"][0]["content"] == "slow" else ok("fast")
    )
    policy = server.policy(concurrency=1)

    async def cancel_and_ask():
        slow = asyncio.create_task(policy.ask(ask("slow")))
        await asyncio.sleep(0.1)
        slow.cancel()
        return await asyncio.wait_for(policy.ask(ask("fast")), 5)

    assert asyncio.run(cancel_and_ask())[0].text == "fast"


def test_a_closed_policy_says_so(server):
    policy = server.policy()
    policy.generate([ask()])
    policy.close()
    policy.close()
    with pytest.raises(UsageError, match="closed"):
        policy.generate([ask()])


def test_identity_holds_neither_key_nor_address(server):
    policy = server.policy(api_key="secret")
    assert policy.identity() == {"backend": "openai-compatible", "model": "tiny"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"retries": -1}, "retries"),
        ({"requests_per_minute": 0.5}, "requests_per_minute"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"),
    ],
)
def test_settings_outside_their_range(settings, named):
    with pytest.raises(UsageError, match=named):
        OpenAICompatiblePolicy("tiny", "http://127.0.0.1:9/v1", **settings)


def test_an_address_without_a_scheme():
    with pytest.raises(UsageError, match="http://"):
        OpenAICompatiblePolicy("tiny", "127.0.0.1:8000/v1")


def test_without_the_sdk_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without_openai(name, *args, **kwargs):
        if name == "openai":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_openai)
    with pytest.raises(MissingExtra, match=r'pip install "reasonflux-prm\[policy\]"'):
        OpenAICompatiblePolicy("tiny", "http://127.0.0.1:9/v1")
