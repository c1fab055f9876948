"""Attribution against plain Python: paths by loops, credits as fractions, chain and game by their definitions."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import pytest

LOOK_BACK, HALF_LIFE = timedelta(days=3), timedelta(hours=36)
CONFIG = "{attribution_lookback: 3 days, attribution_half_life: 36 hours}"
START = datetime(2026, 2, 1)
LEVELS: dict[str, Callable[[Session], str]] = {
    "channel": lambda session: session.channel,
    "source_medium": lambda session: f"{session.source or '(direct)'} / {session.medium or '(none)'}",
    "campaign": lambda session: session.campaign or "(none)",
}


class Session(NamedTuple):
    """Tuples sort by start, then id."""

    started_at: datetime
    session_id: str
    customer: str
    journey: str
    channel: str
    source: str | None
    medium: str | None
    campaign: str | None


class Order(NamedTuple):
    """Tuples sort by time, then event id."""

    ordered_at: datetime
    event_id: str
    customer: str
    session: Session
    revenue: Decimal | None


class Touch(NamedTuple):
    value: str
    at: datetime
    is_direct: bool


def a_history(warehouse: Any, seed: int, customer_count: int) -> tuple[list[Session], list[Order], set[str]]:
    """Sessions and orders on whole hours of a few days, so that they meet each other and the edges of the look-back."""
    generator = random.Random(seed)
    sessions: list[Session] = []
    orders: list[Order] = []
    abandoned: set[str] = set()
    for customer in range(customer_count):
        key = f"c:{customer}"
        own = []
        for _ in range(generator.randint(1, 8)):
            at = START + timedelta(hours=generator.randint(0, 30) * generator.choice([1, 2, 6]))
            session_id = warehouse.event_id(generator.randint(1, 2**100))
            journey = f"{customer}/{(at - START) // timedelta(days=3)}"
            channel = generator.choice(["web", "web", "email", "store", "support"])
            source = generator.choice([None, None, "google", "news"])
            medium = generator.choice([None, "cpc"])
            campaign = generator.choice([None, "a > b", "a", "b"])
            own.append(Session(at, session_id, key, journey, channel, source, medium, campaign))
        sessions += own
        abandoned |= {session.journey for session in own if generator.random() < 0.3}
        for session in own:
            while generator.random() < 0.25:
                at = session.started_at + timedelta(hours=generator.choice([0, 0, 1, 24, 72, 73, 100]))
                revenue = generator.choice([None, Decimal(0), Decimal("9.99"), Decimal("0.01"), Decimal("1234.50")])
                orders.append(Order(at, warehouse.event_id(generator.randint(1, 2**100)), key, session, revenue))
    return sorted(sessions), sorted(orders), abandoned


def fill(warehouse: Any, sessions: list[Session], orders: list[Order], abandoned: set[str]) -> None:
    warehouse.add_columns(
        "sessions",
        {
            "session_id": [session.session_id for session in sessions],
            "customer_key": [session.customer for session in sessions],
            "journey_id": [warehouse.journey_id(session.journey) for session in sessions],
            "started_at": [session.started_at for session in sessions],
            "channel": [session.channel for session in sessions],
            "source": [session.source for session in sessions],
            "medium": [session.medium for session in sessions],
            "campaign": [session.campaign for session in sessions],
        },
    )
    numbers: Counter[str] = Counter()
    indices = []
    for order in orders:
        numbers[order.customer] += 1
        indices.append(numbers[order.customer])
    warehouse.add_columns(
        "orders",
        {
            "order_id": [f"o{order.event_id}" for order in orders],
            "event_id": [order.event_id for order in orders],
            "customer_key": [order.customer for order in orders],
            "session_id": [order.session.session_id for order in orders],
            "ordered_at": [order.ordered_at for order in orders],
            "order_index": indices,
            "revenue": [order.revenue for order in orders],
        },
    )
    journeys = sorted({session.journey: session.customer for session in sessions}.items())
    warehouse.add_columns(
        "journeys",
        {
            "journey_id": [warehouse.journey_id(journey) for journey, _ in journeys],
            "customer_key": [customer for _, customer in journeys],
            "status": ["abandoned" if journey in abandoned else "active" for journey, _ in journeys],
            "started_at": [START] * len(journeys),
        },
    )


def paths_to_orders(sessions: list[Session], orders: list[Order]) -> list[list[Session]]:
    """For each order the customer's sessions that lead to it."""
    paths = []
    previous: dict[str, datetime] = {}
    for order in orders:
        since = previous.get(order.customer, datetime.min)
        paths.append(
            [
                session
                for session in sessions
                if session.customer == order.customer
                and (
                    session == order.session
                    or (
                        since < session.started_at <= order.ordered_at
                        and order.ordered_at - session.started_at <= LOOK_BACK
                    )
                )
            ]
        )
        previous[order.customer] = order.ordered_at
    return paths


