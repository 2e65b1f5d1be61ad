"""`evaluate`: recorded, scored and sampled candidates, two PRMs, agents, code, and whatever can be amiss."""

from __future__ import annotations

import json

import pytest
from cli_inputs import write_rows

from reasonflux_prm.errors import PolicyError, PolicyStopped, SandboxUnavailable
from reasonflux_prm.evaluation.tasks import TASKS
from reasonflux_prm.grading.verdict import Grade, Verdict
from reasonflux_prm.policy.scripted import ScriptedPolicy

RIGHT, WRONG = "It is \\boxed{42}.", "It is surely \\boxed{41}."


@pytest.fixture
def sums(tmp_path):
    """Twelve problems with four candidates each, the first ones right, with a recorded reward."""
    rows = [
        {
            "id": f"s{k}",
            "problem": f"What is {k} + {42 - k}?",
            "answer": "42",
            "candidates": [
                {"text": RIGHT if i <= k % 3 else WRONG, "rm": float(k % 5 == 0) if i else 0.5} for i in range(4)
            ],
        }
        for k in range(12)
    ]
    return write_rows(tmp_path / "sums.jsonl", rows)


def read(path):
    return json.loads(path.read_text("utf-8"))


def curve(report, method):
    own = next(own for own in report["curves"] if own["method"] == method)
    return [point["value"] for point in own["points"]]


def test_recorded_candidates_without_a_prm(run, sums, tmp_path, monkeypatch):
    monkeypatch.setattr("reasonflux_prm.prm.load.load_prm", lambda *_, **__: pytest.fail("it loaded a PRM"))
    flags = ("--prm", "none", "--rewards", "rm", "--resamples", 50, "--figure", "f.svg")
    code, out, err = run("evaluate", "gsm8k", "--candidates", sums, "-o", "r.json", *flags)
    assert code == 0
    assert out.startswith("# GSM8K\n\n12 problems, 48 candidates; ")
    assert "| majority |" in out
    assert "| best by rm |" in out
    report = read(tmp_path / "r.json")
    assert curve(report, "pass@1") == [0.5] * 4
    assert curve(report, "oracle")[-1] == 1.0
    assert curve(report, "majority")[-1] == pytest.approx((4 * 0 + 4 * 0.5 + 4 * 1) / 12)
    assert report["about"]["task"] == "gsm8k"
    assert report["details"]["grader"]["grader"] == "numeric"
    assert (tmp_path / "f.svg").read_text().startswith("<svg")
    assert "12 problems, and GSM8K has 1,319: do not report this as a result on GSM8K" in err
    then = f"Next: reasonflux-prm evaluate gsm8k --candidates {sums} --prm embedded -o r-embedded.json"
    assert err.splitlines()[-1] == f"r.json: 12 problems, 48 candidates. {then}"


def test_a_report_of_other_settings_is_not_touched(run, sums, tmp_path):
    command = ("evaluate", "gsm8k", "--candidates", sums, "-o", "r.json", "--prm", "none", "--resamples", 50)
    assert run(*command)[0] == 0
    before = (tmp_path / "r.json").read_bytes()
    assert run(*command)[0] == 0
    assert (tmp_path / "r.json").read_bytes() == before
    code, _, err = run(*command, "--ks", "1,2")
    assert code == 2
    assert "a report of other settings, such as ks (None, now [1, 2])" in err
    assert (tmp_path / "r.json").read_bytes() == before
    assert run(*command, "--ks", "1,2", "--fresh")[0] == 0
    assert len(curve(read(tmp_path / "r.json"), "majority")) == 2
    (tmp_path / "r.json").write_text("my notes")
    code, _, err = run(*command)
    assert code == 2
    assert "is no report of evaluate" in err


