"""The judge `consensus`: a quality is kept where two judges agree.

Judges fail differently: a reviewer believes what is well put, and rollouts call a step good that a strong policy can
repair. Filtering by agreement costs labels and buys precision (arXiv:2501.07301 on first errors).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonflux_prm.labels.asking import together
from reasonflux_prm.labels.judges.base import QUALITY, Judge, StepTerms
from reasonflux_prm.records import SegmentedTrace, Term

UNDECIDED = 0.5


class ConsensusJudge:
    """Keeps the mean of two judges' qualities where both lie on one side of 0.5.

    The side decides and not the distance, because the scales differ: a reviewer's 0.9 and a rollout share of 0.6 both
    call a step good. 0.5 itself takes no side and agrees with either.

    Terms: `quality`, in [0, 1], without value where the judges disagree or one has none; every term of both judges as
    `quality_<judge>` and `quality_<judge>_<detail>`, raw. Of two judges with one name the second is called `<judge>_2`.

    Args:
        first: A judge.
        second: Another one.
    """

    name = "consensus"

    def __init__(self, first: Judge, second: Judge) -> None:
        self._judges = (first, second)
        self._names = (first.name, second.name if second.name != first.name else f"{second.name}_2")

    def identity(self) -> Mapping[str, Any]:
        """Return what both judges' labels depend on."""
        return {"judge": self.name, "of": [dict(judge.identity()) for judge in self._judges]}

    async def judge(self, segmented: SegmentedTrace) -> StepTerms:
        """Have both judge, at once; see `labels.judges.base.Judge`."""
        given = await together([judge.judge(segmented) for judge in self._judges])
        return tuple(self._terms(first, second) for first, second in zip(*given, strict=True))

    def _terms(self, first: Mapping[str, Term], second: Mapping[str, Term]) -> dict[str, Term]:
        terms = {QUALITY: self._agreed(first[QUALITY], second[QUALITY])}
        for name, given in zip(self._names, (first, second), strict=True):
            # quality -> quality_llm, quality_progress -> quality_llm_progress
            terms |= {f"{QUALITY}_{name}{term.removeprefix(QUALITY)}": value for term, value in given.items()}
        return terms

    def _agreed(self, first: Term, second: Term) -> Term:
        said = " and ".join(_say(name, term) for name, term in zip(self._names, (first, second), strict=True))
        if first.value is None or second.value is None:
            return Term(None, f"no agreement to be had: {said}")
        if (first.value - UNDECIDED) * (second.value - UNDECIDED) < 0:
            return Term(None, f"the judges disagree: {said}")
        return Term((first.value + second.value) / 2, said)


def _say(name: str, term: Term) -> str:
    return f"{name} gives no value ({term.reason})" if term.value is None else f"{name} says {term.value:.3g}"
