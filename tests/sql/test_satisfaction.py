"""Satisfaction: the stage and channel an answer counts in, its period, and what is satisfied or a promoter."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest


def touch(warehouse: Any, at: str, *, name: str = "j", **columns: Any) -> None:
    """A touchpoint of a journey's customer."""
    own = {"customer_key": "c:1", "journey_id": warehouse.journey_id(name), "occurred_at": at}
    warehouse.add("touchpoints", {**own, **columns})


def answer(warehouse: Any, at: str, *, name: str = "j", **columns: Any) -> None:
    event_type = "csat_submitted" if "csat_rating" in columns else "nps_submitted"
    touch(warehouse, at, name=name, event_type=event_type, **{"channel": "email", **columns})


def cells(warehouse: Any, *columns: str, period: str = "month") -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = warehouse.rows(
        f"select {', '.join(columns)} from satisfaction where period = '{period}' order by all"
    )
    return rows


def test_an_answer_counts_in_the_stage_its_journey_was_in_just_before_it(warehouse: Any) -> None:
    event_id = warehouse.event_id
    touch(warehouse, "2026-01-01", stage="awareness")
    touch(warehouse, "2026-01-02", stage="purchase", event_id=event_id(50))
    answer(warehouse, "2026-01-02", nps_score=9, event_id=event_id(51), stage="advocacy")  # its own stage comes after
    touch(warehouse, "2026-01-02", stage="retention", event_id=event_id(52))
    touch(warehouse, "2026-01-03")  # unstaged
    touch(warehouse, "2026-01-03", stage="onboarding", name="other")
    touch(warehouse, "2026-01-03", event_type="email_sent", direction="outbound")
    answer(warehouse, "2026-01-04", csat_rating=4)
    answer(warehouse, "2026-01-05", csat_rating=5)  # an answer without a stage changes none
    answer(warehouse, "2026-01-01", csat_rating=1, name="third", stage="awareness")  # nothing before it
    answer(warehouse, "2026-01-02", csat_rating=2, name="third")
    warehouse.build("2026-06-01")
    assert cells(warehouse, "stage", "csat_count", "csat_satisfied_count", "nps_count") == [
        ("awareness", 1, 0, 0),
        ("purchase", 0, 0, 1),
        ("retention", 2, 2, 0),
        (None, 1, 0, 0),
    ]


def test_an_answer_counts_in_the_channel_of_its_ticket_else_its_own(warehouse: Any) -> None:
    touch(warehouse, "2026-01-02", event_type="ticket_created", channel="support", ticket_id="t1")
    touch(warehouse, "2026-01-01", event_type="ticket_replied", channel="web", ticket_id="t1")  # before its creation
    touch(warehouse, "2026-01-01", event_type="chat_started", channel="store", ticket_id="t2")
    answer(warehouse, "2026-01-05", csat_rating=5, ticket_id="t1")
    answer(warehouse, "2026-01-05", nps_score=5, ticket_id="t2")  # whose creation was never seen
    answer(warehouse, "2026-01-05", csat_rating=3, ticket_id="t3", channel="web")  # of which nothing else was
    answer(warehouse, "2026-01-05", csat_rating=2)
    warehouse.build("2026-06-01")
    assert cells(warehouse, "channel", "csat_count", "csat_satisfied_count", "nps_count") == [
        ("email", 1, 0, 0),
        ("store", 0, 0, 1),
        ("support", 1, 1, 0),
        ("web", 1, 0, 0),
    ]


def test_four_and_five_are_satisfied_and_the_score_is_promoters_less_detractors(warehouse: Any) -> None:
    for rating in (1, 2, 3, 4, 5, 5):
        answer(warehouse, "2026-01-01", csat_rating=rating)
    for score in (0, 6, 7, 8, 9, 10, 10):
        answer(warehouse, "2026-01-01", nps_score=score)
    warehouse.build("2026-06-01")
    columns = ("csat_count", "csat_satisfied_count", "csat_ratio", "nps_count", "promoter_count", "detractor_count")
    [row] = cells(warehouse, *columns, "nps", "csat_ratio_low", "csat_ratio_high")
    assert row[:6] == (6, 3, 0.5, 7, 3, 2)
    assert row[6:] == pytest.approx((100 / 7, 0.1876, 0.8124), abs=5e-5)  # Wilson for 3 of 6


def test_who_was_not_asked_said_nothing(warehouse: Any) -> None:
    answer(warehouse, "2026-01-01", csat_rating=1)
    answer(warehouse, "2026-01-01", nps_score=6, channel="web")
    answer(warehouse, "2026-01-01", csat_rating=5, customer_key=None, journey_id=None)  # nobody's answer
    warehouse.build("2026-06-01")
    assert cells(warehouse, "channel", "csat_ratio", "nps") == [("email", 0.0, None), ("web", None, -100.0)]


def test_answers_belong_to_the_periods_of_the_reporting_calendar(warehouse: Any) -> None:
    for at in ("2026-03-01 04:59:59.999999", "2026-03-01 05:00", "2026-03-08 06:00"):  # New York is five hours behind
        answer(warehouse, at, csat_rating=5)
    config = "{reporting_timezone: America/New_York, week_starts_on: sunday}"
    warehouse.build("2026-03-15 04:00", config=config)  # the second week's midnight; the clocks have changed
    rows = warehouse.rows("""
        select period, period_start_date, csat_count, is_complete from satisfaction
        order by period, period_start_date""")
    assert rows == [
        ("day", date(2026, 2, 28), 1, True),
        ("day", date(2026, 3, 1), 1, True),
        ("day", date(2026, 3, 8), 1, True),
        ("month", date(2026, 2, 1), 1, True),
        ("month", date(2026, 3, 1), 2, False),
        ("week", date(2026, 2, 22), 1, True),
        ("week", date(2026, 3, 1), 1, True),
        ("week", date(2026, 3, 8), 1, True),
    ]


def test_without_answers_there_is_no_row(warehouse: Any) -> None:
    touch(warehouse, "2026-01-01", stage="awareness")
    warehouse.build("2026-06-01")
    assert warehouse.rows("from satisfaction") == []
