"""Which events a build takes in: one copy per id, consent, exclude rules, and what waits for `data_as_of`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.config import Config, parse_config
from schemas.landing import LANDING_SCHEMA, Segment
from transforms import bronze, identity, kept_events, silver

LANDED_AT = datetime(2026, 2, 1, tzinfo=UTC)
LANDED_LATER = datetime(2100, 1, 1, tzinfo=UTC)
LINK = {"customer_id": ["c1", "c2"]}
Place = tuple[str, str, int, int]


@cache
def configured(text: str) -> Config:
    return parse_config(text, source="journey.yml")


def wire(
    name: str, when: str = "2026-01-05T10:00:00Z", who: Any = "c1", kind: str = "page_viewed", **fields: Any
) -> dict[str, Any]:
    """One wire event; `product` is how a test tells copies of one id apart."""
    return {
        "event_id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
        "schema_version": 1,
        "channel": fields.pop("channel", "web"),
        "event_type": kind,
        "occurred_at": when,
        "received_at": fields.pop("received_at", when),
        "identifiers": {"customer_id": who} if isinstance(who, str) else who,
        "properties": {"product_id": fields.pop("product")} if "product" in fields else {},
        **fields,
    }


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def land_at(landing_dir: Path, place: Place, record: dict[str, Any] | bytes) -> None:
    """One record in a file of its own at (cluster, topic, partition, offset)."""
    cluster, topic, partition, offset = place
    path = Segment(cluster, topic, partition, offset, offset).path(landing_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    value = record if isinstance(record, bytes) else json.dumps(record).encode()
    row = dict.fromkeys(LANDING_SCHEMA.names) | {"value": value, "landed_at": LANDED_AT}
    row |= dict(zip(("_cluster", "_topic", "_partition", "_offset"), place, strict=True))
    pq.write_table(pa.Table.from_pylist([row], schema=LANDING_SCHEMA), path)


def keep(pipeline: Any, *records: dict[str, Any] | bytes, as_of: datetime | None = None, config: str = "{}") -> Any:
    """Land, load and keep, without the tables after: answers the `data_as_of` in force."""
    if records:
        pipeline.land(records, landed_at=LANDED_AT)
    parsed = configured(config)
    bronze.load(
        pipeline.con,
        landing_dir=pipeline.landing_dir,
        earliest_occurred_at=parsed.earliest_occurred_at,
        clock_skew_tolerance=parsed.clock_skew_tolerance,
    )
    answer = kept_events.build(pipeline.con, config=parsed, data_as_of=as_of)
    identity.build(pipeline.con, config=parsed)
    return answer


def products(pipeline: Any) -> list[str]:
    return [product for (product,) in pipeline.rows("select product_id from kept_events order by all")]


def is_known(pipeline: Any) -> dict[str, bool]:
    """Per identifier whether it belongs to a customer_id."""
    return dict(pipeline.rows("select identifier, starts_with(customer_key, 'c:') from identity_map"))


def counts(pipeline: Any) -> dict[str, tuple[int, int]]:
    rows = pipeline.rows("select check_name, numerator, denominator from build_counts")
    return {name: (numerator, denominator) for name, numerator, denominator in rows}


COPIES: dict[str, tuple[tuple[str, Place], tuple[str, Place]]] = {
    # what decides: ((received_at, place) of the kept copy, the same of the dropped one)
    "by received_at": (("10:00:00", ("z", "z", 9, 9)), ("10:00:00.000001", ("a", "a", 0, 0))),
    "by cluster": (("10:00:00", ("a", "z", 9, 1)), ("10:00:00", ("b", "a", 0, 1))),
    "by topic": (("10:00:00", ("a", "a", 9, 2)), ("10:00:00", ("a", "b", 0, 2))),
    "by partition, a number": (("10:00:00", ("a", "a", 2, 9)), ("10:00:00", ("a", "a", 10, 0))),
    "by offset, a number": (("10:00:00", ("a", "o", 0, 9)), ("10:00:00", ("a", "o", 0, 10))),
}


@pytest.mark.parametrize("night_of_the_kept", ["first", "second"])
def test_of_two_copies_the_earliest_is_kept(pipeline: Any, night_of_the_kept: str) -> None:
    late: list[tuple[Place, dict[str, Any]]] = []
    for case, copies in COPIES.items():
        for name, (received, place) in zip(("kept", "dropped"), copies, strict=True):
            # The dropped copy happened earlier by its own account: occurred_at plays no part in the choice.
            when = "2026-01-05T09:30:00Z" if name == "kept" else "2026-01-05T09:00:00Z"
            record = wire(case, when, received_at=f"2026-01-05T{received}Z", product=f"{name} {case}")
            if name != {"first": "dropped", "second": "kept"}.get(night_of_the_kept) or "offset" in case:
                land_at(pipeline.landing_dir, place, record)
            else:
                late.append((place, record))
    keep(pipeline)
    for place, record in late:
        land_at(pipeline.landing_dir, place, record)
    keep(pipeline)
    assert products(pipeline) == sorted(f"kept {case}" for case in COPIES)
    coordinates = pipeline.rows("select _cluster, _topic, _partition, _offset from kept_events order by all")
    assert coordinates == sorted(kept[1] for kept, _ in COPIES.values())
    assert counts(pipeline)["duplicate_ratio"] == (5, 10)
    assert counts(pipeline)["different_copy_count"] == (5, 5)


def test_equal_rows_with_different_ids_are_two_events(pipeline: Any) -> None:
    keep(pipeline, wire("a", product="p"), wire("b", product="p"))
    assert products(pipeline) == ["p", "p"]
    assert counts(pipeline)["duplicate_ratio"] == (0, 2)


def test_only_copies_with_another_payload_are_counted_as_different(pipeline: Any) -> None:
    same = wire("z", product="p")
    other = wire("z", product="q", received_at="2026-01-05T11:00:00Z")
    upper = {**same, "event_id": same["event_id"].upper()}  # the same id, spelled otherwise
    keep(pipeline, same, same, other, same, upper, wire("y", product="r"))
    assert products(pipeline) == ["p", "r"]
    assert counts(pipeline)["duplicate_ratio"] == (4, 6)
    assert counts(pipeline)["different_copy_count"] == (2, 4)


def test_the_earliest_valid_copy_is_kept(pipeline: Any) -> None:
    broken = {**wire("x", received_at="2026-01-05T10:00:00Z"), "channel": "fax"}
    late = wire("x", received_at="2026-01-05T10:02:00Z", product="late")
    valid = wire("x", received_at="2026-01-05T10:01:00Z", product="valid")
    keep(pipeline, broken, late, valid)
    assert products(pipeline) == ["valid"]
    assert counts(pipeline)["quarantined_ratio"] == (1, 3)
    assert counts(pipeline)["duplicate_ratio"] == (1, 2)


def test_a_dropped_copy_proves_no_edge_and_no_time(pipeline: Any) -> None:
    kept = wire("x", who={"customer_id": "c1", "anonymous_id": "k1"})
    dropped = wire("x", "2026-01-09T10:00:00Z", who={"customer_id": "c1", "anonymous_id": "k2"})
    assert keep(pipeline, dropped, kept, wire("y", who={"anonymous_id": "k2"})) == at("2026-01-05T10:00")
    assert is_known(pipeline) == {"c1": True, "k1": True, "k2": False}
    assert pipeline.rows("select max(last_seen_at) from identity_map") == [(datetime(2026, 1, 5, 10),)]


CONSENTS = {
    "analytics refused": ({"analytics": False}, False),
    "only analytics refused": ({"analytics": False, "marketing": True}, False),
    "marketing refused": ({"analytics": True, "marketing": False}, True),
    "only marketing asked": ({"marketing": False}, True),
    "nothing asked": ({}, True),
    "null": (None, True),
}


def test_only_refused_analytics_keeps_an_event_and_what_it_proves_out(pipeline: Any) -> None:
    records = []
    for case, (consent, _) in CONSENTS.items():
        who = {"customer_id": f"c {case}", "anonymous_id": case}
        records.append(wire(case, who=who, product=case, consent=consent))
        records.append(wire(case.upper(), who={"anonymous_id": case}, product="cookie"))
    keep(pipeline, *records)
    kept = [case for case, (_, is_kept) in CONSENTS.items() if is_kept]
    assert products(pipeline) == sorted(kept + ["cookie"] * len(CONSENTS))
    known = is_known(pipeline)
    assert {case: known[case] for case in CONSENTS} == {case: case in kept for case in CONSENTS}
    assert counts(pipeline)["without_consent_count"] == (2, 12)


def test_a_refused_earliest_copy_takes_the_event_with_it(pipeline: Any) -> None:
    # Deduplication comes before consent: the later copy's consent does not bring the event back.
    refused = wire("x", consent={"analytics": False})
    allowed = wire("x", received_at="2026-01-05T11:00:00Z", consent={"analytics": True})
    keep(pipeline, allowed, refused, wire("y", product="p"))
    assert products(pipeline) == ["p"]
    assert counts(pipeline)["without_consent_count"] == (1, 2)


def test_exclude_rules_keep_events_out_and_count_each_once(pipeline: Any) -> None:
    config = """
