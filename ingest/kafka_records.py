"""Kafka records as Arrow, column by column, whatever bytes they hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.segments import BATCH_SCHEMA

_LATEST_STAMP_MS = 253_402_300_799_999  # 9999-12-31: what is later is a broken clock and would break readers
_HEADERS_TYPE = BATCH_SCHEMA.field("headers").type


def record_batch(records: Sequence[Any], landed_at: datetime) -> pa.RecordBatch:
    """kafka-python records of one partition as one Arrow batch (BATCH_SCHEMA), column by column."""
    # a ConsumerRecord is a tuple: transposing all of it costs less than reading five attributes of each
    columns = list(zip(*records, strict=True))
    offsets, stamps, keys, values, headers = columns[3], columns[4], columns[6], columns[7], columns[8]
    milliseconds = np.array(stamps, dtype=np.int64)
    absent = (milliseconds < 0) | (milliseconds > _LATEST_STAMP_MS)
    kafka_at = pa.array(np.where(absent, 0, milliseconds) * 1000, type=pa.int64(), mask=absent)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.array(offsets, dtype=np.int64)),
            kafka_at.cast(BATCH_SCHEMA.field("kafka_at").type),
            pa.array(keys, type=pa.binary()),
            pa.array(values, type=pa.binary()),
            _header_array(headers),
            pa.repeat(pa.scalar(landed_at, BATCH_SCHEMA.field("landed_at").type), len(records)),
        ],
        schema=BATCH_SCHEMA,
    )


def _header_array(headers: Sequence[Sequence[tuple[str, bytes | None]]]) -> pa.Array:
    counts = np.fromiter(map(len, headers), dtype=np.int32, count=len(headers))
    bounds = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
    flat = [pair for pairs in headers for pair in pairs] if bounds[-1] else []
    pairs = pa.StructArray.from_arrays(
        [pa.array([key for key, _ in flat], pa.string()), pa.array([value for _, value in flat], pa.binary())],
        fields=list(_HEADERS_TYPE.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(bounds), pairs, type=_HEADERS_TYPE)
