"""POST /pooling: vLLM's JSON, and in it our own rewards."""

import base64
import struct
from types import SimpleNamespace

import pytest
import tiny
from serving_parts import error_of, live, row

from reasonflux_prm.errors import UsageError
from reasonflux_prm.records import Trace
from reasonflux_prm.scoring.engine import Engine
from reasonflux_prm.serving.pooling import Pooler
from reasonflux_prm.steps.split import split


@pytest.fixture(scope="module")
def stepping(prm):
    with live(prm, pooling="step") as service:
        yield service


def expected(prm, number):
    """Return the tokens of a trace, and each reward by its position."""
    segmented = split(Trace(**row(number)))
    scored = next(Engine(prm).score([segmented]))
    batch, owners = tiny.pack(prm.encode(segmented).sequences)
    rewards = {-1: scored.trajectory_reward, **dict(enumerate(scored.step_rewards))}
    at = {place: rewards[target] for place, (_, target) in zip(batch.reads.tolist(), owners, strict=True)}
    return batch.tokens.tolist(), at


def test_the_answer_is_vllms(served, prm):
    tokens, _ = expected(prm, 1)
    answer = served.post("/pooling", {"model": prm.spec.name, "input": tokens, "request_id": "mine"}).json()
    assert set(answer) == {"id", "object", "created", "model", "data", "usage"}
    assert (answer["id"], answer["object"], answer["model"]) == ("pool-mine", "list", prm.spec.name)
    assert [(one["index"], one["object"]) for one in answer["data"]] == [(0, "pooling")]
    assert answer["usage"] == {"prompt_tokens": len(tokens), "total_tokens": len(tokens), "completion_tokens": 0}


def test_all_tokens_have_labels_and_those_that_close_steps_are_our_rewards(served, prm):
    prompts = [expected(prm, number) for number in range(12)]
    answer = served.post("/pooling", {"input": [tokens for tokens, _ in prompts]}).json()
    assert [one["index"] for one in answer["data"]] == list(range(12))
    for (tokens, rewards), one in zip(prompts, answer["data"], strict=True):
        assert [len(labels) for labels in one["data"]] == [1] * len(tokens)
        assert {at: one["data"][at][-1] for at in rewards} == pytest.approx(rewards, abs=1e-6)


def test_step_pooling_gives_the_steps_alone(stepping, prm):
    tokens, rewards = expected(prm, 3)
    steps = [[rewards[at]] for at in sorted(rewards) if tokens[at] == prm.separator]
    answer = stepping.post("/pooling", {"input": tokens}).json()
    assert answer["data"][0]["data"] == [pytest.approx(step, abs=1e-6) for step in steps]


def test_an_input_without_a_separator_has_no_steps(stepping, prm):
    tokens, _ = expected(prm, 3)
    without = [token for token in tokens if token != prm.separator]
    answer = stepping.post("/pooling", {"input": [without, tokens]}).json()
    assert answer["data"][0]["data"] == []
    assert answer["data"][1]["data"] != []


def test_names_of_control_tokens_count_in_texts(served, prm):
    """A prompt that a template has rendered already is the whole input, as vLLM's tokenizer reads it."""
    tokens, _ = expected(prm, 2)
    text = prm.tokenizer.decode(tokens)
    by_text, by_ids = (served.post("/pooling", {"input": value}).json() for value in (text, tokens))
    assert by_text["usage"] == by_ids["usage"]
    assert by_text["data"][0]["data"] == [pytest.approx(label, abs=1e-6) for label in by_ids["data"][0]["data"]]
    # And nowhere else: the same text inside a trace stays text.
    scored = served.post("/score", {"traces": row(2, response=text)}).json()["scored"][0]
    assert scored["tokens"] > 2 * len(tokens)


@pytest.mark.parametrize("value", ["a", ["a"], [5], [[5]], ["a", "b"], [[5], [6, 7]]])
def test_every_form_of_input(served, value):
    answer = served.post("/pooling", {"input": value}).json()
    assert len(answer["data"]) == (2 if isinstance(value, list) and len(value) == 2 else 1)


