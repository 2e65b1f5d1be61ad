"""Small pools of scored traces."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reasonflux_prm.records import PRMIdentity, ScoredTrace, Status, Step, Trace
from reasonflux_prm.selection.export import Export
from reasonflux_prm.selection.run import Extras, Outcome, run_selection
from reasonflux_prm.selection.settings import Selection
from reasonflux_prm.traces.resumable import Input
from reasonflux_prm.traces.write import json_line, scored_row

PRM = PRMIdentity("tiny", "0123456789ab", "native", "causal", "mean", 1.0)
OTHER = PRMIdentity("other", "ba9876543210", "native", "causal", "mean", 1.0)


def scored(
    name: str,
    reward: float | None = 0.5,
    *,
    thinking: Sequence[tuple[str, float | None]] = (("I think. ", 0.5),),
    response: Sequence[tuple[str, float | None]] | None = None,
    trajectory: float | None = 0.25,
    prm: PRMIdentity = PRM,
    status: Status = Status.SCORED,
    **fields: Any,
) -> ScoredTrace:
    """One scored trace; unless told otherwise, its texts are its own."""
    parts = {"thinking": list(thinking), "response": list(response or [(f"It is {name}.", 0.5)])}
    steps, rewards = [], []
    for part, pieces in parts.items():
        at = 0
        for text, value in pieces:
            steps.append(Step(part, at, at + len(text)))
            rewards.append(value)
            at += len(text)
    texts = {part: "".join(text for text, _ in pieces) for part, pieces in parts.items()}
    trace = Trace(name, fields.pop("problem", f"What is {name}?"), texts["thinking"], texts["response"], **fields)
    if status is not Status.SCORED:
        reward = None
    return ScoredTrace(trace, status, tuple(steps), tuple(rewards), trajectory, reward, prm, 7)


def many(count: int, seed: int = 0) -> list[ScoredTrace]:
    """Four traces a problem, of two teachers and three sources, half of them right."""
    rng = random.Random(seed)
    found = []
    for i in range(count):
        steps = [
            (f"Part {k} of {rng.randrange(10**6)} goes here. ", round(rng.random(), 4))
            for k in range(rng.randint(1, 6))
        ]
        about = {"source": f"s{i % 3}", "policy": f"p{i % 2}", "correct": rng.random() < 0.5, "answer": str(i % 7)}
        found.append(
            scored(
                f"t{i}",
                round(rng.random() * 2, 4),
                thinking=steps,
                response=[(f"The answer is {i % 7}.", round(rng.random(), 4))],
                problem=f"Problem {i // 4}: what is it?",
                meta={"domain": "xy"[i % 2]},
                **about,
            )
        )
    return found


def write_pool(path: Path, records: Iterable[ScoredTrace | Trace | dict[str, Any]]) -> Path:
    """Write scored traces, traces, or bare rows."""
    from reasonflux_prm.traces.native import trace_row

    rows = [
        scored_row(one) if isinstance(one, ScoredTrace) else trace_row(one) if isinstance(one, Trace) else one
        for one in records
    ]
    path.write_bytes(b"".join(map(json_line, rows)))
    return path


def select(
    folder: Path, records: Iterable[Any], output: str = "out.jsonl", export: Export | None = None, **asked: Any
) -> tuple[list[dict[str, Any]], Outcome]:
    """Write a pool, select from it, and return the rows in the order of their ranks, and the outcome."""
    pool = write_pool(folder / "pool.jsonl", records)
    extras = Extras(dropped=True, license="mit")
    outcome = run_selection(Input(str(pool)), folder / output, Selection(**asked), export, extras, fresh=True)
    return sorted(read_rows(outcome.path), key=lambda row: row["rank"]), outcome


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def dropped(folder: Path, output: str = "out") -> dict[str, tuple[str, str]]:
    """Return reason and detail of every dropped trace by its id; no trace is there twice."""
    rows = read_rows(folder / f"{output}.dropped.jsonl")
    found = {row["id"]: (row["reason"], row["detail"]) for row in rows}
    assert len(found) == len(rows)
    return found


def ids(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the ids."""
    return [row["id"] for row in rows]


def changed(record: ScoredTrace, **fields: Any) -> ScoredTrace:
    """Return a scored trace with other fields; those of the trace are named `trace_x`."""
    own = {name.removeprefix("trace_"): fields.pop(name) for name in list(fields) if name.startswith("trace_")}
    return dataclasses.replace(record, trace=dataclasses.replace(record.trace, **own), **fields)
