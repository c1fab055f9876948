"""Dead letters: the raw record with its reason and coordinates, on Kafka and in a folder, and the way back."""

from __future__ import annotations

import base64
import json

import pytest

from ingest.dead_letters import forward
from ingest.landing import land
from ingest.writer import Writer
from schemas.topics import DEAD_LETTER_TOPIC

TOPIC = "journeys.web.v1"
ROW = {"_cluster": "c", "_topic": TOPIC, "_partition": 2, "_offset": 7, "reason": "invalid UTF-8 ü", "field": None}
ROWS = [
    {**ROW, "raw": b"\xff\x00"},
    {**ROW, "_offset": 8, "field": "channel", "raw": bytearray(b'{"a": "\xc3\xbc\\n"}')},
    {**ROW, "_offset": 9, "raw": None},
    {**ROW, "_offset": 10, "raw": b""},
]


@pytest.mark.broker
def test_on_kafka_the_value_is_the_raw_record_and_headers_say_why_and_where(cluster, settings, landed):
    rows = [{**row, "raw": None if row["raw"] is None else bytes(row["raw"])} for row in ROWS]
    assert forward(cluster.url, rows, settings) == 4
    land(cluster.url, settings=settings, topics=[DEAD_LETTER_TOPIC])
    found = sorted(landed(settings), key=lambda row: int(row["key"].rsplit(b"/")[-1]))
    assert [row["value"] for row in found] == [row["raw"] for row in rows]
    assert found[0]["key"] == b"journeys.web.v1/2/7"
    headers = [{header["key"]: header["value"].decode() for header in row["headers"]} for row in found]
    expected = {"reason": "invalid UTF-8 ü", "cluster": "c", "topic": TOPIC, "partition": "2", "offset": "7"}
    assert headers[0] == expected
    assert headers[1] == {**expected, "offset": "8", "field": "channel"}


@pytest.mark.broker
def test_a_repaired_dead_letter_can_be_sent_again(cluster, settings, landed, wire):
    forward(cluster.url, [{**ROW, "raw": wire(channel="fax")}], settings)
    land(cluster.url, settings=settings, topics=[DEAD_LETTER_TOPIC])
    (letter,) = landed(settings)
    origin = next(header["value"].decode() for header in letter["headers"] if header["key"] == "topic")
    with Writer(cluster.url, settings) as writer:
        writer.send(origin, None, letter["value"].replace(b'"fax"', b'"web"'))
    land(cluster.url, settings=settings)
    assert [json.loads(row["value"])["channel"] for row in landed(settings) if row["_topic"] == TOPIC] == ["web"]


def test_in_a_folder_each_is_a_json_line_that_gives_back_the_exact_bytes(tmp_path, settings):
    assert forward(f"file://{tmp_path}", ROWS, settings) == 4
    assert forward(f"file://{tmp_path}", ROWS[:1], settings) == 1
    text = (tmp_path / DEAD_LETTER_TOPIC / "rejected.ndjson").read_text()
    letters = [json.loads(line) for line in text.splitlines()]
    place = {"reason": "invalid UTF-8 ü", "cluster": "c", "topic": TOPIC, "partition": "2"}
    assert letters == [
        {**place, "offset": "7", "raw_base64": base64.b64encode(b"\xff\x00").decode()},
        {**place, "offset": "8", "field": "channel", "raw": '{"a": "ü\\n"}'},
        {**place, "offset": "9", "raw": None},
        {**place, "offset": "10", "raw": ""},
    ]
    assert (tmp_path / DEAD_LETTER_TOPIC / "rejected_0002.ndjson").exists()
    assert land(f"file://{tmp_path}", settings=settings, topics=None) == []


def test_nothing_rejected_writes_nothing(tmp_path, settings):
    assert forward(f"file://{tmp_path}", [], settings) == 0
    assert list(tmp_path.iterdir()) == []
