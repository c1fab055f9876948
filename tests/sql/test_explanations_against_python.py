"""Drivers, impact, experiments, satisfaction, support and the journey map against plain Python loops.

The customers are random: times on whole hours make ties, windows end on them, event ids come in any order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from scipy import stats

STAGES = [None, "awareness", "consideration", "purchase", "onboarding", "retention", "advocacy"]
CHANNELS = ["web", "email", "store", "support"]
SIGNALS = ["error", "removed", "refund", "never_seen"]
EXPERIMENTS = {"layout": ["control", "one_page", "two_pages"], "colour": ["red", "control"], "font": ["small", "large"]}
ZONE = ZoneInfo("America/New_York")
START = datetime(2026, 2, 20, tzinfo=UTC)  # the clocks change on 8 March
AS_OF = datetime(2026, 4, 10, 12, tzinfo=UTC)
WINDOW = timedelta(days=3)
CONFIG = f"""{{reporting_timezone: America/New_York, week_starts_on: wednesday, conversion_window: 3 days,
    experiment_controls: {{colour: red}},
    friction: [{", ".join(f"{{signal: {signal}, when: is_clock_skewed}}" for signal in SIGNALS)}]}}"""


class Touch(NamedTuple):
    """A touchpoint; tuples sort by time, then event id."""

    at: datetime
    event_id: str
    customer: str
    journey: str | None
    channel: str
    event_type: str
    is_inbound: bool
    stage: int
    signals: tuple[str, ...]
    is_order: bool
    ticket: str | None
    csat: int | None
    nps: int | None
    experiment: str | None
    variant: str | None


class Ticket(NamedTuple):
    """A ticket as silver has it."""

    created_at: datetime | None
    first_reply_at: datetime | None
    solved_at: datetime | None
    reopened_count: int
    csat: int | None


class World(NamedTuple):
    """Random silver: `conversions` holds the converting touchpoint of each converted journey."""

    touches: list[Touch]
    journeys: dict[str, list[Touch]]
    statuses: dict[str, str]
    conversions: dict[str, Touch]
    tickets: list[Ticket]


def random_world(warehouse: Any, seed: int, customer_count: int) -> World:
    generator = np.random.default_rng(seed)
    pick = lambda values: values[generator.integers(0, len(values))]  # noqa: E731
    touches = []
    for customer in range(customer_count):
        begin = START + timedelta(hours=int(generator.integers(0, 900)))
        for position in range(int(generator.integers(1, 16))):
            hours = int(generator.integers(0, 300)) if position else 0
            at = min(begin + timedelta(hours=hours // int(generator.integers(1, 6))), AS_OF)
            is_inbound = position == 0 or generator.random() < 0.65
            experiment = pick(list(EXPERIMENTS)) if not is_inbound and generator.random() < 0.7 else None
            has_ticket, is_answer = generator.random() < 0.3, is_inbound and generator.random() < 0.3
            touches.append(
                Touch(
                    at,
                    warehouse.event_id(int(generator.integers(1, 2**62))),
                    f"c:{customer}",
                    f"{customer}/{min((at - begin) // timedelta(days=5), 2)}",
                    pick(CHANNELS),
                    "experiment_viewed"
                    if experiment
                    else pick(["ticket_created"] if has_ticket else ["a", "b", "c", "d"]),
                    bool(is_inbound),
                    int(generator.integers(0, 7)) if is_inbound else 0,
                    tuple(signal for signal in SIGNALS[:3] if generator.random() < 0.1),
                    bool(is_inbound and generator.random() < 0.2),
                    f"t{customer % 40}/{generator.integers(0, 2)}" if has_ticket or generator.random() < 0.1 else None,
                    int(generator.integers(1, 6)) if is_answer and generator.random() < 0.6 else None,
                    int(generator.integers(0, 11)) if is_answer and generator.random() < 0.6 else None,
                    experiment,
                    pick(EXPERIMENTS[experiment]) if experiment else None,
                )
            )
    inbound_journeys = {touch.journey for touch in touches if touch.is_inbound}
    touches = [touch if touch.journey in inbound_journeys else touch._replace(journey=None) for touch in touches]
    journeys: dict[str, list[Touch]] = defaultdict(list)
    for touch in sorted(touches):
        if touch.journey:
            journeys[touch.journey].append(touch)
    statuses = {name: str(pick(["converted", "abandoned", "active", "service"])) for name in journeys}
    conversions = {
        name: pick([touch for touch in journey if touch.is_inbound])
        for name, journey in journeys.items()
        if statuses[name] == "converted"
    }
    return World(sorted(touches), journeys, statuses, conversions, random_tickets(generator, customer_count))


def random_tickets(generator: np.random.Generator, count: int) -> list[Ticket]:
    def moment(chance: float) -> datetime | None:
        return START + timedelta(hours=int(generator.integers(0, 1180))) if generator.random() < chance else None

    return [
        Ticket(
            moment(0.9), moment(0.7), moment(0.7), int(generator.integers(0, 3)),
            int(generator.integers(1, 6)) if generator.random() < 0.4 else None,
        )
        for _ in range(count)
    ]  # fmt: skip


def naive(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=None) if at else None


def fill(warehouse: Any, world: World) -> None:
    touches, converting = world.touches, {touch.event_id for touch in world.conversions.values()}
    warehouse.add_columns(
        "touchpoints",
        {
            "event_id": [touch.event_id for touch in touches],
            "customer_key": [touch.customer for touch in touches],
            "journey_id": [touch.journey and warehouse.journey_id(touch.journey) for touch in touches],
            "channel": [touch.channel for touch in touches],
            "event_type": [touch.event_type for touch in touches],
            "direction": ["inbound" if touch.is_inbound else "outbound" for touch in touches],
            "occurred_at": [naive(touch.at) for touch in touches],
            "stage": [STAGES[touch.stage] for touch in touches],
            "stage_index": [touch.stage or None for touch in touches],
            "is_friction": [bool(touch.signals) for touch in touches],
            "friction_signals": [list(touch.signals) for touch in touches],
            "is_conversion": [touch.event_id in converting for touch in touches],
            "ticket_id": [touch.ticket for touch in touches],
            "csat_rating": [touch.csat for touch in touches],
            "nps_score": [touch.nps for touch in touches],
            "experiment": [touch.experiment for touch in touches],
            "variant": [touch.variant for touch in touches],
        },
    )
    names = list(world.journeys)
    inbound = {name: [touch for touch in world.journeys[name] if touch.is_inbound] for name in names}
    warehouse.add_columns(
        "journeys",
        {
            "journey_id": [warehouse.journey_id(name) for name in names],
            "customer_key": [world.journeys[name][0].customer for name in names],
            "status": [world.statuses[name] for name in names],
            "started_at": [naive(inbound[name][0].at) for name in names],
            "ended_at": [naive(inbound[name][-1].at) for name in names],
            "converted_at": [
                naive(world.conversions[name].at) if name in world.conversions else None for name in names
            ],
            "first_channel": [inbound[name][0].channel for name in names],
            "revenue": [0] * len(names),
        },
    )
    visits = [(name, *visit) for name in names for visit in stage_visits(inbound[name])]
    warehouse.add_columns(
        "stage_visits",
        {
            "journey_id": [warehouse.journey_id(name) for name, *_ in visits],
            "visit_index": [index for _, index, *_ in visits],
            "stage": [STAGES[visit[0].stage] for _, _, visit, _ in visits],
            "stage_index": [visit[0].stage for _, _, visit, _ in visits],
            "entered_at": [naive(visit[0].at) for _, _, visit, _ in visits],
            "exited_at": [naive(exited_at) for *_, exited_at in visits],
            "touchpoint_count": [len(visit) for _, _, visit, _ in visits],
        },
    )
    fill_orders(warehouse, world)
    warehouse.add_columns(
        "tickets",
        {
            "ticket_id": [f"t{number}" for number in range(len(world.tickets))],
            "created_at": [naive(ticket.created_at) for ticket in world.tickets],
            "first_reply_at": [naive(ticket.first_reply_at) for ticket in world.tickets],
            "solved_at": [naive(ticket.solved_at) for ticket in world.tickets],
            "reopened_count": [ticket.reopened_count for ticket in world.tickets],
            "csat_rating": [ticket.csat for ticket in world.tickets],
        },
    )


def fill_orders(warehouse: Any, world: World) -> None:
    seen: Counter[str] = Counter()
    orders = []
    for touch in world.touches:
        if touch.is_order:
            seen[touch.customer] += 1
            orders.append((touch, seen[touch.customer]))
    warehouse.add_columns(
        "orders",
        {
            "order_id": [touch.event_id for touch, _ in orders],
            "event_id": [touch.event_id for touch, _ in orders],
            "customer_key": [touch.customer for touch, _ in orders],
            "channel": [touch.channel for touch, _ in orders],
            "ordered_at": [naive(touch.at) for touch, _ in orders],
            "order_index": [index for _, index in orders],
            "revenue": [revenue_of(touch) for touch, _ in orders],
        },
    )


def revenue_of(touch: Touch) -> Decimal | None:
    cents = int(touch.event_id[-2:], 16)
    return Decimal(cents) / 100 if cents % 5 else None


def stage_visits(inbound: list[Touch]) -> list[tuple[int, list[Touch], datetime]]:
    """(index, touchpoints, time of leaving) of every visit: runs of one stage, unstaged ones do not break them."""
    runs: list[list[Touch]] = []
    for touch in inbound:
        if touch.stage and runs and runs[-1][0].stage == touch.stage:
            runs[-1].append(touch)
        elif touch.stage:
            runs.append([touch])
    leaving = [run[0].at for run in runs[1:]] + [run[-1].at for run in runs[-1:]]
    return [(index, run, left) for index, (run, left) in enumerate(zip(runs, leaving, strict=True), 1)]


def build(warehouse: Any, seed: int, customer_count: int = 200) -> World:
    world = random_world(warehouse, seed, customer_count)
    fill(warehouse, world)
    warns = ["replies_and_solves_follow_the_creation"]  # random tickets are answered at any time
    warehouse.build(naive(AS_OF).isoformat(), config=CONFIG, warns=warns)  # type: ignore[union-attr]
    return world


def wilson(successes: int, trials: int) -> tuple[float, float]:
    interval = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return interval.low, interval.high


def newcombe(successes: int, trials: int, base_successes: int, base_trials: int) -> tuple[float, float, float]:
    """Lift and its bounds: the distances of each side's Wilson bounds, put together like the legs of a triangle."""
    ratio, base = successes / trials, base_successes / base_trials
    (low, high), (base_low, base_high) = wilson(successes, trials), wilson(base_successes, base_trials)
    lift = ratio - base
    return lift, lift - math.hypot(ratio - low, base_high - base), lift + math.hypot(high - ratio, base - base_low)


