"""Stage conversion, drop-off and retention against plain Python loops over the same random customers."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest

STAGES = [None, "awareness", "consideration", "purchase", "onboarding", "retention", "advocacy"]
ZONE = ZoneInfo("America/New_York")
START = datetime(2026, 2, 20, tzinfo=UTC)  # the clocks change on 8 March
AS_OF = datetime(2026, 4, 10, 12, tzinfo=UTC)
WINDOWS = {"journey": timedelta(days=3), "customer": timedelta(days=5)}
CONFIG = """{reporting_timezone: America/New_York, week_starts_on: wednesday,
    conversion_window: 3 days, customer_conversion_window: 5 days,
    retention: [{start_event: first_order, return_event: order}, {start_event: first_order, return_event: any},
        {start_event: first_touch, return_event: any}, {start_event: first_touch, return_event: order}]}"""
ROLLING_DAYS = {"day": 1, "week": 7, "month": 30}
LIMITS = {"day": 31, "week": 26, "month": 24}


class Touch(NamedTuple):
    """An inbound touchpoint; tuples sort by time, then event id."""

    at: datetime
    event_id: str
    customer: str
    journey: str
    channel: str
    event_type: str
    stage: int
    lifecycle_stage: int
    is_order: bool


def random_touches(warehouse: Any, seed: int, customer_count: int = 250) -> list[Touch]:
    generator = np.random.default_rng(seed)
    touches = []
    for customer in range(customer_count):
        begin = START + timedelta(hours=int(generator.integers(0, 900)))
        for position in range(int(generator.integers(1, 14))):
            hours = int(generator.integers(0, 400)) if position else 0
            # Whole hours make ties; those of one customer fall into up to three journeys by time.
            at = min(begin + timedelta(hours=hours // int(generator.integers(1, 5))), AS_OF)
            third = min((at - begin) // timedelta(days=5), 2)
            touches.append(
                Touch(
                    at,
                    warehouse.event_id(int(generator.integers(1, 2**62))),
                    f"c:{customer}",
                    f"{customer}/{third}",
                    ["web", "email", "store", "support"][generator.integers(0, 4)],
                    ["page_viewed", "cart_viewed"][generator.integers(0, 2)],
                    int(generator.integers(0, 7)),
                    int(generator.integers(0, 7)),
                    bool(generator.random() < 0.25),
                )
            )
    return touches


def fill(warehouse: Any, touches: list[Touch]) -> None:
    naive = [touch.at.replace(tzinfo=None) for touch in touches]
    warehouse.add_columns(
        "touchpoints",
        {
            "event_id": [touch.event_id for touch in touches],
            "customer_key": [touch.customer for touch in touches],
            "journey_id": [warehouse.journey_id(touch.journey) for touch in touches],
            "channel": [touch.channel for touch in touches],
            "event_type": [touch.event_type for touch in touches],
            "direction": ["inbound"] * len(touches),
            "occurred_at": naive,
            "stage": [STAGES[touch.stage] for touch in touches],
            "stage_index": [touch.stage or None for touch in touches],
            "lifecycle_stage": [STAGES[touch.lifecycle_stage] for touch in touches],
            "lifecycle_stage_index": [touch.lifecycle_stage or None for touch in touches],
        },
    )
    for scope, name, time, table in (
        ("journey", "journey_id", "started_at", "journeys"),
        ("customer", "customer_key", "first_touch_at", "customers"),
    ):
        groups = grouped(touches, scope)
        columns = {
            name: [warehouse.journey_id(key) if scope == "journey" else key for key in groups],
            time: [group[0].at.replace(tzinfo=None) for group in groups.values()],
            "first_channel": [group[0].channel for group in groups.values()],
            "revenue": [0] * len(groups),
        }
        if scope == "journey":
            columns |= {"customer_key": [group[0].customer for group in groups.values()]}
            columns |= {"status": ["service" if is_service(key) else "abandoned" for key in groups]}
        warehouse.add_columns(table, columns)
    orders = [
        (touch, index)
        for group in grouped(touches, "customer").values()
        for index, touch in enumerate((touch for touch in group if touch.is_order), 1)
    ]
    warehouse.add_columns(
        "orders",
        {
            "order_id": [touch.event_id for touch, _ in orders],
            "event_id": [touch.event_id for touch, _ in orders],
            "customer_key": [touch.customer for touch, _ in orders],
            "ordered_at": [touch.at.replace(tzinfo=None) for touch, _ in orders],
            "order_index": [index for _, index in orders],
        },
    )


def grouped(touches: list[Touch], scope: str) -> dict[str, list[Touch]]:
    groups: dict[str, list[Touch]] = defaultdict(list)
    for touch in sorted(touches):
        groups[touch.journey if scope == "journey" else touch.customer].append(touch)
    return groups


def is_service(journey: str) -> bool:
    return journey.endswith("/2") and int(journey.split("/", maxsplit=1)[0]) % 3 == 0


def local_day(at: datetime) -> date:
    return at.astimezone(ZONE).date()


def period_of(day: date, period: str) -> date | None:
    if period == "week":
        return day - timedelta(days=(day.weekday() - 2) % 7)
    return {"day": day, "month": day.replace(day=1), "all": None}[period]


def later(day: date, period: str, number: int) -> date:
    if period == "month":
        month = day.month - 1 + number
        return date(day.year + month // 12, month % 12 + 1, 1)
    return day + timedelta(days=number * ROLLING_DAYS[period])


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZONE).astimezone(UTC)


def entries(touches: list[Touch], scope: str) -> list[tuple[list[Touch], int, Touch, str | None, float | None]]:
    """(the entity's touchpoints, stage, first entry, outcome, seconds to advance) of everyone who entered."""
    found = []
    for key, group in grouped(touches, scope).items():
        if scope == "journey" and is_service(key):
            continue
        for stage in range(1, 7):
            stages = [touch.stage if scope == "journey" else touch.lifecycle_stage for touch in group]
            if stage not in stages:
                continue
            position = stages.index(stage)
            entered_at = group[position].at
            after = [touch for touch, other in zip(group[position:], stages[position:], strict=True) if other > stage]
            outcome, seconds = None, None
            if after and after[0].at <= entered_at + WINDOWS[scope]:
                outcome, seconds = "advanced", (after[0].at - entered_at).total_seconds()
            elif stage < 6:
                outcome = "active" if entered_at + WINDOWS[scope] >= AS_OF else "dropped"
            found.append((group, stage, group[position], outcome, seconds))
    return found


@pytest.mark.parametrize("seed", range(2))
def test_stage_conversion_is_what_a_plain_loop_counts(warehouse: Any, seed: int) -> None:
    touches = random_touches(warehouse, seed)
    fill(warehouse, touches)
    warehouse.build(AS_OF.replace(tzinfo=None).isoformat(), config=CONFIG)
    expected: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    times: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for scope in WINDOWS:
        for group, stage, _, outcome, seconds in entries(touches, scope):
            for period in ("day", "week", "month", "all"):
                for breakdown, value in (("none", "(all)"), ("channel", group[0].channel)):
                    cell = (scope, period, period_of(local_day(group[0].at), period), breakdown, value, stage)
                    expected[cell][outcome or "last"] += 1
                    times[cell] += [] if seconds is None else [seconds]
    rows = warehouse.rows("""
        select scope, period, period_start_date, breakdown, breakdown_value, stage_index, entered_count,
            advanced_count, active_count, dropped_count, median_seconds_to_advance, p90_seconds_to_advance
        from stage_conversion where breakdown in ('none', 'channel')""")
    assert {row[:6] for row in rows} == set(expected)
    for row in rows:
        counter, seconds = expected[row[:6]], times[row[:6]]
        outcomes = [None] * 3 if row[5] == 6 else [counter[key] for key in ("advanced", "active", "dropped")]
        assert list(row[6:10]) == [counter.total(), *outcomes]
        quantiles = [np.quantile(seconds, 0.5), np.quantile(seconds, 0.9)] if seconds else [None, None]
        assert list(row[10:]) == (pytest.approx(quantiles) if seconds else quantiles)


@pytest.mark.parametrize("seed", range(2, 4))
def test_drop_off_is_what_a_plain_loop_counts(warehouse: Any, seed: int) -> None:
    touches = random_touches(warehouse, seed)
    fill(warehouse, touches)
    warehouse.build(AS_OF.replace(tzinfo=None).isoformat(), config=CONFIG)
    customers = grouped(touches, "customer")
    expected: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for scope in WINDOWS:
        for group, stage, entry, outcome, _ in entries(touches, scope):
            if outcome != "dropped":
                continue
            last = [touch for touch in group if touch.at <= entry.at + WINDOWS[scope]][-1]
            following = customers[last.customer][customers[last.customer].index(last) + 1 :]
            then = (following[0].channel, following[0].event_type) if following else (None, None)
            days = (following[0].at - last.at).total_seconds() / 86400 if following else float("nan")
            for period in ("day", "week", "month", "all"):
                start = period_of(local_day(group[0].at), period)
                expected[scope, period, start, STAGES[stage], last.channel, last.event_type, *then].append(days)
    rows = warehouse.rows("""
        select scope, period, period_start_date, stage, exit_channel, exit_event_type, next_channel, next_event_type,
            dropped_count, coalesce(median_days_to_next, 'nan'::double) from stage_drop_off""")
    assert {row[:8]: row[8] for row in rows} == {key: len(days) for key, days in expected.items()}
    for row in rows:
        assert row[9] == pytest.approx(np.median(expected[row[:8]]), nan_ok=True)


@pytest.mark.parametrize("seed", range(4, 6))
def test_retention_is_what_a_plain_loop_counts(warehouse: Any, seed: int) -> None:
    touches = random_touches(warehouse, seed, 1_500)
    fill(warehouse, touches)
    warehouse.build(AS_OF.replace(tzinfo=None).isoformat(), config=CONFIG)
    expected: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for start_event in ("first_order", "first_touch"):
        for return_event in ("order", "any"):
            for period in ROLLING_DAYS:
                for mode in ("calendar", "rolling"):
                    expected |= retention_rows(touches, start_event, return_event, period, mode)
    rows = warehouse.rows("""
        select start_event, return_event, period, mode, breakdown_value, cohort_start_date, interval_index,
            cohort_size, bounded_count, unbounded_count, is_complete
        from retention where breakdown in ('none', 'channel')""")
    assert {row[:7]: row[7:] for row in rows} == expected


def retention_rows(
    touches: list[Touch], start_event: str, return_event: str, period: str, mode: str
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Cell to (cohort_size, bounded_count, unbounded_count, is_complete), without and by channel."""
    cohorts: dict[tuple[str, date], list[set[int]]] = defaultdict(list)
    for group in grouped(touches, "customer").values():
        starts = [touch for touch in group if touch.is_order or start_event == "first_touch"]
        if not starts:
            continue
        start = starts[0]
        counts_itself = (start_event, return_event) in (("first_order", "order"), ("first_touch", "any"))
        returns = [touch for touch in group if touch.is_order or return_event == "any"]
        returns = [touch for touch in returns if touch > start or (touch == start and counts_itself)]
        cohort = period_of(local_day(start.at), period)
        assert cohort
        intervals = {interval_of(start, touch, cohort, period, mode) for touch in returns}
        for value in ("(all)", *([group[0].channel] if mode == "calendar" else [])):
            cohorts[value, cohort].append(intervals)
    rows = {}
    width = timedelta(days=ROLLING_DAYS[period])
    for (value, cohort), members in cohorts.items():
        complete, begun = [], []
        for number in range(LIMITS[period]):
            if mode == "calendar":
                begin, end = midnight(later(cohort, period, number)), midnight(later(cohort, period, number + 1))
            else:
                begin = midnight(cohort) + number * width
                end = midnight(later(cohort, period, 1)) + (number + 1) * width
            begun += [number] if begin <= AS_OF else []
            complete += [number] if end <= AS_OF else []
        for number in begun:
            bounded = sum(number in intervals for intervals in members)
            unbounded = sum(any(other in intervals for other in complete[number:]) for intervals in members)
            cell = (start_event, return_event, period, mode, value, cohort, number)
            known = unbounded if number in complete else None
            rows[cell] = (len(members), bounded, known, number in complete)
    return rows


def interval_of(start: Touch, touch: Touch, cohort: date, period: str, mode: str) -> int:
    if mode == "rolling":
        return (touch.at - start.at) // timedelta(days=ROLLING_DAYS[period])
    number = 0
    while later(cohort, period, number + 1) <= local_day(touch.at):
        number += 1
    return number
