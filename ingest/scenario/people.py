"""The people of the scenario, their devices and what identifies them; and the recorder that turns acts into records."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ingest.scenario.personas import ACQUISITION, PERSONAS, STORIES, Persona
from schemas.identifiers import HmacKey, pseudonymise
from schemas.topics import CHANNEL_TOPICS

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True)
class Record:
    """One record as it is sent; `deliver_at` orders the stream (seconds from the scenario's start)."""

    deliver_at: float
    topic: str
    key: bytes | None
    value: bytes


@dataclass
class Person:
    """One true person. Times are seconds from the scenario's start."""

    number: int
    persona: Persona
    arrives_at: float
    source: str | None
    medium: str | None
    campaign: str | None
    order_multiplier: float
    cookies: list[str]
    devices: list[str]
    email: str
    customer_id: str
    loyalty_id: str | None
    experiment_variant: str
    placebo_variant: str
    gets_working_campaign: bool
    gets_idle_campaign: bool
    is_registered: bool = False
    slow_reply_at: float | None = None
    used: set[tuple[str, str]] = field(default_factory=set)
    orders: list[dict[str, Any]] = field(default_factory=list)


def make_person(rng: random.Random, number: int, days: int, key: HmacKey) -> Person:
    """A person drawn from the planted shares."""
    persona = rng.choices(PERSONAS, [p.weight for p in PERSONAS])[0]
    source, medium, campaign, _, factor = rng.choices(ACQUISITION, [a[3] for a in ACQUISITION])[0]
    device_count = 2 if rng.random() < 0.35 else 1
    email = pseudonymise("email", f"person{number}@example.com", [key])[0]
    return Person(
        number=number,
        persona=persona,
        arrives_at=rng.random() * days * 0.75 * DAY,
        source=source,
        medium=medium,
        campaign=campaign,
        order_multiplier=factor,
        cookies=[f"ck-{rng.getrandbits(64):016x}" for _ in range(device_count)],
        devices=["mobile" if rng.random() < 0.55 else "desktop" for _ in range(device_count)],
        email=email,
        customer_id=f"cust-{number:07d}",
        loyalty_id=f"card-{number:07d}" if rng.random() < 0.15 + 3 * persona.store_visits_per_day else None,
        experiment_variant=rng.choice(("control", "treatment")),
        placebo_variant=rng.choice(("control", "treatment")),
        gets_working_campaign=rng.random() < 0.3,
        gets_idle_campaign=rng.random() < 0.3,
    )


class Recorder:
    """Turns acts into wire records and keeps count of the truth."""

    def __init__(self, start: datetime, seed: int) -> None:
        self.start = start.astimezone(UTC)
        self.records: list[Record] = []
        self.counts: Counter[str] = Counter()
        self.by_type: Counter[str] = Counter()
        self._rng = random.Random(f"{seed}-ids")  # noqa: S311

    def stamp(self, at: float) -> str:
        """RFC 3339 of a scenario time."""
        return (self.start + timedelta(microseconds=round(at * 1e6))).isoformat(timespec="microseconds")

    def event(
        self,
        event_type: str,
        at: float,
        channel: str,
        identifiers: dict[str, Any],
        properties: dict[str, Any] | None = None,
        *,
        person: Person | None = None,
        received_after: float = 0.4,
        delivered_after: float = 1.0,
        occurred_shift: float = 0.0,
        **envelope: Any,
    ) -> dict[str, Any]:
        """Record one event that happens at `at`; answers it as a dict."""
        event = {
            "event_id": str(uuid.UUID(int=self._rng.getrandbits(128), version=4)),
            "schema_version": 1,
            "channel": channel,
            "event_type": event_type,
            "occurred_at": self.stamp(at + occurred_shift),
            "received_at": self.stamp(at + received_after),
            "identifiers": identifiers,
            **{name: value for name, value in envelope.items() if value is not None},
            "properties": properties or {},
        }
        if person is not None:
            person.used.update(
                (kind, value)
                for kind, values in identifiers.items()
                for value in (values if isinstance(values, list) else [values])
            )
        self.by_type[event_type] += 1
        self.counts["events"] += 1
        self.send(event, at + received_after + delivered_after)
        return event

    def send(self, event: dict[str, Any], deliver_at: float) -> None:
        """Put a wire event on the stream."""
        identifiers = event["identifiers"]
        best = next((f"{kind}:{_first(value)}" for kind, value in identifiers.items()), None)
        value = json.dumps(event, separators=(",", ":")).encode()
        self.records.append(
            Record(deliver_at, CHANNEL_TOPICS[event["channel"]], best.encode() if best else None, value)
        )

    def send_raw(self, channel: str, value: bytes, deliver_at: float) -> None:
        """Put arbitrary bytes on the stream."""
        self.records.append(Record(deliver_at, CHANNEL_TOPICS[channel], None, value))


def _first(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) else str(value)


def cart_probability(person: Person) -> float:
    """Probability that who viewed products adds one to the cart, the planted experiment included."""
    lift = STORIES.experiment_cart_lift if person.experiment_variant == "treatment" else 0.0
    return min(person.persona.add_to_cart * (1 + lift), 0.98)


def order_probability(person: Person, at: float, *, is_first_visit: bool) -> float:
    """Probability that a started checkout ends in an order, planted effects included."""
    probability = person.persona.order * (person.order_multiplier if is_first_visit else 1.0)
    if person.experiment_variant == "treatment":
        probability *= 1 + STORIES.experiment_lift
    return min(probability, 0.98)
