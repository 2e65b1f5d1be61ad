"""Values as JSON knows them, whatever library they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from reasonflux_prm.errors import InputError


def json_value(value: Any, name: str) -> Any:
    """Return `value` as text, number, bool, None, list or dict.

    Numpy and pyarrow values become Python's, dates become ISO text, bytes become text if they are UTF-8. NaN, which is
    how tables mark a missing number, becomes None.

    Args:
        value: A value from a Parquet file or a data set.
        name: The column, for the message.

    Raises:
        InputError: JSON cannot hold the value.
    """
    if hasattr(value, "as_py"):  # pyarrow's, which may pass for a mapping
        value = value.as_py()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float | Decimal):
        return _number(float(value), name)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return _text(value, name)
    if isinstance(value, Mapping):
        return {str(key): json_value(item, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, name) for item in value]
    if hasattr(value, "tolist"):  # numpy's, known by what it can do so that numpy needs no import
        return json_value(value.tolist(), name)
    raise InputError(f"expected the column {name} to hold what JSON can hold, got {type(value).__name__}")


def _number(value: float, name: str) -> float | None:
    if math.isinf(value):
        raise InputError(f"expected the column {name} to hold finite numbers, got {value}")
    return None if math.isnan(value) else value


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"expected the column {name} to hold text, got bytes that are not UTF-8") from error
