"""Churn: who had bought in the churn_days before a period, and whose churn_days ran out in it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

TEN_DAYS = "{churn_days: 10}"


def rows(warehouse: Any, period: str = "day", since: str = "1900-01-01") -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = warehouse.rows(f"""
        select cast(period_start_date as varchar), active_customer_count, churned_customer_count from churn
        where period = '{period}' and period_start_date >= '{since}' order by all""")
    return found


def test_a_customer_is_in_the_base_until_the_period_in_which_the_days_run_out(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-05 12:00")
    warehouse.build("2026-02-01", config=TEN_DAYS)
    assert rows(warehouse) == [
        *((f"2026-01-{day:02}", 1, 0) for day in range(6, 15)),
        ("2026-01-15", 1, 1),
    ]
    assert rows(warehouse, "week") == [("2026-01-12", 1, 1)]


def test_days_are_24_hours_and_belong_to_the_period_in_which_they_end(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-05 00:00")  # runs out at the first instant of the 15th
    warehouse.buy("c:2", "2026-01-04 23:59:59.999999")
    warehouse.build("2026-02-01", config=TEN_DAYS)
    assert rows(warehouse, since="2026-01-13") == [("2026-01-13", 2, 0), ("2026-01-14", 2, 1), ("2026-01-15", 1, 1)]


def test_periods_are_local_and_days_stay_24_hours_through_the_change_of_clocks(warehouse: Any) -> None:
    # New York leaves winter time on 8 March 2026: ten days after 23:30 of the 2nd it is 00:30 of the 13th.
    warehouse.buy("c:1", "2026-03-03 04:30")
    warehouse.build("2026-04-01", config="{churn_days: 10, reporting_timezone: America/New_York}")
    assert rows(warehouse)[0] == ("2026-03-03", 1, 0)
    assert rows(warehouse)[-1] == ("2026-03-13", 1, 1)


@pytest.mark.parametrize(("again", "churned"), [("2026-01-15 12:00", 0), ("2026-01-15 12:00:00.000001", 1)])
def test_an_order_at_the_very_end_of_the_days_is_in_time(warehouse: Any, again: str, churned: int) -> None:
    warehouse.buy("c:1", "2026-01-05 12:00", again)
    warehouse.build("2026-01-20", config=TEN_DAYS)
    assert ("2026-01-15", 1, churned) in rows(warehouse)
    assert rows(warehouse, since="2026-01-16")[0] == ("2026-01-16", 1, 0)


def test_who_churns_and_buys_again_churned_once_and_is_in_the_base_again(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-01 12:00", "2026-01-20 12:00")
    warehouse.build("2026-02-03", config=TEN_DAYS)
    assert rows(warehouse, since="2026-01-10") == [
        ("2026-01-10", 1, 0),
        ("2026-01-11", 1, 1),
        *((f"2026-01-{day}", 1, 0) for day in range(21, 30)),
        ("2026-01-30", 1, 1),
    ]
    assert rows(warehouse, "week") == [("2026-01-05", 1, 1), ("2026-01-26", 1, 1)]


def test_who_first_buys_in_a_period_is_not_in_its_base_even_where_the_days_run_out_in_it(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-02 12:00")
    warehouse.buy("c:2", "2025-12-31 12:00", "2026-01-05 12:00", "2026-01-17 12:00")  # runs out on the 15th and 27th
    warehouse.build("2026-02-01", config=TEN_DAYS)
    assert rows(warehouse, "month") == [("2026-01-01", 1, 1)]


def test_a_period_that_is_not_over_counts_what_has_run_out_and_has_no_ratio(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-01 12:00")
    warehouse.buy("c:2", "2026-01-01 12:00:00.000001")
    warehouse.build("2026-01-11 12:00", config=TEN_DAYS)
    columns = "active_customer_count, churned_customer_count, churn_ratio, churn_ratio_low, churn_ratio_high"
    day = "from churn where period = 'day' and period_start_date = '2026-01-11'"
    assert warehouse.rows(f"select {columns}, is_complete {day}") == [(2, 1, None, None, None, False)]
    warehouse.build("2026-01-12", config=TEN_DAYS)
    low, high = pytest.approx(0.34238, abs=1e-5), pytest.approx(1.0)
    assert warehouse.rows(f"select {columns}, is_complete {day}") == [(2, 2, 1.0, low, high, True)]


def test_later_orders_change_no_complete_period(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-01 12:00")
    warehouse.build("2026-01-15", config=TEN_DAYS)
    days = "select * exclude (_data_as_of) from churn where period_start_date < '2026-01-15' order by all"
    before = warehouse.rows(days)
    assert [row[3] for row in before if row[1] == "day"] == [0] * 9 + [1]
    warehouse.buy("c:1", "2026-01-16 12:00")
    warehouse.build("2026-03-15", config=TEN_DAYS)
    assert warehouse.rows(days) == before


def test_equal_times_are_one_chain(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-01 12:00", "2026-01-01 12:00", "2026-01-01 12:00")
    warehouse.build("2026-02-01", config=TEN_DAYS)
    assert rows(warehouse, "week") == [("2026-01-05", 1, 1)]


def test_the_shipped_churn_days_are_180(warehouse: Any) -> None:
    warehouse.buy("c:1", "2026-01-01 00:00")
    warehouse.build("2026-12-01")
    assert warehouse.rows("select max(period_start_date) from churn where period = 'day'") == [(date(2026, 6, 30),)]


def test_without_orders_there_are_no_rows(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-01 09:00")
    warehouse.build("2026-06-01")
    assert warehouse.rows("from churn") == []
