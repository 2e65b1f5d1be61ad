"""The labeller: in order, bounded, busy, and one trace's trouble is its own."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
from label_parts import LengthEmbedding, LengthJudge, LengthRater, labeller, share, trace, traces

from reasonflux_prm.errors import InputError, OutputError, PolicyError, PolicyStopped, UsageError
from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.labels.pipeline import Labeller, LabelSettings
from reasonflux_prm.records import LabelStatus, Term, Trace


@pytest.fixture(autouse=True)
def nothing_is_left(caplog):
    """No thread, and no task whose exception nobody asked for."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before
    gc.collect()
    assert caplog.records == []


def drained(chunks):
    """The ids of all chunks, and what ended them."""
    done = []
    try:
        for chunk in chunks:
            done.append([one.trace.id for one in chunk])
    except Exception as error:
        return done, error
    return done, None


def test_a_label_holds_what_the_parts_said():
    (labelled,) = labeller().label([trace(1)])
    texts = ["Step 0 of 1.\n\n", "Step 1 of 1.", "It is 1."]
    assert [labelled.trace.text(step.part)[step.start : step.stop] for step in labelled.steps] == texts
    for text, terms in zip(texts, labelled.step_terms, strict=True):
        assert terms == {
            "alignment_max": Term(share(text, "a")),
            "coherence": Term(4 * share(text, "c") - 2),
            "quality": Term(share(text)),
        }
    assert labelled.trajectory_terms == {"trajectory": Term(share("It is 1.")), "lift": Term(None, "no control")}
    assert labelled.trajectory_target == share("It is 1.")
    assert labelled.status is LabelStatus.LABELLED
    assert all(0 <= target <= 1 for target in labelled.targets)
    assert labelled.formula == "bounded softmax(alignment_max, quality, coherence)"


def test_order_and_chunks():
    class Uneven(LengthJudge):
        async def judge(self, segmented):
            # Later ones are done first.
            await asyncio.sleep(0.02 * (5 - int(segmented.trace.id[1:]) % 5))
            return await super().judge(segmented)

    embedding = LengthEmbedding()
    chunks = list(labeller(Uneven(), embedding=embedding).label_chunks(iter(traces(20))))
    assert [[one.trace.id for one in chunk] for chunk in chunks] == [
        [f"t{n}" for n in range(first, min(first + 3, 20))] for first in range(0, 20, 3)
    ]
    assert embedding.batches == [[one.trace.id for one in chunk] for chunk in chunks]


def test_a_chunk_is_closed_by_its_characters_too():
    each = len("What is 1?Step 0 of 1.\n\nStep 1 of 1.It is 1.")
    same = [trace(1)] * 7
    chunks = labeller(chunk_traces=5, chunk_characters=2 * each).label_chunks(same)
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 1]
    assert [len(chunk) for chunk in labeller(chunk_traces=5).label_chunks(same)] == [5, 2]


def test_a_chunk_depends_on_nothing_before_it():
    whole = list(labeller().label_chunks(traces(12)))
    rest = list(labeller().label_chunks(traces(12)[6:]))
    assert rest == whole[2:]


def test_nothing_to_label_gives_nothing():
    assert list(labeller().label_chunks([])) == []


def test_parts_that_are_left_out():
    formula = Formula.parse("bounded mean(quality)")
    settings = LabelSettings(steps="blank-line")
    (labelled,) = Labeller(formula, judge=LengthJudge(), settings=settings).label([trace(1)])
    assert [set(terms) for terms in labelled.step_terms] == [{"quality"}] * 3
    assert labelled.trajectory_terms == {}
    assert labelled.trajectory_target is None
    with pytest.raises(UsageError, match="at least one of"):
        Labeller(formula)


