"""How large the experiment is: the same for every reward, so that they see equally many steps and samples."""

from __future__ import annotations

from dataclasses import dataclass

from reasonflux_prm.rl.shaping import Blend, Gated, Process, Shaping

REWARDS: dict[str, Shaping] = {
    # With a share of 0 or 1, so that outcome and PRM are both measured, whichever is learnt from.
    "rule": Blend(beta=0.0),
    "blend": Blend(),
    "process": Process(beta=0.5, credit="mean"),
    "gated": Gated(),
    "prm": Blend(beta=1.0),
}
"""By name: what the policy learns from."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is learnt and tested."""

    sft_tokens: int
    """Tokens of completions that the student is taught the form with."""
    steps: int
    """Updates of the policy."""
    prompts: int
    """Problems of an update."""
    group: int
    """Rollouts of a problem."""
    tokens: int
    """Most tokens of a rollout, in training and tests."""
    problems: int | None
    """Problems of GSM8K train to draw from; None takes all."""
    tests: int | None
    """Problems of each test set; None takes all."""
    samples: int
    """Test samples of a problem, drawn as in training; each counts."""
    seeds: int
    window: int
    """Updates that are averaged at the start and at the end of training; see `rl.monitor`."""


SIZES = {
    "tiny": Size(2_000, 4, 2, 4, 48, 16, 4, 1, 1, 2),
    "small": Size(200_000, 60, 16, 8, 256, None, 300, 2, 1, 5),
    "full": Size(1_000_000, 300, 32, 8, 320, None, None, 4, 3, 10),
}
"""`tiny` shows that all stages run, and says nothing of the rewards; `small` and `full` are for a GPU."""
