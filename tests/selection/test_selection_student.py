"""The student's say: surprise against transformers' own loss, its cache, and the blended score; and coverage."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from selection_pools import dropped, ids, many, scored, select, write_pool

from reasonflux_prm.errors import OutputError, PolicyStopped, UsageError
from reasonflux_prm.selection import middle
from reasonflux_prm.selection.coverage import cover
from reasonflux_prm.selection.export import Export
from reasonflux_prm.selection.run import run_selection
from reasonflux_prm.selection.settings import Diversity, Selection, Student
from reasonflux_prm.selection.student import SurpriseCache, blended, mid_ranks, ratio
from reasonflux_prm.traces.resumable import Input

POOL = many(12)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random model with a chat template, context 2,048."""
    sys.path.append(str(Path(__file__).parents[1] / "policy"))
    from tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("student") / "model", context=2048)


@pytest.fixture
def reader(model):
    from reasonflux_prm.policy.surprise import SurpriseReader

    return SurpriseReader(str(model), device="cpu")


def reference(model, prompt, turn):
    """Ranks and surprisal by one plain pass."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tokens = head + tokenizer(turn, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([tokens])).logits[0]
    ranks, surprisal = 0.0, 0.0
    for place in range(len(head), len(tokens)):
        scores = logits[place - 1]
        order = scores.argsort(descending=True).tolist()
        ranks += min(order.index(tokens[place]) + 1, 100)
        surprisal -= float(scores.log_softmax(0)[tokens[place]])
    return len(tokens) - len(head), ranks, surprisal


PAIRS = [("<|start|>user\nq<|end|>", "some turn"), ("p", "a longer turn with more to it " * 8), ("pp", "x")]


@pytest.mark.parametrize("batch_tokens", [7, 64, 4096])
def test_readings_are_those_of_one_plain_pass(model, batch_tokens):
    from reasonflux_prm.policy.surprise import SurpriseReader

    found = SurpriseReader(str(model), device="cpu", batch_tokens=batch_tokens).read(PAIRS)
    for reading, pair in zip(found, PAIRS, strict=True):
        tokens, ranks, surprisal = reference(model, *pair)
        assert (reading.tokens, reading.ranks) == (tokens, ranks)
        assert reading.surprisal == pytest.approx(surprisal, rel=1e-4)


def test_what_does_not_fit_or_is_empty_is_none(reader):
    assert reader.read([("p", "x" * 3000), ("p", ""), ("", "x"), ("p", "fine")])[:3] == [None, None, None]


def test_the_chat_template_writes_prompt_and_turn(reader):
    pair = reader.in_chat("What?", {"role": "assistant", "content": "<think>\nT\n</think>\n\nR"})
    assert pair == ("<|start|>user\nWhat?<|end|><|start|>assistant\n", "<think>\nT\n</think>\n\nR<|end|>")


def test_an_unknown_student(tmp_path):
    from reasonflux_prm.policy.surprise import SurpriseReader

    with pytest.raises(PolicyStopped, match="neither a model's folder"):
        SurpriseReader(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="unknown dtype"):
        SurpriseReader(str(tmp_path), dtype="int8")


# --- scores ----------------------------------------------------------------------------------------------------------


def test_blended_by_hand():
    rewards, ratios = np.array([0.9, 0.1, 0.5]), np.array([4.0, 1.0, 2.0])
    assert blended(rewards, ratios, 0.0).tolist() == mid_ranks(rewards).tolist() == [5 / 6, 1 / 6, 0.5]
    assert blended(np.full(3, np.nan), ratios, 1.0).tolist() == [1 / 6, 5 / 6, 0.5]
    assert blended(rewards, ratios, 0.5).tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_the_ratio_is_the_papers():
    assert ratio(30.0, 6.0) == 5.0
    assert np.isnan(ratio(None, None))


def rsr(model, record, template="think"):
    from reasonflux_prm.policy.surprise import SurpriseReader

    export = Export.of("messages", template)
    reader = SurpriseReader(str(model), device="cpu")
    (reading,) = reader.read([reader.in_chat(record.trace.problem, export.message(record.trace))])
    return reading.ranks / reading.surprisal


def test_by_student_ranks_by_the_ratio_alone(tmp_path, model):
    rows, _ = select(tmp_path, POOL, by="student", student=Student(str(model), device="cpu"), top=4)
    expected = sorted(POOL, key=lambda record: rsr(model, record))[:4]
    assert ids(rows) == [record.trace.id for record in expected]


def test_reward_and_student_are_blended(tmp_path, model):
    rows, _ = select(tmp_path, POOL, student=Student(str(model), 0.3, "cpu"), top=12)
    scores = blended(
        np.array([record.reward for record in POOL]), np.array([rsr(model, record) for record in POOL]), 0.3
    )
    by_score = {record.trace.id: score for record, score in zip(POOL, scores, strict=True)}
    got = [by_score[id] for id in ids(rows)]
    assert got == sorted(got, reverse=True)


def test_the_rows_still_have_the_reward(tmp_path, model):
    rows, _ = select(tmp_path, POOL, student=Student(str(model), 0.3, "cpu"), top=3)
    by_id = {record.trace.id: record.reward for record in POOL}
    assert all(row["reward"] == by_id[row["id"]] for row in rows)


def test_candidates_bound_what_the_student_reads(tmp_path, model):
    rows, outcome = select(tmp_path, POOL, student=Student(str(model), 0.5, "cpu"), candidates=5, top=3)
    best = sorted(POOL, key=lambda record: -record.reward)[:5]
    assert set(ids(rows)) <= {record.trace.id for record in best}
    assert outcome.counts == {"kept": 3, "outside-candidates": 7, "rank": 2}


def test_a_trace_longer_than_the_students_context_is_set_aside(tmp_path, model):
    records = [*POOL, scored("long", 9.0, thinking=[("word " * 1000, 0.5)])]
    _, outcome = select(tmp_path, records, student=Student(str(model), 0.5, "cpu"))
    assert outcome.counts["student-cannot-read"] == 1
    assert dropped(tmp_path)["long"][0] == "student-cannot-read"


def test_no_trace_is_read_twice(tmp_path, model, monkeypatch):
    select(tmp_path, POOL, student=Student(str(model), 0.3, "cpu"), top=3)

    def never(*_):
        raise AssertionError("read again")

    monkeypatch.setattr("reasonflux_prm.policy.surprise.SurpriseReader._read_batch", never)
    select(tmp_path, POOL, student=Student(str(model), 0.9, "cpu"), top=5)
    with pytest.raises(AssertionError, match="read again"):
        select(tmp_path, POOL, "out.jsonl", Export.of("messages", "none"), student=Student(str(model), device="cpu"))


def test_a_killed_run_keeps_what_was_read(tmp_path, model, monkeypatch):
    pool = write_pool(tmp_path / "pool.jsonl", many(80))
    monkeypatch.setattr(middle, "WINDOW", 16)
    asked = Selection(student=Student(str(model), 0.3, "cpu"), top=3)
    real, calls = SurpriseCache.put, itertools.count()

    def dies(self, rows):
        if next(calls) == 3:
            raise KeyboardInterrupt
        real(self, rows)

    monkeypatch.setattr(SurpriseCache, "put", dies)
    with pytest.raises(KeyboardInterrupt):
        run_selection(Input(str(pool)), tmp_path / "out.jsonl", asked)
    assert not (tmp_path / "out.jsonl").exists()
    stored = []
    monkeypatch.setattr(SurpriseCache, "put", lambda self, rows: (stored.extend(rows), real(self, rows)))
    run_selection(Input(str(pool)), tmp_path / "out.jsonl", asked)
    assert len(stored) == 80 - 3 * 2


def test_a_broken_cache_is_one_sentence(tmp_path, model):
    (tmp_path / "out.student.sqlite").write_text("no database, but long enough to be looked at" * 50)
    with pytest.raises(OutputError, match=r"out\.student\.sqlite, where the student's readings are kept"):
        select(tmp_path, POOL, student=Student(str(model), device="cpu"))


# --- coverage --------------------------------------------------------------------------------------------------------


def units(rows, width=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def facility(vectors, chosen):
    return np.maximum(vectors @ vectors[list(chosen)].T, 0).max(axis=1).sum()


def test_facility_is_greedy_and_near_the_best_there_is():
    vectors = units(12)
    chosen = cover(vectors, 3, "facility")
    plain: list[int] = []
    for _ in range(3):
        plain.append(
            max(set(range(12)) - set(plain), key=lambda row: (round(facility(vectors, [*plain, row]), 4), -row))
        )
    assert chosen == plain
    best = max(facility(vectors, subset) for subset in itertools.combinations(range(12), 3))
    assert facility(vectors, chosen) >= (1 - 1 / np.e) * best


def test_facility_does_not_depend_on_the_block(monkeypatch):
    from reasonflux_prm.selection import coverage

    vectors = units(300)
    whole = cover(vectors, 20, "facility")
    monkeypatch.setattr(coverage, "_BLOCK", 7)
    assert cover(vectors, 20, "facility") == whole


def test_k_center_begins_with_the_best_and_takes_the_farthest():
    vectors = units(40)
    chosen = cover(vectors, 5, "k-center")
    assert chosen[0] == 0
    for step in range(1, 5):
        nearest = (vectors @ vectors[chosen[:step]].T).max(axis=1)
        nearest[chosen[:step]] = np.inf
        assert chosen[step] == int(nearest.argmin())


@pytest.mark.parametrize("how", ["facility", "k-center"])
def test_twins_come_after_everything_else(how):
    vectors = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    chosen = cover(vectors, 12, how)
    assert sorted(row // 3 for row in chosen[:4]) == [0, 1, 2, 3]
    assert sorted(chosen) == list(range(12))


@pytest.mark.parametrize("how", ["facility", "k-center"])
def test_blank_ones_come_last_and_what_is_not_allowed_never(how):
    vectors = units(6)
    vectors[2] = np.nan
    assert cover(vectors, 6, how)[-1] == 2
    assert 4 not in cover(vectors, 6, how, lambda row: row != 4)
    assert cover(vectors[:0], 3, how) == []


class FakeEncoder:
    """Gives each first letter a direction of its own."""

    width = 26

    def encode(self, texts):
        vectors = np.zeros((len(texts), 26), np.float32)
        for row, text in enumerate(texts):
            vectors[row, ord(text[0]) - ord("a")] = 1
        return type("Encoded", (), {"vectors": vectors})

    def close(self):
        pass


@pytest.fixture
def encoder(monkeypatch):
    monkeypatch.setattr("reasonflux_prm.labels.encoder.open_encoder", lambda *_: FakeEncoder())


def letters():
    problems = ["apple pie", "apple cake", "apple jam", "banana", "cherry"]
    return [scored(f"t{i}", 1.0 - 0.1 * i, problem=problem) for i, problem in enumerate(problems)]


@pytest.mark.parametrize("how", ["facility", "k-center"])
def test_diversity_covers_the_problems(tmp_path, encoder, how):
    rows, outcome = select(tmp_path, letters(), top=3, diversity=Diversity(how))
    assert {row["id"] for row in rows} == {"t0", "t3", "t4"}
    assert outcome.counts == {"kept": 3, "rank": 2}


def test_diversity_chooses_among_the_candidates_alone_and_within_quotas(tmp_path, encoder):
    rows, outcome = select(tmp_path, letters(), top=3, candidates=4, diversity=Diversity("facility"))
    assert {row["id"] for row in rows} == {"t0", "t1", "t3"}
    assert outcome.counts["outside-candidates"] == 1
    records = [
        scored(r.trace.id, r.reward, problem=r.trace.problem, source="ab"[i > 2]) for i, r in enumerate(letters())
    ]
    rows, outcome = select(tmp_path, records, top=3, quotas={"source": 1}, diversity=Diversity("k-center"))
    assert len(rows) == 2
    assert outcome.counts["quota"] == 3
