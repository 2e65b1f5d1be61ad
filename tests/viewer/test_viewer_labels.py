"""Labels in both views: targets in colour, every term with its reason, and no text that does anything."""

from __future__ import annotations

import io
import json
import re
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from headless_browser import CHROMIUM, Browser
from rich.console import Console
from test_viewer_html import blocks, rows, texts
from test_viewer_terminal import COLOUR, background, printed
from viewer_samples import hostile_labels, labelled, many_labels, unlabelled

from reasonflux_prm.viewer.html import write_report
from reasonflux_prm.viewer.terminal import show

RECORD = labelled("a", [("First.\n\n", 0.125), ("Second.", None), ("Third.", 0.875)], correct=True)
FORMULA = "bounded softmax(alignment_max, quality, coherence)"


# --- in the terminal -----------------------------------------------------------------------------------------------


def test_every_term_is_printed_with_its_reason() -> None:
    text = printed(RECORD, width=100)
    assert f"mean target 0.500  trajectory 0.750  right, 4 steps, {FORMULA}" in text
    lines = [line.split() for line in text.splitlines()]
    at = lines.index(["trajectory"])
    assert lines[at + 1 : at + 3] == [["trajectory", "0.750"], ["lift", "-", "there", "is", "no", "control"]]
    at = lines.index(["0.125", "First."])
    assert lines[at + 1 : at + 4] == [
        ["alignment_max", "0.000"],
        ["coherence", "-3.500", "longer", "than", "the", "encoder's", "window"],
        ["quality", "0.125"],
    ]
    assert ["quality", "-", "no", "checkable", "claim", "in", "step", "1"] in lines
    assert ["-", "Second."] in lines


def test_a_trace_without_labels_says_why() -> None:
    text = printed(unlabelled("a"))
    assert "not labelled, failed: quality: it broke" in text
    assert "mean target -  trajectory -" in text


def test_steps_are_coloured_by_target() -> None:
    text = printed(RECORD, colour=True, width=100)
    assert background(text, "0.125")[0] > background(text, "0.875")[0]
    assert COLOUR.sub("", text) == printed(RECORD, width=100)


def test_hostile_labels_cannot_steer_the_terminal() -> None:
    rest = COLOUR.sub("", printed(*hostile_labels(), colour=True))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", rest)
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show(hostile_labels(), Console(file=raw, width=80))


# --- as a page -----------------------------------------------------------------------------------------------------


def test_the_page_holds_targets_and_terms(tmp_path: Path) -> None:
    stats = write_report([RECORD, unlabelled("b")], tmp_path / "r.html", title="t")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert dict(stats.by_status) == {"labelled": 1, "failed": 1}
    first, second = rows(page)
    assert (first["steps"], first["trajectory"], first["reward"]) == ([0.125, None, 0.875, None], 0.75, 0.5)
    assert (first["good"], second["good"], second["reward"]) == (True, False, None)
    words = texts(page)[0]
    assert words["terms"][1] == [
        ["alignment_max", 0.125, None],
        ["coherence", -3.5, "longer than the encoder's window"],
        ["quality", None, "no checkable claim in step 1"],
    ]
    assert words["trajectory"] == [["trajectory", 0.75, None], ["lift", None, "there is no control"]]
    (summary,) = blocks(page, "summary")
    assert (summary["kind"], summary["prms"], summary["formulas"]) == ("labels", [], [FORMULA])


def test_hostile_labels_stay_inside_their_elements(tmp_path: Path) -> None:
    write_report(hostile_labels(), tmp_path / "r.html", title="t")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert page.count("<script") == page.count("</script>") == 1 + len(blocks(page, "rows")) * 2 + 1
    assert "pwned" not in page
    assert "pwned" in json.dumps(texts(page))


def test_memory_does_not_grow_with_the_traces(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        write_report(many_labels(count), tmp_path / "r.html", title="t")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(3000) < peak(1500) + 2_000_000


# --- in a browser --------------------------------------------------------------------------------------------------

in_a_browser = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")]
TEXT = "document.getElementById('main').innerText"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    browser.size(1300, 850)
    yield browser
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "about:", "data:"))] == []
    browser.close()


