"""Touchpoint impact: which touchpoints lie before a conversion or end, and the difference they go along with."""

from __future__ import annotations

from typing import Any

import pytest


def journey(warehouse: Any, name: str, status: str, ended_at: str, **columns: Any) -> None:
    own = {"customer_key": f"c:{name}", "journey_id": warehouse.journey_id(name), "status": status}
    warehouse.add("journeys", {**own, "started_at": "2026-01-01", "ended_at": ended_at, **columns})
    warehouse.add("customers", {"customer_key": f"c:{name}", "first_touch_at": "2026-01-01"})


def touch(warehouse: Any, name: str, at: str, event_type: str, **columns: Any) -> None:
    own = {"customer_key": f"c:{name}", "journey_id": warehouse.journey_id(name)}
    warehouse.add("touchpoints", {**own, "occurred_at": at, "event_type": event_type, **columns})


def impact(warehouse: Any) -> dict[tuple[str, str], tuple[int, ...]]:
    """By channel and event type: journeys and conversions with it, journeys and conversions without."""
    rows = warehouse.rows("""
        select channel, event_type, journeys_with, converted_with, journeys_without, converted_without
        from touchpoint_impact""")
    return {row[:2]: row[2:] for row in rows}


def test_before_a_conversion_is_strictly_before_it_in_total_order(warehouse: Any) -> None:
    journey(warehouse, "j", "converted", "2026-01-09", converted_at="2026-01-02")
    touch(warehouse, "j", "2026-01-01", "page_viewed")
    touch(warehouse, "j", "2026-01-02", "tied_before", event_id=warehouse.event_id(50))
    conversion = {"is_conversion": True, "is_order_conversion": True, "event_id": warehouse.event_id(51)}
    touch(warehouse, "j", "2026-01-02", "order_completed", **conversion)
    touch(warehouse, "j", "2026-01-02", "tied_after", event_id=warehouse.event_id(52))
    touch(warehouse, "j", "2026-01-09", "signed_in")
    warehouse.build("2026-06-01")
    assert impact(warehouse) == {("web", "page_viewed"): (1, 1, 0, 0), ("web", "tied_before"): (1, 1, 0, 0)}


def test_up_to_the_end_is_not_after_the_last_inbound_touchpoint(warehouse: Any) -> None:
    journey(warehouse, "j", "abandoned", "2026-01-02")
    touch(warehouse, "j", "2026-01-01", "email_sent", channel="email", direction="outbound")
    touch(warehouse, "j", "2026-01-01", "email_opened", channel="email", direction="outbound", is_machine_open=True)
    touch(warehouse, "j", "2026-01-02", "cart_viewed")
    touch(warehouse, "j", "2026-01-02", "email_delivered", channel="email", direction="outbound")
    touch(warehouse, "j", "2026-01-02 00:00:00.000001", "email_bounced", channel="email", direction="outbound")
    warehouse.build("2026-06-01")
    alone = (1, 0, 0, 0)
    assert impact(warehouse) == {
        ("email", "email_sent"): alone,
        ("web", "cart_viewed"): alone,
        ("email", "email_delivered"): alone,
    }


def test_only_decided_journeys_count_each_once_and_a_bare_conversion_counts_as_without(warehouse: Any) -> None:
    for name, status in (("a", "abandoned"), ("b", "active"), ("s", "service")):
        journey(warehouse, name, status, "2026-01-02")
        for day in ("2026-01-01", "2026-01-02"):
            touch(warehouse, name, day, "cart_viewed")
    journey(warehouse, "c", "converted", "2026-01-02", converted_at="2026-01-02")
    touch(warehouse, "c", "2026-01-02", "order_completed", is_conversion=True)
    touch(warehouse, "a", "2026-01-01", "cart_viewed", channel="store")
    warehouse.build("2026-06-01")
    assert impact(warehouse) == {("web", "cart_viewed"): (1, 0, 1, 1), ("store", "cart_viewed"): (1, 0, 1, 1)}


def test_the_lift_has_newcombes_published_interval(warehouse: Any) -> None:
    number = 0
    for with_cart, converted, size in ((True, 56, 70), (False, 48, 80)):
        for index in range(size):
            number += 1
            status, ended_at = ("converted", "2026-01-02") if index < converted else ("abandoned", "2026-01-01")
            journey(warehouse, str(number), status, ended_at, converted_at="2026-01-02" if index < converted else None)
            touch(warehouse, str(number), "2026-01-01", "page_viewed")
            if with_cart:
                touch(warehouse, str(number), "2026-01-01", "cart_viewed")
            if index < converted:
                touch(warehouse, str(number), "2026-01-02", "order_completed", is_conversion=True)
    warehouse.build("2026-06-01")
    rows = warehouse.rows("""
        select event_type, journeys_with, converted_with, journeys_without, converted_without, lift, lift_low,
            lift_high, conversion_ratio_with, conversion_ratio_without
        from touchpoint_impact order by event_type""")
    interval = (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    assert rows == [
        ("cart_viewed", 70, 56, 80, 48, pytest.approx(0.2), *interval, 0.8, 0.6),
        ("page_viewed", 150, 104, 0, 0, None, None, None, pytest.approx(104 / 150), None),
    ]


def test_without_decided_journeys_there_is_no_row(warehouse: Any) -> None:
    journey(warehouse, "b", "active", "2026-01-02")
    touch(warehouse, "b", "2026-01-01", "cart_viewed")
    warehouse.build("2026-06-01")
    assert warehouse.rows("from touchpoint_impact") == []
