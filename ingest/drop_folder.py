"""The drop folder: history imports, and machines without a broker.

`<folder>/<topic>/<file>`: each NDJSON or Parquet file is a log of its own. `_topic` is the file's path in the folder,
`_partition` is 0 and `_offset` the line (or row) from 0. A file may grow at its end; one that shrank or vanished from
under its landed lines is a loud error. Hidden files, `*.tmp` and dead letters are never read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.segments import BATCH_SCHEMA, LandedRange, Log, SegmentWriter, exclusive, newest_segments, read_notes
from ingest.sources import FolderSource
from schemas.errors import LandingError
from schemas.settings import Settings
from schemas.topics import DEAD_LETTER_TOPIC

logger = logging.getLogger(__name__)

BATCH_LINES = 20_000
QUIET_SECONDS = 60.0
"""A last line without its line break is taken as whole when the file has not changed for this long."""
FOLLOW_SECONDS = 1.0
SUFFIXES = (".ndjson", ".jsonl", ".parquet")


class FolderLanding:
    """One landing of a drop folder. `topics` None means all, the files in the folder's root included."""

    def __init__(self, source: FolderSource, settings: Settings, topics: Sequence[str] | None) -> None:
        self._source, self._settings, self._topics = source, settings, topics
        self.problems: list[LandingError] = []

    def run(self, *, follow: bool, stop: threading.Event) -> list[LandedRange]:
        """Land what is new; with `follow` look again every second until `stop`."""
        ranges: list[LandedRange] = []
        while True:
            for path in self._files():
                try:
                    ranges += self._land_file(path)
                except LandingError as problem:
                    self.problems.append(problem)
            if not follow or self.problems or stop.wait(FOLLOW_SECONDS):
                return ranges

    def _files(self) -> list[Path]:
        folder = self._source.folder
        topics = self._topics
        if topics is None:
            topics = ["", *(path.name for path in folder.iterdir() if path.is_dir())]
        found = []
        for topic in topics:
            if topic == DEAD_LETTER_TOPIC or topic.startswith("."):
                continue
            found += [
                path
                for path in (folder / topic).glob("*")
                if path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file()
            ]
        return sorted(found)

    def _land_file(self, path: Path) -> list[LandedRange]:
        settings = self._settings
        log = Log(self._source.cluster, str(path.relative_to(self._source.folder)), 0)
        with ExitStack() as stack:
            stack.enter_context(exclusive(settings.landing_dir, log.cluster, log.topic, settings.kafka_timeout_seconds))
            start, position = self._continue_at(log, path)
            writer = stack.enter_context(
                SegmentWriter(
                    settings.landing_dir,
                    max_records=settings.landing_file_records,
                    max_bytes=settings.landing_file_bytes,
                )
            )
            read = _parquet_rows(path, start) if path.suffix == ".parquet" else _lines(path, position)
            offset = start
            for values, end_position in _guarded(path, read):
                batch = _batch(values, offset)
                offset += len(values)
                writer.add(log, batch, through=offset - 1, notes={"position": str(end_position)})
            writer.flush()
        return writer.ranges

    def _continue_at(self, log: Log, path: Path) -> tuple[int, int]:
        """First line to read and its byte position. Raises LandingError when the file holds less than was landed."""
        newest = newest_segments(self._settings.landing_dir, log.cluster, log.topic).get(0)
        if newest is None:
            return 0, 0
        position = int(read_notes(self._settings.landing_dir, newest).get("position", "0"))
        size = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else path.stat().st_size
        if size < position:
            raise LandingError(
                f"the file was landed up to line {newest.end} but holds less now: it was replaced or cut",
                where=str(path),
                value=f"{size}, landed to {position} ({'rows' if path.suffix == '.parquet' else 'bytes'})",
                remedy="Give the new content a new file name and restore the old file (or remove it)",
            )
        return newest.end + 1, position


def _guarded(path: Path, read: Iterator[tuple[list[bytes | None], int]]) -> Iterator[tuple[list[bytes | None], int]]:
    try:
        yield from read
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        raise LandingError(
            f"the file cannot be read: {str(error).splitlines()[0]}",
            where=str(path),
            remedy="Correct its permissions or content; all other files were landed",
        ) from error


def _lines(path: Path, position: int) -> Iterator[tuple[list[bytes | None], int]]:
    """Batches of whole lines from a byte position, each with the position after it."""
    with path.open("rb") as stream:
        stream.seek(position)
        values: list[bytes | None] = []
        for line in stream:
            if not line.endswith(b"\n") and time.time() - path.stat().st_mtime < QUIET_SECONDS:
                break  # somebody is still writing it
            position += len(line)
            values.append(line.rstrip(b"\r\n"))
            if len(values) >= BATCH_LINES:
                yield values, position
                values = []
        if values:
            yield values, position


def _parquet_rows(path: Path, start: int) -> Iterator[tuple[list[bytes | None], int]]:
    """Batches of rows as JSON text from a row number, each with the row number after it."""
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'; set threads = 1")
        rows = con.execute(
            "select to_json(row)::varchar from read_parquet(?, file_row_number = false) as row", [str(path)]
        )
        number = 0
        while batch := rows.fetchmany(BATCH_LINES):
            values = [text.encode() for (text,) in batch[max(0, start - number) :]]
            number += len(batch)
            if values:
                yield list(values), number


def _batch(values: list[bytes | None], offset: int) -> pa.RecordBatch:
    count = len(values)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(range(offset, offset + count), pa.int64()),
            pa.nulls(count, BATCH_SCHEMA.field("kafka_at").type),
            pa.nulls(count, pa.binary()),
            pa.array(values, pa.binary()),
            pa.nulls(count, BATCH_SCHEMA.field("headers").type),
            pa.repeat(pa.scalar(datetime.now(UTC), BATCH_SCHEMA.field("landed_at").type), count),
        ],
        schema=BATCH_SCHEMA,
    )
