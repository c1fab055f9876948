"""Attribution: which sessions lie on the path to an order, and what nine models make of it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

START = datetime(2026, 3, 1, 10)
MODELS = ["first", "j_shaped", "last", "last_non_direct", "linear", "markov", "position", "shapley", "time_decay"]


def seen(warehouse: Any, at: str | datetime, channel: str = "web", *, customer: str = "c:1", **columns: Any) -> str:
    """Add a session; answers its id. Ids are in the order of the calls."""
    warehouse.event_count += 1
    session_id: str = columns.pop("session_id", warehouse.event_id(warehouse.event_count))
    own = {"session_id": session_id, "customer_key": customer, "channel": channel, "started_at": at}
    warehouse.add("sessions", {**own, **columns})
    return session_id


def bought(
    warehouse: Any, at: str | datetime, session_id: str, revenue: Any = 0, *, customer: str = "c:1", **columns: Any
) -> str:
    """Add an order of a session; answers its id."""
    warehouse.event_count += 1
    order_id: str = columns.pop("order_id", f"order {warehouse.event_count}")
    [(earlier,)] = warehouse.rows(f"select count(*) from orders where customer_key = '{customer}'")
    own = {"order_id": order_id, "customer_key": customer, "session_id": session_id, "ordered_at": at}
    warehouse.add("orders", {**own, "order_index": earlier + 1, "revenue": revenue, **columns})
    return order_id


def walk(warehouse: Any, customer: str, *campaigns: str | None, revenue: Any = None, hours: int = 1) -> None:
    """A customer's sessions, an hour apart, by campaign. With `revenue` the last one orders; else all are abandoned."""
    journey = {} if revenue is not None else {"journey_id": warehouse.journey_id(customer)}
    for index, campaign in enumerate(campaigns):
        at = START + index * timedelta(hours=hours)
        session_id = seen(warehouse, at, customer=customer, campaign=campaign, source="any", **journey)
    if revenue is not None:
        bought(warehouse, at, session_id, revenue, customer=customer)
    else:
        warehouse.add("journeys", {**journey, "customer_key": customer, "started_at": START})


def path(warehouse: Any, order_id: str, level: str = "channel") -> list[str]:
    rows = warehouse.rows(f"""
        select touch from attribution_touches
        where is_converted and level = '{level}' and path_id = '{order_id}' order by touch_index""")
    return [touch for (touch,) in rows]


def credits(warehouse: Any, model: str, level: str = "campaign", value: str = "conversions") -> dict[str, float]:
    """Touch to credit, where there is any."""
    rows = warehouse.rows(f"select touch, {value} from attribution where model = '{model}' and level = '{level}'")
    return {touch: credit for touch, credit in rows if credit}


# The path.


def test_a_path_holds_what_started_within_the_look_back_up_to_the_order(warehouse: Any) -> None:
    seen(warehouse, "2026-01-01 09:59:59.999999", "support")
    seen(warehouse, "2026-01-01 10:00", "email")  # 30 days before, to the microsecond
    seen(warehouse, "2026-01-20 10:00", "store", customer="c:2")
    session = seen(warehouse, "2026-01-31 09:00", "web")
    seen(warehouse, "2026-01-31 10:00", "store")  # the order's very instant
    seen(warehouse, "2026-01-31 10:00:00.000001", "support")
    order = bought(warehouse, "2026-01-31 10:00", session)
    warehouse.build("2026-06-01")
    assert path(warehouse, order) == ["email", "web", "store"]


def test_the_look_back_is_that_of_the_configuration(warehouse: Any) -> None:
    seen(warehouse, "2026-01-01 09:00", "email")
    seen(warehouse, "2026-01-01 10:00", "store")
    order = bought(warehouse, "2026-01-02 10:00", seen(warehouse, "2026-01-02 10:00"))
    warehouse.build("2026-06-01", config="{attribution_lookback: 24 hours}")
    assert path(warehouse, order) == ["store", "web"]


