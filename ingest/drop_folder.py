"""The drop folder: history imports, and machines without a broker.

`<folder>/<topic>/<file>`: each NDJSON or Parquet file is a log of its own. `_topic` is the file's path in the folder,
`_partition` is 0 and `_offset` the line (or row) from 0. A file may grow at its end, and may go once it was landed;
one that shrank or holds something else where its landed lines were is a loud error. Hidden files, `*.tmp` and dead
letters are never read.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.segments import (
    BATCH_SCHEMA,
    LandedRange,
    Log,
    SegmentWriter,
    exclusive,
    last_value,
    newest_segments,
    read_notes,
)
from ingest.sources import FolderSource
from schemas.errors import LandingError
from schemas.landing import partition_dir
from schemas.paths import literal_path
from schemas.settings import Settings
from schemas.topics import DEAD_LETTER_TOPIC, SOURCE_TOPICS

logger = logging.getLogger(__name__)

BATCH_LINES = 20_000
QUIET_SECONDS = 60.0
"""A last line without its line break is taken as whole when the file has not changed for this long."""
FOLLOW_SECONDS = 1.0
NAME_BYTES = 255
"""What file systems allow for one name; ours are percent-encoded, so longer than the drop folder's."""
SHOWN_NAMES = 5
Batch = tuple[list[bytes | None], int, bool]
"""Values, the position after them, and whether the last line still lacks its line break."""
SUFFIXES = (".ndjson", ".jsonl", ".parquet")


class FolderLanding:
    """One landing of a drop folder. `topics` None means all, the files in the folder's root included."""

    def __init__(self, source: FolderSource, settings: Settings, topics: Sequence[str] | None) -> None:
        self._source, self._settings, self._topics = source, settings, topics
        self.problems: list[LandingError] = []

    def run(self, *, follow: bool, stop: threading.Event) -> list[LandedRange]:
        """Land what is new; with `follow` look again every second until `stop`."""
        ranges: list[LandedRange] = []
        self._warn_of_unread()
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

    def _warn_of_unread(self) -> None:
        """Tell of files that nobody will ever read: a wrong suffix, or a place that is no topic's folder."""
        folder, read = self._source.folder, set(self._files())
        unread = []
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            # a topic that was not asked for is left out on purpose
            is_other = parts[0] not in (self._topics or SOURCE_TOPICS) and parts[0] in SOURCE_TOPICS
            is_meant = is_other or parts[0] == DEAD_LETTER_TOPIC or path.suffix == ".tmp" or path in read
            if not is_meant and not any(part.startswith(".") for part in parts) and path.is_file():
                unread.append(_shown(path.relative_to(folder)))
        if unread:
            logger.warning(
                "%d files in %s are not read: %s%s. Only <topic>/<name>%s are; move or rename them",
                len(unread),
                _shown(folder),
                ", ".join(unread[:SHOWN_NAMES]),
                ", …" if len(unread) > SHOWN_NAMES else "",
                " or ".join(SUFFIXES),
            )

    def _land_file(self, path: Path) -> list[LandedRange]:
        settings = self._settings
        log = Log(self._source.cluster, str(path.relative_to(self._source.folder)), 0)
        _check_name(settings.landing_dir, log, path)
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
            for values, end_position, is_open in _guarded(path, read):
                batch = _batch(values, offset)
                offset += len(values)
                notes = {"position": str(end_position), "last_line": "open" if is_open else "closed"}
                writer.add(log, batch, through=offset - 1, notes=notes)
            writer.flush()
        return writer.ranges

    def _continue_at(self, log: Log, path: Path) -> tuple[int, int]:
        """First line to read and its byte position. Raises LandingError when it is not the file that was landed."""
        newest = newest_segments(self._settings.landing_dir, log.cluster, log.topic).get(0)
        if newest is None:
            return 0, 0
        notes = read_notes(self._settings.landing_dir, newest)
        position, is_open = int(notes.get("position", "0")), notes.get("last_line") == "open"
        last = last_value(self._settings.landing_dir, newest)
        with _readable(path):
            if path.suffix == ".parquet":
                size, unit = pq.read_metadata(path).num_rows, "rows"
                is_same = size < position or next(_parquet_rows(path, position - 1))[0][0] == last
            else:
                size, unit = path.stat().st_size, "bytes"
                is_same, position = _continues(path, position, last, is_open=is_open)
        if size < position or not is_same:
            raise LandingError(
                f"the file was landed up to line {newest.end} but holds less or something else there now: it was "
                "replaced or cut",
                where=str(path),
                value=f"{size}, landed to {position} ({unit})",
                remedy="Give the new content a new file name and restore the old file (or remove it)",
            )
        return newest.end + 1, position


