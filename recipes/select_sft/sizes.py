"""How large a run is: a size for a GPU, one for a patient CPU, and one that only shows that everything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

METHODS: Final = {
    "reward": ("--by", "reward"),
    "reward, right only": ("--by", "reward", "--correct"),
    "response reward": ("--by", "response-reward"),
    "reward and student": ("--by", "reward", "--student", "{student}", "--student-weight", "0.5"),
    "student": ("--by", "student", "--student", "{student}"),
    "right": ("--by", "correct"),
    "longest": ("--by", "longest"),
    "shortest": ("--by", "shortest"),
    "random": ("--by", "random"),
}
"""How `reasonflux-prm select` is asked; `--top K` comes with each."""
CURVE: Final = ("reward", "random")
"""The methods that are taken at every K."""


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
    learning_rate: float = 1e-4


SIZES: Final = {
    "tiny": Size(12, 1, (8, 16), 500, 1, 4, ("reward", "random"), max_tokens=48, batch=4),
    "small": Size(400, 2, (200, 400, 800), 120_000, 3, 200, max_tokens=256),
    "full": Size(7_473, 8, (1_000, 5_000, 10_000), 4_000_000, 3, None),
}
