"""Going on from what the assistant has already written: every backend, the cache, and what stopped a completion."""

from __future__ import annotations

import hashlib
import json

import pytest

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.policy import local
from reasonflux_prm.policy.base import Completion, Message, Request
from reasonflux_prm.policy.cache import CachedPolicy
from reasonflux_prm.policy.chat_prompt import ChatPrompt
from reasonflux_prm.policy.chat_reply import read_reply, request_body
from reasonflux_prm.policy.completion_store import request_key
from reasonflux_prm.policy.local import LocalPolicy
from reasonflux_prm.policy.openai_compatible import OpenAICompatiblePolicy
from reasonflux_prm.policy.scripted import ScriptedPolicy
from reasonflux_prm.policy.thinking import split_thinking
from reasonflux_prm.policy.usage import estimated_prompt
from tests.policy.faulty_server import FaultyServer, choice
from tests.policy.tiny_model import TEMPLATE, write_tiny_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def ask(content="hi", **settings):
    return Request((Message("user", content),), **{"max_tokens": 24, "temperature": 0.0, **settings})


# --- the thinking --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "content", "parts"),
    [
        ("", "<think>\na\n</think>\n\nb", ("b", "a")),
        ("<think>\n", "a\n</think>\n\nb", ("b", "a")),
        ("<think>\na", " and more", ("", " and more")),
        ("<think>\na\n</think>\n\nb", " is </think>", (" is </think>", "")),
        ("b", "<think>x", ("<think>x", "")),
        (" \n", "<think>\na\n</think>b", ("b", "a")),
    ],
)
def test_what_the_prefix_left_open_goes_on(prefix, content, parts):
    assert split_thinking(content, prefix) == parts


# --- scripts, estimates, the cache ---------------------------------------------------------------------------------


def test_a_script_gives_what_comes_behind_the_prefix():
    policy = ScriptedPolicy({"hi": "one two"})
    assert policy.generate([ask(prefix="one")])[0] == [Completion(" two")]
    assert policy.generate([ask(prefix="other")])[0] == [Completion("one two")]
    assert policy.requests[0].prefix == "one"


def test_a_prefix_is_part_of_the_prompt():
    assert estimated_prompt(ask(prefix="x" * 35)) == estimated_prompt(ask()) + 10


def test_the_cache_tells_prefixes_apart_and_keeps_the_stop_text(tmp_path):
    keys = {request_key({}, request) for request in (ask(), ask(prefix="a"), ask(prefix="b"), ask(raw=True))}
    assert len(keys) == 4
    told = [Completion("a", stopped_at="\n"), Completion("b", stopped_at=""), Completion("c")]
    for _ in range(2):
        policy = CachedPolicy(ScriptedPolicy(lambda request: told), tmp_path / "c.sqlite")
        assert policy.generate([ask(prefix="p", n=3)]) == [told]
        policy.close()
    assert policy.hits == 3


def test_keys_without_a_prefix_are_those_of_before():
    """Completions that were paid for before there were prefixes are found again."""
    asked = (
        '{"max_tokens": 2048, "messages": [["user", "hi"]], "policy": {"model": "m"}, "schema": 1, "seed": 1, '
        '"stop": [], "temperature": 1.0, "top_logprobs": null, "top_p": 1.0}'
    )
    key = request_key({"model": "m"}, Request((Message("user", "hi"),), seed=1))
    assert key == hashlib.sha256(asked.encode()).digest()


# --- a model in this process ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def policy(folder):
    policy = LocalPolicy(str(folder), device="cpu")
    yield policy
    policy.close()


def test_a_local_model_goes_on_as_if_it_had_written_the_prefix(policy):
    (whole,) = policy.generate([ask(max_tokens=40)])[0]
    for cut in (1, 7, 20):
        (rest,) = policy.generate([ask(prefix=whole.text[:cut], max_tokens=40 - cut)])[0]
        assert whole.text[:cut] + rest.text == whole.text, "one token a letter, and greedy"
        assert rest.prompt_tokens == whole.prompt_tokens + cut
        assert rest.completion_tokens == whole.completion_tokens - cut


def test_a_local_model_tells_its_stop_text(policy):
    (whole,) = policy.generate([ask(max_tokens=40)])[0]
    letter = whole.text[10]
    first = whole.text.index(letter)
    (stopped,) = policy.generate([ask(max_tokens=40, stop=(letter, "\x00"))])[0]
    assert (stopped.text, stopped.stopped_at, stopped.finish_reason) == (whole.text[:first], letter, "stop")
    (cut,) = policy.generate([ask(max_tokens=3, stop=("\x00",))])[0]
    assert (cut.stopped_at, cut.finish_reason) == ("", "length")
    assert whole.stopped_at is None


