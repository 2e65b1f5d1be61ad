"""How large a run is: sizes for a GPU, one for a patient CPU, and one that only shows that everything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

METHODS: Final = {
    "reward": ("--by", "reward"),
    "random": ("--by", "random"),
    "reward, right only": ("--by", "reward", "--correct"),
    "right": ("--by", "correct"),
    "response reward": ("--by", "response-reward"),
    "longest": ("--by", "longest"),
    "shortest": ("--by", "shortest"),
    "reward and student": ("--by", "reward", "--student", "{student}", "--student-weight", "0.5"),
    "student": ("--by", "student", "--student", "{student}"),
}
"""How `reasonflux-prm select` is asked; `--top K` comes with each. What the student must read for comes last."""
CURVE: Final = ("reward", "random")
"""The methods that are taken at every K."""
BASELINE: Final = "random"
"""What every other method is held against, problem by problem."""


@dataclass(frozen=True, slots=True)
class Size:
    """One size."""

    problems: int
    """Of GSM8K train, from which the pool is made."""
    samples: int
    """Of the policy, for each problem."""
    kept: tuple[int, ...]
    """Every K of the curve; the first is that of the table."""
    tokens: int
    """That every student is trained on, repeats counted."""
    seeds: int
    """Trainings of each selection."""
    tests: int | None
    """Problems of each benchmark; None takes all."""
    methods: tuple[str, ...] = tuple(METHODS)
    max_tokens: int = 512
    """Of an answer."""
    batch: int = 16
    """Rows of an update."""
    at_once: int = 16
    """Rows that are computed at once; `batch` must be a multiple. Halved where memory runs out."""
    sequences: int | None = None
    """Answers that are written at once; None takes the policy's default."""
    learning_rate: float = 1e-4
    rule: str = "adaptive"
    """How traces are cut into steps."""


SIZES: Final = {
    "tiny": Size(
        12,
        1,
        (8, 16),
        500,
        1,
        4,
        ("reward", "random", "reward and student", "student"),
        max_tokens=48,
        batch=4,
        at_once=2,
    ),
    "small": Size(400, 2, (200, 400, 800), 120_000, 3, 200, max_tokens=256),
    "gpu": Size(
        3_000,
        4,
        (1_000, 4_000),
        400_000,
        3,
        None,
        max_tokens=256,
        batch=32,
        sequences=384,
        learning_rate=3e-4,
    ),
    "world": Size(
        1_500,
        4,
        (400, 1_600),
        60_000,
        3,
        300,
        max_tokens=80,
        batch=32,
        at_once=32,
        sequences=256,
        learning_rate=1e-3,
        rule="blank-line",
    ),
    "full": Size(7_473, 8, (1_000, 5_000, 10_000), 4_000_000, 3, None),
}
"""`gpu` is for minutes of a GPU of 80 GB, with `--samples` and `--parallel 4`; `world` is for the models of
`recipes.small_world` on a CPU; `small` and `full` have not been run."""
