"""`retention_of`: the numbers of the table `retention` for its definitions, and any other pair of events."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from types import ModuleType
from typing import Any

import duckdb
import pytest

from examples.local_transport import load_script
from warehouse import macros

fixtures: ModuleType = load_script("tests/macros/conftest.py")
TIMES = {"touchpoints": ["occurred_at"], "orders": ["ordered_at"], "journeys": [], "build_parameters": ["data_as_of"]}


def publish(con: duckdb.DuckDBPyConnection) -> None:
    """Views over a build's tables as a publication has them, and the macros, first in the search path."""
    con.execute("create schema published")
    for table, columns in {**TIMES, "customers": []}.items():
        replaced = ", ".join(f"timezone('UTC', {column}) as {column}" for column in columns)
        con.execute(
            f"create view published.{table} as select * {f'replace ({replaced})' if columns else ''} from main.{table}"
        )
    con.execute("set search_path = 'published,main'")
    macros.create(con, fixtures.tables_of(con))


@pytest.mark.parametrize(
    "config", ["{}", "{reporting_timezone: America/New_York, week_starts_on: sunday}"], ids=["UTC", "New York"]
)
def test_it_gives_the_numbers_of_the_table_for_its_definitions(config: str) -> None:
    warehouse = load_script("tests/sql/conftest.py").Warehouse()
    random = Random(config)
    start = datetime(2026, 1, 1)
    for customer in range(60):
        key = f"c:{customer}"
        first = start + timedelta(hours=random.randint(0, 24 * 60))
        # Whole hours and 24-hour steps: many returns lie on the edge of an interval.
        moments = sorted(
            first + timedelta(hours=random.choice([0, 1, 24, 168, 720, random.randint(0, 2000)])) for _ in range(6)
        )
        moments = [moment for moment in moments if moment <= datetime(2026, 3, 20)]
        orders = 0
        for index, moment in enumerate(moments):
            is_order = random.random() < 0.4
            event_id = warehouse.event_id(1000 * customer + index)
            warehouse.add(
                "touchpoints",
                {
                    "customer_key": key,
                    "occurred_at": moment,
                    "event_type": "order_completed" if is_order else "page_viewed",
                    "event_id": event_id,
                    "is_order_conversion": is_order,
                    "journey_id": warehouse.journey_id(key),
                },
            )
            if is_order:
                orders += 1
                warehouse.add(
                    "orders",
                    {
                        "order_id": event_id, "customer_key": key, "ordered_at": moment, "order_index": orders,
                        "event_id": event_id, "journey_id": warehouse.journey_id(key),
                    },
                )  # fmt: skip
        if moments:
            own = {"customer_key": key, "first_touch_at": moments[0]}
            warehouse.add("customers", {**own, "order_count": orders})
            warehouse.add(
                "journeys", {"journey_id": warehouse.journey_id(key), "customer_key": key, "started_at": moments[0]}
            )
    warehouse.build("2026-03-21 05:00:00", config)
    publish(warehouse.con)
    columns = (
        "cohort_start_date, interval_index, cohort_size, bounded_count, unbounded_count, bounded_ratio, "
        "bounded_ratio_low, bounded_ratio_high, unbounded_ratio, unbounded_ratio_low, unbounded_ratio_high, is_complete"
    )
    compared = 0
    for start_event, return_event in (("first_order", "order"), ("first_order", "any"), ("first_touch", "any")):
        for period in ("day", "week", "month"):
            for mode in ("calendar", "rolling"):
                table = warehouse.rows(f"""
                    select {columns} from retention
                    where start_event = '{start_event}' and return_event = '{return_event}' and period = '{period}'
                        and mode = '{mode}' and breakdown = 'none'
                    order by cohort_start_date, interval_index""")
                macro = warehouse.rows(
                    f"select {columns} from retention_of('{start_event}', '{return_event}', period := '{period}', "
                    f"mode := '{mode}')"
                )
                assert macro == table
                compared += len(table)
    assert compared > 500


def test_the_worked_example_day_by_day(publication: Any) -> None:
    publication.describe("2026-01-08")
    publication.walk("c:1", ("2026-01-01 10:00", "signed_up"), ("2026-01-02 09:00", "page_viewed"))
    publication.walk("c:2", ("2026-01-01 10:00", "signed_up"), ("2026-01-06 23:00", "page_viewed"))
    publication.walk("c:3", ("2026-01-01 10:00", "signed_up"))
    rows = publication.rows("""
        select interval_index, bounded_count, unbounded_count, is_complete
        from retention_of('first_touch', 'any', period := 'day')""")
    assert rows == [
        (0, 3, 3, True), (1, 1, 2, True), (2, 0, 1, True), (3, 0, 1, True), (4, 0, 1, True), (5, 1, 1, True),
        (6, 0, 0, True), (7, 0, None, False),
    ]  # fmt: skip


def test_any_event_starts_and_any_brings_back(publication: Any) -> None:
    publication.describe("2026-01-20")
    publication.walk(
        "c:1",
        ("2026-01-01 10:00", "page_viewed"),
        ("2026-01-02 10:00", "custom", {"event_name": "trial_started"}),
        ("2026-01-02 10:00", "product_viewed"),
        ("2026-01-05 10:00", "product_viewed"),
        ("2026-01-06 10:00", "custom", {"event_name": "trial_started"}),
    )
    publication.walk("c:2", ("2026-01-03 10:00", "product_viewed"))
    week = "period := 'day', mode := 'rolling'"
    trial = publication.rows(f"""
        select cohort_start_date, interval_index from retention_of('custom:trial_started', 'product_viewed', {week})
        where bounded_count > 0""")
    assert trial == [(date(2026, 1, 2), 0), (date(2026, 1, 2), 3)]
    twice = publication.rows(f"""
        select interval_index from retention_of('custom:trial_started', 'custom:trial_started', {week})
        where bounded_count > 0""")
    assert twice == [(0,), (4,)]  # the start itself, and the next


def test_outbound_touchpoints_count_where_they_are_asked_for(publication: Any) -> None:
    publication.describe("2026-01-20")
    publication.walk(
        "c:1", ("2026-01-01 10:00", "email_sent", {"direction": "outbound"}), ("2026-01-02 10:00", "page_viewed")
    )
    assert publication.rows("from retention_of('email_sent', 'page_viewed', period := 'day')") == []
    rows = publication.rows("""
        select interval_index from retention_of('email_sent', 'page_viewed', period := 'day', touches := 'any')
        where bounded_count > 0""")
    assert rows == [(1,)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("period := 'year'", "period is day, week or month"),
        ("mode := 'sliding'", "mode is calendar or rolling"),
        ("touches := 'both'", "touches are inbound, outbound or any"),
    ],
)
def test_wrong_use_is_told(publication: Any, arguments: str, message: str) -> None:
    publication.walk("c:1", (datetime(2026, 1, 1, tzinfo=UTC), "page_viewed"))
    with pytest.raises(duckdb.Error, match=message):
        publication.rows(f"from retention_of('first_touch', 'any', {arguments})")
