"""Top paths: whole ways through the stages, how often they were taken and how they ended."""

from __future__ import annotations

from typing import Any

import pytest

from transforms.parameters import PATH_LIMIT

AS_OF = "2026-06-01"


def journey(warehouse: Any, path: str | None, status: str, minutes: int, to_convert: float | None = None) -> None:
    warehouse.event_count += 1
    warehouse.add(
        "journeys",
        {
            "journey_id": warehouse.event_id(warehouse.event_count),
            "path": path,
            "status": status,
            "started_at": "2026-01-01 10:00",
            "ended_at": f"2026-01-01 10:{minutes:02}",
            "time_to_convert_seconds": to_convert,
        },
    )


def test_the_ratio_is_of_decided_journeys_and_the_times_are_medians(warehouse: Any) -> None:
    journey(warehouse, "awareness > purchase", "converted", 10, to_convert=60)
    journey(warehouse, "awareness > purchase", "converted", 20, to_convert=180)
    journey(warehouse, "awareness > purchase", "abandoned", 40)
    journey(warehouse, "awareness", "active", 1)
    journey(warehouse, "awareness", "active", 2)
    journey(warehouse, "retention", "service", 3)
    warehouse.build(AS_OF)
    rows = warehouse.rows("""
        select path, journey_count, decided_count, converted_count, conversion_ratio, median_seconds,
            median_seconds_to_convert, conversion_ratio_low, conversion_ratio_high
        from top_paths order by journey_count desc, path""")
    low, high = 0.2076596, 0.9385081  # Wilson, 2 of 3
    assert rows == [
        ("awareness > purchase", 3, 3, 2, pytest.approx(2 / 3), 1200, 120, pytest.approx(low), pytest.approx(high)),
        ("awareness", 2, 0, 0, None, 90, None, None, None),
        ("retention", 1, 0, 0, None, 180, None, None, None),
    ]


def test_the_most_frequent_are_named_ties_by_path_and_the_rest_is_other(warehouse: Any) -> None:
    names = [f"path {number:04}" for number in range(PATH_LIMIT + 1)]
    paths = [*names, names[-1], None, None, None]  # the last of them is the most frequent
    warehouse.add_columns(
        "journeys",
        {
            "journey_id": [warehouse.event_id(number) for number in range(len(paths))],
            "path": paths,
            "status": ["converted"] * (PATH_LIMIT - 1) + ["abandoned"] * (len(paths) - PATH_LIMIT + 1),
        },
    )
    warehouse.build(AS_OF)
    assert warehouse.rows("select path, journey_count from top_paths order by journey_count desc, path limit 3") == [
        ("(none)", 3),
        (names[-1], 2),
        ("(other)", 1),
    ]
    named = {path for (path,) in warehouse.rows("select path from top_paths where path not like '(%'")}
    assert named == {*names[: PATH_LIMIT - 1], names[-1]}
    assert warehouse.rows("select converted_count, conversion_ratio from top_paths where path = '(other)'") == [(0, 0)]


def test_without_journeys_there_are_no_paths(warehouse: Any) -> None:
    warehouse.build(AS_OF)
    assert warehouse.rows("from top_paths") == []
