"""File to file: the labels have the same bytes whatever happened on the way, and the manifest says what was done."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import time
from pathlib import Path

import pytest
from label_host import Host
from label_parts import LengthJudge, LetterEncoder, labeller, trace, write_traces

from reasonflux_prm.errors import InputError, PolicyStopped, ResumeError
from reasonflux_prm.labels.files import read_labelled
from reasonflux_prm.labels.first_pass import InputEmbedding, Negatives, spooled
from reasonflux_prm.labels.run import Progress, run_labelling
from reasonflux_prm.records import LabelledTrace, LabelStatus, Term
from reasonflux_prm.traces.manifest import read_manifest
from reasonflux_prm.traces.read import read_traces
from reasonflux_prm.traces.resumable import Input


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_traces(tmp_path_factory.mktemp("input") / "traces.jsonl")


class Stop(BaseException):
    """Ends a run between two chunks, as Ctrl-C would."""


def stop_after(chunks: int):
    seen = []

    def hook(chunk, progress):
        seen.append(progress.traces)
        if len(seen) == chunks:
            raise Stop

    return hook


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- one run -------------------------------------------------------------------------------------------------------


def test_a_whole_run(source, tmp_path):
    output = tmp_path / "deep" / "labels.jsonl"
    taken = {"requests": 0, "money": 0.0}

    class Paid(LengthJudge):
        async def judge(self, segmented):
            taken["requests"] += 1
            taken["money"] += 0.5
            return await super().judge(segmented)

    seen = []
    progress = run_labelling(
        labeller(Paid()),
        Input(str(source)),
        output,
        hook=lambda chunk, now: seen.append(now.traces),
        cost=lambda: taken,
    )
    assert names(output.parent) == {"labels.jsonl", "labels.manifest.json", "labels.rejects.jsonl"}
    traces = list(read_traces(source, rejects=lambda reject: None))
    assert list(read_labelled(output)) == list(labeller().label(traces))
    assert seen == [3, 6, 9, 10]
    assert (progress.traces, progress.rejects, progress.unlabelled) == (10, 3, 1)
    assert progress.counts == {"labelled": 9, "no-steps": 1}
    manifest = read_manifest(output)
    assert (manifest.kind, manifest.counts, manifest.rejects) == ("labels", {"labelled": 9, "no-steps": 1}, 3)
    assert manifest.settings["labels"] == {
        "formula": "bounded softmax(alignment_max, quality, coherence)",
        "steps": "blank-line",
        "chunk_traces": 3,
        "chunk_characters": 500_000,
        "embedding": {"encoder": "length"},
        "quality": {"judge": "length"},
        "trajectory": {"rater": "length"},
    }
    records = list(read_labelled(output))
    assert manifest.details == {
        "steps": sum(len(record.steps) for record in records),
        "targets": sum(len(record.steps) for record in records) - 1,
        "trajectory_targets": 9,
        "missing": {"lift": {"no control": 9}},
        "out_of_range": {},
        "cost": {"requests": 9, "money": 4.5},
    }
    assert set(manifest.timings_s) == {"total", "reading", "embedding", "quality", "trajectory"}


def test_reasons_are_counted_without_their_numbers():
    def labelled(*reasons):
        terms = tuple({"quality": Term(None, reason)} for reason in reasons)
        return LabelledTrace(trace(0), LabelStatus.NO_TARGET, (), terms, (), {}, None, "bounded mean(quality)")

    progress = Progress()
    progress.add([labelled("took longer than 5.0 s", "took longer\n than 12 s", None)], 1.0)
    assert progress.missing == {"quality: took longer than # s": 2, "quality: no reason given": 1}
    progress.add([labelled(*(chr(1000 + n) for n in range(300)))], 1.0)
    assert len(progress.missing) == 201
    assert progress.missing["quality: another reason"] == 102
    assert Progress.restored(json.loads(json.dumps(progress.saved()))) == progress


def test_targets_out_of_range_are_reported(source, tmp_path):
    run_labelling(labeller(formula="literal mean(coherence)"), Input(str(source)), tmp_path / "l.jsonl")
    stray = sum(not 0 <= target <= 1 for one in read_labelled(tmp_path / "l.jsonl") for target in one.targets if target)
    assert read_manifest(tmp_path / "l.jsonl").details["out_of_range"] == {"target": stray}
    assert stray > 3


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".parquet"])
def test_other_forms(source, tmp_path, suffix):
    plain, packed = tmp_path / "plain.jsonl", tmp_path / "other" / f"labels{suffix}"
    run_labelling(labeller(), Input(str(source)), plain)
    with pytest.raises(Stop):
        run_labelling(labeller(), Input(str(source)), packed, hook=stop_after(2))
    assert not packed.exists()
    assert run_labelling(labeller(), Input(str(source)), packed).resumed_traces == 6
    assert names(packed.parent) == {packed.name, "labels.manifest.json", "labels.rejects.jsonl"}
    whole = tmp_path / "whole" / packed.name
    run_labelling(labeller(), Input(str(source)), whole)
    assert whole.read_bytes() == packed.read_bytes()
    if suffix == ".parquet":
        ours, theirs = list(read_labelled(packed)), list(read_labelled(plain))
        # The column `topic` holds texts and numbers, so it is JSON text in a table.
        assert [one.targets for one in ours] == [one.targets for one in theirs]
        assert [one.step_terms for one in ours] == [one.step_terms for one in theirs]
    else:
        assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert run_labelling(labeller(), Input(str(source)), packed).resumed_traces == 10


def test_a_finished_run_is_not_done_again(source, tmp_path):
    output = tmp_path / "labels.jsonl"
    run_labelling(labeller(), Input(str(source)), output)
    judge = LengthJudge()
    assert run_labelling(labeller(judge), Input(str(source)), output).resumed_traces == 10
    assert judge.asked == []
    with pytest.raises(ResumeError, match=r"another labels\.steps"):
        run_labelling(labeller(steps="sentence"), Input(str(source)), output)
    with pytest.raises(ResumeError, match=r"another labels\.formula"):
        run_labelling(labeller(formula="literal"), Input(str(source)), output)
    run_labelling(labeller(formula="literal"), Input(str(source)), output, resume=False)


def test_an_empty_input_leaves_nothing_behind(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError):
        run_labelling(labeller(), Input(str(tmp_path / "empty.jsonl")), tmp_path / "out" / "labels.jsonl")
    assert names(tmp_path / "out") == set()


# --- stops ---------------------------------------------------------------------------------------------------------


class Budgeted(LengthJudge):
    """Stops when it has been asked so often; what it answered once is free, as from a cache."""

    def __init__(self, limit: int, known: set[str]) -> None:
        super().__init__()
        self.limit, self.known, self.paid = limit, known, 0

    async def judge(self, segmented):
        if segmented.trace.id not in self.known:
            if self.paid >= self.limit:
                raise PolicyStopped("the budget is spent")
            self.paid += 1
            self.known.add(segmented.trace.id)
        return await super().judge(segmented)

    def cost(self):
        return {"requests": self.paid}


@pytest.mark.parametrize("limit", [1, 3, 4, 7])
def test_a_stop_keeps_what_is_done_and_counts_what_was_paid(source, tmp_path, limit):
    whole, output = tmp_path / "whole" / "labels.jsonl", tmp_path / "cut" / "labels.jsonl"
    run_labelling(labeller(), Input(str(source)), whole)
    known, runs = set(), 0
    while True:
        judge = Budgeted(limit, known)
        runs += 1
        try:
            progress = run_labelling(labeller(judge), Input(str(source)), output, cost=judge.cost)
            break
        except PolicyStopped:
            assert not output.exists()
            assert judge.paid == limit
        assert runs < 20
    assert runs == -(-9 // limit)
    assert output.read_bytes() == whole.read_bytes()
    assert progress.cost == {"requests": 9}
    assert read_manifest(output).details["cost"] == {"requests": 9}
    assert names(output.parent) == {"labels.jsonl", "labels.manifest.json", "labels.rejects.jsonl"}


# --- the whole input -----------------------------------------------------------------------------------------------


def embedding(source: Input, folder: Path, **negatives) -> InputEmbedding:
    chosen = Negatives(**{"each": 4, "pool": 64, **negatives})
    return InputEmbedding(LetterEncoder(), source, steps="blank-line", negatives=chosen, kept=folder / ".negatives")


def test_negatives_come_from_the_whole_input_and_are_kept(source, tmp_path):
    one, other = (embedding(Input(str(source)), tmp_path) for _ in range(2))
    records = list(labeller(embedding=one).label(read_traces(source, rejects=lambda _: None)))
    assert one.read == 10
    assert records[0].step_terms[0]["coherence"].value is not None, "the first chunk has negatives of later ones"
    assert len(names(tmp_path)) == 1
    assert list(labeller(embedding=other).label(read_traces(source, rejects=lambda _: None))) == records
    assert other.read == 0, "the sample that was kept is used"
    seeded = embedding(Input(str(source)), tmp_path, seed=1)
    list(labeller(embedding=seeded).label(read_traces(source, rejects=lambda _: None)))
    assert seeded.read == 10
    one.forget()
    assert names(tmp_path) == set()


def test_without_negatives_the_input_is_read_once(source):
    one = InputEmbedding(LetterEncoder(), Input(str(source)), steps="blank-line", negatives=None)
    records = list(labeller(embedding=one).label(read_traces(source, rejects=lambda _: None)))
    assert one.read == 0
    assert {name for terms in records[0].step_terms for name in terms} == {
        "alignment_max",
        "alignment_index",
        "alignment_proportional",
        "alignment_dtw",
        "quality",
    }
    assert one.identity() == {"encoder": {"name": "letters"}}


def test_a_pipe_is_put_into_a_file(source, tmp_path, monkeypatch):
    import io
    import sys

    class Pipe:
        buffer = io.BytesIO(gzip.compress(source.read_bytes() + b'{"problem": "no id?", "response": "No."}\n'))

    monkeypatch.setattr(sys, "stdin", Pipe)
    with spooled(Input("-", limit=13), tmp_path / ".spool") as spool:
        rejects = []
        once, twice = list(spool.read(rejects.append)), list(spool.read(lambda _: None))
        assert once == twice
        assert len(once) == 11
        assert once[-1].id == "stdin:14"
        assert {reject.file for reject in rejects} == {"-"}
        run_labelling(labeller(embedding=embedding(spool, tmp_path)), spool, tmp_path / "out" / "labels.jsonl")
        with pytest.raises(ResumeError, match="pipe cannot be compared"):
            run_labelling(labeller(), spool, tmp_path / "out" / "labels.jsonl")
    assert not (tmp_path / ".spool").exists()
    assert len(list(read_labelled(tmp_path / "out" / "labels.jsonl"))) == 11
    with spooled(Input(str(source)), tmp_path / ".spool") as same:
        assert same == Input(str(source))
    assert not (tmp_path / ".spool").exists()


# --- kills ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host():
    pytest.importorskip("pyarrow")
    host = Host()
    yield host
    host.close()


def same_as(output: Path, whole: Path) -> None:
    assert output.read_bytes() == whole.read_bytes()
    ours, theirs = (path.with_name("labels.rejects.jsonl") for path in (output, whole))
    assert ours.read_bytes() == theirs.read_bytes()
    one, other = read_manifest(output), read_manifest(whole)
    assert (one.counts, one.rejects, one.settings) == (other.counts, other.rejects, other.settings)
    assert {**one.details, "cost": 0} == {**other.details, "cost": 0}


def left(folder: Path) -> set[str]:
    """What is in an output's folder, but for the sample of negatives, which goes with the command that drew it."""
    return {name for name in names(folder) if ".negatives-" not in name}


