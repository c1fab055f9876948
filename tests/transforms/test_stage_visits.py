"""Stage visits (docs/semantics.md, section 6): one customer's touchpoints in, rows of `stage_visits` out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

VIEW, PAGE, ORDER, REVIEW = "product_viewed", "page_viewed", "order_completed", "product_reviewed"
CALL = "call_started"  # unstaged before any order
SENT = "email_sent"
A, C, P, V = "awareness", "consideration", "purchase", "advocacy"

# steps as (time of 2026-01-05, type), then visits: stage, entered, exited, touchpoints, next stage, is a re-entry
VISITS: dict[str, tuple[list[tuple[str, str]], list[tuple[Any, ...]]]] = {
    "consecutive_touchpoints_of_a_stage_are_one_visit": (
        [("10:00", PAGE), ("10:10", PAGE), ("10:20", VIEW), ("10:25", VIEW)],
        [(A, "10:00", "10:20", 2, C, False), (C, "10:20", "10:25", 2, None, False)],
    ),
    "unstaged_and_outbound_ones_do_not_break_it": (
        [("09:00", CALL), ("10:00", PAGE), ("10:05", CALL), ("10:06", SENT), ("10:10", PAGE), ("11:00", CALL)],
        [(A, "10:00", "10:10", 2, None, False)],
    ),
    "a_stage_entered_again_is_a_reentry": (
        [("10:00", PAGE), ("10:05", VIEW), ("10:10", PAGE), ("10:15", VIEW), ("10:20", ORDER)],
        [
            (A, "10:00", "10:05", 1, C, False),
            (C, "10:05", "10:10", 1, A, False),
            (A, "10:10", "10:15", 1, C, True),
            (C, "10:15", "10:20", 1, P, True),
            (P, "10:20", "10:20", 1, None, False),
        ],
    ),
    "at_equal_times_the_event_id_orders_visits": (
        [("10:00", PAGE), ("10:00", VIEW), ("10:00", PAGE)],
        [(A, "10:00", "10:00", 1, C, False), (C, "10:00", "10:00", 1, A, False), (A, "10:00", "10:00", 1, None, True)],
    ),
    "the_next_journey_begins_its_own_visits": (
        [("10:00", PAGE), ("10:05", ORDER), ("10:10", PAGE), ("10:50", PAGE), ("10:55", ORDER)],
        [
            (A, "10:00", "10:05", 1, P, False),
            (P, "10:05", "10:10", 1, A, False),
            (A, "10:10", "10:10", 1, None, True),
            (A, "10:50", "10:55", 1, P, False),
            (P, "10:55", "10:55", 1, None, False),
        ],
    ),
    "nothing_staged_nothing_visited": ([("10:00", CALL)], []),
}
PATHS = {
    "consecutive_touchpoints_of_a_stage_are_one_visit": ["awareness > consideration"],
    "a_stage_entered_again_is_a_reentry": ["awareness > consideration > awareness > consideration > purchase"],
    "the_next_journey_begins_its_own_visits": ["awareness > purchase > awareness", "awareness > purchase"],
    "nothing_staged_nothing_visited": [None],
}


@pytest.fixture(scope="module")
def built(histories: Callable[..., Any]) -> Any:
    return histories({name: [(f"2026-01-05 {t}", k) for t, k in steps] for name, (steps, _) in VISITS.items()})


@pytest.mark.parametrize("name", VISITS)
def test_visits(built: Any, name: str) -> None:
    rows = built.rows(f"""
        select
            stage, strftime(entered_at, '%H:%M'), strftime(exited_at, '%H:%M'), visits.touchpoint_count, next_stage,
            is_reentry
        from stage_visits as visits join journeys using (journey_id)
        where visits.customer_key = 'c:{name}' order by journey_index, visit_index""")
    assert rows == VISITS[name][1]


@pytest.mark.parametrize("name", PATHS)
def test_a_path_joins_the_visits(built: Any, name: str) -> None:
    rows = built.rows(f"select path from journeys where customer_key = 'c:{name}' order by journey_index")
    assert [path for (path,) in rows] == PATHS[name]


def test_visits_are_numbered_within_their_journey(built: Any) -> None:
    case = "the_next_journey_begins_its_own_visits"
    rows = built.rows(f"""
        select journey_index, visit_index, stage_index, last_touchpoint_at = entered_at
        from stage_visits join journeys using (journey_id)
        where journeys.customer_key = 'c:{case}' order by 1, 2""")
    assert rows == [(1, 1, 1, True), (1, 2, 3, True), (1, 3, 1, True), (2, 1, 1, True), (2, 2, 3, True)]
