"""Judge of step quality without a model: what a step claims about numbers is checked, and nothing else.

A step that makes no claim it can check has no quality, rather than a good one. See `labels.claims` for what a claim is,
and for what is left open because it may be meant otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Final

from reasonflux_prm.errors import MissingExtra
from reasonflux_prm.grading.workers import Result, WorkerPool
from reasonflux_prm.labels.claims.algebra import WORKER, Answer, Question
from reasonflux_prm.labels.claims.check import ClaimVerdict, Draft, Known, check, draft_claims
from reasonflux_prm.labels.claims.values import Value
from reasonflux_prm.labels.judges.base import NO_TEXT, QUALITY, StepTerms
from reasonflux_prm.records import Part, SegmentedTrace, Term

VERSION: Final = 1
"""Goes up whenever a verdict can change, for labels are compared by it."""
NO_CLAIM: Final = "no checkable claim"
CLAIMS: Final = "quality_claims"
FALSE: Final = "quality_false"


class RulesJudge:
    """Checks the arithmetic and algebra of every step; deterministic, and offline.

    Terms of a step:
        `quality`: the share of its decided claims that hold, in [0, 1]; almost always 0 or 1 where a step makes one
            claim. With a false claim, the reason tells the first one. No value without a decided claim.
        `quality_claims`: how many claims were decided; 0 and more.
        `quality_false`: how many of them are false, contradictions of earlier results included.

    A claim is judged where it is made: one that a later step corrects stays false. It is left open, and counts neither
    way, if the same step takes it back, asks it, or only supposes it.

    Args:
        pool_size: Worker processes for computer algebra.
        timeout_s: Most time for the algebra of one step, in seconds; what takes longer is left open.

    Raises:
        MissingExtra: sympy is not installed.
        UsageError: A number is out of its range.
    """

    def __init__(self, pool_size: int = 2, timeout_s: float = 2.0) -> None:
        if find_spec("sympy") is None:
            raise MissingExtra(
                'the rules judge checks algebra with sympy, which is not installed: pip install "reasonflux-prm[grade]"'
            )
        self.timeout_s = timeout_s
        self._pool = WorkerPool(WORKER, size=pool_size, timeout_s=timeout_s)

    @property
    def name(self) -> str:
        """The judge's name, as records and manifests show it."""
        return "rules"

    def identity(self) -> Mapping[str, Any]:
        """Return what the labels depend on."""
        return {"judge": self.name, "version": VERSION, "timeout_s": self.timeout_s, "sympy": version("sympy")}

    async def judge(self, segmented: SegmentedTrace) -> StepTerms:
        """Return the terms of every step; see the class."""
        terms: list[Mapping[str, Term]] = []
        ledgers: dict[Part, _Ledger] = {}
        for step in segmented.steps:
            text = segmented.text(step)
            if not text.strip():
                terms.append(_terms([], NO_TEXT))
                continue
            ledger = ledgers.setdefault(step.part, _Ledger())
            draft = draft_claims(text, Known(segmented.trace.problem, ledger.values))
            # In thinking, names are tried with one value and then another.
            if step.part == "response":
                ledger.note(draft)
            answers: Sequence[Answer] = ()
            if draft.questions:
                answers = _answers(draft.questions, await self._pool.arun(draft.questions))
            terms.append(_terms(draft.settle(answers), NO_CLAIM))
        return tuple(terms)

    def check(self, text: str, known: Known | None = None) -> list[ClaimVerdict]:
        """Return the claims of one step and what became of them, for inspection.

        Args:
            text: The step.
            known: The problem, and values that earlier steps have found.
        """
        return check(text, known or Known(), lambda questions: _answers(questions, self._pool.run(questions)))

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def __enter__(self) -> RulesJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class _Ledger:
    """The values that the steps of one part have given to names."""

    values: dict[str, Value] = field(default_factory=dict)
    _unsettled: set[str] = field(default_factory=set)

    def note(self, draft: Draft) -> None:
        """Take over what a step has found; a name that ever had two values is never relied on again."""
        self._unsettled |= draft.unsettled
        self.values = {
            name: value for name, value in {**self.values, **draft.found}.items() if name not in self._unsettled
        }


def _answers(questions: Sequence[Question], result: Result) -> Sequence[Answer]:
    if result.error is None:
        answers: Sequence[Answer] = result.value
        return answers
    return [(None, result.error)] * len(questions)


def _terms(verdicts: Sequence[ClaimVerdict], nothing: str) -> Mapping[str, Term]:
    decided = [verdict for verdict in verdicts if verdict.holds is not None]
    false = [verdict for verdict in decided if not verdict.holds]
    quality = Term(None, nothing)
    if decided:
        quality = Term(1 - len(false) / len(decided), f"{false[0].claim}: {false[0].why}" if false else None)
    return {QUALITY: quality, CLAIMS: Term(float(len(decided))), FALSE: Term(float(len(false)))}