def test_the_converting_session_counts_in_any_case_and_where_it_started(warehouse: Any) -> None:
    ticket = seen(warehouse, "2025-11-01 10:00", "support")
    seen(warehouse, "2025-12-01 10:00", "email")  # too long ago, like the ticket
    seen(warehouse, "2026-01-20 10:00", "web")
    order = bought(warehouse, "2026-01-31 10:00", ticket)
    warehouse.build("2026-06-01")
    assert path(warehouse, order) == ["support", "web"]


def test_a_session_leads_to_the_first_order_not_earlier_than_its_start(warehouse: Any) -> None:
    first_session = seen(warehouse, "2026-01-01 10:00", "web")
    seen(warehouse, "2026-01-01 12:00", "email")  # at the first order's instant: not later than it
    seen(warehouse, "2026-01-01 12:00:00.000001", "support")
    second_session = seen(warehouse, "2026-01-02 10:00", "store")
    first = bought(warehouse, "2026-01-01 12:00", first_session)
    second = bought(warehouse, "2026-01-02 12:00", second_session)
    warehouse.build("2026-06-01")
    assert path(warehouse, first) == ["web", "email"]
    assert path(warehouse, second) == ["support", "store"]


def test_a_second_order_of_a_session_has_that_session_again(warehouse: Any) -> None:
    seen(warehouse, "2026-01-01 09:00", "email")
    session = seen(warehouse, "2026-01-01 10:00", "web")
    first = bought(warehouse, "2026-01-01 10:30", session, 10)
    seen(warehouse, "2026-01-01 10:40", "store")
    second = bought(warehouse, "2026-01-01 11:00", session, 20)
    warehouse.build("2026-06-01")
    assert path(warehouse, first) == ["email", "web"]
    assert path(warehouse, second) == ["web", "store"]
    assert credits(warehouse, "last", "channel", "revenue") == {"web": 10, "store": 20}


def test_of_two_orders_at_one_instant_the_smaller_event_id_is_the_earlier(warehouse: Any) -> None:
    seen(warehouse, "2026-01-01 09:00", "email")
    session = seen(warehouse, "2026-01-01 10:00", "web")
    second = bought(warehouse, "2026-01-01 10:30", session, event_id=warehouse.event_id(902))
    first = bought(warehouse, "2026-01-01 10:30", session, event_id=warehouse.event_id(901))
    warehouse.build("2026-06-01")
    assert path(warehouse, first) == ["email", "web"]
    assert path(warehouse, second) == ["web"]


def test_sessions_that_start_together_are_in_order_of_their_ids(warehouse: Any) -> None:
    later = seen(warehouse, "2026-01-01 10:00", "store", session_id=warehouse.event_id(902))
    seen(warehouse, "2026-01-01 10:00", "web", session_id=warehouse.event_id(901))
    order = bought(warehouse, "2026-01-01 11:00", later)
    warehouse.build("2026-06-01")
    assert path(warehouse, order) == ["web", "store"]


def test_consecutive_equal_touches_are_one_with_the_time_of_the_last(warehouse: Any) -> None:
    for at, channel in (("01", "web"), ("02", "web"), ("03", "email"), ("04", "web"), ("05", "web")):
        session = seen(warehouse, f"2026-01-{at}", channel)
    bought(warehouse, "2026-01-06", session)
    warehouse.build("2026-06-01")
    assert warehouse.rows("""
        select touch_index, touch, touched_at, session_count, touch_count from attribution_touches
        where level = 'channel' order by touch_index""") == [
        (1, "web", datetime(2026, 1, 2), 2, 3),
        (2, "email", datetime(2026, 1, 3), 1, 3),
        (3, "web", datetime(2026, 1, 5), 2, 3),
    ]


def test_touches_have_the_sessions_own_values_and_names_for_what_is_missing(warehouse: Any) -> None:
    seen(warehouse, "2026-01-01", "web", source="google", medium="cpc", campaign="sale > winter")
    seen(warehouse, "2026-01-02", "email", source="news")
    seen(warehouse, "2026-01-03", "web", medium="qr")
    order = bought(warehouse, "2026-01-04", seen(warehouse, "2026-01-04", "store"))
    warehouse.build("2026-06-01")
    assert path(warehouse, order, "channel") == ["web", "email", "web", "store"]
    assert path(warehouse, order, "source_medium") == [
        "google / cpc",
        "news / (none)",
        "(direct) / qr",
        "(direct) / (none)",
    ]
    assert path(warehouse, order, "campaign") == ["sale > winter", "(none)"]


