"""The HTML report as a file: what is in it, what can never be in it, and what writing it costs."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
import tracemalloc
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from viewer_samples import HOSTILE, PRM, hostile, many, scored

from reasonflux_prm.errors import OutputError
from reasonflux_prm.records import ScoredTrace, Status, Step
from reasonflux_prm.viewer import curves, html
from reasonflux_prm.viewer.html import write_report
from reasonflux_prm.viewer.records import KEPT, Chosen

BLOCK = re.compile(r'<script type="text/plain" data-kind="(\w+)">([A-Za-z0-9+/=]*)</script>')


def write(path: Path, records: Any, **options: Any) -> str:
    write_report(records, path, title=options.pop("title", "A title"), **options)
    return path.read_text("utf-8")


def blocks(page: str, kind: str) -> list[Any]:
    """The data elements of one kind, as the page would read them."""
    return [json.loads(zlib.decompress(base64.b64decode(data))) for name, data in BLOCK.findall(page) if name == kind]


def rows(page: str) -> list[dict[str, Any]]:
    tables = blocks(page, "rows")
    return [dict(zip(table, values, strict=True)) for table in tables for values in zip(*table.values(), strict=True)]


def texts(page: str) -> list[dict[str, Any]]:
    return [record for block in blocks(page, "texts") for record in block]


def test_the_page_holds_the_records(tmp_path: Path) -> None:
    records = [
        scored(
            "a",
            [("one\n\n", 0.123456), ("two", None)],
            [("three", 0.75)],
            correct=True,
            source="s",
            policy="p",
            answer="3",
        ),
        scored("b", response=[("x", 1e-9)], reward=None, status=Status.TOO_LONG, note="why", group="g", correct=False),
    ]
    page = write(tmp_path / "r.html", records)
    first, second = rows(page)
    assert (first["id"], first["steps"], first["thinking"]) == ("a", [0.123456, None, 0.75], 2)
    assert (first["reward"], first["trajectory"], first["tokens"]) == (0.5, 0.25, 7)
    assert (first["correct"], first["source"], first["policy"], first["group"]) == (True, "s", "p", None)
    assert (second["status"], second["reward"], second["steps"], second["correct"]) == ("too-long", None, [1e-9], False)
    words = texts(page)
    assert words[0]["thinking"] == [["one\n\n", 0], ["two", 1]]
    assert words[0]["response"] == [["three", 2]]
    assert (words[0]["answer"], words[1]["note"]) == ("3", "why")
    assert blocks(page, "summary")[0]["prms"] == [dataclasses.asdict(PRM)]


def test_numbers_of_many_traces_equal_the_records(tmp_path: Path) -> None:
    page = write(tmp_path / "r.html", many(300))
    assert len(blocks(page, "rows")) > 1, "the traces should fill more than one block"
    for row, record in zip(rows(page), many(300), strict=True):
        assert row["id"] == record.trace.id
        assert row["steps"] == pytest.approx(record.step_rewards, rel=1e-5)
        assert (row["reward"], row["trajectory"]) == pytest.approx((record.reward, record.trajectory_reward), rel=1e-5)
    for words, record in zip(texts(page), many(300), strict=True):
        assert "".join(text for text, _ in words["thinking"]) == record.trace.thinking


def test_text_between_steps_is_kept_and_offsets_count_code_points(tmp_path: Path) -> None:
    record = scored("a", [("𝒙🍏 is ", 0.1), ("skipped ", 0.2), ("end", 0.3)])
    first, _, last = record.steps
    record = dataclasses.replace(record, steps=(first, last), step_rewards=(0.1, 0.3))
    (words,) = texts(write(tmp_path / "r.html", [record]))
    assert words["thinking"] == [["𝒙🍏 is ", 0], ["skipped ", -1], ["end", 1]]


def test_no_steps_keeps_the_text_without_colour(tmp_path: Path) -> None:
    record = dataclasses.replace(scored("a", response=[("all of it", 0.5)]), steps=(), step_rewards=())
    (words,) = texts(write(tmp_path / "r.html", [record]))
    assert words["response"] == [["all of it", -1]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_is_never_a_score(tmp_path: Path, value: float | None) -> None:
    record = scored("a", [("x", value)], reward=value, trajectory=value)
    (row,) = rows(write(tmp_path / "r.html", [record]))
    assert (row["steps"], row["reward"], row["trajectory"]) == ([None], None, None)


def test_a_trace_that_is_not_scored_has_no_reward(tmp_path: Path) -> None:
    (row,) = rows(write(tmp_path / "r.html", [scored("a", [("x", 0.4)], reward=0.4, status=Status.NOT_FINITE)]))
    assert row["reward"] is None


def test_picks_are_marked_and_counted(tmp_path: Path) -> None:
    records = [
        scored(name, [("x", 0.5)], group=group) for name, group in (("a", "g"), ("b", "g"), ("a", "h"), ("c", None))
    ]
    stats = write_report(records, tmp_path / "r.html", title="t", picks={"g": "a", "h": "zzz"})
    assert [row["pick"] for row in rows((tmp_path / "r.html").read_text("utf-8"))] == [True, False, False, False]
    assert stats.picks == 1


def test_statistics(tmp_path: Path) -> None:
    records = [scored("a", [("x", 0.5), ("y", 0.5)]), scored("b", reward=None, status=Status.NO_STEPS)]
    stats = write_report(records, tmp_path / "r.html", title="t")
    assert (stats.traces, stats.steps, dict(stats.by_status)) == (2, 2, {"scored": 1, "no-steps": 1})
    assert stats.bytes == (tmp_path / "r.html").stat().st_size


def test_recorded_labels_come_along_only_when_they_belong_to_the_steps(tmp_path: Path) -> None:
    steps = (Step("response", 0, 1), Step("response", 1, 2))
    same = scored("a", response=[("x", 0.5), ("y", 0.5)], steps=steps, step_labels=(1.0, 0.0))
    other = scored("b", response=[("xy", 0.5)], steps=steps, step_labels=(1.0, 0.0))
    assert [words["labels"] for words in texts(write(tmp_path / "r.html", [same, other]))] == [[1.0, 0.0], []]


def test_long_columns_are_counted_not_shown(tmp_path: Path) -> None:
    record = scored("a", [("x", 0.5)], meta={"short": {"k": 1}, "long": "x" * 10_000})
    (words,) = texts(write(tmp_path / "r.html", [record]))
    assert (words["meta"], words["hidden"]) == ({"short": '{"k": 1}'}, 1)


def test_empty_input(tmp_path: Path) -> None:
    page = write(tmp_path / "r.html", [])
    assert blocks(page, "summary")[0]["traces"] == 0
    assert rows(page) == []
    assert "This report is empty" in page


def count_elements(page: str) -> tuple[int, int]:
    return len(re.findall(r"<script", page, re.IGNORECASE)), len(re.findall(r"</script", page, re.IGNORECASE))


def test_hostile_text_never_becomes_markup(tmp_path: Path) -> None:
    page = write(tmp_path / "r.html", hostile(), title="".join(HOSTILE))
    elements = len(BLOCK.findall(page)) + 1
    assert count_elements(page) == (elements, elements)
    assert "<!--" not in page
    assert "onerror='" not in page
    assert "\u2028" not in page.split("<title>")[0] + page.split("</title>")[1]
    words = texts(page)
    assert [record["problem"] for record in words[::2]] == list(HOSTILE)
    assert [row["source"] for row in rows(page)[::2]] == list(HOSTILE)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=60), split=st.integers(0, 60))
def test_any_text_comes_back(tmp_path: Path, text: str, split: int) -> None:
    record = scored(text, [(text[:split], 0.5), (text[split:], None)], problem=text)
    page = write(tmp_path / "r.html", [record])
    (words,) = texts(page)
    assert words["problem"] == text
    assert "".join(piece for piece, _ in words["thinking"]) == text
    assert rows(page)[0]["id"] == text
    assert count_elements(page) == (4, 4)


def test_policy_allows_this_script_and_this_style_only(tmp_path: Path) -> None:
    page = write(tmp_path / "r.html", [scored("a", [("x", 0.5)])])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy.group(1)
    assert policy.group(1).startswith("default-src 'none';")
    assert "unsafe" not in policy.group(1)


def test_nothing_is_fetched_and_nothing_is_parsed_as_markup() -> None:
    folder = files("reasonflux_prm.viewer") / "page"
    names = {"page.html", *html.STYLES, *html.SCRIPTS, "buys.html", *curves._STYLES, *curves._SCRIPTS}
    assert sorted(names) == sorted(entry.name for entry in folder.iterdir())
    for name in names:
        source = (folder / name).read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|\bfetch\(|XMLHttpRequest|url\(", source), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function", source), name
        if not name.endswith(".html"):
            assert "</script" not in source, name
            assert "<!--" not in source, name


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.html", many(20)) == write(tmp_path / "b.html", many(20))


def test_memory_does_not_grow_with_the_number_of_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "BLOCK_CHARACTERS", 8_000)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            write_report(many(count, words=16), tmp_path / "r.html", title="t")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(3000) < 1.1 * peak(300)


def test_a_failing_source_leaves_no_report(tmp_path: Path) -> None:
    def broken() -> Any:
        yield scored("a", [("x", 0.5)])
        raise ValueError("the source broke")

    (tmp_path / "r.html").write_text("the old report")
    with pytest.raises(ValueError, match="the source broke"):
        write_report(broken(), tmp_path / "r.html", title="t")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text() == "the old report"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"r\.html"):
        write_report([scored("a", [("x", 0.5)])], tmp_path / "file" / "r.html", title="t")


def test_records_are_read_once(tmp_path: Path) -> None:
    stream: Any = iter([scored("a", [("x", 0.5)])])
    write_report(stream, tmp_path / "r.html", title="t")
    assert next(stream, None) is None


def test_two_prms_in_one_report(tmp_path: Path) -> None:
    other = dataclasses.replace(PRM, name="other")
    records: list[ScoredTrace] = [scored("a"), scored("b", prm=other), scored("c")]
    page = write(tmp_path / "r.html", records)
    assert [row["prm"] for row in rows(page)] == [0, 1, 0]
    assert [prm["name"] for prm in blocks(page, "summary")[0]["prms"]] == ["tiny", "other"]


def test_what_became_of_a_chosen_trace_is_in_its_row(tmp_path: Path) -> None:
    kept = Chosen(scored("a", [("x", 0.5)]), KEPT)
    dropped = Chosen(scored("b", [("y", 0.5)], note="told before"), "too-long", "9 characters, more than 8")
    page = write(tmp_path / "r.html", [kept, dropped, scored("c", [("z", 0.5)])])
    assert [row["outcome"] for row in rows(page)] == ["kept", "too-long", None]
    assert texts(page)[1]["note"] == "9 characters, more than 8; told before"
