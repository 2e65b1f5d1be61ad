"""The contract with vLLM, against a stand-in for its module: what is sent, and what is made of what comes back."""

import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest

from reasonflux_prm.errors import MissingExtra, PolicyError, PolicyStopped, UsageError
from reasonflux_prm.policy.base import Completion, Message, Request, TokenLogprob
from reasonflux_prm.policy.vllm import VLLMPolicy
from tests.policy.tiny_model import CONTEXT, write_tiny_model

pytest.importorskip("transformers")


class VLLMValidationError(Exception):
    """Neither a ValueError nor a RuntimeError, as in vLLM 0.30."""


class EngineDeadError(RuntimeError):
    pass


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass
class One:
    text: str
    token_ids: tuple = (5, 6)
    finish_reason: str | None = "stop"
    logprobs: list | None = None


@dataclass
class Output:
    outputs: list = field(default_factory=list)


class SamplingParams:
    def __init__(self, **settings):
        self.settings = settings


class LLM:
    """Refuses all prompts where it refuses one, as vLLM does."""

    started, calls, answer = [], [], None

    def __init__(self, **settings):
        LLM.started.append(settings)

    def generate(self, prompts, settings, *, use_tqdm):
        assert use_tqdm is False
        LLM.calls.append((prompts, [one.settings for one in settings]))
        if any(one.settings["top_p"] == 0.123 for one in settings):
            raise VLLMValidationError("no such top_p")
        return [LLM.answer(prompt, one.settings) for prompt, one in zip(prompts, settings, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def policy(folder, monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    LLM.started, LLM.calls = [], []
    LLM.answer = lambda prompt, settings: Output([One(f"sample {index}") for index in range(settings["n"])])
    policy = VLLMPolicy(str(folder), dtype="bfloat16", gpus=2)
    yield policy
    policy.close()


def ask(content="hi", **settings):
    return Request((Message("user", content),), **settings)


def test_the_engine_is_started_with_the_first_request_and_once(policy, folder):
    assert LLM.started == []
    policy.generate([ask()])
    policy.generate([ask()])
    assert LLM.started == [
        {
            "model": str(folder),
            "dtype": "bfloat16",
            "max_model_len": CONTEXT,
            "tensor_parallel_size": 2,
            "gpu_memory_utilization": 0.9,
            "trust_remote_code": False,
            "generation_config": "vllm",
            "disable_log_stats": True,
        }
    ]


def test_what_is_sent_and_what_is_read(policy):
    request = ask("hi", n=2, temperature=0.5, top_p=0.9, max_tokens=1000, stop=("x",), seed=3)
    assert policy.generate([request]) == [
        [
            Completion("sample 0", prompt_tokens=20, completion_tokens=2),
            Completion("sample 1", prompt_tokens=0, completion_tokens=2),
        ]
    ]
    ((prompts, settings),) = LLM.calls
    assert len(prompts[0]["prompt_token_ids"]) == 20
    assert settings == [
        {
            "n": 2,
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": CONTEXT - 20,
            "stop": ["x"],
            "seed": 3,
            "logprobs": None,
        }
    ]


def test_asks_are_run_together_longest_first_and_answered_in_order(policy):
    LLM.answer = lambda prompt, settings: Output([One(str(len(prompt["prompt_token_ids"])))])
    outcomes = policy.generate([ask("x" * length) for length in (1, 30, 7)])
    assert [outcome[0].text for outcome in outcomes] == ["19", "48", "25"]
    ((prompts, _),) = LLM.calls
    assert [len(prompt["prompt_token_ids"]) for prompt in prompts] == [48, 25, 19]


def test_thinking_is_kept_apart(policy):
    LLM.answer = lambda prompt, settings: Output([One("<think>hm</think>four", finish_reason="length")])
    (outcome,) = policy.generate([ask()])
    assert (outcome[0].text, outcome[0].thinking, outcome[0].finish_reason) == ("four", "hm", "length")


def test_logprobs(policy):
    encode = policy._files.tokenizer.encode
    yes, no = encode("y")[0], encode("n")[0]
    reported = [{no: Logprob(-2.0), yes: Logprob(-0.1)}, {no: Logprob(-0.5), yes: Logprob(-1.0)}]
    LLM.answer = lambda prompt, settings: Output([One("yn", (yes, no), logprobs=reported)])
    two, none = policy.generate([ask(top_logprobs=1), ask(top_logprobs=0)])
    assert two[0].logprobs == (TokenLogprob("y", -0.1, (("y", -0.1),)), TokenLogprob("n", -0.5, (("n", -0.5),)))
    assert none[0].logprobs == (TokenLogprob("y", -0.1), TokenLogprob("n", -0.5))
    assert [one["logprobs"] for one in LLM.calls[0][1]] == [1, 0]


def test_one_request_that_is_refused_leaves_its_neighbours_their_answer(policy):
    outcomes = policy.generate([ask("a"), ask("b", top_p=0.123), ask("c"), ask("x" * CONTEXT)])
    assert [isinstance(outcome, PolicyError) for outcome in outcomes] == [False, True, False, True]
    assert "no such top_p" in str(outcomes[1])
    assert f"context of tiny is {CONTEXT}" in str(outcomes[3])


def test_too_few_completions_are_an_error(policy):
    LLM.answer = lambda prompt, settings: Output([One("only one")])
    assert "1 completions, and n is 2" in str(policy.generate([ask(n=2)])[0])


def test_an_engine_that_breaks_is_an_error_and_hangs_nobody(policy, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("engine died")

    monkeypatch.setattr(LLM, "generate", broken)
    assert "engine died" in str(policy.generate([ask()])[0])


def test_an_engine_that_has_ended_stops_the_run(policy, monkeypatch):
    def dead(*_, **__):
        raise EngineDeadError("gone")

    monkeypatch.setattr(LLM, "generate", dead)
    with pytest.raises(PolicyStopped, match="has ended"):
        policy.generate([ask("a"), ask("b")])


def test_an_engine_that_does_not_start_stops_the_run(policy, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no GPU")

    monkeypatch.setattr(LLM, "__init__", broken)
    with pytest.raises(PolicyStopped, match="no GPU"):
        policy.generate([ask()])


def test_identity_is_of_the_files(policy, folder):
    identity = policy.identity()
    assert (identity["backend"], identity["model"], identity["dtype"]) == ("vllm", "tiny", "bfloat16")
    assert len(identity["files_sha256"]) == 64


@pytest.mark.parametrize("settings", [{"context": 0}, {"gpus": 0}, {"memory": 0.0}, {"memory": 1.5}])
def test_settings_outside_their_range(folder, settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        VLLMPolicy(str(folder), **settings)


def test_without_vllm_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtra, match="pip install"):
        VLLMPolicy(str(folder))
