"""The tables about customers over time against plain Python loops over the same random customers.

The loops ask every customer in every period, by the words of docs/semantics.md, sections 9 and 13.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest

ZONE = ZoneInfo("America/New_York")  # the clocks change on 8 March
START = datetime(2025, 12, 20, 5, tzinfo=UTC)  # a local midnight
AS_OF = datetime(2026, 4, 10, 12, tzinfo=UTC)
CHANNELS = ["web", "email", "store", "support"]
STATUSES = ["converted", "abandoned", "active", "service"]
LIMITS = {"day": 31, "week": 26, "month": 24}


class Touch(NamedTuple):
    """An inbound touchpoint."""

    at: datetime
    channel: str
    is_order: bool
    revenue: Decimal | None


class Customer(NamedTuple):
    """A customer's touchpoints by time, journeys' statuses and segment."""

    key: str
    touches: list[Touch]
    statuses: list[str]
    scores: tuple[int, int, int] | None

    @property
    def orders(self) -> list[Touch]:
        return [touch for touch in self.touches if touch.is_order]

    @property
    def segment(self) -> str:
        return "r{}f{}m{}".format(*self.scores) if self.scores else "no_orders"

    @property
    def revenue(self) -> Decimal:
        return sum((order.revenue or Decimal() for order in self.orders), Decimal())


def random_customers(seed: int, count: int) -> list[Customer]:
    """Half days since a local midnight, an hour less or a microsecond more: ties, boundaries, days of 23 hours."""
    generator = np.random.default_rng(seed)
    nudges = [timedelta(), timedelta(), timedelta(hours=-1), timedelta(microseconds=1)]
    customers = []
    for number in range(count):
        first = int(generator.integers(0, 222))
        touches = []
        for _ in range(int(generator.integers(1, 12))):
            steps = min(first + int(generator.exponential(30)), 223)
            touches.append(
                Touch(
                    min(START + steps * timedelta(hours=12) + nudges[generator.integers(0, 4)], AS_OF),
                    CHANNELS[generator.choice(4, p=[0.6, 0.2, 0.15, 0.05])],
                    bool(generator.random() < 0.4),
                    None if generator.random() < 0.1 else Decimal(int(generator.integers(0, 9999))) / 100,
                )
            )
        statuses = [STATUSES[generator.integers(0, 4)] for _ in range(int(generator.integers(0, 4)))]
        scores = (int(generator.integers(1, 3)), int(generator.integers(1, 3)), 1)
        has_order = any(touch.is_order for touch in touches)
        ordered = sorted(touches, key=lambda touch: touch.at)
        customers.append(Customer(f"c:{number}", ordered, statuses, scores if has_order else None))
    return customers


def fill(warehouse: Any, customers: list[Customer], seed: int) -> None:
    """The customers' rows of silver, in any order; event ids say nothing of it."""
    generator = np.random.default_rng(seed)
    touches = [(customer, touch) for customer in customers for touch in customer.touches]
    ids = [warehouse.event_id(int(number)) for number in generator.permutation(len(touches))]
    rows = [(event_id, customer, touch) for event_id, (customer, touch) in zip(ids, touches, strict=True)]
    rows = [rows[place] for place in generator.permutation(len(rows))]
    warehouse.add_columns(
        "touchpoints",
        {
            "event_id": [event_id for event_id, _, _ in rows],
            "customer_key": [customer.key for _, customer, _ in rows],
            "channel": [touch.channel for _, _, touch in rows],
            "event_type": ["page_viewed"] * len(rows),
            "direction": ["inbound"] * len(rows),
            "occurred_at": [touch.at.replace(tzinfo=None) for _, _, touch in rows],
        },
    )
    orders = sorted(
        ((customer.key, touch.at, event_id, touch) for event_id, customer, touch in rows if touch.is_order),
        key=lambda row: row[:3],
    )
    seen: Counter[str] = Counter()
    order_indices = []
    for key, *_ in orders:
        seen[key] += 1
        order_indices.append(seen[key])
    warehouse.add_columns(
        "orders",
        {
            "order_id": [event_id for _, _, event_id, _ in orders],
            "event_id": [event_id for _, _, event_id, _ in orders],
            "customer_key": [key for key, *_ in orders],
            "channel": [touch.channel for *_, touch in orders],
            "ordered_at": [at.replace(tzinfo=None) for _, at, *_ in orders],
            "order_index": order_indices,
            "revenue": [touch.revenue for *_, touch in orders],
        },
    )
    warehouse.add_columns(
        "customers",
        {
            "customer_key": [customer.key for customer in customers],
            "first_touch_at": [customer.touches[0].at.replace(tzinfo=None) for customer in customers],
            "channel_count": [len({touch.channel for touch in customer.touches}) for customer in customers],
            "revenue": [customer.revenue for customer in customers],
            "segment": [customer.segment for customer in customers],
            **{
                f"{name}_score": [customer.scores[place] if customer.scores else None for customer in customers]
                for place, name in enumerate(("recency", "frequency", "monetary"))
            },
        },
    )
    journeys = [(customer, number) for customer in customers for number in range(len(customer.statuses))]
    statuses = [customer.statuses[number] for customer, number in journeys]
    warehouse.add_columns(
        "journeys",
        {
            "journey_id": [warehouse.journey_id(f"{customer.key}/{number}") for customer, number in journeys],
            "customer_key": [customer.key for customer, _ in journeys],
            "started_at": [customer.touches[0].at.replace(tzinfo=None) for customer, _ in journeys],
            "status": statuses,
            "converted_at": [AS_OF.replace(tzinfo=None) if status == "converted" else None for status in statuses],
            "revenue": [Decimal()] * len(journeys),
        },
    )


