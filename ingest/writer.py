"""Sending records: to Kafka (idempotent, acknowledged by all replicas) or as lines into a drop folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from ingest.kafka import MAX_MESSAGE_BYTES, client_options, ensure_topics, open_admin
from ingest.sources import FolderSource, KafkaSource, parse_source
from schemas.errors import BrokerError, UsageError
from schemas.settings import Settings

_PENDING_LIMIT = 50_000
"""Records whose acknowledgement may be outstanding; past it sending waits, so memory stays bounded."""


class Writer:
    """Sends records to `url`; a context manager. `flush` returns when everything is safe, or raises.

    On Kafka: missing topics are created, each record is acknowledged by all replicas, retries cannot double it. On a
    drop folder: one NDJSON file per topic and writer, synced, visible under its final name once whole.
    """

    def __init__(self, url: str, settings: Settings, *, name: str | None = None) -> None:
        source = parse_source(url)
        self._sink: _KafkaSink | _FolderSink
        if isinstance(source, FolderSource):
            self._sink = _FolderSink(source, name or uuid.uuid4().hex)
        else:
            self._sink = _KafkaSink(source, settings)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.close(abort=kind is not None)

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None = None
    ) -> None:
        """Send one record; delivery errors surface here or at the next flush as BrokerError."""
        self._sink.send(topic, key, value, headers or {})

    def flush(self) -> None:
        """Return when every record sent so far is acknowledged (Kafka) or synced (folder)."""
        self._sink.flush()


class _KafkaSink:
    def __init__(self, source: KafkaSource, settings: Settings) -> None:
        from kafka import KafkaProducer

        self._source, self._settings = source, settings
        self._known_topics: set[str] = set()
        self._failure: BrokerError | None = None
        self._pending = 0
        options = client_options(source, settings)
        with open_admin(source, settings):  # an unreachable broker is said at once, not at the first flush
            pass
        self._producer = KafkaProducer(
            **options,
            enable_idempotence=True,
            acks="all",
            linger_ms=20,
            batch_size=256 * 1024,
            max_request_size=MAX_MESSAGE_BYTES,
            max_block_ms=options["request_timeout_ms"],
            delivery_timeout_ms=max(120_000, 2 * options["request_timeout_ms"]),
        )

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        self._raise_failure()
        if topic not in self._known_topics:
            with open_admin(self._source, self._settings) as admin:
                ensure_topics(admin, [topic], self._settings)
            self._known_topics.add(topic)
        size = len(value or b"") + len(key or b"")
        try:
            future = self._producer.send(topic, key=key, value=value, headers=list(headers.items()))
        except Exception as error:
            raise self._refused(topic, size, error) from error
        future.add_errback(self._failed, topic, size)
        self._pending += 1
        if self._pending >= _PENDING_LIMIT:
            self.flush()

    def _failed(self, topic: str, size: int, error: Exception) -> None:
        # Called on kafka-python's thread: keep the first failure for whoever sends or flushes next.
        if self._failure is None:
            self._failure = self._refused(topic, size, error)

    def _refused(self, topic: str, size: int, error: Exception) -> BrokerError:
        return BrokerError(
            f"a record was not delivered: {type(error).__name__}: {' '.join(str(error).split())[:200]}",
            where=f"topic {topic} of kafka://{self._source.address}",
            value=f"{size} bytes",
            remedy="Correct the cause and send again: events keep their ids, so what had arrived is not doubled",
        )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def flush(self) -> None:
        from kafka.errors import KafkaError

        timeout = self._producer.config["delivery_timeout_ms"] / 1000 + 30
        try:
            self._producer.flush(timeout=timeout)
        except KafkaError as error:
            self._raise_failure()
            raise BrokerError(
                f"not everything was acknowledged within {timeout:g} s",
                where=f"kafka://{self._source.address}",
                remedy="Check the broker and send again: events keep their ids",
            ) from error
        self._pending = 0
        self._raise_failure()

    def close(self, *, abort: bool) -> None:
        from kafka.errors import KafkaError

        try:
            if not abort:
                self.flush()
        finally:
            with suppress(KafkaError):  # what was not delivered has been said by flush, or the block failed anyway
                self._producer.close(timeout=0 if abort else 30)


class _FolderSink:
    """`<folder>/<topic>/<name>.ndjson`; a record must be one line, so one with a line break is refused."""

    def __init__(self, source: FolderSource, name: str) -> None:
        self._folder, self._name = source.folder, name
        self._files: dict[str, IO[bytes]] = {}

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        if b"\n" in (value or b""):
            raise UsageError(
                "a record with a line break cannot be written to a drop folder",
                where=topic,
                remedy="Write the JSON on one line, or send it to Kafka",
            )
        if topic not in self._files:
            path = self._folder / topic / f".{self._name}.tmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[topic] = path.open("wb")
        self._files[topic].write((value or b"") + b"\n")

    def flush(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())

    def close(self, *, abort: bool) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            temporary = Path(file.name)
            if abort:
                temporary.unlink(missing_ok=True)
                continue
            final = temporary.with_name(f"{self._name}.ndjson")
            number = 1
            while final.exists():  # sent before under the same name: a new file, its events are known by their ids
                number += 1
                # sorts after the files before it ("_" after "."): of equal copies the one landed first is kept
                final = temporary.with_name(f"{self._name}_{number:04d}.ndjson")
            temporary.rename(final)
            _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
