"""What the ingest tests share: settings on a temporary home, what was landed, and the wire form of an event."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from schemas.landing import LANDING_SCHEMA, live_segments
from schemas.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", kafka_timeout_seconds=10)


@pytest.fixture
def landed() -> Callable[[Settings], list[dict[str, Any]]]:
    """Every landed record, read as the pipeline reads: live segments only, in order of log and offset."""

    def _read(settings: Settings) -> list[dict[str, Any]]:
        paths = [segment.path(settings.landing_dir) for segment in live_segments(settings.landing_dir)]
        tables = [pq.read_table(path, schema=LANDING_SCHEMA) for path in paths]
        return pa.concat_tables(tables).to_pylist() if tables else []

    return _read


@pytest.fixture
def file_names() -> Callable[[Settings, str], list[str]]:
    """The names of a topic's landed files, as `partition/name`."""

    def _names(settings: Settings, topic: str) -> list[str]:
        found = settings.landing_dir.glob(f"*/topic={topic}/partition=*/*.parquet")
        return sorted(f"{path.parent.name.removeprefix('partition=')}/{path.name}" for path in found)

    return _names


@pytest.fixture
def wire() -> Callable[..., bytes]:
    """A valid web event as JSON bytes; keyword arguments change its fields."""

    def _wire(**changes: Any) -> bytes:
        event = {
            "event_id": str(uuid.uuid4()),
            "schema_version": 1,
            "channel": "web",
            "event_type": "page_viewed",
            "occurred_at": "2026-01-05T10:00:00Z",
            "received_at": "2026-01-05T10:00:01Z",
            "identifiers": {"anonymous_id": "a"},
            "properties": {},
        }
        return json.dumps({**event, **changes}).encode()

    return _wire


class Cluster:
    """The shared broker's topics, handled with plain kafka-python rather than with what is under test."""

    def __init__(self, url: str) -> None:
        self.url, self.bootstrap = url, url.removeprefix("kafka://")

    def create(self, topic: str, partitions: int = 1) -> None:
        with KafkaAdminClient(bootstrap_servers=self.bootstrap) as client:
            configs = {"max.message.bytes": str(8 * 2**20)}
            client.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}})
            client.wait_for_topics([topic])

    def delete(self, topic: str) -> None:
        with KafkaAdminClient(bootstrap_servers=self.bootstrap) as client:
            client.delete_topics([topic])
            deadline = time.monotonic() + 20
            while topic in client.list_topics():
                assert time.monotonic() < deadline, f"{topic} stays"
                time.sleep(0.05)

    def widen(self, topic: str, partitions: int) -> None:
        with KafkaAdminClient(bootstrap_servers=self.bootstrap) as client:
            client.create_partitions({topic: partitions})

    def expire(self, topic: str, partition: int, before: int) -> None:
        with KafkaAdminClient(bootstrap_servers=self.bootstrap) as client:
            client.delete_records({TopicPartition(topic, partition): before})

    def send(self, topic: str, *values: bytes | None, partition: int = 0, **options: Any) -> None:
        with self.producer(enable_idempotence=options.pop("enable_idempotence", True)) as producer:
            futures = [producer.send(topic, value=value, partition=partition, **options) for value in values]
            producer.flush()
            for future in futures:
                future.get(timeout=10)

    def producer(self, **options: Any) -> KafkaProducer:
        return KafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=8 * 2**20, **options)


@pytest.fixture
def cluster(kafka_url: str) -> Cluster:
    return Cluster(kafka_url)