def test_candidates_are_scored_beside_the_report(run, candidates, tiny_prm, tmp_path):
    code, out, err = run("evaluate", "custom", "--candidates", candidates, "-o", "r.json", "--prm", tiny_prm)
    assert code == 1, "one candidate has no text"
    assert "- no-text: 1 candidates of 1 problems (none)." in out
    assert "1 candidates have no reward of tiny" in out
    last = err.splitlines()[-1]
    assert "r.scored.jsonl: 6 scored, 1 no-steps" in last
    assert last.endswith("Next: reasonflux-prm view r.scored.jsonl -o r.html")
    report = read(tmp_path / "r.json")
    assert {"prm:tiny", "weighted:tiny", "majority", "oracle"} <= {own["method"] for own in report["curves"]}
    assert report["details"]["scoring"]["prm"]["name"] == str(tiny_prm)
    numbers = [own["points"] for own in report["curves"]]
    code, _, _ = run("evaluate", "custom", "--candidates", "r.scored.jsonl", "-o", "again.json")
    assert code == 0
    assert [own["points"] for own in read(tmp_path / "again.json")["curves"]] == numbers


def test_claims_are_checked_while_scoring_or_afterwards(run, sums, tiny_prm, tmp_path):
    pytest.importorskip("sympy")
    flags = ("--resamples", 50)
    asked = ("evaluate", "gsm8k", "--candidates", sums, "--prm", tiny_prm, *flags)
    assert run(*asked, "-o", "plain.json")[0] == 0
    assert run(*asked, "-o", "checked.json", "--check-claims")[0] == 0
    later = ("evaluate", "gsm8k", "--candidates", "plain.scored.jsonl", "--check-claims", *flags)
    assert run(*later, "-o", "later.json")[0] == 0
    methods, numbers = (
        [[own[field] for own in read(tmp_path / f"{name}.json")["curves"]] for name in ("checked", "later")]
        for field in ("method", "points")
    )
    assert methods[0] == methods[1]
    assert "prm:tiny+claims" in methods[0]
    assert numbers[0] == numbers[1]
    again = ("evaluate", "gsm8k", "--candidates", "later.checked.jsonl", "--check-claims", "-o", "again.json")
    code, _, err = run(*again)
    assert code == 2
    assert "are checked already" in err
    code, _, err = run(*again[:-1], "later.json", "--fresh")
    assert code == 2
    assert "would be replaced by its checked rewards" in err


def test_two_prms_are_compared_on_the_same_candidates(run, sums, tiny_prm, tmp_path):
    flags = ("--resamples", 50, "--limit", 4)
    command = ("evaluate", "gsm8k", "--candidates", sums, "-o", "r.json", "--prm", tiny_prm, "--alpha", "0", *flags)
    code, out, _ = run(*command, "--compare", tiny_prm)
    assert code == 0
    report = read(tmp_path / "r.json")
    assert report["details"]["compared"]["prm"]["alpha"] == 0
    pairs = [(comparison["first"], comparison["second"]) for comparison in report["comparisons"]]
    assert pairs == [(f"{way}:tiny", f"{way}:tiny (compared)") for way in ("prm", "weighted")]
    assert [comparison["difference"]["value"] for comparison in report["comparisons"]] == [0, 0]
    assert "- prm:tiny minus prm:tiny (compared): +0.000" in out
    assert curve(report, "prm:tiny") == curve(report, "prm:tiny (compared)")
    command = ("evaluate", "gsm8k", "--candidates", "r.scored.jsonl", "-o", "again.json", *flags)
    assert run(*command, "--compare", "r.compared.jsonl")[0] == 0
    assert read(tmp_path / "again.json")["comparisons"] == report["comparisons"]


def test_candidates_that_are_all_refused(run, tmp_path, tiny_prm):
    path = write_rows(tmp_path / "c.jsonl", [{"id": "a"}])
    for prm in (tiny_prm, "none"):
        code, _, err = run("evaluate", "custom", "--candidates", path, "-o", "r.json", "--prm", prm)
        assert code == 2
        assert ", found none" in err or "got none" in err


