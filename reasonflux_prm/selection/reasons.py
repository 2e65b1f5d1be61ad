"""Why a trace of the pool is not in the output."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Of all that speaks against a trace, the first in this order is recorded."""

    KEPT = "kept"
    UNSCORED = "unscored"
    """It has no reward, and the choice needs one."""
    OTHER_PRM = "other-prm"
    """Another PRM than the one that was named gave its reward."""
    NO_REWARD = "no-such-reward"
    """It is scored, but not with what the reward is to be made of: no trajectory reward, no step of the response."""
    NOT_LISTED = "not-listed"
    """Its id is not in the list that was given."""
    UNFINISHED = "unfinished"
    """The thinking has no end, or there is no response: it would teach a student to stop there."""
    NO_PROBLEM = "no-problem"
    """The problem is blank, so there is nothing to answer."""
    WRONG = "wrong"
    NO_VERDICT = "no-verdict"
    """Whether it is right is not known, and right ones were asked for."""
    TOO_SHORT = "too-short"
    TOO_LONG = "too-long"
    MARKS = "marks-in-text"
    """Its text holds marks or control tokens of the student's template, which would cut it elsewhere."""
    CONTAMINATED = "contaminated"
    """It shares an n-gram with a problem of a benchmark."""
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near-duplicate"
    BELOW = "below-threshold"
    NOT_READ = "outside-candidates"
    """Its rank left it out of the candidates that the student read, or diversity was chosen among."""
    STUDENT = "student-cannot-read"
    """It does not fit into the student's context, or the student's numbers are not finite."""
    QUOTA = "quota"
    RANK = "rank"
    """Nothing speaks against it, but better ones filled the number that was asked for."""


REASONS: tuple[Reason, ...] = tuple(Reason)
"""By code: what the index holds of a trace is a place in this tuple."""
CODES = {reason: code for code, reason in enumerate(REASONS)}
