"""Conversion propensity: absorption of the Markov chain of decided journeys, solved exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from schemas.settings import PROJECT_DIR
from warehouse import python_models

Tour = Callable[..., None]
SQL_DIR = PROJECT_DIR / "sql"
AS_OF = "2026-06-01"
C1, C2, C3 = "web page_viewed awareness", "email email_opened awareness", "web cart_viewed consideration"
ORDER = "web order_completed! purchase"


def propensity(warehouse: Any) -> dict[str, tuple[Any, ...]]:
    """Event type to (journeys, converted, probability, mean steps); the tests' states differ by it."""
    rows = warehouse.rows("""
        select event_type, journey_count, converted_count, conversion_probability, mean_steps_to_conversion
        from conversion_propensity""")
    return {row[0]: row[1:] for row in rows}


def start(warehouse: Any) -> tuple[Any, ...]:
    rows = warehouse.rows(
        "select conversion_probability, mean_steps_to_conversion from absorption where state = '(start)'"
    )
    return tuple(rows[0])


def test_the_worked_example_of_three_journeys(warehouse: Any, tour: Tour) -> None:
    tour("a", f"10:00 {C1}", f"10:01 {C2}", f"10:02 {C3}", f"10:03 {ORDER}", status="converted")
    tour("b", f"10:00 {C1}")
    tour("c", f"10:00 {C2}", f"10:01 {C3}")
    warehouse.build(AS_OF)
    assert start(warehouse) == (pytest.approx(1 / 3), pytest.approx(3.5))  # half of those who convert start at C2
    assert propensity(warehouse) == {
        "page_viewed": (2, 1, pytest.approx(0.25), pytest.approx(3)),
        "email_opened": (2, 1, pytest.approx(0.5), pytest.approx(2)),
        "cart_viewed": (2, 1, pytest.approx(0.5), 1),
    }


def test_a_state_that_repeats_counts_its_journeys_once_and_its_steps_each_time(warehouse: Any, tour: Tour) -> None:
    tour("a", f"10:00 {C1}", f"10:01 {C1}", f"10:02 {ORDER}", status="converted")
    tour("b", f"10:00 {C1}")
    warehouse.build(AS_OF)
    # One in three each: again, conversion, end.
    assert propensity(warehouse) == {"page_viewed": (2, 1, pytest.approx(1 / 2), pytest.approx(3 / 2))}
    rows = warehouse.rows(
        "select conversion_ratio, conversion_ratio_low, conversion_ratio_high from conversion_propensity"
    )
    assert rows == [(0.5, pytest.approx(0.0945312), pytest.approx(0.9054688))]  # Wilson, 1 of 2


def test_steps_are_those_of_journeys_that_convert(warehouse: Any, tour: Tour) -> None:
    tour("short", f"10:00 {C1}", f"10:01 {ORDER}", status="converted")
    tour("long", f"10:00 {C1}", *(f"10:01 {C2}",) * 50)  # would be fifty steps more, but never converts
    warehouse.build(AS_OF)
    assert propensity(warehouse) == {
        "page_viewed": (2, 1, pytest.approx(0.5), 1),
        "email_opened": (1, 0, 0.0, None),
    }


def test_never_and_always_are_exact(warehouse: Any, tour: Tour) -> None:
    for number in range(7):
        tour(f"a{number}", *(f"10:00 {C1}",) * (number + 1), f"10:01 {ORDER}", status="converted")
        tour(f"b{number}", *(f"10:00 {C2}",) * (number + 1))
    warehouse.build(AS_OF)
    found = propensity(warehouse)
    assert found["page_viewed"][2] == pytest.approx(1, abs=1e-15) and found["page_viewed"][2] <= 1
    assert found["email_opened"][2:] == (0.0, None)


def test_what_follows_the_conversion_is_left_out_by_event_id_where_times_tie(warehouse: Any, tour: Tour) -> None:
    tour("a", f"10:00 {C1}", f"10:00 {ORDER}", f"10:00 {C2}", f"10:01 {C3}", status="converted")
    warehouse.build(AS_OF)
    assert propensity(warehouse) == {"page_viewed": (1, 1, 1.0, 1.0)}


def test_an_order_that_converts_nothing_is_a_state_like_any_other(warehouse: Any, tour: Tour) -> None:
    tour("a", "10:00 web order_completed purchase", f"10:01 {ORDER}", status="converted")
    warehouse.build(AS_OF)
    assert propensity(warehouse) == {"order_completed": (1, 1, 1.0, 1.0)}


def test_a_journey_that_begins_with_its_conversion_visits_no_state(warehouse: Any, tour: Tour) -> None:
    tour("a", f"10:00 {ORDER}", f"10:01 {C1}", status="converted")
    warehouse.build(AS_OF)
    assert propensity(warehouse) == {}
    assert start(warehouse) == (1.0, 1.0)


def test_the_undecided_are_left_out(warehouse: Any, tour: Tour) -> None:
    tour("a", f"10:00 {C1}", status="active")
    tour("b", "10:00 support call_started retention", status="service")
    warehouse.build(AS_OF)
    assert warehouse.rows("from absorption") == warehouse.rows("from conversion_propensity") == []


def test_states_are_of_stage_channel_and_event_type_together(warehouse: Any, tour: Tour) -> None:
    tour("a", "10:00 web nps_submitted advocacy", f"10:01 {ORDER}", status="converted")
    tour("b", "10:00 web nps_submitted awareness")
    tour("c", "10:00 email nps_submitted awareness")
    tour("d", "10:00 support nps_submitted")
    warehouse.build(AS_OF)
    rows = warehouse.rows("""
        select stage, channel, event_type, journey_count, conversion_probability from conversion_propensity
        order by 1, 2""")
    assert rows == [
        ("(none)", "support", "nps_submitted", 1, 0.0),
        ("advocacy", "web", "nps_submitted", 1, 1.0),
        ("awareness", "email", "nps_submitted", 1, 0.0),
        ("awareness", "web", "nps_submitted", 1, 0.0),
    ]


def test_the_order_of_rows_changes_no_bit(warehouse: Any, tour: Tour) -> None:
    for number in range(40):
        touches = [(C1, C2, C3)[(number * position) % 3] for position in range(1, number % 7 + 2)]
        steps = [f"10:{minute:02} {touch}" for minute, touch in enumerate(touches)]
        if number % 3:
            tour(f"j{number}", *steps)
        else:
            tour(f"j{number}", *steps, f"11:00 {ORDER}", status="converted")
    warehouse.build(AS_OF)
    chain = warehouse.con.sql("from state_transitions order by from_state, to_state").to_arrow_table()
    answers = []
    for rows in (chain, chain.sort_by([("to_state", "descending"), ("transition_count", "ascending")])):
        con = duckdb.connect()
        con.register("state_transitions", rows)
        answers.append(python_models.run(con, SQL_DIR / "intermediate" / "absorption.py", ["state_transitions"]))
    assert answers[0].equals(answers[1])
    assert answers[0]["mean_steps_to_conversion"].null_count < len(answers[0]) == 4


def test_without_journeys_there_is_no_chain(warehouse: Any) -> None:
    warehouse.build(AS_OF)
    assert warehouse.rows("from absorption") == warehouse.rows("from conversion_propensity") == []
