"""`paths_from` and `journey_of` by hand."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest


def journey(publication: Any, name: str, status: str, *event_types: str, **columns: Any) -> None:
    """One journey with a touchpoint a minute."""
    publication.add("journeys", {"journey_id": name, "customer_key": f"c:{name}", "status": status, "journey_index": 1})
    publication.walk(
        f"c:{name}",
        *[(f"2026-01-01 10:{minute:02}", event_type) for minute, event_type in enumerate(event_types)],
        journey_id=name,
        **columns,
    )


def paths(publication: Any, arguments: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = publication.rows(f"select path, journey_count from paths_from({arguments})")
    return rows


def test_paths_go_on_from_the_first_occurrence_and_say_where_a_journey_ends(publication: Any) -> None:
    journey(publication, "j1", "converted", "x", "a", "b", "c", "a", "z")
    journey(publication, "j2", "converted", "a", "b", "c")
    journey(publication, "j3", "abandoned", "a", "b")
    journey(publication, "j4", "active", "b", "a")
    journey(publication, "j5", "abandoned", "b")
    assert paths(publication, "'a', steps := 2") == [
        ("a > b > c", 2),
        ("a > (active)", 1),
        ("a > b > (abandoned)", 1),
    ]
    assert paths(publication, "'a', steps := 1") == [("a > b", 3), ("a > (active)", 1)]
    rows = publication.rows(
        "select share, converted_count, conversion_ratio, median_seconds from paths_from('a', steps := 2)"
    )
    assert rows == [(0.5, 2, 1.0, 120.0), (0.25, 0, 0.0, 0.0), (0.25, 0, 0.0, 60.0)]
    assert paths(publication, "'nothing'") == []


def test_equal_values_in_a_row_count_as_one_unless_told_otherwise(publication: Any) -> None:
    journey(publication, "j1", "active", "a", "a", "b", "b", "c")
    assert paths(publication, "'a', steps := 2") == [("a > b > c", 1)]
    assert paths(publication, "'a', steps := 2, collapse := false") == [("a > a > b", 1)]


def test_paths_of_stages_skip_what_has_none_and_outbound_touchpoints(publication: Any) -> None:
    journey(publication, "j1", "converted")
    for minute, stage, direction in (
        (0, "awareness", "inbound"), (1, None, "inbound"), (2, "awareness", "inbound"), (3, "purchase", "outbound"),
        (4, "consideration", "inbound"),
    ):  # fmt: skip
        publication.walk("c:j1", (f"2026-01-01 10:0{minute}", "x"), journey_id="j1", stage=stage, direction=direction)
    assert paths(publication, "'awareness', level := 'stage'") == [("awareness > consideration > (converted)", 1)]
    assert paths(publication, "'web', level := 'channel'") == [("web > (converted)", 1)]


def test_touchpoints_at_one_instant_go_by_their_ids(publication: Any) -> None:
    publication.add("journeys", {"journey_id": "j1"})
    for number, event_type in ((3, "c"), (1, "a"), (2, "b")):
        publication.walk("c:1", ("2026-01-01", event_type, {"event_id": publication.event_id(number)}), journey_id="j1")
    assert paths(publication, "'a', steps := 5") == [("a > b > c > (abandoned)", 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("'a', level := 'device'", "level is event_type, channel or stage"), ("'a', steps := 0", "a number from 1")],
)
def test_wrong_use_is_told(publication: Any, arguments: str, message: str) -> None:
    journey(publication, "j1", "active", "a")
    with pytest.raises(duckdb.Error, match=message):
        publication.rows(f"from paths_from({arguments})")


def test_the_journey_of_a_customer_is_all_of_it_in_order(publication: Any) -> None:
    publication.add("journeys", {"journey_id": "j1", "journey_index": 1, "status": "converted"})
    publication.walk("c:1", ("2026-01-01 10:00:30", "order_completed", {"stage": "purchase"}), journey_id="j1")
    publication.walk(
        "c:1", ("2026-01-01 10:00", "page_viewed", {"stage": "awareness"}), journey_id="j1", session_id="s1"
    )
    publication.walk("c:1", ("2025-12-01", "email_sent", {"direction": "outbound"}), channel="email")
    publication.walk("c:2", ("2026-01-01 10:00", "page_viewed"))
    rows = publication.rows("""
        select event_type, stage, session_id, journey_id, journey_index, journey_status, seconds_from_previous
        from journey_of('c:1')""")
    assert rows == [
        ("email_sent", None, None, None, None, None, None),
        ("page_viewed", "awareness", "s1", "j1", 1, "converted", 31 * 86400 + 10 * 3600.0),
        ("order_completed", "purchase", None, "j1", 1, "converted", 30.0),
    ]
    assert publication.rows("from journey_of('c:nobody')") == []