def local_day(at: datetime) -> date:
    return at.astimezone(ZONE).date()


def period_of(at: datetime, period: str) -> date:
    day = local_day(at)
    if period == "week":
        return day - timedelta(days=(day.weekday() - 2) % 7)  # weeks start on wednesday
    return day.replace(day=1) if period == "month" else day


def following(day: date, period: str) -> date:
    if period == "month":
        return (day.replace(day=28) + timedelta(days=4)).replace(day=1)
    return day + timedelta(days=7 if period == "week" else 1)


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZONE).astimezone(UTC)


def periods(first: datetime, period: str) -> Iterator[tuple[date, date, bool]]:
    """(first day, the next period's first day, is complete) from the one of `first` to the one that holds AS_OF."""
    day = period_of(first, period)
    while midnight(day) <= AS_OF:
        after = following(day, period)
        yield day, after, midnight(after) <= AS_OF
        day = after


def lifecycle(customers: list[Customer]) -> dict[tuple[Any, ...], Any]:
    found: Counter[tuple[Any, ...]] = Counter()
    begin = min(customer.touches[0].at for customer in customers)
    for period in LIMITS:
        active = {customer.key: {period_of(touch.at, period) for touch in customer.touches} for customer in customers}
        before = None
        for day, _, is_complete in periods(begin, period):
            for own in active.values():
                if min(own) > day:
                    continue
                if day in own:
                    state = "new" if min(own) == day else "returning" if before in own else "resurrected"
                else:
                    state = "dormant" if before in own else "inactive"
                found[period, day, state, is_complete] += 1
            before = day
    return dict(found)


def stickiness(customers: list[Customer]) -> dict[tuple[Any, ...], Any]:
    found: Counter[tuple[Any, ...]] = Counter()
    for customer in customers:
        for period in ("week", "month"):
            days = {(period_of(touch.at, period), local_day(touch.at)) for touch in customer.touches}
            for day, count in Counter(day for day, _ in days).items():
                found[period, day, count, midnight(following(day, period)) <= AS_OF] += 1
    return dict(found)


def churn(customers: list[Customer], churn_days: int) -> dict[tuple[Any, ...], Any]:
    found = {}
    limit = timedelta(days=churn_days)
    orders = [[order.at for order in customer.orders] for customer in customers]
    for period in LIMITS:
        for day, after, is_complete in periods(START - timedelta(days=1), period):
            begin, end = midnight(day), midnight(after)
            base = [times for times in orders if any(begin - limit <= at < begin for at in times)]
            churned = [
                times
                for times in base
                if any(
                    begin <= at + limit < end
                    and at + limit <= AS_OF
                    and not any(at < other <= at + limit for other in times)
                    for at in times
                )
            ]
            if base:
                found[period, day] = (len(base), len(churned), is_complete)
    return found


def cohorts(customers: list[Customer]) -> dict[tuple[str, date], list[Customer]]:
    found: dict[tuple[str, date], list[Customer]] = defaultdict(list)
    for customer in customers:
        for period in LIMITS if customer.orders else ():
            found[period, period_of(customer.orders[0].at, period)].append(customer)
    return found


def repeat_purchase(customers: list[Customer]) -> dict[tuple[Any, ...], Any]:
    found = {}
    for (period, day), members in cohorts(customers).items():
        gaps = [
            (later.at - earlier.at).total_seconds() / 86400
            for member in members
            for earlier, later in pairwise(member.orders)
        ]
        found[period, day] = (
            len(members),
            sum(len({local_day(order.at) for order in member.orders}) >= 2 for member in members),
            sum(len(member.orders) >= 2 for member in members),
            sum(len(member.orders) for member in members),
            pytest.approx(median(gaps)) if gaps else None,
            midnight(following(day, period)) <= AS_OF,
        )
    return found


