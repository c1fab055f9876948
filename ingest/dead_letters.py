"""Dead letters: rejected records with their reason and coordinates, for whoever can repair them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ingest.sources import FolderSource, parse_source
from ingest.writer import Writer
from schemas.settings import Settings
from schemas.topics import DEAD_LETTER_TOPIC


def forward(url: str, rows: Iterable[Mapping[str, Any]], settings: Settings) -> int:
    """Send quarantine rows to the dead-letter topic and return their number once all are safe.

    On Kafka the value is the raw record and headers say `reason`, `field`, `topic`, `partition` and `offset`; the key
    is the coordinates, so a repeated delivery is recognised. In a drop folder each is one JSON object on a line.
    """
    in_folder = isinstance(parse_source(url), FolderSource)
    count = 0
    with Writer(url, settings, name="rejected") as writer:
        for row in rows:
            place = f"{row['_topic']}/{row['_partition']}/{row['_offset']}"
            if in_folder:
                writer.send(DEAD_LETTER_TOPIC, None, _line(row))
            else:
                writer.send(DEAD_LETTER_TOPIC, place.encode(), row["raw"], _headers(row))
            count += 1
        writer.flush()
    return count


def _headers(row: Mapping[str, Any]) -> dict[str, bytes]:
    named = {
        "reason": row["reason"],
        "field": row["field"],
        "cluster": row["_cluster"],
        "topic": row["_topic"],
        "partition": row["_partition"],
        "offset": row["_offset"],
    }
    return {name: str(value).encode() for name, value in named.items() if value is not None}


def _line(row: Mapping[str, Any]) -> bytes:
    raw = row["raw"] if row["raw"] is None else bytes(row["raw"])
    try:
        content = {"raw": None if raw is None else raw.decode()}
    except UnicodeDecodeError:
        content = {"raw_base64": base64.b64encode(raw or b"").decode()}
    headers = {name: value.decode() for name, value in _headers(row).items()}
    return json.dumps({**headers, **content}).encode()
