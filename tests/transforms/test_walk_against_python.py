"""The walk over a customer's touchpoints, held to a plain loop over random histories.

The loop is written from docs/semantics.md (sections 4 to 6 and the shipped stage rules), one touchpoint after the
other and with state, as the text tells it; the pipeline does the same in SQL windows without any.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any
from uuid import UUID, uuid5

import pytest

from schemas.config import parse_config
from transforms import touchpoints

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
START = datetime(2026, 1, 1, tzinfo=UTC)
SESSIONS = uuid5(UUID(int=0), "journeys.session")
JOURNEYS = uuid5(UUID(int=0), "journeys.journey")


@dataclass(frozen=True)
class Rules:
    """What the configurations under test differ in, in microseconds."""

    yaml: str = "{}"
    timeouts: dict[str, int] = field(
        default_factory=lambda: {"web": 30 * MINUTE, "email": 24 * HOUR, "store": 4 * HOUR, "support": 72 * HOUR}
    )
    web_limit: int = 24 * HOUR
    journey_timeout: int = 30 * DAY


RULES = {
    "shipped": Rules(),
    # Limits that random histories meet often: many cuts, gaps and conversions close to each other.
    "tight": Rules(
        yaml="""
            web_session_limit: 1 hour
            journey_timeout: 2 days
            session_timeouts: {web: 30 minutes, email: 1 hour, store: 1 hour, support: 3 hours}""",
        timeouts={"web": 30 * MINUTE, "email": HOUR, "store": HOUR, "support": 3 * HOUR},
        web_limit=HOUR,
        journey_timeout=2 * DAY,
    ),
    "long runs": Rules(
        yaml="session_timeouts: {web: 10 hours, email: 24 hours, store: 4 hours, support: 72 hours}",
        timeouts={"web": 10 * HOUR, "email": 24 * HOUR, "store": 4 * HOUR, "support": 72 * HOUR},
    ),
}


@dataclass
class Touch:
    """One event, with what the loop finds out about it."""

    event_id: UUID
    customer: str
    at: int
    channel: str
    event_type: str
    campaign: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    is_conversion: bool = False
    order_index: int = 0
    days: int | None = None
    stage: str | None = None
    lifecycle_stage: str | None = None
    session: UUID | None = None
    journey: UUID | None = None

    @property
    def place(self) -> tuple[int, str]:
        return self.at, str(self.event_id)

    @property
    def is_inbound(self) -> bool:
        if self.event_type == "ticket_replied":
            return self.properties["author"] == "customer"
        if self.event_type == "email_opened":
            return not self.properties.get("is_machine_open")
        brand = "email_sent email_delivered email_bounced mail_sent ticket_solved order_refunded experiment_viewed"
        return self.event_type not in brand.split()

    @property
    def is_friction(self) -> bool:
        wrong = "error_encountered product_removed ticket_created order_refunded email_marked_as_spam unsubscribed"
        return self.event_type in wrong.split() or self.properties.get("csat_rating", 5) <= 2


# ---- the loop ------------------------------------------------------------------------------------------------------


def find_conversions(touches: Iterable[Touch]) -> None:
    """All customers here are known by customer_id, so an order is whose event came first; that event converts."""
    seen = set()
    for touch in sorted(touches, key=lambda touch: touch.place):
        if touch.event_type == "order_completed":
            order = touch.properties.get("order_id", touch.event_id)
            touch.is_conversion = order not in seen
            seen.add(order)


def stage_of(touch: Touch, *, is_life: bool) -> str | None:
    kind, is_late = touch.event_type, touch.days is not None and touch.days >= 30
    is_recent = touch.days is not None and touch.days < 30
    consideration = "products_searched product_viewed product_added product_removed cart_viewed checkout_started"
    if not touch.is_inbound:
        return None
    if is_life and kind == "order_completed" and touch.order_index > 1:
        return "retention"
    if kind in ("product_reviewed", "product_shared") or touch.properties.get("nps_score", 0) >= 9:
        return "advocacy"
    if kind == "order_completed":
        return "purchase"
    if kind in (*consideration.split(), "coupon_applied", "email_link_clicked"):
        return "consideration"
    is_care = kind == "signed_in" or touch.channel == "support"
    if kind in ("account_activated", "onboarding_step_completed") or (is_care and is_recent):
        return "onboarding"
    if kind == "loyalty_card_scanned" or (is_care and is_late):
        return "retention"
    return None if touch.channel == "support" else "awareness"


def count_orders_and_stages(history: list[Touch]) -> None:
    orders, first_order = 0, None
    for touch in history:
        if touch.is_conversion:
            orders += 1
            first_order = touch.at if first_order is None else first_order
        touch.order_index = orders
        touch.days = None if first_order is None else (touch.at - first_order) // DAY
        touch.stage, touch.lifecycle_stage = stage_of(touch, is_life=False), stage_of(touch, is_life=True)


@dataclass
class Run:
    """What the gaps leave of one channel (or one ticket)."""

    started_at: int
    last_at: int
    session: UUID
    campaign: str | None = None


def find_sessions(history: list[Touch], rules: Rules) -> None:
    runs: dict[tuple[str, str | None], Run] = {}
    for touch in history:
        if not touch.is_inbound:
            continue
        ticket = touch.properties.get("ticket_id") if touch.channel == "support" else None
        run = runs.get((touch.channel, ticket))
        if run is None or (ticket is None and touch.at - run.last_at > rules.timeouts[touch.channel]):
            run = runs[touch.channel, ticket] = Run(touch.at, touch.at, touch.event_id)
        elif touch.channel == "web":
            cuts = range(run.started_at, touch.at + 1, rules.web_limit)
            is_over_limit = any(run.last_at < cut <= touch.at for cut in cuts)
            if is_over_limit or (touch.campaign and run.campaign and touch.campaign != run.campaign):
                run.session = touch.event_id
        run.last_at = touch.at
        run.campaign = touch.campaign or run.campaign
        touch.session = run.session


def find_journeys(history: list[Touch], rules: Rules) -> None:
    journey: UUID | None = None
    last_inbound = 0
    converted_in: UUID | None = None  # session of this journey's conversion, once it has one
    for touch in history:
        is_near = journey is not None and touch.at - last_inbound <= rules.journey_timeout
        if touch.is_inbound:
            is_pre = touch.stage in ("awareness", "consideration")
            is_next_cycle = converted_in is not None and (
                touch.is_conversion or (is_pre and touch.session != converted_in)
            )
            if not is_near or is_next_cycle:
                journey, converted_in = touch.event_id, None
            if touch.is_conversion:
                converted_in = touch.session
            last_inbound = touch.at
            is_near = True
        touch.journey = journey if is_near else None


def status_of(inbound: list[Touch], rules: Rules, as_of: int) -> str:
    stages = {touch.stage for touch in inbound} - {None}
    if any(touch.is_conversion for touch in inbound):
        return "converted"
    if stages and not stages & {"awareness", "consideration"}:
        return "service"
    return "abandoned" if as_of - inbound[-1].at > rules.journey_timeout else "active"


def visits_of(inbound: list[Touch]) -> list[tuple[Any, ...]]:
    """Stage, entered, exited, touchpoints, next stage, re-entry."""
    visits: list[list[Touch]] = []
    for touch in inbound:
        if touch.stage is None:
            continue
        if not visits or visits[-1][0].stage != touch.stage:
            visits.append([])
        visits[-1].append(touch)
    rows, entered = [], set()
    for visit, following in zip_longest(visits, visits[1:]):
        stage = visit[0].stage
        exited = following[0].at if following else visit[-1].at
        rows.append(
            (stage, visit[0].at, exited, len(visit), following[0].stage if following else None, stage in entered)
        )
        entered.add(stage)
    return rows


def walk(touches: list[Touch], rules: Rules, as_of: int) -> dict[str, set[tuple[Any, ...]]]:
    """Per customer, what the pipeline's tables must say of it."""
    find_conversions(touches)
    histories: dict[str, list[Touch]] = {}
    for touch in sorted(touches, key=lambda touch: touch.place):
        histories.setdefault(touch.customer, []).append(touch)
    return {customer: set(_rows(history, rules, as_of)) for customer, history in histories.items()}


