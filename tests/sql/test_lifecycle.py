"""Lifecycle: each known customer in one state per period, from the first touch to the period of data_as_of."""

from __future__ import annotations

from datetime import date
from typing import Any


def states(warehouse: Any, period: str, since: str = "1900-01-01") -> dict[str, dict[str, int]]:
    """First day to state to customers."""
    found: dict[str, dict[str, int]] = {}
    for day, state, count in warehouse.rows(f"""
            select period_start_date, state, customer_count from lifecycle
            where period = '{period}' and period_start_date >= '{since}' order by all"""):
        found.setdefault(str(day), {})[state] = count
    return found


def test_a_customer_walks_through_all_five_states(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-10 09:00", "2026-02-10 09:00", "2026-05-10 09:00")
    warehouse.build("2026-06-15")
    assert states(warehouse, "month") == {
        "2026-01-01": {"new": 1},
        "2026-02-01": {"returning": 1},
        "2026-03-01": {"dormant": 1},
        "2026-04-01": {"inactive": 1},
        "2026-05-01": {"resurrected": 1},
        "2026-06-01": {"dormant": 1},
    }


def test_states_partition_those_known_by_the_periods_end(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-10 09:00", "2026-02-28 23:59:59.999999")
    warehouse.visit("c:2", "2026-01-10 09:00", "2026-01-20 09:00", "2026-03-01")
    warehouse.visit("a:3", "2026-02-05 09:00")
    warehouse.build("2026-04-01")
    assert states(warehouse, "month") == {
        "2026-01-01": {"new": 2},
        "2026-02-01": {"new": 1, "returning": 1, "dormant": 1},
        "2026-03-01": {"resurrected": 1, "dormant": 2},
        "2026-04-01": {"dormant": 1, "inactive": 2},
    }


def test_periods_that_nobody_touched_have_their_rows_too(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-01 09:00")
    warehouse.build("2026-01-05 12:00")
    assert states(warehouse, "day") == {
        "2026-01-01": {"new": 1},
        "2026-01-02": {"dormant": 1},
        "2026-01-03": {"inactive": 1},
        "2026-01-04": {"inactive": 1},
        "2026-01-05": {"inactive": 1},
    }


def test_only_the_period_that_holds_data_as_of_is_incomplete(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-03 09:00")
    complete = "select period, period_start_date from lifecycle where is_complete order by all"
    warehouse.build("2026-01-05")  # a monday's midnight: the week before is over, its own has begun
    assert warehouse.rows(complete) == [
        ("day", date(2026, 1, 3)),
        ("day", date(2026, 1, 4)),
        ("week", date(2025, 12, 29)),
    ]
    assert states(warehouse, "week") == {"2025-12-29": {"new": 1}, "2026-01-05": {"dormant": 1}}
    warehouse.build("2026-01-04 23:59:59.999999")
    assert warehouse.rows(complete) == [("day", date(2026, 1, 3))]


def test_days_and_weeks_are_the_reporting_calendars(warehouse: Any) -> None:
    # In New York the clocks change on Sunday 8 March 2026; that day ends at 04:00 UTC.
    warehouse.visit("c:1", "2026-03-08 04:59:59.999999", "2026-03-09 03:59:59.999999")
    warehouse.visit("c:2", "2026-03-08 05:00", "2026-03-09 04:00")
    warehouse.build("2026-03-09 12:00", config="{reporting_timezone: America/New_York, week_starts_on: sunday}")
    assert states(warehouse, "day") == {
        "2026-03-07": {"new": 1},
        "2026-03-08": {"new": 1, "returning": 1},
        "2026-03-09": {"returning": 1, "dormant": 1},
    }
    assert states(warehouse, "week") == {"2026-03-01": {"new": 1}, "2026-03-08": {"new": 1, "returning": 1}}


def test_months_follow_each_other_over_the_year_and_a_short_february(warehouse: Any) -> None:
    warehouse.visit("c:1", "2025-12-31 23:59", "2026-01-31 23:59", "2026-02-28 23:59", "2026-03-31 00:00")
    warehouse.build("2026-03-31 00:00")
    assert states(warehouse, "month") == {
        "2025-12-01": {"new": 1},
        "2026-01-01": {"returning": 1},
        "2026-02-01": {"returning": 1},
        "2026-03-01": {"returning": 1},
    }


def test_what_the_brand_sends_makes_nobody_active_or_known(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-02 09:00")
    warehouse.visit("c:1", "2026-01-03 09:00", direction="outbound", event_type="email_sent")
    warehouse.visit("c:2", "2026-01-01 09:00", direction="outbound", event_type="email_sent")
    warehouse.add("touchpoints", {"customer_key": None, "occurred_at": "2026-01-01 09:00"})
    warehouse.build("2026-01-03 12:00")
    assert states(warehouse, "day") == {"2026-01-02": {"new": 1}, "2026-01-03": {"dormant": 1}}


def test_touchpoints_of_one_day_make_one_active_day(warehouse: Any) -> None:
    warehouse.visit("c:1", "2026-01-02 09:00", "2026-01-02 09:00", "2026-01-02 23:00")
    warehouse.build("2026-01-02 23:00")
    assert states(warehouse, "day") == {"2026-01-02": {"new": 1}}


def test_without_touchpoints_there_are_no_rows(warehouse: Any) -> None:
    warehouse.build("2026-01-02")
    assert warehouse.rows("from lifecycle") == []


def test_a_touch_at_the_earliest_time_allowed_is_counted(warehouse: Any) -> None:
    warehouse.visit("c:1", "1990-01-01 00:00")  # in New York, still the last day of 1989
    warehouse.build("1990-01-01 12:00", config="{reporting_timezone: America/New_York}")
    assert states(warehouse, "day") == {"1989-12-31": {"new": 1}, "1990-01-01": {"dormant": 1}}