@pytest.mark.parametrize(
    "settings", [{"steps": "bogus"}, {"concurrency": 0}, {"chunk_traces": 0}, {"chunk_characters": 0}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(UsageError):
        LabelSettings(**settings)


def test_traces_without_steps_are_asked_about_nobody():
    judge = LengthJudge()
    records = list(labeller(judge, steps="given").label([trace(1), Trace("t2", "p", response="\n")]))
    assert [one.status for one in records] == [LabelStatus.FAILED, LabelStatus.FAILED]
    assert "came without steps" in records[0].note
    (record,) = labeller(judge).label([Trace("t2", "p", response="\n")])
    assert (record.status, record.targets) == (LabelStatus.NO_STEPS, (None,))
    assert judge.asked == []


@pytest.mark.parametrize(
    ("part", "note"),
    [("judge", "quality: broken"), ("rater", "trajectory: broken"), ("embedding", "embedding: broken")],
)
@pytest.mark.parametrize("error", [PolicyError("broken"), InputError("broken"), ValueError("broken")])
def test_a_part_that_fails_costs_one_trace(part, note, error):
    broken = {"t4": error}
    parts = {"judge": LengthJudge(broken=broken), "rater": LengthRater(broken), "embedding": LengthEmbedding(broken)}
    records = list(labeller(**{part: parts[part]}).label(traces(9)))
    clean = list(labeller().label(traces(9)))
    failed = records.pop(4)
    assert records == clean[:4] + clean[5:]
    kind = "ValueError: " if type(error) is ValueError else ""
    assert (failed.status, failed.note) == (LabelStatus.FAILED, note.replace("broken", f"{kind}broken"))
    assert set(failed.targets) == {None}
    kept = {name for terms in failed.step_terms for name in terms}
    assert kept == {"judge": {"alignment_max", "coherence"}, "embedding": {"quality"}}.get(
        part, {"alignment_max", "coherence", "quality"}
    ), "what the other parts said is kept"


def test_terms_for_another_number_of_steps():
    class Short(LengthJudge):
        async def judge(self, segmented):
            return (await super().judge(segmented))[:-1]

    (record,) = labeller(Short()).label([trace(1)])
    assert record.status is LabelStatus.FAILED
    assert "expected terms for 3 steps, got them for 2" in record.note


@pytest.mark.parametrize("error", [PolicyStopped("gone"), OutputError("disk"), UsageError("odd")])
@pytest.mark.parametrize("part", ["judge", "rater", "embedding"])
def test_what_no_later_trace_gets_past_stops_the_pass(part, error):
    broken = {"t7": error}
    parts = {"judge": LengthJudge(broken=broken), "rater": LengthRater(broken), "embedding": LengthEmbedding(broken)}
    done, met = drained(labeller(**{part: parts[part]}).label_chunks(traces(1000)))
    assert met is error
    assert done == [["t0", "t1", "t2"], ["t3", "t4", "t5"]]


def test_after_a_stop_what_is_under_way_comes_to_its_end():
    ended = []

    class Slow(LengthJudge):
        stopped = False

        async def judge(self, segmented):
            if segmented.trace.id == "t2":
                # Every place is taken, and nobody has answered.
                while len(self.asked) <= 50:
                    await asyncio.sleep(0.01)
                self.stopped = True
                raise PolicyStopped("gone")
            terms = await super().judge(segmented)
            while not self.stopped:
                await asyncio.sleep(0.01)
            ended.append(segmented.trace.id)
            return terms

    judge = Slow(wait_s=0.2)
    with pytest.raises(PolicyStopped):
        list(labeller(judge, concurrency=50).label_chunks(traces(200)))
    assert len(judge.asked) > 50
    assert sorted(ended) == sorted(judge.asked), "an answer that is paid for is waited for"
    assert len(judge.asked) < 100, "and nothing more is asked"


def test_a_reader_that_fails_does_so_behind_its_good_traces():
    def failing():
        yield from traces(7)
        raise InputError("damaged")

    done, met = drained(labeller().label_chunks(failing()))
    assert isinstance(met, InputError)
    assert done == [["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6"]]


def test_a_fault_of_ours_is_raised(monkeypatch):
    from reasonflux_prm.labels import pipeline

    monkeypatch.setattr(pipeline, "combine_all", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(labeller().label_chunks(traces(7)))


def test_closing_gives_up_what_is_under_way():
    judge = LengthJudge(wait_s=60)
    judge.broken = {}

    class First(LengthJudge):
        async def judge(self, segmented):
            first = segmented.trace.id in ("t0", "t1", "t2")
            return await (super() if first else judge).judge(segmented)

    chunks = labeller(First()).label_chunks(traces(50))
    next(chunks)
    started = time.monotonic()
    chunks.close()
    assert time.monotonic() - started < 5
    assert judge.under_way == 0


def test_reading_stays_a_bounded_number_ahead():
    read = []

    def source():
        for one in traces(1000):
            read.append(one.id)
            yield one

    chunks = labeller(concurrency=4).label_chunks(source())
    next(chunks)
    time.sleep(0.3)
    ahead = len(read)
    assert ahead <= 8 * 4 + 2 * 3
    time.sleep(0.2)
    assert len(read) == ahead
    chunks.close()


def test_concurrency_is_kept_full_across_chunks():
    wait, concurrency, count = 0.05, 8, 160
    judge = LengthJudge(wait_s=wait)
    places = asyncio.Semaphore(concurrency)

    class Placed(LengthJudge):
        async def judge(self, segmented):
            async with places:
                return await judge.judge(segmented)

    started = time.monotonic()
    assert len(list(labeller(Placed(), concurrency=concurrency, chunk_traces=16).label(traces(count)))) == count
    took = time.monotonic() - started
    assert judge.most == concurrency
    assert took < 1.5 * wait * count / concurrency, "an idle moment at each chunk's end would double it"


def test_judge_and_rater_work_while_steps_are_embedded():
    release = threading.Event()
    judge = LengthJudge()

    class Slow(LengthEmbedding):
        def terms(self, batch):
            assert release.wait(20)
            return super().terms(batch)

    threading.Timer(0.3, lambda: (seen.append(len(judge.asked)), release.set())).start()
    seen = []
    list(labeller(judge, embedding=Slow()).label(traces(9)))
    assert seen[0] > 3


def test_time_by_stage():
    made = labeller(LengthJudge(wait_s=0.05), concurrency=100)
    list(made.label(traces(30)))
    assert set(made.stages.seconds) == {"reading", "embedding", "quality", "trajectory"}
    assert 0.05 <= made.stages.seconds["quality"] < 30 * 0.05, "time that traces share counts once"
    assert made.finished == 30