def _rows(history: list[Touch], rules: Rules, as_of: int) -> Iterator[tuple[Any, ...]]:
    count_orders_and_stages(history)
    find_sessions(history, rules)
    find_journeys(history, rules)
    journeys: dict[UUID, list[Touch]] = {}
    sessions: dict[UUID, list[Touch]] = {}
    for touch in history:
        session = uuid5(SESSIONS, str(touch.session)) if touch.session else None
        journey = uuid5(JOURNEYS, str(touch.journey)) if touch.journey else None
        stages = (touch.stage, touch.lifecycle_stage, touch.order_index, touch.days, touch.is_conversion)
        yield ("touchpoint", touch.event_id, session, journey, *stages)
        if journey:
            journeys.setdefault(journey, []).append(touch)
        if session:
            sessions.setdefault(session, []).append(touch)
    for index, (journey, everything) in enumerate(journeys.items(), 1):
        inbound = [touch for touch in everything if touch.is_inbound]
        visits = visits_of(inbound)
        path = " > ".join(visit[0] for visit in visits) or None
        friction = sum(touch.is_friction for touch in everything)
        counts = (len({touch.session for touch in inbound}), len(inbound), friction)
        yield (
            "journey",
            journey,
            index,
            status_of(inbound, rules, as_of),
            inbound[0].at,
            inbound[-1].at,
            *counts,
            path,
        )
        yield from (("visit", journey, number, *visit) for number, visit in enumerate(visits, 1))
    for session, members in sessions.items():
        campaign = next((touch.campaign for touch in members if touch.campaign), None)
        ends = (members[0].at, members[-1].at, members[0].event_type, members[-1].event_type)
        first_journey = uuid5(JOURNEYS, str(members[0].journey))
        spans = len({touch.journey for touch in members})
        yield ("session", session, first_journey, spans, *ends, len(members), len(members) == 1, campaign)