def to_the_cent(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.01"), ROUND_HALF_UP)


def customer_value(customers: list[Customer]) -> dict[tuple[Any, ...], Any]:
    found = {}
    for (period, day), members in cohorts(customers).items():
        intervals = list(periods(midnight(day), period))[: LIMITS[period]]
        for number, (_, after, is_complete) in enumerate(intervals):
            orders = [order for member in members for order in member.orders if order.at < midnight(after)]
            revenue = sum((order.revenue or Decimal() for order in orders), Decimal())
            values = (revenue, to_the_cent(revenue / len(members))) if is_complete else (None, None)
            found[period, day, number] = (len(members), *values, is_complete)
    return found


def outcomes(members: list[Customer]) -> tuple[Any, ...]:
    """(decided, converted, months, retained months, revenue)."""
    statuses = Counter(status for member in members for status in member.statuses)
    months, retained = 0, 0
    for member in members:
        active = {period_of(touch.at, "month") for touch in member.touches}
        for month in active:
            after = following(month, "month")
            if midnight(following(after, "month")) <= AS_OF:
                months += 1
                retained += after in active
    revenue = sum((member.revenue for member in members), Decimal())
    return statuses["converted"] + statuses["abandoned"], statuses["converted"], months, retained, revenue


def grouped(customers: list[Customer], name_of: Callable[[Customer], str]) -> dict[str, list[Customer]]:
    found: dict[str, list[Customer]] = defaultdict(list)
    for customer in customers:
        found[name_of(customer)].append(customer)
    return found


def check(warehouse: Any, seed: int, *, count: int, churn_days: int) -> None:
    """Every count of the seven tables, of the same random customers."""
    customers = random_customers(seed, count)
    fill(warehouse, customers, seed)
    warehouse.build(
        AS_OF.replace(tzinfo=None).isoformat(),
        config=f"{{reporting_timezone: America/New_York, week_starts_on: wednesday, churn_days: {churn_days}}}",
    )

    def table(name: str, keys: str, values: str) -> dict[Any, Any]:
        width = len(keys.split(","))
        rows = warehouse.rows(f"select {keys}, {values} from {name}")
        return {row[:width]: row[width] if len(row) == width + 1 else row[width:] for row in rows}

    keys = "period, period_start_date, state, is_complete"
    assert table("lifecycle", keys, "customer_count") == lifecycle(customers)
    keys = "period, period_start_date, active_days, is_complete"
    assert table("stickiness", keys, "customer_count") == stickiness(customers)
    values = "active_customer_count, churned_customer_count, is_complete"
    assert table("churn", "period, period_start_date", values) == churn(customers, churn_days)
    values = """customer_count, repeat_customer_count, repeat_by_order_count, order_count,
        median_days_between_orders, is_complete"""
    assert table("repeat_purchase", "period, cohort_start_date", values) == repeat_purchase(customers)
    values = "customer_count, cumulative_revenue, cumulative_revenue_per_customer, is_complete"
    assert table("customer_value", "period, cohort_start_date, interval_index", values) == customer_value(customers)
    counts = "decided_journey_count, converted_journey_count, month_count, retained_month_count, revenue"
    by_channels = grouped(customers, lambda customer: ",".join(sorted({touch.channel for touch in customer.touches})))
    assert table("channel_mix", "channels, customer_count, journey_count", f"{counts}, revenue_per_customer") == {
        (channels, len(members), sum(len(member.statuses) for member in members)): (
            *(own := outcomes(members)),
            to_the_cent(own[-1] / len(members)),
        )
        for channels, members in by_channels.items()
    }
    assert table("segments", "segment, customer_count", counts) == {
        (segment, len(members)): outcomes(members)
        for segment, members in grouped(customers, lambda customer: customer.segment).items()
    }


@pytest.mark.parametrize(("seed", "churn_days"), [(1, 12), (2, 40)])
def test_every_table_is_what_a_plain_loop_counts(warehouse: Any, seed: int, churn_days: int) -> None:
    check(warehouse, seed, count=300, churn_days=churn_days)


@pytest.mark.campaign
def test_every_table_is_what_a_plain_loop_counts_of_thousands(warehouse: Any, figures: Callable[..., None]) -> None:
    check(warehouse, 3, count=5000, churn_days=20)
    figures(customers=5000, mismatches=0)
