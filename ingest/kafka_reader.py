"""Reading Kafka into the landing: which offsets to read, and the loop that reads them. Nothing is parsed here."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata

from ingest.kafka import (
    CONSUMER_GROUP,
    TopicInfo,
    broker_errors,
    client_options,
    cluster_id,
    describe_topics,
    open_admin,
)
from ingest.kafka_records import record_batch
from ingest.segments import LandedRange, Log, SegmentWriter, exclusive, newest_segments, read_notes
from ingest.sources import KafkaSource
from schemas.errors import BrokerError, LandingError
from schemas.landing import partition_dir
from schemas.settings import Settings
from schemas.topics import DEAD_LETTER_TOPIC

logger = logging.getLogger(__name__)

POLL_RECORDS = 10_000
POLL_SECONDS = 0.25
FOLLOW_CLOSE_SECONDS = 5.0
FOLLOW_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Span:
    """Offsets still to read of one partition: from `start` up to `stop` (exclusive; None: without end)."""

    log: Log
    topic_id: str | None
    start: int
    stop: int | None


class KafkaLanding:
    """One landing of some topics: plan, read, write. `topics` None means all but dead letters and internal ones."""

    def __init__(
        self, source: KafkaSource, settings: Settings, topics: Sequence[str] | None, *, accept_loss: bool
    ) -> None:
        self._source, self._settings, self._topics = source, settings, topics
        self._accept_loss = accept_loss
        self._landing_dir: Path = settings.landing_dir
        self._locked: set[str] = set()
        self.problems: list[LandingError] = []

    def run(self, *, follow: bool, stop: threading.Event) -> list[LandedRange]:
        """Land until the end offsets of now, or until `stop` when following.

        A partition whose offsets contradict what was landed is left out and kept in `problems`; the others land.
        Raises BrokerError when the cluster does not answer, or no record comes, within the timeout.
        """
        source, settings = self._source, self._settings
        with ExitStack() as stack:
            admin = stack.enter_context(open_admin(source, settings))
            self._cluster = cluster_id(admin)
            infos = self._describe(admin)
            self.problems += self._deleted(infos)
            self._lock(stack, infos, settings.kafka_timeout_seconds)
            consumer = stack.enter_context(self._consumer())
            writer = stack.enter_context(
                SegmentWriter(
                    self._landing_dir,
                    max_records=settings.landing_file_records,
                    max_bytes=settings.landing_file_bytes,
                )
            )
            spans = self._plan(consumer, writer, infos)
            is_following = follow and not self.problems  # else the others land up to now, and the problem is raised
            reading = _Reading(consumer, writer, settings)
            reading.assign(_endless(spans) if is_following else _unread(spans))
            if is_following:
                self._follow(admin, stack, reading, stop)
            else:
                with _without_cycle_search():
                    reading.until_done(stop)
            writer.flush()
            self._commit(admin, writer.ranges)
        return writer.ranges

    def _follow(self, admin: KafkaAdminClient, stack: ExitStack, reading: _Reading, stop: threading.Event) -> None:
        looked_at, committed = time.monotonic(), 0
        while not stop.is_set():
            try:
                reading.poll()
            except LandingError:  # an offset vanished: planning anew tells why, and what to do
                self._plan(reading.consumer, reading.writer, self._describe(admin))
                if self.problems:
                    return
                raise
            reading.writer.close_old(FOLLOW_CLOSE_SECONDS)
            if time.monotonic() - looked_at < FOLLOW_LOOK_SECONDS:
                continue
            infos = self._describe(admin)  # also notices a broker that went away
            self._lock(stack, infos, 1)
            found = {(info.name, p, info.topic_id) for info in infos.values() for p in info.partitions}
            if found - {(span.log.topic, span.log.partition, span.topic_id) for span in reading.spans.values()}:
                reading.close()
                spans = self._plan(reading.consumer, reading.writer, infos)  # a recreated topic has another id
                if self.problems:
                    return
                reading.assign(_endless(spans))
            self._commit(admin, reading.writer.ranges[committed:])
            looked_at, committed = time.monotonic(), len(reading.writer.ranges)
        reading.close()

    def _lock(self, stack: ExitStack, names: Iterable[str], timeout_seconds: float) -> None:
        for name in sorted(set(names) - self._locked):
            stack.enter_context(exclusive(self._landing_dir, self._cluster, name, timeout_seconds))
            self._locked.add(name)

    def _describe(self, admin: KafkaAdminClient) -> dict[str, TopicInfo]:
        infos = describe_topics(admin, self._topics)
        if self._topics is None:
            infos = {n: info for n, info in infos.items() if n != DEAD_LETTER_TOPIC and not n.startswith("__")}
        for name in sorted(set(self._topics or ()) - infos.keys()):
            logger.info("topic %s does not exist on %s: nothing to land", name, self._source.address)
        return infos

    def _deleted(self, infos: Mapping[str, TopicInfo]) -> Iterator[LandingError]:
        for name in sorted(set(self._topics or ()) - infos.keys()):
            for partition, segment in sorted(newest_segments(self._landing_dir, self._cluster, name).items()):
                log = Log(self._cluster, name, partition)
                yield self._contradiction(log, segment.end, "is no longer there: it was deleted", "no such topic")
                break

    @contextmanager
    def _consumer(self) -> Iterator[KafkaConsumer]:
        options = client_options(self._source, self._settings)
        with broker_errors(self._source, self._settings):
            consumer = KafkaConsumer(
                **options,
                auto_offset_reset="none",  # an offset the broker lacks is an error, never a silent jump
                enable_auto_commit=False,
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                max_partition_fetch_bytes=8 * 2**20,
                fetch_max_wait_ms=min(500, options["request_timeout_ms"] // 2),
                metrics_enabled=False,
            )
            try:
                yield consumer
            finally:
                consumer.close(autocommit=False)

    def _plan(
        self, consumer: KafkaConsumer, writer: SegmentWriter, infos: Mapping[str, TopicInfo]
    ) -> dict[TopicPartition, Span]:
        """What each partition holds from the next offset to land to its end of now; contradictions go to `problems`."""
        partitions = [TopicPartition(info.name, p) for info in infos.values() for p in info.partitions]
        if not partitions:
            return {}
        earliest = self._offsets(consumer.beginning_offsets, partitions)
        latest = self._offsets(consumer.end_offsets, partitions)
        spans: dict[TopicPartition, Span] = {}
        for info in infos.values():
            try:
                starts = self._starts(info, latest)
            except LandingError as problem:
                self.problems.append(problem)
                continue
            for partition, landed_to in starts.items():
                log, place = Log(self._cluster, info.name, partition), TopicPartition(info.name, partition)
                start = earliest[place] if landed_to is None else landed_to
                if earliest[place] > start:
                    try:
                        self._check_expired(writer, log, info, start, earliest[place])
                    except LandingError as problem:
                        self.problems.append(problem)
                        continue
                    start = earliest[place]
                spans[place] = Span(log, info.topic_id, start, latest[place])
        return spans

    def _offsets(
        self, ask: Callable[..., dict[TopicPartition, int]], partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """What kafka-python answers once it knows a leader for every partition: of a new one it learns with a delay."""
        deadline = time.monotonic() + self._settings.kafka_timeout_seconds
        while True:
            try:
                return ask(partitions, timeout_ms=int(self._settings.kafka_timeout_seconds * 1000))
            except KeyError as unknown:  # it leaves out a partition without leader, then trips over that
                if time.monotonic() > deadline:
                    raise BrokerError(
                        f"the partition has had no leader for {self._settings.kafka_timeout_seconds:g} s",
                        where=f"{unknown.args[0]} of kafka://{self._source.address}",
                        remedy="Check the brokers, then land again: nothing is lost",
                    ) from None
                time.sleep(POLL_SECONDS)

    def _starts(self, info: TopicInfo, latest: Mapping[TopicPartition, int]) -> dict[int, int | None]:
        """The offset after the last landed one of each partition (None: nothing landed). Raises LandingError when the
        topic is not the one that was landed: then no partition of it may be read on.
        """
        newest = newest_segments(self._landing_dir, self._cluster, info.name)
        for gone in sorted(newest.keys() - set(info.partitions)):
            raise self._recreated(Log(self._cluster, info.name, gone), newest[gone].end, "no such partition")
        for partition, segment in sorted(newest.items()):
            log, end = Log(self._cluster, info.name, partition), latest[TopicPartition(info.name, partition)]
            landed_id = read_notes(self._landing_dir, segment).get("topic_id")
            if landed_id and info.topic_id and landed_id != info.topic_id:
                raise self._recreated(log, segment.end, f"topic id {info.topic_id}, landed from {landed_id}")
            if end <= segment.end:
                raise self._recreated(log, segment.end, f"end offset {end}")
        return {partition: newest[partition].end + 1 if partition in newest else None for partition in info.partitions}

    def _check_expired(self, writer: SegmentWriter, log: Log, info: TopicInfo, start: int, earliest: int) -> None:
        if self._accept_loss:
            logger.warning("%s: offsets %d to %d expired and are recorded as lost", log, start, earliest - 1)
            writer.mark_empty(log, start, earliest - 1, _notes(info.topic_id))
            return
        raise LandingError(
            f"offsets {start} to {earliest - 1} expired before they were landed",
            where=f"{log} of cluster {self._cluster}",
            value=f"earliest offset {earliest}",
            remedy="Land more often or lengthen the topic's retention; to go on without these records, land once "
            "with accept_loss (`journeys land --accept-loss`)",
        )

    def _recreated(self, log: Log, landed: int, found: str) -> LandingError:
        return self._contradiction(log, landed, "on the broker is another one now: it was recreated", found)

    def _contradiction(self, log: Log, landed: int, what: str, found: str) -> LandingError:
        folder = partition_dir(self._landing_dir, log.cluster, log.topic, 0).parent
        aside = folder.parent.with_name(f"{folder.parent.name}-before")
        return LandingError(
            f"offsets 0 to {landed} were landed, but the topic {what}",
            where=f"{log} of cluster {self._cluster}",
            value=found,
            remedy=f"Restore the topic; or keep the old records and start afresh: mkdir -p {aside} && "
            f"mv {folder} {aside}/",
        )

    def _commit(self, admin: KafkaAdminClient, ranges: Sequence[LandedRange]) -> None:
        """Tell lag tools how far we are; the landed files alone decide where to go on."""
        offsets: dict[Any, Any] = {}
        for item in ranges:
            offsets[TopicPartition(item.topic, item.partition)] = OffsetAndMetadata(item.end + 1, "", -1)
        if not offsets:
            return
        try:
            admin.alter_group_offsets(CONSUMER_GROUP, offsets)
        except (kafka_errors.KafkaError, OSError) as error:
            logger.info("offsets were not committed for lag tools: %s", type(error).__name__)


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Let a drain's records be freed by their counts alone: looking for cycles among them takes a fifth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Reading:
    """The poll loop over a set of spans."""

    def __init__(self, consumer: KafkaConsumer, writer: SegmentWriter, settings: Settings) -> None:
        self.consumer, self.writer = consumer, writer
        self._timeout_seconds = settings.kafka_timeout_seconds
        self._poll_records = min(POLL_RECORDS, settings.landing_file_records)  # no file outgrows its limit

    def assign(self, spans: dict[TopicPartition, Span]) -> None:
        """Read exactly these spans, each from its start."""
        self.spans = spans
        self._open = dict(spans)
        self._read_to = {place: span.start for place, span in spans.items()}
        self.consumer.assign(list(spans))
        for place, span in spans.items():
            self.consumer.seek(place, span.start)

    def until_done(self, stop: threading.Event) -> None:
        """Read to the end of every span. Raises BrokerError when nothing moves for the timeout."""
        moved_at, positions = time.monotonic(), {place: span.start for place, span in self._open.items()}
        while self._open and not stop.is_set():
            if self.poll():
                moved_at = time.monotonic()
                continue
            for place, span in list(self._open.items()):
                # a span may end in markers and gaps that are never handed out: the position passes them
                position = self.consumer.position(place, timeout_ms=1000)
                if position is not None and position > positions[place]:
                    positions[place], moved_at = position, time.monotonic()
                if position is not None and span.stop is not None and position >= span.stop:
                    self._finish(place)
            if time.monotonic() - moved_at > self._timeout_seconds:
                stuck = ", ".join(f"{span.log} at {positions[place]}" for place, span in self._open.items())
                raise BrokerError(
                    f"no record came for {self._timeout_seconds:g} s, short of the end offset",
                    where=stuck,
                    remedy="Check the broker (leaders of these partitions, disks), then land again: nothing is lost",
                )

    def poll(self) -> bool:
        """One poll, handed to the writer; whether there were records. Raises LandingError on a vanished offset."""
        if not self.spans:
            time.sleep(POLL_SECONDS)
            return False
        try:
            polled = self.consumer.poll(timeout_ms=int(POLL_SECONDS * 1000), max_records=self._poll_records)
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
            raise LandingError(
                "the broker no longer has the next offset to read",
                value=str(error),
                remedy="Land again: the next landing says which range is missing and what to do",
            ) from error
        landed_at = datetime.now(UTC)
        for place, fetched in polled.items():
            span = self._open.get(place)
            if span is None:
                continue
            records = fetched
            if span.stop is not None and fetched[-1].offset >= span.stop:
                records = [record for record in fetched if record.offset < span.stop]
            if records:
                batch = record_batch(records, landed_at)
                self.writer.add(span.log, batch, through=records[-1].offset, notes=_notes(span.topic_id))
                self._read_to[place] = records[-1].offset + 1
            if span.stop is not None and (not records or records[-1].offset >= span.stop - 1):
                self._finish(place)
        return bool(polled)

    def _finish(self, place: TopicPartition) -> None:
        span = self._open.pop(place)
        self.consumer.pause(place)
        if span.stop is not None:
            self._close_file(place, span, span.stop)

    def close(self) -> None:
        """Close every file at the position reached (following mode)."""
        for place, span in self._open.items():
            position = self.consumer.position(place, timeout_ms=1000)
            self._close_file(place, span, max(position or 0, self._read_to[place]))
        self.writer.flush()

    def _close_file(self, place: TopicPartition, span: Span, stop: int) -> None:
        # offsets that hold no record (markers, aborted transactions) count as read: once they expire nothing is lost
        is_extended = self.writer.close_file(span.log, through=stop - 1)
        if not is_extended and self._read_to[place] < stop:
            self.writer.mark_empty(span.log, self._read_to[place], stop - 1, _notes(span.topic_id))
        self._read_to[place] = stop


def _endless(spans: Mapping[TopicPartition, Span]) -> dict[TopicPartition, Span]:
    return {place: replace(span, stop=None) for place, span in spans.items()}


def _unread(spans: Mapping[TopicPartition, Span]) -> dict[TopicPartition, Span]:
    return {place: span for place, span in spans.items() if span.stop is None or span.start < span.stop}


def _notes(topic_id: str | None) -> dict[str, str]:
    return {"topic_id": topic_id} if topic_id else {}