def test_raw_completions_keep_their_marks(policy, monkeypatch):
    monkeypatch.setattr(policy._files, "text", lambda tokens: "<think>a</think>b")
    assert policy.generate([ask()])[0][0].thinking == "a"
    raw = policy.generate([ask(raw=True)])[0][0]
    assert (raw.text, raw.thinking) == ("<think>a</think>b", "")


@pytest.fixture
def opened(folder):
    """Open another policy on the model, with the list of how many tokens each of its passes reads."""
    policies = []

    def open_one(**settings):
        policy, read = LocalPolicy(str(folder), device="cpu", **settings), []
        policies.append(policy)
        policy.generate([ask("?", max_tokens=1)])
        policy._model.base_model.register_forward_pre_hook(
            lambda module, arguments, options: read.append(options["input_ids"].numel()), with_kwargs=True
        )
        return policy, read

    yield open_one
    for policy in policies:
        policy.close()


def test_samples_of_one_prompt_read_it_once_and_say_the_same(opened):
    requests = [
        ask("one", n=3, temperature=1.0, seed=1, prefix="abc"),
        ask("the other one", n=2, temperature=1.0, seed=9),
    ]
    (kept, few), (anew, many) = opened(), opened(batch_sequences=1, prefix_bytes=0)
    kept._reader.prefixes.clear()
    together = kept.generate(requests)
    assert texts(together) == texts(anew.generate(requests))
    lengths = [outcome[0].prompt_tokens for outcome in together]
    assert few[0] == 2 * (max(lengths) - 1), "two different prompts, all but their last token"
    assert sorted(count for count in many if count > 1) == sorted([lengths[0] - 1] * 3 + [lengths[1] - 1] * 2)


def test_models_that_keep_their_own_past_say_the_same(opened):
    requests = [
        ask("one", n=3, temperature=1.0, seed=1, prefix="abc", top_logprobs=1),
        ask("the other one", n=2, temperature=1.0, seed=9),
    ]
    (kept, _), (own, read) = opened(), opened()
    own._reader = None
    expected = kept.generate(requests)
    assert texts(own.generate(requests)) == texts(expected)
    assert read[0] == 2 * (max(outcome[0].prompt_tokens for outcome in expected) - 1)


def texts(outcomes):
    return [[(one.text, one.stopped_at, one.finish_reason) for one in outcome] for outcome in outcomes]


def test_chunks_of_a_prompt(opened, monkeypatch):
    requests = [ask("a longer question", n=2), ask("b", n=2)]
    whole = opened()[0].generate(requests)
    monkeypatch.setattr(local, "_PREFILL_TOKENS", 6)
    for keeps in (True, False):
        chunked, read = opened()
        if not keeps:
            chunked._reader = None
        assert chunked.generate(requests) == whole
        assert max(read) <= 6


# --- going on from what was written ----------------------------------------------------------------------------------


def stepwise(policy, rounds=4):
    """Write step by step, from every branch of the last round; returns all that was written."""
    branches, found = ["", "once"], []
    for number in range(rounds):
        requests = [
            ask(prefix=branch, n=2, temperature=1.0, seed=number, stop=("e", "t"), raw=True) for branch in branches
        ]
        outcomes = policy.generate(requests)
        found.append(texts(outcomes))
        branches = [
            branch + one.text + (one.stopped_at or "")
            for branch, outcome in zip(branches, outcomes, strict=True)
            for one in outcome
            if one.stopped_at
        ][:6]
    return found


def test_a_search_reads_only_what_is_new_and_writes_the_same(opened):
    (kept, few), (anew, many) = opened(), opened(prefix_bytes=0)
    assert stepwise(kept) == stepwise(anew)
    assert kept._reader.prefixes.bytes > 0 == anew._reader.prefixes.bytes
    # Steps of a few letters behind a prompt of 20: the rest is the tokens written, the same in both.
    assert sum(many) - sum(few) > 0.8 * sum(count for count in many if count > 16)


def test_a_small_memory_forgets_and_writes_the_same(opened):
    per_token = 2 * 2 * 2 * 8 * 4
    (kept, _), (small, _) = opened(), opened(prefix_bytes=40 * per_token)
    assert stepwise(kept) == stepwise(small)
    assert 0 < small._reader.prefixes.bytes <= 40 * per_token < kept._reader.prefixes.bytes


