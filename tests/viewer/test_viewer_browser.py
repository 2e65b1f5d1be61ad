"""The HTML report in a real browser: what a reader sees, presses and is safe from."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from headless_browser import CHROMIUM, Browser
from viewer_samples import hostile, many, scored

from reasonflux_prm.records import Status
from reasonflux_prm.viewer.html import write_report
from reasonflux_prm.viewer.records import KEPT, Chosen

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")]

NAMES = "[...document.querySelectorAll('.row .id')].map(e => e.textContent.replace('pick', '').trim())"
NUMBERS = "[...document.querySelectorAll('.step .value')].map(e => e.firstChild.textContent)"
TEXT = "document.getElementById('main').innerText"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def fresh(browser: Browser) -> Iterator[None]:
    """Each test starts on a desk, and must leave no error in the console and no request to a network."""
    browser.problems.clear()
    browser.requests.clear()
    browser.size(1300, 850)
    browser.dark(False)
    yield
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "about:", "data:"))] == []


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Two problems with candidates, one lone trace, one that was not scored."""
    records = [
        scored(
            "low", [("bad", 0.1), ("none", None)], [("worse", 0.05)], reward=0.2, group="g", correct=False, source="A"
        ),
        scored("best", [("good", 0.9)], [("better", 0.95)], reward=1.8, group="g", correct=True, source="B"),
        scored("mid", [("so so", 0.5)], reward=1.0, group="g", correct=True, source="B"),
        scored("lone", response=[("alone", 0.7)], reward=1.4, problem="Find the Zebra", policy="P"),
        scored("long", [("x", None)], reward=None, trajectory=None, status=Status.TOO_LONG, note="9,000 tokens"),
    ]
    write_report(records, tmp_path / "r.html", title="The report", picks={"g": "mid"})
    return tmp_path / "r.html"


def open_row(browser: Browser, position: int) -> None:
    browser.eval(f"document.querySelectorAll('.row')[{position}].click()")
    browser.wait("location.hash.startsWith('#/trace') && document.querySelector('.facts') !== null")
    browser.settle()


def choose(browser: Browser, select: str, value: str) -> None:
    browser.eval(
        f"(s => {{ s.value = {value!r}; s.dispatchEvent(new Event('change')); }})(document.querySelector('{select}'))"
    )


