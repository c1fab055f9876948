"""The macro `funnel` by hand: every option, ties, windows to the microsecond, orders, values, and wrong use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb
import pytest

DAY = "2026-01-01"
ABC = "['page_viewed', 'product_viewed', 'product_added']"
A, B, C, OTHER = "page_viewed", "product_viewed", "product_added", "signed_in"


def at(minute: float) -> str:
    seconds = round(minute * 60, 6)
    return f"{DAY} {int(seconds // 3600):02}:{int(seconds % 3600 // 60):02}:{seconds % 60:09.6f}"


def counts(publication: Any, options: str = "", steps: str = ABC, within: str = "10 minutes") -> list[int]:
    rows = publication.rows(
        f"select reached_count from funnel({steps}, within := interval {within}{options}) order by step"
    )
    return [count for (count,) in rows]


def times(publication: Any, options: str = "", steps: str = ABC) -> list[list[float]]:
    """Minutes at which each attempt came to its steps."""
    rows = publication.rows(f"""
        select list(date_diff('second', timestamptz '{DAY}', occurred_at) / 60 order by step)
        from funnel_attempts({steps}, within := interval 10 minutes{options})
        group by customer_key, held_value, started_at order by customer_key, started_at, held_value""")
    return [minutes for (minutes,) in rows]


def test_a_step_counts_within_the_window_to_the_microsecond_of_its_end(publication: Any) -> None:
    publication.walk("c:on_it", (at(0), A), (at(10), B))
    publication.walk("c:past_it", (at(0), A), (f"{DAY} 00:10:00.000001", B))
    publication.walk("c:no_start", (at(0), B), (at(1), C))
    assert counts(publication) == [2, 1, 0]


def test_the_window_counts_from_the_latest_first_step(publication: Any) -> None:
    publication.walk("c:1", (at(0), A), (at(5), A), (at(12), B))
    publication.walk("c:2", (at(0), A), (at(3), B), (at(5), A), (at(12), C))
    assert times(publication) == [[5, 12], [0, 3]]


def test_equal_times_count_in_the_order_of_the_steps_but_not_in_strict_increase(publication: Any) -> None:
    publication.walk("c:1", (at(1), C), (at(1), B), (at(1), A))
    publication.walk("c:2", (at(0), A), (at(1), A), (at(1), B))
    assert counts(publication) == [2, 2, 1]
    assert counts(publication, ", mode := 'strict_increase'") == [2, 1, 0]


def test_touchpoints_without_customer_or_outbound_ones_do_not_count(publication: Any) -> None:
    publication.walk(None, (at(0), A), (at(1), B))
    publication.walk("c:1", (at(0), "email_sent", {"direction": "outbound"}), (at(1), "email_opened"))
    steps = "['email_sent', 'email_opened']"
    assert counts(publication) == [0, 0, 0]
    assert counts(publication, steps=steps) == [0, 0]
    assert counts(publication, ", touches := 'any'", steps) == [1, 1]
    assert counts(publication, ", touches := 'outbound'", steps) == [1, 0]


def test_strict_order_stops_at_any_other_touchpoint(publication: Any) -> None:
    publication.walk("c:other", (at(0), A), (at(1), OTHER), (at(2), B))
    publication.walk("c:other_before", (at(0), OTHER), (at(1), A), (at(2), B))
    publication.walk("c:other_at_once", (at(0), OTHER), (at(0), A), (at(2), B))
    publication.walk("c:too_early", (at(0), A), (at(1), C), (at(2), B), (at(3), C))
    publication.walk("c:twice", (at(0), A), (at(1), A), (at(2), B), (at(3), B), (at(4), C))
    assert counts(publication) == [5, 5, 2]
    assert counts(publication, ", mode := 'strict_order'") == [5, 3, 1]


def test_strict_deduplication_stops_where_a_later_step_repeats(publication: Any) -> None:
    publication.walk("c:first_twice", (at(0), A), (at(1), A), (at(2), B), (at(3), C))
    publication.walk("c:second_twice", (at(0), A), (at(1), B), (at(2), B), (at(3), C))
    publication.walk("c:at_once", (at(0), A), (at(1), B), (at(1), B), (at(3), C))
    publication.walk("c:unreached", (at(0), B), (at(1), A), (at(2), B), (at(3), C))
    assert counts(publication) == [4, 4, 4]
    assert counts(publication, ", mode := 'strict_deduplication'") == [4, 4, 2]


def test_strict_once_takes_a_touchpoint_for_one_step_only(publication: Any) -> None:
    steps = f"['{A}', '{A}', '{B}']"
    publication.walk("c:one", (at(0), A), (at(1), B))
    publication.walk("c:two", (at(0), A), (at(1), A), (at(2), B))
    publication.walk("c:two_at_once", (at(0), A), (at(0), A), (at(2), B))
    assert counts(publication, steps=steps) == [3, 3, 3]
    assert counts(publication, ", mode := 'strict_once'", steps) == [3, 2, 2]


def test_unordered_counts_different_steps_in_any_order(publication: Any) -> None:
    publication.walk("c:all", (at(2), A), (at(1), B), (at(0), C))
    publication.walk("c:too_far", (at(0), B), (at(11), A))
    publication.walk("c:repeats", (at(0), B), (at(1), B), (at(2), B))
    rows = publication.rows(
        f"select name, reached_count from funnel({ABC}, within := interval 10 minutes, mode := 'unordered')"
    )
    assert rows == [("any 1", 3), ("any 2", 1), ("any 3", 1)]
    assert times(publication, ", mode := 'unordered'") == [[0, 1, 2], [0], [0]]


def test_total_counts_a_new_attempt_after_each_completed_or_expired_one(publication: Any) -> None:
    steps = f"['{A}', '{B}']"
    publication.walk("c:1", (at(0), A), (at(1), B), (at(2), A), (at(3), B), (at(4), A))
    publication.walk("c:expired", (at(0), A), (at(10.5), A), (at(12), B))
    publication.walk("c:renewed", (at(0), A), (at(9), A), (at(18), B))
    assert counts(publication, steps=steps) == [3, 3]
    assert counts(publication, ", counting := 'total'", steps) == [6, 4]
    assert times(publication, ", counting := 'total'", steps) == [[0, 1], [2, 3], [4], [0], [10.5, 12], [9, 18]]


def test_an_exclusion_breaks_the_chains_it_lies_in(publication: Any) -> None:
    publication.walk("c:between", (at(0), A), (at(1), OTHER), (at(2), B), (at(3), C))
    publication.walk("c:later", (at(0), A), (at(1), B), (at(2), OTHER), (at(3), C))
    publication.walk("c:again", (at(0), A), (at(1), OTHER), (at(2), A), (at(3), B), (at(4), C))
    publication.walk("c:at_once", (at(0), A), (at(0), OTHER), (at(2), B), (at(2), OTHER), (at(3), C))
    exclude = f", exclude := ['{OTHER}']"
    assert counts(publication) == [4, 4, 4]
    assert counts(publication, exclude) == [4, 3, 1]
    assert counts(publication, f"{exclude}, exclude_after := 1, exclude_before := 2") == [4, 3, 3]
    assert counts(publication, f"{exclude}, exclude_after := 2") == [4, 4, 3]


def test_only_an_excluded_step_is_lost_not_a_later_one_reached_without_it(publication: Any) -> None:
    publication.walk("c:1", (at(0), A), (at(1), B), (at(2), OTHER), (at(3), B), (at(4), C))
    options = f", exclude := ['{OTHER}'], exclude_before := 2"
    assert times(publication, options) == [[0, 1, 4]]


def test_hold_asks_for_one_value_in_every_step(publication: Any) -> None:
    shoe, hat = {"product_id": "shoe"}, {"product_id": "hat"}
    publication.walk("c:same", (at(0), A, shoe), (at(1), B, shoe))
    publication.walk("c:mixed", (at(0), A, shoe), (at(1), B, hat))
    publication.walk("c:unknown", (at(0), A), (at(1), B))
    publication.walk("c:both", (at(0), A, shoe), (at(1), A, hat), (at(2), B, hat))
    assert counts(publication) == [4, 4, 0]
    assert counts(publication, ", hold := 'product_id'") == [3, 2, 0]
    held = publication.rows(f"""
        select distinct customer_key, held_value
        from funnel_attempts({ABC}, within := interval 10 minutes, hold := 'product_id') order by all""")
    assert held == [("c:both", "hat"), ("c:mixed", "shoe"), ("c:same", "shoe")]
    assert counts(publication, ", hold := 'product_id', counting := 'total'") == [4, 2, 0]


def test_since_and_until_limit_where_a_chain_begins(publication: Any) -> None:
    publication.walk("c:before", ("2026-01-01 23:59:59", A), ("2026-01-02 00:00:01", B))
    publication.walk("c:in", ("2026-01-02 00:00", A), ("2026-01-03 00:05", B))
    publication.walk("c:after", ("2026-01-03 00:00", A), ("2026-01-03 00:05", B))
    period = ", since := date '2026-01-02', until := '2026-01-03'"
    assert counts(publication, within="2 days") == [3, 3, 0]
    assert counts(publication, period, within="2 days") == [1, 1, 0]
    publication.describe("2026-06-01", "{reporting_timezone: America/New_York}")
    # That day lasts from 05:00 to 05:00 UTC.
    assert counts(publication, period, within="2 days") == [1, 1, 0]
    assert publication.rows(f"select customer_key from funnel_attempts({ABC}{period}) where step = 1") == [("c:after",)]


def test_seconds_from_step_to_step_are_of_the_latest_chain_that_was_there_first(publication: Any) -> None:
    publication.walk("c:1", (at(0), A), (at(1), A), (at(2), B), (at(4), C), (at(5), B), (at(6), C))
    publication.walk("c:2", (at(0), A), (at(8), B))
    rows = publication.rows(f"""
        select step, median_seconds_from_previous, p90_seconds_from_previous, median_seconds_from_first,
            p90_seconds_from_first
        from funnel({ABC}, within := interval 10 minutes)""")
    assert rows == [
        (1, None, None, None, None),
        (2, 270.0, pytest.approx(438.0), 270.0, pytest.approx(438.0)),
        (3, 120.0, 120.0, 180.0, 180.0),
    ]


def test_conversion_comes_with_its_wilson_interval_and_is_null_where_nobody_was(publication: Any) -> None:
    for customer in range(4):
        publication.walk(f"c:{customer}", (at(0), A), *([(at(1), B)] if customer else []))
    rows = publication.rows(f"""
        select conversion_from_first, conversion_from_first_low, conversion_from_first_high, conversion_from_previous,
            conversion_from_previous_low
        from funnel({ABC}, within := interval 10 minutes)""")
    assert rows[0] == (1.0, pytest.approx(0.510109, abs=1e-6), 1.0, None, None)
    assert rows[1] == (0.75, pytest.approx(0.300642, abs=1e-6), pytest.approx(0.954413, abs=1e-6), 0.75, rows[1][1])
    assert rows[2][0] == 0.0 and rows[2][3] == 0.0
    publication.empty("touchpoints")
    assert counts(publication) == [0, 0, 0]
    assert publication.rows(f"select distinct conversion_from_first, revenue from funnel({ABC})") == [(None, 0)]


def test_revenue_is_that_of_the_orders_that_the_steps_touchpoints_converted(publication: Any) -> None:
    steps = "['page_viewed', 'order_completed']"
    publication.walk("c:1", (at(0), A))
    publication.order("c:1", at(1), 20)
    publication.order("c:1", at(2), 5)  # not the first: its own attempt only where all count
    publication.walk("c:copy", (at(0), A), (at(1), "order_completed"))  # converts nothing
    publication.walk("c:at_once", (at(3), A))
    publication.order("c:at_once", at(3), 7)
    revenue = f"select revenue from funnel({steps}, within := interval 10 minutes) order by step"
    assert publication.rows(revenue) == [(Decimal("0.00"),), (Decimal("27.00"),)]


def test_with_hold_each_of_two_orders_at_one_instant_has_its_own_revenue(publication: Any) -> None:
    steps = "['store_entered', 'order_completed']"
    for store, revenue in (("north", 3), ("south", 40)):
        publication.walk("c:1", (at(0), "store_entered"), store_id=store)
        publication.order("c:1", at(1), revenue, store_id=store)
    rows = publication.rows(f"""
        select held_value, revenue from funnel_attempts({steps}, hold := 'store_id', counting := 'total')
        where step = 2 order by held_value""")
    assert rows == [("north", Decimal("3.00")), ("south", Decimal("40.00"))]


def test_open_are_those_whose_window_is_not_over_and_who_may_still_come(publication: Any) -> None:
    publication.describe(at(15))
    publication.walk("c:over", (at(0), A), (at(1), B))
    publication.walk("c:just_open", (at(1), B), (at(5), A))
    publication.walk("c:later_start", (at(0), A), (at(1), B), (at(14), A))
    publication.walk("c:done", (at(10), A), (at(11), B), (at(12), C))
    publication.walk("c:broken", (at(10), A), (at(11), OTHER))
    options = f"from funnel({ABC}, within := interval 10 minutes"
    assert publication.rows(f"select reached_count, open_count {options})") == [(5, 2), (3, 1), (1, 0)]
    rows = publication.rows(f"select reached_count, open_count {options}, mode := 'strict_order')")
    assert rows == [(5, 1), (3, 1), (1, 0)]


def test_breakdown_by_first_touch_last_touch_and_step(publication: Any) -> None:
    web, store = {"channel": "web", "source": "news"}, {"channel": "store"}
    publication.walk("c:1", (at(-60 + 60), "store_entered", store), (at(1), A, web), (at(2), B, store))
    publication.walk("c:2", (at(1), A, web))
    steps = f"['{A}', '{B}']"

    def values(options: str) -> list[tuple[Any, ...]]:
        return publication.rows(f"""
            select breakdown_value, list(reached_count order by step) from funnel({steps}, {options}) group by all
            order by all""")

    assert values("breakdown := 'channel'") == [("store", [1, 1]), ("web", [1, 0])]
    assert values("breakdown := 'source'") == [("(none)", [1, 1]), ("news", [1, 0])]
    assert values("breakdown := 'channel', breakdown_at := 'last_touch'") == [("store", [1, 1]), ("web", [1, 0])]
    assert values("breakdown := 'channel', breakdown_at := 'step_1'") == [("web", [2, 1])]
    assert values("breakdown := 'channel', breakdown_at := 'step_2'") == [("(not reached)", [1, 0]), ("store", [1, 1])]
    assert values("breakdown := 'source', breakdown_at := 'last_touch'") == [("(none)", [1, 1]), ("news", [1, 0])]


def test_the_largest_values_keep_their_name_the_rest_is_other(publication: Any) -> None:
    publication.con.execute("update build_parameters set breakdown_limit = 2")
    for customer, product in enumerate(["a", "b", "b", "c", "c", "c", "d", None]):
        publication.walk(f"c:{customer}", (at(0), A, {"product_id": product}))
    rows = publication.rows(f"select breakdown_value, reached_count from funnel(['{A}'], breakdown := 'product_id')")
    assert rows == [("(none)", 1), ("(other)", 2), ("b", 2), ("c", 3)]


def test_a_value_at_a_tie_is_that_of_the_smallest_event_id(publication: Any) -> None:
    publication.walk("c:1", (at(0), A, {"product_id": "late", "event_id": publication.event_id(9)}))
    publication.walk("c:1", (at(0), A, {"product_id": "early", "event_id": publication.event_id(8)}))
    options = "breakdown := 'product_id'"
    for where in ("first_touch", "last_touch", "step_1"):
        rows = publication.rows(f"select breakdown_value from funnel(['{A}'], {options}, breakdown_at := '{where}')")
        assert rows == [("early",)]


def test_a_custom_event_is_a_step_by_its_name(publication: Any) -> None:
    publication.walk("c:1", (at(0), A), (at(1), "custom", {"event_name": "wishlist_opened"}))
    publication.walk("c:2", (at(0), A), (at(1), "custom", {"event_name": "other"}))
    assert counts(publication, steps=f"['{A}', 'custom:wishlist_opened']") == [2, 1]
    assert counts(publication, steps=f"['{A}', 'custom']") == [2, 2]
    assert counts(publication, ", exclude := ['custom:other']", f"['{A}', 'custom']") == [2, 2]
    publication.walk("c:2", (at(1.5), "custom", {"event_name": "last"}))
    assert counts(publication, ", exclude := ['custom:other']", f"['{A}', 'custom:last']") == [2, 0]


def test_a_funnel_may_have_32_steps(publication: Any) -> None:
    publication.walk("c:1", *[(at(minute), A if minute % 2 == 0 else B) for minute in range(31)])
    steps = f"[{', '.join(repr(A if number % 2 == 0 else B) for number in range(32))}]"
    assert counts(publication, steps=steps, within="2 hours", options=", mode := 'strict_increase'") == [1] * 31 + [0]


def test_the_default_window_is_the_conversion_window(publication: Any) -> None:
    publication.describe("2026-06-01", "{conversion_window: 3 minutes}")
    publication.walk("c:1", (at(0), A), (at(3), B), (at(4), C))
    assert publication.rows(f"select reached_count from funnel({ABC}) order by step") == [(1,), (1,), (0,)]


def test_a_month_is_30_days_whatever_the_readers_time_zone(publication: Any) -> None:
    publication.walk("c:1", ("2026-03-01 12:00", A), ("2026-03-31 12:00", B))
    publication.walk("c:2", ("2026-03-01 12:00", A), ("2026-03-31 12:00:00.000001", B))
    for zone in ("UTC", "America/New_York"):  # which has a day of 23 hours in that month
        publication.con.execute(f"set TimeZone = '{zone}'")
        assert counts(publication, within="1 month") == [2, 1, 0]


def operators(plan: Any) -> Iterator[tuple[str, str, list[int]]]:
    """Each operator of an analysed plan: its name, its conditions, the rows each of its children gave."""
    for node in plan:
        children = node.get("children", [])
        rows = [child["intermediate_rows"] for child in children]
        yield node["name"], str(node.get("extra_info", {}).get("Conditions")), rows
        yield from operators(children)


@pytest.mark.parametrize("counting", ["unique", "total"])
@pytest.mark.parametrize("mode", ["default", "strict_order", "strict_deduplication", "unordered"])
def test_small_publications_are_not_joined_by_a_loop(publication: Any, mode: str, counting: str) -> None:
    """DuckDB's other plan of an ASOF join, for which it needs a wrong estimate, compares every row with every other."""
    publication.walk("c:1", *[(at(minute), name) for minute in range(60) for name in (A, B, C)])
    for exclude in ("[]", f"['{OTHER}']"):
        options = f"mode := '{mode}', counting := '{counting}', exclude := {exclude}"
        [(_, plan)] = publication.rows(f"explain (analyze, format json) from funnel({ABC}, {options})")
        found = list(operators(json.loads(plan)["operator"]))
        assert [name for name, _, rows in found if name == "ASOF_JOIN" and max(rows)]
        loops = [rows for name, on, rows in found if name == "NESTED_LOOP_JOIN" and "history = history" in on]
        assert all(min(rows) == 0 for rows in loops)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("[]", "steps is a list of 1 to 32"),
        (f"['{A}'], mode := 'strict'", "mode is default, strict_order"),
        (f"['{A}'], counting := 'sessions'", "counting is unique or total"),
        (f"['{A}'], touches := 'both'", "touches are inbound, outbound or any"),
        (f"['{A}'], within := 'soon'", "Could not convert string 'soon' to INTERVAL"),
        (f"['{A}'], within := interval (-1) day", "within is an interval such as"),
        (f"['{A}'], exclude_after := 2", "the first before the second"),
        (f"{ABC}, exclude_before := 4", "the first before the second"),
        (f"{ABC}, exclude_after := 2, exclude_before := 2", "the first before the second"),
        (f"{ABC}, mode := 'unordered', exclude_after := 2", "no steps between which to exclude"),
        (f"['{A}'], hold := 'amount'", "hold is one of event_type,"),
        (f"['{A}'], breakdown := 'colour'", "breakdown is one of event_type,"),
        (f"['{A}'], breakdown := 'channel', breakdown_at := 'step_2'", "breakdown_at is first_touch,"),
        (f"['{A}'], breakdown := 'channel', breakdown_at := 'anywhere'", "breakdown_at is first_touch,"),
    ],
)
def test_wrong_use_is_told_with_what_is_right(publication: Any, arguments: str, message: str) -> None:
    publication.walk("c:1", (at(0), A))
    for macro in ("funnel", "funnel_attempts"):
        with pytest.raises(duckdb.Error, match=message):
            publication.rows(f"from {macro}({arguments})")