@pytest.mark.parametrize(
    ("suffix", "every"),
    [
        pytest.param(".jsonl", 6),
        pytest.param(".parquet", 100),
        pytest.param(".jsonl", 1, marks=pytest.mark.slow),
        pytest.param(".parquet", 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_before_anything_done_to_the_disk(host, source, tmp_path, suffix, every):
    """The run is killed before each sync, each move and each removal in turn, and started again."""
    whole = tmp_path / "whole" / f"labels{suffix}"
    events = host.run(source, whole, chunk_traces=4)["events"]
    assert events > 15
    # The last ones, when the output takes its place, are never left out.
    for number in sorted({*range(0, events, every), *range(events - 4, events)}):
        output = tmp_path / f"cut{number}" / whole.name
        assert host.run(source, output, chunk_traces=4, kill_at=number) is None
        again = host.run(source, output, chunk_traces=4)
        assert again.get("error") is None, f"killed at {number}: {again}"
        assert (again["traces"], again["counts"], again["rejects"]) == (10, {"labelled": 9, "no-steps": 1}, 3)
        same_as(output, whole)
        assert left(output.parent) == left(whole.parent)
        assert host.run(source, output, chunk_traces=4)["resumed"] == 10


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_moments(host, tmp_path, seed):
    source = write_traces(tmp_path / "traces.jsonl", 30)
    whole, output = tmp_path / "whole" / "labels.jsonl", tmp_path / "cut" / "labels.jsonl"
    started = time.monotonic()
    host.run(source, whole, wait_s=0.01)
    duration = time.monotonic() - started
    rng, kills = random.Random(seed), 0
    # Later and later, because the machine may have become slower.
    while host.run(source, output, wait_s=0.01, kill_after=rng.uniform(0, duration) * (1 + kills / 10)) is None:
        kills += 1
        assert kills < 100, "it does not come forward"
    same_as(output, whole)
    assert left(output.parent) == left(whole.parent)


def test_a_disk_that_is_full(host, source, tmp_path):
    whole = tmp_path / "whole" / "labels.jsonl"
    host.run(source, whole)
    size = whole.stat().st_size
    output = tmp_path / "cut" / "labels.jsonl"
    for limit in (100, size // 2, size - 1):
        result = host.run(source, output, file_bytes=limit)
        assert result["error"] == "OutputError", result
        assert not output.exists()
    host.run(source, output)
    same_as(output, whole)
    shutil.rmtree(output.parent)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(host, tmp_path):
    few, many = (write_traces(tmp_path / f"{count}.jsonl", count, 0) for count in (1000, 20_000))
    one = host.run(few, tmp_path / "few" / "labels.jsonl", chunk_traces=16)
    other = host.run(many, tmp_path / "many" / "labels.jsonl", chunk_traces=16)
    assert (one["traces"], other["traces"]) == (1000, 20_000)
    assert other["peak_mib"] < one["peak_mib"] + 15
