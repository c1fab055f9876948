"""The journey map: what each cell of stage and channel holds."""

from __future__ import annotations

from typing import Any

import pytest


def touch(warehouse: Any, name: str, at: str, event_type: str = "page_viewed", **columns: Any) -> None:
    own = {"customer_key": f"c:{name[0]}", "journey_id": warehouse.journey_id(name)}
    warehouse.add("touchpoints", {**own, "occurred_at": at, "event_type": event_type, **columns})


def journey(warehouse: Any, name: str, status: str) -> None:
    own = {"customer_key": f"c:{name[0]}", "journey_id": warehouse.journey_id(name), "status": status}
    warehouse.add("journeys", {**own, "started_at": "2026-01-01", "ended_at": "2026-01-02"})


def visit(warehouse: Any, name: str, index: int, stage: str, entered_at: str, exited_at: str) -> None:
    stage_index = 1 + ["awareness", "consideration", "purchase", "onboarding"].index(stage)
    own = {"journey_id": warehouse.journey_id(name), "customer_key": f"c:{name[0]}", "visit_index": index}
    times = {"entered_at": entered_at, "exited_at": exited_at, "last_touchpoint_at": exited_at}
    warehouse.add("stage_visits", {**own, **times, "stage": stage, "stage_index": stage_index, "touchpoint_count": 1})