def close(values: Any) -> Any:
    return tuple(
        value if value is None or isinstance(value, str) else pytest.approx(value, abs=1e-9) for value in values
    )


def local_period(at: datetime, period: str) -> date:
    day = at.astimezone(ZONE).date()
    if period == "week":
        return day - timedelta(days=(day.weekday() - 2) % 7)
    return day if period == "day" else day.replace(day=1)


def is_over(start: date, period: str) -> bool:
    ends = {"day": start + timedelta(days=1), "week": start + timedelta(days=7)}
    following = ends.get(period) or (start.replace(day=1) + timedelta(days=31)).replace(day=1)
    return datetime(following.year, following.month, following.day, tzinfo=ZONE) <= AS_OF


def stage_before(world: World, touch: Touch) -> int | None:
    earlier = [other.stage for other in world.journeys.get(touch.journey or "", ()) if other < touch and other.stage]
    return earlier[-1] if earlier else None


def check_drivers(warehouse: Any, world: World) -> None:
    cells: dict[tuple[str, str], Counter[str]] = {}
    for name, journey in world.journeys.items():
        for stage in range(1, 6):
            entries = [index for index, touch in enumerate(journey) if touch.stage == stage]
            if world.statuses[name] == "service" or not entries:
                continue
            first = entries[0]
            until = journey[first].at + WINDOW
            later = [index for index, touch in enumerate(journey) if index > first and touch.stage > stage]
            if later and journey[later[0]].at <= until:
                outcome, stay = "advanced", journey[first : later[0]]
            elif until >= AS_OF:
                continue
            else:
                exit_index = max(i for i, touch in enumerate(journey) if touch.is_inbound and touch.at <= until)
                outcome, stay = "dropped", journey[first : exit_index + 1]
            met = {signal for touch in stay for signal in touch.signals}
            for signal in SIGNALS:
                cell = cells.setdefault((str(STAGES[stage]), signal), Counter())
                cell[f"{'with' if signal in met else 'without'}_{outcome}"] += 1
    rows = warehouse.rows("""
        select stage, signal, with_signal_advanced, with_signal_dropped, without_signal_advanced,
            without_signal_dropped, odds_ratio, odds_ratio_low, odds_ratio_high, is_small_sample
        from drop_off_drivers""")
    assert {row[:2] for row in rows} == set(cells)
    for row in rows:
        counter = cells[row[:2]]
        a, b, c, d = (
            counter[f"{side}_{outcome}"] for side in ("with", "without") for outcome in ("advanced", "dropped")
        )
        assert row[2:6] == (a, b, c, d)
        assert row[9] == (a + b < 25)
        if min(a + b, c + d, a + c, b + d) == 0:
            assert row[6:9] == (None, None, None)
        else:
            log_odds = np.log([a + 0.5, d + 0.5]).sum() - np.log([b + 0.5, c + 0.5]).sum()
            error = np.sqrt((1 / (np.array([a, b, c, d]) + 0.5)).sum()) * stats.norm.ppf(0.975)
            assert row[6:9] == pytest.approx(tuple(np.exp([log_odds, log_odds - error, log_odds + error])))


