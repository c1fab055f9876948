"""Transitions: what follows what in a journey, by event type, by run of one channel, by stage visit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Tour = Callable[..., None]
AS_OF = "2026-06-01"


def transitions(warehouse: Any, level: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    """(from, to) to (count, share, median seconds)."""
    rows = warehouse.rows(f"""
        select from_value, to_value, transition_count, share, median_seconds from transitions
        where level = '{level}'""")
    return {row[:2]: row[2:] for row in rows}


def counts(warehouse: Any, level: str) -> dict[tuple[str, str], int]:
    return {key: row[0] for key, row in transitions(warehouse, level).items()}


def test_one_journey_on_three_levels(warehouse: Any, tour: Tour) -> None:
    tour(
        "j1",
        "10:00 web page_viewed awareness",
        "10:01 web page_viewed awareness",
        "10:03 web product_viewed consideration",
        "10:10 support chat_started",
        "10:12 support chat_started",
        "10:30 web product_viewed consideration",
        "10:31 web order_completed! purchase",
        "12:31 web page_viewed awareness",
        status="converted",
    )
    warehouse.build(AS_OF)
    assert transitions(warehouse, "event_type") == {
        ("(start)", "page_viewed"): (1, 1.0, None),
        ("page_viewed", "page_viewed"): (1, pytest.approx(1 / 3), 60),
        ("page_viewed", "product_viewed"): (1, pytest.approx(1 / 3), 120),
        ("page_viewed", "(converted)"): (1, pytest.approx(1 / 3), None),
        ("product_viewed", "chat_started"): (1, 0.5, 420),
        ("product_viewed", "order_completed"): (1, 0.5, 60),
        ("chat_started", "chat_started"): (1, 0.5, 120),
        ("chat_started", "product_viewed"): (1, 0.5, 1080),
        ("order_completed", "page_viewed"): (1, 1.0, 7200),
    }
    # A run lasts from its first touchpoint to the next run's first.
    assert transitions(warehouse, "channel") == {
        ("(start)", "web"): (1, 1.0, None),
        ("web", "support"): (1, 0.5, 600),
        ("support", "web"): (1, 1.0, 1200),
        ("web", "(converted)"): (1, 0.5, None),
    }
    # A touchpoint without a stage does not break a visit.
    assert transitions(warehouse, "stage") == {
        ("(start)", "awareness"): (1, 1.0, None),
        ("awareness", "consideration"): (1, 0.5, 180),
        ("consideration", "purchase"): (1, 1.0, 28 * 60),
        ("purchase", "awareness"): (1, 1.0, 7200),
        ("awareness", "(converted)"): (1, 0.5, None),
    }


def test_every_journey_ends_in_its_status(warehouse: Any, tour: Tour) -> None:
    for name, status in (("a", "converted"), ("b", "abandoned"), ("c", "abandoned"), ("d", "active"), ("e", "service")):
        tour(name, "10:00 web page_viewed awareness", status=status)
    warehouse.build(AS_OF)
    for level, value in (("event_type", "page_viewed"), ("channel", "web"), ("stage", "awareness")):
        assert transitions(warehouse, level) == {
            ("(start)", value): (5, 1.0, None),
            (value, "(converted)"): (1, 0.2, None),
            (value, "(abandoned)"): (2, 0.4, None),
            (value, "(active)"): (1, 0.2, None),
            (value, "(service)"): (1, 0.2, None),
        }


def test_a_journey_without_any_stage_goes_from_start_to_end(warehouse: Any, tour: Tour) -> None:
    tour("j1", "10:00 support call_started", status="active")
    tour("j2", "10:00 web page_viewed awareness", status="active")
    warehouse.build(AS_OF)
    assert counts(warehouse, "stage") == {
        ("(start)", "(active)"): 1,
        ("(start)", "awareness"): 1,
        ("awareness", "(active)"): 1,
    }


def test_at_one_instant_event_ids_say_what_comes_first(warehouse: Any, tour: Tour) -> None:
    tour("j1", "10:00 web cart_viewed", "10:00 email email_opened", "10:00 web page_viewed")
    warehouse.build(AS_OF)
    assert transitions(warehouse, "event_type") == {
        ("(start)", "cart_viewed"): (1, 1.0, None),
        ("cart_viewed", "email_opened"): (1, 1.0, 0),
        ("email_opened", "page_viewed"): (1, 1.0, 0),
        ("page_viewed", "(abandoned)"): (1, 1.0, None),
    }


def test_the_median_interpolates_over_all_journeys(warehouse: Any, tour: Tour) -> None:
    for name, later in (("a", "10:00:01"), ("b", "10:00:02.5"), ("c", "10:00:10"), ("d", "10:00:20")):
        tour(name, "10:00 web page_viewed", f"{later} web cart_viewed")
    warehouse.build(AS_OF)
    assert transitions(warehouse, "event_type")["page_viewed", "cart_viewed"] == (4, 1.0, 6.25)


def test_what_the_brand_sends_and_what_is_in_no_journey_play_no_part(warehouse: Any, tour: Tour) -> None:
    tour("j1", "10:00 web page_viewed", "11:00 web cart_viewed")
    sent = {"customer_key": "c:j1", "occurred_at": "2026-01-01 10:30", "channel": "email", "event_type": "email_sent"}
    warehouse.add("touchpoints", {**sent, "direction": "outbound", "journey_id": warehouse.journey_id("j1")})
    warehouse.add("touchpoints", {"customer_key": None, "occurred_at": "2026-01-01 10:30"})
    warehouse.build(AS_OF)
    assert transitions(warehouse, "event_type")["page_viewed", "cart_viewed"] == (1, 1.0, 3600)
    assert counts(warehouse, "channel") == {("(start)", "web"): 1, ("web", "(abandoned)"): 1}


def test_one_customers_journeys_are_not_chained(warehouse: Any, tour: Tour) -> None:
    tour("j1", "10:00 web page_viewed awareness")
    tour("j2", "11:00 store store_entered purchase")
    warehouse.con.execute("update touchpoints set customer_key = 'c:1'; update journeys set customer_key = 'c:1'")
    warehouse.build(AS_OF)
    assert ("page_viewed", "store_entered") not in counts(warehouse, "event_type")
    assert ("web", "store") not in counts(warehouse, "channel")
    assert ("awareness", "purchase") not in counts(warehouse, "stage")


def test_without_journeys_there_are_no_transitions(warehouse: Any) -> None:
    warehouse.build(AS_OF)
    assert warehouse.rows("from transitions") == []
