"""Landing from a real broker: bytes as they were sent, offsets in the files, and loud errors where they contradict."""

from __future__ import annotations

import subprocess
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from ingest.kafka import CONSUMER_GROUP
from ingest.landing import LandedRange, land
from ingest.segments import exclusive
from schemas.errors import BrokerError, LandingError, UnlandedError
from schemas.landing import list_segments, live_segments
from schemas.settings import Settings
from schemas.topics import DEAD_LETTER_TOPIC

pytestmark = pytest.mark.broker

TOPIC = "journeys.web.v1"
COUNT = 20_000
STAMP_MS = 1_767_607_200_123  # 2026-01-05T10:00:00.123Z


def counts(ranges: list[LandedRange]) -> list[tuple[Any, ...]]:
    return [(r.topic, r.partition, r.start, r.end, r.record_count) for r in ranges]


class OddName(str):
    """A header name that is not UTF-8, as clients in C can send it."""

    def encode(self, *_: Any) -> bytes:
        return b"caf\xe9"


def test_records_land_byte_for_byte_with_key_headers_and_time(cluster, settings, landed):
    cluster.create(TOPIC)
    odd = [b'{"a": 1}', b"", None, b"\x00\xff\xfe\n", "ü".encode(), b'{"event_id": "trunc', b"x" * 1_500_000]
    with cluster.producer() as producer:
        for number, value in enumerate(odd):
            headers = [("trace", b"t\x00"), ("trace", b"again"), ("empty", b"")] if number == 0 else []
            key = b"k\xff" if number == 0 or value is None else None
            producer.send(TOPIC, value=value, key=key, headers=headers, timestamp_ms=STAMP_MS, partition=0)
        producer.send(TOPIC, value=b"odd header", headers=[(OddName("cafe"), b"v")], timestamp_ms=STAMP_MS, partition=0)
        producer.flush()
    before = datetime.now(UTC)
    assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 0, 7, 8)]
    rows = landed(settings)
    assert [row["value"] for row in rows] == [*odd, b"odd header"]
    assert [row["_offset"] for row in rows] == list(range(8))
    assert {(row["_topic"], row["_partition"]) for row in rows} == {(TOPIC, 0)}
    assert {row["kafka_at"] for row in rows} == {datetime(2026, 1, 5, 10, 0, 0, 123_000, UTC)}
    assert all(before <= row["landed_at"] <= datetime.now(UTC) for row in rows)
    assert (rows[0]["key"], rows[1]["key"]) == (b"k\xff", None)
    expected = [("trace", b"t\x00"), ("trace", b"again"), ("empty", b"")]
    assert [(h["key"], h["value"]) for h in rows[0]["headers"]] == expected
    assert rows[1]["headers"] == []
    assert [(h["key"], h["value"]) for h in rows[7]["headers"]] == [("caf\\xe9", b"v")]


def test_landing_again_adds_nothing_and_new_records_get_a_new_zero_padded_file(cluster, settings, landed, file_names):
    cluster.create(TOPIC, 2)
    cluster.send(TOPIC, b"a", b"b")
    assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 0, 1, 2)]
    assert land(cluster.url, settings=settings) == []
    cluster.send(TOPIC, b"c")
    cluster.send(TOPIC, b"d", partition=1)
    assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 2, 2, 1), (TOPIC, 1, 0, 0, 1)]
    zero, one, two = ("0" * 19 + n for n in "012")
    assert file_names(settings, TOPIC) == [
        f"0/{zero}-{one}.parquet",
        f"0/{two}-{two}.parquet",
        f"1/{zero}-{zero}.parquet",
    ]
    assert [row["value"] for row in landed(settings)] == [b"a", b"b", b"c", b"d"]


def test_many_small_files_hold_every_offset_once_in_order(cluster, settings, landed, file_names):
    cluster.create(TOPIC)
    cluster.send(TOPIC, *(b"%d" % n for n in range(1000)))
    small = settings.model_copy(update={"landing_file_records": 64, "landing_file_bytes": 4000})
    land(cluster.url, settings=small)
    assert [row["value"] for row in landed(settings)] == [b"%d" % n for n in range(1000)]
    assert len(file_names(settings, TOPIC)) > 1


