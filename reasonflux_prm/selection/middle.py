"""What reads the texts of candidates between the two passes: the student, and the encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.policy.surprise import SurpriseReader
from reasonflux_prm.records import Trace
from reasonflux_prm.selection.choose import Encode, Surprise
from reasonflux_prm.selection.coverage import Vectors
from reasonflux_prm.selection.export import Export
from reasonflux_prm.selection.index import Places
from reasonflux_prm.selection.pool import Pooled
from reasonflux_prm.selection.settings import Diversity, Part, Student
from reasonflux_prm.selection.student import SurpriseCache, ratio
from reasonflux_prm.selection.survey import Tick
from reasonflux_prm.storage import cache_folder

Pool = Callable[[], Iterator[Pooled]]
"""Reads the pool once more."""
WINDOW = 256
"""Traces whose texts are held at a time."""


def surprise_of(
    student: Student, export: Export, pool: Pool, cache: Path, stack: ExitStack, tick: Tick | None
) -> Surprise:
    """Return what has a student read traces; its readings are kept in `cache`, and none is made twice."""
    reader = SurpriseReader(student.model, device=student.device, dtype=student.dtype)
    known = SurpriseCache(cache, reader.identity())
    stack.callback(known.close)

    def surprise(places: Places) -> NDArray[np.float64]:
        ratios = np.full(len(places), np.nan)
        done = 0
        for rows, traces in _windows(pool, places):
            pairs = [_pair(reader, export, trace) for trace in traces]
            ratios[rows] = _ratios(reader, known, pairs)
            done += len(rows)
            if tick is not None:
                tick(f"of {len(places):,} read by the student", done)
        return ratios

    return surprise


def _pair(reader: SurpriseReader, export: Export, trace: Trace) -> tuple[str, str]:
    """Return prompt and turn as the student will be trained on them; without a chat template, one below the other."""
    if (pair := export.pair(trace) or reader.in_chat(trace.problem.strip(), export.message(trace))) is not None:
        return pair
    return f"{trace.problem.strip()}\n\n", export.template.turn(trace.thinking, trace.response)


def _ratios(reader: SurpriseReader, known: SurpriseCache, pairs: list[tuple[str, str]]) -> list[float]:
    keys = [known.key(*pair) for pair in pairs]
    found = known.get(keys)
    fresh = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in found}
    # The longest first, and some at a time: a kill loses what has not been kept.
    order = sorted(fresh, key=lambda key: -len(fresh[key][1]))
    for start in range(0, len(order), WINDOW // 8):
        part = order[start : start + WINDOW // 8]
        rows = [
            (key, reading.tokens, reading.ranks, reading.surprisal) if reading is not None else (key, 0, None, None)
            for key, reading in zip(part, reader.read([fresh[key] for key in part]), strict=True)
        ]
        known.put(rows)
        found.update({key: (ranks, surprisal) for key, _, ranks, surprisal in rows})
    return [ratio(*found[key]) for key in keys]


def encoder_of(diversity: Diversity, pool: Pool, stack: ExitStack, tick: Tick | None) -> Encode:
    """Return what encodes traces; vectors are kept in the cache folder."""
    from reasonflux_prm.labels.encoder import open_encoder

    encoder = open_encoder(diversity.encoder, cache_folder() / "embeddings.sqlite", diversity.device)
    stack.callback(encoder.close)

    def encode(places: Places) -> Vectors:
        vectors = np.full((len(places), encoder.width), np.nan, np.float32)
        done = 0
        for rows, traces in _windows(pool, places):
            vectors[rows] = encoder.encode([_text(trace, diversity.part) for trace in traces]).vectors
            done += len(rows)
            if tick is not None:
                tick(f"of {len(places):,} encoded", done)
        return vectors

    return encode


def _text(trace: Trace, part: Part) -> str:
    if part == "problem":
        return trace.problem
    return trace.response if part == "response" else "\n\n".join((trace.thinking, trace.response))


def _windows(pool: Pool, places: Places) -> Iterator[tuple[list[int], list[Trace]]]:
    """Yield some of the traces of `places` at a time, in the order of the pool, with their rows in `places`."""
    row_of = {int(place): row for row, place in enumerate(places)}
    wanted = ((row_of[place], pooled.trace) for place, pooled in enumerate(pool()) if place in row_of)
    while window := list(islice(wanted, WINDOW)):
        rows, traces = zip(*window, strict=True)
        yield list(rows), list(traces)
