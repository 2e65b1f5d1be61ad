"""The terminal view: everything is readable without colour, and no trace can steer the terminal."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from viewer_samples import hostile, scored

from reasonflux_prm.records import ScoredTrace, Status
from reasonflux_prm.viewer.terminal import show, visible

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def printed(*records: ScoredTrace, colour: bool = False, width: int = 80, **options: Any) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    show(records, console, **options)
    return stream.getvalue()


def test_rewards_parts_and_texts_are_printed() -> None:
    text = printed(
        scored("a1", [("First.\n\n", 0.125), ("Second.", None)], [("Third.", 0.875)], reward=1.5, trajectory=0.75,
               problem="What?", correct=False, source="src", policy="pol")
    )  # fmt: skip
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][0] == "a1"
    assert "reward 1.500  trajectory 0.750" in text
    assert "wrong, src, pol, 3 steps, 7 tokens" in text
    assert lines[2:8] == [
        ["What?"], ["thinking"], ["0.125", "First."], ["-", "Second."], ["response"], ["0.875", "Third."]
    ]  # fmt: skip


def test_the_page_reads_the_same_without_colour() -> None:
    records = [scored("a", [("One.", 0.1), ("Two.", 0.9)], [("Three.", None)])]
    assert COLOUR.sub("", printed(*records, colour=True)) == printed(*records)


def background(text: str, value: str) -> tuple[int, ...]:
    found = re.search(r"48;2;(\d+);(\d+);(\d+)m +" + re.escape(value), text)
    assert found is not None
    return tuple(int(number) for number in found.groups())


def test_colours_go_from_red_over_yellow_to_green() -> None:
    text = printed(scored("a", [("x", 0.0), ("y", 0.5), ("z", 1.0)]), colour=True)
    low, middle, high = (background(text, value) for value in ("0.000", "0.500", "1.000"))
    assert low[0] > 1.5 * low[1], "red"
    assert high[1] > 1.5 * high[0], "green"
    assert min(middle[:2]) > 1.5 * middle[2], "yellow"


def test_rewards_outside_zero_to_one_get_their_own_range_and_it_is_printed() -> None:
    text = printed(scored("a", [(f"s{i}", i - 10.0) for i in range(21)]), colour=True)
    assert "colours: -9.000 (red) to 9.000 (green)" in text
    assert background(text, "-10.000") == background(text, "-9.000") != background(text, "9.000")
    assert "colours:" not in printed(scored("a", [("x", 0.0), ("y", 1.0)]))


def test_a_step_without_reward_is_not_coloured_as_zero() -> None:
    text = printed(scored("a", [("x", None)]), colour=True)
    assert "48;2" not in text


def test_traces_without_a_reward_show_the_reason() -> None:
    record = scored("a", [("x", None)], reward=None, trajectory=None, status=Status.TOO_LONG, note="9,000 tokens")
    text = printed(record)
    assert "not scored, too-long: 9,000 tokens" in text
    assert "reward -  trajectory -" in text


def test_limit_and_ids_read_no_further_than_needed() -> None:
    read: list[str] = []

    def source() -> Iterator[ScoredTrace]:
        for name in "abcd":
            read.append(name)
            yield scored(name, [("x", 0.5)])

    console = Console(file=io.StringIO())
    assert show(source(), console, limit=2) == 2
    assert read == ["a", "b"]
    read.clear()
    assert show(source(), console, limit=1, ids=["c", "d"]) == 1
    assert read == ["a", "b", "c"]
    assert show(source(), console, ids=["zzz"]) == 0


def test_the_pick_is_marked() -> None:
    records = [scored(name, [("x", 0.5)], group="g") for name in "ab"]
    assert printed(*records, picks={"g": "b"}).count("PICK") == 1


def test_a_long_step_can_be_shortened_and_says_so() -> None:
    text = printed(scored("a", [("\n".join(f"line {i}" for i in range(50)), 0.5)]), step_lines=3)
    assert "line 2" in text
    assert "line 3" not in text
    assert "... 47 of 50 lines not shown" in text


def test_a_thinking_that_was_cut_off_says_so() -> None:
    record = scored("a", [("x", 0.5)])
    record = dataclasses.replace(record, trace=dataclasses.replace(record.trace, thinking_closed=False))
    assert "thinking, cut off before its end" in printed(record)


def test_hostile_text_cannot_steer_the_terminal() -> None:
    text = printed(*hostile(), colour=True)
    rest = COLOUR.sub("", text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", rest)
    assert "<U+001B>]0;pwned<U+0007>" in text
    assert "[red]rich[/red]" in text
    assert "<U+202E>txt.exe" in text


@settings(max_examples=200)
@given(st.text(st.characters()))
def test_visible_text_is_printable_and_loses_nothing_plain(text: str) -> None:
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)
    shown.encode("utf-8")
    if text.isascii() and text.isprintable():
        assert shown == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_plain_encoding_gets_escapes_not_errors(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    show(hostile(), Console(file=stream, width=80))
    stream.flush()
    assert rb"\U0001d499" in raw.getvalue()


def test_nothing_is_printed_for_nothing() -> None:
    assert printed() == ""
