"""What a grader says of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NO_ANSWER: Final = "no answer stated"
ANSWER_UNREAD: Final = "the answer does not parse"
REFERENCE_UNREAD: Final = "the reference does not parse"


class Grade(StrEnum):
    """Whether an answer is right."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    """It could not be told; `Verdict.reason` says why. It is no proof that the answer is wrong."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a grader says of one answer."""

    grade: Grade
    answer: str | None
    """The answer as it is written; None if none is stated."""
    reason: str | None = None
    """Why the grade is `unparsed`, and beside it what a reader should know; None where there is nothing to say."""

    @property
    def right(self) -> bool:
        """Whether the answer is known to be right."""
        return self.grade is Grade.RIGHT
