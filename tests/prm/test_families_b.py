"""Golden parity of Math-Shepherd, RLHFlow and implicit PRMs with `references_b`, and what each of them refuses."""

from __future__ import annotations

import json
import random

import pytest
import tiny
from references_b import (
    LLAMA,
    LLAMA_TEMPLATE,
    QWEN_TEMPLATE,
    TRACES,
    implicit,
    implicit_values,
    llama_chat,
    plain_ids,
    qwen_chat,
    rlhflow,
    rlhflow_rewards,
    shepherd,
    shepherd_rewards,
)
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from reasonflux_prm.errors import UsageError
from reasonflux_prm.prm.base import PRM
from reasonflux_prm.prm.checkpoint import Checkpoint
from reasonflux_prm.prm.families.implicit import ImplicitPRM
from reasonflux_prm.prm.families.math_shepherd import MathShepherdPRM
from reasonflux_prm.prm.families.rlhflow import RLHFlowPRM
from reasonflux_prm.records import SegmentedTrace, Step
from reasonflux_prm.scoring.engine import Engine, EngineSettings
from reasonflux_prm.scoring.session import Session, append_to
from reasonflux_prm.scoring.windows import fit

NAMES = list(TRACES)


def trace(name: str) -> SegmentedTrace:
    problem, steps = TRACES[name]
    return tiny.segmented(problem, response="\n\n".join(steps), id=name)


def step_rewards(prm: PRM, names: list[str]) -> dict[str, list[float]]:
    """Return the step rewards of some traces, read in one pack."""
    found = tiny.scores(prm, [prm.encode(trace(name), trajectory=False) for name in names])
    return {name: rewards for name, (rewards, _) in zip(names, found, strict=True)}


@pytest.fixture(scope="module")
def shepherd_pair(tmp_path_factory):
    folder, model, tokens = shepherd(tmp_path_factory.mktemp("shepherd"))
    prm = MathShepherdPRM.load(Checkpoint(folder, name="shepherd"))
    return prm, {name: shepherd_rewards(model, tokens, *TRACES[name]) for name in NAMES}


@pytest.fixture(scope="module")
def rlhflow_pair(tmp_path_factory):
    folder, model, tokens = rlhflow(tmp_path_factory.mktemp("rlhflow"))
    prm = RLHFlowPRM.load(Checkpoint(folder, name="rlhflow"))
    some = {"many steps": range(3, 240, 59)}
    return prm, {name: rlhflow_rewards(model, tokens, *TRACES[name], some.get(name)) for name in NAMES}, model, tokens


@pytest.fixture(scope="module")
def implicit_pair(tmp_path_factory):
    folder, policy, tokens = implicit(tmp_path_factory.mktemp("policy"), 5)
    base, reference, _ = implicit(tmp_path_factory.mktemp("reference"), 6)
    prm = ImplicitPRM.load(Checkpoint(folder, name="policy"), Checkpoint(base, name="reference"), beta=1.0)
    values = {name: implicit_values(policy, reference, tokens, *TRACES[name]) for name in NAMES}
    singles = {name: [b - a for a, b in zip([0.0, *q], q, strict=False)] for name, (q, _) in values.items()}
    return prm, singles, values


# --- parity --------------------------------------------------------------------------------------------------------

FAMILIES = ("shepherd_pair", "rlhflow_pair", "implicit_pair")


@pytest.fixture(params=FAMILIES)
def pair(request):
    """Return a PRM, and {trace: {step: reward}} of its reference."""
    prm, golden = request.getfixturevalue(request.param)[:2]
    return prm, {n: dict(enumerate(r)) if isinstance(r, list) else r for n, r in golden.items()}