def test_a_drain_ends_at_the_end_offsets_of_its_start_though_more_arrives(cluster, settings, monkeypatch):
    """A record sent after the end offsets were taken (here: as soon as they were) waits for the next landing."""
    cluster.create(TOPIC)
    cluster.send(TOPIC, b"a", b"b", b"c")
    take = KafkaConsumer.end_offsets

    def _take_and_send(consumer: KafkaConsumer, *args: Any, **options: Any) -> Any:
        taken = take(consumer, *args, **options)
        cluster.send(TOPIC, b"later", b"later")
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(KafkaConsumer, "end_offsets", _take_and_send)
        assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 0, 2, 3)]
    assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 3, 4, 2)]


def test_only_the_topics_asked_for_are_landed_and_dead_letters_never_unless_named(cluster, settings):
    for topic in (TOPIC, "other", DEAD_LETTER_TOPIC):
        cluster.create(topic)
        cluster.send(topic, b"x")
    assert [r.topic for r in land(cluster.url, settings=settings)] == [TOPIC]
    assert [r.topic for r in land(cluster.url, settings=settings, topics=None)] == ["other"]
    assert land(cluster.url, settings=settings, topics=["no.such.topic"]) == []


def test_commits_tell_lag_tools_how_far_landing_is(cluster, settings):
    cluster.create(TOPIC, 2)
    cluster.send(TOPIC, b"a", b"b", b"c")
    cluster.send(TOPIC, b"d", partition=1)
    land(cluster.url, settings=settings)
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as client:
        offsets = client.list_group_offsets(CONSUMER_GROUP)[CONSUMER_GROUP]
    assert {place.partition: value.offset for place, value in offsets.items() if place.topic == TOPIC} == {0: 3, 1: 1}


def test_landed_files_alone_decide_where_to_go_on_whatever_is_committed(cluster, settings):
    cluster.create(TOPIC)
    cluster.send(TOPIC, b"a", b"b")
    land(cluster.url, settings=settings)
    for path in settings.landing_dir.rglob("*.parquet"):
        path.unlink()
    assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 0, 1, 2)]


def test_a_file_contained_in_another_is_not_read_and_a_half_written_one_is_cleared(cluster, settings, landed):
    cluster.create(TOPIC)
    cluster.send(TOPIC, b"a", b"b")
    land(cluster.url, settings=settings)
    cluster.send(TOPIC, b"c")
    land(cluster.url, settings=settings)
    first, second = sorted(settings.landing_dir.rglob("*.parquet"))
    merged = first.with_name(f"{0:020d}-{2:020d}.parquet")
    pq.write_table(pa.concat_tables([pq.ParquetFile(first).read(), pq.ParquetFile(second).read()]), merged)
    (first.parent / f".{0:020d}-{9:020d}.tmp").write_bytes(b"half")
    assert [row["value"] for row in landed(settings)] == [b"a", b"b", b"c"]
    contained = set(list_segments(settings.landing_dir)) - set(live_segments(settings.landing_dir))
    assert {s.path(settings.landing_dir) for s in contained} == {first, second}
    assert land(cluster.url, settings=settings) == []
    assert not list(settings.landing_dir.rglob("*.tmp"))


def test_expired_offsets_are_a_loud_error_and_every_other_partition_still_lands(cluster, settings, landed):
    cluster.create(TOPIC, 2)
    cluster.create("journeys.store.v1")
    cluster.send(TOPIC, b"a", b"b")
    land(cluster.url, settings=settings)
    cluster.send(TOPIC, b"gone 2", b"gone 3", b"kept 4")
    cluster.send(TOPIC, b"other partition", partition=1)
    cluster.send("journeys.store.v1", b"other topic")
    cluster.expire(TOPIC, 0, before=4)
    with pytest.raises(LandingError) as raised:
        land(cluster.url, settings=settings)
    assert str(raised.value).startswith(f"{TOPIC}[0] of cluster ")
    assert "offsets 2 to 3 expired before they were landed (got 'earliest offset 4')" in str(raised.value)
    assert "--accept-loss" in str(raised.value)
    assert [row["value"] for row in landed(settings)] == [b"other topic", b"a", b"b", b"other partition"]

    added = land(cluster.url, settings=settings, accept_loss=True)
    assert counts(added) == [(TOPIC, 0, 2, 4, 1)]
    assert landed(settings)[3]["value"] == b"kept 4"
    gap = [s for s in list_segments(settings.landing_dir) if (s.topic, s.start, s.end) == (TOPIC, 2, 3)]
    assert [pq.ParquetFile(s.path(settings.landing_dir)).metadata.num_rows for s in gap] == [0]
    assert land(cluster.url, settings=settings) == []