def test_verdicts_are_kept_unless_asked_for_anew(run, tmp_path):
    rows = [
        {"id": "a", "problem": "p", "answer": "42", "candidates": [{"text": RIGHT, "correct": False}, {"text": WRONG}]}
    ]
    path = write_rows(tmp_path / "c.jsonl", rows)
    command = ("evaluate", "math500", "--candidates", path, "--prm", "none", "--resamples", 50)
    assert run(*command, "-o", "r.json")[0] == 0
    assert curve(read(tmp_path / "r.json"), "pass@1")[0] == 0
    assert run(*command, "-o", "again.json", "--regrade")[0] == 0
    report = read(tmp_path / "again.json")
    assert curve(report, "pass@1")[0] == 0.5
    assert report["troubles"]["verdict-differs"]["count"] == 1


def test_what_is_amiss_is_named_and_counted(run, tmp_path):
    rows = [
        {"id": "ok", "problem": "p", "answer": "42", "candidates": [RIGHT, WRONG]},
        {"id": "one", "problem": "q", "answer": "42", "candidates": [RIGHT]},
        {"id": "ok", "problem": "p", "answer": "42", "candidates": [RIGHT, "It cannot be told.", ""]},
        {"id": "no reference", "problem": "r", "candidates": [RIGHT, WRONG]},
        {"id": "bad reference", "problem": "s", "answer": "none of it", "candidates": [RIGHT, WRONG]},
        {"id": "no candidates", "problem": "t", "answer": "42", "candidates": []},
    ]
    path = write_rows(tmp_path / "c.jsonl", rows)
    with path.open("a") as stream:
        stream.write("not json\n")
    code, out, err = run("evaluate", "gsm8k", "--candidates", path, "-o", "r.json", "--prm", "none", "--resamples", 50)
    assert code == 1
    report = read(tmp_path / "r.json")
    assert report["problems"] == 2
    assert {name: own["count"] for name, own in report["troubles"].items()} == {
        "no-text": 1,
        "no-answer": 1,
        "repeated": 1,
        "no-reference": 1,
        "reference-unread": 1,
        "single": 1,
        "apart": 1,
    }
    assert "2 refused (see r.rejects.jsonl); 1 no-reference; 1 reference-unread." in err.splitlines()[-1]
    assert len((tmp_path / "r.rejects.jsonl").read_text().splitlines()) == 2
    assert "- reference-unread: 1 problems (bad reference)." in out


def test_a_grader_that_gives_up_is_counted(run, sums, tmp_path, monkeypatch):
    from reasonflux_prm.evaluation.tasks.graders import RecordedGrader

    class Hanging(RecordedGrader):
        def decide(self, answer, reference):
            return Verdict(Grade.UNPARSED, answer, "took longer than 5 s")

    monkeypatch.setattr("reasonflux_prm.cli.evaluate_run.open_task_grader", lambda *_, **__: Hanging())
    rows = [json.loads(line) for line in sums.read_text().splitlines()]
    rows[0]["candidates"][0]["correct"] = True
    write_rows(sums, rows)
    code, out, err = run("evaluate", "gsm8k", "--candidates", sums, "-o", "r.json", "--prm", "none", "--resamples", 50)
    assert code == 1
    assert "- ungraded: 47 candidates of 12 problems (s0, s1, s2, s3, s4, ...)." in out
    assert "11 of 12 problems are left out" in out
    assert err.splitlines()[-1].startswith("r.json: 1 problems, 4 candidates; 47 ungraded. Next: ")


def test_references_come_from_the_problems(run, tmp_path):
    write_rows(tmp_path / "p.jsonl", [{"id": "a", "problem": "p", "answer": "42"}, {"id": "b"}])
    path = write_rows(tmp_path / "c.jsonl", [{"id": "x", "problem": "p", "candidates": [RIGHT, WRONG]}])
    flags = ("--prm", "none", "--resamples", 50)
    code, _, err = run("evaluate", "gsm8k", "--candidates", path, "-o", "r.json", *flags)
    assert code == 2
    assert "none of their candidates has a verdict" in err
    code, _, err = run("evaluate", "gsm8k", "--candidates", path, "--problems", "p.jsonl", "-o", "r.json", *flags)
    assert code == 1
    assert "p.jsonl:2: expected a problem" in err
    assert "1 problems refused" in err
    assert curve(read(tmp_path / "r.json"), "oracle") == [0.5, 1.0]


