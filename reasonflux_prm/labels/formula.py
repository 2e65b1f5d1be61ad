"""How the terms of a step become its target, as a text that can be written into a label file and read back.

The paper combines a step's three terms by a softmax over them (arXiv 2506.18896):

    r_t^step = sum_k softmax(r^align, r^qual, r^coh)_k  r_t^k,    k in {align, qual, coh}

which is a smooth maximum: at least the mean of the three, and a very bad term gets next to no weight, so it is passed
over rather than punished. The other ways are there to measure how much that matters.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Self, get_args

from reasonflux_prm.errors import UsageError

Mode = Literal["bounded", "literal"]
Aggregation = Literal["softmax", "mean", "min", "weighted"]

ALIGNMENT_TERMS = ("alignment_max", "alignment_index", "alignment_proportional", "alignment_dtw")
COHERENCE_TERM = "coherence"
DEFAULT_TERMS = ("alignment_max", "quality", "coherence")

_QUALITY_TERM = re.compile(r"quality(_[a-z0-9_]+)?")
_FORMULA = re.compile(r"\s*(?P<mode>\w+)(?:\s+(?P<aggregation>\w+)\s*(?:\((?P<terms>[^()]*)\))?)?\s*")
_TERM = re.compile(r"\s*(?P<name>\w+)\s*(?P<required>!?)\s*(?:=\s*(?P<weight>[^\s=]+))?\s*")


@dataclass(frozen=True, slots=True)
class Formula:
    """Which terms of a step make its target, and how. All targets are higher for better steps.

    Scale of a target, by mode:

    - `bounded`: in [0, 1], always. Each term is first brought there: alignment to max(cos, 0), coherence to its sigmoid
      (the probability of the true step among it and its negatives), quality as it is. A quality that is not in [0, 1]
      is not taken.
    - `literal`: terms as the paper prints them: alignment in [-1, 1], quality in [0, 1], coherence within 2 / tau +
      ln N of 0 (23 by default). A target can leave [0, 1]; `combine.out_of_range` counts those that do.

    Aggregation, over the terms that a step has:

    - `softmax`: the paper's, above. Between the mean and the maximum of the terms.
    - `mean`, `min`: of the terms.
    - `weighted`: sum_k w_k r_k / sum_k w_k.

    A step that lacks a term (a response step has no alignment; a judge may have failed) is combined from the others,
    and has no target if it has none of them, or lacks one that `requires` names. A term that is missing is never 0.

    The trajectory's target is its term `trajectory`, in [0, 1]; in `literal` mode it is taken even outside.

    As text: `bounded softmax(alignment_max, quality!, coherence)`, where `!` marks a required term, and
    `bounded weighted(quality=2, coherence=1)`. A mode alone, or mode and aggregation, stand for the default terms.
    """

    mode: Mode = "bounded"
    aggregation: Aggregation = "softmax"
    terms: tuple[str, ...] = DEFAULT_TERMS
    weights: tuple[float, ...] | None = None
    """One for each of `terms`, at least 0, not all 0; None unless the aggregation is `weighted`."""
    requires: tuple[str, ...] = ()
    """Those of `terms` without which a step gets no target."""

    def __post_init__(self) -> None:
        _check_choice("mode", self.mode, get_args(Mode))
        _check_choice("aggregation", self.aggregation, get_args(Aggregation))
        if not self.terms or len(set(self.terms)) != len(self.terms):
            raise UsageError(f"a formula needs at least one term, each once, got ({', '.join(self.terms)})")
        for name in self.terms:
            if name not in (*ALIGNMENT_TERMS, COHERENCE_TERM) and not _QUALITY_TERM.fullmatch(name):
                raise UsageError(
                    f"no term of a step is called {name!r}; a formula takes {', '.join(ALIGNMENT_TERMS)}, "
                    f"{COHERENCE_TERM}, quality, and what a judge says in detail, such as quality_correctness"
                )
        if stray := set(self.requires) - set(self.terms):
            raise UsageError(f"a formula can require only terms that it takes, not {', '.join(sorted(stray))}")
        if (self.weights is not None) != (self.aggregation == "weighted"):
            raise UsageError(
                "weights go with the aggregation 'weighted', which needs one for each term, as in "
                f"weighted(quality=2, coherence=1); got the aggregation {self.aggregation!r} and "
                f"{'no weights' if self.weights is None else 'weights'}"
            )
        if self.weights is not None:
            self._check_weights(self.weights)
        # In the terms' order, so that what is read back is equal to what was written.
        object.__setattr__(self, "requires", tuple(name for name in self.terms if name in self.requires))

    def _check_weights(self, weights: tuple[float, ...]) -> None:
        sound = all(math.isfinite(weight) and weight >= 0 for weight in weights)
        if not (sound and sum(weights) > 0 and len(weights) == len(self.terms)):
            raise UsageError(
                f"expected {len(self.terms)} weights of 0 or more, not all of them 0, "
                f"got {', '.join(f'{weight:g}' for weight in weights) or 'none'}"
            )

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Read what `str` writes.

        Raises:
            UsageError: The text is no formula; the message says why.

        Example:
            >>> Formula.parse("bounded") == Formula()
            True
            >>> str(Formula.parse("literal min(quality!, coherence)"))
            'literal min(quality!, coherence)'
        """
        return _parsed(text)

    def without(self, name: str) -> Self:
        """Return the formula without one of its terms, for ablations.

        Raises:
            UsageError: The formula does not take that term, or no other.
        """
        if name not in self.terms:
            raise UsageError(f"the formula {self} has no term {name!r} to leave out")
        kept = [index for index, term in enumerate(self.terms) if term != name]
        return replace(
            self,
            terms=tuple(self.terms[index] for index in kept),
            weights=None if self.weights is None else tuple(self.weights[index] for index in kept),
            requires=tuple(term for term in self.requires if term != name),
        )

    def __str__(self) -> str:
        weights = [f"={weight!r}".removesuffix(".0") for weight in self.weights or ()] or [""] * len(self.terms)
        terms = [
            f"{name}{'!' if name in self.requires else ''}{weight}"
            for name, weight in zip(self.terms, weights, strict=True)
        ]
        return f"{self.mode} {self.aggregation}({', '.join(terms)})"


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"a formula's {what} is {' or '.join(choices)}, not {value!r}")


@lru_cache(maxsize=64)
def _parsed(text: str) -> Formula:
    found = _FORMULA.fullmatch(text)
    if found is None:
        raise UsageError(
            f"expected a formula such as 'bounded softmax({', '.join(DEFAULT_TERMS)})', or its mode alone, got {text!r}"
        )
    _check_choice("mode", found["mode"], get_args(Mode))
    aggregation = found["aggregation"] or "softmax"
    _check_choice("aggregation", aggregation, get_args(Aggregation))
    if found["terms"] is None:
        return Formula(found["mode"], aggregation)  # type: ignore[arg-type]
    names, required, weights = [], [], []
    for part in found["terms"].split(","):
        term = _TERM.fullmatch(part)
        if term is None:
            raise UsageError(
                f"expected a term such as quality, quality! or quality=2 in {text!r}, got {part.strip()!r}"
            )
        names.append(term["name"])
        required += [term["name"]] if term["required"] else []
        weights += [_number(term["weight"], text)] if term["weight"] else []
    return Formula(
        found["mode"],  # type: ignore[arg-type]
        aggregation,  # type: ignore[arg-type]
        tuple(names),
        tuple(weights) or None,
        tuple(required),
    )


def _number(text: str, formula: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"expected a number as a weight in {formula!r}, got {text!r}") from None
