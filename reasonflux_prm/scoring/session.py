"""A PRM that follows a trace as it is written: steps are appended, tried, taken back; each costs its own tokens only.

Used by step-level search and by streaming. The rewards equal those of one pass over the whole trace, to 1e-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reasonflux_prm.errors import ContextError, UsageError
from reasonflux_prm.prm.base import PRM, Caches, PackedBatch
from reasonflux_prm.prm.encoding import Piece
from reasonflux_prm.records import Part


@dataclass(frozen=True, slots=True)
class _Mark:
    """A place a session can be rolled back to: how much it held when a step began."""

    tokens: int
    previous: Part | None


class Session:
    """One trace in progress.

    Args:
        prm: A PRM that scores steps as they come: one with step rewards and the `causal` layout.
        problem: The problem of the trace.

    Raises:
        UsageError: The PRM gives no step rewards, or wants the response first.
        ContextError: The problem alone is longer than the PRM's context.
    """

    def __init__(self, prm: PRM, problem: str) -> None:
        if not prm.spec.has_steps or prm.spec.layout != "causal":
            raise UsageError(
                f"{prm.spec.name} cannot score a trace in progress: it needs the whole response before the first step"
            )
        self.prm = prm
        self.rewards: list[float] = []
        """Raw rewards of the steps so far; `step_rewards` has them as the family defines them."""
        self._marks: list[_Mark] = []
        self._previous: Part | None = None
        self._caches = prm.new_caches()
        self._feed(self, [Piece(prm.head(problem), None)])

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.rewards)

    @property
    def tokens(self) -> int:
        """Return the number of tokens held."""
        return self._caches[0].length

    @property
    def step_rewards(self) -> list[float]:
        """Return the rewards of all steps so far, in the family's range."""
        return self.prm.finish(self.rewards)

    def append(self, text: str, part: Part = "thinking") -> float:
        """Append one step and return its reward."""
        return append_to([self], [text], [part])[0]

    def fork(self) -> Session:
        """Return a session that shares everything so far; the two go separate ways from here."""
        twin = Session.__new__(Session)
        twin.prm, twin.rewards, twin._marks = self.prm, self.rewards[:], self._marks[:]
        twin._previous = self._previous
        twin._caches = tuple(cache.fork() for cache in self._caches)
        return twin

    def rollback(self, steps: int = 1) -> None:
        """Take back the last steps.

        Raises:
            UsageError: There are not so many.
        """
        if not 0 <= steps <= len(self):
            raise UsageError(f"cannot take back {steps} steps of a session that has {len(self)}")
        if steps == 0:
            return
        mark = self._marks[-steps]
        for cache in self._caches:
            cache.rollback(mark.tokens)
        self._previous = mark.previous
        del self.rewards[-steps:], self._marks[-steps:]

    def trajectory(self) -> float | None:
        """Return the trajectory reward of what is there so far, or None without a marker for it or without a step.

        The session is left as it was. A PRM whose trajectory reward is a reading of its own (see
        `PRM.trajectory_sequence`) is asked through the engine instead.
        """
        marker = self.prm.trajectory_piece()
        if marker is None or not self.rewards:
            return None
        held = self.tokens
        reward = self._feed(self, [marker])[0]
        for cache in self._caches:
            cache.rollback(held)
        return self.prm.finish_trajectory(self.rewards, reward)

    @staticmethod
    def _feed(first: Session, pieces: Sequence[Piece]) -> list[float]:
        return _extend(first.prm, [first._caches], pieces)


def append_to(sessions: Sequence[Session], texts: Sequence[str], parts: Sequence[Part]) -> list[float]:
    """Append one step to each of several sessions of one PRM, in one forward pass; return the steps' rewards.

    If the forward pass fails, no session is changed.

    Raises:
        UsageError: The sessions are not of one PRM, one stands twice in the list, a step holds no text, or there are
            not as many texts and parts as sessions.
        ContextError: A session would outgrow the PRM's context; no session is changed.
    """
    if (
        len({id(session) for session in sessions}) != len(sessions)
        or len({id(session.prm) for session in sessions}) > 1
    ):
        raise UsageError("append_to takes different sessions of one PRM; fork a session to try several steps")
    if not len(sessions) == len(texts) == len(parts):
        raise UsageError(f"got {len(sessions)} sessions, {len(texts)} texts and {len(parts)} parts; give one of each")
    if not all(text.strip() for text in texts):
        raise UsageError("a step must hold some text")
    pieces = [
        session.prm.step_piece(text, len(session), part, session._previous)
        for session, text, part in zip(sessions, texts, parts, strict=True)
    ]
    if not pieces:
        return []
    marks = [_Mark(session.tokens, session._previous) for session in sessions]
    raw = _extend(sessions[0].prm, [session._caches for session in sessions], pieces)
    rewards: list[float] = []
    for session, part, mark, reward in zip(sessions, parts, marks, raw, strict=True):
        session.rewards.append(reward)
        session._marks.append(mark)
        session._previous = part
        rewards.append(session.step_rewards[-1])
    return rewards


def _extend(prm: PRM, pasts: Sequence[Caches], pieces: Sequence[Piece]) -> list[float]:
    limit = prm.spec.context_length
    for caches, piece in zip(pasts, pieces, strict=True):
        if caches[0].length + len(piece.tokens) > limit:
            raise ContextError(
                f"the session holds {caches[0].length:,} tokens and the step adds {len(piece.tokens):,}; "
                f"the PRM takes {limit:,}"
            )
    starts, reads, spans = [0], [], []
    for piece in pieces:
        start = starts[-1]
        starts.append(start + len(piece.tokens))
        if piece.target is not None:
            reads.append(start + piece.read_offset())
            spans.append((start, starts[-1]))
    tokens = torch.tensor([token for piece in pieces for token in piece.tokens], dtype=torch.long)
    batch = PackedBatch(tokens, starts, torch.tensor(reads, dtype=torch.long), spans)
    held = [caches[0].length for caches in pasts]
    try:
        return [float(value) for value in prm.extend(batch, pasts).tolist()]
    except BaseException:
        # A PRM of two bodies may have extended the past of one of them.
        for caches, length in zip(pasts, held, strict=True):
            for cache in caches:
                cache.rollback(length)
        raise
