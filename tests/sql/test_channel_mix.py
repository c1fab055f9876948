"""Channel mix: customers by the set of channels they use, their journeys, months and revenue."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest


def rows(warehouse: Any, columns: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = warehouse.rows(f"select {columns} from channel_mix order by channels")
    return found


def journeys(warehouse: Any, customer: str, *statuses: str) -> None:
    for index, status in enumerate(statuses, 1):
        own = {"customer_key": customer, "journey_id": warehouse.journey_id(f"{customer}/{index}")}
        converted = {"converted_at": "2026-01-01"} if status == "converted" else {}
        warehouse.add("journeys", {**own, "status": status, "journey_index": index, **converted})


def test_customers_are_grouped_by_the_sorted_set_of_channels_they_ever_used(warehouse: Any) -> None:
    for channel in ("web", "store", "email", "support"):
        warehouse.visit("c:all", "2026-01-01 09:00", channel=channel)
    warehouse.visit("c:two", "2026-01-01 09:00", "2026-01-02 09:00", channel="web")
    warehouse.visit("c:two", "2026-05-01 09:00", channel="email")
    warehouse.visit("c:web", "2026-01-01 09:00", channel="web")
    warehouse.visit("c:web", "2026-01-01 10:00", channel="email", direction="outbound", event_type="email_sent")
    warehouse.visit("a:web", "2026-01-01 09:00", channel="web")
    warehouse.visit("c:sent", "2026-01-01 09:00", channel="email", direction="outbound", event_type="email_sent")
    warehouse.build("2026-06-01")
    assert rows(warehouse, "channels, is_omnichannel, customer_count") == [
        ("email,store,support,web", True, 1),
        ("email,web", True, 1),
        ("web", False, 2),
    ]


def test_conversion_is_among_decided_journeys_service_and_active_left_out(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-01 09:00")
    warehouse.visit("c:2", "2026-01-01 09:00")
    warehouse.visit("c:3", "2026-01-01 09:00", channel="support")
    journeys(warehouse, "c:1", "converted", "abandoned", "active")
    journeys(warehouse, "c:2", "abandoned", "service")
    journeys(warehouse, "c:3", "service")
    warehouse.build("2026-06-01")
    columns = "channels, journey_count, decided_journey_count, converted_journey_count, conversion_ratio"
    assert rows(warehouse, f"{columns}, conversion_ratio_low, conversion_ratio_high") == [
        ("support", 1, 0, 0, None, None, None),
        ("web", 5, 3, 1, pytest.approx(1 / 3), pytest.approx(0.061492, abs=1e-6), pytest.approx(0.792340, abs=1e-6)),
    ]


def test_a_month_is_retained_where_the_next_one_is_active_too(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-31 09:00", "2026-02-01 09:00", "2026-04-15 09:00", "2026-05-15 09:00")
    warehouse.visit("c:2", "2026-02-10 09:00", "2026-02-11 09:00")
    warehouse.build("2026-06-01")
    columns = "channels, month_count, retained_month_count, retention_ratio_next_period"
    # January and April were followed; both Februaries were not; June, which May waits for, is not over.
    assert rows(warehouse, columns) == [("web", 4, 2, 0.5)]
    assert rows(warehouse, "retention_ratio_low, retention_ratio_high") == [
        (pytest.approx(0.150039, abs=1e-6), pytest.approx(0.849961, abs=1e-6))
    ]


def test_the_month_after_must_be_over(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-31 09:00", "2026-02-01 09:00")
    columns = "month_count, retained_month_count, retention_ratio_next_period"
    warehouse.build("2026-02-28 23:59:59.999999")
    assert rows(warehouse, columns) == [(0, 0, None)]
    warehouse.build("2026-03-01")
    assert rows(warehouse, columns) == [(1, 1, 1.0)]


def test_revenue_is_shared_out_over_all_customers_of_the_set(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-01 09:00")
    warehouse.visit("c:2", "2026-01-01 09:00")
    warehouse.add("customers", {"customer_key": "c:1", "revenue": "10.01"}, {"customer_key": "c:2"})
    warehouse.build("2026-06-01")
    assert rows(warehouse, "revenue, revenue_per_customer") == [(Decimal("10.01"), Decimal("5.01"))]


def test_without_touchpoints_there_are_no_rows(warehouse: Any) -> None:
    warehouse.build("2026-06-01")
    assert rows(warehouse, "channels") == []