def test_trajectories_of_agents(run, tmp_path, tiny_prm):
    rows = [
        {
            "group": "5",
            "problem": "Which countries?",
            "answer": "NL, BE",
            "trajectory": [
                {"thought": "I look.", "code": "print(1)", "observation": "1"},
                {"thought": "I answer.", "code": "final()", "final_answer": said},
            ],
        }
        for said in ("BE; NL", "[be,nl]", "NL")
    ]
    path = write_rows(tmp_path / "t.jsonl", rows)
    flags = ("--prm", tiny_prm, "--resamples", 50)
    code, _, err = run("evaluate", "dabstep", "--candidates", path, "-o", "r.json", *flags)
    assert code == 0, err
    report = read(tmp_path / "r.json")
    assert curve(report, "pass@1")[0] == pytest.approx(2 / 3, abs=1e-6)
    assert curve(report, "majority")[-1] == 1
    scored = [json.loads(line) for line in (tmp_path / "r.scored.jsonl").read_text().splitlines()]
    assert [sum(step["part"] == "thinking" for step in row["steps"]) for row in scored] == [2, 2, 2]
    assert report["details"]["scoring"]["engine"]["steps"] == "turn"


def test_a_benchmark_that_is_graded_elsewhere(run, tmp_path):
    rows = [
        {"group": "1", "problem": "Train it.", "trajectory": [{"code": f"fit({k})"}], "success_rate": k % 2}
        for k in range(4)
    ]
    path = write_rows(tmp_path / "t.jsonl", rows)
    flags = ("--prm", "none", "--resamples", 50, "-o", "r.json")
    code, _, _ = run("evaluate", "scienceagentbench", "--candidates", path, "--map", "correct=success_rate", *flags)
    assert code == 0
    report = read(tmp_path / "r.json")
    assert curve(report, "pass@1")[0] == 0.5
    assert {own["method"] for own in report["curves"]} == {"oracle", "longest", "shortest", "pass@1"}
    assert report["troubles"] == {}


# --- code -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def functions(tmp_path):
    rows = [
        {
            "id": f"HumanEval/{k}",
            "problem": f"def add{k}(x):\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {k + 1}\n",
            "entry_point": f"add{k}",
            "candidates": [f"```python\ndef add{k}(x):\n    return x + {n}\n```" for n in (k, 99)],
        }
        for k in range(2)
    ]
    return write_rows(tmp_path / "f.jsonl", rows)


def test_programs_are_run(run, functions, tmp_path):
    from reasonflux_prm.sandbox.sandbox import Sandbox

    try:
        Sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    flags = ("--prm", "none", "--resamples", 50)
    code, _, err = run("evaluate", "humaneval", "--candidates", functions, "-o", "r.json", *flags)
    assert code == 0, err
    report = read(tmp_path / "r.json")
    assert curve(report, "oracle") == [0.5, 1.0]
    assert "majority" not in {own["method"] for own in report["curves"]}
    assert report["details"]["grader"]["sandbox"]


def test_without_a_sandbox_no_program_is_run(run, functions, tmp_path, monkeypatch):
    asked = []

    def none(*_, allow_unsafe):
        asked.append(allow_unsafe)
        raise SandboxUnavailable("nothing isolates here; --unsafe-no-sandbox runs them all the same")

    monkeypatch.setattr("reasonflux_prm.evaluation.tasks.programs.Sandbox", none)
    flags = ("--prm", "none", "--resamples", 50)
    code, _, err = run("evaluate", "humaneval", "--candidates", functions, "-o", "r.json", *flags)
    assert code == 3
    assert "no program was run: nothing isolates here" in err
    assert not (tmp_path / "r.json").exists()
    rows = [json.loads(line) for line in functions.read_text().splitlines()]
    rows[0]["candidates"] = [{"text": text, "correct": True} for text in rows[0]["candidates"]]
    write_rows(functions, rows)
    code, out, _ = run(
        "evaluate", "humaneval", "--candidates", functions, "-o", "r.json", "--unsafe-no-sandbox", *flags
    )
    assert code == 1, "the other problem has no verdicts"
    assert "- reference-unread: 1 problems (HumanEval/1)." in out
    assert read(tmp_path / "r.json")["problems"] == 1
    assert asked == [False, True]