# ---- random histories ----------------------------------------------------------------------------------------------

WEB = "page_viewed product_viewed product_removed checkout_started signed_in account_activated product_reviewed"
KINDS: list[tuple[str, str, int]] = [  # channel, event type, weight
    *(("web", kind, 4) for kind in WEB.split()),
    *(("web", kind, 1) for kind in ("error_encountered", "nps_submitted", "experiment_viewed", "order_refunded")),
    ("web", "order_completed", 8),
    *(("store", kind, 3) for kind in ("store_entered", "order_completed", "loyalty_card_scanned", "order_refunded")),
    *(("email", kind, 3) for kind in ("email_link_clicked", "email_opened", "email_sent", "unsubscribed")),
    *(("support", kind, 2) for kind in ("ticket_created", "ticket_replied", "ticket_solved", "ticket_reopened")),
    *(("support", kind, 2) for kind in ("call_started", "chat_started", "csat_submitted", "nps_submitted")),
]


def properties_of(rng: random.Random, kind: str, customer: int) -> dict[str, Any]:
    """Tickets and orders of the customer; now and then an order number of a neighbour's."""
    ticket = {"ticket_id": f"{customer} {rng.choice('xy')}"}
    match kind:
        case "order_completed" | "order_refunded":
            owner = customer if rng.random() < 0.95 else customer + 1
            return {"order_id": f"{owner} {rng.randrange(12)}"} if rng.random() < 0.9 else {}
        case "ticket_created" | "ticket_solved" | "ticket_reopened":
            return ticket
        case "ticket_replied":
            return {**ticket, "author": rng.choice(["customer", "agent"])}
        case "email_opened":
            return rng.choice([{}, {"is_machine_open": True}, {"is_machine_open": False}])
        case "csat_submitted":
            return {"csat_rating": rng.randint(1, 5), **rng.choice([ticket, {}])}
        case "nps_submitted":
            return {"nps_score": rng.randint(0, 10)}
        case "call_started":
            return rng.choice([ticket, {}])
    return {}


def random_histories(seed: int, customers: int, rules: Rules) -> list[Touch]:
    """Ties, gaps on and beside every boundary, NULL campaigns, many conversions."""
    rng = random.Random(seed)
    timeouts = sorted({*rules.timeouts.values(), rules.web_limit})
    close = [0, 0, 1, MINUTE, 10 * MINUTE, 20 * MINUTE, 30 * MINUTE, 30 * MINUTE, 30 * MINUTE + 1, 8 * HOUR]
    edges = [limit + nudge for limit in timeouts for nudge in (-1, 0, 1)]
    far = [rules.journey_timeout + nudge for nudge in (-1, 0, 1, -HOUR, HOUR)] + [DAY, 7 * DAY]
    channels, kinds, weights = zip(*KINDS, strict=True)
    touches = []
    for customer in range(customers):
        # Some customers stay on few event types, so that long runs of one channel come about.
        some = range(len(KINDS)) if rng.random() < 0.5 else [rng.randrange(len(KINDS)) for _ in range(3)]
        farness = rng.choice([0.02, 0.2])
        at = rng.randrange(DAY)
        for _ in range(rng.choice([1, 2, 5, 15, 40])):
            number = rng.choices(some, weights=[weights[place] for place in some])[0]
            properties = properties_of(rng, kinds[number], customer)
            campaign = rng.choice([None, None, "x", "x", "y"])
            event_id = uuid.UUID(int=rng.getrandbits(128))
            names = (event_id, f"c:{customer}", at, channels[number], kinds[number], campaign, properties)
            touches.append(Touch(*names))
            pool = far if rng.random() < farness else edges if rng.random() < 0.3 else close
            at += rng.choice(pool)
    return touches


def instant(at: int) -> datetime:
    return START + timedelta(microseconds=at)


