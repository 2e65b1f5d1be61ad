"""The rater `outcome`: whether the final answer is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.verdict import Grade
from reasonflux_prm.labels.trajectory.base import TRAJECTORY, TrajectoryTerms
from reasonflux_prm.records import SegmentedTrace, Term, Trace


class OutcomeRater:
    """Gives 1 to a trace whose final answer is right and 0 to one whose answer is wrong.

    A verdict that came with the record counts before the grader's. An answer that is missing or cannot be graded gives
    no value: it is not known to be wrong.

    Args:
        grader: Who compares the answer with the reference answer.
    """

    name = "outcome"

    def __init__(self, grader: Grader) -> None:
        self._grader = grader

    def identity(self) -> Mapping[str, Any]:
        """Return what the ratings depend on."""
        return {"rater": self.name, "grader": dict(self._grader.identity())}

    async def rate(self, segmented: SegmentedTrace) -> TrajectoryTerms:
        """Grade the trace; see `labels.trajectory.base.TrajectoryRater`."""
        return {TRAJECTORY: await self._term(segmented.trace)}

    async def _term(self, trace: Trace) -> Term:
        if trace.correct is not None:
            return Term(float(trace.correct), "the verdict that came with the record")
        if not trace.answer:
            return Term(None, "the trace has neither a verdict nor a reference answer")
        try:
            verdict = await self._grader.agrade(trace.response.strip() or trace.thinking, trace.answer)
        except Exception as error:  # whatever an answer does to the grader concerns this trace alone
            return Term(None, f"the answer could not be graded ({type(error).__name__}: {error})")
        if verdict.grade is Grade.UNPARSED:
            return Term(None, f"the answer could not be graded ({verdict.reason})")
        return Term(float(verdict.grade is Grade.RIGHT), verdict.reason)
