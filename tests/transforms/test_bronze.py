"""Bronze: landed records become typed touchpoints or quarantine rows, once each, whatever they hold."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import BuildError
from schemas.events import EARLIEST_OCCURRED_AT
from schemas.landing import Segment
from transforms import bronze

ID = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
COUNTS = "select (select count(*) from bronze_touchpoints), (select count(*) from quarantine)"


def wire(event_type: str = "page_viewed", channel: str = "web", **fields: Any) -> dict[str, Any]:
    """A valid event as JSON values; `None` leaves a field out."""
    record = {
        "event_id": ID,
        "schema_version": 1,
        "channel": channel,
        "event_type": event_type,
        "occurred_at": "2026-03-01T12:00:00Z",
        "received_at": "2026-03-01T12:00:00Z",
        "identifiers": {"customer_id": "c1"},
        "properties": {},
    }
    return {name: value for name, value in {**record, **fields}.items() if value is not None}


def load(
    pipeline: Any, *, earliest: datetime = EARLIEST_OCCURRED_AT, batch_records: int = 1_000_000
) -> tuple[int, ...]:
    summary = bronze.load(
        pipeline.con,
        landing_dir=pipeline.landing_dir,
        earliest_occurred_at=earliest,
        clock_skew_tolerance=timedelta(minutes=5),
        batch_records=batch_records,
    )
    return summary.read_count, summary.accepted_count, summary.rejected_count


def slow_spelling(record: dict[str, Any]) -> bytes:
    """The same event in a spelling that the vectorised check leaves to pydantic."""
    return json.dumps(record, indent=1).encode()


def typed(pipeline: Any, columns: str) -> list[tuple[Any, ...]]:
    return list(pipeline.rows(f"select {columns} from bronze_touchpoints order by _offset"))


BAD: list[tuple[bytes | dict[str, Any] | None, str, str | None]] = [
    (None, "empty record", None),
    (b"", "empty record", None),
    (b"{", "invalid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)", None),
    (b"\0", "invalid JSON: Expecting value: line 1 column 1 (char 0)", None),
    (b'{"a":"\xff"}', "invalid UTF-8 at byte 6", None),
    (b'{"\\ud800":1,"\\ud800":2}', "a key stands twice in one object", "\\ud800"),
    (b'{"a":1' + b" " * 2**20 + b"}", "record larger than 524288 bytes", None),
    (b"[" * 100_000, "JSON nested deeper than 200 levels", None),
    (wire(properties={"x": "\0"}), "NUL character in a string", None),
    (wire("page_seen"), "unknown event_type", "event_type"),
    (wire(schema_version=2), "Input should be 1", "schema_version"),
    (wire(identifiers={"customer_id": "a@b.co"}), "holds a clear e-mail address; send email_hmac instead",
     "identifiers.customer_id.0"),
    (wire("csat_submitted", properties={"csat_rating": True}), "Input should be a valid integer",
     "properties.csat_rating"),
    (wire(occurred_at="1989-12-31T23:59:59Z"), "occurred_at before 1990-01-01", "occurred_at"),
    (wire(**{"k" * 500_000: 1}), "Extra inputs are not permitted", "k" * 200),
]  # fmt: skip


def test_each_bad_record_becomes_a_quarantine_row_and_the_rest_of_the_batch_goes_on(pipeline: Any) -> None:
    landed = [record for bad, _, _ in BAD for record in (bad, wire())]
    pipeline.land(landed, partition=2)
    assert load(pipeline) == (2 * len(BAD), len(BAD), len(BAD))
    rows = pipeline.rows(
        "select _cluster, _topic, _partition, _offset, received_at, reason, field, raw from quarantine order by _offset"
    )
    landed_at = datetime(2027, 1, 1)
    raws = [json.dumps(bad).encode() if isinstance(bad, dict) else bad for bad, _, _ in BAD]
    assert rows == [
        ("test", "journeys.web.v1", 2, 2 * index, landed_at, reason, field, raw)
        for index, ((_, reason, field), raw) in enumerate(zip(BAD, raws, strict=True))
    ]
    assert typed(pipeline, "_offset") == [(2 * index + 1,) for index in range(len(BAD))]


def test_a_loaded_record_is_not_loaded_again_and_a_later_file_is(pipeline: Any) -> None:
    pipeline.land([wire(), b"x"])
    assert load(pipeline) == (2, 1, 1)
    assert load(pipeline) == (0, 0, 0)
    pipeline.land([wire()])
    pipeline.next_offset = 0
    pipeline.land([wire()], partition=1)  # its offsets are its own
    assert load(pipeline) == (2, 2, 0)
    assert typed(pipeline, "_partition, _offset") == [(0, 0), (1, 0), (0, 2)]


def test_a_compacted_file_adds_only_what_was_not_loaded(pipeline: Any) -> None:
    pipeline.land([wire(), wire()])
    assert load(pipeline)[0] == 2
    pipeline.land([wire()])
    small = [
        Segment("test", "journeys.web.v1", 0, start, end).path(pipeline.landing_dir) for start, end in ((0, 1), (2, 2))
    ]
    whole = Segment("test", "journeys.web.v1", 0, 0, 2).path(pipeline.landing_dir)
    tables = [pq.ParquetFile(path).read() for path in small]  # `read_table` would add the folders as columns
    pq.write_table(pa.concat_tables(tables), whole)  # the small ones still lie there, as after a kill
    assert load(pipeline)[0] == 1
    for path in small:
        path.unlink()
    assert load(pipeline)[0] == 0
    assert typed(pipeline, "_offset") == [(0,), (1,), (2,)]


def test_a_failure_between_batches_keeps_whole_batches_and_the_next_run_goes_on(pipeline: Any) -> None:
    for _ in range(3):
        pipeline.land([wire(), b"x"])
    broken = Segment("test", "journeys.web.v1", 0, 2, 3).path(pipeline.landing_dir)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-20])
    with pytest.raises(BuildError, match=f"{broken.name}: the landed file cannot be read"):
        load(pipeline, batch_records=2)
    assert pipeline.rows(COUNTS) == [(1, 1)]
    assert pipeline.rows("select loaded_to from bronze_progress") == [(1,)]
    broken.write_bytes(whole)
    assert load(pipeline, batch_records=2) == (4, 2, 2)
    assert typed(pipeline, "_offset") == [(0,), (2,), (4,)]


def test_a_failure_inside_a_batch_leaves_nothing_of_it(pipeline: Any) -> None:
    pipeline.land([wire(), b"x"])
    load(pipeline)
    pipeline.land([wire(), b"x"])
    pipeline.con.execute("alter table quarantine rename column reason to cause")
    with pytest.raises(duckdb.Error):  # after the batch's touchpoints were written
        load(pipeline)
    pipeline.con.execute("alter table quarantine rename column cause to reason")
    assert pipeline.rows(COUNTS) == [(1, 1)]
    assert load(pipeline) == (2, 1, 1)


@pytest.mark.parametrize("batch_records", [1, 3, 1_000])
def test_the_cut_of_batches_changes_nothing(batch_records: int, new_pipeline: Callable[[], Any]) -> None:
    pipeline = new_pipeline()
    for index in range(5):
        pipeline.land([wire(source=f"s{index}"), slow_spelling(wire(source=f"t{index}")), b"x"])
    assert load(pipeline, batch_records=batch_records) == (15, 10, 5)
    expected = [value for index in range(5) for value in ((f"s{index}",), (f"t{index}",))]
    assert typed(pipeline, "source") == expected


def test_more_rejects_than_a_page_are_all_judged(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bronze, "_MODEL_PAGE", 2)
    pipeline.land([b"x", slow_spelling(wire()), b"", wire()] * 5)
    assert load(pipeline) == (20, 10, 10)
    assert pipeline.rows(COUNTS) == [(10, 10)]


def test_reset_reads_landing_from_its_start(pipeline: Any) -> None:
    pipeline.land([wire(), b"x"])
    load(pipeline)
    bronze.reset(pipeline.con)
    assert pipeline.rows(COUNTS) == [(0, 0)]
    assert load(pipeline) == (2, 1, 1)


def test_judged_again_rejects_enter_under_a_new_rule_and_keep_their_coordinates(pipeline: Any) -> None:
    old = wire(occurred_at="1985-01-01T00:00:00Z", received_at="1985-01-01T00:00:00Z", properties={"page_path": "/a"})
    pipeline.land([old, b"x", wire()])
    assert load(pipeline) == (3, 1, 2)
    again: dict[str, Any] = {"clock_skew_tolerance": timedelta(minutes=5)}
    assert bronze.judge_again(pipeline.con, earliest_occurred_at=EARLIEST_OCCURRED_AT, **again) == (0, 2)
    eighties = datetime(1980, 1, 1, tzinfo=UTC)
    assert bronze.judge_again(pipeline.con, earliest_occurred_at=eighties, **again) == (1, 1)
    assert typed(pipeline, "_offset, occurred_at, page_path, landed_at") == [
        (0, datetime(1985, 1, 1), "/a", datetime(2027, 1, 1)),
        (2, datetime(2026, 3, 1, 12), None, datetime(2027, 1, 1)),
    ]
    assert pipeline.rows("select _offset, received_at, raw from quarantine") == [(1, datetime(2027, 1, 1), b"x")]
    assert load(pipeline) == (0, 0, 0)


def test_a_failure_while_judging_again_keeps_the_quarantine(pipeline: Any) -> None:
    pipeline.land([b"x", b""])
    load(pipeline)
    before = pipeline.rows("from quarantine order by _offset")
    pipeline.con.execute("alter table quarantine rename column reason to cause")
    with pytest.raises(duckdb.Error):
        bronze.judge_again(
            pipeline.con, earliest_occurred_at=EARLIEST_OCCURRED_AT, clock_skew_tolerance=timedelta(minutes=5)
        )
    assert pipeline.rows("from quarantine order by _offset") == before


SPELLINGS = pytest.mark.parametrize(
    "spelling", [lambda record: record, slow_spelling], ids=["vectorised", "by pydantic"]
)


CLOCKS = {
    "2026-03-01T12:05:00Z": False,
    "2026-03-01T12:05:00.000001Z": True,
    "2026-03-01T14:05:00+02:00": False,
    "2026-03-01T07:05:00.000001-05:00": True,
    "2099-01-01T00:00:00Z": True,
    "2026-02-01T12:00:00Z": False,
}


@SPELLINGS
def test_a_clock_is_skewed_only_past_five_minutes(spelling: Callable[..., Any], pipeline: Any) -> None:
    pipeline.land([spelling(wire(occurred_at=occurred_at)) for occurred_at in CLOCKS])
    load(pipeline)
    received = datetime(2026, 3, 1, 12)
    sent = {text: datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None) for text in CLOCKS}
    assert typed(pipeline, "occurred_at, received_at, source_occurred_at, is_clock_skewed") == [
        (received, received, sent[text], True) if is_skewed else (sent[text], received, None, False)
        for text, is_skewed in CLOCKS.items()
    ]


@SPELLINGS
def test_the_earliest_time_is_inclusive_to_the_microsecond_and_in_its_zone(
    spelling: Callable[..., Any], pipeline: Any
) -> None:
    earliest = datetime.fromisoformat("2026-01-01T00:00:00.500000-05:00")
    times = [
        "2026-01-01T05:00:00.499999Z",
        "2026-01-01T05:00:00.5Z",
        "2026-01-01T00:00:01Z",
        "2026-01-01T06:00:00+01:00",
    ]
    pipeline.land([spelling(wire(occurred_at=time)) for time in times])
    assert load(pipeline, earliest=earliest) == (4, 1, 3)
    assert typed(pipeline, "_offset") == [(1,)]


TICKET = {"ticket_id": "t"}


DIRECTIONS = [
    *((wire(name, "email"), "inbound") for name in ("email_opened", "email_link_clicked", "unsubscribed")),
    (wire("email_opened", "email", properties={"is_machine_open": True}), "outbound"),
    (wire("email_opened", "email", properties={"is_machine_open": False}), "inbound"),
    (wire("email_link_clicked", "email", properties={"is_machine_open": True}), "inbound"),
    (wire("ticket_replied", "support", properties={**TICKET, "author": "agent"}), "outbound"),
    (wire("ticket_replied", "support", properties={**TICKET, "author": "customer"}), "inbound"),
    (wire("ticket_solved", "support", properties=TICKET), "outbound"),
    (wire("ticket_created", "support", properties={**TICKET, "author": "agent"}), "inbound"),
    (wire("order_refunded"), "outbound"),
    (wire("order_completed"), "inbound"),
    (wire("experiment_viewed", experiment="e", variant="v"), "outbound"),
    (wire("custom", event_name="email_sent"), "inbound"),
] + [(wire(name, "email"), "outbound") for name in ("email_sent", "email_delivered", "email_bounced", "mail_sent")]


@SPELLINGS
def test_what_the_brand_does_is_outbound(spelling: Callable[..., Any], pipeline: Any) -> None:
    pipeline.land([spelling(record) for record, _ in DIRECTIONS])
    load(pipeline)
    assert typed(pipeline, "direction") == [(direction,) for _, direction in DIRECTIONS]


CONSENTS = {
    '{"analytics":false}': False,
    '{"analytics": false }': False,
    '{ "marketing" : true,\n"analytics" :\tfalse}': False,
    '{"marketing":false,"analytics":false}': False,
    '{"\\u0061nalytics":false}': False,
    '{"analytics":true,"marketing":false}': True,
    '{"analytics":null}': True,
    '{"marketing":false}': True,
    "{}": True,
    "null": True,
}


def test_consent_is_read_whatever_its_spelling(pipeline: Any) -> None:
    pipeline.land([json.dumps(wire(consent="@@")).replace('"@@"', consent).encode() for consent in CONSENTS])
    load(pipeline)
    assert typed(pipeline, "is_analytics_allowed") == [(is_allowed,) for is_allowed in CONSENTS.values()]


ORDER = wire(
    "order_completed",
    "store",
    source="b\u00e9 \"q\" \\ / \U0001f600",
    identifiers={"customer_id": ["c1", "c2"], "loyalty_id": "L,1"},
    properties={"order_id": "o/1", "amount": "12.50", "currency": "EUR", "store_id": "\u0416",
                "plan": {"n": [1, None]}},
)  # fmt: skip
COLUMNS = "event_id, source, order_id, amount, currency, store_id, occurred_at"


ORDER_SPELLINGS = [
    json.dumps(ORDER).encode(),
    json.dumps(ORDER, ensure_ascii=False).encode(),
    json.dumps(ORDER, separators=(",", ":")).encode(),
    json.dumps(ORDER, indent=2).encode(),
    json.dumps(ORDER, sort_keys=True).encode(),
    json.dumps({**ORDER, "campaign": None}).encode(),
    json.dumps({**ORDER, "event_id": ID.upper()}).encode(),
    json.dumps({**ORDER, "event_id": f"urn:uuid:{ID}"}).encode(),
    json.dumps({**ORDER, "occurred_at": "2026-03-01T14:00:00.000+02:00"}).encode(),
    json.dumps({**ORDER, "occurred_at": "2026-02-28T12:01:00-23:59"}).encode(),
    json.dumps(ORDER).replace("/", "\\/").encode(),
    json.dumps(ORDER).replace("EUR", "\\u0045UR").replace("order_id", "order\\u005fid").encode(),
    *(
        json.dumps(ORDER).replace('"12.50"', text).encode()
        for text in ("12.5", "12.50", "1.25e1", '"+12.5"', '"0012.500"')
    ),
    json.dumps(ORDER).replace("{", "{\t").encode(),
]


def test_values_are_the_same_whatever_the_spelling(pipeline: Any) -> None:
    pipeline.land(ORDER_SPELLINGS)
    count = len(ORDER_SPELLINGS)
    assert load(pipeline) == (count, count, 0)
    row = (uuid.UUID(ID), ORDER["source"], "o/1", Decimal("12.50"), "EUR", "\u0416", datetime(2026, 3, 1, 12))
    assert typed(pipeline, COLUMNS) == [row] * count
    for identifiers, properties in typed(pipeline, "identifiers, properties"):
        values = {kind: [value] if isinstance(value, str) else value for kind, value in json.loads(identifiers).items()}
        assert values == {"customer_id": ["c1", "c2"], "loyalty_id": ["L,1"]}
        assert json.loads(properties)["plan"] == {"n": [1, None]}


@SPELLINGS
def test_unknown_properties_are_kept_and_a_property_of_another_type_is_not_typed(
    spelling: Callable[..., Any], pipeline: Any
) -> None:
    unknown = {"plan": "pro", "items": [{"sku": "a"}, {"sku": "b"}], "amount": "a lot", "csat_rating": 99, "é": 1.5}
    pipeline.land([spelling(wire(properties={"page_path": "/x", **unknown}))])
    load(pipeline)
    ((path, amount, rating, properties),) = typed(pipeline, "page_path, amount, csat_rating, properties")
    assert (path, amount, rating) == ("/x", None, None)
    assert json.loads(properties) == {"page_path": "/x", **unknown}


@SPELLINGS
def test_an_event_without_properties_has_an_empty_object_of_them(spelling: Callable[..., Any], pipeline: Any) -> None:
    pipeline.land([spelling(wire(properties=None))])
    assert load(pipeline) == (1, 1, 0)
    assert typed(pipeline, "properties") == [("{}",)]


def test_what_is_no_json_is_not_kept_as_an_unknown_property(pipeline: Any) -> None:
    values = ["NaN", "nan", "-inf", "Infinity", "1e400", "[" * 210 + "]" * 210]
    pipeline.land(
        [
            json.dumps(wire(properties={name: "@@"}), separators=(",", ":")).replace('"@@"', value).encode()
            for value in values
            for name in ("ticket_id", "plan")
        ]
    )
    assert load(pipeline) == (12, 0, 12)


def test_the_landing_folder_may_hold_odd_names_and_foreign_files(
    tmp_path: Path, new_pipeline: Callable[[], Any]
) -> None:
    pipeline = new_pipeline()
    pipeline.land([wire()])
    source = Segment("test", "journeys.web.v1", 0, 0, 0).path(pipeline.landing_dir)
    (source.parent / "00000000000000000000-00000000000000000000.parquet.tmp").write_bytes(b"half")
    moved = tmp_path / "it's [a] folder" / "landing"
    shutil.copytree(pipeline.landing_dir, moved)
    pipeline.landing_dir = moved
    assert load(pipeline) == (1, 1, 0)


def test_a_folder_named_like_a_pattern_is_read_and_no_folder_that_it_matches(
    pipeline: Any, event: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folders = {"hg1": ("a", "b"), "hg[1]": ("c",), "h*": ("d",), "h?[": ("e",)}
    for name, customers in folders.items():
        pipeline.landing_dir, pipeline.next_offset = tmp_path / name, 0
        pipeline.land([event("page_viewed", "2026-01-05", customer) for customer in customers])
    for name, customers in folders.items():
        bronze.reset(pipeline.con)
        pipeline.landing_dir = tmp_path / name
        assert load(pipeline) == (len(customers), len(customers), 0)
        assert typed(pipeline, "identifiers ->> 'customer_id'") == [(customer,) for customer in customers]


@pytest.mark.parametrize("damage", ["cut", "empty", "garbled", "foreign"])
def test_a_damaged_landed_file_is_named_with_what_to_do(
    pipeline: Any, event: Callable[..., dict[str, Any]], damage: str
) -> None:
    for day in ("2026-01-05", "2026-01-06", "2026-01-07"):
        pipeline.land([event("page_viewed", day, f"c{number}") for number in range(50)])
    path = Segment("test", "journeys.web.v1", 0, 50, 99).path(pipeline.landing_dir)
    whole = path.read_bytes()
    if damage == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    else:
        zeros = whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :]
        path.write_bytes({"cut": whole[:-20], "empty": b"", "garbled": zeros}[damage])
    with pytest.raises(
        BuildError, match=r"00050-0+99\.parquet: the landed file cannot be read: .*Restore it"
    ) as caught:
        load(pipeline)
    assert caught.value.where == str(path)
    assert pipeline.rows(COUNTS) == [(0, 0)]
    path.write_bytes(whole)
    assert load(pipeline) == (150, 150, 0)
