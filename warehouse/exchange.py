"""Values of an answer as other programs read them: JSON's own types, and text where it has none.

Decimals are text with all their places, times are ISO 8601 (a zone where the column has one), intervals ISO 8601
durations, blobs base64. NaN and the infinities, which JSON does not know, are null.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any


def distinct_names(names: Sequence[str]) -> list[str]:
    """Names of which no two are equal, renamed as DuckDB renames a subquery's: `a`, `a_1`; case does not tell."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        free, number = name, 0
        while free.lower() in taken:
            number += 1
            free = f"{name}_{number}"
        found.append(free)
        taken.add(free.lower())
    return found


def json_value(value: Any) -> Any:
    """What `json.dumps` writes exactly, whatever DuckDB answered."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return f"{value:f}"  # never with an exponent
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {_key(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return str(value)  # a UUID


def csv_value(value: Any) -> Any:
    """The same for a CSV cell: NULL is empty, NaN is a number there, and what nests is JSON text."""
    if value is None:
        return ""
    if isinstance(value, dict | list | tuple):
        return json.dumps(json_value(value), allow_nan=False)
    return value if isinstance(value, float) else json_value(value)


def _key(key: Any) -> str:
    """A map's key: JSON has text alone."""
    plain = json_value(key)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _duration(value: timedelta) -> str:
    sign, length = ("-", -value) if value < timedelta(0) else ("", value)
    fraction = f".{length.microseconds:06d}".rstrip("0").rstrip(".")
    return f"{sign}P{length.days}DT{length.seconds}{fraction}S"