def test_following_with_expired_offsets_lands_the_others_and_says_so(cluster, settings, landed):
    cluster.create(TOPIC, 2)
    cluster.send(TOPIC, b"a")
    land(cluster.url, settings=settings)
    cluster.send(TOPIC, b"gone", b"kept")
    cluster.send(TOPIC, b"other", partition=1)
    cluster.expire(TOPIC, 0, before=2)
    with pytest.raises(LandingError, match=r"offsets 1 to 1 expired"):
        land(cluster.url, settings=settings, follow=True)
    assert [row["value"] for row in landed(settings)] == [b"a", b"other"]


@pytest.mark.parametrize("count", [1, 2, 5], ids=["fewer records", "as many", "more records"])
def test_a_recreated_topic_is_a_loud_error_and_its_remedy_works(cluster, settings, landed, count):
    cluster.create(TOPIC)
    cluster.create("journeys.store.v1")
    cluster.send(TOPIC, b"old 0", b"old 1")
    land(cluster.url, settings=settings)
    cluster.delete(TOPIC)
    cluster.create(TOPIC)
    cluster.send(TOPIC, *[b"new"] * count)
    cluster.send("journeys.store.v1", b"other topic")
    with pytest.raises(LandingError) as raised:
        land(cluster.url, settings=settings)
    assert f"{TOPIC}[0]" in str(raised.value)
    assert "offsets 0 to 1 were landed" in str(raised.value) and "recreated" in str(raised.value)
    assert [row["value"] for row in landed(settings)] == [b"other topic", b"old 0", b"old 1"]

    command = str(raised.value).split("start afresh: ")[1]
    subprocess.run(command, shell=True, check=True)
    assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 0, count - 1, count)]


def test_a_topic_recreated_with_fewer_partitions_is_a_loud_error(cluster, settings):
    cluster.create(TOPIC, 2)
    cluster.send(TOPIC, b"a", partition=1)
    land(cluster.url, settings=settings)
    cluster.delete(TOPIC)
    cluster.create(TOPIC, 1)
    with pytest.raises(LandingError, match=r"journeys.web.v1\[1\].*no such partition"):
        land(cluster.url, settings=settings)


def test_a_deleted_topic_is_a_loud_error_and_its_remedy_works(cluster, settings, landed):
    cluster.create(TOPIC)
    cluster.create("journeys.store.v1")
    cluster.send(TOPIC, b"old")
    land(cluster.url, settings=settings)
    cluster.delete(TOPIC)
    cluster.send("journeys.store.v1", b"other topic")
    with pytest.raises(UnlandedError, match=r"journeys.web.v1\[0\].*offsets 0 to 0 were landed.*deleted") as raised:
        land(cluster.url, settings=settings)
    assert (raised.value.record_count, len(raised.value.problems)) == (1, 1)
    assert [row["value"] for row in landed(settings)] == [b"other topic", b"old"]
    subprocess.run(str(raised.value).split("start afresh: ")[1], shell=True, check=True)
    assert land(cluster.url, settings=settings) == []


def test_markers_and_aborted_transactions_neither_stall_a_drain_nor_count_as_lost(cluster, settings, landed):
    cluster.create(TOPIC)
    producer = cluster.producer(transactional_id="t", acks="all")
    producer.init_transactions()

    def transact(*values: bytes, commit: bool) -> None:
        producer.begin_transaction()
        for value in values:
            producer.send(TOPIC, value=value, partition=0)
        producer.flush()
        producer.commit_transaction() if commit else producer.abort_transaction()

    transact(b"a", b"b", commit=True)  # offsets 0, 1 and a marker at 2
    transact(b"never", commit=False)  # 3 and a marker at 4
    assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 0, 4, 2)]
    transact(b"never", commit=False)  # 5, 6: a drain that meets no record at all
    assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 5, 6, 0)]
    assert land(cluster.url, settings=settings) == []
    cluster.expire(TOPIC, 0, before=7)  # what expired held no record, and had been read
    transact(b"c", commit=True)  # 7, 8
    producer.begin_transaction()
    producer.send(TOPIC, value=b"open", partition=0)
    producer.flush()
    assert counts(land(cluster.url, settings=settings)) == [(TOPIC, 0, 7, 8, 1)]
    producer.commit_transaction()
    producer.close()
    land(cluster.url, settings=settings)
    assert [row["value"] for row in landed(settings)] == [b"a", b"b", b"c", b"open"]


