"""Customers (docs/semantics.md, sections 3 and 9) and the parameters table: literal events in, rows out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

AS_OF = "2026-03-15 12:00"
PAGE, ORDER, SENT, REFUND = "page_viewed", "order_completed", "email_sent", "order_refunded"


def order(when: str, name: str, amount: str | None = None, currency: str = "USD") -> tuple[Any, ...]:
    price = {"amount": amount, "currency": currency} if amount else {}
    return (when, ORDER, {"order_id": name, **price})


# Days with a page view (a dash before: an e-mail was sent), then the state on 15 March.
STATES: dict[str, tuple[list[str], str | None]] = {
    "new": (["2026-03-01"], "new"),
    "new_though_seen_twice": (["2026-03-01", "2026-03-14"], "new"),
    "returning": (["2026-02-01", "2026-03-01"], "returning"),
    "resurrected": (["2026-01-31", "2026-03-01"], "resurrected"),
    "dormant": (["2026-01-01", "2026-02-28"], "dormant"),
    "dormant_after_one_month": (["2026-02-28"], "dormant"),
    "inactive": (["2026-01-31"], "inactive"),
    "a_year_ago_is_no_month_ago": (["2025-02-10", "2025-03-10"], "inactive"),
    "an_email_sent_is_no_activity": (["2026-01-31", "-2026-02-10", "-2026-03-10"], "inactive"),
    "a_contact_before_the_first_touch_makes_nobody_known": (["-2026-02-10", "2026-03-01"], "new"),
    "only_ever_contacted": (["-2026-03-10"], None),
}
# Since the last order, orders, revenue: the label. Thresholds 30 90 180 365 whole days, 2 3 5 10, 50 100 250 1000.
RFM: dict[str, tuple[timedelta, int, str | None, str]] = {
    "30 days and a bit": (timedelta(days=31, microseconds=-1), 1, None, "r5f1m1"),
    "31 days": (timedelta(days=31), 1, "49.99", "r4f1m1"),
    "90 days": (timedelta(days=90), 2, "50.00", "r4f2m2"),
    "91 days": (timedelta(days=91), 2, "99.99", "r3f2m2"),
    "180 days": (timedelta(days=180), 3, "100.00", "r3f3m3"),
    "181 days": (timedelta(days=181), 4, "249.99", "r2f3m3"),
    "365 days": (timedelta(days=365), 5, "250.00", "r2f4m4"),
    "366 days": (timedelta(days=366), 9, "999.99", "r1f4m4"),
    "today": (timedelta(0), 10, "1000.00", "r5f5m5"),
}


def rfm_steps(name: str) -> list[tuple[Any, ...]]:
    """The last order carries the whole revenue; the others came a day before each other and cost nothing."""
    since, count, revenue, _ = RFM[name]
    last = datetime.fromisoformat(AS_OF).replace(tzinfo=UTC) - since
    return [
        (
            last - timedelta(days=n),
            ORDER,
            {"order_id": f"{name} {n}", "amount": "0.00" if n else revenue, "currency": "USD"},
        )
        if revenue
        else (last - timedelta(days=n), ORDER, {"order_id": f"{name} {n}"})
        for n in range(count)
    ]


RICH = [
    ("2026-01-01 08:00", SENT, {"source": "outbound"}),
    ("2026-01-01 09:00", "experiment_viewed", {"experiment": "button", "variant": "red"}),
    ("2026-01-02 10:00", PAGE, {"id": "80000000", "source": "second", "medium": "second"}),
    ("2026-01-02 10:00", PAGE, {"id": "7fffffff", "medium": "display", "campaign": "x"}),
    ("2026-01-02 11:00", "experiment_viewed", {"experiment": "button", "variant": "blue", "id": "90000000"}),
    order("2026-01-03 10:00", "rich 1", "10.00", "EUR"),
    order("2026-01-04 10:00", "rich 2", "5.00"),
    order("2026-01-05 10:00", "rich 3", "7.00", "SEK"),
    ("2026-01-06 10:00", REFUND, {"order_id": "rich 1", "amount": "2.00", "currency": "EUR"}),
    ("2026-01-06 11:00", REFUND, {"order_id": "rich 2", "amount": "1.00", "currency": "USD"}),
    ("2026-01-06 12:00", REFUND, {"order_id": "rich 3", "amount": "7.00", "currency": "SEK"}),
    ("2026-01-07 10:00", "store_entered"),
    ("2026-02-10 10:00", SENT),
]
COLUMNS = """
    first_touch_at::varchar, first_channel, first_source, first_medium, first_campaign, first_order_at::varchar,
    last_touch_at::varchar, order_count, revenue::varchar, channel_count, segment, rule_segment, experiment_variant,
    refund_amount::varchar"""


@pytest.fixture(scope="module")
def built(histories: Callable[..., Any]) -> Any:
    views = {
        name: [(f"{day.lstrip('-')} 10:00", SENT if day.startswith("-") else PAGE) for day in days]
        for name, (days, _) in STATES.items()
    }
    everything = {**views, **{name: rfm_steps(name) for name in RFM}, "rich": RICH}
    return histories(everything, as_of=AS_OF, config="currency_rates: {EUR: 1.5}")


@pytest.mark.parametrize("name", STATES)
def test_lifecycle_state_in_the_month_of_data_as_of(built: Any, name: str) -> None:
    assert built.rows(f"select lifecycle_state from customers where customer_key = 'c:{name}'") == [(STATES[name][1],)]


@pytest.mark.parametrize("name", RFM)
def test_rfm_label_by_fixed_thresholds(built: Any, name: str) -> None:
    rows = built.rows(f"select segment, order_count from customers where customer_key = 'c:{name}'")
    assert rows == [(RFM[name][3], RFM[name][1])]


def test_what_a_customer_says(built: Any) -> None:
    touch = "2026-01-02 10:00:00"
    assert built.rows(f"select {COLUMNS} from customers where customer_key = 'c:rich'") == [
        (
            *(
                touch,
                "web",
                None,
                "display",
                "x",
                "2026-01-03 10:00:00",
                "2026-01-07 10:00:00",
                3,
                "20.00",
                2,
                "r4f3m1",
            ),
            # Refunds in the reporting currency: 2 EUR and 1 USD; the krona has no rate.
            *("paid", "button / red", "4.00"),
        )
    ]


def test_who_was_only_ever_contacted_is_a_customer_without_touches(built: Any) -> None:
    rows = built.rows(f"select {COLUMNS} from customers where customer_key = 'c:only_ever_contacted'")
    assert rows == [(None,) * 7 + (0, "0.00", 0, "no_orders", None, None, "0.00")]


def test_touchpoints_without_a_customer_make_none(histories: Callable[..., Any]) -> None:
    built = histories({"c1": [("2026-01-01 10:00", PAGE, {"who": None}), ("2026-01-01 10:00", PAGE)]})
    assert built.rows("select customer_key from customers") == [("c:c1",)]


def test_months_are_those_of_the_reporting_calendar(histories: Callable[..., Any]) -> None:
    # In New York it is still February at 03:00 UTC on 1 March, and January at 04:59 UTC on 1 February.
    cases = {
        "january": [("2026-02-01 04:59:59", PAGE)],
        "february": [("2026-02-01 05:00:00", PAGE)],
        "both": [("2026-02-01 04:59:59", PAGE), ("2026-02-01 05:00:00", PAGE)],
    }
    states = "select customer_key, lifecycle_state from customers order by 1"
    new_york = histories(cases, as_of="2026-03-01 03:00", config="reporting_timezone: America/New_York")
    assert new_york.rows(states) == [("c:both", "returning"), ("c:february", "new"), ("c:january", "dormant")]
    utc = histories(cases, as_of="2026-03-01 03:00")
    assert utc.rows(states) == [("c:both", "dormant"), ("c:february", "dormant"), ("c:january", "dormant")]


CONFIG = """
reporting_timezone: America/New_York
week_starts_on: sunday
reporting_currency: EUR
journey_timeout: 20 days
conversion_window: 10 days
customer_conversion_window: 100 days
churn_days: 90
attribution_lookback: 7 days
retention: [{start_event: first_touch, return_event: order}]
friction: [{signal: wrong, when: "event_type = 'error_encountered'"}, {signal: cold, when: "csat_rating = 1"}]
stages:
  - {stage: awareness}
  - {stage: consideration, is_pre_conversion: true}
  - {stage: purchase}
  - {stage: onboarding}
  - {stage: retention}
  - {stage: advocacy}