# --- live -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def problems(tmp_path):
    rows = [{"id": f"s{k}", "problem": f"What is {k} + 1?", "answer": str(k + 1)} for k in range(3)]
    return write_rows(tmp_path / "p.jsonl", rows)


def opened(monkeypatch, answer):
    policy = ScriptedPolicy(answer)
    monkeypatch.setattr("reasonflux_prm.policy.open.open_policy", lambda *_: policy)
    return policy


def answer_sums(request):
    number = int(request.messages[0].content.split()[2])
    return [f"\\boxed{{{number + 1 + (i == 0)}}}" for i in range(request.n)]


LIVE = ("--policy", "local:tiny", "--cache", "c.sqlite", "--resamples", 50, "--problems")


def test_candidates_are_sampled_kept_and_evaluated(run, problems, tiny_prm, tmp_path, monkeypatch):
    policy = opened(monkeypatch, answer_sums)
    command = ("evaluate", "gsm8k", *LIVE, problems, "--n", 4, "-o", "r.json", "--prm", tiny_prm, "--max-tokens", 99)
    code, out, err = run(*command)
    assert code == 0, err
    assert "r.candidates.jsonl: 12 of 12 samples of 3 problems; 3 requests" in err
    assert err.count("3 problems, and GSM8K has 1,319: do not report this as a result on GSM8K") == 1
    assert "| majority | 1.000" in out
    report = read(tmp_path / "r.json")
    assert curve(report, "pass@1")[0] == 0.75
    assert (report["details"]["samples"]["came"], report["about"]["sampling"]["n"]) == (12, 4)
    assert len(policy.requests) == 3
    assert policy.requests[0].max_tokens == 99
    code, _, err = run(*command)
    assert code == 0
    assert "r.candidates.jsonl was complete: nothing was left to sample" in err
    assert len(policy.requests) == 3
    code, _, err = run("evaluate", "gsm8k", *LIVE, problems, "--n", 5, "-o", "r.json", "--prm", "none")
    assert code == 2
    code, _, _ = run("evaluate", "gsm8k", "--candidates", "r.candidates.jsonl", "-o", "x.json", "--prm", "none")
    assert code == 0
    assert curve(read(tmp_path / "x.json"), "majority") == curve(report, "majority")


def test_samples_that_are_missing_are_counted_and_asked_for_again(run, problems, tmp_path, monkeypatch):
    def answer(request):
        return PolicyError("too long") if "2 +" in request.messages[0].content else answer_sums(request)

    opened(monkeypatch, answer)
    command = ("evaluate", "gsm8k", *LIVE, problems, "--n", 2, "-o", "r.json", "--prm", "none")
    code, _, err = run(*command)
    assert code == 1
    assert "4 of 6 samples of 3 problems, 1 problems without any; 1 times: too long" in err
    assert "2 samples missing" in err.splitlines()[-1]
    assert read(tmp_path / "r.json")["problems"] == 2
    policy = opened(monkeypatch, answer_sums)
    code, _, err = run(*command)
    assert code == 0, err
    assert len(policy.requests) == 1, "the others are in the cache"
    assert read(tmp_path / "r.json")["problems"] == 3


