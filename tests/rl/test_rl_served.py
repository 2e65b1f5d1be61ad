"""A PRM that is served gives the rollouts that the same PRM gives in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny
from tiny_native import write_native

from reasonflux_prm.errors import UsageError
from reasonflux_prm.prm.load import load_prm
from reasonflux_prm.rl.scorer import RolloutScorer, Sampled, open_score

sys.path.append(str(Path(__file__).parents[1] / "serving"))
from serving_parts import live


def test_rollouts_by_a_service(tmp_path):
    tokenizer = tiny.tokenizer("byte", (*tiny.CHATML, "<think>", "</think>"))
    texts = ["<think>\nso it is 42.\n</think>\n\nThe sum is 42.", "", "It is 7."]
    samples = [
        Sampled("p", "12+30", ids=tokenizer.encode(text + "<|im_end|>", add_special_tokens=False).ids) for text in texts
    ]
    prm = load_prm(str(write_native(tmp_path / "prm")))
    with live(prm) as service:
        served = RolloutScorer(open_score(service.url), tokenizer=tokenizer)(samples)
    for one, other in zip(served, RolloutScorer(open_score(prm), tokenizer=tokenizer)(samples), strict=True):
        assert one.rollout.step_ends == other.rollout.step_ends
        assert one.rollout.step_rewards == pytest.approx(other.rollout.step_rewards, abs=1e-5)
        assert one.rollout.reward == (
            None if other.rollout.reward is None else pytest.approx(other.rollout.reward, abs=1e-5)
        )
    assert [own.rollout.reward is None for own in served] == [False, True, False]


def test_a_served_prm_is_loaded_already():
    with pytest.raises(UsageError, match="is loaded already; leave device out"):
        open_score("http://127.0.0.1:1", device="cuda")
