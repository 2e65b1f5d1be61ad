"""Every rule on real thinking trajectories and responses."""

import json
from pathlib import Path

import pytest
from steps_texts import cut_inside, pieces_of

from reasonflux_prm.steps.adaptive import AdaptiveBounds, adaptive_ends
from reasonflux_prm.steps.estimate import estimate_tokens
from reasonflux_prm.steps.protect import protected_spans
from reasonflux_prm.steps.rules import blank_line_ends
from reasonflux_prm.steps.split import RULES

TRACES = Path(__file__).parents[2].parent / "shared" / "data" / "traces"
FILES = sorted(TRACES.glob("*.jsonl"))
pytestmark = pytest.mark.skipif(not FILES, reason="the shared traces are not here")


def real_texts(every, part=None):
    parts = (part,) if part else ("thinking", "response")
    for file in FILES:
        with file.open(encoding="utf-8") as lines:
            for row in (json.loads(line) for index, line in enumerate(lines) if index % every == 0):
                yield from (row[name] for name in parts if row[name])


def check_round_trips(every):
    seen = 0
    for text in real_texts(every):
        seen += 1
        spans = protected_spans(text)
        for name, rule in RULES.items():
            ends = rule(text)
            steps = pieces_of(text, ends)
            assert "".join(steps) == text
            assert all(step.strip() for step in steps) or not text.strip()
            assert name == "blank-line" or not cut_inside(ends, spans)
    assert seen > 50


def test_some_real_traces_round_trip():
    check_round_trips(every=20)


@pytest.mark.slow
def test_every_real_trace_round_trips():
    check_round_trips(every=1)


def test_the_blank_line_rule_makes_the_papers_steps():
    for text in real_texts(every=5):
        paragraphs = [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]
        assert [step.strip() for step in pieces_of(text, blank_line_ends(text))] == paragraphs


def test_steps_of_real_thinking_have_sane_sizes():
    bounds = AdaptiveBounds()
    sizes = []
    for text in real_texts(every=12, part="thinking"):
        steps = [estimate_tokens(step) for step in pieces_of(text, adaptive_ends(text))]
        sizes.extend(steps if len(steps) > 1 else [])
    sizes.sort()
    assert len(sizes) > 1000
    assert 30 <= sizes[len(sizes) // 2] <= 70
    assert sum(bounds.min_tokens <= size <= bounds.max_tokens for size in sizes) / len(sizes) > 0.999


def test_prices_in_real_word_problems_are_no_formulas():
    with (TRACES / "mip_gsm8k.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [row["thinking"] for row in rows if row["thinking"] and "$" in row["thinking"]]
    inside = [text[a:b] for text in texts for a, b in protected_spans(text) if text[a] == "$"]
    assert len(texts) > 100
    assert not [formula for formula in inside if "\n" in formula or len(formula) > 200]
    assert len(inside) < 100
