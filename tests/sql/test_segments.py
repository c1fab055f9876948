"""Segments: how customers of one RFM label fare."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest


def scored(warehouse: Any, customer: str, scores: tuple[int, int, int], revenue: Any) -> None:
    recency, frequency, monetary = scores
    label = {"segment": f"r{recency}f{frequency}m{monetary}"}
    points = {"recency_score": recency, "frequency_score": frequency, "monetary_score": monetary}
    warehouse.add("customers", {"customer_key": customer, "revenue": revenue, **label, **points})


def journey(warehouse: Any, customer: str, name: str, status: str) -> None:
    own = {"customer_key": customer, "journey_id": warehouse.journey_id(name), "status": status}
    warehouse.add("journeys", {**own, **({"converted_at": "2026-01-01"} if status == "converted" else {})})


def test_customers_of_one_label_are_counted_together(warehouse: Any) -> None:
    scored(warehouse, "c:1", (5, 1, 2), "80.10")
    scored(warehouse, "c:2", (5, 1, 2), "70.20")
    scored(warehouse, "c:3", (1, 5, 5), 5000)
    warehouse.add("customers", {"customer_key": "c:sent", "segment": "no_orders"})
    warehouse.build("2026-06-01")
    columns = "segment, recency_score, frequency_score, monetary_score, customer_count, revenue"
    assert warehouse.rows(f"select {columns} from segments order by segment") == [
        ("no_orders", None, None, None, 1, Decimal("0.00")),
        ("r1f5m5", 1, 5, 5, 1, Decimal("5000.00")),
        ("r5f1m2", 5, 1, 2, 2, Decimal("150.30")),
    ]


def test_conversion_is_that_of_their_decided_journeys(warehouse: Any) -> None:
    scored(warehouse, "c:1", (5, 1, 2), 80)
    scored(warehouse, "c:2", (5, 1, 2), 70)
    for number, status in enumerate(("converted", "abandoned", "active", "service")):
        journey(warehouse, "c:1", f"1/{number}", status)
    journey(warehouse, "c:2", "2/1", "converted")
    warehouse.add("customers", {"customer_key": "c:3", "segment": "no_orders"})
    journey(warehouse, "c:3", "3/1", "active")
    warehouse.build("2026-06-01")
    columns = "segment, decided_journey_count, converted_journey_count, conversion_ratio"
    assert warehouse.rows(f"select {columns}, conversion_ratio_low from segments order by segment") == [
        ("no_orders", 0, 0, None, None),
        ("r5f1m2", 3, 2, pytest.approx(2 / 3), pytest.approx(0.207660, abs=1e-6)),
    ]


def test_retention_is_of_active_months_whose_next_one_is_over(warehouse: Any) -> None:
    scored(warehouse, "c:1", (5, 1, 2), 80)
    scored(warehouse, "c:2", (5, 1, 2), 80)
    warehouse.visit("c:1", "2026-01-31 09:00", "2026-02-01 09:00", "2026-03-15 09:00")
    warehouse.visit("c:2", "2026-02-10 09:00")
    warehouse.build("2026-04-30")
    columns = "segment, month_count, retained_month_count, retention_ratio"
    # January and one of two Februaries were followed; March waits for April to end.
    assert warehouse.rows(f"select {columns} from segments") == [("r5f1m2", 3, 2, pytest.approx(2 / 3))]


def test_without_customers_there_are_no_rows(warehouse: Any) -> None:
    warehouse.build("2026-06-01")
    assert warehouse.rows("from segments") == []