def check_impact(warehouse: Any, world: World) -> None:
    decided = {name for name, status in world.statuses.items() if status in ("converted", "abandoned")}
    converted = {name for name in decided if world.statuses[name] == "converted"}
    holders: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in decided:
        last = max(touch for touch in world.journeys[name] if touch.is_inbound)
        for touch in world.journeys[name]:
            if touch < world.conversions[name] if name in converted else touch.at <= last.at:
                holders[touch.channel, touch.event_type].add(name)
    rows = warehouse.rows("""
        select channel, event_type, journeys_with, converted_with, journeys_without, converted_without,
            lift, lift_low, lift_high from touchpoint_impact""")
    assert {row[:2] for row in rows} == set(holders)
    for row in rows:
        having = holders[row[:2]]
        counts = (len(having), len(having & converted), len(decided - having), len(converted - having))
        assert row[2:6] == counts
        assert row[6:] == close(newcombe(counts[1], counts[0], counts[3], counts[2]))


def check_experiments(warehouse: Any, world: World) -> None:
    views: dict[tuple[str, str], list[Touch]] = defaultdict(list)
    for touch in world.touches:
        if touch.experiment:
            views[touch.experiment, touch.customer].append(touch)
    customers: dict[tuple[str, str | None], Counter[str]] = {
        (touch.experiment, touch.variant): Counter() for touch in world.touches if touch.experiment
    }
    revenues: dict[tuple[str, str | None], Decimal] = defaultdict(Decimal)
    orders = [touch for touch in world.touches if touch.is_order]
    for (experiment, customer), seen in views.items():
        first = min(seen)
        cell = experiment, first.variant
        bought = [order for order in orders if order.customer == customer and order > first]
        bought = [order for order in bought if order.at <= first.at + WINDOW]
        if len({touch.variant for touch in seen}) > 1:
            customers[cell]["excluded"] += 1
        elif first.at + WINDOW >= AS_OF:
            customers[cell]["pending"] += 1
        else:
            customers[cell]["all"] += 1
            customers[cell]["converted"] += bool(bought)
            revenues[cell] += sum((revenue_of(order) or Decimal(0) for order in bought), Decimal(0))
    rows = warehouse.rows("""
        select experiment, variant, is_control, customer_count, converted_count, pending_count, excluded_count, revenue,
            revenue_per_customer, lift, lift_low, lift_high, p_value from experiments""")
    assert {row[:2] for row in rows} == set(customers)
    for experiment, variant, is_control, *counts, revenue_per_customer, lift, lift_low, lift_high, p_value in rows:
        cell = customers[experiment, variant]
        assert counts == [
            *(cell[key] for key in ("all", "converted", "pending", "excluded")),
            revenues[experiment, variant],
        ]
        control = {"layout": "control", "colour": "red"}.get(experiment)
        assert is_control == (variant == control)
        assert revenue_per_customer == pytest.approx(revenues[experiment, variant] / cell["all"], abs=Decimal("0.005"))
        if control in (None, variant):
            assert (lift, lift_low, lift_high, p_value) == (None, None, None, None)
        else:
            base = customers[experiment, control]
            table = [[group["converted"], group["all"] - group["converted"]] for group in (cell, base)]
            expected = newcombe(cell["converted"], cell["all"], base["converted"], base["all"])
            assert (lift, lift_low, lift_high) == close(expected)
            assert p_value == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


