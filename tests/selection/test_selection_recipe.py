"""The recipe's own parts: its pool, its token budget, its table; the whole at the tiniest size is run by hand."""

from __future__ import annotations

import json
import random

import pytest
from selection_pools import read_rows

from reasonflux_prm.cli.select import add_arguments
from reasonflux_prm.cli.select_options import selection_of
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.base import Completion
from reasonflux_prm.policy.scripted import ScriptedPolicy
from recipes.select_sft.pool import problems, sampled, write_pool, written
from recipes.select_sft.run import _jobs, _results
from recipes.select_sft.sizes import CURVE, METHODS, SIZES
from recipes.select_sft.tables import accuracy, curve, table
from recipes.select_sft.train import fit_to_budget

RECORDS = [
    {
        "id": f"gsm8k-train-{i}",
        "problem": f"Ola had {i + 2} beads. She found {i + 5} more, and then gave 3 to Pia. How many are left?",
        "answer": str(2 * i + 4),
        "solution": f"Ola had {i + 2}+{i + 5}=<<{i + 2}+{i + 5}={2 * i + 7}>>{2 * i + 7} beads.\n"
        f"She has {2 * i + 7}-3=<<{2 * i + 7}-3={2 * i + 4}>>{2 * i + 4} left.\n#### {2 * i + 4}",
    }
    for i in range(12)
]


def test_references_are_right_and_corrupted_ones_wrong(tmp_path):
    traces = list(written(RECORDS, 0))
    with open_grader("numeric") as grader:
        verdicts = {trace.id: grader.grade(trace.response, trace.answer).right for trace in traces}
    kinds = {kind: [verdicts[t.id] for t in traces if t.policy == kind] for kind in ("reference", "corrupted")}
    assert len(kinds["reference"]) == 12
    assert all(kinds["reference"])
    assert len(kinds["corrupted"]) > 6
    assert not any(kinds["corrupted"])
    assert all(trace.thinking and trace.response for trace in traces)
    counts = write_pool(tmp_path / "pool.jsonl", iter(traces))
    assert counts["reference"] == [12, 12]
    assert len(read_rows(tmp_path / "pool.jsonl")) == len(traces)


def test_samples_that_did_not_end_are_left_out():
    def answer(request):
        return [Completion("The answer is 4.", "so"), Completion("cut", "so", "length"), Completion("", "so")][
            : request.n
        ]

    found = list(sampled(ScriptedPolicy(answer), RECORDS[:2], 3, 64, 0))
    assert [(trace.thinking, trace.response) for trace in found] == [("so", "The answer is 4.")] * 2
    assert len({trace.id for trace in found}) == 2


def test_a_test_file_is_refused(tmp_path):
    file = tmp_path / "gsm8k_test.jsonl"
    file.write_text(json.dumps({**RECORDS[0], "id": "gsm8k-test-0"}))
    with pytest.raises(SystemExit, match="no test problem"):
        problems(file, 1, 0)


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_every_selection_gets_the_same_tokens(rows):
    lengths = [random.Random(rows).randrange(50, 150) for _ in range(rows)]
    order = fit_to_budget(lengths, 2000, 0)
    held = sum(lengths[row] for row in order)
    assert 2000 <= held < 2000 + max(lengths)
    counts = [order.count(row) for row in range(rows)]
    assert max(counts) - min(counts) <= 1
    assert order != fit_to_budget(lengths, 2000, 1) or rows == 1


@pytest.mark.parametrize("flags", METHODS.values(), ids=METHODS)
def test_every_method_is_something_that_select_takes(flags):
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    asked = [flag.format(student="student") for flag in flags]
    assert selection_of(parser.parse_args(["pool", "-o", "out", "--top", "3", *asked])).top == 3


def result(method, kept, seed, right, rows=10):
    verdicts = {"gsm8k": {"right": right}, "svamp": {"right": right[::-1]}}
    trained = None if method == "untrained" else {"rows": rows, "repeats": 2.0}
    return {"method": method, "kept": kept, "seed": seed, "trained": trained, "right": verdicts}


def results():
    rng = random.Random(0)
    draw = [[rng.random() < 0.4 for _ in range(40)] for _ in range(8)]
    return [
        result("untrained", None, 0, draw[0]),
        *(result("reward", k, s, draw[1 + s + (k == 8)], k) for k in (8, 16) for s in (0, 1)),
        result("random", 8, 0, draw[5], 8),
        result("all", None, 0, draw[6], 30),
    ]


def test_the_table_has_every_method_at_one_k():
    text = table(results(), 8)
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == ["untrained", "reward", "random", "all"]
    assert "seeds" in text.splitlines()[3]


def test_intervals_draw_problems_not_answers():
    same = [result("m", 8, seed, [True, False] * 20) for seed in range(3)]
    one, three = accuracy(same[:1], "gsm8k"), accuracy(same, "gsm8k")
    assert (one.value, one.low, one.high) == (three.value, three.low, three.high)
    assert three.clusters == 40


def test_the_curve_is_a_picture_with_every_point():
    import xml.etree.ElementTree as Xml

    drawn = Xml.fromstring(curve(results(), "gsm8k", CURVE))
    circles = [node for node in drawn if node.tag.endswith("circle")]
    assert len(circles) == 2 + 1 + 1


@pytest.mark.parametrize("name", SIZES)
def test_jobs_are_all_different_and_each_is_done_once(tmp_path, name):
    jobs = list(_jobs(SIZES[name]))
    assert len(set(jobs)) == len(jobs)
    assert {method for method, _, _ in jobs} >= {"untrained", "all", *CURVE}
    lines = [json.dumps({"method": m, "kept": k, "seed": s}) for m, k, s in jobs]
    (tmp_path / "results.jsonl").write_text("\n".join(lines)[:-5])
    assert set(jobs) - set(_results(tmp_path)) == {jobs[-1]}
