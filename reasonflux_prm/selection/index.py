"""What is kept of each trace of the pool while it is chosen: some 40 bytes, whatever its length.

Texts stay where they are; the pool is read again for those that are written. Ids and what speaks against a trace go to
a file of their own.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.records import PRMIdentity, Trace
from reasonflux_prm.selection.reasons import CODES, REASONS, Reason
from reasonflux_prm.selection.words import text_key

Places = NDArray[np.int64]
"""Places of traces in the pool, counted from 0."""
_MOST_NAMES = 1000
"""Teachers that are told apart; the rest are one."""
_OTHERS = "(others)"
_VERDICTS = {True: 1, False: 0, None: -1}


class Notes:
    """An id and a detail for each trace, in a file; only where each begins is in memory."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("w+b")
        self._starts = array("Q")

    def append(self, id: str, detail: str) -> None:
        """Add those of the next trace."""
        self._starts.append(self._file.tell())
        # ASCII, so that half a surrogate pair in an id is no trouble.
        self._file.write(json.dumps([id, detail]).encode() + b"\n")

    def get(self, place: int) -> tuple[str, str]:
        """Return the id and the detail of a trace."""
        self._file.seek(self._starts[place])
        id, detail = json.loads(self._file.readline())
        return id, detail

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Index:
    """The pool, as far as choosing needs it; filled trace by trace, then frozen into arrays."""

    def __init__(self, notes: Notes, quotas: Sequence[str], seed: int) -> None:
        self.notes = notes
        self.makers: Counter[PRMIdentity] = Counter()
        """The PRMs of the pool, by the traces they scored; see `pool.maker`."""
        self.combinations: set[tuple[str, float]] = set()
        """Aggregation and alpha of the scored traces."""
        self.teachers: dict[str, int] = {}
        self._seed = seed
        self._scores, self._ties, self._texts = array("d"), array("Q"), array("Q")
        self._codes, self._verdicts, self._teachers = array("B"), array("b"), array("I")
        self._quotas = {column: array("Q") for column in quotas}

    def append(self, trace: Trace, correct: bool | None, score: float | None, reason: Reason, detail: str) -> None:
        """Add the next trace."""
        text = text_key(trace.problem, trace.thinking, trace.response)
        self._scores.append(math.nan if score is None else score)
        self._texts.append(text)
        # By the text, so that neither the order of the pool nor its other traces say who wins a tie.
        self._ties.append(text_key(str(self._seed), str(text), trace.id))
        self._codes.append(CODES[reason])
        self._verdicts.append(_VERDICTS[correct])
        self._teachers.append(self._teacher(trace.policy or trace.source or "(none)"))
        for column, keys in self._quotas.items():
            keys.append(text_key(json.dumps(column_value(trace, column), sort_keys=True, default=str)))
        self.notes.append(trace.id, detail)

    def _teacher(self, name: str) -> int:
        if name not in self.teachers and len(self.teachers) >= _MOST_NAMES:
            name = _OTHERS
        return self.teachers.setdefault(name, len(self.teachers))

    def freeze(self) -> None:
        """Turn what has been added into arrays."""
        self.score = _frozen(self._scores)
        """(B,) what a trace is ranked by, higher first; NaN if it has no such number."""
        self.reward = self.score
        """(B,) the same before a student had a say."""
        self.tie: NDArray[np.uint64] = _frozen(self._ties)
        self.text: NDArray[np.uint64] = _frozen(self._texts)
        self.code: NDArray[np.uint8] = _frozen(self._codes).copy()
        """(B,) places in `REASONS`; 0 for those that nothing speaks against so far."""
        self.verdict: NDArray[np.int8] = _frozen(self._verdicts)
        self.teacher: NDArray[np.uint32] = _frozen(self._teachers)
        self.quota: dict[str, NDArray[np.uint64]] = {name: _frozen(keys) for name, keys in self._quotas.items()}
        self.rank = np.zeros(len(self.code), np.int64)
        """(B,) place among the kept, counted from 1; 0 for the others."""
        self.like = np.full(len(self.code), -1, np.int64)
        """(B,) of duplicates and near-duplicates, the better trace that they are like; -1 for the others."""
        self.likeness = np.zeros(len(self.code), np.float32)
        """(B,) how like it they are, in [0, 1]."""

    def __len__(self) -> int:
        return len(self._codes)

    def ranked(self) -> Places:
        """Return the places of those that nothing speaks against, the best first; ties by a hash of text and seed."""
        alive = np.flatnonzero(self.code == 0)
        return alive[np.lexsort((alive, self.tie[alive], -self.score[alive]))]

    def drop(self, places: Places, reason: Reason) -> None:
        """Say why some are not kept."""
        self.code[places] = CODES[reason]

    def counts(self) -> dict[str, int]:
        """Return the number of traces by reason."""
        found = np.bincount(self.code, minlength=len(REASONS))
        return {reason.value: int(number) for reason, number in zip(REASONS, found, strict=True) if number}

    def detail(self, place: int) -> str:
        """Return what there is to say of why a trace is not kept."""
        if (like := int(self.like[place])) >= 0:
            other = self.notes.get(like)[0]
            share = float(self.likeness[place])
            return f"the same text as {other}" if share == 1 else f"{share:.2f} like {other}"
        return self.notes.get(place)[1]

    def distributions(self) -> list[dict[str, Any]]:
        """Return how the rewards are spread by teacher, verdict, and kept or dropped, for a manifest."""
        known = np.isfinite(self.reward)
        rows: list[dict[str, Any]] = []
        for name, teacher in sorted(self.teachers.items()):
            for verdict, kept in ((v, k) for v in _VERDICTS for k in (True, False)):
                here = known & (self.teacher == teacher) & (self.verdict == _VERDICTS[verdict])
                values = self.reward[here & ((self.code == 0) == kept)]
                if values.size:
                    points = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
                    shape = dict(zip(("p5", "p25", "median", "p75", "p95"), map(_short, points), strict=True))
                    about = {"teacher": name, "correct": verdict, "kept": kept, "traces": int(values.size)}
                    rows.append({**about, "mean": _short(values.mean()), **shape})
        return rows


def column_value(trace: Trace, column: str) -> Any:
    """Return what a quota counts: the problem (its group, if it has one), a field of the trace, or a column."""
    if column == "problem":
        return trace.group or " ".join(trace.problem.casefold().split())
    if column in ("source", "policy", "correct", "answer", "group"):
        return getattr(trace, column)
    return trace.meta.get(column)


def _frozen(values: array[Any]) -> NDArray[Any]:
    return np.frombuffer(values, dtype=np.dtype(values.typecode)) if values else np.zeros(0, values.typecode)


def _short(value: Any) -> float:
    return float(f"{float(value):.6g}")
