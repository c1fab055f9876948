"""Writing landed files: buffered per log, written by one background thread, whole or absent after any crash.

A *log* is one partition of one topic of one cluster (or one file of a drop folder). A segment's name is the closed
range of offsets that was read for it; offsets inside the range may hold no record (transaction markers, compaction).
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import LandingError
from schemas.landing import LANDING_SCHEMA, Segment, parse_segment, partition_dir

logger = logging.getLogger(__name__)

ROW_GROUP_RECORDS = 100_000
BATCH_SCHEMA = pa.schema([LANDING_SCHEMA.field(i) for i in range(3, len(LANDING_SCHEMA))])
"""What a reader hands over: the landing schema without the three columns that are constant per log."""


@dataclass(frozen=True, order=True)
class Log:
    """Cluster, topic and partition: what offsets count in."""

    cluster: str
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, order=True)
class LandedRange:
    """What one landing added to one log: offsets start to end (inclusive) and the records among them."""

    cluster: str
    topic: str
    partition: int
    start: int
    end: int
    record_count: int


@dataclass
class _Buffer:
    opened_at: float
    start: int
    end: int
    batches: list[pa.RecordBatch] = field(default_factory=list)
    record_count: int = 0
    byte_count: int = 0
    notes: dict[str, str] = field(default_factory=dict)


def newest_segments(landing_dir: Path, cluster: str, topic: str) -> dict[int, Segment]:
    """The segment with the greatest end of every landed partition of a topic."""
    newest: dict[int, Segment] = {}
    for path in partition_dir(landing_dir, cluster, topic, 0).parent.glob("partition=*/*.parquet"):
        segment = parse_segment(path)
        if segment is not None and (segment.partition not in newest or segment.end > newest[segment.partition].end):
            newest[segment.partition] = segment
    return newest


def read_notes(landing_dir: Path, segment: Segment) -> dict[str, str]:
    """The notes a segment's writer left in its footer. Raises LandingError when the file is not whole."""
    path = segment.path(landing_dir)
    with _readable(path):
        pairs = pq.read_metadata(path).metadata or {}
    return {
        key.decode().removeprefix("journeys."): value.decode()
        for key, value in pairs.items()
        if key.startswith(b"journeys.")
    }


def last_value(landing_dir: Path, segment: Segment) -> bytes:
    """The value of a segment's last record. Raises LandingError when the file is not whole."""
    path = segment.path(landing_dir)
    with _readable(path):
        value: bytes = pq.read_table(path, columns=["value"])["value"][-1].as_py()
    return value


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise LandingError(
            "a landed file cannot be read",
            where=str(path),
            value=str(error)[:100],
            remedy="Restore it from a backup; if its records are still at the source, delete it and land again",
        ) from error