def record(touch: Touch) -> dict[str, Any]:
    moment = instant(touch.at).isoformat()
    experiment = {"experiment": "e", "variant": "v"} if touch.event_type == "experiment_viewed" else {}
    return {
        "event_id": str(touch.event_id),
        "schema_version": 1,
        "channel": touch.channel,
        "event_type": touch.event_type,
        "occurred_at": moment,
        "received_at": moment,
        "identifiers": {"customer_id": touch.customer[2:]},
        **experiment,
        **({"campaign": touch.campaign} if touch.campaign else {}),
        "properties": touch.properties,
    }


# ---- the comparison ------------------------------------------------------------------------------------------------

BUILT = {
    "touchpoint": """
        select customer_key, event_id, session_id, journey_id, stage, lifecycle_stage, customer_order_index,
            days_since_first_order, is_order_conversion
        from touchpoints""",
    "journey": """
        select customer_key, journey_id, journey_index, status, {started_at}, {ended_at}, session_count,
            touchpoint_count, friction_count, path
        from journeys""",
    "visit": """
        select customer_key, journey_id, visit_index, stage, {entered_at}, {exited_at}, touchpoint_count, next_stage,
            is_reentry
        from stage_visits""",
    "session": """
        select customer_key, session_id, journey_id, journey_count, {started_at}, {ended_at}, entry_event_type,
            exit_event_type, touchpoint_count, is_bounce, campaign
        from sessions""",
}


def built_rows(pipeline: Any) -> dict[str, set[tuple[Any, ...]]]:
    start = int(START.timestamp()) * 1_000_000
    moments = {name: f"epoch_us({name}) - {start}" for name in ("started_at", "ended_at", "entered_at", "exited_at")}
    rows: dict[str, set[tuple[Any, ...]]] = {}
    for table, sql in BUILT.items():
        for customer, *row in pipeline.rows(sql.format(**moments)):
            rows.setdefault(customer, set()).add((table, *row))
    return rows


def mismatches(pipeline: Any, *, seed: int, customers: int, rules: Rules) -> list[tuple[str, Any]]:
    """Customers of whom the pipeline says something else than the loop, with the rows that differ."""
    touches = random_histories(seed, customers, rules)
    as_of = max(touch.at for touch in touches if touch.is_inbound) - 3 * DAY
    # A journey timeout before data_as_of, to the microsecond, somebody's history ends: active, not abandoned.
    edge = as_of - rules.journey_timeout
    for number, at in enumerate((edge, edge - 1)):
        touches.append(Touch(uuid.UUID(int=number), f"c:edge {number}", at, "web", "page_viewed"))
    shuffled = random.Random(seed).sample(touches, len(touches))
    pipeline.land(map(record, shuffled))
    pipeline.build(as_of=instant(as_of), config=parse_config(rules.yaml, source="journey.yml"))
    expected = walk([touch for touch in touches if touch.at <= as_of], rules, as_of)
    built = built_rows(pipeline)
    return [
        (customer, sorted(expected.get(customer, set()) ^ built.get(customer, set()), key=str))
        for customer in sorted({*expected, *built})
        if expected.get(customer) != built.get(customer)
    ]


@pytest.mark.parametrize("name", RULES)
def test_the_pipeline_walks_as_the_loop_does(new_pipeline: Callable[[], Any], name: str) -> None:
    assert mismatches(new_pipeline(), seed=1, customers=300, rules=RULES[name])[:1] == []


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", RULES)
def test_thousands_of_random_histories(
    new_pipeline: Callable[[], Any], figures: Callable[..., None], name: str
) -> None:
    count, wrong = 0, []
    for seed in range(100, 105):
        wrong += mismatches(new_pipeline(), seed=seed, customers=4000, rules=RULES[name])
        count += 4002
    figures(rules=name, histories=count, mismatches=len(wrong))
    assert wrong[:1] == []


def test_bucket_by_bucket_gives_the_same_tables(
    new_pipeline: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = new_pipeline()
    nobodys = Touch(uuid.UUID(int=1), "c:", 0, "web", "page_viewed")
    touches = random_histories(2, 60, RULES["tight"])
    pipeline.land([*map(record, touches), {**record(nobodys), "identifiers": {}}])
    pipeline.build()
    at_once = pipeline.tables()
    monkeypatch.setattr(touchpoints, "ROWS_AT_ONCE", len(touches) - 1)
    monkeypatch.setattr(touchpoints, "BUCKETS", 5)
    pipeline.build()
    assert len(at_once["touchpoints"]) == len(pipeline.rows("from touchpoints")) > 300
    assert pipeline.tables() == at_once
