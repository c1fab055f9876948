"""Stickiness: customers by the number of days on which they were active in a week or month."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest


def rows(warehouse: Any, period: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = warehouse.rows(f"""
        select period_start_date, active_days, customer_count, customer_share, is_complete from stickiness
        where period = '{period}' order by all""")
    return found


def test_customers_are_counted_by_their_active_days(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-05 09:00", "2026-01-05 10:00", "2026-01-06 09:00", "2026-01-11 23:59:59.999999")
    warehouse.visit("c:2", "2026-01-07 09:00", "2026-01-12 00:00")
    warehouse.visit("c:3", "2026-01-07 09:00")
    warehouse.build("2026-01-19")
    third = pytest.approx(1 / 3)
    assert rows(warehouse, "week") == [
        (date(2026, 1, 5), 1, 2, pytest.approx(2 / 3), True),
        (date(2026, 1, 5), 3, 1, third, True),
        (date(2026, 1, 12), 1, 1, 1.0, True),
    ]


def test_the_running_period_has_counts_and_no_shares(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-31 09:00", "2026-02-01 09:00")
    warehouse.build("2026-02-28 23:59:59.999999")
    assert rows(warehouse, "month") == [(date(2026, 1, 1), 1, 1, 1.0, True), (date(2026, 2, 1), 1, 1, None, False)]
    warehouse.build("2026-03-01")
    assert rows(warehouse, "month") == [(date(2026, 1, 1), 1, 1, 1.0, True), (date(2026, 2, 1), 1, 1, 1.0, True)]


def test_days_are_the_reporting_calendars(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-06 04:59:59.999999", "2026-01-06 05:00", "2026-01-07 04:59:59.999999")
    warehouse.build("2026-02-01", config="{reporting_timezone: America/New_York, week_starts_on: tuesday}")
    assert rows(warehouse, "week") == [(date(2025, 12, 30), 1, 1, 1.0, True), (date(2026, 1, 6), 1, 1, 1.0, True)]


def test_days_as_periods_and_days_without_anyone_have_no_rows(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-05 09:00")
    warehouse.visit("c:2", "2026-01-05 09:00", direction="outbound", event_type="email_sent")
    warehouse.build("2026-03-01")
    assert warehouse.rows("select period, period_start_date, customer_count from stickiness order by all") == [
        ("month", date(2026, 1, 1), 1),
        ("week", date(2026, 1, 5), 1),
    ]
