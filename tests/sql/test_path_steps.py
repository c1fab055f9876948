"""Path steps: the first steps of journeys, and where each leads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from transforms.parameters import PATH_STEP_LIMIT

Tour = Callable[..., None]
AS_OF = "2026-06-01"


def steps(warehouse: Any, level: str, index: int) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = warehouse.rows(f"""
        select value, journey_count, next_value, next_count, next_share from path_steps
        where level = '{level}' and step_index = {index} order by value, next_value""")
    return rows


def test_each_step_says_where_its_journeys_go(warehouse: Any, tour: Tour) -> None:
    tour("a", "10:00 web page_viewed awareness", "10:01 web cart_viewed consideration")
    tour("b", "10:00 web page_viewed awareness", "10:01 email email_opened awareness", status="active")
    tour("c", "10:00 web page_viewed awareness", status="converted")
    tour("d", "10:00 support call_started", status="active")
    warehouse.build(AS_OF)
    assert steps(warehouse, "event_type", 1) == [
        ("call_started", 1, "(active)", 1, 1.0),
        ("page_viewed", 3, "(converted)", 1, pytest.approx(1 / 3)),
        ("page_viewed", 3, "cart_viewed", 1, pytest.approx(1 / 3)),
        ("page_viewed", 3, "email_opened", 1, pytest.approx(1 / 3)),
    ]
    assert steps(warehouse, "event_type", 2) == [
        ("cart_viewed", 1, "(abandoned)", 1, 1.0),
        ("email_opened", 1, "(active)", 1, 1.0),
    ]
    assert steps(warehouse, "channel", 1) == [
        ("support", 1, "(active)", 1, 1.0),
        ("web", 3, "(abandoned)", 1, pytest.approx(1 / 3)),  # two touchpoints, one run
        ("web", 3, "(converted)", 1, pytest.approx(1 / 3)),
        ("web", 3, "email", 1, pytest.approx(1 / 3)),
    ]
    # The journey without any stage is in no step of that level.
    assert steps(warehouse, "stage", 1) == [
        ("awareness", 3, "(active)", 1, pytest.approx(1 / 3)),
        ("awareness", 3, "(converted)", 1, pytest.approx(1 / 3)),
        ("awareness", 3, "consideration", 1, pytest.approx(1 / 3)),
    ]
    assert steps(warehouse, "stage", 3) == []


def test_repeats_are_steps_of_event_types_alone(warehouse: Any, tour: Tour) -> None:
    tour("a", *("10:00 web page_viewed awareness",) * 3)
    warehouse.build(AS_OF)
    rows = warehouse.rows("select level, step_index, next_value from path_steps order by 1, 2")
    assert rows == [
        ("channel", 1, "(abandoned)"),
        ("event_type", 1, "page_viewed"),
        ("event_type", 2, "page_viewed"),
        ("event_type", 3, "(abandoned)"),
        ("stage", 1, "(abandoned)"),
    ]


def test_the_last_step_within_the_limit_still_knows_what_follows(warehouse: Any, tour: Tour) -> None:
    tour("longer", *("10:00 web page_viewed",) * PATH_STEP_LIMIT, "10:01 web cart_viewed")
    tour("just", *("10:00 web page_viewed",) * PATH_STEP_LIMIT)
    warehouse.build(AS_OF)
    assert steps(warehouse, "event_type", PATH_STEP_LIMIT) == [
        ("page_viewed", 2, "(abandoned)", 1, 0.5),
        ("page_viewed", 2, "cart_viewed", 1, 0.5),
    ]
    assert warehouse.rows("select max(step_index) from path_steps") == [(PATH_STEP_LIMIT,)]


def test_without_journeys_there_are_no_steps(warehouse: Any) -> None:
    warehouse.build(AS_OF)
    assert warehouse.rows("from path_steps") == []
