"""How much of the recipe is run: the same stages at three sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Size:
    """The amounts of one size."""

    problems: int
    """GSM8K train problems with errors put in."""
    branches: int
    """Most traces of a problem besides the right one."""
    seeds: tuple[int, ...]
    """Of the ablations."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig` of the ablations and of the shipped PRM."""
    student: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `SFTSettings`; none leaves out the student, and with it sampled traces and best-of-16."""
    sampled_problems: int | None = None
    """GSM8K train problems that the student is sampled on; None takes all."""
    samples: int = 8
    """Of each of them."""
    dev_problems: int = 300
    """Problems whose samples choose the checkpoint."""
    best_of: int = 16
    """Samples of each test problem."""
    test_problems: int | None = None
    """Test problems of each benchmark; None takes all."""


SIZES: Final[Mapping[str, Size]] = {
    "tiny": Size(
        problems=24,
        branches=2,
        seeds=(0,),
        train={"method": "frozen", "train_layers": 0, "epochs": 2.0, "pack_tokens": 1024, "batch_tokens": 2048},
        student={"tokens": 400},
        sampled_problems=8,
        samples=2,
        dev_problems=2,
        best_of=2,
        test_problems=2,
    ),
    "cpu": Size(
        problems=130,
        branches=3,
        seeds=(0, 1, 2),
        train={
            "method": "frozen",
            "train_layers": 0,
            "epochs": 40.0,
            "learning_rate": 1e-4,
            "batch_tokens": 4096,
            "select": "step_auc",
        },
    ),
    "gpu": Size(
        problems=7473,
        branches=2,
        seeds=(0, 1, 2),
        train={
            "method": "lora",
            "epochs": 1.0,
            "learning_rate": 4e-4,
            "loss": "bce",
            "bf16": True,
            "batch_tokens": 32_768,
            "pack_tokens": 16_384,
            "evaluate_steps": 120,
            "select": "best_of_n",
        },
        student={"tokens": 1_500_000, "batch": 64, "at_once": 64, "learning_rate": 8e-4},
        samples=5,
        dev_problems=200,
    ),
}
"""`cpu` trains a head on the frozen model's states; `gpu` is for one H100, and has run up to `prm-causal`."""