exclude:
  - {name: staff, when: "campaign = 'internal-test'"}
  - {name: bots, when: "source = 'bot'"}
"""
    as_of = keep(
        pipeline,
        wire("a", product="visitor", campaign="spring"),
        wire("b", product="no campaign"),  # the rules are NULL here: the event stays
        wire("c", "2026-01-09T10:00:00Z", who={"customer_id": "c1", "anonymous_id": "k1"}, campaign="internal-test"),
        wire("d", campaign="internal-test", source="bot"),
        wire("e", source="bot", consent={"analytics": False}),  # refused first, so not counted as excluded
        wire("f", who={"anonymous_id": "k1"}, product="cookie"),
        config=config,
    )
    assert as_of == at("2026-01-05T10:00")
    assert products(pipeline) == ["cookie", "no campaign", "visitor"]
    assert counts(pipeline)["excluded_count"] == (2, 6)
    assert counts(pipeline)["without_consent_count"] == (1, 6)
    assert is_known(pipeline)["k1"] is False


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        ({"when": "2026-01-20T10:00:00Z"}, "2026-01-20T10:00"),
        ({"when": "2026-02-01T00:00:00Z"}, "2026-02-01T00:00"),
        ({"when": "2026-02-01T00:00:00.000001Z"}, "2026-01-05T10:00"),
        ({"when": "2099-01-01T00:00:00Z"}, "2026-01-05T10:00"),
        ({"when": "2026-01-20T10:00:00Z", "kind": "email_sent", "channel": "email"}, "2026-01-05T10:00"),
        ({"when": "2026-01-20T10:00:00Z", "who": LINK, "kind": "identity_linked"}, "2026-01-05T10:00"),
        ({"when": "2026-01-20T10:00:00Z", "who": LINK, "kind": "identity_unlinked"}, "2026-01-05T10:00"),
        ({"when": "2026-01-20T10:00:00Z", "consent": {"analytics": False}}, "2026-01-05T10:00"),
        ({"when": "2026-01-20T11:00:00Z", "received_at": "2026-01-20T10:00:00Z"}, "2026-01-20T10:00"),
    ],
    ids=[
        *("inbound", "at_the_landing", "after_the_landing", "clock_in_2099", "outbound", "linked", "unlinked"),
        *("without_consent", "repaired_clock"),
    ],
)
def test_data_as_of_is_the_newest_inbound_touchpoint_that_is_not_in_the_future(
    pipeline: Any, newest: dict[str, Any], expected: str
) -> None:
    assert keep(pipeline, wire("a"), wire("b", **newest)) == at(expected)


def test_the_greatest_landed_at_is_that_of_any_record(pipeline: Any) -> None:
    assert keep(pipeline, wire("a"), wire("b", "2026-02-02T10:00:00Z")) == at("2026-01-05T10:00")
    pipeline.land([b"not an event"], landed_at=LANDED_AT + timedelta(days=3))
    assert keep(pipeline) == at("2026-02-02T10:00")


def test_an_explicit_data_as_of_includes_its_own_instant(pipeline: Any) -> None:
    keep(
        pipeline,
        wire("a", "2026-01-05T10:00:00Z", product="before"),
        wire("b", "2026-01-05T10:00:01Z", product="at"),
        wire("c", "2026-01-05T10:00:01.000001Z", product="after"),
        wire("d", "2026-01-05T10:00:02Z", kind="email_sent", channel="email", product="outbound after"),
        as_of=at("2026-01-05T10:00:01"),
    )
    assert products(pipeline) == ["at", "before"]
    assert counts(pipeline)["future_ratio"] == (2, 4)


def test_data_as_of_is_an_instant_in_whatever_zone_it_is_given(pipeline: Any) -> None:
    pipeline.land([wire("a", "2026-01-05T10:00:00Z"), wire("b", "2026-01-05T12:00:00Z")])
    berlin = datetime(2026, 1, 5, 12, tzinfo=timezone(timedelta(hours=2)))
    assert pipeline.build(as_of=berlin) == datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert pipeline.rows("select data_as_of, (select count(*) from touchpoints) from parameters") == [
        (datetime(2026, 1, 5, 10), 1)
    ]


def test_a_clock_in_2099_waits_ages_nobody_and_enters_once_the_time_has_passed(
    pipeline: Any, new_pipeline: Callable[[], Any]
) -> None:
    present = [
        wire("a", product="p"),
        wire("b", "2026-01-06T10:00:00Z", who={"anonymous_id": "k1"}, product="q"),
    ]
    future = [
        wire("c", "2099-01-01T00:00:00Z", who={"customer_id": "c9", "anonymous_id": "k1"}, product="future"),
        wire("d", "2099-01-01T00:00:00Z", LINK, "identity_linked"),
    ]
    without = new_pipeline()
    without.land(present, landed_at=LANDED_AT)
    without.build()
    pipeline.land(present + future, landed_at=LANDED_AT)
    assert pipeline.build() == datetime(2026, 1, 6, 10, tzinfo=UTC)
    assert pipeline.tables() == without.tables()
    assert pipeline.rows("select status from journeys") == [("active",), ("active",)]
    assert counts(pipeline)["future_ratio"] == (2, 4)
    # A record that lands after that instant lets the waiting ones in, with what they prove.
    pipeline.land([wire("e", "2099-01-02T00:00:00Z", who="c5")], landed_at=LANDED_LATER)
    assert pipeline.build() == datetime(2099, 1, 2, tzinfo=UTC)
    assert counts(pipeline)["future_ratio"] == (0, 5)
    assert pipeline.rows("select customer_key from touchpoints where product_id in ('q', 'future')") == [
        ("c:c9",),
        ("c:c9",),
    ]


def test_a_derived_data_as_of_never_lies_before_the_last_one(pipeline: Any) -> None:
    config = configured("{}")
    pipeline.land([wire("a", "2026-01-05T10:00:00Z"), wire("b", "2026-01-05T10:30:00Z", kind="email_sent")])
    pipeline.land([wire("c", "2026-01-05T11:00:00Z", kind="email_sent", channel="email", product="sent")])
    assert pipeline.build() == datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert products(pipeline) == [None]
    last = datetime(2026, 1, 5, 11, tzinfo=UTC)
    assert silver.build(pipeline.con, config=config, data_as_of=None, not_before=last) == last
    assert products(pipeline) == ["sent", None]
    earlier = datetime(2026, 1, 1, tzinfo=UTC)
    assert silver.build(pipeline.con, config=config, data_as_of=None, not_before=earlier).hour == 10
    # Said outright, it may lie before: the night allows that in a full build only.
    assert silver.build(pipeline.con, config=config, data_as_of=earlier, not_before=last) == earlier
    assert products(pipeline) == []


def test_without_an_inbound_touchpoint_everything_waits(run: Any) -> None:
    built = run(wire("a", kind="email_sent", channel="email"), wire("b", who=LINK, kind="identity_linked"))
    assert built.rows("select data_as_of from parameters") == [(silver.NOTHING_YET.replace(tzinfo=None),)]
    assert all(not rows for rows in built.tables().values())
    assert counts(built)["future_ratio"] == (2, 2)


def test_over_nothing_at_all_every_table_is_empty(pipeline: Any) -> None:
    assert pipeline.build() == silver.NOTHING_YET
    assert all(not rows for rows in pipeline.tables().values())
    assert {check: pair for check, pair in counts(pipeline).items() if pair[0]} == {}


SKEWS = {
    # occurred_at, received_at as sent; occurred_at, source_occurred_at as kept (times of one day)
    "exactly the tolerance": ("10:05:00", "10:00:00", "10:05:00", None),
    "a microsecond more": ("10:05:00.000001", "10:00:00", "10:00:00", "10:05:00.000001"),
    "a late arrival is no skew": ("09:00:00", "10:00:00", "09:00:00", None),
}


def test_a_clock_further_ahead_than_the_tolerance_takes_the_receivers_time(pipeline: Any) -> None:
    def day(time: str | None) -> datetime | None:
        return datetime.fromisoformat(f"2026-01-05T{time}") if time else None

    keep(
        pipeline,
        *(
            wire(case, f"2026-01-05T{sent}Z", received_at=f"2026-01-05T{received}Z", product=case)
            for case, (sent, received, _, _) in SKEWS.items()
        ),
    )
    rows = pipeline.rows("select product_id, occurred_at, source_occurred_at, is_clock_skewed from kept_events")
    assert sorted(rows, key=lambda row: list(SKEWS).index(row[0])) == [
        (case, day(kept), day(source), source is not None) for case, (_, _, kept, source) in SKEWS.items()
    ]
    assert counts(pipeline)["clock_skewed_ratio"] == (1, 3)


def test_a_time_before_the_earliest_is_quarantined(pipeline: Any) -> None:
    earliest = {
        "1990-01-01T00:00:00Z": True,
        "1990-01-01T01:59:59.999999+02:00": False,
        "1989-12-31T23:00:00-02:00": True,
    }
    received = "2026-01-05T10:00:00Z"
    records = [wire(str(index), when, received_at=received, product=when) for index, when in enumerate(earliest)]
    keep(pipeline, *records)
    assert products(pipeline) == sorted(when for when, is_kept in earliest.items() if is_kept)
    assert counts(pipeline)["quarantined_ratio"] == (1, 3)