def touches_of(path: list[Session], value: Callable[[Session], str]) -> list[Touch]:
    touches = []
    for name, group in itertools.groupby(path, key=value):
        members = list(group)
        touches.append(Touch(name, members[-1].started_at, all(member.source is None for member in members)))
    return touches


def by_rule(touches: list[Touch], model: str) -> list[Fraction | float]:
    count = len(touches)
    if model == "linear":
        return [Fraction(1, count)] * count
    if model == "time_decay":
        weights = [2 ** (-((touches[-1].at - touch.at) / HALF_LIFE)) for touch in touches]
        return [weight / sum(weights) for weight in weights]
    shares: list[Fraction | float] = [Fraction(0)] * count
    if model in ("first", "last", "last_non_direct"):
        named = [index for index, touch in enumerate(touches) if not touch.is_direct]
        shares[{"first": 0, "last": -1, "last_non_direct": named[-1] if named else -1}[model]] = Fraction(1)
        return shares
    first, last = {"position": (40, 40), "j_shaped": (20, 60)}[model]
    if count == 1:
        return [Fraction(1)]
    if count == 2:
        return [Fraction(first, first + last), Fraction(last, first + last)]
    middle = Fraction(100 - first - last, 100 * (count - 2))
    return [Fraction(first, 100), *[middle] * (count - 2), Fraction(last, 100)]


def probability_of_order(arrows: Mapping[tuple[str, str], int], removed: str | None = None) -> Fraction:
    """Of a walk from (start) to reach (order), solved exactly by elimination; what comes to `removed` is lost."""
    states = sorted({state for arrow in arrows for state in arrow} - {"(order)", "(null)"} - {removed})
    leaving: Counter[str] = Counter()
    for (state, _), count in arrows.items():
        leaving[state] += count
    rows = []
    for state in states:  # p(state) - sum of q * p(next) = straight to the order
        row = [Fraction(-arrows.get((state, other), 0), leaving[state]) for other in states]
        row[states.index(state)] += 1
        rows.append([*row, Fraction(arrows.get((state, "(order)"), 0), leaving[state])])
    for index, pivot in enumerate(rows):
        assert pivot[index]
        for other in rows:
            if other is not pivot and other[index]:
                factor = other[index] / pivot[index]
                other[:] = [left - factor * right for left, right in zip(other, pivot, strict=True)]
    start = states.index("(start)")
    return rows[start][-1] / rows[start][start]


def removal_effects(won: Sequence[Sequence[str]], lost: Sequence[Sequence[str]]) -> dict[str, Fraction]:
    arrows: Counter[tuple[str, str]] = Counter()
    for paths, end in ((won, "(order)"), (lost, "(null)")):
        for path in paths:
            arrows.update(itertools.pairwise(["(start)", *path, end]))
    touches = {touch for path in (*won, *lost) for touch in path}
    every = probability_of_order(arrows)
    return {touch: 1 - probability_of_order(arrows, touch) / every for touch in sorted(touches)}


def shapley(worth: Mapping[frozenset[str], Fraction]) -> dict[str, Fraction]:
    """The mean of what each adds to those before it, over every order in which all may come."""
    players = sorted(set().union(*worth))

    @cache
    def value(coalition: frozenset[str]) -> Fraction:
        return sum((amount for members, amount in worth.items() if members <= coalition), Fraction(0))

    totals = dict.fromkeys(players, Fraction(0))
    count = 0
    for arrival in itertools.permutations(players):
        count += 1
        for place, player in enumerate(arrival):
            before = frozenset(arrival[:place])
            totals[player] += value(before | {player}) - value(before)
    return {player: total / count for player, total in totals.items()}


