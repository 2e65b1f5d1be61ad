"""verl: codes in its rewards, the reward function and the estimator, called as verl 0.9 calls them, without verl."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from rollout_strategies import rollouts
from stand_ins import LetterPRM
from tiny_native import write_native

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.rl import verl
from reasonflux_prm.rl.dense import process
from reasonflux_prm.rl.rollouts import Rollout
from reasonflux_prm.rl.verl_codes import read_batch, read_codes, write_codes

CONFIG = {"reasonflux": {"shaping": "process", "beta": 0.5, "prm": "letters", "grader": "string"}}


@given(rollouts(), st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (-8.0, 8.0)]))
def test_what_is_written_is_read(batch, bounds):
    low, high = bounds
    for rollout in batch:
        steps = dict((end, reward) for reward, end in rollout.known_steps)
        codes = write_codes(rollout, low, high)
        found = read_codes(np.pad(codes, (0, 3)), [1] * rollout.tokens + [0] * 3, rollout.group, low, high)
        assert found.tokens == rollout.tokens
        if rollout.outcome is None or not steps:
            assert not codes.any()
            assert (found.outcome, found.step_ends, found.note) == (None, (), "unscored")
            continue
        assert found.outcome == rollout.outcome
        assert found.step_rewards == pytest.approx(list(steps.values()), abs=(high - low) / 16_000)
        # Of steps that end in one token the last is kept.
        thinking = {end for n, (_, end) in enumerate(rollout.known_steps) if n >= rollout.known_thinking}
        assert found.thinking_steps == len(steps) - len(thinking)
        assert found.step_ends == (*sorted(steps)[:-1], rollout.tokens - 1)
        # What verl logs as the score.
        assert codes.astype(np.float64).sum() == pytest.approx(rollout.outcome, abs=0.004 * ((len(steps) + 1) // 2))


def test_many_steps_and_the_ends_of_the_range():
    rollout = Rollout("p", 3000, -1.0, None, (0.0, 1.0) * 1000, tuple(range(2000)))
    found = read_codes(write_codes(rollout), [1] * 3000, "p")
    assert (found.outcome, found.step_rewards) == (-1.0, rollout.step_rewards)
    assert write_codes(rollout).sum(dtype=np.float64) == pytest.approx(-1, abs=0.004 * 1001)


@pytest.mark.parametrize(
    "rewards", [[0, 0, 1.0, 0], [0, 0, 0.5, 1.0], [0.01, 0.01, 0.01, 0.01], [0, 1e-6, 0, 1 + 1e-6]]
)
def test_other_rewards_are_refused(rewards):
    with pytest.raises(UsageError, match="are not those of the reward manager 'reasonflux'"):
        read_codes(rewards, [1, 1, 1, 1], "p")


def test_rewards_with_a_penalty_for_kl_are_refused():
    codes = write_codes(Rollout("p", 4, 1.0, None, (0.5, 0.7), (1, 3)))
    with pytest.raises(UsageError, match="use_kl_in_reward to False"):
        read_codes(codes - 0.001 * np.array([0.1, 0.3, 0.2, 0.5], dtype=np.float32), [1] * 4, "p")


def test_rewards_outside_the_range_are_refused():
    with pytest.raises(UsageError, match=r"a step reward of 1\.5 is outside \[0, 1\]; set low and high"):
        write_codes(Rollout("p", 1, 1.0, None, (1.5,), (0,)))
    with pytest.raises(UsageError, match=r"outcomes in \[-1, 1\], got 2"):
        write_codes(Rollout("p", 1, 2.0, None, (0.5,), (0,)))


# --- the estimator -------------------------------------------------------------------------------------------------


@given(rollouts(complete=True))
def test_the_estimator_gives_the_advantages_of_the_rollouts(batch):
    width = max(r.tokens for r in batch) + 2
    rewards, mask = torch.zeros(len(batch), width), torch.zeros(len(batch), width)
    for row, rollout in enumerate(batch):
        rewards[row, : rollout.tokens] = torch.from_numpy(write_codes(rollout))
        mask[row, : rollout.tokens] = 1
    index = np.array([r.group for r in batch], dtype=object)
    advantages, returns = verl.estimate_advantages(
        token_level_rewards=rewards, response_mask=mask, index=index, config=CONFIG, reward_baselines=None
    )
    assert advantages is returns
    read = read_batch(rewards.numpy(), mask.numpy(), index)
    for row, expected in zip(advantages, process(read, beta=0.5), strict=True):
        assert row[: len(expected)].tolist() == pytest.approx(expected, abs=1e-3)
        assert not row[len(expected) :].any()
    # What was read is what was written, but for steps that end in one token.
    plain = [r for r in batch if len(set(r.step_ends)) == len(r.step_ends)]
    if len(plain) == len(batch):
        for row, expected in zip(advantages, process(batch, beta=0.5, eps=1e-4), strict=True):
            if np.abs(expected).max() < 50:
                assert row[: len(expected)].tolist() == pytest.approx(expected, abs=0.02, rel=0.02)


def test_tokens_of_tools_have_no_advantage():
    codes = torch.from_numpy(write_codes(Rollout("p", 4, 1.0, None, (0.5, 0.7), (1, 3))))
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]])
    other = torch.from_numpy(write_codes(Rollout("p", 4, 0.0, None, (0.1,), (3,))))
    advantages, _ = verl.estimate_advantages(torch.stack([codes, other]), mask, ["p", "p"], CONFIG)
    assert advantages[0].ne(0).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"names no shaping; add \+algorithm.reasonflux.shaping=process"),
        ({}, "names no shaping"),
        ({"reasonflux": {"shaping": "blend"}}, "use reasonflux_prm.rl.verl's compute_score as the reward function"),
        ({"reasonflux": {"shaping": "process", "gamma": 1}}, "process has no setting gamma"),
    ],
)
def test_settings_are_checked(config, message):
    with pytest.raises(UsageError, match=message):
        verl.VerlSettings.of(config)


# --- the reward function -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prm(tmp_path_factory):
    return str(write_native(tmp_path_factory.mktemp("prm") / "checkpoint"))


def ask(**changes):
    """Call as the naive reward manager does, with the configuration's keywords merged in."""
    row = {
        "data_source": "gsm8k",
        "solution_str": "<think>2 and 2</think>\\boxed{4}",
        "ground_truth": "4",
        "extra_info": {"question": "2+2", "num_turns": None, "rollout_reward_scores": {}},
    }
    return verl.compute_score(**{**row, "grader": "string", **changes})