def visit(browser: Browser, tmp_path: Path, records) -> None:
    write_report(records, tmp_path / "r.html", title="The labels")
    browser.open(tmp_path / "r.html")


class TestInABrowser:
    pytestmark = in_a_browser

    def test_the_list_speaks_of_targets(self, browser: Browser, tmp_path: Path) -> None:
        visit(browser, tmp_path, [RECORD, unlabelled("b")])
        text = browser.eval(TEXT)
        assert "2 traces, 1 labelled, 1 without a target" in text
        assert FORMULA in text
        heads = browser.eval("[...document.querySelectorAll('.head button')].map(e => e.textContent)")
        assert heads == ["Trace", "Source", "Policy", "Verdict", "Mean target", "Trajectory", "Steps", "Targets"]
        assert browser.eval("[...document.querySelectorAll('.c-reward')].map(e => e.textContent)") == [
            "0.500",
            "failed",
        ]
        browser.go("#/?sort=-targets")
        assert browser.eval("document.querySelector('.row .id').textContent") == "a"

    def test_a_step_opens_its_terms(self, browser: Browser, tmp_path: Path) -> None:
        visit(browser, tmp_path, [RECORD])
        browser.go("#/trace/0")
        browser.wait("document.querySelector('.facts') !== null")
        assert "there is no control" in browser.eval(TEXT)
        assert browser.eval("document.querySelectorAll('.step table').length") == 0, "drawn when they are opened"
        browser.press("j")
        browser.press("j")
        browser.settle()
        opened = "[...document.querySelectorAll('.step')].map(e => e.querySelector('details').open)"
        assert browser.eval(opened) == [False, True, False, False]
        text = browser.eval("document.querySelectorAll('.step')[1].innerText")
        assert "no checkable claim in step 1" in text
        assert "−3.500" in text
        assert "2 of 3 terms" in text
        browser.eval("document.querySelectorAll('.step')[2].querySelector('summary').click()")
        browser.settle()
        assert browser.eval(opened) == [False, True, True, False]

    def test_a_trace_without_labels(self, browser: Browser, tmp_path: Path) -> None:
        visit(browser, tmp_path, [unlabelled("b")])
        browser.go("#/trace/0")
        browser.wait("document.querySelector('.facts') !== null")
        assert "Not labelled: failed. quality: it broke" in browser.eval(TEXT)

    def test_distributions(self, browser: Browser, tmp_path: Path) -> None:
        visit(browser, tmp_path, many_labels(30))
        browser.go("#/distributions")
        browser.wait("document.querySelector('table') !== null")
        choices = browser.eval("[...document.querySelector('[data-choose=measure]').options].map(o => o.textContent)")
        assert choices == ["Mean target", "Trajectory target", "Targets", "Thinking steps", "Response steps"]

    def test_hostile_labels_do_nothing(self, browser: Browser, tmp_path: Path) -> None:
        records = list(hostile_labels())
        visit(browser, tmp_path, records)
        for index in range(len(records)):
            browser.go(f"#/trace/{index}")
            browser.wait(f"document.documentElement.dataset.ready === '/trace/{index}'")
            browser.press("j")
        assert browser.eval("window.pwned === undefined")
        assert browser.eval("document.querySelectorAll('img').length") == 0

    def test_ten_thousand_traces(self, browser: Browser, tmp_path: Path) -> None:
        started = time.monotonic()
        visit(browser, tmp_path, many_labels(10_000))
        browser.go("#/?sort=reward")
        assert "10,000 traces" in browser.eval(TEXT)
        browser.go("#/trace/9000")
        browser.wait("document.querySelector('.facts') !== null")
        assert "t9000" in browser.eval(TEXT)
        assert browser.eval("document.querySelectorAll('.row').length") < 100
        assert time.monotonic() - started < 90