def answers(world: World) -> list[tuple[Touch, int | None, str]]:
    """Every answer with its stage and channel."""
    first_of_ticket: dict[str, Touch] = {}
    for touch in sorted(world.touches, key=lambda touch: (touch.event_type != "ticket_created", touch)):
        if touch.ticket:
            first_of_ticket.setdefault(touch.ticket, touch)
    return [
        (touch, stage_before(world, touch), (first_of_ticket[touch.ticket] if touch.ticket else touch).channel)
        for touch in world.touches
        if touch.csat is not None or touch.nps is not None
    ]


def score(given: list[Touch]) -> tuple[int, int, float | None, int, int, int, float | None]:
    csat = [touch.csat for touch in given if touch.csat is not None]
    nps = [touch.nps for touch in given if touch.nps is not None]
    satisfied = sum(rating in (4, 5) for rating in csat)
    promoters, detractors = sum(value in (9, 10) for value in nps), sum(value <= 6 for value in nps)
    csat_ratio = satisfied / len(csat) if csat else None
    score = 100 * promoters / len(nps) - 100 * detractors / len(nps) if nps else None
    return len(csat), satisfied, csat_ratio, len(nps), promoters, detractors, score


def check_satisfaction(warehouse: Any, world: World) -> None:
    cells: dict[tuple[Any, ...], list[Touch]] = defaultdict(list)
    for touch, stage, channel in answers(world):
        for period in ("day", "week", "month"):
            cells[period, local_period(touch.at, period), STAGES[stage or 0], channel].append(touch)
    rows = warehouse.rows("""
        select period, period_start_date, stage, channel, is_complete, csat_ratio_low, csat_ratio_high, csat_count,
            csat_satisfied_count, csat_ratio, nps_count, promoter_count, detractor_count, nps from satisfaction""")
    assert {row[:4] for row in rows} == set(cells)
    for row in rows:
        expected = score(cells[row[:4]])
        assert row[4] == is_over(row[1], row[0])
        assert row[5:7] == (close(wilson(expected[1], expected[0])) if expected[0] else (None, None))
        assert row[7:] == close(expected)


