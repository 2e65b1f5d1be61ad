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
    student_tokens: int = 0
    """Tokens that the student is taught with; 0 leaves out the student, and with it sampled traces and best-of-16."""
    sampled_problems: int = 0
    """GSM8K train problems of which the student's samples are labelled."""
    samples: int = 8
    """Of each of them."""
    rollouts: int = 0
    """Continuations of each prefix of the samples; 0 leaves their steps to the rules."""
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
        student_tokens=400,
        sampled_problems=2,
        samples=2,
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
        branches=12,
        seeds=(0, 1, 2),
        train={"method": "lora", "epochs": 1.0, "bf16": True, "batch_tokens": 32_768, "select": "step_auc"},
        student_tokens=3_000_000,
        sampled_problems=2000,
        samples=8,
        rollouts=4,
    ),
}
"""`cpu` trains a head on the frozen model's states; `gpu` is meant for one H100, and has not been run."""
