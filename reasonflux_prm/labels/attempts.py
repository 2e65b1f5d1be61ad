"""Attempts at a problem: the share of a policy's answers that are right."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reasonflux_prm.errors import PolicyError
from reasonflux_prm.grading.grader import Grader
from reasonflux_prm.grading.verdict import ANSWER_UNREAD, Grade, Verdict
from reasonflux_prm.labels.asking import Asker, together
from reasonflux_prm.policy.base import Message
from reasonflux_prm.records import Term


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the attempts are right."""

    right: int
    graded: int
    """Attempts with a verdict. One that ends without a final answer, or with one that says nothing, has one: it is not
    right. Only where the grader itself could not tell there is none."""
    note: str | None
    """What a reader should know: attempts that are missing, cut off, without an answer; why there is none at all."""

    @property
    def value(self) -> float | None:
        """Share right, in [0, 1]; None without a graded attempt."""
        return self.right / self.graded if self.graded else None

    @property
    def variance(self) -> float | None:
        """Binomial variance p (1 - p) / n of the share; 0 where all attempts agree, however few they are."""
        share = self.value
        return None if share is None else share * (1 - share) / self.graded

    def term(self, value: float | None) -> Term:
        """Return a term with this share's note."""
        return Term(value, self.note)

    @property
    def error(self) -> float | None:
        """Standard error of the share."""
        return None if self.variance is None else math.sqrt(self.variance)


async def share_right(
    asker: Asker, grader: Grader, messages: tuple[Message, ...], n: int, reference: str, prefix: str = ""
) -> Share:
    """Have a problem answered `n` times and graded against its reference answer.

    An answer that goes on from a `prefix` of the assistant's is graded with it.

    Raises:
        PolicyStopped: no request will succeed from here on.
    """
    outcome = await asker.ask(messages, n=n, prefix=prefix)
    if isinstance(outcome, PolicyError):
        return Share(0, 0, f"the request failed: {outcome}")
    answers = outcome[:n]
    verdicts = await together(_grade(grader, prefix + answer.text, reference) for answer in answers)
    graded = [verdict for verdict in verdicts if not _unsettled(verdict)]
    remarks = [f"only {len(answers)} of {n} attempts came"] if len(answers) < n else []
    if cut := sum(answer.finish_reason == "length" for answer in answers):
        remarks.append(f"{cut} of {len(answers)} cut off at max_tokens")
    if silent := sum(verdict.answer is None for verdict in graded):
        remarks.append(f"{silent} of {len(answers)} without a final answer, counted as not right")
    if unread := sum(_unread(verdict) for verdict in graded):
        remarks.append(f"{unread} of {len(answers)} with an answer that does not parse, counted as not right")
    if unsettled := [verdict for verdict in verdicts if _unsettled(verdict)]:
        remarks.append(f"{len(unsettled)} of {len(verdicts)} could not be graded ({unsettled[0].reason})")
    right = sum(verdict.grade is Grade.RIGHT for verdict in graded)
    return Share(right, len(graded), "; ".join(remarks) or None)


async def _grade(grader: Grader, text: str, reference: str) -> Verdict:
    try:
        return await grader.agrade(text, reference)
    except Exception as error:  # one answer that breaks the grader must not cost its neighbours theirs
        return Verdict(Grade.UNPARSED, text, f"{type(error).__name__}: {error}")


def _unread(verdict: Verdict) -> bool:
    return verdict.grade is Grade.UNPARSED and (verdict.reason or "").startswith(ANSWER_UNREAD)


def _unsettled(verdict: Verdict) -> bool:
    """Whether it is the grader, or the reference answer, that says nothing, and not the attempt."""
    return verdict.grade is Grade.UNPARSED and verdict.answer is not None and not _unread(verdict)