@contextmanager
def exclusive(landing_dir: Path, cluster: str, topic: str, timeout_seconds: float) -> Iterator[None]:
    """Be the only process that lands this topic, and clear what a killed one left half-written.

    Raises LandingError when another process keeps the lock for `timeout_seconds`.
    """
    folder = partition_dir(landing_dir, cluster, topic, 0).parent
    landing_dir.mkdir(parents=True, exist_ok=True)
    landing_dir.chmod(0o700)  # raw records are personal data
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_seconds
    with (folder / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LandingError(
                        "another process is landing this topic",
                        where=topic,
                        remedy="Wait for it, or stop it (`journeys land --follow` holds its topics until it ends)",
                    ) from None
                time.sleep(0.1)
        for leftover in folder.glob("partition=*/.*.tmp"):
            leftover.unlink(missing_ok=True)
        yield


class SegmentWriter:
    """Collects record batches per log and writes them as segments; a context manager.

    At most one file is being written while the next is collected, so memory stays within about twice `max_bytes`
    over all logs. Files of one log are written in offset order: what is on disk is always a prefix.
    """

    def __init__(self, landing_dir: Path, *, max_records: int, max_bytes: int) -> None:
        self._landing_dir = landing_dir
        self._max_records, self._max_bytes = max_records, max_bytes
        self._buffers: dict[Log, _Buffer] = {}
        self._buffered_bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="landing")
        self._writing: Future[LandedRange] | None = None
        self.ranges: list[LandedRange] = []

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # what was read before the source failed is as good as ever; after an interrupt nothing more is written
        try:
            if error is None or isinstance(error, Exception):
                self.flush()
        finally:
            self._thread.shutdown(wait=True)

    def add(self, log: Log, batch: pa.RecordBatch, *, through: int, notes: Mapping[str, str] | None = None) -> None:
        """Collect a batch (BATCH_SCHEMA, ascending offsets) that finishes reading the log up to offset `through`.

        `notes` describe the source at `through` and go to the footer of the file that ends there.
        """
        buffer = self._buffers.get(log)
        if buffer is None:
            start = batch.column("_offset")[0].as_py()
            buffer = self._buffers[log] = _Buffer(time.monotonic(), start, through)
        buffer.batches.append(batch)
        buffer.end = through
        buffer.record_count += batch.num_rows
        buffer.byte_count += batch.nbytes
        self._buffered_bytes += batch.nbytes
        if notes:
            buffer.notes.update(notes)
        if buffer.record_count >= self._max_records:
            self.close_file(log)
        elif self._buffered_bytes >= self._max_bytes:
            self.close_file(max(self._buffers, key=lambda other: self._buffers[other].byte_count))

    def close_file(self, log: Log, *, through: int | None = None) -> bool:
        """Hand what is collected of a log to the writing thread; `through` extends the range that was read.

        Answers whether anything was collected.
        """
        buffer = self._buffers.pop(log, None)
        if buffer is None:
            return False
        self._buffered_bytes -= buffer.byte_count
        if through is not None:
            buffer.end = max(buffer.end, through)
        self._submit(log, buffer)
        return True

    def mark_empty(self, log: Log, start: int, end: int, notes: Mapping[str, str]) -> None:
        """Record that offsets start to end give no records (expired, or none was there), so landing can go on."""
        self._submit(log, _Buffer(time.monotonic(), start, end, notes=dict(notes)))

    def close_old(self, seconds: float) -> None:
        """Close the files that were opened longer than `seconds` ago (following mode)."""
        now = time.monotonic()
        for log in [log for log, buffer in self._buffers.items() if now - buffer.opened_at >= seconds]:
            self.close_file(log)

    def flush(self) -> None:
        """Write everything collected and wait for it."""
        for log in sorted(self._buffers):
            self.close_file(log)
        self._settle()

    def _submit(self, log: Log, buffer: _Buffer) -> None:
        self._settle()
        self._writing = self._thread.submit(write_segment, self._landing_dir, log, buffer)

    def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            self.ranges.append(writing.result())


def write_segment(landing_dir: Path, log: Log, buffer: _Buffer) -> LandedRange:
    """Write one file: temporary name, synced, renamed, folder synced. Never replaces an existing file."""
    segment = Segment(log.cluster, log.topic, log.partition, buffer.start, buffer.end)
    path = segment.path(landing_dir)
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.parent.parents[:3]:
            _sync(folder)
    if path.exists():  # the lock makes this impossible; losing a landed file would be worse than stopping
        raise LandingError("a landed file with this range exists already", where=str(path))
    notes = {f"journeys.{key}": value for key, value in buffer.notes.items()}
    table = _with_log_columns(log, buffer.batches).replace_schema_metadata(notes)
    temporary = path.with_name(f".{path.stem}.tmp")
    pq.write_table(
        table,
        temporary,
        row_group_size=ROW_GROUP_RECORDS,
        compression="zstd",
        compression_level=1,
        use_dictionary=["_cluster", "_topic", "_partition", "landed_at"],
        write_statistics=["_offset", "kafka_at", "landed_at"],
    )
    _sync(temporary)
    temporary.rename(path)
    _sync(path.parent)
    logger.debug("landed %s offsets %d to %d (%d records)", log, buffer.start, buffer.end, table.num_rows)
    return LandedRange(log.cluster, log.topic, log.partition, buffer.start, buffer.end, table.num_rows)


def merge_ranges(ranges: Sequence[LandedRange]) -> list[LandedRange]:
    """One range per log, from the first offset to the last."""
    merged: dict[tuple[str, str, int], LandedRange] = {}
    for item in sorted(ranges):
        key = (item.cluster, item.topic, item.partition)
        seen = merged.get(key, item)
        count = item.record_count + (seen.record_count if key in merged else 0)
        merged[key] = LandedRange(*key, seen.start, max(seen.end, item.end), count)
    return sorted(merged.values())


def _with_log_columns(log: Log, batches: Sequence[pa.RecordBatch]) -> pa.Table:
    table = pa.Table.from_batches(batches, BATCH_SCHEMA)
    constants = [
        pa.repeat(pa.scalar(value, LANDING_SCHEMA.field(i).type), table.num_rows)
        for i, value in enumerate((log.cluster, log.topic, log.partition))
    ]
    return pa.Table.from_arrays([*constants, *table.columns], schema=LANDING_SCHEMA)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
