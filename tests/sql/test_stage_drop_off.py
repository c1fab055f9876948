"""Stage drop-off: where those who dropped were last seen, and where they went next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

Walk = Callable[..., None]


def ways_out(warehouse: Any, *, scope: str = "journey", stage: str = "awareness") -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = warehouse.rows(f"""
        select exit_channel, exit_event_type, next_channel, next_event_type, dropped_count, share_of_stage_drop,
            median_days_to_next
        from stage_drop_off where scope = '{scope}' and period = 'all' and stage = '{stage}'
        order by dropped_count desc, exit_event_type, next_event_type""")
    return rows


def seen(
    warehouse: Any, at: str, event_type: str, *, customer: str = "c:j1", name: str | None = "j1", **columns: Any
) -> None:
    warehouse.add(
        "touchpoints",
        {
            "customer_key": customer,
            "journey_id": warehouse.journey_id(name) if name else None,
            "occurred_at": at,
            "event_type": event_type,
            **columns,
        },
    )


def test_the_exit_is_the_last_inbound_touchpoint_and_next_lies_in_any_journey(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01 10:00", "awareness"))
    seen(warehouse, "2026-01-02 10:00", "error_encountered")  # unstaged, yet the last seen
    seen(warehouse, "2026-01-03 10:00", "email_sent", channel="email", direction="outbound")
    seen(warehouse, "2026-04-02 22:00", "store_entered", channel="store", name="j2")
    warehouse.add("journeys", {"customer_key": "c:j1", "journey_id": warehouse.journey_id("j2"), "status": "active"})
    warehouse.build("2026-06-01")
    assert ways_out(warehouse) == [("web", "error_encountered", "store", "store_entered", 1, 1.0, 90.5)]


def test_the_exit_lies_not_after_the_window(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01 10:00", "awareness"))
    seen(warehouse, "2026-01-31 10:00", "cart_viewed")  # the window's very end
    seen(warehouse, "2026-01-31 10:00:00.000001", "page_viewed")
    warehouse.build("2026-06-01")
    [way] = ways_out(warehouse)
    assert way[:4] == ("web", "cart_viewed", "web", "page_viewed")
    assert way[6] == pytest.approx(1e-6 / 86400)


def test_who_never_came_back_has_no_next(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01 10:00", "awareness"))
    walk("j2", ("2026-01-01 10:00", "awareness"))  # another customer's touchpoints are no next
    warehouse.build("2026-06-01")
    assert ways_out(warehouse) == [("web", "page_viewed", None, None, 2, 1.0, None)]


def test_at_one_instant_event_ids_say_which_touchpoint_is_the_exit(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01 10:00", "awareness"))
    seen(warehouse, "2026-01-01 10:00", "cart_viewed", event_id=warehouse.event_id(900))
    seen(warehouse, "2026-01-01 10:00", "page_viewed", event_id=warehouse.event_id(901), name="j2", channel="store")
    warehouse.add("journeys", {"customer_key": "c:j1", "journey_id": warehouse.journey_id("j2"), "status": "active"})
    warehouse.build("2026-06-01")
    assert ways_out(warehouse) == [("web", "cart_viewed", "store", "page_viewed", 1, 1.0, 0.0)]


def test_the_advanced_the_active_and_service_journeys_are_left_out(warehouse: Any, walk: Walk) -> None:
    walk("advanced", ("2026-01-01", "awareness"), ("2026-01-02", "advocacy"))
    walk("active", ("2026-05-20", "awareness"))
    walk("service", ("2026-01-01", "retention"), status="service")
    warehouse.build("2026-06-01")
    assert warehouse.rows("from stage_drop_off where scope = 'journey'") == []


def test_shares_stand_within_stage_and_period(warehouse: Any, walk: Walk) -> None:
    for name, day in (("a", "2026-01-05"), ("b", "2026-01-06"), ("c", "2026-02-03")):
        walk(name, (day, "awareness"))
    seen(warehouse, "2026-01-07", "cart_viewed", customer="c:b", name="b")
    warehouse.build("2026-06-01")
    rows = warehouse.rows("""
        select period, period_start_date, exit_event_type, dropped_count, share_of_stage_drop from stage_drop_off
        where scope = 'journey' and period in ('month', 'all') order by 1, 2, 3""")
    assert rows == [
        ("all", None, "cart_viewed", 1, pytest.approx(1 / 3)),
        ("all", None, "page_viewed", 2, pytest.approx(2 / 3)),
        ("month", date(2026, 1, 1), "cart_viewed", 1, 0.5),
        ("month", date(2026, 1, 1), "page_viewed", 1, 0.5),
        ("month", date(2026, 2, 1), "page_viewed", 1, 1.0),
    ]


def test_customers_exit_by_their_own_touchpoints_and_window(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2024-01-01", "awareness"))
    seen(warehouse, "2024-12-31", "store_entered", channel="store", name="j2")  # within 365 days (2024 has 366)
    seen(warehouse, "2025-01-10", "call_started", channel="support", name="j3")
    for name in ("j2", "j3"):
        own = {"customer_key": "c:j1", "journey_id": warehouse.journey_id(name)}
        warehouse.add("journeys", own)
    warehouse.build("2026-06-01")
    assert ways_out(warehouse, scope="customer") == [("store", "store_entered", "support", "call_started", 1, 1.0, 10)]
    assert ways_out(warehouse) == [("web", "page_viewed", "store", "store_entered", 1, 1.0, 365)]
