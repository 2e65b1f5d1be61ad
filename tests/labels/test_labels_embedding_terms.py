"""The terms of whole traces, against loops over the equations, with an encoder that is a table."""

import hashlib
import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonflux_prm.errors import UsageError
from reasonflux_prm.labels.embedding_terms import (
    BLANK,
    NO_DIRECTION,
    NO_PROBLEM,
    NO_RESPONSE,
    ODD_NEIGHBOUR,
    RESPONSE_STEP,
    EmbeddingSettings,
    EmbeddingTerms,
)
from reasonflux_prm.labels.encoder import Encoded
from reasonflux_prm.labels.formula import ALIGNMENT_TERMS
from reasonflux_prm.labels.negatives import NegativePool
from reasonflux_prm.records import SegmentedTrace, Step, Trace

NAMES = (*ALIGNMENT_TERMS, "coherence")


class TableEncoder:
    """Random unit vectors by text; `zero` in a text gives it no direction, `long` makes it three chunks."""

    def __init__(self, width=8):
        self.width = width
        self.calls = []

    def identity(self):
        return {"name": "table"}

    def vector(self, text):
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        vector = np.random.default_rng(seed).normal(size=self.width).astype(np.float32)
        return (
            np.full(self.width, np.nan, np.float32) if not text or "zero" in text else vector / np.linalg.norm(vector)
        )

    def encode(self, texts):
        self.calls.append(list(texts))
        vectors = np.array([self.vector(text) for text in texts], np.float32).reshape(len(texts), self.width)
        return Encoded(vectors, np.array([3 if "long" in text else int(bool(text)) for text in texts], np.int64))


def spans(part, steps):
    ends = [0, *itertools.accumulate(map(len, steps))]
    return [Step(part, start, stop) for start, stop in itertools.pairwise(ends)]


def trace(thinking, response, problem="What is it?", id="t"):
    cut = (*spans("thinking", thinking), *spans("response", response))
    return SegmentedTrace(Trace(id, problem, "".join(thinking), "".join(response)), cut, "given")


POOL = NegativePool.build([trace([f"{n} of {p}" for n in range(10)], [], f"p{p}") for p in range(5)], size=64)
SETTINGS = EmbeddingSettings(negatives=4)


def terms(*batch, pool=POOL, settings=SETTINGS):
    return EmbeddingTerms(TableEncoder(), pool, settings).terms(batch)


def values(step_terms, name):
    return [step[name].value for step in step_terms]


def reasons(step_terms, name):
    return [step[name].reason for step in step_terms]


texts = st.lists(st.sampled_from(["a", "b. ", "c\n\n", "long", " \n", "zero"]), max_size=6)


@given(texts, texts, st.sampled_from(["Why?", " "]))
@settings(max_examples=150)
def test_coherence_and_alignment_are_the_equations(thinking, response, problem):
    segmented = trace(thinking, response, problem)
    (found,) = terms(segmented)
    vector = TableEncoder().vector
    negatives = POOL.draw(segmented, 4)
    before = vector(problem.strip())
    answer = [vector(text.strip()) for text in response if text.strip() and "zero" not in text]
    for index, (text, step) in enumerate(zip([*thinking, *response], found, strict=True)):
        assert tuple(step) == NAMES
        current = vector(text.strip())
        if np.isnan(current).any():
            assert {(term.value, term.reason) for term in step.values()} == {
                (None, NO_DIRECTION if "zero" in text else BLANK)
            }
            continue
        below = sum(math.exp(before @ vector(POOL.texts[n]) / 0.1) for n in negatives[index])
        expected = math.log(math.exp(before @ current / 0.1) / below) if below == below else None
        assert step["coherence"].value == (None if expected is None else pytest.approx(expected, abs=2e-5))
        assert (step["coherence"].value is None) == (step["coherence"].reason in (NO_PROBLEM, ODD_NEIGHBOUR))
        before = current
        if index < len(thinking) and answer:
            assert step["alignment_max"].value == pytest.approx(max(current @ other for other in answer), abs=2e-6)
        else:
            assert step["alignment_max"].value is None


def test_the_first_response_step_follows_the_last_thinking_step():
    (whole,) = terms(trace(["a", "b"], ["c"]))
    (thought,) = terms(trace(["a", "b", "c"], []))
    assert values(whole, "coherence") == values(thought, "coherence")


def test_blank_steps_are_passed_over():
    (with_blank,) = terms(trace(["a", " \n", "b"], ["\n", "c"]))
    vector = TableEncoder().vector
    assert values(with_blank, "alignment_index")[0] == pytest.approx(vector("a") @ vector("c"), abs=1e-6)
    assert reasons(with_blank, "coherence") == [None, BLANK, None, BLANK, None]


