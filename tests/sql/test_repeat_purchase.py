"""Repeat purchase: who of a cohort has ordered again, by days and by orders, and how long it took."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

COUNTS = "customer_count, repeat_customer_count, repeat_by_order_count, order_count"


def rows(warehouse: Any, columns: str, period: str = "month") -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = warehouse.rows(f"""
        select {columns} from repeat_purchase where period = '{period}' order by cohort_start_date""")
    return found


def test_two_orders_of_one_day_repeat_by_orders_only(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-05 09:00", "2026-01-05 23:59:59.999999")
    warehouse.buy("c:2", "2026-01-05 09:00", "2026-01-06 00:00")
    warehouse.buy("c:3", "2026-01-05 09:00")
    warehouse.build("2026-03-01")
    assert rows(warehouse, f"cohort_start_date, {COUNTS}") == [(date(2026, 1, 1), 3, 1, 2, 5)]
    ratios = "repeat_ratio, repeat_ratio_low, repeat_ratio_high, orders_per_customer"
    assert rows(warehouse, ratios) == [
        (
            pytest.approx(1 / 3),
            pytest.approx(0.061492, abs=1e-6),
            pytest.approx(0.792340, abs=1e-6),
            pytest.approx(5 / 3),
        )
    ]


def test_days_are_the_reporting_calendars(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-06 04:00", "2026-01-06 05:00")  # 23:00 and 00:00 in New York
    warehouse.buy("c:2", "2026-01-06 05:00", "2026-01-07 04:00")  # two days in UTC
    warehouse.build("2026-03-01", config="{reporting_timezone: America/New_York}")
    assert rows(warehouse, COUNTS) == [(2, 1, 2, 4)]
    assert rows(warehouse, f"cohort_start_date, {COUNTS}", "day") == [
        (date(2026, 1, 5), 1, 1, 1, 2),
        (date(2026, 1, 6), 1, 0, 1, 2),
    ]


def test_the_cohort_is_the_period_of_the_first_order_whenever_the_second_came(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-31 12:00", "2026-06-01 12:00")
    warehouse.buy("c:2", "2026-02-01 12:00")
    warehouse.build("2026-07-01")
    columns = f"cohort_start_date, {COUNTS}, is_complete"
    assert rows(warehouse, columns) == [(date(2026, 1, 1), 1, 1, 1, 2, True), (date(2026, 2, 1), 1, 0, 0, 1, True)]
    assert rows(warehouse, columns, "week") == [(date(2026, 1, 26), 2, 1, 1, 3, True)]


def test_days_between_orders_are_fractional_and_pooled_over_all_pairs(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-01 00:00", "2026-01-01 12:00", "2026-01-04 12:00")  # 0.5 and 3 days
    warehouse.buy("c:2", "2026-01-01 00:00", "2026-01-02 06:00")  # 1.25
    warehouse.buy("c:3", "2026-01-01 00:00")
    warehouse.build("2026-03-01")
    assert rows(warehouse, "median_days_between_orders") == [(1.25,)]
    warehouse.buy("c:4", "2026-01-02 00:00", "2026-01-02 00:00")  # no time at all
    warehouse.build("2026-03-01")
    assert rows(warehouse, "median_days_between_orders") == [(0.875,)]


def test_a_cohort_without_a_second_order_has_no_median(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-01 09:00")
    warehouse.build("2026-03-01")
    assert rows(warehouse, "repeat_ratio, orders_per_customer, median_days_between_orders") == [(0.0, 1.0, None)]


def test_a_cohort_that_may_still_grow_says_so_and_keeps_its_ratios(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-01 09:00", "2026-01-02 09:00")
    warehouse.build("2026-01-31 23:59:59.999999")
    assert rows(warehouse, "repeat_ratio, is_complete") == [(1.0, False)]
    assert rows(warehouse, "repeat_ratio, is_complete", "week") == [(1.0, True)]


def test_without_orders_there_are_no_cohorts(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-01 09:00")
    warehouse.build("2026-03-01")
    assert warehouse.rows("from repeat_purchase") == []