def test_a_policy_that_gives_nothing(run, problems, tmp_path, monkeypatch):
    command = ("evaluate", "gsm8k", *LIVE, problems, "--n", 2, "-o", "r.json", "--prm", "none")
    opened(monkeypatch, lambda _: PolicyError("too long"))
    code, _, err = run(*command)
    assert code == 2
    assert "expected samples from local:tiny, got none: too long" in err
    opened(monkeypatch, lambda _: PolicyStopped("wrong key"))
    code, _, err = run(*command)
    assert code == 3
    assert "the same command goes on from there" in err
    assert not (tmp_path / "r.json").exists()


def test_limit_counts_problems_that_are_asked(run, problems, tmp_path, monkeypatch):
    policy = opened(monkeypatch, answer_sums)
    code, _, _ = run("evaluate", "gsm8k", *LIVE, problems, "--n", 2, "-o", "r.json", "--prm", "none", "--limit", 2)
    assert code == 0
    assert len(policy.requests) == 2


# --- usage ----------------------------------------------------------------------------------------------------------


def test_the_list_shows_every_task(run):
    code, out, _ = run("evaluate", "--list")
    assert code == 0
    for task in TASKS:
        assert f"| {task.name} |" in out
        assert task.licence in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "evaluate needs a task; --list shows them"),
        (["aime23", "-o", "r.json"], "unknown task 'aime23'"),
        (["gsm8k", "--candidates", "sums.jsonl"], "-o REPORT.json"),
        (["gsm8k", "-o", "r.json"], "either --candidates FILE or --policy SPEC"),
        (
            ["gsm8k", "-o", "r.json", "--candidates", "sums.jsonl", "--policy", "x"],
            "either --candidates FILE or --policy",
        ),
        (["gsm8k", "-o", "r.json", "--candidates", "-"], "takes a file and no pipe"),
        (["gsm8k", "-o", "r.json", "--candidates", "sums.jsonl", "--n", "4"], "--n: nothing is sampled"),
        (["gsm8k", "-o", "r.json", "--candidates", "sums.jsonl", "--concurrency", "4"], "flags of policies"),
        (["gsm8k", "-o", "r.json", "--candidates", "sums.jsonl", "--figure", "f.pdf"], "to end in .svg, .png, .html"),
        (["gsm8k", "-o", "r.json", "--candidates", "sums.jsonl", "--prm", "none", "--alpha", "0"], "go with nothing"),
        (["gsm8k", "-o", "r.json", "--candidates", "sums.jsonl", "--prm", "none", "--compare", "x"], "a first PRM"),
        (["gsm8k", "-o", "r.json", "--candidates", "missing.jsonl"], "missing.jsonl"),
        (["gsm8k", "-o", "r.json", "--candidates", "sums.jsonl", "--ks", "0"], "whole number of at least 1"),
        (["gsm8k", "-o", "r.json", "--policy", "local:x"], "--policy needs --n N"),
        (["gsm8k", "-o", "r.json", "--policy", "local:x", "--n", "2", "--format", "native"], "how recorded candidates"),
        (["custom", "-o", "r.json", "--policy", "local:x", "--n", "2"], "with --problems"),
    ],
)
def test_wrong_usage_is_explained(run, sums, arguments, message):
    code, _, err = run("evaluate", *arguments)
    assert code == 2
    assert message in err


def test_agents_cannot_be_sampled(run, tmp_path, monkeypatch):
    opened(monkeypatch, answer_sums)
    path = write_rows(tmp_path / "p.jsonl", [{"id": "a", "problem": "p"}])
    code, _, err = run("evaluate", "dabstep", *LIVE, path, "--n", 2, "-o", "r.json")
    assert code == 2
    assert "trajectories that an agent records" in err


def test_flags_of_scoring_go_with_nothing_where_all_is_scored(run, candidates, tiny_prm):
    run("score", candidates, "-o", "scored.jsonl", "--prm", tiny_prm)
    for flags in (("--alpha", "0"), ("--prm", "none"), ("--format", "native")):
        code, _, err = run("evaluate", "custom", "--candidates", "scored.jsonl", "-o", "r.json", *flags)
        assert code == 2
        assert "is scored already" in err
