"""Windows of a sequence and packs of windows: nothing lost, nothing twice, nothing at the wrong place."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.errors import ContextError
from reasonflux_prm.prm.encoding import TRAJECTORY, Piece, TokenSequence
from reasonflux_prm.scoring.packing import pack, plan
from reasonflux_prm.scoring.windows import NoRoom, Window, fit

MARKER = 999_999


def sequence(head: int, kept: list[int], sizes: list[int], marker: bool = False, closing: int = 1) -> TokenSequence:
    """Return a sequence whose tokens are all different; kept pieces are the last targets, as a response's steps are.

    Pieces are read `closing` tokens from their end, if they have as many.
    """
    numbers = iter(range(1_000_000))

    def piece(size: int, target: int) -> Piece:
        return Piece(tuple(next(numbers) for _ in range(size)), target, -min(size, closing))

    opening = tuple(next(numbers) for _ in range(head))
    repeated = tuple(piece(size, len(sizes) + number) for number, size in enumerate(kept))
    pieces = [piece(size, number) for number, size in enumerate(sizes)]
    if marker:
        pieces.append(Piece((MARKER,), TRAJECTORY))
    return TokenSequence(opening, repeated, tuple(pieces))


@st.composite
def sequences(draw) -> TokenSequence:
    return sequence(
        draw(st.integers(0, 8)),
        draw(st.lists(st.integers(1, 5), max_size=2)),
        draw(st.lists(st.integers(1, 30), min_size=1, max_size=25)),
        draw(st.booleans()),
        draw(st.integers(1, 3)),
    )


def fixed(seq: TokenSequence) -> tuple[int, ...]:
    """Return what every window opens with."""
    return seq.head + tuple(token for piece in seq.kept for token in piece.tokens)


def room_of(seq: TokenSequence, limit: int) -> int:
    return limit - len(fixed(seq))


def read_token(piece: Piece) -> int:
    return piece.tokens[piece.read]


def marker_size(seq: TokenSequence) -> int:
    return int(len(seq.pieces) > 1 and seq.pieces[-1].target == TRAJECTORY)


def enough(seq: TokenSequence) -> int:
    """Return a limit that always leaves room for a token and what closes it."""
    return len(fixed(seq)) + 4 + marker_size(seq)


def check_windows(seq: TokenSequence, windows: tuple[Window, ...], limit: int) -> None:
    """Whatever was done, windows fit, open as they must, and read the right token of the right piece."""
    by_target = {piece.target: piece for piece in seq.kept + seq.pieces}
    for window in windows:
        assert len(window.tokens) <= limit
        assert window.tokens[: len(fixed(seq))] == fixed(seq)
        body = window.tokens[len(fixed(seq)) :]
        assert list(body) == sorted(body), "reading order"
        assert [read.position for read in window.reads] == sorted({read.position for read in window.reads})
        for read in window.reads:
            piece = by_target[read.target]
            found = window.tokens[read.start : read.stop]
            assert window.tokens[read.position] == read_token(piece)
            assert read.start <= read.position < read.stop
            assert set(found) <= set(piece.tokens)
            assert found[read.position - read.start :] == piece.tokens[piece.read_offset() :], "closing tokens stay"


@given(sequences(), st.data())
def test_a_sequence_that_fits_is_left_alone(seq, data):
    limit = data.draw(st.integers(len(seq), len(seq) + 5))
    overflow = data.draw(st.sampled_from(["window", "refuse", "head", "tail"]))
    fitted = fit(seq, limit, overflow)
    assert fitted.note is None
    [window] = fitted.windows
    assert window.tokens == fixed(seq) + tuple(token for piece in seq.pieces for token in piece.tokens)
    assert [read.target for read in window.reads] == [piece.target for piece in seq.kept + seq.pieces]
    check_windows(seq, fitted.windows, limit)


@given(sequences(), st.floats(0, 0.99), st.data())
def test_windows_read_every_piece_once(seq, overlap, data):
    limit = data.draw(st.integers(enough(seq), max(enough(seq), len(seq))))
    fitted = fit(seq, limit, "window", overlap)
    check_windows(seq, fitted.windows, limit)
    reads = [read.target for window in fitted.windows for read in window.reads]
    assert reads == [piece.target for piece in seq.kept + seq.pieces], "each once, in order, kept pieces first"
    kept = {piece.target for piece in seq.kept}
    for window in fitted.windows[1:]:
        assert not kept & {read.target for read in window.reads}
        assert window.reads
    assert (fitted.note is None) == (len(seq) <= limit)


@given(sequences(), st.floats(0, 0.99), st.data())
def test_a_window_is_one_stretch_of_whole_pieces(seq, overlap, data):
    limit = data.draw(st.integers(enough(seq), max(enough(seq), len(seq))))
    room = room_of(seq, limit)
    longest = room - marker_size(seq)
    everything = [token for piece in seq.pieces for token in piece.tokens]
    starts = {piece.tokens[0] for piece in seq.pieces}
    if all(len(piece.tokens) <= longest for piece in seq.pieces):
        for window in fit(seq, limit, "window", overlap).windows:
            body = list(window.tokens[len(fixed(seq)) :])
            at = everything.index(body[0])
            assert everything[at : at + len(body)] == body
            assert body[0] in starts


@given(sequences(), st.floats(0, 0.99), st.data())
def test_the_past_keeps_to_its_share_and_the_rest_is_used(seq, overlap, data):
    limit = data.draw(st.integers(enough(seq), max(enough(seq), len(seq))))
    room = room_of(seq, limit)
    longest = room - marker_size(seq)
    sizes = [min(len(piece.tokens), longest) for piece in seq.pieces]
    order = {piece.target: number for number, piece in enumerate(seq.pieces)}
    for window in fit(seq, limit, "window", overlap).windows:
        own = [read for read in window.reads if read.target in order]
        first, after = order[own[0].target], order[own[-1].target] + 1
        past = own[0].start - len(fixed(seq))
        used = len(window.tokens) - len(fixed(seq))
        begin = next(b for b in range(first + 1) if sum(sizes[b:first]) == past)
        # A longer past would break its share, or not leave room for the next piece.
        share = next(s for s in range(first + 1) if sum(sizes[s:first]) <= min(room * overlap, room - sizes[first]))
        assert begin <= share
        if begin < share:
            assert after == len(sizes) or sum(sizes[share : after + 1]) > room, "more past only where nothing new fits"
        assert begin == 0 or used + sizes[begin - 1] > room, "no room is wasted in front"
        assert after == len(sizes) or sum(sizes[share : after + 1]) > room, "nor behind"


def test_overlap_by_hand():
    seq = sequence(2, [], [3] * 8)
    bodies = [[t for t in window.tokens[2:]] for window in fit(seq, 14, "window", 0.5).windows]
    # Room for 12 tokens, 4 pieces: 6 tokens of past, so 2 new pieces a window after the first.
    piece_of = lambda token: (token - 2) // 3  # noqa: E731
    assert [sorted({piece_of(t) for t in body}) for body in bodies] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    none = fit(seq, 14, "window", 0.0)
    assert [len(window.reads) for window in none.windows] == [4, 4]
    assert none.note == "26 tokens for a context of 14: 2 windows"


def test_the_last_window_reaches_back_as_far_as_it_can():
    seq = sequence(1, [], [4, 4, 4, 4, 1])
    windows = fit(seq, 17, "window", 0.0).windows
    assert [len(window.reads) for window in windows] == [4, 1]
    assert len(windows[1].tokens) == 1 + 4 + 4 + 4 + 1


@given(sequences(), st.floats(0, 0.99), st.data())
def test_the_marker_always_has_something_to_judge(seq, overlap, data):
    overflow = data.draw(st.sampled_from(["window", "head", "tail"]))
    limit = data.draw(st.integers(enough(seq), max(enough(seq), len(seq))))
    if not marker_size(seq):
        return
    windows = fit(seq, limit, overflow, overlap).windows
    [closing] = [window for window in windows if any(read.target == TRAJECTORY for read in window.reads)]
    assert closing is windows[-1]
    assert closing.tokens[-1] == MARKER
    assert len(closing.tokens) > len(fixed(seq)) + 1


@given(sequences(), st.data())
def test_head_keeps_the_beginning(seq, data):
    limit = data.draw(st.integers(enough(seq), max(enough(seq), len(seq) - 1)))
    if len(seq) <= limit:
        return
    fitted = fit(seq, limit, "head")
    check_windows(seq, fitted.windows, limit)
    [window] = fitted.windows
    marker = marker_size(seq)
    room = room_of(seq, limit) - marker
    steps = seq.pieces[: len(seq.pieces) - marker]
    sizes = [min(len(piece.tokens), room) for piece in steps]
    count = max(n for n in range(len(sizes) + 1) if sum(sizes[:n]) <= room)
    expected = [piece.target for piece in (*seq.kept, *steps[:count], *seq.pieces[len(steps) :])]
    assert [read.target for read in window.reads] == expected
    assert f"head kept, {len(steps) - count} of {len(steps)} steps left out" in fitted.note
    if len(steps[0].tokens) <= room:
        start = len(fixed(seq))
        assert window.tokens[start : start + len(steps[0].tokens)] == steps[0].tokens


@given(sequences(), st.data())
def test_tail_keeps_the_end(seq, data):
    limit = data.draw(st.integers(enough(seq), max(enough(seq), len(seq) - 1)))
    if len(seq) <= limit:
        return
    fitted = fit(seq, limit, "tail")
    check_windows(seq, fitted.windows, limit)
    [window] = fitted.windows
    room = room_of(seq, limit)
    longest = room - marker_size(seq)
    sizes = [min(len(piece.tokens), longest) for piece in seq.pieces]
    count = max(n for n in range(1, len(sizes) + 1) if sum(sizes[-n:]) <= room)
    expected = [piece.target for piece in (*seq.kept, *seq.pieces[-count:])]
    assert [read.target for read in window.reads] == expected
    assert window.tokens[-1] == seq.pieces[-1].tokens[-1]


@given(sequences(), st.data())
def test_refuse(seq, data):
    limit = data.draw(st.integers(0, len(seq) - 1))
    with pytest.raises(ContextError, match=f"{len(seq):,} tokens, the PRM takes {limit:,}; pass --overflow window"):
        fit(seq, limit, "refuse")


@pytest.mark.parametrize("overflow", ["window", "head", "tail"])
def test_a_step_longer_than_the_room_is_cut_and_still_read(overflow):
    seq = sequence(3, [], [4, 50, 4], marker=True)
    fitted = fit(seq, 23, overflow)
    check_windows(seq, fitted.windows, 23)
    assert "1 step shortened" in fitted.note
    if overflow == "window":
        [window] = [w for w in fitted.windows if any(read.target == 1 for read in w.reads)]
        assert window.tokens[-19:] == seq.pieces[1].tokens[-19:], "its end, with a place left for the marker"
        assert {read.target for w in fitted.windows for read in w.reads} == {0, 1, 2, TRAJECTORY}


def test_head_keeps_the_beginning_of_an_overlong_step():
    seq = sequence(3, [], [50], marker=True)
    fitted = fit(seq, 23, "head")
    [window] = fitted.windows
    long = seq.pieces[0].tokens
    assert window.tokens == seq.head + long[:18] + long[-1:] + (MARKER,)
    assert [read.target for read in window.reads] == [0, TRAJECTORY]
    assert fitted.note == "54 tokens for a context of 23: head kept, 0 of 1 steps left out, 1 step shortened"


@pytest.mark.parametrize("overflow", ["window", "head", "tail"])
def test_a_trajectory_read_as_one_step_is_cut_to_fit(overflow):
    seq = TokenSequence((1, 2), (), (Piece(tuple(range(10, 40)), TRAJECTORY, -3),))
    [window] = fit(seq, 12, overflow).windows
    expected = range(10, 17) if overflow == "head" else range(30, 37)
    assert window.tokens == (1, 2, *expected, 37, 38, 39)
    assert [(read.target, window.tokens[read.position]) for read in window.reads] == [(TRAJECTORY, 37)]


@pytest.mark.parametrize("overflow", ["window", "head", "tail"])
@pytest.mark.parametrize(
    ("seq", "limit"),
    [
        (sequence(40, [], [5, 5]), 40),
        (sequence(40, [], [5, 5]), 41),
        (sequence(50, [], [5, 5]), 40),
        (sequence(40, [], [5, 5], marker=True), 42),
        (sequence(10, [20, 11], [5, 5]), 40),
        (sequence(10, [], [30], closing=5), 15),
    ],
)
def test_no_room(seq, limit, overflow):
    with pytest.raises(NoRoom):
        fit(seq, limit, overflow)


def test_the_smallest_room_that_will_do():
    seq = sequence(40, [], [5, 5])
    windows = fit(seq, 42, "window").windows
    assert [window.tokens[40:] for window in windows] == [piece.tokens[-2:] for piece in seq.pieces]


# --- packs ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 100))
def test_packs_hold_everything_within_the_budget(lengths, budget):
    packs = plan(lengths, budget)
    assert sorted(number for group in packs for number in group) == list(range(len(lengths)))
    for group in packs:
        assert group
        assert sum(lengths[number] for number in group) <= budget or len(group) == 1
    assert packs == plan(lengths, budget)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(60, 200))
def test_packs_are_nearly_full(lengths, budget):
    packs = plan(lengths, budget)
    sizes = [sum(lengths[number] for number in group) for group in packs]
    # First fit: what opens a pack fits into none of those before it.
    for number, group in enumerate(packs):
        assert all(size + lengths[group[0]] > budget for size in sizes[:number])
    assert max(lengths) == lengths[packs[0][0]], "the longest comes first"


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 100), st.randoms())
def test_packs_have_the_same_sizes_in_any_order(lengths, budget, rng):
    shuffled = lengths[:]
    rng.shuffle(shuffled)

    def shapes(items):
        return [[items[number] for number in group] for group in plan(items, budget)]

    assert shapes(lengths) == shapes(shuffled)


@given(st.lists(sequences(), min_size=1, max_size=5), st.randoms())
def test_a_pack_reads_what_its_windows_read(seqs, rng: random.Random):
    windows = [window for seq in seqs for window in fit(seq, enough(seq) + 20, "window").windows]
    rng.shuffle(windows)
    batch = pack(windows)
    assert batch.tokens.tolist() == [token for window in windows for token in window.tokens]
    assert [b - a for a, b in pairwise(batch.starts)] == [len(window.tokens) for window in windows]
    reads = [(window, read) for window in windows for read in window.reads]
    assert batch.tokens[batch.reads].tolist() == [window.tokens[read.position] for window, read in reads]
    spans = [tuple(batch.tokens[start:stop].tolist()) for start, stop in batch.spans]
    assert spans == [window.tokens[read.start : read.stop] for window, read in reads]
    assert batch.reads.tolist() == sorted(batch.reads.tolist())
