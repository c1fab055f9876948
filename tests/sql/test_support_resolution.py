"""Support resolution: tickets by the period of their creation, answers by that of their last solve."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest


def ticket(warehouse: Any, created_at: str | None, **columns: Any) -> None:
    [(number,)] = warehouse.rows("select count(*) from tickets")
    warehouse.add("tickets", {"ticket_id": f"t{number}", "created_at": created_at, **columns})


def periods(warehouse: Any, *columns: str, period: str = "month") -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = warehouse.rows(f"""
        select period_start_date, {", ".join(columns)} from support_resolution
        where period = '{period}' order by period_start_date""")
    return rows


def test_times_run_from_the_creation_and_leave_out_what_has_not_come(warehouse: Any) -> None:
    start = "2026-01-10 10:00"
    ticket(warehouse, start, first_reply_at="2026-01-10 10:01", solved_at="2026-01-10 11:00")
    ticket(warehouse, start, first_reply_at="2026-01-10 10:02:00.5", solved_at="2026-02-10 10:00", reopened_count=3)
    ticket(warehouse, start, first_reply_at="2026-01-10 10:10")
    ticket(warehouse, start, solved_at="2026-01-10 10:00", reopened_count=1)
    ticket(warehouse, start, customer_key=None)  # a ticket all the same
    warehouse.build("2026-06-01")
    columns = ("ticket_count", "replied_count", "solved_count", "reopened_count")
    assert periods(warehouse, *columns)[0] == (date(2026, 1, 1), 5, 3, 3, 2)
    [row, *_] = periods(warehouse, "median_first_reply_seconds", "median_resolution_seconds", "p90_resolution_seconds")
    month = 31 * 86400
    assert row[1:] == (120.5, 3600.0, pytest.approx(3600 + 0.8 * (month - 3600)))  # of 0, 3600 and a month


def test_answers_are_counted_where_the_ticket_was_last_solved(warehouse: Any) -> None:
    ticket(warehouse, "2026-01-31", solved_at="2026-02-01", csat_rating=1)
    ticket(warehouse, "2026-01-31", solved_at="2026-02-02")
    ticket(warehouse, "2026-01-31", csat_rating=5)  # answered, and never solved
    ticket(warehouse, None, solved_at="2026-02-03", csat_rating=4)  # its creation was never seen
    ticket(warehouse, None, csat_rating=4)
    warehouse.build("2026-06-01")
    columns = ("ticket_count", "solved_count", "solved_in_period_count", "csat_answered_count", "csat_answer_ratio")
    assert periods(warehouse, *columns, "csat_answer_ratio_low", "median_resolution_seconds") == [
        (date(2026, 1, 1), 3, 2, 0, 0, None, None, 1.5 * 86400),
        (date(2026, 2, 1), 0, 0, 3, 2, pytest.approx(2 / 3), pytest.approx(0.2077, abs=5e-5), None),
    ]


def test_tickets_belong_to_the_periods_of_the_reporting_calendar(warehouse: Any) -> None:
    for created_at in ("2026-03-01 04:59:59.999999", "2026-03-01 05:00", "2026-03-08 06:00"):
        ticket(warehouse, created_at)
    config = "{reporting_timezone: America/New_York, week_starts_on: sunday}"
    warehouse.build("2026-03-15 03:59:59.999999", config=config)  # just before the second week is over
    assert periods(warehouse, "ticket_count", "is_complete", period="week") == [
        (date(2026, 2, 22), 1, True),
        (date(2026, 3, 1), 1, True),
        (date(2026, 3, 8), 1, False),
    ]
    assert periods(warehouse, "ticket_count", period="day") == [
        (date(2026, 2, 28), 1),
        (date(2026, 3, 1), 1),
        (date(2026, 3, 8), 1),
    ]


def test_a_reply_from_before_the_creation_is_told_and_stops_nothing(warehouse: Any) -> None:
    ticket(warehouse, "2026-01-10 10:00", first_reply_at="2026-01-10 09:00")
    warehouse.build("2026-06-01", warns=["replies_and_solves_follow_the_creation"])
    assert periods(warehouse, "median_first_reply_seconds") == [(date(2026, 1, 1), -3600.0)]


def test_without_tickets_there_is_no_row(warehouse: Any) -> None:
    warehouse.build("2026-06-01")
    assert warehouse.rows("from support_resolution") == []