def test_texts_that_ended_are_not_kept(opened):
    policy, _ = opened()
    policy.generate([ask(n=1)])
    before = policy._reader.prefixes.bytes
    policy.generate([ask(n=1, temperature=1.0, seed=seed) for seed in range(4)])
    assert policy._reader.prefixes.bytes == before, "the prompt was there, and without stop texts nobody goes on"


def test_a_template_that_opens_the_thinking_does_not_open_it_twice(tmp_path):
    opening = TEMPLATE.replace("assistant\n{%", "assistant\n<think>\n{%")
    folder = write_tiny_model(tmp_path / "thinks", template=opening)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = ChatPrompt(tokenizer, "tiny")
    message = (Message("user", "hi"),)
    plain = tokenizer.decode(prompt.tokens(message))
    assert plain.endswith("assistant\n<think>\n")
    assert tokenizer.decode(prompt.tokens(message, "<think>\nso")) == plain + "so"
    assert tokenizer.decode(prompt.tokens(message, "so")) == plain + "so"


def test_control_tokens_in_a_prefix_are_text(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = ChatPrompt(tokenizer, "tiny").tokens((Message("user", "hi"),), "a<|end|>b")
    assert tokens.count(tokenizer.eos_token_id) == 1, "the user's message ends, and nothing else"


# --- servers -------------------------------------------------------------------------------------------------------


def test_a_server_is_told_to_go_on():
    body = request_body("m", ask(prefix="so far"), 1, 0, "max_tokens")
    assert body["messages"][-1] == {"role": "assistant", "content": "so far"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert "continue_final_message" not in request_body("m", ask(), 1, 0, "max_tokens")


def read(request, message, **fields):
    content = json.dumps({"choices": [{"message": message, "finish_reason": "stop", **fields}]}).encode()
    (completion,) = read_reply(content, request)
    return completion


@pytest.mark.parametrize(
    ("fields", "stopped_at"),
    [
        ({}, None),
        ({"stop_reason": None}, ""),
        ({"stop_reason": "\n\n"}, "\n\n"),
        ({"stop_reason": 151643}, ""),
        ({"matched_stop": "\n\n"}, "\n\n"),
        ({"matched_stop": 7}, ""),
        ({"finish_reason": "length"}, None),
    ],
)
def test_servers_tell_the_stop_text(fields, stopped_at):
    assert read(ask(stop=("\n\n",)), {"content": "a"}, **fields).stopped_at == stopped_at
    assert read(ask(), {"content": "a"}, **fields).stopped_at is None


@pytest.mark.parametrize(
    ("prefix", "raw", "message", "parts"),
    [
        ("<think>\na", False, {"content": "b</think>c"}, ("c", "b")),
        ("<think>\na", True, {"content": "b</think>c"}, ("b</think>c", "")),
        ("<think>\na", True, {"content": "c", "reasoning_content": "b"}, ("b</think>\n\nc", "")),
        ("<think>\na", True, {"content": None, "reasoning": "b"}, ("b", "")),
        ("", True, {"content": "c", "reasoning": "b"}, ("<think>\nb</think>\n\nc", "")),
        ("", False, {"content": "c", "reasoning": "b"}, ("c", "b")),
        ("<think>\na</think>", False, {"content": "", "reasoning": "b"}, ("b", "")),
    ],
)
def test_servers_that_split_the_thinking_themselves(prefix, raw, message, parts):
    found = read(ask(prefix=prefix, raw=raw), message)
    assert (found.text, found.thinking) == parts


def test_a_server_that_refuses_says_why():
    refusal = 400, {}, b'{"error": {"message": "the final message does not appear in the chat"}}'
    with FaultyServer(lambda body: refusal if "continue_final_message" in body else "fine") as server:
        policy = OpenAICompatiblePolicy("m", server.url, retries=0)
        fine, refused = policy.generate([ask(), ask(prefix="so far")])
        policy.close()
    assert fine[0].text == "fine"
    assert isinstance(refused, PolicyError)
    assert "the final message does not appear in the chat" in str(refused)
    assert "takes a server that knows continue_final_message (vLLM, SGLang)" in str(refused)


def test_a_server_that_goes_on():
    def answer(body):
        return [choice(" and more", stop_reason="\n\n")]

    with FaultyServer(answer) as server:
        policy = OpenAICompatiblePolicy("m", server.url)
        ((completion,),) = policy.generate([ask(prefix="so far", stop=("\n\n",))])
        policy.close()
    assert (completion.text, completion.stopped_at) == (" and more", "\n\n")
    assert server.bodies[0]["messages"][-1]["content"] == "so far"