def test_list_shows_the_records(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.eval(NAMES) == ["low", "best", "mid", "lone", "long"]
    assert browser.eval("[...document.querySelectorAll('.c-reward')].map(e => e.textContent)") == [
        "0.200", "1.800", "1.000", "1.400", "too long"
    ]  # fmt: skip
    assert "5 traces, 4 scored, 1 without a reward" in browser.eval(TEXT)


def test_sorting_puts_missing_values_last_both_ways(browser: Browser, report: Path) -> None:
    browser.open(report)
    head = "document.querySelector('[data-sort=reward]')"
    browser.eval(f"{head}.click()")
    assert browser.eval(NAMES) == ["best", "lone", "mid", "low", "long"]
    assert browser.eval(f"{head}.parentNode.getAttribute('aria-sort')") == "descending"
    browser.eval(f"{head}.click()")
    assert browser.eval(NAMES) == ["low", "mid", "lone", "best", "long"]
    browser.eval(f"{head}.click()")
    assert browser.eval(NAMES) == ["low", "best", "mid", "lone", "long"]
    browser.go("#/?sort=-steps")
    assert browser.eval(NAMES)[:2] == ["low", "best"]


@pytest.mark.parametrize("order", ["reward", "-reward", "trajectory", "-trajectory", "source", "-source", "correct"])
def test_what_has_no_value_is_last_wherever_it_came_from(browser: Browser, tmp_path: Path, order: str) -> None:
    empty = scored("empty", reward=None, trajectory=None, status=Status.NO_STEPS)
    known = [scored(f"k{v}", reward=v, trajectory=v, source=f"s{v}", correct=v > 0) for v in (-1.0, 0.5)]
    write_report([empty, *known, dataclasses.replace(empty)], tmp_path / "r.html", title="t")
    browser.open(tmp_path / "r.html")
    browser.go(f"#/?sort={order}")
    ascending = ["k-1.0", "k0.5"]
    assert browser.eval(NAMES) == (ascending[::-1] if order[0] == "-" else ascending) + ["empty", "empty"]


def test_searching_and_filtering(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.press("/")
    browser.type("zebra find")
    assert browser.eval(NAMES) == ["lone"]
    assert "1 of 5 traces" in browser.eval(TEXT)
    browser.press("Escape")
    assert len(browser.eval(NAMES)) == 5
    choose(browser, "[data-filter=source]", "B")
    assert browser.eval(NAMES) == ["best", "mid"]
    choose(browser, "[data-filter=correct]", "wrong")
    assert browser.eval(NAMES) == []
    assert "No trace fits" in browser.eval(TEXT)
    browser.go("#/?status=too-long")
    assert browser.eval(NAMES) == ["long"]


def test_keys_lead_through_list_trace_and_steps(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.press("j")
    browser.press("ArrowDown")
    browser.press("k")
    browser.press("Enter")
    browser.wait("document.documentElement.dataset.ready === '/trace/1'")
    assert browser.eval("document.querySelector('h1').textContent") == "best"
    browser.press("j")
    browser.press("j")
    assert browser.eval("document.querySelector('.step[aria-current]').dataset.step") == "1"
    assert browser.eval("document.querySelector('.read').textContent") == "Step 2 · response · 0.950"
    browser.press("ArrowRight")
    browser.wait("document.documentElement.dataset.ready === '/trace/2'")
    browser.press("Escape")
    browser.wait("document.documentElement.dataset.ready === '/'")
    assert browser.eval("document.querySelector('[aria-selected=true] .id').textContent") == "pick mid"


def test_trace_page_shows_the_numbers_of_the_record(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.go("#/trace/0")
    assert browser.eval(NUMBERS) == ["0.100", "–", "0.050"]
    facts = browser.eval(
        "Object.fromEntries([...document.querySelectorAll('.facts > div')].map(d => d.innerText.split('\\n')))"
    )
    assert facts["Reward"] == "0.200"
    assert facts["Trajectory reward"] == "0.250"
    assert facts["Mean step reward"] == "0.075"
    assert browser.eval("[...document.querySelectorAll('.part h2')].map(e => e.textContent)") == [
        "Thinking",
        "Response",
    ]
    assert "rank 3 of 3" in browser.eval(TEXT)


def test_a_step_without_reward_has_no_colour_of_the_scale(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.go("#/trace/0")
    colours = browser.eval("[...document.querySelectorAll('.step')].map(e => e.style.getPropertyValue('--c'))")
    assert colours[0].startswith("rgb")
    assert colours[1] == ""
    assert browser.eval("document.querySelectorAll('.step')[1].classList.contains('blank')")
    assert browser.eval("document.querySelectorAll('.curve circle:not(.there)').length") == 2


def test_pointing_at_and_clicking_the_curve_finds_the_step(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.go("#/trace/0")
    box = browser.eval(
        "(r => [r.left, r.top, r.width, r.height])(document.querySelector('.curve svg').getBoundingClientRect())"
    )
    where = {"x": box[0] + box[2] - 20, "y": box[1] + box[3] / 2}
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **where)
    assert browser.eval("document.querySelector('.step.hover').dataset.step") == "2"
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)
    assert browser.eval("document.querySelector('.step[aria-current]').dataset.step") == "2"
    assert browser.eval("location.hash") == "#/trace/0?step=3"


def test_a_trace_that_was_not_scored_says_why(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.go("#/trace/4")
    text = browser.eval(TEXT)
    assert "Not scored: too long." in text
    assert "9,000 tokens" in text


def test_candidates_stand_in_rank_order_with_the_pick_marked(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.go("#/groups")
    assert "3 candidates" in browser.eval(TEXT)
    browser.go("#/problem/0")
    assert browser.eval("[...document.querySelectorAll('.lane .second a')].map(e => e.textContent)") == [
        "best",
        "mid",
        "low",
    ]
    assert browser.eval("document.querySelector('.lane.picked .second a').textContent") == "mid"
    assert "3 candidates, 2 of 3 right; the pick is rank 2" in browser.eval(TEXT)


def test_a_problem_with_many_candidates_opens_with_the_best_and_the_pick(browser: Browser, tmp_path: Path) -> None:
    records = [scored(f"c{i}", [("x", 0.5)], reward=i / 100, group="g") for i in range(60)]
    write_report(records, tmp_path / "r.html", title="t", picks={"g": "c3"})
    browser.open(tmp_path / "r.html")
    browser.go("#/problem/0")
    names = "[...document.querySelectorAll('.lane .second a')].map(e => e.textContent)"
    assert browser.eval(names) == [f"c{i}" for i in range(59, 35, -1)] + ["c3"]
    assert browser.eval("document.querySelector('.lane.picked .rank').textContent") == "Rank 57"
    browser.eval("document.querySelector('main > button').click()")
    browser.wait("document.querySelectorAll('.lane').length === 60")


def test_distributions_count_every_value_and_the_auc_is_right(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.go("#/distributions")
    cells = "[...document.querySelectorAll('tbody tr')].map(r => [...r.cells].slice(0, 3).map(c => c.textContent))"
    assert browser.eval(cells) == [["right", "2", "1.400"], ["wrong", "1", "0.200"], ["unknown", "1", "1.400"]]
    assert "AUC 1.000" in browser.eval(TEXT)
    choose(browser, "[data-choose=measure]", "steps")
    assert browser.eval(cells) == [["right", "3", "0.783"], ["wrong", "2", "0.075"], ["unknown", "1", "0.700"]]


def test_kept_and_dropped_can_be_told_apart(browser: Browser, tmp_path: Path) -> None:
    outcomes = [KEPT, KEPT, "rank", "too-long", "rank"]
    records = [scored(f"t{i}", [("x", 0.5)], reward=1 - 0.1 * i, policy="pq"[i % 2]) for i in range(5)]
    chosen = [Chosen(record, outcome, "told") for record, outcome in zip(records, outcomes, strict=True)]
    write_report(chosen, tmp_path / "r.html", title="Chosen")
    browser.open(tmp_path / "r.html")
    assert browser.eval("document.querySelectorAll('.row .badge.pick').length") == 2
    choose(browser, "[data-filter=outcome]", "rank")
    browser.settle()
    assert browser.eval(NAMES) == ["t2", "t4"]
    open_row(browser, 0)
    assert "rank" in browser.eval("document.querySelector('.badges').innerText")
    assert "told" in browser.eval(TEXT)
    browser.go("#/")
    choose(browser, "[data-filter=outcome]", "")
    browser.go("#/distributions")
    choose(browser, "[data-choose=by]", "outcome")
    text = browser.eval(TEXT)
    assert "AUC 1.000" in text
    assert "of kept is above one of dropped (2 against 3)" in text
    choose(browser, "[data-choose=by]", "policy")
    # Of the two teachers, p has 1.0, 0.8, 0.6 and q has 0.9, 0.7: three of the six pairs.
    assert "AUC 0.500" in browser.eval(TEXT)


def test_reports_of_no_choice_have_no_such_split(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.eval("document.querySelector('[data-filter=outcome]')") is None
    browser.go("#/distributions")
    assert browser.eval("document.querySelector('[data-choose=by] option[value=outcome]')") is None


def test_ranges_other_than_zero_to_one_are_clipped_and_said(browser: Browser, tmp_path: Path) -> None:
    steps = [(f"s{i}\n", (i - 50) / 10) for i in range(101)]
    write_report([scored("a", steps)], tmp_path / "r.html", title="t")
    browser.open(tmp_path / "r.html")
    legend = browser.eval("document.querySelector('.legend').innerText")
    assert "≤ −4.500" in legend
    assert "≥ 4.500" in legend
    browser.go("#/trace/0")
    colours = browser.eval("[...document.querySelectorAll('.step')].map(e => e.style.getPropertyValue('--c'))")
    assert colours[0] == colours[4] != colours[20]
    assert colours[-1] == colours[-5] != colours[-20]


def test_light_and_dark_follow_the_system_and_the_button(browser: Browser, report: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.open(report)
    light = browser.eval(paper)
    browser.dark(True)
    dark = browser.eval(paper)
    assert light != dark
    browser.eval("document.getElementById('theme').click()")
    assert browser.eval(paper) == light
    browser.eval("document.getElementById('theme').click()")
    assert browser.eval(paper) == dark
    browser.eval("localStorage.clear()")


@pytest.mark.parametrize("view", ["#/", "#/trace/0", "#/groups", "#/problem/0", "#/distributions"])
def test_nothing_is_wider_than_a_phone(browser: Browser, report: Path, view: str) -> None:
    browser.size(360, 740, phone=True)
    browser.open(report)
    browser.go(view)
    assert browser.eval("document.documentElement.scrollWidth") == 360


def test_hostile_text_is_shown_and_never_runs(browser: Browser, tmp_path: Path) -> None:
    records = list(hostile())
    write_report(records, tmp_path / "r.html", title="</title><script>window.pwned=1</script>")
    browser.open(tmp_path / "r.html")
    views = ["#/", "#/groups", "#/problem/0", "#/problem/1", "#/distributions", "#/?q=<img src=x onerror=alert(1)>"]
    for view in views + [f"#/trace/{i}" for i in range(len(records))]:
        browser.go(view)
        assert browser.eval("document.querySelectorAll('main img, main script, main iframe').length") == 0
    assert browser.eval("window.pwned === undefined")
    browser.go("#/trace/0")
    assert "<script>window.pwned=1</script>" in browser.eval("document.querySelector('.problem').textContent")


def test_a_script_that_got_in_would_not_run(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.eval("""
        const policy = trustedTypes.createPolicy('test', { createScript: text => text });
        const script = document.createElement('script');
        script.text = policy.createScript('window.pwned = 1');
        document.body.append(script);
    """)
    assert browser.eval("window.pwned === undefined")
    assert any("Content Security Policy" in problem for problem in browser.problems)
    browser.problems.clear()


def test_empty_report_says_so(browser: Browser, tmp_path: Path) -> None:
    write_report([], tmp_path / "r.html", title="t")
    browser.open(tmp_path / "r.html")
    assert "This report is empty" in browser.eval(TEXT)


def test_a_file_that_was_cut_short_says_so(browser: Browser, report: Path) -> None:
    page = report.read_text("utf-8")
    start = page.index('data-kind="rows">') + len('data-kind="rows">')
    report.write_text(page[:start] + page[start + 40 :], "utf-8")
    browser.call("Page.navigate", url=report.as_uri())
    browser.wait("document.readyState === 'complete' && document.querySelector('#main .opening') === null")
    assert "could not be opened" in browser.eval(TEXT)
    browser.problems.clear()


def test_scalar_prms_without_step_rewards(browser: Browser, tmp_path: Path) -> None:
    record = scored("a", [("x", 0.5), ("y", 0.5)], [("z", 0.5)], correct=True)
    write_report([dataclasses.replace(record, step_rewards=(None,) * 3)], tmp_path / "r.html", title="t")
    browser.open(tmp_path / "r.html")
    assert "no step rewards in this report" in browser.eval(TEXT)
    browser.go("#/trace/0")
    assert browser.eval(NUMBERS) == ["–", "–", "–"]
    browser.go("#/distributions")
    assert "right" in browser.eval(TEXT)


def test_ten_thousand_traces(browser: Browser, tmp_path: Path) -> None:
    write_report(many(10_000, words=160), tmp_path / "r.html", title="t")
    assert browser.open(tmp_path / "r.html") < 15
    assert browser.eval("document.querySelectorAll('.row').length") < 60
    browser.eval("scrollTo(0, document.body.scrollHeight)")
    browser.settle()
    assert browser.eval(NAMES)[-1] == "t9999"
    begin = time.perf_counter()
    browser.eval("document.querySelector('[data-sort=reward]').click()")
    assert time.perf_counter() - begin < 2
    open_row(browser, 0)
    assert len(browser.eval(NUMBERS)) == 8
    browser.go("#/groups")
    assert browser.eval("document.querySelectorAll('.row').length") < 60
    browser.go("#/distributions")
    assert "Of all 10,000 traces" in browser.eval(TEXT)
