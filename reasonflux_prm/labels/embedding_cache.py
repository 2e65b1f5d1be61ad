"""Embeddings on disk: a text is encoded once, whatever runs and processes ask for it.

One SQLite file in write-ahead mode. A vector is found by the encoder's identity, its width and the SHA-256 of the text,
so encoders are never mixed up. Many processes may use a file at once, on a local disk: write-ahead mode needs memory
that all of them share, which network file systems do not give.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from reasonflux_prm.errors import OutputError

_TABLES = """
CREATE TABLE IF NOT EXISTS encoders (id INTEGER PRIMARY KEY, identity TEXT NOT NULL, width INTEGER NOT NULL,
    UNIQUE (identity, width));
CREATE TABLE IF NOT EXISTS embeddings (encoder INTEGER NOT NULL, text BLOB NOT NULL, chunks INTEGER NOT NULL,
    vector BLOB NOT NULL, UNIQUE (encoder, text));
"""
_ASKED_AT_ONCE = 500
_WAIT_S = 120.0
"""How long to wait for other processes to finish writing."""


class EmbeddingCache:
    """Vectors of one encoder in a file that others may share. Use it as a context manager, or close it."""

    def __init__(self, path: Path, identity: str, width: int) -> None:
        """Open a file, or make it.

        Args:
            path: The file; its folder is made.
            identity: What the vectors depend on besides the text.
            width: Numbers of a vector.

        Raises:
            OutputError: The file cannot be written, or is no database.
        """
        self.path = path
        self._width = width
        self._lock = Lock()
        with self._explaining():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Calls come from any thread, one at a time.
            self._database = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            # A power cut may lose the last vectors, which are then made again, but never damages the file.
            self._database.execute("PRAGMA synchronous=NORMAL")
            with self._database:
                self._database.executescript(_TABLES)
                key = (identity, width)
                self._database.execute("INSERT OR IGNORE INTO encoders (identity, width) VALUES (?, ?)", key)
            found = self._database.execute("SELECT id FROM encoders WHERE identity = ? AND width = ?", key).fetchone()
            self._encoder = int(found[0])

    def get(self, texts: Sequence[str]) -> dict[str, tuple[NDArray[np.float32], int]]:
        """Return the vectors that are there, by text, each with the number of chunks that it was made from.

        Raises:
            OutputError: The file cannot be read.
        """
        found: dict[str, tuple[NDArray[np.float32], int]] = {}
        for start in range(0, len(texts), _ASKED_AT_ONCE):
            by_key = {_key(text): text for text in texts[start : start + _ASKED_AT_ONCE]}
            marks = ",".join("?" * len(by_key))
            query = f"SELECT text, vector, chunks FROM embeddings WHERE encoder = ? AND text IN ({marks})"
            with self._lock, self._explaining():
                rows = self._database.execute(query, (self._encoder, *by_key)).fetchall()
            for key, blob, chunks in rows:
                # A blob of another length is damaged; its text is encoded again.
                if len(blob) == 4 * self._width:
                    found[by_key[key]] = np.frombuffer(blob, "<f4").astype(np.float32, copy=False), chunks
        return found

    def put(self, vectors: Mapping[str, tuple[NDArray[np.float32], int]]) -> None:
        """Keep vectors, all of them or, if the process dies, none.

        Raises:
            OutputError: The file cannot be written.
        """
        rows = [
            (self._encoder, _key(text), chunks, vector.astype("<f4", copy=False).tobytes())
            for text, (vector, chunks) in vectors.items()
        ]
        with self._lock, self._explaining(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> EmbeddingCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"{self.path}, the cache of embeddings, cannot be used: {error}. Free some space, name another folder "
                "in the environment variable REASONFLUX_PRM_CACHE, or delete the file: what it holds is then encoded "
                "again."
            ) from error


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()
