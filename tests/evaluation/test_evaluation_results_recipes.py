"""The recipes that evaluate whole folders: what they choose, run and say."""

from __future__ import annotations

import json

import pytest

from reasonflux_prm.errors import InputError
from reasonflux_prm.evaluation.candidates import problems_of, read_candidates
from reasonflux_prm.evaluation.report import selection_report
from recipes.live_search import run as live
from recipes.selection_results import run as results
from recipes.selection_results.choosing import write_chosen
from recipes.selection_results.tables import markdown


def candidates(path, n=12):
    rows = [
        {
            "id": f"p{number}",
            "problem": f"What is {number} + 1?",
            "answer": str(number + 1),
            "candidates": [
                {"text": f"So it is {number + 1 + (at > number % 4)}.", "correct": at <= number % 4, "rm_score": -at}
                for at in range(4)
            ],
        }
        for number in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_larger_share_holds_a_smaller_one_in_the_same_order(tmp_path):
    source = candidates(tmp_path / "c.jsonl")
    assert write_chosen(source, tmp_path / "few.jsonl", share=0.25) == 3
    assert write_chosen(source, tmp_path / "more.jsonl", share=0.5) == 6
    assert write_chosen(source, tmp_path / "most.jsonl", most=2) == 2
    few, more, all_ = ((tmp_path / name).read_text().splitlines() for name in ("few.jsonl", "more.jsonl", "c.jsonl"))
    assert set(few) < set(more) < set(all_)
    assert more == [line for line in all_ if line in set(more)]
    with pytest.raises(InputError, match=r"a share of 0\.01"):
        write_chosen(source, tmp_path / "none.jsonl", share=0.01)


def test_the_table_says_where_a_prm_does_not_beat_majority(tmp_path):
    found = problems_of(read_candidates(candidates(tmp_path / "c.jsonl")), recorded=["rm_score"])
    text = markdown({"sums": selection_report(found, resamples=200).row()})
    head, _, row = (line for line in text.splitlines() if line.startswith("|"))
    assert head.startswith("| | problems | candidates | pass@1 | majority | oracle (pass@k) | best by rm_score |")
    assert row.startswith("| sums | 12 | 4 |")
    assert "- sums: best by rm_score **beats it**, +" in text


def test_a_folder_is_evaluated_file_by_file_and_goes_on(tmp_path, capsys):
    folder = tmp_path / "bon"
    folder.mkdir()
    candidates(folder / "one.jsonl")
    candidates(folder / "two.jsonl", 8)
    flags = [str(folder), "-o", str(tmp_path / "out"), "--prm", "none", "--share", "one=0.5"]
    for _ in range(2):
        results.main(flags)
        text = capsys.readouterr().out
        assert "| one | 6 | 4 |" in text
        assert "| two | 8 | 4 |" in text
    assert (tmp_path / "out" / "results.md").read_text() in text
    for name in ("one.json", "one.svg", "one.html", "one.md", "results.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    with pytest.raises(SystemExit, match=r"no three\.jsonl"):
        results.main([*flags, "--share", "three=0.5"])


def test_tasks_of_the_live_recipe(tmp_path):
    for name in ("gsm8k_test.jsonl", "svamp.jsonl", "gcd.jsonl"):
        (tmp_path / name).write_text("{}\n")
    gym = tmp_path / "gym"
    gym.mkdir()
    (tmp_path / "gcd.jsonl").rename(gym / "gcd.jsonl")
    flags = ["--problems", str(tmp_path), "--gym", str(gym), "-o", "out"]
    sets = list(live._sets(live._arguments(flags)))
    assert [(name, task) for name, task, _ in sets] == [("gsm8k", "gsm8k"), ("svamp", "svamp"), ("gcd", "custom")]
    assert [name for name, _, _ in live._sets(live._arguments([*flags, "--tasks", "gcd"]))] == ["gcd"]
    with pytest.raises(SystemExit, match="no task chess"):
        list(live._sets(live._arguments([*flags, "--tasks", "chess"])))
