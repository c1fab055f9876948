"""Retention: cohorts, intervals, what counts as a return, completeness."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import pytest

TOUCHES = "{retention: [{start_event: first_touch, return_event: any}]}"
ORDERS = "{retention: [{start_event: first_order, return_event: order}]}"


def visit(warehouse: Any, customer: str, *times: str, **columns: Any) -> None:
    """Inbound touchpoints of one customer, the earliest first."""
    for at in times:
        warehouse.add("touchpoints", {"customer_key": customer, "occurred_at": at})
    warehouse.add("customers", {"customer_key": customer, "first_touch_at": times[0], **columns})


def order(warehouse: Any, customer: str, *times: str, event_ids: Sequence[str] = ()) -> None:
    """Orders of one customer and their touchpoints, the earliest first."""
    for index, at in enumerate(times, 1):
        warehouse.event_count += 1
        event_id = event_ids[index - 1] if event_ids else warehouse.event_id(warehouse.event_count)
        own = {"customer_key": customer, "event_id": event_id}
        warehouse.add("touchpoints", {**own, "occurred_at": at, "event_type": "order_completed"})
        warehouse.add("orders", {**own, "order_id": event_id, "ordered_at": at, "order_index": index})


def cells(warehouse: Any, columns: str, *, period: str = "day", mode: str = "calendar", where: str = "true") -> Any:
    return warehouse.rows(f"""
        select {columns} from retention
        where period = '{period}' and mode = '{mode}' and breakdown = 'none' and {where}
        order by cohort_start_date, interval_index""")


def test_the_worked_example(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 10:00", "2026-01-02 09:00")
    visit(warehouse, "c:2", "2026-01-01 11:00", "2026-01-06 23:00")
    visit(warehouse, "c:3", "2026-01-01 12:00")
    warehouse.build("2026-01-08", config=TOUCHES)
    rows = cells(warehouse, "bounded_ratio, unbounded_ratio", where="is_complete")
    third = pytest.approx(1 / 3)
    assert [bounded for bounded, _ in rows] == [1, third, 0, 0, 0, third, 0]
    assert [unbounded for _, unbounded in rows] == [1, pytest.approx(2 / 3), third, third, third, third, 0]
    counts = cells(warehouse, "interval_index, cohort_size, bounded_count, unbounded_count, is_complete")
    assert counts == [
        (0, 3, 3, 3, True),
        (1, 3, 1, 2, True),
        (2, 3, 0, 1, True),
        (3, 3, 0, 1, True),
        (4, 3, 0, 1, True),
        (5, 3, 1, 1, True),
        (6, 3, 0, 0, True),
        (7, 3, 0, None, False),  # begins at data_as_of
    ]


def test_an_incomplete_interval_has_counts_and_no_ratios(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 10:00", "2026-01-02 09:00")
    warehouse.build("2026-01-02 23:59:59.999999", config=TOUCHES)
    ratios = "bounded_ratio, bounded_ratio_low, bounded_ratio_high, unbounded_ratio"
    low, high = pytest.approx(0.206549, abs=1e-6), pytest.approx(1.0)
    assert cells(warehouse, f"interval_index, bounded_count, unbounded_count, is_complete, {ratios}") == [
        (0, 1, 1, True, 1.0, low, high, 1.0),
        (1, 1, None, False, None, None, None, None),
    ]


def test_no_complete_interval_leaves_unbounded_unknown(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 10:00")
    warehouse.build("2026-01-01 12:00", config=TOUCHES)
    assert cells(warehouse, "interval_index, cohort_size, bounded_count, unbounded_count, is_complete") == [
        (0, 1, 1, None, False)
    ]


def test_a_return_in_an_incomplete_interval_is_not_unbounded_yet(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 10:00", "2026-01-03 09:00")
    warehouse.build("2026-01-03 12:00", config=TOUCHES)
    assert cells(warehouse, "bounded_count, unbounded_count") == [(1, 1), (0, 0), (1, None)]


def test_only_true_returns_count_where_start_and_return_differ(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 08:00")  # before the first order: no return to it
    order(warehouse, "c:1", "2026-01-01 09:00")
    visit(warehouse, "c:2", "2026-01-01 08:00")
    order(warehouse, "c:2", "2026-01-01 09:00")
    warehouse.add("touchpoints", {"customer_key": "c:2", "occurred_at": "2026-01-01 10:00"})
    config = "{retention: [{start_event: first_order, return_event: any}]}"
    warehouse.build("2026-01-02", config=config)
    assert cells(warehouse, "cohort_size, bounded_count", where="interval_index = 0") == [(2, 1)]


def test_the_first_touch_being_an_order_is_no_return_but_a_tied_later_order_is(warehouse: Any) -> None:
    first, second = warehouse.event_id(70), warehouse.event_id(71)
    order(warehouse, "c:1", "2026-01-01 09:00", event_ids=[first])
    warehouse.add("customers", {"customer_key": "c:1", "first_touch_at": "2026-01-01 09:00"})
    warehouse.build("2026-01-02", config="{retention: [{start_event: first_touch, return_event: order}]}")
    assert cells(warehouse, "bounded_count", where="interval_index = 0") == [(0,)]
    own = {"customer_key": "c:1", "event_id": second}
    warehouse.add("touchpoints", {**own, "occurred_at": "2026-01-01 09:00"})
    warehouse.add("orders", {**own, "order_id": "o2", "ordered_at": "2026-01-01 09:00", "order_index": 2})
    warehouse.build("2026-01-02", config="{retention: [{start_event: first_touch, return_event: order}]}")
    assert cells(warehouse, "bounded_count", where="interval_index = 0") == [(1,)]


def test_the_start_is_its_own_return_where_both_are_the_same_event(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 08:00")
    order(warehouse, "c:1", "2026-01-02 09:00", "2026-01-03 09:00")
    config = """{retention: [{start_event: first_order, return_event: order},
        {start_event: first_touch, return_event: any}]}"""
    warehouse.build("2026-01-20", config=config)
    rows = cells(warehouse, "start_event, return_event, cohort_start_date, bounded_count", where="interval_index = 0")
    assert sorted(rows) == [
        ("first_order", "order", date(2026, 1, 2), 1),
        ("first_touch", "any", date(2026, 1, 1), 1),
    ]


def test_customers_without_an_order_are_in_no_order_cohort(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 08:00")
    warehouse.build("2026-01-20", config=ORDERS)
    assert warehouse.rows("from retention") == []


def test_outbound_touchpoints_are_no_returns(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 08:00")
    sent = {"occurred_at": "2026-01-02 08:00", "direction": "outbound", "event_type": "email_sent"}
    warehouse.add("touchpoints", {"customer_key": "c:1", **sent})
    warehouse.build("2026-01-03", config=TOUCHES)
    assert cells(warehouse, "bounded_count", where="interval_index = 1") == [(0,)]


def test_calendar_days_are_the_reporting_calendars_through_the_change_of_clocks(warehouse: Any) -> None:
    # 8 March 2026 has 23 hours in New York: it ends at 04:00 UTC, and began at 05:00 UTC.
    visit(warehouse, "c:1", "2026-03-08 05:00", "2026-03-09 03:59:59.999999")
    visit(warehouse, "c:2", "2026-03-08 05:00", "2026-03-09 04:00")
    config = TOUCHES[:-1] + ", reporting_timezone: America/New_York}"
    warehouse.build("2026-03-09 04:00", config=config)
    columns = "cohort_start_date, interval_index, bounded_count, is_complete"
    assert cells(warehouse, columns) == [(date(2026, 3, 8), 0, 2, True), (date(2026, 3, 8), 1, 1, False)]


def test_rolling_days_are_24_hours_from_each_customers_own_start(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 10:00", "2026-01-02 09:59:59.999999")
    visit(warehouse, "c:2", "2026-01-01 10:00", "2026-01-02 10:00")
    warehouse.build("2026-01-20", config=TOUCHES)
    assert cells(warehouse, "bounded_count", mode="rolling")[:3] == [(2,), (1,), (0,)]


def test_a_rolling_interval_is_complete_when_it_is_for_the_last_possible_member(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-05 10:00")
    columns = "interval_index, is_complete"
    warehouse.build("2026-01-26", config=TOUCHES)  # two weeks after the cohort's week
    assert cells(warehouse, columns, period="week", mode="rolling") == [(0, True), (1, True), (2, False), (3, False)]
    warehouse.build("2026-01-25 23:59:59.999999", config=TOUCHES)
    assert cells(warehouse, columns, period="week", mode="rolling") == [(0, True), (1, False), (2, False)]


def test_rolling_months_have_30_days(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-15 10:00", "2026-02-14 10:00")
    warehouse.build("2026-06-01", config=TOUCHES)
    assert cells(warehouse, "cohort_start_date, bounded_count", period="month", mode="rolling")[:3] == [
        (date(2026, 1, 1), 1),
        (date(2026, 1, 1), 1),
        (date(2026, 1, 1), 0),
    ]


def test_calendar_months_and_weeks_count_periods_not_days(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-31 23:59", "2026-02-01 00:01", "2026-04-30 12:00")
    warehouse.build("2026-06-01", config=TOUCHES[:-1] + ", week_starts_on: sunday}")
    assert [bounded for (bounded,) in cells(warehouse, "bounded_count", period="month")] == [1, 1, 0, 1, 0, 0]
    weeks = cells(warehouse, "cohort_start_date, bounded_count", period="week")
    assert weeks[:2] == [(date(2026, 1, 25), 1), (date(2026, 1, 25), 1)]
    assert [index for index, (_, bounded) in enumerate(weeks) if bounded] == [0, 1, 13]


def test_rows_end_at_31_days_26_weeks_24_months_and_so_does_unbounded(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2020-01-01 10:00", "2020-01-31 10:00", "2020-02-01 10:00", "2024-01-01 10:00")
    warehouse.build("2026-01-01", config=TOUCHES)
    for mode in ("calendar", "rolling"):
        for period, count in (("day", 31), ("week", 26), ("month", 24)):
            rows = cells(warehouse, "bounded_count, unbounded_count, is_complete", period=period, mode=mode)
            assert len(rows) == count
            assert all(is_complete for *_, is_complete in rows)
        days = cells(warehouse, "bounded_count, unbounded_count", mode=mode)
        assert days[30] == (1, 1)
        assert cells(warehouse, "unbounded_count", period="month", mode=mode)[-1] == (0,)


def test_breakdowns_are_resolved_at_the_first_touch_in_calendar_mode_only(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 08:00", first_source="google", rule_segment="paid")
    visit(warehouse, "c:2", "2026-01-01 08:00", "2026-01-02 08:00")
    warehouse.build("2026-01-03", config=TOUCHES)
    rows = warehouse.rows("""
        select breakdown, breakdown_value, cohort_size, bounded_count, unbounded_count from retention
        where period = 'day' and mode = 'calendar' and interval_index = 1 and breakdown in ('source', 'segment', 'none')
        order by all""")
    assert rows == [
        ("none", "(all)", 2, 1, 1),
        ("segment", "(none)", 1, 1, 1),
        ("segment", "paid", 1, 0, 0),
        ("source", "(none)", 1, 1, 1),
        ("source", "google", 1, 0, 0),
    ]
    assert warehouse.rows("select distinct breakdown from retention where mode = 'rolling'") == [("none",)]


def test_intervals_without_returns_are_rows_and_periods_without_starts_are_not(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 08:00")
    visit(warehouse, "c:2", "2026-01-03 08:00")
    warehouse.build("2026-01-04", config=TOUCHES)
    assert cells(warehouse, "cohort_start_date, interval_index, bounded_count") == [
        *((date(2026, 1, 1), index, int(index == 0)) for index in range(4)),
        *((date(2026, 1, 3), index, int(index == 0)) for index in range(2)),
    ]


def test_a_clock_time_before_the_cohorts_midnight_in_utc_belongs_to_the_local_day(warehouse: Any) -> None:
    visit(warehouse, "c:1", "2026-01-01 04:00")
    warehouse.build(datetime(2026, 1, 5).isoformat(), config=TOUCHES[:-1] + ", reporting_timezone: America/New_York}")
    assert warehouse.rows("select distinct cohort_start_date from retention where period = 'day'") == [
        (date(2025, 12, 31),)
    ]
