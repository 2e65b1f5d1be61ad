"""What is compared: each variant is the full recipe with one thing changed.

All variants learn from the same traces and are measured on the same traces of other problems, whose labels are the
truth (errors that were put in), whatever a variant was taught with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Judge = Literal["recorded", "rules", "rollout"]

TERMS: Final = "alignment_max, quality, coherence"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train."""

    name: str
    changed: str
    """What differs from `full`, for the table."""
    judge: Judge = "recorded"
    """Who gives the term `quality`: `recorded` is the truth, a judge without fault."""
    formula: str = "bounded mean(quality!)"
    settings: Mapping[str, Any] | None = None
    """Fields of `TrainConfig` that differ."""
    response_only: bool = False
    """Learn thinking steps as steps of a response, as PRMs of final responses do; measured on thinking all the same."""


VARIANTS: Final = (
    Variant("full", "nothing: the truth of every step and of the trace, causal layout"),
    Variant("response-first", "the response stands before the thinking", settings={"layout": "response_first"}),
    Variant("step-only", "no trajectory reward is learnt", settings={"lambda_final": 0.0}),
    Variant("trajectory-only", "no step rewards are learnt", settings={"lambda_step": 0.0}),
    Variant("bce", "cross entropy instead of squared error", settings={"loss": "bce"}),
    Variant("response-only", "thinking steps are learnt as steps of a response", response_only=True),
    Variant(
        "paper-literal", "softmax of three terms as printed, quality is the truth", formula=f"literal softmax({TERMS})"
    ),
    Variant("paper-bounded", "the same, bounded", formula=f"bounded softmax({TERMS})"),
    Variant("mean-of-terms", "mean of three terms, quality is the truth", formula=f"bounded mean({TERMS})"),
    Variant("no-alignment", "mean of quality and coherence", formula="bounded mean(quality, coherence)"),
    Variant("no-coherence", "mean of alignment and quality", formula="bounded mean(alignment_max, quality)"),
    Variant(
        "no-quality",
        "mean of alignment and coherence: no judge at all",
        formula="bounded mean(alignment_max, coherence)",
    ),
    Variant("rules", "quality by rules alone, where they speak", judge="rules"),
    Variant(
        "rules-paper",
        "paper's bounded softmax with quality by rules",
        judge="rules",
        formula=f"bounded softmax({TERMS})",
    ),
)
"""`response-only` needs traces whose responses hold steps of their own."""