# Models that look at one path.


SHARES = {
    ("A", "first"): {"A": 1},
    ("A", "position"): {"A": 1},
    ("A", "j_shaped"): {"A": 1},
    ("A B", "first"): {"A": 1},
    ("A B", "last"): {"B": 1},
    ("A B", "linear"): {"A": 0.5, "B": 0.5},
    ("A B", "position"): {"A": 0.5, "B": 0.5},
    ("A B", "j_shaped"): {"A": 0.25, "B": 0.75},
    ("A B C", "position"): {"A": 0.4, "B": 0.2, "C": 0.4},
    ("A B C", "j_shaped"): {"A": 0.2, "B": 0.2, "C": 0.6},
    ("A B C D", "linear"): {"A": 0.25, "B": 0.25, "C": 0.25, "D": 0.25},
    ("A B C D", "position"): {"A": 0.4, "B": 0.1, "C": 0.1, "D": 0.4},
    ("A B C D", "j_shaped"): {"A": 0.2, "B": 0.1, "C": 0.1, "D": 0.6},
    ("A B A", "linear"): {"A": 2 / 3, "B": 1 / 3},
    ("A B A", "position"): {"A": 0.8, "B": 0.2},
    ("A B A", "shapley"): {"A": 0.5, "B": 0.5},
    ("A B A C A", "shapley"): {"A": 1 / 3, "B": 1 / 3, "C": 1 / 3},
}


def test_shares_of_one_path(warehouse: Any) -> None:
    for touches in {touches for touches, _ in SHARES}:
        walk(warehouse, f"c:{touches}", *touches.split(), revenue=50)
    warehouse.build("2026-06-01")
    for (touches, model), shares in SHARES.items():
        rows = warehouse.rows(f"""
            select touch, sum(credit), sum(revenue_credit) from attribution_credits inner join orders using (order_id)
            where model = '{model}' and level = 'campaign' and customer_key = 'c:{touches}' group by touch""")
        assert {touch: credit for touch, credit, _ in rows if credit} == pytest.approx(shares, abs=1e-12)
        assert [earned for *_, earned in rows] == pytest.approx([50 * credit for _, credit, _ in rows], abs=1e-12)


def test_four_touches_of_fifty_earn_twelve_and_a_half_each(warehouse: Any) -> None:
    walk(warehouse, "c:1", "A", "B", "C", "D", revenue=50)
    warehouse.build("2026-06-01")
    assert credits(warehouse, "linear", value="revenue") == {"A": 12.5, "B": 12.5, "C": 12.5, "D": 12.5}


def test_time_decay_halves_a_touch_by_every_half_life_before_the_last(warehouse: Any) -> None:
    walk(warehouse, "c:1", "A", "B", "C", revenue=7, hours=7 * 24)
    warehouse.build("2026-06-01")
    assert credits(warehouse, "time_decay", value="revenue") == pytest.approx({"A": 1, "B": 2, "C": 4})


def test_time_decay_takes_its_half_life_from_the_configuration_however_short(warehouse: Any) -> None:
    walk(warehouse, "c:1", "A", "B", revenue=1)
    walk(warehouse, "c:2", "A", "C", revenue=1, hours=600)
    warehouse.build("2026-06-01", config="{attribution_half_life: 1 second}")
    assert credits(warehouse, "time_decay") == pytest.approx({"B": 1, "C": 1}, abs=1e-15)


def test_last_non_direct_passes_over_touches_without_a_source(warehouse: Any) -> None:
    seen(warehouse, "2026-01-01", "email", source="news", campaign="spring")
    seen(warehouse, "2026-01-02", "support", campaign="summer")  # a campaign is no source
    bought(warehouse, "2026-01-03", seen(warehouse, "2026-01-03", "web"), 10)
    warehouse.build("2026-06-01")
    assert credits(warehouse, "last_non_direct", "channel") == {"email": 1}
    assert credits(warehouse, "last_non_direct", "source_medium") == {"news / (none)": 1}
    assert credits(warehouse, "last_non_direct", "campaign") == {"spring": 1}


