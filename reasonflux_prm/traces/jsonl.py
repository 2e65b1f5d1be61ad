"""JSON lines in, one record a line, and nothing more in memory than the line that is read.

Accepted: a byte order mark, CRLF, blank lines (skipped). A line is rejected if it is not UTF-8, holds a NUL byte, is
not one JSON object, has a number that JSON cannot hold (NaN, Infinity, 1e999), has half a surrogate pair (it could
never be written again), or is longer than `MAX_LINE`. An escaped NUL inside a text is a character like any other.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Reject
from reasonflux_prm.traces.rows import MAX_RAW, Row

MAX_LINE: Final = 64 * 1024 * 1024
"""Longest line that is read, in bytes; a longer one is rejected, and never held in memory as a whole."""

_BOM = b"\xef\xbb\xbf"
_SKIP_CHUNK = 1024 * 1024
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def json_lines(stream: BinaryIO | gzip.GzipFile, file: str) -> Iterator[Row | Reject]:
    """Read JSON lines.

    Args:
        stream: Opened for reading bytes; read once, never sought.
        file: Its name, for rows and rejects.

    Raises:
        InputError: The system stopped giving bytes.
    """
    number = 0
    try:
        for number, line in enumerate(_lines(stream), start=1):
            if line is None or line.strip():
                yield _row(file, number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = (
            f"the gzip data is damaged or ends early ({error}): this line and all after it are lost; "
            "write or fetch the file again"
        )
        yield Reject(file, number + 1, reason, "")
    except OSError as error:
        raise InputError(
            f"expected {file} to be readable, got after line {number}: {error.strerror or error}"
        ) from error


def _lines(stream: BinaryIO | gzip.GzipFile) -> Iterator[bytes | None]:
    """Yield the lines of a stream; None for one that is too long."""
    first = True
    while line := stream.readline(MAX_LINE + 1):
        if first:
            line = line.removeprefix(_BOM)
            first = False
        if len(line) <= MAX_LINE:
            yield line
            continue
        yield None
        while not line.endswith(b"\n") and line:
            line = stream.readline(_SKIP_CHUNK)


def _row(file: str, number: int, line: bytes | None) -> Row | Reject:
    if line is None:
        limit = MAX_LINE // 1024**2
        return Reject(
            file, number, f"expected a line of at most {limit} MiB, got a longer one: cut it into records", ""
        )
    raw = line[: 4 * MAX_RAW].decode("utf-8", errors="replace")[:MAX_RAW].rstrip("\r\n")
    try:
        return Row(file, number, json_object(line, "one JSON object a line"), raw)
    except InputError as error:
        return Reject(file, number, str(error), raw)


def json_object(data: bytes, expected: str = "one JSON object") -> dict[str, Any]:
    """Read one JSON object, strictly: what comes out can be written again.

    Args:
        data: UTF-8.
        expected: What the messages say was expected.

    Raises:
        InputError: It is something else; see the module for what is refused.
    """
    if b"\0" in data:
        raise InputError(f"expected JSON, got a NUL byte at byte {data.index(0) + 1}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8, got byte 0x{data[error.start]:02x} at byte {error.start + 1}") from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        # Some of Python's messages end in "at".
        fault = error.msg.removesuffix(" at")
        raise InputError(f"expected {expected}, got invalid JSON: {fault} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise InputError(f"expected {expected}, got one that is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"expected {expected}, got a number out of range: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"expected {expected}, got {'an array' if isinstance(value, list) else 'a bare value'}")
    if _SURROGATE_ESCAPE.search(text):
        _refuse_half_pairs(value)
    return value


def _refuse_constant(name: str) -> float:
    raise InputError(f"expected numbers that JSON knows, got {name}: write null instead")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InputError(f"expected a number in the range of a double, got {text[:40]}")
    return value


def _refuse_half_pairs(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise InputError(f"expected whole Unicode characters, got half a surrogate pair (\\u{code:04x})") from error
