"""Stage conversion: entered, advanced, active, dropped, ordered; times, periods, breakdowns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

Walk = Callable[..., None]
COUNTS = "entered_count, advanced_count, active_count, dropped_count, ordered_count"


def counts(warehouse: Any, *, scope: str = "journey", columns: str = COUNTS) -> dict[str, tuple[Any, ...]]:
    rows = warehouse.rows(f"""
        select stage, {columns} from stage_conversion
        where scope = '{scope}' and period = 'all' and breakdown = 'none' order by stage_index""")
    return {stage: tuple(rest) for stage, *rest in rows}


def test_a_later_stage_at_the_very_end_of_the_window_is_an_advance(warehouse: Any, walk: Walk) -> None:
    walk("in", ("2026-01-01 10:00", "awareness"), ("2026-01-31 10:00", "purchase"))
    walk("late", ("2026-01-01 10:00", "awareness"), ("2026-01-31 10:00:00.000001", "purchase"))
    warehouse.build("2026-06-01")
    assert counts(warehouse) == {"awareness": (2, 1, 0, 1, 2), "purchase": (2, 0, 0, 2, 0)}
    assert counts(warehouse, columns="median_seconds_to_advance")["awareness"] == (30 * 86400,)  # of who advanced
    assert counts(warehouse, scope="customer")["awareness"] == (2, 2, 0, 0, 2)  # its window is 365 days


def test_who_has_not_advanced_is_active_until_the_window_has_passed(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01 10:00", "awareness"))
    warehouse.build("2026-01-31 10:00")
    assert counts(warehouse)["awareness"] == (1, 0, 1, 0, 1)
    warehouse.build("2026-01-31 10:00:00.000001")
    assert counts(warehouse)["awareness"] == (1, 0, 0, 1, 1)


def test_active_goes_by_the_window_and_not_by_the_status(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-10 10:00", "purchase"), status="converted")
    warehouse.build("2026-01-20")
    assert counts(warehouse)["purchase"] == (1, 0, 1, 0, 0)


def test_a_later_stage_before_the_first_entry_is_no_advance(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01 10:00", "consideration"), ("2026-01-01 11:00", "awareness"))
    walk(
        "j2",
        ("2026-01-01 10:00", "consideration"),
        ("2026-01-01 11:00", "awareness"),
        ("2026-01-01 12:00", "consideration"),
    )
    warehouse.build("2026-06-01")
    assert counts(warehouse) == {"awareness": (2, 1, 0, 1, 2), "consideration": (2, 0, 0, 2, 1)}


def test_at_one_instant_event_ids_order_the_visits_and_stages_order_the_chain(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01 10:00", "consideration"), ("2026-01-01 10:00", "awareness"))
    walk("j2", ("2026-01-01 10:00", "awareness"), ("2026-01-01 10:00", "consideration"))
    warehouse.build("2026-06-01")
    assert counts(warehouse) == {"awareness": (2, 1, 0, 1, 2), "consideration": (2, 0, 0, 2, 2)}


def test_the_ordered_count_needs_every_earlier_stage(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01", "awareness"), ("2026-01-02", "purchase"), ("2026-01-03", "onboarding"))
    walk("j2", ("2026-01-01", "awareness"), ("2026-01-02", "consideration"), ("2026-01-03", "purchase"))
    warehouse.build("2026-06-01")
    assert counts(warehouse, columns="entered_count, ordered_count") == {
        "awareness": (2, 2),
        "consideration": (1, 1),
        "purchase": (2, 1),
        "onboarding": (1, 0),
    }


def test_the_ordered_chain_restarts_with_a_later_first_stage(warehouse: Any, walk: Walk) -> None:
    stages = [("2026-01-01", "awareness"), ("2026-01-20", "awareness"), ("2026-02-10", "consideration")]
    walk("j1", *stages)
    # The chain carries the start it was reached from: consideration of the first start, purchase too late for it.
    walk(
        "j2",
        ("2026-01-01", "awareness"),
        ("2026-01-20", "consideration"),
        ("2026-01-25", "awareness"),
        ("2026-02-10", "purchase"),
    )
    warehouse.build("2026-06-01")
    assert counts(warehouse, columns="ordered_count") == {"awareness": (2,), "consideration": (2,), "purchase": (0,)}


def test_the_last_stage_leads_nowhere(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01", "advocacy"))
    warehouse.build("2026-06-01")
    rows = warehouse.rows("""
        select advanced_count, active_count, dropped_count, conversion_ratio, conversion_ratio_low,
            conversion_ratio_high, drop_off_ratio, median_seconds_to_advance, p90_seconds_to_advance, entered_count
        from stage_conversion""")
    assert set(rows) == {(*[None] * 9, 1)}


def test_service_journeys_count_for_their_customers_only(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01", "retention"), status="service")
    warehouse.build("2027-06-01")
    assert counts(warehouse) == {}
    assert counts(warehouse, scope="customer") == {"retention": (1, 0, 0, 1, 0)}


def test_outbound_and_unstaged_touchpoints_enter_nothing(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01", "awareness"), ("2026-01-02", None))
    warehouse.add(
        "touchpoints",
        {
            "customer_key": "c:j1",
            "journey_id": warehouse.journey_id("j1"),
            "occurred_at": "2026-01-03",
            "direction": "outbound",
            "event_type": "email_sent",
            "stage": "purchase",
            "lifecycle_stage": "purchase",
        },
        {"customer_key": None, "occurred_at": "2026-01-03", "stage": "purchase", "lifecycle_stage": "purchase"},
    )
    warehouse.build("2026-06-01")
    assert counts(warehouse) == {"awareness": (1, 0, 0, 1, 1)}


def test_customers_are_read_by_lifecycle_stage_across_their_journeys(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01", "awareness"), ("2026-01-02", "purchase"), revenue=Decimal("30.00"))
    walk("j2", ("2026-03-05", "purchase"), customer="c:j1", revenue=Decimal("12.50"))
    warehouse.con.execute("""
        update touchpoints set lifecycle_stage = 'retention', lifecycle_stage_index = 5
        where occurred_at = timestamp '2026-03-05';
        update customers set revenue = 42.50""")
    warehouse.build("2027-06-01")
    columns = "entered_count, advanced_count, dropped_count, revenue"
    assert counts(warehouse, columns=columns) == {
        "awareness": (1, 1, 0, Decimal("30.00")),
        "purchase": (2, 0, 2, Decimal("42.50")),
    }
    assert counts(warehouse, scope="customer", columns=columns) == {
        "awareness": (1, 1, 0, Decimal("42.50")),
        "purchase": (1, 1, 0, Decimal("42.50")),
        "retention": (1, 0, 1, Decimal("42.50")),
    }


def test_ratios_stand_on_the_decided_and_times_on_the_advanced(warehouse: Any, walk: Walk) -> None:
    for minutes in (10, 20, 30):
        walk(f"a{minutes}", ("2026-01-01 10:00", "awareness"), (f"2026-01-01 10:{minutes}", "consideration"))
    walk("dropped", ("2026-01-01 10:00", "awareness"))
    walk("active", ("2026-02-01 10:00", "awareness"))
    warehouse.build("2026-02-10")
    [row] = warehouse.rows("""
        select advanced_count, active_count, dropped_count, conversion_ratio, conversion_ratio_low,
            conversion_ratio_high, drop_off_ratio, median_seconds_to_advance, p90_seconds_to_advance
        from stage_conversion
        where scope = 'journey' and period = 'all' and breakdown = 'none' and stage = 'awareness'""")
    assert row[:3] == (3, 1, 1)
    # Wilson 3 of 4 by hand: (0.75 + z²/8 ± z·√(0.75·0.25/4 + z²/64)) / (1 + z²/4)
    assert row[3:] == pytest.approx((0.75, 0.300642, 0.954413, 0.25, 1200, 1680), abs=1e-6)


def test_nobody_decided_has_no_ratio(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-01", "awareness"))
    warehouse.build("2026-01-02")
    columns = "dropped_count, conversion_ratio, conversion_ratio_low, conversion_ratio_high, drop_off_ratio"
    assert counts(warehouse, columns=columns) == {"awareness": (0, None, None, None, None)}


def test_periods_are_the_reporting_calendars(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-03-01 04:59", "awareness"))  # 23:59 on Saturday, 28 February, in New York
    walk("j2", ("2026-03-01 05:00", "awareness"))  # midnight of Sunday
    warehouse.build("2026-06-01", config="{reporting_timezone: America/New_York, week_starts_on: sunday}")
    rows = warehouse.rows("""
        select period, period_start_date, entered_count from stage_conversion
        where scope = 'journey' and breakdown = 'none' order by period, period_start_date""")
    assert rows == [
        ("all", None, 2),
        ("day", date(2026, 2, 28), 1),
        ("day", date(2026, 3, 1), 1),
        ("month", date(2026, 2, 1), 1),
        ("month", date(2026, 3, 1), 1),
        ("week", date(2026, 2, 22), 1),
        ("week", date(2026, 3, 1), 1),
    ]


def test_the_cohort_is_the_start_of_the_journey_and_not_of_the_stage(warehouse: Any, walk: Walk) -> None:
    walk("j1", ("2026-01-31 10:00", None), ("2026-02-01 10:00", "awareness"))
    warehouse.build("2026-06-01")
    rows = warehouse.rows("select distinct scope, period_start_date from stage_conversion where period = 'month'")
    assert sorted(rows) == [("customer", date(2026, 1, 1)), ("journey", date(2026, 1, 1))]


def test_the_50_largest_values_keep_their_names(warehouse: Any, walk: Walk) -> None:
    for index in range(53):
        walk(f"j{index}", ("2026-01-01", "awareness"), first_campaign=f"campaign {index:02}")
    walk("again", ("2026-02-01", "awareness"), first_campaign="campaign 52")
    walk("without", ("2026-02-01", "awareness"))
    warehouse.build("2026-06-01")
    for scope in ("journey", "customer"):
        rows = dict(
            warehouse.rows(f"""
                select breakdown_value, entered_count from stage_conversion
                where scope = '{scope}' and period = 'all' and breakdown = 'campaign'""")
        )
        assert len(rows) == 52
        assert (rows["campaign 52"], rows["(other)"], rows["(none)"]) == (2, 3, 1)
        assert not {"campaign 49", "campaign 50", "campaign 51"} & rows.keys()  # equal counts: by name


def test_every_breakdown_is_resolved_at_the_first_touch(warehouse: Any, walk: Walk) -> None:
    walk(
        "j1",
        ("2026-01-01", "awareness"),
        first_channel="email",
        first_source="google",
        first_medium="cpc",
        first_campaign="spring",
        segment="paid",
        experiment_variant="button / green",
    )
    warehouse.build("2026-06-01")
    for scope in ("journey", "customer"):
        rows = warehouse.rows(f"""
            select breakdown, breakdown_value from stage_conversion
            where scope = '{scope}' and period = 'day' order by 1""")
        assert rows == [
            ("campaign", "spring"),
            ("channel", "email"),
            ("medium", "cpc"),
            ("none", "(all)"),
            ("segment", "paid"),
            ("source", "google"),
            ("variant", "button / green"),
        ]


def test_without_touchpoints_there_are_no_rows(warehouse: Any) -> None:
    warehouse.build("2026-06-01")
    for table in ("stage_conversion", "stage_drop_off", "retention"):
        assert warehouse.rows(f"from {table}") == []