def check_support(warehouse: Any, world: World) -> None:
    created: dict[tuple[str, date], list[Ticket]] = defaultdict(list)
    solved: dict[tuple[str, date], list[Ticket]] = defaultdict(list)
    for ticket in world.tickets:
        for period in ("day", "week", "month"):
            for at, groups in ((ticket.created_at, created), (ticket.solved_at, solved)):
                if at:
                    groups[period, local_period(at, period)].append(ticket)
    rows = warehouse.rows("""
        select period, period_start_date, is_complete, ticket_count, solved_count, reopened_count, replied_count,
            solved_in_period_count, csat_answered_count, csat_answer_ratio,
            median_first_reply_seconds, median_resolution_seconds, p90_resolution_seconds
        from support_resolution""")
    assert {row[:2] for row in rows} == set(created) | set(solved)
    for row in rows:
        tickets, solves = created[row[:2]], solved[row[:2]]
        answered = sum(ticket.csat is not None for ticket in solves)
        assert row[2:10] == (
            is_over(row[1], row[0]), len(tickets), sum(ticket.solved_at is not None for ticket in tickets),
            sum(ticket.reopened_count > 0 for ticket in tickets),
            sum(ticket.first_reply_at is not None for ticket in tickets), len(solves), answered,
            answered / len(solves) if solves else None,
        )  # fmt: skip
        for seconds, moment, share in (
            (row[10], "first_reply_at", 0.5), (row[11], "solved_at", 0.5), (row[12], "solved_at", 0.9)
        ):  # fmt: skip
            times = [
                (getattr(ticket, moment) - ticket.created_at).total_seconds()
                for ticket in tickets
                if ticket.created_at and getattr(ticket, moment)
            ]
            assert seconds == (pytest.approx(np.quantile(times, share)) if times else None)


