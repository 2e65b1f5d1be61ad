"""Completions in one SQLite file that many processes read and write: one row a sample, addressed by what was asked.

Prompts are not stored, only their hash. Rows are never changed: whoever writes a sample first has written it for all.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonflux_prm.errors import PolicyStopped
from reasonflux_prm.policy.base import Completion, Request, TokenLogprob

_SCHEMA = 1
"""In the file's `user_version` and in every key."""
_MOST_WAIT_S = 120.0
"""Seconds to wait for other processes that are writing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sample of one request."""

    key: bytes
    sample: int
    completion: Completion


def request_key(identity: Mapping[str, Any], request: Request) -> bytes:
    """Return what a request's completions are stored under: a hash of all they depend on, which `n` is not part of."""
    asked = {
        "schema": _SCHEMA,
        "policy": identity,
        "messages": [[message.role, message.content] for message in request.messages],
        "temperature": float(request.temperature),
        "top_p": float(request.top_p),
        "max_tokens": request.max_tokens,
        "stop": request.stop,
        "seed": request.seed,
        "top_logprobs": request.top_logprobs,
        # Only where they are set: what was stored before there were any is found again.
        **({"prefix": request.prefix} if request.prefix else {}),
        **({"raw": True} if request.raw else {}),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


class CompletionStore:
    """The file. `read` and `write` may be called from two threads at the same time, each from one only.

    Args:
        path: Where it is, on a local disk (SQLite's write-ahead log does not work over a network); created if missing.

    Raises:
        PolicyStopped: The file cannot be used: damaged, not ours, no permission, a full disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._prepared()
            self._reader = self._connected()
        except (sqlite3.Error, OSError) as error:
            raise self._explained(error) from error

    def read(self, key: bytes, n: int) -> list[Completion]:
        """Return the first samples of a request that are there, at most `n`.

        Raises:
            PolicyStopped: The file cannot be read.
        """
        try:
            rows = self._reader.execute(
                "SELECT sample, completion FROM completions WHERE key = ? AND sample < ? ORDER BY sample", (key, n)
            ).fetchall()
        except sqlite3.Error as error:
            raise self._explained(error) from error
        # Samples are written in order; a gap could only come from a file that was tampered with.
        return [self._completion(text) for index, (sample, text) in enumerate(rows) if sample == index]

    def write(self, rows: Sequence[Row]) -> list[Completion]:
        """Commit rows to the disk, and return what the file then holds in their place.

        That is another process's completion where one was faster: all then go on with the same text.

        Raises:
            PolicyStopped: The file cannot be written.
        """
        try:
            return self._committed(rows)
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._writer.close()

    def _committed(self, rows: Sequence[Row]) -> list[Completion]:
        kept = []
        _patiently(lambda: self._writer.execute("BEGIN IMMEDIATE"))
        try:
            for row in rows:
                done = self._writer.execute(
                    "INSERT OR IGNORE INTO completions VALUES (?, ?, ?)", (row.key, row.sample, _text(row.completion))
                )
                if done.rowcount:
                    kept.append(row.completion)
                    continue
                (text,) = self._writer.execute(
                    "SELECT completion FROM completions WHERE key = ? AND sample = ?", (row.key, row.sample)
                ).fetchone()
                kept.append(self._completion(text))
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        return kept

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_MOST_WAIT_S, isolation_level=None, check_same_thread=False)
        # A completion is on the disk before it is returned, so not even a power cut makes it be paid for again.
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepared(self) -> sqlite3.Connection:
        connection = self._connected()
        # SQLite does not wait by itself where several processes change the mode of a new file at once.
        _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"))
        _patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if version == 0 and not tables:
            connection.execute(
                "CREATE TABLE completions (key BLOB NOT NULL, sample INTEGER NOT NULL, completion TEXT NOT NULL, "
                "PRIMARY KEY (key, sample)) WITHOUT ROWID"
            )
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")
        connection.execute("COMMIT")
        if (version, tables) not in ((0, set()), (_SCHEMA, {"completions"})):
            connection.close()
            raise PolicyStopped(
                f"{self.path} is not a cache of completions of this version (schema {_SCHEMA}); name another file"
            )
        return connection

    def _completion(self, text: str) -> Completion:
        try:
            return _read(text)
        except (ValueError, TypeError, KeyError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> PolicyStopped:
        said = str(error) or type(error).__name__
        code = getattr(error, "sqlite_errorcode", None)
        damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or not isinstance(
            error, sqlite3.Error | OSError
        )
        if damaged:
            return PolicyStopped(
                f"the cache of completions {self.path} is damaged ({said}); move it away, or name another file"
            )
        return PolicyStopped(
            f"the cache of completions {self.path} cannot be used ({said}); check the disk's free space and the "
            "folder's permissions, or name another file; what is in it is kept"
        )


def _patiently(statement: Any) -> None:
    """Run a statement that other processes may be in the way of."""
    until = time.monotonic() + _MOST_WAIT_S
    while True:
        try:
            statement()
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _text(completion: Completion) -> str:
    """Write a completion as JSON, leaving out what is as by default. ASCII, as lone surrogates are no UTF-8."""
    fields: dict[str, Any] = {
        "text": completion.text,
        "thinking": completion.thinking,
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
    }
    stopped_at = {} if completion.stopped_at is None else {"stopped_at": completion.stopped_at}
    if completion.logprobs is not None:
        fields["logprobs"] = [[one.token, one.logprob, one.top] for one in completion.logprobs]
    return json.dumps({name: value for name, value in fields.items() if value not in (None, "")} | stopped_at)


def _read(text: str) -> Completion:
    fields = json.loads(text)
    logprobs = fields.pop("logprobs", None)
    if logprobs is not None:
        logprobs = tuple(
            TokenLogprob(token, logprob, tuple((other, value) for other, value in top))
            for token, logprob, top in logprobs
        )
    return Completion(fields.pop("text", ""), logprobs=logprobs, **fields)