def cells(warehouse: Any, *columns: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    rows = warehouse.rows(f"select stage, channel, {', '.join(columns)} from journey_map")
    return {row[:2]: row[2:] for row in rows}


def test_touchpoints_customers_and_decided_journeys_are_counted_per_cell(warehouse: Any) -> None:
    for name, status in (
        ("a1", "converted"),
        ("a2", "abandoned"),
        ("b1", "active"),
        ("c1", "service"),
        ("d1", "converted"),
    ):
        journey(warehouse, name, status)
        touch(warehouse, name, "2026-01-01", stage="awareness")
        touch(warehouse, name, "2026-01-01", stage="awareness")
        touch(warehouse, name, "2026-01-01", "email_sent", channel="email", direction="outbound")
        touch(warehouse, name, "2026-01-01")  # unstaged
    touch(warehouse, "a2", "2026-01-02", stage="awareness", channel="store")
    touch(warehouse, "a2", "2026-01-02", stage="awareness", channel="store", customer_key=None, journey_id=None)
    warehouse.build("2026-06-01")
    columns = ("customer_count", "touchpoint_count", "decided_journey_count", "converted_journey_count")
    found = cells(warehouse, *columns, "conversion_ratio", "conversion_ratio_low", "conversion_ratio_high")
    third = pytest.approx(2 / 3), pytest.approx(0.2077, abs=5e-5), pytest.approx(0.9385, abs=5e-5)
    assert found == {
        ("awareness", "web"): (4, 10, 3, 2, *third),
        ("awareness", "store"): (1, 1, 1, 0, 0.0, 0.0, pytest.approx(0.7935, abs=5e-5)),
    }


def test_the_three_most_frequent_event_types_are_named_ties_by_name(warehouse: Any) -> None:
    journey(warehouse, "a1", "active")
    for event_type, count in (("d", 2), ("c", 2), ("b", 1), ("a", 1)):
        for _ in range(count):
            touch(warehouse, "a1", "2026-01-01", event_type, stage="awareness")
    touch(warehouse, "a1", "2026-01-01", "x", stage="awareness", channel="email")
    for event_type in ("z", "y"):
        touch(warehouse, "a1", "2026-01-01", event_type, stage="awareness", channel="store")
    warehouse.build("2026-06-01")
    assert cells(warehouse, "top_event_types") == {
        ("awareness", "web"): ("c, d, a",),
        ("awareness", "email"): ("x",),
        ("awareness", "store"): ("y, z",),
    }


def test_time_in_a_stage_belongs_to_the_channel_that_began_the_visit(warehouse: Any) -> None:
    event_id = warehouse.event_id
    journey(warehouse, "a1", "active")
    touch(warehouse, "a1", "2026-01-01 10:00", stage="consideration", event_id=event_id(91), channel="email")
    touch(warehouse, "a1", "2026-01-01 10:00", stage="awareness", event_id=event_id(93), channel="store")
    touch(warehouse, "a1", "2026-01-01 10:00", stage="awareness", event_id=event_id(92), channel="web")
    touch(warehouse, "a1", "2026-01-01 10:00:30", stage="awareness", channel="email")
    touch(warehouse, "a1", "2026-01-01 10:01", stage="consideration", channel="email")
    touch(warehouse, "a1", "2026-01-01 10:02", stage="awareness", channel="web")
    visit(warehouse, "a1", 1, "consideration", "2026-01-01 10:00", "2026-01-01 10:00")
    visit(warehouse, "a1", 2, "awareness", "2026-01-01 10:00", "2026-01-01 10:01")
    visit(warehouse, "a1", 3, "consideration", "2026-01-01 10:01", "2026-01-01 10:02")
    visit(warehouse, "a1", 4, "awareness", "2026-01-01 10:02", "2026-01-01 10:02")
    warehouse.build("2026-06-01")
    assert cells(warehouse, "median_seconds_in_stage") == {
        ("awareness", "web"): (30.0,),  # 60 and 0
        ("awareness", "email"): (None,),
        ("awareness", "store"): (None,),
        ("consideration", "email"): (30.0,),  # 0 and 60
    }


def test_friction_without_a_stage_of_its_own_counts_where_the_journey_was(warehouse: Any) -> None:
    def friction(name: str, at: str, *signals: str, **columns: Any) -> None:
        touch(warehouse, name, at, is_friction=True, friction_signals=list(signals), **columns)

    for name in ("a1", "a2"):
        journey(warehouse, name, "active")
    friction("a1", "2026-01-01 09:00", "error")  # before any stage: on no map
    touch(warehouse, "a1", "2026-01-01 10:00", stage="awareness")
    touch(warehouse, "a2", "2026-01-01 10:00", stage="onboarding")
    friction("a1", "2026-01-01 11:00", "ticket", channel="support")
    friction("a1", "2026-01-01 12:00", "removed", "error", stage="consideration")
    friction("a1", "2026-01-01 12:00", "removed", stage="consideration")
    friction("a1", "2026-01-01 13:00", "refund", "error", channel="store", direction="outbound")
    friction("a1", "2026-01-01 13:00", "refund", channel="store", direction="outbound", journey_id=None)
    warehouse.build("2026-06-01")
    assert cells(warehouse, "touchpoint_count", "friction_count", "top_friction") == {
        ("awareness", "web"): (1, 0, None),
        ("awareness", "support"): (0, 1, "ticket"),
        ("onboarding", "web"): (1, 0, None),
        ("consideration", "web"): (2, 2, "removed"),
        ("consideration", "store"): (0, 1, "error"),  # ties by name
    }


def test_answers_count_in_stage_and_channel_and_make_the_sentiment(warehouse: Any) -> None:
    journey(warehouse, "a1", "active")
    touch(warehouse, "a1", "2026-01-01", stage="awareness")
    for rating in (1, 4):  # -1 and 0.5
        touch(warehouse, "a1", "2026-01-02", "csat_submitted", csat_rating=rating)
    for score in (9, 8, 7, 6, 10):  # 1, 0, 0, -1, 1
        touch(warehouse, "a1", "2026-01-02", "nps_submitted", nps_score=score)
    touch(warehouse, "a1", "2026-01-03", "csat_submitted", csat_rating=5, channel="email")
    touch(warehouse, "a1", "2025-12-31", "csat_submitted", csat_rating=5)  # before any stage: on no map
    warehouse.build("2026-06-01")
    assert cells(warehouse, "touchpoint_count", "csat_count", "csat_ratio", "nps_count", "nps", "sentiment") == {
        ("awareness", "web"): (1, 2, 0.5, 5, 20.0, pytest.approx(0.5 / 7)),
        ("awareness", "email"): (0, 1, 1.0, 0, None, 1.0),
    }


def test_without_stages_there_is_no_map(warehouse: Any) -> None:
    journey(warehouse, "a1", "active")
    touch(warehouse, "a1", "2026-01-01")
    warehouse.build("2026-06-01")
    assert warehouse.rows("from journey_map") == []