"""


def test_parameters_say_what_the_configuration_says(histories: Callable[..., Any]) -> None:
    built = histories({"c1": [("2026-01-01 10:00", PAGE)]}, as_of="2026-03-01 03:00:00.000001", config=CONFIG)
    assert built.rows("""
        select
            data_as_of, reporting_timezone, week_starts_on, reporting_currency, journey_timeout_seconds,
            conversion_window_seconds, customer_conversion_window_seconds, churn_days, attribution_lookback_seconds,
            breakdown_limit, day_intervals, week_intervals, month_intervals
        from parameters""") == [
        (
            *(datetime(2026, 3, 1, 3, 0, 0, 1), "America/New_York", 7, "EUR", 20 * 86400, 10 * 86400, 100 * 86400, 90),
            *(7 * 86400, 50, 31, 26, 24),
        )
    ]
    assert built.rows("select count(*), min(number), max(number) from interval_numbers") == [(31, 0, 30)]
    days = "select min(local_day), max(local_day), max(local_day) - min(local_day) + 1 - count(*) from calendar_days"
    assert built.rows(days) == [(date(1989, 12, 31), date(2026, 2, 28), 0)]  # by New York's clocks
    assert built.rows("from retention_definitions") == [("first_touch", "order")]
    assert built.rows("from friction_definitions order by 1") == [("cold",), ("wrong",)]
    assert built.rows("from stage_definitions order by stage_index") == [
        ("awareness", 1, False),
        ("consideration", 2, True),
        ("purchase", 3, False),
        ("onboarding", 4, False),
        ("retention", 5, False),
        ("advocacy", 6, False),
    ]