def check_map(warehouse: Any, world: World) -> None:
    touches, given, troubled = defaultdict(list), defaultdict(list), defaultdict(list)
    times: dict[tuple[int, str], list[float]] = defaultdict(list)
    for touch in world.touches:
        if touch.stage:
            touches[touch.stage, touch.channel].append(touch)
        if touch.signals and (stage := touch.stage or stage_before(world, touch)):
            troubled[stage, touch.channel].append(touch)
    for touch, stage, channel in answers(world):
        if stage:
            given[stage, channel].append(touch)
    for journey in world.journeys.values():
        inbound = [touch for touch in journey if touch.is_inbound]
        for _, visit, left in stage_visits(inbound):
            entering = min(touch for touch in inbound if (touch.at, touch.stage) == (visit[0].at, visit[0].stage))
            times[visit[0].stage, entering.channel].append((left - visit[0].at).total_seconds())
    rows = warehouse.rows("""
        select stage_index, channel, customer_count, touchpoint_count, top_event_types, conversion_ratio,
            median_seconds_in_stage, csat_ratio, nps, friction_count, top_friction, sentiment from journey_map""")
    assert {row[:2] for row in rows} == set(touches) | set(given) | set(troubled)
    for row in rows:
        here = touches[row[:2]]
        types = Counter(touch.event_type for touch in here)
        top = sorted(types, key=lambda name: (-types[name], name))[:3]
        signals = Counter(signal for touch in troubled[row[:2]] for signal in touch.signals)
        statuses = [world.statuses[name] for name in {str(touch.journey) for touch in here}]
        decided = [status for status in statuses if status in ("converted", "abandoned")]
        _, _, csat_ratio, _, _, _, nps = score(given[row[:2]])
        moods = [(touch.csat - 3) / 2 for touch in given[row[:2]] if touch.csat is not None]
        moods += [(touch.nps >= 9) - (touch.nps <= 6) for touch in given[row[:2]] if touch.nps is not None]
        assert row[2:] == close(
            (
                len({touch.customer for touch in here}), len(here), ", ".join(top) or None,
                decided.count("converted") / len(decided) if decided else None,
                float(np.median(times[row[:2]])) if times[row[:2]] else None,
                csat_ratio, nps, len(troubled[row[:2]]),
                min(signals, key=lambda name: (-signals[name], name)) if signals else None,
                sum(moods) / len(moods) if moods else None,
            )
        )  # fmt: skip


CHECKS: list[Callable[[Any, World], None]] = [
    check_drivers, check_impact, check_experiments, check_satisfaction, check_support, check_map
]  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_every_number_is_what_a_plain_loop_counts(warehouse: Any, seed: int) -> None:
    world = build(warehouse, seed)
    for check in CHECKS:
        check(warehouse, world)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 130))
def test_every_number_is_what_a_plain_loop_counts_for_thousands_of_customers(warehouse: Any, seed: int) -> None:
    world = build(warehouse, seed, customer_count=1_000)
    for check in CHECKS:
        check(warehouse, world)
