"""Records from tables: Parquet files, and data sets in Hugging Face's `datasets`, saved or on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from reasonflux_prm.errors import DownloadError, InputError, MissingExtra
from reasonflux_prm.records import Reject
from reasonflux_prm.traces.rows import MAX_RAW, Row
from reasonflux_prm.traces.values import json_value

BATCH_ROWS: Final = 64
"""Rows of a Parquet file that are held at a time; a trace can be a megabyte."""

_INSTALL = 'pip install "reasonflux-prm[data]"'
_DATASET_ID = re.compile(r"(?P<name>[\w-][\w.-]*/[\w.-]+)(?::(?P<config>[\w.-]+))??(?::(?P<split>[\w.-]+))?")
_FILE_ENDING = re.compile(r"\.(jsonl?|ndjson|parquet|csv|txt|gz|zst)$")


def parquet_rows(path: Path) -> Iterator[Row | Reject]:
    """Read a Parquet file in batches.

    Raises:
        MissingExtra: pyarrow is not installed.
        InputError: The file is no Parquet file.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(f"expected pyarrow to read {path}, but it is not installed: {_INSTALL}") from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                for index in range(batch.num_rows):
                    number += 1
                    yield _row(str(path), number, {name: column[index] for name, column in columns.items()})
    except (pyarrow.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        if number == 0:
            raise InputError(f"expected {path} to be a Parquet file, got: {message}") from error
        reason = (
            f"the Parquet file is damaged ({message}): this row and all after it are lost; "
            "write or fetch the file again"
        )
        yield Reject(str(path), number + 1, reason, "")


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote this directory."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def saved_rows(folder: Path, split: str | None) -> Iterator[Row | Reject]:
    """Read a data set that `datasets.save_to_disk` wrote.

    Raises:
        MissingExtra: datasets is not installed.
        InputError: The directory is damaged, or which split to read is not clear.
    """
    datasets = _datasets(f"expected datasets to read {folder}, but it is not installed: {_INSTALL}")
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"expected {folder} to be a data set written by datasets.save_to_disk, got: {error}"
        ) from error
    if isinstance(loaded, Mapping):
        split, loaded = _one_split(loaded, str(folder), split)
    elif split is not None:
        raise InputError(f"expected {folder} to have splits, but it is one table: leave out :{split}")
    return _dataset_rows(loaded, f"{folder}:{split}" if split else str(folder))


def is_dataset_id(name: str) -> bool:
    """Whether `name` may be a data set on the hub: `org/name`, `org/name:split` or `org/name:config:split`."""
    return _DATASET_ID.fullmatch(name) is not None and _FILE_ENDING.search(name) is None


def hub_rows(name: str) -> Iterator[Row | Reject]:
    """Stream a data set of the hub.

    Raises:
        MissingExtra: datasets is not installed.
        InputError: The data set has no such configuration or split, or several and none was named.
        DownloadError: It could not be fetched.
    """
    match = _DATASET_ID.fullmatch(name)
    if match is None:
        raise InputError(f"expected a data set as org/name, org/name:split or org/name:config:split, got {name}")
    datasets = _datasets(
        f"expected {name} to be a file or a directory, but there is none; to read a data set of the hub install "
        f"datasets: {_INSTALL}"
    )
    try:
        loaded = datasets.load_dataset(match["name"], match["config"], split=match["split"], streaming=True)
    except ValueError as error:  # an unknown configuration or split; the library's message lists those there are
        raise InputError(f"expected the data set {name} to load, got: {error}") from error
    except Exception as error:
        raise _not_fetched(name, error) from error
    split = match["split"]
    if isinstance(loaded, Mapping):
        split, loaded = _one_split(loaded, name, split)
    return _fetched_rows(loaded, f"{name}:{split}" if split and not match["split"] else name)


def _fetched_rows(dataset: Any, name: str) -> Iterator[Row | Reject]:
    try:
        yield from _dataset_rows(dataset, name)
    except (OSError, RuntimeError) as error:
        raise _not_fetched(name, error) from error


def _not_fetched(name: str, error: Exception) -> DownloadError:
    return DownloadError(
        f"expected {name} to be a file, a directory or a data set of the hub; there is no such file, and the hub gave "
        f"{type(error).__name__}: {error}. Offline, give the path of a copy (JSONL, Parquet, or datasets.save_to_disk)"
    )


def _one_split(splits: Mapping[str, Any], name: str, split: str | None) -> tuple[str, Any]:
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    if split is None or split not in splits:
        got = "none was named" if split is None else f"got {split}"
        known = ", ".join(splits)
        raise InputError(f"expected one of the splits {known} of {name}, {got}: give {name.partition(':')[0]}:SPLIT")
    return split, splits[split]


def _datasets(message: str) -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(message) from error
    module: ModuleType = datasets
    return module


def _dataset_rows(dataset: Any, name: str) -> Iterator[Row | Reject]:
    for number, columns in enumerate(dataset, start=1):
        yield _row(name, number, columns)


def _row(file: str, number: int, values: Mapping[str, Any]) -> Row | Reject:
    try:
        return Row(file, number, {name: json_value(value, name) for name, value in values.items()})
    except (InputError, UnicodeDecodeError) as error:
        return Reject(file, number, str(error), repr(values)[:MAX_RAW])