def test_a_touch_is_direct_only_if_all_its_sessions_are(warehouse: Any) -> None:
    seen(warehouse, "2026-01-01", "email", source="news")
    seen(warehouse, "2026-01-02", "web", source="google")
    bought(warehouse, "2026-01-03", seen(warehouse, "2026-01-03", "web"))
    warehouse.build("2026-06-01")
    assert credits(warehouse, "last_non_direct", "channel") == {"web": 1}  # google's session and the direct one
    assert credits(warehouse, "last_non_direct", "source_medium") == {"google / (none)": 1}


def test_where_every_touch_is_direct_last_non_direct_is_last(warehouse: Any) -> None:
    seen(warehouse, "2026-01-01", "web")
    bought(warehouse, "2026-01-02", seen(warehouse, "2026-01-02", "store"))
    warehouse.build("2026-06-01")
    assert credits(warehouse, "last_non_direct", "channel") == {"store": 1}


def test_an_order_without_a_known_rate_counts_and_earns_nothing(warehouse: Any) -> None:
    walk(warehouse, "c:1", "A", "B", revenue=30)
    bought(warehouse, "2026-03-05", seen(warehouse, "2026-03-05", campaign="C"), None)
    warehouse.build("2026-06-01")
    assert credits(warehouse, "linear") == {"A": 0.5, "B": 0.5, "C": 1}
    assert credits(warehouse, "linear", value="revenue") == {"A": 15, "B": 15}
    assert sum(credits(warehouse, "markov", value="revenue").values()) == pytest.approx(30)


# The chain.


def test_removal_effects_of_the_worked_example(warehouse: Any) -> None:
    walk(warehouse, "c:1", "C1", "C2", "C3", revenue=50)
    walk(warehouse, "c:2", "C1")
    walk(warehouse, "c:3", "C2", "C3")
    warehouse.build("2026-06-01")
    assert credits(warehouse, "markov", value="removal_effect") == pytest.approx({"C1": 0.5, "C2": 1, "C3": 1})
    assert credits(warehouse, "markov") == pytest.approx({"C1": 0.2, "C2": 0.4, "C3": 0.4})
    assert credits(warehouse, "markov", value="revenue") == pytest.approx({"C1": 10, "C2": 20, "C3": 20})


def test_walks_may_turn_in_circles(warehouse: Any) -> None:
    walk(warehouse, "c:1", "A", "B", "A", revenue=1)
    walk(warehouse, "c:2", "B")
    warehouse.build("2026-06-01")
    # start: A, B by half; A: B or order by half; B: A or nothing by half. a = 1/2 + b/2, b = a/2, so P = 1/2.
    # Without B only start, A, order is left, 1/4 = P/2; without A none.
    assert credits(warehouse, "markov", value="removal_effect") == pytest.approx({"A": 1, "B": 0.5})


def test_the_chain_knows_abandoned_journeys_whole_and_no_others(warehouse: Any) -> None:
    walk(warehouse, "c:1", "A", revenue=1)
    walk(warehouse, "c:2", "X", "A", "A", hours=24 * 60)  # no look-back here
    for name, status in (("c:3", "active"), ("c:4", "service"), ("c:5", "converted")):
        seen(warehouse, START, customer=name, campaign="B", journey_id=warehouse.journey_id(name))
        own = {"journey_id": warehouse.journey_id(name), "customer_key": name, "status": status, "started_at": START}
        warehouse.add("journeys", {**own, "converted_at": START if status == "converted" else None})
    seen(warehouse, START, customer="c:6", campaign="C")
    warehouse.build("2026-12-01")
    assert warehouse.rows("""
        select from_touch, to_touch, is_converted, transition_count from attribution_transitions
        where level = 'campaign' order by from_touch nulls first, to_touch nulls last, is_converted""") == [
        (None, "A", None, 1),
        (None, "X", None, 1),
        ("A", None, False, 1),
        ("A", None, True, 1),
        ("X", "A", None, 1),
    ]
    assert credits(warehouse, "markov", value="removal_effect") == pytest.approx({"A": 1, "X": 0.5})


