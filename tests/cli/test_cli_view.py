"""`view`: in the terminal, as a page, with picks, and only what was asked for."""

from __future__ import annotations

import pytest


@pytest.fixture
def scored(run, candidates, tiny_prm):
    run("score", candidates, "-o", "scored.jsonl", "--prm", tiny_prm)
    run("best-of-n", "scored.jsonl", "-o", "picks.jsonl")
    return "scored.jsonl"


def test_printed(run, scored):
    code, out, err = run("view", scored)
    assert (code, err) == (0, "")
    assert out.count("12 + 30 = 42.") == 1
    assert "PICK" not in out


def test_picks_are_marked(run, scored):
    assert run("view", scored, "--picks", "picks.jsonl")[1].count("PICK") == 3


def test_only_what_was_asked_for(run, scored):
    out = run("view", scored, "--limit", 1)[1]
    assert "add#0" in out
    assert "add#1" not in out
    out = run("view", scored, "--id", "half#1", "--id", "add#1")[1]
    assert "add#0" not in out
    assert "add#1" in out
    assert "half#1" in out
    code, out, err = run("view", scored, "--id", "nobody")
    assert (code, out) == (2, "")
    assert "no trace with the id nobody" in err


def test_a_page(run, scored, tmp_path):
    code, out, err = run("view", scored, "--picks", "picks.jsonl", "-o", "report.html", "--title", "A <page>")
    assert (code, out) == (0, "")
    assert err.startswith("report.html: 7 traces, ")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<title>A &lt;page&gt;" in page


def test_picks_of_another_kind(run, scored):
    code, _, err = run("view", scored, "--picks", scored)
    assert code == 2
    assert "scored.jsonl:1: expected a record that `reasonflux-prm best-of-n` wrote" in err


def test_no_page_is_left_when_there_is_nothing_to_show(run, scored, tmp_path):
    assert run("view", scored, "-o", "report.html", "--id", "nobody")[0] == 2
    assert not (tmp_path / "report.html").exists()


def test_a_report_of_evaluate_becomes_a_page_of_curves(run, candidates):
    flags = ("--prm", "none", "--resamples", 20)
    code, _, err = run("evaluate", "custom", "--candidates", candidates, "-o", "r.json", *flags, "--figure", "f.html")
    assert code in (0, 1), err
    code, out, err = run("view", "r.json", "-o", "v.html", "--title", "Sums")
    assert (code, out) == (0, "")
    assert "v.html: 5 curves" in err
    for page in ("f.html", "v.html"):
        with open(page, encoding="utf-8") as file:
            assert 'data-kind="report"' in file.read()
    code, _, err = run("view", "r.json")
    assert code == 2
    assert "becomes a page: name it with -o" in err
    code, _, err = run("view", "r.json", "-o", "v.html", "--limit", 3)
    assert code == 2
    assert "--limit: r.json is a report of evaluate" in err
