"""The drop folder: files grow at their end; one that shrank or changed under its landed lines is a loud error."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.landing import land
from schemas.errors import ConfigurationError, LandingError
from schemas.events import Rejection, parse_event

TOPIC = "journeys.web.v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "drop" / TOPIC).mkdir(parents=True)
    return tmp_path / "drop"


@pytest.fixture
def drop(folder, settings, landed):
    """`drop("a.ndjson", b"…")` writes a file and lands; answers the landed values of that file."""

    def _drop(name: str, content: bytes | pa.Table, *, quiet: bool = False) -> list[bytes | None]:
        path = folder / TOPIC / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(content, path)
        if quiet:
            os.utime(path, (time.time() - 120, time.time() - 120))
        land(f"file://{folder}", settings=settings)
        return [row["value"] for row in landed(settings) if row["_topic"] == f"{TOPIC}/{name}"]

    return _drop


def test_each_file_is_a_log_whose_offsets_are_lines(folder, settings, landed):
    (folder / TOPIC / "b.ndjson").write_bytes(b'{"b": 1}\n')
    (folder / TOPIC / "a.jsonl").write_bytes(b'{"a": 1}\r\n\n\xff\x00\n')
    before = datetime.now(UTC)
    ranges = land(f"file://{folder}", settings=settings)
    assert [(r.topic, r.partition, r.start, r.end, r.record_count) for r in ranges] == [
        (f"{TOPIC}/a.jsonl", 0, 0, 2, 3),
        (f"{TOPIC}/b.ndjson", 0, 0, 0, 1),
    ]
    rows = landed(settings)
    assert [(row["_topic"], row["_offset"], row["value"]) for row in rows] == [
        (f"{TOPIC}/a.jsonl", 0, b'{"a": 1}'),
        (f"{TOPIC}/a.jsonl", 1, b""),
        (f"{TOPIC}/a.jsonl", 2, b"\xff\x00"),
        (f"{TOPIC}/b.ndjson", 0, b'{"b": 1}'),
    ]
    assert {row["_cluster"] for row in rows} == {f"file:{folder}"}
    assert {(row["kafka_at"], row["key"]) for row in rows} == {(None, None)}
    assert all(before <= row["landed_at"] <= datetime.now(UTC) for row in rows)


def test_an_appended_file_continues_where_it_was_and_landing_again_adds_nothing(drop, folder, settings):
    assert drop("a.ndjson", b"1\n2\n") == [b"1", b"2"]
    assert drop("a.ndjson", b"1\n2\n3\n") == [b"1", b"2", b"3"]
    assert land(f"file://{folder}", settings=settings) == []


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (b"1\n2", [b"1", b"2"]),  # unchanged: nothing is added
        (b"1\n2\n", [b"1", b"2"]),
        (b"1\n2\n3\n", [b"1", b"2", b"3"]),
        (b"1\n2\r\n3\n", [b"1", b"2", b"3"]),
        (b"1\n23\n", "replaced or cut"),  # it was not whole after all
    ],
    ids=["unchanged", "line break", "more lines", "windows line break", "continued"],
)
def test_an_unfinished_last_line_waits_until_the_file_is_quiet(drop, then, expected):
    assert drop("a.ndjson", b"1\n2") == [b"1"]
    assert drop("a.ndjson", b"1\n2", quiet=True) == [b"1", b"2"]
    if isinstance(expected, str):
        with pytest.raises(LandingError, match=expected):
            drop("a.ndjson", then, quiet=True)
    else:
        assert drop("a.ndjson", then, quiet=True) == expected


def table(*ids: str) -> pa.Table:
    return pa.table({"id": list(ids)})


@pytest.mark.parametrize(
    ("name", "first", "then"),
    [
        ("a.ndjson", b"11\n22\n", b"11\n"),
        ("a.ndjson", b"11\n22\n", b""),
        ("a.ndjson", b"11\n22\n", b"11\n99\n33\n"),
        ("a.ndjson", b"11\n22\n", b"111\n22\n33\n"),
        ("a.parquet", table("a", "b"), table("a")),
        ("a.parquet", table("a", "b"), table("a", "x", "c")),
        ("a.parquet", table("a", "b"), b"no Parquet"),
    ],
    ids=["cut", "emptied", "replaced", "shifted", "Parquet cut", "Parquet replaced", "Parquet damaged"],
)
def test_a_file_that_is_not_what_was_landed_is_a_loud_error_and_the_others_land(
    drop, folder, settings, landed, name, first, then
):
    drop(name, first)
    (folder / TOPIC / "z.ndjson").write_bytes(b"other\n")
    with pytest.raises(LandingError, match=r"replaced or cut|cannot be read") as raised:
        drop(name, then)
    assert str(folder / TOPIC / name) in str(raised.value)
    assert landed(settings)[-1]["value"] == b"other"
    assert len(landed(settings)) == 3


def test_an_unreadable_file_is_named_and_does_not_stop_the_others(drop, folder, settings, landed):
    (folder / TOPIC / "a.parquet").write_bytes(b"no Parquet")
    (folder / TOPIC / "b.parquet").write_bytes(b"")
    with pytest.raises(LandingError) as raised:
        drop("c.ndjson", b"fine\n")
    assert str(raised.value).startswith("2 logs could not be landed (all others were): ")
    assert str(folder / TOPIC / "a.parquet") in str(raised.value) and "b.parquet" in str(raised.value)
    assert [row["value"] for row in landed(settings)] == [b"fine"]


def test_parquet_rows_become_the_wire_form_and_may_grow(drop):
    def rows(count: int) -> pa.Table:
        instant = datetime(2026, 1, 5, 10, 0, 0, 500_000, UTC)
        return pa.table(
            {
                "event_id": [f"6b1f0d0e-0000-4000-8000-00000000000{n}" for n in range(count)],
                "schema_version": [1] * count,
                "channel": ["web"] * count,
                "event_type": ["order_completed"] * count,
                "occurred_at": pa.array([instant] * count, pa.timestamp("us", "America/New_York")),
                "received_at": pa.array([instant.replace(tzinfo=None)] * count, pa.timestamp("ns")),
                "identifiers": [{"customer_id": "c", "anonymous_id": None}] * count,
                "properties": [{"order_id": "o", "amount": "12.30", "currency": "USD", "page_path": None}] * count,
            }
        )

    (value,) = drop("a.parquet", rows(1))
    event: Any = parse_event(value)
    assert not isinstance(event, Rejection), event
    assert event.occurred_at == event.received_at == datetime(2026, 1, 5, 10, 0, 0, 500_000, UTC)
    assert b'"occurred_at":"2026-01-05T10:00:00.500000Z"' in value
    assert drop("a.parquet", rows(3))[0] == value
    assert [b"00000000000%d" % n in v for n, v in enumerate(drop("a.parquet", rows(3)))] == [True] * 3


def test_hidden_temporary_and_foreign_files_and_dead_letters_are_not_read(folder, settings, landed):
    (folder / "journeys.dead_letter.v1").mkdir()
    for name in (
        f"{TOPIC}/.a.ndjson", f"{TOPIC}/a.tmp", f"{TOPIC}/a.txt", "journeys.dead_letter.v1/a.ndjson",
        "other/a.ndjson", "root.ndjson", ".hidden/a.ndjson",
    ):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode() + b"\n")
    assert land(f"file://{folder}", settings=settings) == []
    land(f"file://{folder}", settings=settings, topics=None)
    assert [row["value"] for row in landed(settings)] == [b"other/a.ndjson", b"root.ndjson"]


def test_a_landed_file_may_go(drop, folder, settings):
    drop("a.ndjson", b"1\n")
    (folder / TOPIC / "a.ndjson").unlink()
    assert land(f"file://{folder}", settings=settings) == []


def test_following_takes_new_files_until_stopped(folder, settings, landed, monkeypatch):
    monkeypatch.setattr("ingest.drop_folder.FOLLOW_SECONDS", 0.05)
    stop = threading.Event()
    options = {"settings": settings, "follow": True, "stop": stop}
    thread = threading.Thread(target=land, args=(f"file://{folder}",), kwargs=options)
    thread.start()
    try:
        for number in range(3):
            (folder / TOPIC / f"{number}.ndjson").write_bytes(b"%d\n" % number)
            deadline = time.monotonic() + 10
            while len(landed(settings)) <= number:
                assert time.monotonic() < deadline and thread.is_alive()
                time.sleep(0.02)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///no/such/folder", "does not exist.*Create it"),
        ("file://host/folder", "must be absolute"),
        ("ftp://x", "unknown kind of source URL.*kafka://host:port"),
        ("kafka://host:notaport", "not a host:port address"),
        ("kafka://:9092", "not a host:port address"),
    ],
)
def test_a_wrong_url_says_how_to_write_one(settings, url, words):
    with pytest.raises(ConfigurationError, match=words):
        land(url, settings=settings)


@pytest.mark.parametrize(("name", "other"), [("v[1]", "v1"), ("v?", "vx"), ("v*", "vxx")])
def test_a_parquet_file_whose_name_looks_like_a_pattern_is_read_and_no_other(drop, name, other):
    assert drop(f"{other}.parquet", table("other")) == [b'{"id":"other"}']
    assert drop(f"{name}.parquet", table("meant")) == [b'{"id":"meant"}']
    assert drop(f"{name}.parquet", table("meant", "too")) == [b'{"id":"meant"}', b'{"id":"too"}']


def test_a_folder_named_like_a_partition_adds_nothing_to_the_rows(tmp_path, settings, landed):
    folder = tmp_path / "channel=store"
    (folder / TOPIC).mkdir(parents=True)
    pq.write_table(table("a"), folder / TOPIC / "a.parquet")
    land(f"file://{folder}", settings=settings)
    assert [row["value"] for row in landed(settings)] == [b'{"id":"a"}']


@pytest.mark.parametrize(
    ("name", "what", "shown"),
    [
        (b"a" * 240 + b".ndjson", "path is too long", "aaaaaa.ndjson"),
        ("é".encode() * 100 + b".ndjson", "path is too long", "éé.ndjson"),
        (b"x\xff.ndjson", "its name is not UTF-8", r"x\xff.ndjson"),
    ],
    ids=["long", "long when quoted", "not UTF-8"],
)
def test_a_name_that_cannot_be_kept_is_told_and_does_not_stop_the_others(
    drop, folder, settings, landed, name, what, shown
):
    Path(os.fsdecode(os.fsencode(folder / TOPIC) + b"/" + name)).write_bytes(b"odd\n")
    with pytest.raises(LandingError, match=what) as raised:
        drop("z.ndjson", b"fine\n")
    message = str(raised.value)
    assert shown in message and "Rename it" in message
    assert message.encode()  # it can be printed
    assert [row["value"] for row in landed(settings)] == [b"fine"]


def test_a_drop_folder_whose_path_is_too_long_is_told(tmp_path, settings):
    folder = tmp_path / ("d" * 120) / ("e" * 120)
    (folder / TOPIC).mkdir(parents=True)
    (folder / TOPIC / "a.ndjson").write_bytes(b"1\n")
    with pytest.raises(LandingError, match="Use a shorter drop folder"):
        land(f"file://{folder}", settings=settings)


def test_a_landed_file_with_a_broken_page_is_named_and_does_not_stop_the_others(drop, folder, settings, landed):
    drop("a.ndjson", b"1\n2\n")
    (path,) = settings.landing_dir.rglob("*.parquet")
    whole = path.read_bytes()
    footer = 8 + int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(b"PAR1" + b"\xff" * (len(whole) - footer - 4) + whole[-footer:])
    assert pq.read_metadata(path).num_rows == 2
    with pytest.raises(LandingError, match="a landed file cannot be read") as raised:
        drop("b.ndjson", b"fine\n")
    assert str(path) in str(raised.value) and "Restore it from a backup" in str(raised.value)
    path.unlink()
    assert [row["value"] for row in landed(settings)] == [b"fine"]


def test_a_last_line_without_its_break_does_not_wait_for_a_time_in_the_future(folder, settings, landed):
    path = folder / TOPIC / "a.ndjson"
    path.write_bytes(b"1\n2")
    os.utime(path, (time.time() + 86_400, time.time() + 86_400))
    land(f"file://{folder}", settings=settings)
    assert [row["value"] for row in landed(settings)] == [b"1", b"2"]


def test_files_that_are_not_read_are_told_once(folder, settings, caplog):
    for name in ("a.json", "a.NDJSON", "a.ndjson.gz", "sub/a.ndjson", "../web/a.ndjson", "../root.ndjson"):
        path = folder / TOPIC / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"1\n")
    for name in (".hidden.json", "a.ndjson.tmp", "ok.ndjson", "../journeys.dead_letter.v1/a.ndjson", "../.git/a.json"):
        path = folder / TOPIC / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"1\n")
    (folder / "journeys.store.v1").mkdir()
    (folder / "journeys.store.v1" / "a.ndjson").write_bytes(b"1\n")
    land(f"file://{folder}", settings=settings, topics=[TOPIC])
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == (
        f"6 files in {folder} are not read: {TOPIC}/a.NDJSON, {TOPIC}/a.json, {TOPIC}/a.ndjson.gz, "
        f"{TOPIC}/sub/a.ndjson, root.ndjson, …. "
        "Only <topic>/<name>.ndjson or .jsonl or .parquet are; move or rename them"
    )


def test_a_folder_whose_files_are_all_read_warns_of_nothing(drop, caplog):
    drop("a.ndjson", b"1\n")
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