def _check_name(landing_dir: Path, log: Log, path: Path) -> None:
    """Raise LandingError for a file whose landed folder cannot be made."""
    try:
        folder = partition_dir(landing_dir, log.cluster, log.topic, log.partition)
    except UnicodeEncodeError:
        raise LandingError(
            "the file cannot be landed: its name is not UTF-8", where=_shown(path), remedy="Rename it"
        ) from None
    for name, remedy in ((folder.parent.name, "Rename it"), (folder.parent.parent.name, "Use a shorter drop folder")):
        if len(name) > NAME_BYTES:
            raise LandingError(
                f"the file cannot be landed: its path is too long ({len(name)} bytes where it is kept, at most "
                f"{NAME_BYTES}; what is not A-Z, a-z, 0-9 or one of _.-~ takes three a byte)",
                where=_shown(path),
                remedy=remedy,
            )


def _shown(path: Path) -> str:
    """A path that can be printed: bytes that are not UTF-8 as `\\xff`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _continues(path: Path, position: int, last: bytes, *, is_open: bool) -> tuple[bool, int]:
    """Whether the line that ends before a byte position is the one landed last; and where the next one begins."""
    with path.open("rb") as stream:
        stream.seek(max(0, position - len(last) - 2))
        before = stream.read(position - stream.tell())
        after = stream.read(2)
    if not is_open:
        return before.endswith((last + b"\n", last + b"\r\n")), position
    # the last line had no line break yet when it was taken as whole: now it may have one, but no more text
    breaks = next((mark for mark in (b"\r\n", b"\n") if after.startswith(mark)), b"")
    return before.removesuffix(b"\r").endswith(last) and (not after or bool(breaks)), position + len(breaks)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        raise LandingError(
            f"the file cannot be read: {str(error).splitlines()[0]}",
            where=str(path),
            remedy="Correct its permissions or content; all other files were landed",
        ) from error


def _guarded(path: Path, read: Iterator[Batch]) -> Iterator[Batch]:
    with _readable(path):
        yield from read


def _lines(path: Path, position: int) -> Iterator[Batch]:
    """Batches of whole lines from a byte position, each with the position after it."""
    with path.open("rb") as stream:
        stream.seek(position)
        values: list[bytes | None] = []
        whole = b""
        for line in stream:
            # a time in the future is a wrong clock, not a file that has just been written
            if not line.endswith(b"\n") and abs(time.time() - path.stat().st_mtime) < QUIET_SECONDS:
                break  # somebody is still writing it
            whole = line
            position += len(line)
            values.append(line.removesuffix(b"\n").removesuffix(b"\r"))
            if len(values) >= BATCH_LINES:
                yield values, position, not line.endswith(b"\n")
                values = []
        if values:
            yield values, position, not whole.endswith(b"\n")


def _parquet_rows(path: Path, start: int) -> Iterator[Batch]:
    """Batches of rows as JSON text from a row number, each with the row number after it.

    Timestamp columns become the contract's RFC 3339; those without a zone are UTC.
    """
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'; set threads = 1")
        # hive_partitioning: a folder `a=b` above the file is no column of it
        reader, pattern = "read_parquet(?, hive_partitioning = false)", literal_path(path)
        described = con.execute(f"describe from {reader}", [pattern]).fetchall()
        stamps = ['"' + name.replace('"', '""') + '"' for name, kind, *_ in described if kind.startswith("TIMESTAMP")]
        texts = ", ".join(
            f"strftime({name}::timestamptz::timestamp, '%Y-%m-%dT%H:%M:%S.%fZ') as {name}" for name in stamps
        )
        replaced = f"replace ({texts})" if texts else ""
        rows = con.execute(
            f"select to_json(whole_row)::varchar from (select * {replaced} from {reader}) as whole_row", [pattern]
        )
        number = 0
        while batch := rows.fetchmany(BATCH_LINES):
            values = [text.encode() for (text,) in batch[max(0, start - number) :]]
            number += len(batch)
            if values:
                yield list(values), number, False


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
