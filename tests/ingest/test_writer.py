"""Sending: topics made, everything acknowledged or a loud error, nothing doubled; and the drop folder's whole files."""

from __future__ import annotations

import re
import threading
import time

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from ingest.landing import land
from ingest.writer import Writer
from schemas.errors import BrokerError, UsageError
from schemas.settings import Settings

TOPIC = "journeys.web.v1"


@pytest.mark.broker
def test_missing_topics_are_created_with_our_partitions_retention_and_record_size(cluster, settings):
    ours = settings.model_copy(update={"kafka_partitions": 5, "kafka_retention_hours": 7})
    with Writer(cluster.url, ours) as writer:
        writer.send(TOPIC, b"k", b"v")
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as client:
        assert len(client.describe_topics([TOPIC])[0]["partitions"]) == 5
        configs = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)], config_filter="all")
    text = str(configs)
    assert "retention.ms" in text and str(7 * 3_600_000) in text and str(8 * 2**20) in text


@pytest.mark.broker
def test_sent_records_keep_key_headers_and_the_order_of_a_key(cluster, settings, landed):
    with Writer(cluster.url, settings) as writer:
        for number in range(300):
            writer.send(TOPIC, b"key-%d" % (number % 7), b"%d" % number, {"trace": b"t"})
        writer.send(TOPIC, b"key", None)
    land(cluster.url, settings=settings)
    rows = landed(settings)
    assert len(rows) == 301 and {row["_partition"] for row in rows} == {0, 1, 2}
    for key in {row["key"] for row in rows} - {b"key"}:
        mine = [row for row in rows if row["key"] == key]
        assert len({row["_partition"] for row in mine}) == 1
        assert [int(row["value"]) for row in mine] == sorted(int(row["value"]) for row in mine)
    assert rows[0]["headers"] == [{"key": "trace", "value": b"t"}]
    assert [row["value"] for row in rows if row["key"] == b"key"] == [None]


@pytest.mark.broker
def test_the_broker_knows_the_writer_as_an_idempotent_producer_so_that_retries_cannot_double(cluster, settings):
    cluster.create(TOPIC)
    with Writer(cluster.url, settings) as writer:
        writer.send(TOPIC, b"k", b"v")
    cluster.send(TOPIC, b"anonymous", enable_idempotence=False)
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as client:
        (state,) = client.describe_producers([TopicPartition(TOPIC, 0)]).values()
    assert len(re.findall(r"producer_id", str(state))) == 1, state


@pytest.mark.broker
def test_a_megabyte_is_delivered_and_a_record_over_the_limit_is_an_error_without_its_payload(cluster, settings, landed):
    with pytest.raises(BrokerError) as raised, Writer(cluster.url, settings) as writer:
        writer.send(TOPIC, b"k", b"x" * 1_500_000)
        writer.flush()
        writer.send(TOPIC, b"k", b"secret" * 2**21)
    message = str(raised.value)
    assert f"topic {TOPIC} of {cluster.url}: a record was not delivered: MessageSizeTooLargeError" in message
    assert "bytes'" in message and "events keep their ids" in message and "secretsecret" not in message
    land(cluster.url, settings=settings)
    assert [len(row["value"]) for row in landed(settings)] == [1_500_000]


@pytest.mark.broker
def test_a_record_the_broker_refuses_surfaces_at_the_flush(cluster, settings):
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as client:
        configs = {"max.message.bytes": "1000"}
        client.create_topics({TOPIC: {"num_partitions": 1, "replication_factor": 1, "configs": configs}})
    with Writer(cluster.url, settings) as writer:
        writer.send(TOPIC, b"k", b"x" * 5000)
        with pytest.raises(BrokerError, match=r"a record was not delivered: \w*TooLarge.*got '5001 bytes'"):
            writer.flush()
        with pytest.raises(BrokerError, match="was not delivered"):
            writer.send(TOPIC, b"k", b"fine")
        with pytest.raises(BrokerError, match="was not delivered"):
            writer.flush()
        writer._sink._failure = None  # let the block end


@pytest.mark.broker
@pytest.mark.slow
def test_a_broker_killed_amid_sending_and_started_again_loses_and_doubles_nothing(broker_module, tmp_path, landed):
    settings = Settings(home=tmp_path / "home", kafka_timeout_seconds=30, kafka_partitions=1)
    with broker_module.Broker(tmp_path / "kafka", tied=True) as broker:
        url = f"kafka://{broker.bootstrap}"
        sent: list[bytes] = []
        over = threading.Event()

        def crash() -> None:
            while len(sent) < 4000:
                time.sleep(0.001)
            broker.kill()
            broker.start()
            over.wait()  # tied to this thread, the broker would end with it

        crashing = threading.Thread(target=crash)
        crashing.start()
        with Writer(url, settings) as writer:
            for number in range(12_000):
                writer.send(TOPIC, b"k", b"%0400d" % number)
                sent.append(b"%0400d" % number)
                if number % 100 == 0:
                    time.sleep(0.005)
        land(url, settings=settings)
        over.set()
        crashing.join()
    assert [row["value"] for row in landed(settings)] == sent


def test_an_unreachable_broker_is_said_within_the_timeout_with_the_remedy(tmp_path, broker_module):
    port = broker_module.free_port()
    settings = Settings(home=tmp_path, kafka_timeout_seconds=0.5)
    for act in (
        lambda: land(f"kafka://127.0.0.1:{port}", settings=settings),
        lambda: Writer(f"kafka://127.0.0.1:{port}", settings),
    ):
        with pytest.raises(BrokerError) as raised:
            act()
        message = str(raised.value)
        assert message.startswith(f"kafka://127.0.0.1:{port}: Kafka did not answer as it should within 0.5 s")
        assert "`make kafka` starts a local one" in message


def lines(folder) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folders_file_appears_whole_under_its_name_and_a_second_one_beside_it(tmp_path, settings):
    for value in (b"1", b"2", b"3"):
        with Writer(f"file://{tmp_path}", settings, name="n") as writer:
            writer.send(TOPIC, b"k", value, {"h": b"x"})
            writer.send(TOPIC, None, None)
            writer.flush()
            assert not list(tmp_path.rglob(f"n{'' if value == b'1' else f'_000{value.decode()}'}.ndjson"))
    assert lines(tmp_path) == {"n.ndjson": ["1", ""], "n_0002.ndjson": ["2", ""], "n_0003.ndjson": ["3", ""]}


def test_files_sent_again_sort_after_the_ones_before_so_that_the_kept_copy_stays_the_first(tmp_path, settings, landed):
    sent = [b"%d" % number for number in range(12)]
    for value in sent:
        with Writer(f"file://{tmp_path}/drop", settings, name="n") as writer:
            writer.send(TOPIC, None, value)
    land(f"file://{tmp_path}/drop", settings=settings)
    rows = sorted(landed(settings), key=lambda row: (row["_cluster"], row["_topic"], row["_partition"], row["_offset"]))
    assert [row["value"] for row in rows] == sent


def test_a_broken_off_writing_leaves_no_file(tmp_path, settings):
    with pytest.raises(RuntimeError), Writer(f"file://{tmp_path}", settings) as writer:
        writer.send(TOPIC, None, b"1")
        raise RuntimeError
    assert lines(tmp_path) == {}


def test_a_record_with_a_line_break_is_refused_by_the_folder(tmp_path, settings):
    with pytest.raises(UsageError, match="line break"), Writer(f"file://{tmp_path}", settings) as writer:
        writer.send(TOPIC, None, b"1\n2")
    assert lines(tmp_path) == {}
