"""How well a trace suits a student: the rank-surprisal ratio, its cache, and how it is joined to the reward.

For the tokens t of the assistant's turn, as the student reads them behind the problem (arXiv:2601.14249; the reading is
that of `rsr_cal.py` in UmeanNever/RankSurprisalRatio at 2675c010):

    RSR = sum_t min(rank_t, 100) / sum_t -log p_t

rank_t is 1 plus the number of tokens that the student holds more likely. The lower, the better the trace suits: its
tokens are improbable, and yet among those the student would think of. The paper ranks by RSR alone (`--by student`).
Joined to the reward it is ours: with q the mid-rank share, in (0, 1), among the traces the student has read,

    score = (1 - w) * q(reward) + w * q(-RSR)

because the two have no scale in common. We read a trace as it will be trained on: through the student's own chat
template where that can carry thinking. We never cut one: what does not fit into the student's context has no ratio.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import OutputError

_TABLE = "CREATE TABLE IF NOT EXISTS surprise (key BLOB PRIMARY KEY, tokens INTEGER, ranks REAL, surprisal REAL)"
_TINY = 1e-12
"""Least surprisal of a trace, as in the authors' code."""


def ratio(ranks: float | None, surprisal: float | None) -> float:
    """Return the rank-surprisal ratio of sums over a trace's tokens; NaN if there are none."""
    return math.nan if ranks is None or surprisal is None else ranks / max(surprisal, _TINY)


def blended(rewards: NDArray[np.float64], ratios: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """Return (M,) scores, higher is better; see the module.

    Args:
        rewards: (M,); NaN where `weight` is 1 and there are none.
        ratios: (M,) rank-surprisal ratios, finite.
        weight: Of the student, in [0, 1].
    """
    suits = weight * mid_ranks(-ratios)
    return suits if weight == 1 else suits + (1 - weight) * mid_ranks(rewards)


def mid_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (M,) the share of values below each, equal ones and itself counting a half.

    Example:
        >>> mid_ranks(np.array([3.0, 1.0, 3.0, 9.0])).tolist()
        [0.5, 0.125, 0.5, 0.875]
    """
    _, member, sizes = np.unique(values, return_inverse=True, return_counts=True)
    below = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    shares: NDArray[np.float64] = (below + sizes / 2)[member] / max(1, len(values))
    return shares


class SurpriseCache:
    """What a student made of traces, in a file beside the output: a run that is killed reads no trace twice."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Open the file, or make it.

        Args:
            path: The file; its folder is made.
            identity: What the numbers depend on besides the texts.

        Raises:
            OutputError: The file cannot be written, or is no database.
        """
        self.path = path
        self._identity = json.dumps(identity, sort_keys=True)
        with self._explaining():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(_TABLE)

    def key(self, prompt: str, turn: str) -> bytes:
        """Return what a reading is found by."""
        text = json.dumps([self._identity, prompt, turn])
        return hashlib.sha256(text.encode()).digest()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, tuple[float | None, float | None]]:
        """Return the sums of ranks and surprisal that are there; None of a trace that could not be read."""
        found: dict[bytes, tuple[float | None, float | None]] = {}
        with self._explaining():
            for key in keys:
                row = self._database.execute("SELECT ranks, surprisal FROM surprise WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = row
        return found

    def put(self, rows: Sequence[tuple[bytes, int, float | None, float | None]]) -> None:
        """Keep readings (key, tokens, ranks, surprisal), all of them or, if the process dies, none."""
        with self._explaining(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO surprise VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @contextmanager
    def _explaining(self) -> Any:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"{self.path}, where the student's readings are kept, cannot be used: {error}. Free some space, or "
                "delete the file: the traces are then read again"
            ) from error