def expect(found: list[float], golden: dict[int, float], tolerance: float = 1e-5) -> None:
    assert golden
    assert [found[step] for step in golden] == pytest.approx(list(golden.values()), abs=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_alone_equals_the_reference(pair, name):
    prm, golden = pair
    found = step_rewards(prm, [name])[name]
    assert len(found) == len(TRACES[name][1])
    expect(found, golden[name], 1e-5 if prm.spec.family != "implicit" else 3e-5)
    assert len(set(found)) == len(found), "random weights tell all steps apart"


@pytest.mark.parametrize("seed", range(2))
def test_neighbours_and_their_order_do_not_matter(pair, seed):
    prm, golden = pair
    names = [*NAMES, *NAMES[:-1]]
    random.Random(seed).shuffle(names)
    for name, found in zip(
        names, tiny.scores(prm, [prm.encode(trace(n), trajectory=False) for n in names]), strict=True
    ):
        expect(found[0], golden[name], 3e-5)


@pytest.mark.parametrize("name", ["plain", "separator typed", "unicode"])
def test_a_session_equals_one_pass(pair, name):
    prm, _ = pair
    segmented = trace(name)
    session = Session(prm, segmented.trace.problem)
    for step in segmented.steps:
        session.append(segmented.text(step), step.part)
    assert session.step_rewards == pytest.approx(step_rewards(prm, [name])[name], abs=1e-4)


def test_a_session_can_be_forked_and_rolled_back(pair):
    prm, _ = pair
    once = step_rewards(prm, ["plain"])["plain"]
    texts = [trace("plain").text(step) for step in trace("plain").steps]
    session = Session(prm, TRACES["plain"][0])
    session.append(texts[0], "response")
    twin = session.fork()
    session.append("Something else entirely.\n\n", "response")
    session.append("And more of it.\n\n", "response")
    twin.append(texts[1], "response")
    session.rollback(2)
    append_to([session], [texts[1]], ["response"])
    append_to([session, twin], [texts[2], texts[2]], ["response", "response"])
    assert session.step_rewards == pytest.approx(once, abs=1e-4)
    assert twin.step_rewards == pytest.approx(once, abs=1e-4)


def test_thinking_and_response_are_steps_of_one_chain(pair):
    prm, _ = pair
    steps = TRACES["plain"][1]
    mixed = tiny.segmented(TRACES["plain"][0], "\n\n".join(steps[:2]), steps[2])
    found = tiny.scores(prm, [prm.encode(mixed, trajectory=False)])[0][0]
    assert found == pytest.approx(step_rewards(prm, ["plain"])["plain"], abs=1e-5)


@pytest.mark.parametrize("fixture", ["shepherd_pair", "rlhflow_pair"])
def test_the_whole_response_as_one_step_is_the_trajectory_reward(request, fixture):
    prm = request.getfixturevalue(fixture)[0]
    text = "\n\n".join(TRACES["plain"][1])
    whole = tiny.segmented(TRACES["plain"][0], response=text)
    one = SegmentedTrace(whole.trace, (Step("response", 0, len(text)),), "given")
    alone = tiny.scores(prm, [prm.encode(one, trajectory=False)])[0][0]
    assert tiny.scores(prm, [prm.encode(trace("plain"))])[0][1] == pytest.approx(alone[0], abs=1e-6)


# --- what is special to each ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sentencepiece", "metaspace"])
def test_shepherd_reads_the_ids_of_the_whole_text(tmp_path, kind):
    folder, _, tokens = shepherd(tmp_path, kind)
    prm = MathShepherdPRM.load(Checkpoint(folder, name="shepherd"))
    for problem, steps in TRACES.values():
        sequence = prm.encode(tiny.segmented(problem, response="\n\n".join(steps)), trajectory=False).sequences[0]
        lines = [s if s.startswith("Step ") else f"Step {n}: {s}" for n, s in enumerate(steps, 1)]
        whole = plain_ids(tokens, problem + " " + " ки\n".join(lines) + " ки")
        ids = [*sequence.head, *(token for piece in sequence.pieces for token in piece.tokens)]
        assert ids == [tokens.token_to_id("<s>"), *whole]


def test_shepherd_keeps_two_rows_and_the_window_of_attention(tmp_path):
    folder, _, _ = shepherd(tmp_path, sliding_window=96)
    prm = MathShepherdPRM.load(Checkpoint(folder, name="shepherd"))
    assert prm.weight.shape == (2, 48)
    assert prm.spec.context_length == 96


@pytest.mark.parametrize(("make", "family"), [(shepherd, MathShepherdPRM), (rlhflow, RLHFlowPRM)])
def test_saturated_probabilities_stay_with_their_steps(tmp_path, make, family):
    folder, model, tokens = make(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tiny.head(*tensors["lm_head.weight"].shape, seed=0, scale=1e5)
    save_file(tensors, folder / "model.safetensors")
    model.lm_head.weight.data = tensors["lm_head.weight"]
    found = step_rewards(family.load(Checkpoint(folder, name="x")), ["plain", "unicode", "one step"])
    reference = shepherd_rewards if make is shepherd else rlhflow_rewards
    for name, rewards in found.items():
        golden = reference(model, tokens, *TRACES[name])
        assert rewards == pytest.approx(list(golden.values()) if isinstance(golden, dict) else golden, abs=1e-5)
    assert {reward for rewards in found.values() for reward in rewards} == {0.0, 1.0}


def test_rlhflow_reads_the_ids_of_the_published_chat(tmp_path):
    folder, _, tokens = rlhflow(tmp_path)
    prm = RLHFlowPRM.load(Checkpoint(folder, name="rlhflow"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token=LLAMA[0], chat_template=LLAMA_TEMPLATE)
    for name in ("plain", "one step", "unicode"):
        problem, steps = TRACES[name]
        turns = [("user", f"{problem} {steps[0]}"), *(("user", step) for step in steps[1:])]
        chat = [
            m for turn in turns for m in ({"role": turn[0], "content": turn[1]}, {"role": "assistant", "content": "+"})
        ]
        text = fast.apply_chat_template(chat, tokenize=False)
        sequence = prm.encode(trace(name), trajectory=False).sequences[0]
        ids = [*sequence.head, *(token for piece in sequence.kept + sequence.pieces for token in piece.tokens)]
        assert ids == fast(text, add_special_tokens=False)["input_ids"]
        assert ids == llama_chat(tokens, [(m["role"], m["content"]) for m in chat]), "the reference's own chat"


@pytest.mark.parametrize(
    ("template", "head"),
    [
        (None, "Today Date: 26 Jul 2024"),
        (LLAMA_TEMPLATE.replace("26 Jul 2024", "1 Jan 2025"), "Today Date: 1 Jan 2025"),
        ("Cutting Knowledge Date: December 2023 {{ strftime_now('%d %b %Y') }}", "Today Date: 26 Jul 2024"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", None),
    ],
)
@pytest.mark.parametrize("place", ["settings", "list", "file"])
def test_the_date_of_the_system_turn_comes_from_the_template_and_never_from_a_clock(tmp_path, template, head, place):
    folder, _, _ = rlhflow(tmp_path, template if place == "settings" else None)
    if template and place == "list":
        entry = {"chat_template": [{"name": "tool_use", "template": "?"}, {"name": "default", "template": template}]}
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": LLAMA[0], **entry}))
    if template and place == "file":
        (folder / "chat_template.jinja").write_text(template)
    prm = RLHFlowPRM.load(Checkpoint(folder, name="rlhflow"))
    text = prm.tokenizer.decode(prm.head("Why?"))
    if head is None:
        assert text == "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?"
    else:
        assert head in text


def test_every_window_of_rlhflow_opens_with_the_whole_first_turn(rlhflow_pair):
    prm, _, model, tokens = rlhflow_pair
    sequence = prm.encode(trace("many steps"), trajectory=False).sequences[0]
    windows = fit(sequence, 1000, "window").windows
    first_turn = prm.tokenizer.decode([*sequence.head, *sequence.kept[0].tokens])
    assert first_turn.endswith("Count. Now 0.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n+<|eot_id|>")
    assert len(windows) > 3
    assert all(prm.tokenizer.decode(window.tokens).startswith(first_turn) for window in windows)
    assert sorted(read.target for window in windows for read in window.reads) == list(range(240))
    golden = {}
    for window in windows:
        targets = [read.target for read in window.reads]
        # Whatever stands in the window besides the first turn is the run of steps that ends with the last one read.
        turns = prm.tokenizer.decode(window.tokens).count("assistant") - 1
        shown = [0, *range(targets[-1] - turns + 1, targets[-1] + 1)]
        some = {shown.index(targets[0]), shown.index(targets[-1])}
        problem, steps = TRACES["many steps"]
        rewards = rlhflow_rewards(model, tokens, problem, [steps[n] for n in shown], some)
        golden |= {shown[place]: reward for place, reward in rewards.items()}
    scored = next(Engine(prm, EngineSettings(alpha=0, context=1000)).score([trace("many steps")]))
    expect(list(scored.step_rewards), golden)
    assert "windows" in scored.overflow


def test_implicit_reads_the_ids_of_the_published_chat(implicit_pair):
    prm = implicit_pair[0]
    tokens = tiny.tokenizer("byte-bpe", tiny.CHATML[:3])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokens, chat_template=QWEN_TEMPLATE)
    for name in ("plain", "one step", "unicode"):
        problem, steps = TRACES[name]
        chat = [{"role": "user", "content": problem}, {"role": "assistant", "content": "\n\n".join(steps)}]
        text = fast.apply_chat_template(chat, tokenize=False).removesuffix("\n")
        sequence = prm.encode(trace(name)).sequences[0]
        ids = [*sequence.head, *(token for piece in sequence.pieces for token in piece.tokens)]
        assert ids == fast(text, add_special_tokens=False)["input_ids"]
        assert ids == qwen_chat(tokens, problem, "\n\n".join(steps))[1], "the reference's own chat"


@pytest.mark.parametrize("name", NAMES)
def test_the_trajectory_reward_of_implicit_is_the_log_ratio_of_the_whole_answer(implicit_pair, name):
    prm, _, values = implicit_pair
    encoded = prm.encode(trace(name))
    assert len(encoded.sequences) == 1
    rewards, trajectory = tiny.scores(prm, [encoded])[0]
    # A sum over up to 1,500 tokens; in float32 each log-probability is good to about 1e-6.
    assert trajectory == pytest.approx(values[name][1], abs=1e-5 * len(rewards) + 1e-5)
    scored = next(Engine(prm).score([trace(name)]))
    assert scored.trajectory_reward == pytest.approx(trajectory, abs=1e-5 * len(rewards))
    assert scored.reward == pytest.approx(min(rewards) + trajectory, abs=1e-5 * len(rewards) + 1e-5)


def test_implicit_values_are_scaled_and_accumulated(tmp_path, implicit_pair):
    _, singles, values = implicit_pair
    folder, base = implicit(tmp_path / "a", 5)[0], implicit(tmp_path / "b", 6)[0]
    policy, reference = Checkpoint(folder, name="a"), Checkpoint(base, name="b")
    published = ImplicitPRM.load(policy, reference)
    expect(step_rewards(published, ["plain"])["plain"], {n: 0.001 * r for n, r in enumerate(singles["plain"])}, 1e-7)
    running = ImplicitPRM.load(policy, reference, beta=1.0, values="accumulative")
    expect(step_rewards(running, ["plain"])["plain"], dict(enumerate(values["plain"][0])), 3e-5)
    assert running.spec.score_range == (-float("inf"), float("inf"))
    with pytest.raises(UsageError, match="'single' or 'accumulative', got 'both'"):
        ImplicitPRM.load(policy, reference, values="both")


def test_slices_of_the_vocabulary_change_nothing(implicit_pair, monkeypatch):
    prm, _, _ = implicit_pair
    whole = step_rewards(prm, NAMES)
    monkeypatch.setattr("reasonflux_prm.prm.families.implicit._LOGITS", 7 * 600)
    sliced = step_rewards(prm, NAMES)
    for name in NAMES:
        assert sliced[name] == pytest.approx(whole[name], abs=1e-5)


def test_a_model_against_itself_is_worth_nothing(tmp_path):
    folder = implicit(tmp_path, 5)[0]
    same = Checkpoint(folder, name="same")
    prm = ImplicitPRM.load(same, same, beta=1.0)
    assert step_rewards(prm, ["plain"])["plain"] == [0.0, 0.0, 0.0]


def test_implicit_with_tied_embeddings(tmp_path):
    folder, policy, tokens = implicit(tmp_path / "a", 5, tie_word_embeddings=True)
    base, reference, _ = implicit(tmp_path / "b", 6)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    prm = ImplicitPRM.load(Checkpoint(folder, name="a"), Checkpoint(base, name="b"), beta=1.0)
    q, _ = implicit_values(policy, reference, tokens, *TRACES["plain"])
    singles = [b - a for a, b in zip([0.0, *q], q, strict=False)]
    assert step_rewards(prm, ["plain"])["plain"] == pytest.approx(singles, abs=3e-5)


def test_a_session_of_implicit_gives_the_trajectory_and_stays_as_it_was(implicit_pair):
    prm, _, values = implicit_pair
    session = Session(prm, TRACES["plain"][0])
    for step in trace("plain").steps:
        session.append(trace("plain").text(step), "response")
    held = session.tokens
    assert session.trajectory() == pytest.approx(values["plain"][1], abs=1e-4)
    assert session.tokens == held
    assert session.trajectory() == pytest.approx(values["plain"][1], abs=1e-4)
    for cache in session._caches:
        cache.rollback(held - 1)
    with pytest.raises(ValueError, match="roll back to where a step began"):
        session.append("No.", "response")