@pytest.mark.slow
def test_following_lands_until_stopped_and_notices_new_partitions_topics_and_recreated_ones(
    cluster, settings, landed, monkeypatch
):
    monkeypatch.setattr("ingest.kafka_reader.FOLLOW_CLOSE_SECONDS", 0.2)
    monkeypatch.setattr("ingest.kafka_reader.FOLLOW_LOOK_SECONDS", 0.5)
    cluster.create(TOPIC)
    cluster.send(TOPIC, b"1")
    stop, outcome = threading.Event(), []

    def follow() -> None:
        try:
            outcome.append(counts(land(cluster.url, settings=settings, follow=True, stop=stop)))
        except LandingError as error:
            outcome.append(str(error))

    def until(values: set[bytes]) -> None:
        deadline = time.monotonic() + 30
        while {row["value"] for row in landed(settings)} != values:
            assert time.monotonic() < deadline and thread.is_alive(), outcome
            time.sleep(0.1)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        until({b"1"})
        cluster.send(TOPIC, b"2")
        until({b"1", b"2"})
        cluster.widen(TOPIC, 2)
        cluster.create("journeys.support.v1")
        cluster.send(TOPIC, b"3", partition=1)
        cluster.send("journeys.support.v1", b"4")
        until({b"1", b"2", b"3", b"4"})
        cluster.send(TOPIC, b"5")
        until({b"1", b"2", b"3", b"4", b"5"})
        stop.set()
        thread.join(20)
        assert outcome == [[("journeys.support.v1", 0, 0, 0, 1), (TOPIC, 0, 0, 2, 3), (TOPIC, 1, 0, 0, 1)]]
        stop.clear()
        outcome.clear()
        thread = threading.Thread(target=follow)
        thread.start()
        time.sleep(1)
        cluster.delete("journeys.support.v1")
        cluster.create("journeys.support.v1")
        thread.join(20)
        assert not thread.is_alive() and "journeys.support.v1[0]" in outcome[0] and "recreated" in outcome[0]
    finally:
        stop.set()
        thread.join(20)


def test_a_second_process_landing_the_same_topic_gets_a_clear_error(cluster, settings):
    cluster.create(TOPIC)
    cluster.send(TOPIC, b"a")
    (first,) = land(cluster.url, settings=settings)
    hasty = settings.model_copy(update={"kafka_timeout_seconds": 1})
    with (
        exclusive(settings.landing_dir, first.cluster, TOPIC, 1),
        pytest.raises(LandingError, match=r"journeys.web.v1: another process is landing this topic. Wait for it"),
    ):
        land(cluster.url, settings=hasty)


def test_a_damaged_newest_file_is_named_with_a_remedy(cluster, settings):
    cluster.create(TOPIC)
    cluster.send(TOPIC, b"a")
    land(cluster.url, settings=settings)
    (path,) = settings.landing_dir.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LandingError, match=r"a landed file cannot be read.*land again") as raised:
        land(cluster.url, settings=settings)
    assert str(path) in str(raised.value)


def test_landed_records_are_private(cluster, settings):
    cluster.create(TOPIC)
    cluster.send(TOPIC, b"a")
    land(cluster.url, settings=settings)
    assert settings.landing_dir.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_broker_that_dies_amid_a_drain_is_an_error_and_nothing_is_lost(broker_module, tmp_path, landed):
    settings = Settings(home=tmp_path / "home", kafka_timeout_seconds=3, landing_file_records=500)
    with broker_module.Broker(tmp_path / "kafka", tied=True) as broker:
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as client:
            client.create_topics({TOPIC: {"num_partitions": 1, "replication_factor": 1}})
            client.wait_for_topics([TOPIC])
        with KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all") as producer:
            for number in range(COUNT):
                producer.send(TOPIC, value=b"%01000d" % number, partition=0)
            producer.flush()

        def kill_once_landing_writes() -> None:
            while not list(settings.landing_dir.rglob("*.parquet")):
                time.sleep(0.001)
            broker.kill()

        killer = threading.Thread(target=kill_once_landing_writes)
        killer.start()
        with pytest.raises(BrokerError, match=r"no record came for 3 s.*nothing is lost"):
            land(f"kafka://{broker.bootstrap}", settings=settings)
        killer.join()
        values = [row["value"] for row in landed(settings)]
        assert 0 < len(values) < COUNT and values == [b"%01000d" % n for n in range(len(values))]
        broker.start()
        land(f"kafka://{broker.bootstrap}", settings=settings)
        assert [row["value"] for row in landed(settings)] == [b"%01000d" % n for n in range(COUNT)]
