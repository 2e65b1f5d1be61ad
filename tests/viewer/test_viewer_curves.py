"""The page of what N buys: what is in the file, and what a reader sees and does in a real browser."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from headless_browser import CHROMIUM, Browser

from reasonflux_prm.errors import InputError
from reasonflux_prm.evaluation.candidates import ProblemCandidates
from reasonflux_prm.evaluation.report import selection_report
from reasonflux_prm.viewer.curves import read_curves, write_curves


def in_a_browser(test):
    """Mark a test that needs Chromium."""
    return pytest.mark.slow(pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")(test))


def report(prms=("one",), title_of_prm="") -> dict:
    """Six problems with eight candidates, of which the PRMs' rewards say something."""
    problems = [
        ProblemCandidates(
            id=f"p{number}",
            cluster=f"p{number}",
            correct=tuple((at * 7 + number) % 3 == 0 for at in range(8)),
            groups=tuple((at + number) % 3 for at in range(8)),
            lengths=tuple(100 + 10 * at for at in range(8)),
            rewards={
                title_of_prm + name: tuple(((at * (5 + shift) + number) % 8) / 8 for at in range(8))
                for shift, name in enumerate(prms)
            },
        )
        for number in range(6)
    ]
    return selection_report(problems, resamples=50).row()


def embedded(page: Path) -> dict:
    (packed,) = re.findall(r'data-kind="report">([^<]*)<', page.read_text("utf-8"))
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_the_file_holds_the_report_and_how_its_lines_look(tmp_path):
    row = report(("one", "two"))
    size = write_curves(row, tmp_path / "r.html", title="A </title><b>")
    page = (tmp_path / "r.html").read_text("utf-8")
    content = embedded(tmp_path / "r.html")
    assert size == len(page.encode())
    assert {name: content[name] for name in row} == row
    assert content["title"] == "A </title><b>"
    assert "<title>A &lt;/title&gt;&lt;b&gt;</title>" in page
    looks = dict(zip([curve["method"] for curve in row["curves"]], content["looks"], strict=True))
    assert looks["prm:one"]["colour"] == looks["weighted:one"]["colour"] != looks["prm:two"]["colour"]
    assert [looks[name]["band"] for name in ("prm:one", "majority", "oracle", "pass@1")] == [True, True, False, False]
    assert looks["weighted:two"]["name"] == "two, vote"
    assert "https://" not in page.replace("http://www.w3.org", ""), "it needs no network"


def test_only_reports_are_taken_for_reports(tmp_path):
    for name, text in {"a.json": "{", "b.json": "[]", "c.json": '{"kind": "steps"}', "d.jsonl": "{}"}.items():
        (tmp_path / name).write_text(text)
        assert read_curves(tmp_path / name) is None
    assert read_curves(tmp_path / "missing.json") is None
    (tmp_path / "r.json").write_text(json.dumps(report()))
    assert read_curves(tmp_path / "r.json")["problems"] == 6


@pytest.mark.parametrize("broken", [{"curves": []}, {"curves": [{}]}, {"curves": [{"method": "best"}]}, {}])
def test_a_report_that_cannot_be_read_is_refused(broken, tmp_path):
    with pytest.raises(InputError, match="expected a report of evaluate"):
        write_curves({"kind": "selection", "settings": {"level": 0.95}, **broken}, tmp_path / "r.html", title="t")
    assert not (tmp_path / "r.html").exists()


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "about:", "data:"))] == []
    browser.close()


READ = "document.querySelector('.read').innerText"
LINES = "document.querySelectorAll('.panel > .buys .line').length"
NAMES = "[...document.querySelectorAll('.buys .end')].map(e => e.firstChild.textContent.trim())"


@in_a_browser
def test_one_line_a_method_named_at_its_end(browser, tmp_path):
    row = report()
    write_curves(row, tmp_path / "r.html", title="The report")
    browser.size(1200, 900)
    browser.dark(False)
    browser.open(tmp_path / "r.html")
    browser.settle()
    assert browser.eval("document.querySelector('h1').innerText") == "The report"
    assert browser.eval(LINES) == len(row["curves"]) == 7
    assert browser.eval(NAMES) == [
        "oracle (pass@k)", "one", "one, vote", "majority", "longest", "shortest", "pass@1",
    ]  # fmt: skip
    assert browser.eval("document.querySelectorAll('.buys .area').length") == 3
    # A line is where its numbers are: the last point of majority at the height of its label's tick on the axis.
    own = next(curve for curve in row["curves"] if curve["method"] == "majority")["points"][-1]["value"]
    low, high = browser.eval(
        "(() => { const t = [...document.querySelectorAll('.buys text')].filter(e => /^\\d+%$/.test(e.textContent))"
        ".map(e => [parseInt(e.textContent) / 100, +e.getAttribute('y') - 4]); return [t[0], t[t.length - 1]]; })()"
    )
    (y,) = browser.eval(
        "[...document.querySelectorAll('.panel > .buys .line')].filter(e => e.getAttribute('stroke-width') === '2.25')"
        ".map(e => +e.getAttribute('d').split(/[ ML]/).pop())"
    )
    assert y == pytest.approx(low[1] + (own - low[0]) / (high[0] - low[0]) * (high[1] - low[1]), abs=1)


@in_a_browser
def test_pointer_and_keys_read_a_size_and_the_legend_hides_lines(browser, tmp_path):
    write_curves(report(), tmp_path / "r.html", title="t")
    browser.size(1200, 900)
    browser.open(tmp_path / "r.html")
    browser.settle()
    assert browser.eval(READ).startswith("8 candidates")
    browser.eval("document.querySelector('.panel > .buys').focus(); 0")
    for _ in range(3):
        browser.press("ArrowLeft")
    assert browser.eval(READ).startswith("5 candidates")
    browser.eval("document.querySelectorAll('.keys-of button')[0].click(); 0")
    browser.settle()
    assert browser.eval(LINES) == 6
    assert "oracle (pass@k)" not in browser.eval(NAMES)
    browser.eval("for (const b of document.querySelectorAll('.keys-of button')) b.click(); 0")
    browser.settle()
    assert browser.eval(LINES) == 1, "the oracle came back, all others went"
    browser.eval("document.querySelectorAll('.keys-of button')[0].click(); 0")
    assert browser.eval(LINES) == 1, "the last line stays"


@in_a_browser
def test_on_a_phone_and_in_the_dark(browser, tmp_path):
    write_curves(report(("a very long name of a PRM with 7B parameters",)), tmp_path / "r.html", title="t")
    browser.size(360, 780, 2, True)
    browser.dark(True)
    browser.open(tmp_path / "r.html")
    browser.settle()
    assert browser.eval("document.documentElement.scrollWidth") <= 360
    assert browser.eval(NAMES) == [], "the legend has the names"
    dark = browser.eval("getComputedStyle(document.querySelector('.buys .line')).stroke")
    browser.press("t")
    assert browser.eval("getComputedStyle(document.querySelector('.buys .line')).stroke") != dark


@in_a_browser
def test_texts_of_strangers_are_text(browser, tmp_path):
    write_curves(report(title_of_prm="<img src=x onerror=alert(1)>"), tmp_path / "r.html", title="<script>x</script>")
    browser.size(1200, 900)
    browser.open(tmp_path / "r.html")
    browser.settle()
    assert browser.eval("document.querySelectorAll('img').length") == 0
    assert "<img src=x" in browser.eval("document.getElementById('main').innerText")
