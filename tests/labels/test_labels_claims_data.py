"""False alarms and misses on real solutions; skipped where the shared data is absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasonflux_prm.labels.claims.algebra import answer
from reasonflux_prm.labels.claims.check import Known, check

DATA = Path(__file__).parents[2].parent / "shared" / "data"
_GSM8K = """167 168 224 442 2249 2287 3002 3205 3334 3409 4691 4973 5152 5195 5350 5457 5781 6001 6157 6256 6700 6713
    6760 6812 6842 7178"""
REALLY_WRONG = {f"gsm8k-train-{number}" for number in _GSM8K.split()} | {"math500-174"}
"""Reference solutions that hold an equation that is false as it is written; each was looked at ("2*8 = 24")."""


def rows(name):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def judged(name, every):
    """Return how many claims the solutions of every n-th row make, and those of them that are called false."""
    decided, false = 0, []
    for index, row in enumerate(rows(name)):
        if index % every or row["id"] in REALLY_WRONG:
            continue
        verdicts = check(row["solution"], Known(row["problem"]), answer)
        decided += sum(verdict.holds is not None for verdict in verdicts)
        false += [(row["id"], verdict.claim) for verdict in verdicts if verdict.holds is False]
    return decided, false


def test_reference_solutions_of_gsm8k_hold():
    decided, false = judged("problems/gsm8k_train.jsonl", every=20)
    assert decided > 1400
    assert false == []


@pytest.mark.slow
def test_all_reference_solutions_of_gsm8k_hold():
    decided, false = judged("problems/gsm8k_train.jsonl", every=1)
    assert decided > 30_000
    assert len(false) <= decided / 1000


@pytest.mark.slow
def test_reference_solutions_of_math500_hold():
    decided, false = judged("problems/math500.jsonl", every=1)
    assert decided > 1000
    assert false == []


@pytest.mark.slow
def test_wrong_arithmetic_is_caught():
    caught = wrong = 0
    for row in rows("steps/bigbench_mistake.jsonl"):
        if row["category"] == "multistep_arithmetic" and row["mistake_index"] is not None:
            step = row["steps"][row["mistake_index"]]
            wrong += 1
            caught += any(verdict.holds is False for verdict in check(step, Known(row["problem"]), answer))
    assert caught > 0.9 * wrong
