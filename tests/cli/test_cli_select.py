"""`select` as a user meets it: the last line, exit codes, pipes, the report, the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "selection"))
from selection_pools import many, read_rows, scored, write_pool

from reasonflux_prm.records import Status


@pytest.fixture
def pool(tmp_path):
    return write_pool(tmp_path / "pool.jsonl", many(40))


def test_select_says_what_came_of_it(run, pool, tmp_path):
    code, out, err = run("select", "pool.jsonl", "-o", "sft", "--top", "5", "--correct", "--per", "problem=1")
    assert (code, out) == (0, "")
    assert "sft: 5 of 40 traces kept; left out: " in err
    assert " wrong" in err
    assert len(read_rows(tmp_path / "sft" / "train.jsonl")) == 5
    assert json.loads((tmp_path / "sft" / "train.manifest.json").read_text())["counts"]["kept"] == 5
    assert "Next: reasonflux-prm select pool.jsonl -o sft --top 5 --correct --per problem=1 --report sft.html" in err
    command = "reasonflux-prm select pool.jsonl -o sft --top 5 --correct --per problem=1"
    assert f"```console\n{command}\n```" in (tmp_path / "sft" / "README.md").read_text()


def test_the_same_command_again_does_nothing(run, pool):
    arguments = ("select", "pool.jsonl", "-o", "out.jsonl", "--top", "5")
    run(*arguments)
    code, _, err = run(*arguments)
    assert code == 0
    assert "was complete: nothing was left to do" in err
    code, _, err = run(*arguments[:-1], "6")
    assert code == 2
    assert "--fresh" in err
    assert run(*arguments[:-1], "6", "--fresh")[0] == 0


def test_more_than_there_are_is_one_sentence(run, pool):
    code, _, err = run("select", "pool.jsonl", "-o", "out.jsonl", "--top", "500")
    assert code == 0
    assert "500 were asked for, and 40 are all that is left of the pool" in err


def test_unscored_and_refused_records_are_counted_and_give_exit_code_1(run, tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", [*many(4), scored("x", status=Status.TOO_LONG)])
    with pool.open("a") as stream:
        stream.write("{\n")
    code, _, err = run("select", "pool.jsonl", "-o", "out.jsonl", "--dropped")
    assert code == 1
    assert "1 unscored; 1 refused (see out.rejects.jsonl)" in err
    assert read_rows(tmp_path / "out.dropped.jsonl")[0]["reason"] == "unscored"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--template", "qwen9"), "unknown template 'qwen9'; there are think, "),
        (("--per", "source"), "expected COLUMN=N"),
        (("--thinking-characters", "9"), "expected LOW:HIGH"),
        (("--student-weight", "0.5"), "--student-weight goes with --student"),
        (("--encoder", "x"), "--encoder goes with --diversity"),
        (("--private",), "--private goes with --push"),
        (("--push", "name"), "expected --push ORG/NAME"),
        (("--by", "random", "--threshold", "1"), "--threshold is a reward"),
        (("--map", "problem=x"), "leave --input-format and --map out"),
        (("--ids", "none.jsonl"), "none.jsonl"),
        (("--threshold", "99"), "nothing is left of pool.jsonl to choose from: 40 below-threshold"),
    ],
)
def test_wrong_usage_is_one_sentence(run, pool, tmp_path, flags, said):
    code, _, err = run("select", "pool.jsonl", "-o", "out.jsonl", *flags)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_pipe_in_and_no_pipe_out(shell, pool):
    done = shell("select", "-", "-o", "out.jsonl", "--top", "3", stdin=pool.read_bytes())
    assert (done.returncode, b"3 of 40 traces kept" in done.stderr) == (0, True)
    assert shell("select", "pool.jsonl", "-o", "-").returncode == 2


def test_plain_traces_with_columns_of_their_own(run, tmp_path):
    write_pool(
        tmp_path / "plain.jsonl", [{"task": f"P{i}", "text": "<think>\nT\n</think>\nR" + "!" * i} for i in range(4)]
    )
    code, _, _ = run("select", "plain.jsonl", "-o", "o.jsonl", "--by", "longest", "--top", "1", "--map", "problem=task")
    assert code == 0
    (row,) = read_rows(tmp_path / "o.jsonl")
    assert row["messages"][0]["content"] == "P3"


def test_the_report_holds_kept_and_dropped(run, pool, tmp_path):
    code, _, err = run("select", "pool.jsonl", "-o", "out.jsonl", "--top", "5", "--report", "r.html")
    assert code == 0
    assert "r.html: 40 traces of the pool" in err
    sys.path.append(str(Path(__file__).parents[1] / "viewer"))
    from test_viewer_html import rows

    shown = rows((tmp_path / "r.html").read_text())
    assert sum(row["outcome"] == "kept" for row in shown) == 5
    assert sum(row["outcome"] == "rank" for row in shown) == 35


def test_a_report_of_a_finished_selection(run, pool, tmp_path):
    arguments = ("select", "pool.jsonl", "-o", "out.jsonl", "--top", "5")
    run(*arguments)
    before = (tmp_path / "out.jsonl").read_bytes()
    assert run(*arguments, "--report", "r.html", "--report-traces", "10")[0] == 0
    assert (tmp_path / "r.html").exists()
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_push_uploads_data_card_and_manifest(run, pool, monkeypatch):
    import huggingface_hub

    seen = []

    class Hub:
        def create_repo(self, repository, **_):
            return f"hub:{repository}"

        def create_commit(self, repository, operations, **_):
            seen.extend(one.path_in_repo for one in operations)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    code, _, err = run("select", "pool.jsonl", "-o", "out.parquet", "--top", "5", "--push", "org/name")
    assert code == 0
    assert "hub:org/name" in err
    assert seen == ["out.parquet", "README.md", "out.manifest.json"]
