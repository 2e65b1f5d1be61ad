"""The recipe's own parts: its pool, its token budget, its table; the whole at the tiniest size is run by hand."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from selection_pools import read_rows

from reasonflux_prm.cli.select import add_arguments
from reasonflux_prm.cli.select_options import selection_of
from reasonflux_prm.grading.graders import open_grader
from reasonflux_prm.policy.base import Completion
from reasonflux_prm.policy.scripted import ScriptedPolicy
from recipes.select_sft import run as recipe
from recipes.select_sft.jobs import all_jobs, results, run_jobs, selections
from recipes.select_sft.pool import answered_only, problems, read_samples, sampled, write_pool, written
from recipes.select_sft.sizes import CURVE, METHODS, SIZES
from recipes.select_sft.tables import accuracy, curve, difference, purity, table, write
from recipes.select_sft.train import fit_to_budget, made_of
from recipes.select_sft.work import Job, result_file

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
    order = fit_to_budget(rows, lengths.__getitem__, 2000, 0)
    held = sum(lengths[row] for row in order)
    assert 2000 <= held < 2000 + max(lengths)
    counts = [order.count(row) for row in range(rows)]
    assert max(counts) - min(counts) <= 1
    assert order != fit_to_budget(rows, lengths.__getitem__, 2000, 1) or rows == 1


@pytest.mark.parametrize("flags", METHODS.values(), ids=METHODS)
def test_every_method_is_something_that_select_takes(flags):
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    asked = [flag.format(student="student") for flag in flags]
    assert selection_of(parser.parse_args(["pool", "-o", "out", "--top", "3", *asked])).top == 3


def result(method, kept, seed, right, rows=10):
    verdicts = {"gsm8k": {"right": right}, "svamp": {"right": right[::-1]}}
    made = {"right": 0.75, "reference": 0.5, "policy": 0.5}
    trained = None if method == "untrained" else {"rows": rows, "repeats": 2.0, "made_of": made, "tokens_a_row": 210.5}
    return {"method": method, "kept": kept, "seed": seed, "trained": trained, "right": verdicts}


def some_results():
    rng = random.Random(0)
    draw = [[rng.random() < 0.4 for _ in range(40)] for _ in range(8)]
    return [
        result("untrained", None, 0, draw[0]),
        *(result("reward", k, s, draw[1 + s + (k == 8)], k) for k in (8, 16) for s in (0, 1)),
        result("random", 8, 0, draw[5], 8),
        result("all", None, 0, draw[6], 30),
    ]


def test_the_table_has_every_method_at_one_k():
    text = table(some_results(), 8)
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == ["untrained", "reward", "random", "all"]
    assert "seeds" in text.splitlines()[3]


def test_intervals_draw_problems_not_answers():
    same = [result("m", 8, seed, [True, False] * 20) for seed in range(3)]
    one, three = accuracy(same[:1], "gsm8k"), accuracy(same, "gsm8k")
    assert (one.value, one.low, one.high) == (three.value, three.low, three.high)
    assert three.clusters == 40


def test_the_curve_is_a_picture_with_every_point():
    import xml.etree.ElementTree as Xml

    drawn = Xml.fromstring(curve(some_results(), "gsm8k", CURVE))
    circles = [node for node in drawn if node.tag.endswith("circle")]
    assert len(circles) == 2 + 1 + 1


def test_every_method_is_held_against_random_by_problem():
    lines = {line.split("|")[1].strip(): line.split("|") for line in table(some_results(), 8).splitlines()[2:]}
    assert lines["random"][5].strip() == ""
    assert lines["reward"][5].strip()[0] in "+-"
    better = [result("m", 8, 0, [True] * 20 + [False] * 20), result("m", 8, 1, [False] * 40)]
    base = [result("random", 8, 0, [True] * 10 + [False] * 30)]
    found = difference(better, base, "gsm8k")  # seed 1 has no partner
    assert found.value == pytest.approx(0.25)
    assert 0 < found.low < 0.25 < found.high
    assert difference(better[1:], base, "gsm8k") is None
    assert difference([result("untrained", None, 0, [False] * 40)], base, "gsm8k").value == pytest.approx(-0.25)


def test_the_table_says_what_selections_are_made_of():
    rows = [{"policy": kind, "correct": kind != "corrupted"} for kind in ("reference", "corrupted", "a", "b")]
    assert made_of(rows) == {"right": 0.75, "reference": 0.25, "corrupted": 0.25, "policy": 0.5}
    assert "| reward | 8 | 75.0% | 50.0% | 0.0% | 50.0% | 210.5 |" in purity(some_results())


def candidates(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(record, *finish):
    told = [{"thinking": "so", "response": f"The answer is {n}.", "finish_reason": how} for n, how in enumerate(finish)]
    return {"id": record["id"], "problem": record["problem"], "answer": record["answer"], "candidates": told}


def test_samples_that_are_there_become_the_pool(tmp_path):
    file = candidates(tmp_path / "c.jsonl", asked(RECORDS[3], "stop", "length", "stop", "stop"), asked(RECORDS[5]))
    records = answered_only(RECORDS, file)
    assert [record["id"] for record in records] == [RECORDS[3]["id"], RECORDS[5]["id"]]
    traces = list(read_samples(file, records, 3))
    assert [trace.response for trace in traces] == ["The answer is 0.", "The answer is 2."]
    assert {trace.policy for trace in traces} == {"policy"}
    assert list(read_samples(file, records[1:], 3)) == []


@pytest.mark.parametrize("changed", [{"id": "gsm8k-test-0"}, {"problem": "Another text."}])
def test_samples_of_other_problems_are_refused(tmp_path, changed):
    file = candidates(tmp_path / "c.jsonl", asked(RECORDS[0], "stop"), {**asked(RECORDS[1], "stop"), **changed})
    with pytest.raises(SystemExit, match="no problem of GSM8K train"):
        answered_only(RECORDS, file)


@pytest.mark.parametrize("name", SIZES)
def test_jobs_are_all_different_and_in_the_order_of_seeds(name):
    jobs = list(all_jobs(SIZES[name]))
    assert len({job.name for job in jobs}) == len(jobs)
    assert {job.method for job in jobs} >= {"untrained", "all", *CURVE}
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    by_seed = [[(j.method, j.kept) for j in jobs[1:] if j.seed == seed] for seed in range(SIZES[name].seeds)]
    assert all(own == by_seed[0] for own in by_seed)


def test_each_selection_is_made_once_and_the_student_reads_for_all():
    groups = selections(list(all_jobs(SIZES["gpu"])))
    names = [job.selection for group in groups for job in group]
    assert len(set(names)) == len(names)
    assert [job.method for job in groups[0]] == ["reward and student", "student"]


def made():
    future = Future()
    future.set_result(None)
    return future


def test_a_job_waits_for_its_selection_and_the_others_do_not():
    jobs = [Job("student", 8, 0), Job("reward", 8, 0), Job("random", 8, 0)]
    late, order = Future(), []

    def work(job):
        order.append(job.method)
        if len(order) == 2:
            late.set_result(None)
        return job.name

    making = {"student-8": late, "reward-8": made(), "random-8": made()}
    with ThreadPoolExecutor(1) as executor:
        left, failed = run_jobs(jobs, executor, 1, making, None, work)
    assert (left, failed, order) == ([], {}, ["reward", "random", "student"])


def test_after_the_deadline_nothing_is_begun_and_what_runs_ends():
    jobs = [Job("random", 8, seed) for seed in range(6)]
    began = threading.Barrier(2)

    def work(job):
        began.wait(5)
        time.sleep(0.2)
        return job.name

    with ThreadPoolExecutor(2) as executor:
        left, failed = run_jobs(jobs, executor, 2, {"random-8": made()}, time.monotonic() + 0.1, work)
    assert (left, failed) == (jobs[2:], {})


def test_a_student_that_fails_leaves_the_others_alone():
    broken = Future()
    broken.set_exception(RuntimeError("nothing is left"))

    def work(job):
        if job.seed:
            raise ValueError("no memory")
        return job.name

    jobs = [Job("random", 8, 0), Job("random", 8, 1), Job("right", 8, 0), Job("untrained", None, 0)]
    with ThreadPoolExecutor(2) as executor:
        left, failed = run_jobs(jobs, executor, 2, {"random-8": made(), "right-8": broken}, None, work)
    assert left == []
    assert failed == {jobs[1]: "ValueError: no memory", jobs[2]: "no selection: nothing is left"}


def test_the_table_of_a_run_that_was_cut_off_says_what_is_missing(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"size": "tiny", "seed": 0}))
    assert "Not done" in write(tmp_path)
    jobs = list(all_jobs(SIZES["tiny"]))
    (tmp_path / "results").mkdir()
    for job in jobs[:4]:
        row = result(job.method, job.kept, job.seed, [True, False, False, True], job.kept or 30)
        result_file(tmp_path, job).write_text(json.dumps(row))
    (tmp_path / "results" / "reward-16-0.json.part").write_text("{")
    text = write(tmp_path)
    assert len(results(tmp_path)) == 4
    assert f"Not done, {len(jobs) - 4} of {len(jobs)}: " in text
    assert jobs[4].name in text
    assert (tmp_path / "curve-gsm8k.svg").exists()


def test_a_pool_that_is_there_is_taken_as_it_is(tmp_path):
    own, out = tmp_path / "own.jsonl", tmp_path / "out"
    own.write_text('{"id": "a"}\n')
    out.mkdir()
    args = recipe._arguments(["--size", "world", "--data", str(tmp_path), "-o", str(out), "--pool", str(own)])
    recipe._make_pool(args, SIZES["world"], out, tmp_path)
    assert (out / "pool.jsonl").read_text() == own.read_text()
    assert recipe._about(args, tmp_path)["pool"] == str(own)
    assert not {"policy", "samples"} & recipe._about(args, tmp_path).keys()


def test_a_pool_that_is_not_there_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        recipe._arguments(["--size", "world", "--data", "d", "-o", "o", "--pool", str(tmp_path / "none.jsonl")])
    assert "there is no file" in capsys.readouterr().err


def test_a_pool_goes_with_no_samples(tmp_path, capsys):
    with pytest.raises(SystemExit):
        recipe._arguments(["--size", "world", "--data", "d", "-o", "o", "--pool", "p", "--samples", "s"])
    assert "not allowed with" in capsys.readouterr().err