def test_reasons():
    (found,) = terms(trace(["a", " "], ["b"]))
    for name in ALIGNMENT_TERMS:
        assert reasons(found, name) == [None, BLANK, RESPONSE_STEP]
    (found,) = terms(trace(["a", "zero"], []))
    assert reasons(found, "alignment_max") == [NO_RESPONSE, NO_DIRECTION]
    (found,) = terms(trace(["a", "b"], ["\n"], problem="\n"))
    assert reasons(found, "alignment_max") == [NO_RESPONSE, NO_RESPONSE, BLANK]
    assert reasons(found, "coherence") == [NO_PROBLEM, None, BLANK]
    (found,) = terms(trace(["a"], [], problem="zero"))
    assert reasons(found, "coherence") == [ODD_NEIGHBOUR]


def test_a_step_longer_than_the_window_says_so():
    (found,) = terms(trace(["long", "b"], ["c"]))
    assert reasons(found, "coherence") == ["longer than the encoder's window: the mean of 3 chunks", None, None]
    assert reasons(found, "alignment_max")[:2] == ["longer than the encoder's window: the mean of 3 chunks", None]
    assert found[0]["coherence"].value is not None


def test_one_problem_alone_has_no_coherence_but_alignment():
    alone = trace(["a", " ", "b"], ["c"])
    (found,) = terms(alone, pool=NegativePool.build([alone]))
    assert values(found, "coherence") == [None] * 4
    assert reasons(found, "coherence")[1] == BLANK
    assert "needs 4 steps of other problems, and the input has 0 of 0 other problems" in reasons(found, "coherence")[0]
    assert all(value is not None for value in (found[0]["alignment_max"].value, found[2]["alignment_dtw"].value))


def test_an_unlucky_negative_says_so():
    pool = NegativePool.build([trace([f"zero {n}" for n in range(10)], [], "other")])
    (found,) = terms(trace(["a"], []), pool=pool)
    assert reasons(found, "coherence") == [ODD_NEIGHBOUR]


def test_each_distinct_text_is_encoded_once_and_the_pool_at_the_first_call():
    encoder = TableEncoder()
    embedding = EmbeddingTerms(encoder, POOL, SETTINGS)
    batch = [trace(["a", "b\n\n", "a"], ["b"], id="1"), trace(["b", " a"], [" "], id="2")]
    first = embedding.terms(batch)
    assert encoder.calls == [list(POOL.texts), ["What is it?", "a", "b", ""]]
    embedding.terms(batch[:1])
    assert len(encoder.calls) == 3
    assert len(first) == 2
    assert [len(steps) for steps in first] == [4, 3]


def test_terms_do_not_depend_on_the_batch():
    batch = [trace([f"step {n}", "so"], [f"end {n}"], f"problem {n}", id=str(n)) for n in range(5)]
    together = terms(*batch)
    assert together == [terms(segmented)[0] for segmented in batch]
    assert terms() == []


def test_values_are_rounded_to_what_float32_carries():
    (found,) = terms(trace(["a"], ["b"]))
    for step in found:
        for term in step.values():
            assert term.value is None or term.value == round(term.value, 6)


def test_a_trace_without_steps_has_no_terms():
    assert terms(trace([], [])) == [()]


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": math.nan}, {"negatives": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UsageError, match="coherence needs a temperature above 0 and at least 1 negative"):
        EmbeddingSettings(**settings)


def test_identity_tells_runs_apart():
    embedding = EmbeddingTerms(TableEncoder(), POOL)
    assert embedding.identity() == {
        "encoder": {"name": "table"},
        "negatives": {"each": 16, **POOL.identity()},
        "temperature": 0.1,
    }


def test_memory_for_5000_steps_is_a_few_vectors_a_step():
    encoder = TableEncoder(width=64)
    long = trace([f"step {n}\n" for n in range(5000)], [f"end {n}\n" for n in range(50)])
    embedding = EmbeddingTerms(encoder, POOL, EmbeddingSettings())
    embedding.terms([trace(["a"], ["b"])])
    rows = {
        text: row
        for row, text in enumerate(
            ["What is it?", *(f"step {n}" for n in range(5000)), *(f"end {n}" for n in range(50))]
        )
    }
    encoded = encoder.encode(list(rows))
    tracemalloc.start()
    try:
        embedding._trace_terms(long, rows, encoded)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All negatives at once would be 5050 x 16 x 64 float32, 21 MB; the terms themselves take 5.
    assert peak < 16e6
