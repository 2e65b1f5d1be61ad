"""`demo` on stand-in candidates: the files, the table, and what to run next."""

from __future__ import annotations

import json

import pytest
from cli_inputs import write_rows

from reasonflux_prm.cli import demo


@pytest.fixture
def samples(monkeypatch, tmp_path):
    rows = [
        {
            "id": f"p{i}",
            "problem": f"What is {i} + {i}? [red]not markup[/red] \x1b[31m" + " and so on" * 20,
            "answer": str(2 * i),
            "candidates": [
                {"text": f"It is {2 * i}.\n\nThe answer is {answer}.", "correct": answer == 2 * i}
                for answer in (2 * i, 7, 2 * i)
            ],
        }
        for i in (1, 2)
    ]
    monkeypatch.setattr(demo, "SAMPLES", write_rows(tmp_path / "samples.jsonl", rows))


@pytest.mark.usefixtures("samples")
def test_demo(run, tiny_prm, tmp_path):
    code, out, err = run("demo", "--prm", tiny_prm)
    assert code == 0
    folder = tmp_path / "demo-out"
    assert {"scored.jsonl", "picks.jsonl", "report.html"} <= {path.name for path in folder.iterdir()}
    picks = [json.loads(line) for line in (folder / "picks.jsonl").read_text().splitlines()]
    right = sum(pick["correct"] for pick in picks)
    assert f"Right: {right} of 2 picked by the PRM, 2 by majority vote, 1.3 on average by chance." in out
    assert "[red]" in out
    assert "\x1b" not in out
    assert "6 scored" in err
    assert "reasonflux-prm view demo-out/scored.jsonl" in out
    run("demo", "--prm", tiny_prm, "-o", "again")
    for name in ("scored.jsonl", "picks.jsonl", "report.html"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert run("demo", "--prm", tiny_prm)[0] == 0, "its own folder is replaced"


def test_the_packaged_samples_are_there():
    if not demo.SAMPLES.is_file():
        pytest.skip("the samples are not made yet")
    rows = [json.loads(line) for line in demo.SAMPLES.read_text("utf-8").splitlines()]
    assert all(len(row["candidates"]) > 1 for row in rows)