def test_messages_are_laid_out_as_the_prms_own_input(served, stepping, prm):
    trace = row(4)
    said = {"role": "assistant", "content": trace["response"], "reasoning_content": trace["thinking"]}
    messages = [{"role": "user", "content": trace["problem"]}, said]
    tokens, rewards = expected(prm, 4)
    everything = served.post("/pooling", {"messages": messages}).json()["data"][0]["data"]
    assert len(everything) == len(tokens)
    assert {at: everything[at][0] for at in rewards} == pytest.approx(rewards, abs=1e-6)
    steps = [rewards[at] for at in sorted(rewards) if tokens[at] == prm.separator]
    by_step = stepping.post("/pooling", {"messages": messages}).json()["data"][0]["data"]
    assert [label[-1] for label in by_step] == pytest.approx(steps, abs=1e-6)


def test_steps_that_the_assistant_closes_are_kept(stepping):
    content = "One plus one.<extra_0>That is\n\ntwo.<extra_0>"
    messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": content}]
    assert len(stepping.post("/pooling", {"messages": messages}).json()["data"][0]["data"]) == 2


def test_base64(served, prm):
    tokens, _ = expected(prm, 1)
    plain, packed = (
        served.post("/pooling", {"input": tokens, "encoding_format": form}).json()["data"][0]["data"]
        for form in ("float", "base64")
    )
    numbers = struct.unpack(f"<{len(tokens)}f", base64.b64decode(packed))
    assert list(numbers) == pytest.approx([label[0] for label in plain], abs=1e-6)


def test_truncation_keeps_the_end(served, prm):
    tokens, _ = expected(prm, 1)
    cut, kept = (
        served.post("/pooling", body).json()["data"][0]["data"]
        for body in ({"input": tokens, "truncate_prompt_tokens": 7}, {"input": tokens[-7:]})
    )
    assert cut == [pytest.approx(label, abs=1e-6) for label in kept]
    long = [5] * (prm.spec.context_length + 9)
    reply = served.post("/pooling", {"input": long, "truncate_prompt_tokens": -1})
    assert reply.json()["usage"]["prompt_tokens"] == prm.spec.context_length


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"input": [5] * 5120}, 400, "at most 512 tokens, the PRM's context, got 5,120"),
        ({"input": [10**9]}, 400, "token ids from 0 to"),
        ({"input": [-1]}, 400, "token ids from 0 to"),
        ({"input": [[5], [10**9]]}, 400, "token ids from 0 to"),
        ({"input": "a", "truncate_prompt_tokens": 0}, 400, "at least one token"),
        ({"messages": [{"role": "user", "content": "a"}]}, 400, "the assistant"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}, 400, "got none"),
        ({"input": ""}, 422, "input"),
        ({"input": []}, 422, "input"),
        ({"input": [[]]}, 422, "input"),
        ({"input": [1, "a"]}, 422, "input"),
        ({"input": [True]}, 422, "input"),
        ({"input": "a", "use_activation": False}, 422, "use_activation"),
        ({"input": "a", "task": "embed"}, 422, "task"),
        ({"input": "a", "encoding_format": "bytes"}, 422, "encoding_format"),
        ({"input": "a", "step_tag_id": 3}, 422, "step_tag_id"),
        ({}, 422, "field required"),
        ({"model": "another", "input": "a"}, 404, "the one served here, got another"),
    ],
)
def test_what_is_no_request(served, body, status, says):
    reply = served.post("/pooling", body)
    assert reply.status_code == status
    assert says in error_of(reply)


def like(prm, family):
    """Return something that looks like a PRM of a family."""
    return SimpleNamespace(
        spec=SimpleNamespace(family=family, name=family), decoder=prm.decoder, tokenizer=prm.tokenizer
    )


@pytest.mark.parametrize(
    ("family", "pooling"),
    [("qwen-math", "step"), ("reasonflux", "step"), ("token-classification", "all"), ("pure", "all")],
)
def test_defaults_are_vllms(prm, family, pooling):
    stand_in = like(prm, family)
    stand_in.separator = 7
    pooler = Pooler(stand_in)
    assert (pooler.pooling, pooler.labels) == (pooling, 2)


def test_labels_of_two(prm):
    assert Pooler(like(prm, "token-classification"))._labels(0.75) == [0.25, 0.75]
    assert Pooler(like(prm, "pure"))._labels(0.5) == [0.25, 0.75]


def test_steps_need_a_token(prm):
    with pytest.raises(UsageError, match="--step-tag-id"):
        Pooler(like(prm, "pure"), "step")
    assert Pooler(like(prm, "pure"), "step", 9).step_tag_id == 9


@pytest.mark.parametrize("family", ["implicit", "rlhflow", "reasonflux-scalar"])
def test_what_is_no_token_classifier_has_none(prm, family):
    with pytest.raises(UsageError, match="no token classifier"):
        Pooler(like(prm, family))
