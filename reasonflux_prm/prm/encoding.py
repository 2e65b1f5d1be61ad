"""The input of a PRM as pieces, so that the position each reward is read at is known when the input is built.

A sequence is a head (template and problem), then pieces. A piece is what a step, or the trajectory marker, adds; its
reward is read at `read` within it. Windows and sessions move whole pieces about, so no position is ever searched for in
text, ids or outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAJECTORY = -1
"""The target of the piece that carries the trajectory reward."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that one step or marker adds to the input."""

    tokens: tuple[int, ...]
    target: int | None
    """Index of the step that is scored here, `TRAJECTORY`, or None if nothing is read."""
    read: int = -1
    """Index within `tokens` of the position whose output is read; negative indices count from the end."""

    def read_offset(self) -> int:
        """Return `read` as a non-negative index."""
        return self.read % len(self.tokens)


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One reading of a trace: `head`, then `kept`, then `pieces`."""

    head: tuple[int, ...]
    kept: tuple[Piece, ...]
    """Pieces that every window repeats after the head (the response, where the layout puts it first)."""
    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.head) + sum(len(piece.tokens) for piece in self.kept + self.pieces)


@dataclass(frozen=True, slots=True)
class EncodedTrace:
    """All readings of a trace: one, or two where the trajectory reward needs a reading of its own."""

    sequences: tuple[TokenSequence, ...]

    def __len__(self) -> int:
        """Return the number of tokens of all readings."""
        return sum(map(len, self.sequences))
