"""What a search gives for one problem: its candidates, the pick, and what all of it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from reasonflux_prm.evaluation.tasks.base import Problem
from reasonflux_prm.records import ScoredTrace, Trace
from reasonflux_prm.search.best_of_n import Pick
from reasonflux_prm.traces.native import step_row


class SearchStatus(StrEnum):
    """What became of a problem."""

    PICKED = "picked"
    UNPICKED = "unpicked"
    """There are candidates, but none that the pick could go by; `SearchResult.note` says why."""
    FAILED = "failed"
    """There is no candidate; `SearchResult.note` has the policy's words."""


class Trouble(StrEnum):
    """What can go wrong on the way, without an end to the search; counted by problem."""

    FEWER_SAMPLES = "fewer-samples"
    """Samples that were asked for and did not come."""
    REFUSED = "refused"
    """Requests that the policy failed to answer; their drafts stay as they are, cut off."""
    NO_TEXT = "no-text"
    """Candidates without text."""
    NO_ANSWER = "no-answer"
    """Candidates that state no final answer."""
    CUT = "cut"
    """Candidates that a limit on tokens or steps cut off."""
    NO_REWARD = "no-reward"
    """Candidates that the PRM could not score."""
    BLANK = "blank"
    """Drafts that were cut off because nothing but white space came, several times over."""
    UNCLEAR_END = "unclear-end"
    """Steps after which the backend did not tell whether the policy had ended or met a stop text: taken as its end."""
    LATE_MARK = "late-mark"
    """Drafts whose thinking was closed without having been opened: their steps had been read as the response's, and
    were read again as thinking. Name the opening of the policy's answers to avoid it."""
    UNGRADED = "ungraded"
    """Picks that could not be graded, because the reference does not parse or the grader gave up."""


BLANK_ROUNDS: Final = 3
"""How often a policy that writes nothing but white space is asked on."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One trace that a search ended with."""

    scored: ScoredTrace | Trace
    """With its rewards; without where the pick needs none."""
    tokens: int
    """Tokens that the policy wrote for it; those that branches share are counted for each."""
    ended: bool
    """Whether the policy came to its end; False if a limit cut it off."""

    @property
    def trace(self) -> Trace:
        """The trace."""
        return self.scored.trace if isinstance(self.scored, ScoredTrace) else self.scored

    @property
    def text(self) -> str:
        """Everything it says: thinking in its marks, then the response."""
        trace = self.trace
        if not trace.thinking:
            return trace.response
        closing = "\n</think>\n\n" if trace.thinking_closed else ""
        return f"<think>\n{trace.thinking.rstrip()}{closing}{trace.response}"

    def row(self) -> dict[str, Any]:
        """Return the candidate as JSON values, as candidates files have it."""
        trace = self.trace
        row: dict[str, Any] = {
            "id": trace.id,
            "thinking": trace.thinking,
            "response": trace.response,
            "thinking_closed": trace.thinking_closed,
            "ended": self.ended,
            "completion_tokens": self.tokens,
        }
        if isinstance(self.scored, ScoredTrace):
            scored = self.scored
            row["score_status"] = scored.status.value
            row["steps"] = [
                {**step_row(step), "reward": reward}
                for step, reward in zip(scored.steps, scored.step_rewards, strict=True)
            ]
            row["trajectory_reward"] = scored.trajectory_reward
            row["reward"] = scored.reward
            if scored.note or scored.overflow:
                row["score_note"] = scored.note or scored.overflow
        return row


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search gives for one problem."""

    problem: Problem
    status: SearchStatus
    method: str
    candidates: tuple[Candidate, ...]
    pick: Pick | None
    """What was picked, what tied with it, and whether it is right; None if there is no candidate."""
    cost: Mapping[str, int]
    """As `Budget.row`."""
    rounds: int
    """How often the policy was asked for something."""
    capped: bool
    """Whether the cap on tokens put an end to the search."""
    troubles: Mapping[Trouble, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else the method has to tell, as JSON values (why an adaptive one stopped)."""
    note: str | None = None
    """Why there is no pick, or what a request failed with."""

    @property
    def picked(self) -> Candidate | None:
        """The candidate that was picked."""
        return None if self.pick is None or self.pick.pick is None else self.candidates[self.pick.pick]

    @property
    def text(self) -> str | None:
        """The response of the pick."""
        return None if self.picked is None else self.picked.trace.response

    @property
    def answer(self) -> str | None:
        """The final answer of the pick, as it is written."""
        if self.pick is None or self.pick.pick is None:
            return None
        return self.pick.answers[self.pick.pick]

    @property
    def ties(self) -> tuple[int, ...]:
        """Indices of other candidates that were just as good."""
        return () if self.pick is None else self.pick.ties

    @property
    def policy_tokens(self) -> int:
        """Tokens that the policy wrote."""
        return self.cost["policy_tokens"]

    @property
    def prm_tokens(self) -> int:
        """Tokens that the PRM read."""
        return self.cost["prm_tokens"]

    def row(self) -> dict[str, Any]:
        """Return the result as JSON values; `score`, `best-of-n` and `evaluate` read it as a candidates file."""
        picked = None if self.pick is None else {k: v for k, v in self.pick.row().items() if k != "id"}
        return {
            "id": self.problem.id,
            "problem": self.problem.problem,
            "answer": self.problem.answer,
            **{name: value for name, value in self.problem.columns.items() if name not in _OWN},
            "status": self.status.value,
            "search": self.method,
            "picked": picked,
            "stated": self.answer,
            "candidates": [candidate.row() for candidate in self.candidates],
            "cost": dict(self.cost),
            "rounds": self.rounds,
            "capped": self.capped,
            "troubles": {trouble.value: count for trouble, count in self.troubles.items()},
            "details": dict(self.details),
            "note": self.note,
        }


_OWN: Final = frozenset(
    {
        "id",
        "problem",
        "answer",
        "status",
        "search",
        "picked",
        "stated",
        "candidates",
        "cost",
        "rounds",
        "capped",
        "troubles",
        "details",
        "note",
    }
)
