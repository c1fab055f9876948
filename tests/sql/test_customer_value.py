"""Customer value: a cohort's revenue cumulated by calendar interval, as far as it is known."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest


def rows(warehouse: Any, columns: str, period: str = "month") -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = warehouse.rows(f"""
        select {columns} from customer_value where period = '{period}' order by cohort_start_date, interval_index""")
    return found


def test_revenue_cumulates_over_the_cohorts_intervals(warehouse: Any) -> None:
    warehouse.buy("c:1", ("2026-01-31 12:00", 10), ("2026-02-01 12:00", "0.50"), ("2026-04-30 12:00", 30))
    warehouse.buy("c:2", ("2026-01-01 12:00", 20))
    warehouse.buy("c:3", ("2026-03-01 12:00", 7))
    warehouse.build("2026-05-01")
    columns = "cohort_start_date, interval_index, customer_count, cumulative_revenue, cumulative_revenue_per_customer"
    january, march = date(2026, 1, 1), date(2026, 3, 1)
    assert rows(warehouse, columns) == [
        (january, 0, 2, Decimal("30.00"), Decimal("15.00")),
        (january, 1, 2, Decimal("30.50"), Decimal("15.25")),
        (january, 2, 2, Decimal("30.50"), Decimal("15.25")),
        (january, 3, 2, Decimal("60.50"), Decimal("30.25")),
        (january, 4, 2, None, None),
        (march, 0, 1, Decimal("7.00"), Decimal("7.00")),
        (march, 1, 1, Decimal("7.00"), Decimal("7.00")),
        (march, 2, 1, None, None),
    ]


def test_an_interval_that_is_not_over_is_not_known(warehouse: Any) -> None:
    warehouse.buy("c:1", ("2026-01-05 12:00", 10), ("2026-01-12 12:00", 5))
    warehouse.build("2026-01-18 23:59:59.999999")
    columns = "interval_index, cumulative_revenue, is_complete"
    assert rows(warehouse, columns, "week") == [(0, 10, True), (1, None, False)]
    warehouse.build("2026-01-19")
    assert rows(warehouse, columns, "week") == [(0, 10, True), (1, 15, True), (2, None, False)]
    assert rows(warehouse, columns) == [(0, None, False)]


def test_intervals_are_the_reporting_calendars(warehouse: Any) -> None:
    # New York's 8 March 2026 ends at 04:00 UTC.
    warehouse.buy("c:1", ("2026-03-08 05:00", 1), ("2026-03-09 03:59:59.999999", 2), ("2026-03-09 04:00", 4))
    warehouse.build("2026-03-10 04:00", config="{reporting_timezone: America/New_York}")
    columns = "cohort_start_date, interval_index, cumulative_revenue"
    day = date(2026, 3, 8)
    assert rows(warehouse, columns, "day") == [(day, 0, 3), (day, 1, 7), (day, 2, None)]


@pytest.mark.parametrize(("period", "count", "value"), [("day", 31, 3), ("week", 26, 7), ("month", 24, 15)])
def test_intervals_end_where_those_of_retention_do(warehouse: Any, period: str, count: int, value: int) -> None:
    times = ("2020-01-01 10:00", "2020-01-31 10:00", "2020-02-01 10:00", "2021-12-31 10:00", "2022-01-01 10:00")
    warehouse.buy("c:1", *zip(times, (1, 2, 4, 8, 16), strict=True))
    warehouse.build("2026-01-01")
    found = rows(warehouse, "interval_index, cumulative_revenue", period)
    assert [index for index, _ in found] == list(range(count))
    assert found[-1][1] == value


def test_orders_whose_revenue_is_unknown_add_none_and_keep_their_customer(warehouse: Any) -> None:
    warehouse.buy("c:1", ("2026-01-05 12:00", None), ("2026-02-05 12:00", 5))
    warehouse.buy("c:2", ("2026-01-05 12:00", None))
    warehouse.build("2026-03-01")
    columns = "interval_index, customer_count, cumulative_revenue, cumulative_revenue_per_customer"
    assert rows(warehouse, columns) == [(0, 2, 0, 0), (1, 2, 5, Decimal("2.50")), (2, 2, None, None)]


@pytest.mark.parametrize(
    ("revenue", "customer_count", "each"), [(20, 3, "6.67"), ("141.17", 2, "70.59"), ("0.01", 3, "0")]
)
def test_revenue_per_customer_is_exact_to_the_cent(
    warehouse: Any, revenue: Any, customer_count: int, each: str
) -> None:
    warehouse.buy("c:0", ("2026-01-05 12:00", revenue))
    for number in range(1, customer_count):
        warehouse.buy(f"c:{number}", ("2026-01-05 12:00", 0))
    warehouse.build("2026-02-01")
    assert rows(warehouse, "cumulative_revenue_per_customer")[0] == (Decimal(each),)


def test_orders_at_one_instant_all_count(warehouse: Any) -> None:
    warehouse.buy("c:1", ("2026-01-05 12:00", 1), ("2026-01-05 12:00", 2))
    warehouse.build("2026-02-01")
    assert rows(warehouse, "customer_count, cumulative_revenue")[0] == (1, 3)


def test_without_orders_there_are_no_cohorts(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-01 09:00")
    warehouse.build("2026-03-01")
    assert warehouse.rows("from customer_value") == []
