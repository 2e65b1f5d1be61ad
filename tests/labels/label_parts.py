"""Stand-ins for the parts of a labeller: their terms follow from the text, so that every run gives the same ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reasonflux_prm.labels.encoder import Encoded
from reasonflux_prm.labels.formula import Formula
from reasonflux_prm.labels.pipeline import Labeller, LabelSettings
from reasonflux_prm.records import SegmentedTrace, Term, Trace


def share(text: str, salt: str = "") -> float:
    """A number in [0, 1) that follows from a text."""
    return sum((index + 1) * ord(letter) for index, letter in enumerate(text + salt)) % 997 / 997


class LengthJudge:
    """Calls a step good if its text says so; waits before it answers, and remembers what it was asked."""

    name = "length"

    def __init__(self, wait_s: float = 0.0, broken: Mapping[str, Exception] | None = None) -> None:
        self.wait_s, self.broken = wait_s, dict(broken or {})
        self.asked: list[str] = []
        self.under_way = self.most = 0

    def identity(self) -> Mapping[str, Any]:
        return {"judge": self.name}

    async def judge(self, segmented: SegmentedTrace) -> tuple[Mapping[str, Term], ...]:
        self.asked.append(segmented.trace.id)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.wait_s)
        finally:
            self.under_way -= 1
        if error := self.broken.get(segmented.trace.id):
            raise error
        return tuple(
            {"quality": Term(share(text)) if "skip" not in text else Term(None, f"no claim in {len(text)} letters")}
            for text in map(segmented.text, segmented.steps)
        )


class LengthRater:
    """Rates a trace by its response."""

    name = "length"

    def __init__(self, broken: Mapping[str, Exception] | None = None) -> None:
        self.broken = dict(broken or {})

    def identity(self) -> Mapping[str, Any]:
        return {"rater": self.name}

    async def rate(self, segmented: SegmentedTrace) -> Mapping[str, Term]:
        if error := self.broken.get(segmented.trace.id):
            raise error
        return {"trajectory": Term(share(segmented.trace.response)), "lift": Term(None, "no control")}


class LengthEmbedding:
    """Gives every step the same kind of terms; remembers its batches."""

    def __init__(self, broken: Mapping[str, Exception] | None = None) -> None:
        self.broken = dict(broken or {})
        self.batches: list[list[str]] = []

    def identity(self) -> Mapping[str, Any]:
        return {"encoder": "length"}

    def terms(self, batch: Sequence[SegmentedTrace]) -> list[tuple[dict[str, Term], ...]]:
        self.batches.append([segmented.trace.id for segmented in batch])
        for segmented in batch:
            if error := self.broken.get(segmented.trace.id):
                raise error
        return [
            tuple(
                {"alignment_max": Term(share(text, "a")), "coherence": Term(4 * share(text, "c") - 2)}
                for text in map(segmented.text, segmented.steps)
            )
            for segmented in batch
        ]


class LetterEncoder:
    """Encodes a text by its letters; counts what it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def identity(self) -> Mapping[str, Any]:
        return {"name": "letters"}

    def encode(self, texts: Sequence[str]) -> Encoded:
        self.texts.extend(texts)
        rows = np.ones((len(texts), 32), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for letter in text:
                row[ord(letter) % 32] += 1
        return Encoded(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.ones(len(texts), np.int64))


def labeller(judge=None, rater=None, embedding=None, formula="bounded", **settings) -> Labeller:
    """A labeller with a chunk of three traces."""
    return Labeller(
        Formula.parse(formula),
        embedding=embedding or LengthEmbedding(),
        judge=judge or LengthJudge(),
        rater=rater or LengthRater(),
        settings=LabelSettings(**{"steps": "blank-line", "chunk_traces": 3, "concurrency": 2, **settings}),
    )


def trace(number: int, **fields: Any) -> Trace:
    """A trace of a few steps, other ones for every number."""
    thinking = "\n\n".join(f"Step {k} of {number}." for k in range(number % 5 + 1))
    return Trace(f"t{number}", f"What is {number}?", **{"thinking": thinking, "response": f"It is {number}.", **fields})


def traces(count: int) -> list[Trace]:
    return [trace(number) for number in range(count)]


BAD_LINES = ("not json", '{"id": "x", "colour": "blue"}')


def write_traces(path: Path, count: int = 10, bad_every: int = 4) -> Path:
    """Write traces with a bad line before every few; the sixth has no text."""
    lines = []
    for number in range(count):
        if bad_every and number % bad_every == 0:
            lines.append(BAD_LINES[number // bad_every % len(BAD_LINES)])
        one = trace(number, **({"thinking": "", "response": " \n"} if number == 5 else {}))
        row = {"id": one.id, "problem": one.problem, "thinking": one.thinking, "response": one.response}
        lines.append(json.dumps({**row, "answer": str(number), "topic": number if number % 2 else "sums"}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
