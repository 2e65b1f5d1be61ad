"""The reward model for its-hub, with its own algorithms and a scripted language model."""

from __future__ import annotations

import asyncio
import math
import sys

import pytest
from search_parts import number, words

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.records import Trace
from reasonflux_prm.scoring.engine import Engine, EngineSettings, score_traces
from reasonflux_prm.search.its_hub import its_hub_reward_model
from reasonflux_prm.steps.split import split

its_hub = pytest.importorskip("its_hub")
from its_hub.core.algorithms.beam_search import BeamSearch  # noqa: E402
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering  # noqa: E402
from its_hub.core.lms.step_generation import StepGeneration  # noqa: E402

PROMPT = "What is 12 + 30?"
STEPS = 4


class ScriptedLM(its_hub.AbstractLanguageModel):
    """Writes steps, or whole responses where no stop text is given."""

    def __init__(self) -> None:
        self.calls = 0

    async def agenerate(self, messages, stop=None, **options):
        if isinstance(messages[0], list):
            return [await self.agenerate_single(own, stop) for own in messages]
        return await self.agenerate_single(messages, stop)

    async def agenerate_single(self, messages, stop=None, **options):
        self.calls += 1
        written = messages[-1].content if messages[-1].role == "assistant" else ""
        if stop is None:
            text = "\n\n".join(words(self.calls, at) for at in range(STEPS)) + f"\n\nThe answer is {self.calls % 3}."
        else:
            last = written.count(stop) == STEPS - 1
            text = f"The answer is {number(self.calls)}. END" if last else words(self.calls)
        return {"role": "assistant", "content": text}


def rescored(engine, response: str):
    """Return the engine's own record of a response, cut at blank lines."""
    trace = Trace("t", PROMPT, response=response)
    (record,) = score_traces(engine.prm, [split(trace, "blank-line")], engine.settings)
    return record


def partial(engine, response: str) -> float:
    rewards = rescored(engine, response).step_rewards
    return sum(rewards) / len(rewards)


def generation() -> StepGeneration:
    return StepGeneration(max_steps=8, step_token="\n\n", stop_token="END")


def test_best_of_n_picks_the_highest_reward(engine):
    model = its_hub_reward_model(engine)
    result = its_hub.BestOfN(model).infer(ScriptedLM(), PROMPT, budget=6, return_response_only=False)
    rewards = [rescored(engine, response["content"]).reward for response in result.responses]
    assert result.scores == pytest.approx([reward / 2 for reward in rewards], abs=1e-4)
    assert result.selected_index == rewards.index(max(rewards))
    assert all(0 <= score <= 1 for score in result.scores)


def test_beam_search_steers_by_the_steps_so_far(engine):
    model = its_hub_reward_model(engine)
    result = BeamSearch(generation(), model, beam_width=2).infer(ScriptedLM(), PROMPT, 4, return_response_only=False)
    finals = [response["content"] for response in result.responses]
    assert result.scores == pytest.approx([partial(engine, text) for text in finals], abs=1e-4)
    assert result.the_one["content"] == finals[result.scores.index(max(result.scores))]
    assert all(text.count("\n\n") == STEPS - 1 for text in finals)


def test_particle_filtering_takes_the_scores(engine):
    model = its_hub_reward_model(engine)
    filtering = ParticleFiltering(generation(), model)
    result = filtering.infer(ScriptedLM(), PROMPT, 4, return_response_only=False)
    values = [partial(engine, response["content"]) for response in result.responses]
    assert len(values) == 4
    assert result.log_weights_lst == pytest.approx([math.log(value / (1 - value)) for value in values], abs=1e-3)


def test_no_step_is_read_twice(engine):
    """Four beams that go on: every call costs the new steps, and what they share is never read again."""
    model = its_hub_reward_model(engine)
    texts = [words("a", at) for at in range(4)]
    found, read = [], []
    for length in range(1, 6):
        texts = [text if length == 1 else f"{text}\n\n{words(text, length)}" for text in texts]
        before = model.scores.spent.prm_tokens
        found.append(model.score(PROMPT, texts))
        read.append(model.scores.spent.prm_tokens - before)
        assert found[-1] == pytest.approx([partial(engine, text) for text in texts], abs=1e-4)
    whole = sum(rescored(engine, text).tokens - 1 for text in set(texts))
    head = len(engine.prm.head(PROMPT))
    assert sum(read) == whole - head * (len(set(texts)) - 1)


def test_thinking_is_told_by_its_marks(engine):
    model = its_hub_reward_model(engine)
    (score,) = model.score(PROMPT, ["<think>\nso the sum\n\nis 42\n</think>\n\nThe answer is 42."])
    trace = Trace("t", PROMPT, "so the sum\n\nis 42", "The answer is 42.")
    (record,) = score_traces(engine.prm, [split(trace, "blank-line")])
    assert score == pytest.approx(sum(record.step_rewards) / 3, abs=1e-4)


def test_both_roles_one_for_one(engine):
    model = its_hub_reward_model(engine)
    assert isinstance(model, its_hub.AbstractProcessRewardModel)
    assert isinstance(model, its_hub.AbstractOutcomeRewardModel)

    def conversation(text):
        return [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}]

    one = model.score(conversation("It is 42."))
    assert one == pytest.approx(rescored(engine, "It is 42.").reward / 2, abs=1e-4)
    many = asyncio.run(model.ascore([conversation(text) for text in ("It is 42.", "No.", "It is 42.")]))
    assert many[0] == many[2] == pytest.approx(one)
    assert asyncio.run(model.ascore(PROMPT, [])) == []
    assert model.score(PROMPT, [""]) == [0.0]
    with pytest.raises(UsageError, match="ends with the assistant's response"):
        model.score([{"role": "user", "content": PROMPT}])


def test_other_families_and_aggregations(engines):
    whole = its_hub_reward_model(engines["response_first"])
    assert 0 <= whole.score(PROMPT, ["It is 42.\n\nYes."])[0] <= 1
    product = its_hub_reward_model(Engine(engines["causal"].prm, EngineSettings(aggregation="product")))
    rewards = rescored(engines["causal"], "It is 42.\n\nYes.").step_rewards
    assert product.score(PROMPT, ["It is 42.\n\nYes."])[0] == pytest.approx(rewards[0] * rewards[1], abs=1e-4)
    with pytest.raises(UsageError, match="its-hub takes scores in"):
        its_hub_reward_model(Engine(engines["causal"].prm, EngineSettings(aggregation="sum")))


def test_without_its_hub(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "its_hub", None)
    with pytest.raises(MissingExtra, match=r"reasonflux-prm\[its\]"):
        its_hub_reward_model(engine)