def test_only_the_chain_credits_what_no_order_was_seen_after(warehouse: Any) -> None:
    walk(warehouse, "c:1", "A", revenue=6)
    walk(warehouse, "c:2", "X", "A")
    walk(warehouse, "c:3", "Y")
    warehouse.build("2026-06-01")
    rows = warehouse.rows("""
        select touch, touch_count, conversion_count, abandoned_count, count(distinct model),
            sum(conversions) filter (where model <> 'markov'), max(conversions) filter (where model = 'markov')
        from attribution where level = 'campaign' group by all order by touch""")
    assert rows == [
        ("A", 1, 1, 1, 9, 8, pytest.approx(2 / 3)),
        ("X", 0, 0, 1, 9, 0, pytest.approx(1 / 3)),
        ("Y", 0, 0, 1, 9, 0, 0),
    ]


# The table.


def test_every_model_judges_every_level(warehouse: Any) -> None:
    walk(warehouse, "c:1", "A", "B", revenue=1)
    warehouse.build("2026-06-01")
    rows = warehouse.rows("select distinct level, model from attribution order by 1, 2")
    assert rows == [(level, model) for level in ("campaign", "channel", "source_medium") for model in MODELS]


@pytest.mark.parametrize("history", ["nothing", "abandoned journeys"])
def test_without_an_order_there_is_nothing_to_attribute(warehouse: Any, history: str) -> None:
    if history == "abandoned journeys":
        walk(warehouse, "c:1", "A", "B")
    warehouse.build("2026-06-01")
    assert warehouse.rows("from attribution") == []


def test_shapley_bears_any_number_of_values(warehouse: Any) -> None:
    for number in range(40):
        walk(warehouse, f"c:{number}", f"campaign {number}", "last", revenue=1)
    warehouse.build("2026-06-01")
    found = credits(warehouse, "shapley")
    assert found.pop("last") == 20
    assert set(found.values()) == {0.5}


# Figures that others published.


def test_paths_of_snowplows_fractribution_fixture(warehouse: Any) -> None:
    """Its integration tests' paths and revenue, and what those tests expect of the last touch.

    For Shapley they expect Direct 3.54096 and Organic 1.45904, by a rule of their own, which sets the conversion ratio
    of a path against those of the path without each touch. The standard game divides the mixed path in halves.
    """
    orders = [
        ("Direct Direct", 50.0),
        ("Direct Direct", 24.0),
        ("Organic Organic Direct", 140.0),
        ("Organic Organic", 66.5),
        ("Video", 200.0),
        ("Direct", 20.42),
    ]
    abandoned = {
        "Direct": 25, "Organic": 26, "Video": 2, "Referral": 2, "Paid": 1, "Unmatched": 1,
        "Organic Paid": 2, "Organic Direct": 1, "Referral Direct": 1,
    }  # fmt: skip
    for number, (touches, revenue) in enumerate(orders):
        walk(warehouse, f"c:order {number}", *touches.split(), revenue=revenue)
    for number, touches in enumerate(Counter(abandoned).elements()):
        walk(warehouse, f"c:abandoned {number}", *touches.split())
    warehouse.build("2026-06-01")
    assert credits(warehouse, "last") == {"Direct": 4, "Organic": 1, "Video": 1}
    assert credits(warehouse, "last", value="revenue") == pytest.approx(
        {"Direct": 234.42, "Organic": 66.5, "Video": 200}
    )
    assert credits(warehouse, "shapley") == pytest.approx({"Direct": 3.5, "Organic": 1.5, "Video": 1})
    # By hand: 6 of 67 paths convert, 4 of them at Direct, to which 31 come: 2 from Organic and 1 from Referral.
    effects = {"Direct": 4 / 6, "Organic": (1 + 2 * 4 / 31) / 6, "Video": 1 / 6, "Referral": (4 / 31) / 6}
    assert credits(warehouse, "markov", value="removal_effect") == pytest.approx(effects)