def test_scores_of_one_response(prm):
    found = ask(prm=prm, shaping="blend", beta=0.5)
    assert (found["acc"], found["unscored"]) == (1.0, 0.0)
    assert found["score"] == pytest.approx(0.5 + 0.5 * found["prm"])
    wrong = ask(prm=prm, shaping="gated", ground_truth="5")
    assert (wrong["score"], wrong["acc"], wrong["unscored"]) == (0.0, 0.0, 0.0)
    assert set(found) == set(wrong) == {"score", "acc", "prm", "unscored"}, "verl wants the same keys of every sample"


def test_what_is_missing_is_counted(prm):
    assert ask(prm=prm, shaping="blend", ground_truth=None)["unscored"] == 1.0
    empty = ask(prm=prm, shaping="blend", solution_str="")
    assert empty == {"score": 0.0, "acc": 0.0, "prm": 0.0, "unscored": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_info": {"index": 3}}, "extra_info has no 'question' that holds the problem's text; it has index"),
        ({"extra_info": None}, "it has nothing: name the entry by reward_kwargs.problem"),
        ({"shaping": "process"}, "process needs the whole group"),
        ({"shaping": "rule", "beta": 0.5}, "rule has no setting beta"),
        ({"reward_router_address": "127.0.0.1:1"}, "reward.reward_model.enable is on"),
    ],
)
def test_what_the_reward_function_refuses(changes, message):
    with pytest.raises(UsageError, match=message):
        ask(**changes)


# --- single rollouts -----------------------------------------------------------------------------------------------


class Wrapped:
    """The little of transformers' tokenizers that the item scorer asks for."""

    def __init__(self, tokenizer):
        self._own = tokenizer
        self.added_tokens_decoder = tokenizer.get_added_tokens_decoder()

    def convert_ids_to_tokens(self, i):
        return self._own.id_to_token(i)

    def decode(self, ids, **_):
        return self._own.decode(list(ids), skip_special_tokens=False)


def test_a_rollout_by_its_ids(monkeypatch):
    tokenizer = tiny.tokenizer("byte", (*tiny.CHATML, "<think>", "</think>"))
    own = LetterPRM()
    monkeypatch.setattr("reasonflux_prm.rl.trl.open_score", lambda prm: own.score)
    scorer = verl.ItemScorer(verl.VerlSettings.of(CONFIG), Wrapped(tokenizer))
    prompt = tokenizer.encode("2+2<think>\n", add_special_tokens=False).ids
    ids = tokenizer.encode("abcdefg\n</think>\n\n\\boxed{4}<|im_end|>", add_special_tokens=False).ids
    row = {"reward_model": {"ground_truth": "4"}, "raw_prompt": [{"role": "user", "content": "2+2"}]}
    found = scorer.score(prompt, ids, row)
    assert (own.seen[0].problem, own.seen[0].thinking, own.seen[0].response) == ("2+2", "abcdefg", "\\boxed{4}")
    read = read_codes(found.pop("token_rewards"), [1] * len(ids), "p")
    assert read.step_ends == (4, 6, 15, len(ids) - 1)
    assert (read.outcome, found["acc"], found["unscored"]) == (1.0, 1.0, 0.0)
    # The prompt has opened the thinking, and it was cut off.
    cut = scorer.score(prompt, ids[:5], row)
    assert (own.seen[1].thinking, own.seen[1].response, cut["acc"]) == ("abcde", "", 0.0)
    unscored = scorer.score(prompt, ids, row | {"reward_model": {"ground_truth": None}})
    assert (unscored["unscored"], unscored["token_rewards"].any()) == (1.0, False)


def test_without_verl_the_check_says_so():
    with pytest.raises(MissingExtra, match="verl is not installed in this environment"):
        verl.check()
