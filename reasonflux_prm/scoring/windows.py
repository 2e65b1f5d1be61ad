"""A token sequence into windows that fit the PRM's context, with nothing cut in silence.

A window is the head (template and problem), the kept pieces (the response, where the layout puts it first), and a run
of pieces. Each piece is read once: in the first window that holds it, which is the one that gives it the longest past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reasonflux_prm.errors import ContextError
from reasonflux_prm.prm.encoding import TRAJECTORY, Piece, TokenSequence

Overflow = Literal["window", "refuse", "head", "tail"]
OVERFLOWS: tuple[Overflow, ...] = ("window", "refuse", "head", "tail")


class NoRoom(ContextError):
    """Head and kept pieces leave no room for a single step."""


@dataclass(frozen=True, slots=True)
class Read:
    """One position to read, within a window."""

    target: int
    position: int
    start: int
    """Where the piece that is read starts; it ends at `stop`."""
    stop: int


@dataclass(frozen=True, slots=True)
class Window:
    """One input of the PRM."""

    tokens: tuple[int, ...]
    reads: tuple[Read, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The windows of a sequence, and what had to be done."""

    windows: tuple[Window, ...]
    note: str | None


def fit(sequence: TokenSequence, limit: int, overflow: Overflow, overlap: float = 0.5) -> Fitted:
    """Cut a sequence into windows of at most `limit` tokens.

    Args:
        sequence: One reading of a trace.
        limit: Tokens the PRM takes.
        overflow: What to do with a longer sequence. `window`: overlapping windows, every piece read once. `refuse`:
            raise. `head`: the beginning, and the trajectory marker if there is one. `tail`: the end. A piece that is
            longer than the room loses its beginning (with `head`, its end) but never the position that is read.
        overlap: Share of the room that a window gives to whole pieces of the one before, at most, before it takes new
            ones; more where new ones leave room. In [0, 1).

    Raises:
        ContextError: The sequence is longer and `overflow` is `refuse`.
        NoRoom: Head and kept pieces leave no room for a token of a step and what closes it.
    """
    total = len(sequence)
    if total <= limit:
        return Fitted((_window(sequence, sequence.pieces, 0, True),), None)
    if overflow == "refuse":
        raise ContextError(
            f"{total:,} tokens, the PRM takes {limit:,}; pass --overflow window, head or tail to score it all the same"
        )
    room = limit - len(sequence.head) - sum(len(piece.tokens) for piece in sequence.kept)
    # Every step leaves a place for the marker, which would else be read in a window that holds nothing to judge.
    most = room - sum(len(piece.tokens) for piece in _marker(sequence.pieces))
    if most < 2:
        raise NoRoom(
            f"the problem and what every window repeats take {limit - room:,} of the PRM's {limit:,} tokens, "
            "which leaves no room for a step"
        )
    pieces = [piece if len(piece.tokens) <= most else _cut(piece, most, overflow) for piece in sequence.pieces]
    runs = _overlapping(pieces, room, overlap) if overflow == "window" else [_one_sided(pieces, room, overflow)]
    windows = tuple(
        _window(sequence, pieces[a:c] + extra, b - a, number == 0) for number, (a, b, c, extra) in enumerate(runs)
    )
    cut = sum(len(piece.tokens) > most for piece in sequence.pieces)
    return Fitted(windows, f"{total:,} tokens for a context of {limit:,}: {_deed(overflow, cut, pieces, runs)}")


def _marker(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Return the trajectory marker that closes the pieces, if there is one; a trajectory read as one step is none."""
    return pieces[-1:] if len(pieces) > 1 and pieces[-1].target == TRAJECTORY else ()


Run = tuple[int, int, int, list[Piece]]
"""Pieces [a, c) of which those from b on are read here, and a piece put behind them."""


def _overlapping(pieces: Sequence[Piece], room: int, overlap: float) -> list[Run]:
    sizes = [len(piece.tokens) for piece in pieces]
    runs: list[Run] = []
    first_unread = 0
    while first_unread < len(pieces):
        start, past = first_unread, 0
        # The past may take its share, but never so much that the next unread piece does not fit.
        allowed = min(int(room * overlap), room - sizes[first_unread])
        while start > 0 and past + sizes[start - 1] <= allowed:
            start -= 1
            past += sizes[start]
        stop, used = first_unread, past
        while stop < len(pieces) and used + sizes[stop] <= room:
            used += sizes[stop]
            stop += 1
        while start > 0 and used + sizes[start - 1] <= room:
            start -= 1
            used += sizes[start]
        runs.append((start, first_unread, stop, []))
        first_unread = stop
    return runs


def _one_sided(pieces: Sequence[Piece], room: int, overflow: Overflow) -> Run:
    sizes = [len(piece.tokens) for piece in pieces]
    if overflow == "tail":
        start, used = len(pieces), 0
        while start > 0 and used + sizes[start - 1] <= room:
            start -= 1
            used += sizes[start]
        return start, start, len(pieces), []
    # The marker stands at the end, but it closes the input whatever was cut: it keeps its place.
    marker = list(_marker(pieces))
    room -= sum(len(piece.tokens) for piece in marker)
    stop, used = 0, 0
    while stop < len(pieces) - len(marker) and used + sizes[stop] <= room:
        used += sizes[stop]
        stop += 1
    return 0, 0, stop, marker


def _cut(piece: Piece, room: int, overflow: Overflow) -> Piece:
    """Shorten a piece that is longer than the room, its read position and what follows it kept."""
    read = piece.read_offset()
    closing = piece.tokens[read:]
    kept = room - len(closing)
    if kept < 1:
        raise NoRoom(
            f"a step and the {len(closing)} tokens that close it do not fit into the {room} tokens that are left"
        )
    before = piece.tokens[:kept] if overflow == "head" else piece.tokens[read - kept : read]
    return Piece((*before, *closing), piece.target, len(before))


def _window(sequence: TokenSequence, pieces: Sequence[Piece], first_read: int, reads_kept: bool) -> Window:
    tokens: list[int] = list(sequence.head)
    reads: list[Read] = []
    for number, piece in enumerate((*sequence.kept, *pieces)):
        number -= len(sequence.kept)
        start = len(tokens)
        tokens.extend(piece.tokens)
        if piece.target is not None and (reads_kept if number < 0 else number >= first_read):
            reads.append(Read(piece.target, start + piece.read_offset(), start, len(tokens)))
    return Window(tuple(tokens), tuple(reads))


def _deed(overflow: Overflow, cut: int, pieces: Sequence[Piece], runs: Sequence[Run]) -> str:
    """Say what was done; the marker is no step, so it is not counted."""
    if overflow == "window":
        what = f"{len(runs)} window{'s' if len(runs) > 1 else ''}"
    else:
        a, _, c, extra = runs[0]
        marker = len(_marker(pieces))
        steps = len(pieces) - marker
        what = f"{overflow} kept, {steps - (c - a + len(extra) - marker)} of {steps} steps left out"
    return what + (f", {cut} step{'s' if cut > 1 else ''} shortened" if cut else "")