def expected_credits(
    sessions: list[Session], orders: list[Order], abandoned: set[str]
) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(level, model, touch) to (conversions, revenue), where there are any."""
    credits: dict[tuple[str, str, str], list[Any]] = defaultdict(lambda: [0, 0])
    paths = paths_to_orders(sessions, orders)
    revenues = [Fraction(order.revenue or 0) for order in orders]
    journeys: dict[str, list[Session]] = defaultdict(list)
    for session in sessions:
        if session.journey in abandoned:
            journeys[session.journey].append(session)
    for level, value in LEVELS.items():
        won = [touches_of(path, value) for path in paths]
        lost = [[touch.value for touch in touches_of(path, value)] for path in journeys.values()]
        for model in ("first", "last", "last_non_direct", "linear", "position", "j_shaped", "time_decay"):
            for touches, revenue in zip(won, revenues, strict=True):
                for touch, share in zip(touches, by_rule(touches, model), strict=True):
                    credits[level, model, touch.value][0] += share
                    credits[level, model, touch.value][1] += share * revenue
        effects = removal_effects([[touch.value for touch in touches] for touches in won], lost)
        games: list[dict[frozenset[str], Fraction]] = [defaultdict(Fraction), defaultdict(Fraction)]
        for touches, revenue in zip(won, revenues, strict=True):
            members = frozenset(touch.value for touch in touches)
            games[0][members] += 1
            games[1][members] += revenue
        for name, effect in effects.items():
            share = effect / sum(effects.values())
            credits[level, "markov", name] = [len(orders) * share, sum(revenues) * share]
        for part, game in enumerate(games):
            for name, amount in shapley(game).items():
                credits[level, "shapley", name][part] += amount
    return {key: (float(parts[0]), float(parts[1])) for key, parts in credits.items() if parts[0]}


def compare(warehouse: Any, seed: int, customer_count: int) -> None:
    sessions, orders, abandoned = a_history(warehouse, seed, customer_count)
    fill(warehouse, sessions, orders, abandoned)
    warehouse.build("2026-12-01", config=CONFIG)
    rows = warehouse.rows("select level, model, touch, conversions, revenue from attribution where conversions <> 0")
    found = {row[:3]: row[3:] for row in rows}
    expected = expected_credits(sessions, orders, abandoned)
    assert set(found) == set(expected)
    for key, parts in expected.items():
        assert found[key] == pytest.approx(parts, rel=1e-9, abs=1e-9), key


@pytest.mark.parametrize("seed", range(3))
def test_credits_are_what_the_definitions_say(warehouse: Any, seed: int) -> None:
    compare(warehouse, seed, customer_count=[400, 60, 12][seed])


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 120))
def test_credits_of_thousands_of_customers_are_what_the_definitions_say(warehouse: Any, seed: int) -> None:
    compare(warehouse, seed, customer_count=1000)


def test_names_of_customers_and_the_order_of_rows_change_no_digit(warehouse: Any) -> None:
    sessions, orders, abandoned = a_history(warehouse, 7, 400)
    answers = []
    for seed, prefix in enumerate(("", "other ")):
        renamed = {session: session._replace(customer=prefix + session.customer) for session in sessions}
        moved = [order._replace(customer=prefix + order.customer, session=renamed[order.session]) for order in orders]
        for table in ("sessions", "orders", "journeys", "customers"):
            warehouse.con.execute(f"delete from {table}")
        fill(warehouse, list(renamed.values()), moved, abandoned)
        for table in ("sessions", "orders", "journeys"):
            warehouse.con.execute(f"create or replace table {table} as from {table} order by hash({table}, {seed})")
        warehouse.build("2026-12-01", config=CONFIG)
        answers.append(warehouse.rows("select * exclude (_run_id) from attribution order by level, model, touch"))
    assert len(answers[0]) > 100
    assert answers[0] == answers[1]


def test_removal_effects_of_many_campaigns_are_those_of_the_chain_without_them(warehouse: Any) -> None:
    generator = random.Random(8)
    campaigns = [f"campaign {number:03}" for number in range(400)]  # more than one block of the solver's columns
    won, lost = [], []
    sessions, orders, abandoned = [], [], set()
    for customer in range(900):
        size = generator.randint(1, 5)
        path = [campaigns[min(int(generator.expovariate(0.01)), 399)] for _ in range(size)]
        key, journey = f"c:{customer}", str(customer)
        own = [
            Session(START + timedelta(hours=hour), warehouse.event_id(10 * customer + hour), key, journey, "web",
                    None, None, campaign)
            for hour, campaign in enumerate(path, 1)
        ]  # fmt: skip
        sessions += own
        collapsed = [campaign for campaign, _ in itertools.groupby(path)]
        if generator.random() < 0.3:
            won.append(collapsed)
            orders.append(Order(own[-1].started_at, own[-1].session_id, key, own[-1], Decimal(1)))
        else:
            lost.append(collapsed)
            abandoned.add(journey)
    fill(warehouse, sessions, orders, abandoned)
    warehouse.build("2026-12-01")
    rows = warehouse.rows("""
        select touch, removal_effect from attribution where level = 'campaign' and model = 'markov'""")
    assert len(rows) > 256
    some = generator.sample(sorted(touch for touch, _ in rows), 6)
    arrows: Counter[tuple[str, str]] = Counter()
    for paths, end in ((won, "(order)"), (lost, "(null)")):
        for path in paths:
            arrows.update(itertools.pairwise(["(start)", *path, end]))
    chain = {key: float(count) for key, count in arrows.items()}
    every = by_iteration(chain)
    for touch in some:
        assert dict(rows)[touch] == pytest.approx(1 - by_iteration(chain, touch) / every, abs=1e-9)


def by_iteration(arrows: Mapping[tuple[str, str], float], removed: str | None = None) -> float:
    """The probability of an order: what is under way is moved along the arrows until next to nothing is."""
    leaving: dict[str, float] = defaultdict(float)
    following: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for (state, other), count in arrows.items():
        leaving[state] += count
        following[state].append((other, count))
    under_way, ordered = {"(start)": 1.0}, 0.0
    while sum(under_way.values()) > 1e-14:
        moved: dict[str, float] = defaultdict(float)
        for state, weight in under_way.items():
            for other, count in following[state]:
                if other == "(order)":
                    ordered += weight * count / leaving[state]
                elif other not in ("(null)", removed):
                    moved[other] += weight * count / leaving[state]
        under_way = moved
    return ordered
