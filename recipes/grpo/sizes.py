"""How large the experiment is: the same for every reward, so that they see equally many steps and samples."""

from __future__ import annotations

from dataclasses import dataclass

from reasonflux_prm.rl.shaping import Blend, Gated, Potential, Process, Shaping

REWARDS: dict[str, Shaping] = {
    # With a share of 0 or 1, so that outcome and PRM are both measured, whichever is learnt from.
    "rule": Blend(beta=0.0),
    "blend": Blend(),
    "process": Process(beta=0.5, credit="mean", by_part=True),
    "gated": Gated(),
    "prm": Blend(beta=1.0),
    "process-flat": Process(beta=0.5, credit="mean"),
    "potential": Potential(),
}
"""By name: what the policy learns from."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    at_once: int
    """Rollouts whose gradients are computed at once; their activations are what takes memory."""
    learning_rate: float = 3e-6
    kl: float = 1e-3
    """Weight of the distance to the student in the loss; 0 also saves the student's reading of every rollout."""
    tokens: int
    """Most tokens of a rollout, in training and tests."""
    problems: int | None = None
    """Problems of GSM8K train to draw from; None takes all."""
    tests: int | None = None
    """Problems of each test set; None takes all."""
    samples: int
    """Test samples of a problem, drawn as in training; each counts."""
    seeds: int
    window: int
    """Updates that are averaged at the start and at the end of training; see `rl.monitor`."""
    rule: str = "adaptive"
    """How traces are cut into steps."""
    saves: int = 0
    """Checkpoints of a run, from which it goes on after a kill; without them it begins again."""


SIZES = {
    "tiny": Size(
        sft_tokens=2_000, steps=4, prompts=2, group=4, at_once=4, tokens=48, problems=16, tests=4, samples=1, seeds=1,
        window=2, saves=4,
    ),
    "gpu": Size(
        sft_tokens=1_000_000, steps=24, prompts=16, group=8, at_once=16, learning_rate=2e-5, kl=0.0, tokens=224,
        samples=1, seeds=3, window=5,
    ),
    "world": Size(
        sft_tokens=0, steps=40, prompts=8, group=8, at_once=32, learning_rate=3e-4, kl=0.0, tokens=80, problems=8_000,
        tests=300, samples=2, seeds=3, window=8, rule="blank-line",
    ),
    "small": Size(
        sft_tokens=200_000, steps=60, prompts=16, group=8, at_once=16, tokens=256, tests=300, samples=2, seeds=1,
        window=5, saves=6,
    ),
    "full": Size(
        sft_tokens=1_000_000, steps=300, prompts=32, group=8, at_once=16, tokens=320, samples=4, seeds=3, window=10,
        saves=6,
    ),
}  # fmt: skip
"""`tiny` shows that all stages run, and says nothing of the rewards; `world` is for the models of `recipes.small_world`
on a CPU; the others are for a GPU, and `gpu` for minutes of one.

With so few updates `gpu` takes a higher learning rate, and as in DAPO (arXiv:2503.14476) no KL term."""
