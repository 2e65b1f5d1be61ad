"""Sources of records: files, directories, a pipe, and data sets, each as a stream of rows.

A source is read once, from front to back, and never held in memory. What cannot be read comes as a `Reject` in its
place.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Reject
from reasonflux_prm.traces.jsonl import json_lines
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.tables import hub_rows, is_dataset_id, is_saved_dataset, parquet_rows, saved_rows

DATA_SUFFIXES: Final = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".parquet")
"""The files that a directory is searched for."""
REJECTS_SUFFIX: Final = ".rejects.jsonl"
"""The file beside an output that holds what was refused of its input; no data."""

_PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd -dc", b"BZh": "bzip2 -dc", b"\xfd7zX": "xz -dc", b"PK\x03\x04": "unzip -p"}
"""First bytes of compressed files that are not read, and what decompresses them."""


def open_source(source: str | Path) -> Iterator[Row | Reject]:
    """Open a source and return its records.

    Args:
        source: One of

            - a file of JSON lines (also in gzip) or in Parquet, told by its first bytes;
            - a directory: all such files in it and below, in the order of their paths, or those of one split
              (`folder:train`);
            - `-`: JSON lines from standard input, also in gzip;
            - a data set saved by `datasets.save_to_disk` (`folder`, or `folder:split`);
            - a data set on the hub: `org/name`, `org/name:split` or `org/name:config:split`.

    Raises:
        InputError: There is nothing of that name, or it holds no data files.
        MissingExtra: It needs a package that is not installed.
        DownloadError: A data set could not be fetched.
    """
    name = str(source)
    if name == "-":
        return _pipe_rows()
    path, split = _existing(name)
    if path is None and is_dataset_id(name):
        return hub_rows(name)
    if path is None:
        raise InputError(
            f"expected {name} to be a file, a directory, '-' or a data set (org/name), but there is no such file"
        )
    if path.is_dir() and is_saved_dataset(path):
        return saved_rows(path, split)
    return _directory_rows(path, split) if path.is_dir() else _file_rows(path)


def _existing(name: str) -> tuple[Path | None, str | None]:
    """Return the path that `name` is, and the split that was written after it."""
    if Path(name).exists():
        return Path(name), None
    folder, _, split = name.rpartition(":")
    return (Path(folder), split) if folder and Path(folder).is_dir() else (None, None)


def _directory_rows(folder: Path, split: str | None) -> Iterator[Row | Reject]:
    files = sorted(path for path in folder.rglob("*") if _is_data(path, path.relative_to(folder), split))
    if not files:
        what = f"data files of the split {split}" if split else "data files"
        raise InputError(f"expected {what} ({', '.join(DATA_SUFFIXES)}) in the directory {folder}, found none")
    return (row for path in files for row in _file_rows(path))


def _is_data(path: Path, relative: Path, split: str | None) -> bool:
    """Whether a file of a directory is read; a split's files are `train/x`, `train.x` or `train-00000-of-00002.x`."""
    return (
        path.name.endswith(DATA_SUFFIXES)
        and not path.name.endswith(REJECTS_SUFFIX)
        and not any(part.startswith(".") for part in relative.parts)
        and (split is None or any(re.match(rf"{re.escape(split)}([-.]|$)", part) for part in relative.parts))
        and path.is_file()
    )


def _file_rows(path: Path) -> Iterator[Row | Reject]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"expected {path} to be readable, got: {error.strerror}") from error
    with stream:
        head = stream.peek(4)[:4]
        if head == _PARQUET and path.is_file():
            yield from parquet_rows(path)
        else:
            yield from json_lines(_decompressed(stream, head, str(path)), str(path))


def _pipe_rows() -> Iterator[Row | Reject]:
    stream = sys.stdin.buffer
    head = stream.peek(4)[:4] if isinstance(stream, io.BufferedReader) else b""
    yield from json_lines(_decompressed(stream, head, "-"), "-")


def _decompressed(stream: BinaryIO, head: bytes, file: str) -> BinaryIO | gzip.GzipFile:
    if head == _PARQUET:
        raise InputError(
            f"expected JSON lines from {file}, got Parquet, which no pipe can give: write a file and give its path"
        )
    for magic, command in _OTHERS.items():
        if head.startswith(magic):
            raise InputError(
                f"expected {file} to be JSON lines, gzip or Parquet, got another compression: `{command} FILE | ... -`"
            )
    return gzip.GzipFile(fileobj=stream) if head.startswith(_GZIP) else stream
