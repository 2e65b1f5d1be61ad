"""Drafts: whatever pieces a trace comes in, its parts are those of the finished text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonflux_prm.records import Trace
from reasonflux_prm.search.draft import Draft
from reasonflux_prm.traces.marks import split_marks

WHOLE = "<think>\nFirst.\n\nSecond,\nand third.\n</think>\n\nThe answer\n\nis 4."


def written(pieces) -> Draft:
    draft = Draft()
    for piece in pieces:
        draft = draft.extended(piece)
    return draft


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_parts_do_not_depend_on_the_pieces(places):
    cuts = [0, *sorted(places), len(WHOLE)]
    draft = written([WHOLE[a:b] for a, b in pairwise(cuts)])
    assert draft.written == WHOLE
    assert draft.closed
    assert draft.text("response") == "The answer\n\nis 4."
    thinking = "".join(draft.text("thinking").split())
    # A mark that was cut in two stays where it was taken for text, up to the piece that completed it.
    begun = any(WHOLE.index("</think>") < cut < WHOLE.index("</think>") + 8 for cut in cuts)
    opened = not any(0 < cut < 7 for cut in cuts)
    if not begun and opened:
        assert thinking == "First.Second,andthird."
        assert not draft.late
    assert all(text.strip() for _, text in draft.steps)


def test_steps_are_lossless_and_agree_with_the_reader_of_finished_texts():
    draft = written(["<think>\n", "First.\n\n", "Second.\n</think>\n\n", "The answer is 4."])
    assert draft.steps == (
        ("thinking", "First.\n\n"),
        ("thinking", "Second.\n"),
        ("response", "The answer is 4."),
    )
    segmented = draft.segmented(Trace("t", "p"))
    assert [segmented.text(step) for step in segmented.steps] == [text for _, text in draft.steps]
    parts = split_marks(draft.written)
    assert (segmented.trace.thinking.strip(), segmented.trace.response) == (parts.thinking.strip(), parts.response)


def test_one_piece_may_end_the_thinking_and_begin_the_response():
    draft = written(["<think>\nHm.\n\n", "So 4.</think>4 it is."])
    assert draft.steps[1:] == (("thinking", "So 4."), ("response", "4 it is."))
    assert (draft.part, draft.closed, draft.late) == ("response", True, False)


@pytest.mark.parametrize("opening", ["<think>\n", "<think>", "  <think>\n"])
def test_an_opening_that_is_written_for_the_policy(opening):
    draft = written([opening, "Hm.\n\n"])
    assert draft.steps == (("thinking", "Hm.\n\n"),)
    assert not draft.segmented(Trace("t", "p")).trace.thinking_closed


def test_a_mark_in_two_pieces():
    draft = written(["<think>\nHm.</th", "ink>4."])
    assert draft.closed
    assert draft.steps[-1] == ("response", "4.")


def test_thinking_that_nothing_opened_is_known_when_it_is_closed():
    before = written(["Hm.\n\n", "So 4.\n\n"])
    assert [part for part, _ in before.steps] == ["response"] * 2
    draft = before.extended("Yes.</think>\n\n")
    assert draft.late
    assert [part for part, _ in draft.steps] == ["thinking"] * 3
    assert not draft.extended("4.").extended("</think>").text("thinking").endswith("4.")


def test_blank_pieces_are_no_steps():
    draft = written(["\n\n", "One.", "\n\n", " ", "Two.", "\n"])
    assert draft.steps == (("response", "One."), ("response", "\n\n Two."))
