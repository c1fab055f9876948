"""`journeys produce`: generate the scenario and send it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingest.progress import Tracker, no_progress
from ingest.scenario.acts import Actor
from ingest.scenario.faults import disturb, malformed, odd_identities
from ingest.scenario.people import Person, Record, Recorder, make_person
from ingest.scenario.personas import planted
from ingest.writer import Writer
from schemas.identifiers import HmacKey
from schemas.settings import Settings

START = datetime(2026, 1, 1, tzinfo=UTC)
MALFORMED_EVERY = 700


@dataclass(frozen=True)
class ProduceReport:
    """What was sent."""

    record_count: int
    event_count: int
    copy_count: int
    malformed_count: int
    order_count: int


@dataclass(frozen=True)
class Scenario:
    """The records in the order they are sent, and the truth behind them."""

    records: list[Record]
    truth: dict[str, Any]


def generate(*, seed: int = 1, start: datetime = START, days: int = 40, customers: int = 6_000) -> Scenario:
    """The whole scenario; the same arguments give the same bytes. Held in memory: about 1 KB a record."""
    recorder = Recorder(start, seed)
    # Personal identifiers are hashed like real ones; the key is derived from the seed and no secret.
    key = HmacKey("demo", f"scenario-{seed}".encode())
    people = []
    for number in range(customers):
        rng = random.Random(f"{seed}-{number}")  # noqa: S311
        person = make_person(rng, number, days, key)
        Actor(recorder, rng, person, days).live()
        people.append(person)
    rng = random.Random(f"{seed}-faults")  # noqa: S311
    disturb(recorder, rng)
    odd_identities(recorder, rng, people, days)
    malformed(recorder, rng, days, MALFORMED_EVERY)
    records = sorted(recorder.records, key=lambda record: record.deliver_at)
    return Scenario(records, _truth(recorder, people, seed=seed, start=start, days=days))


def _truth(recorder: Recorder, people: list[Person], *, seed: int, start: datetime, days: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "start": start.isoformat(),
        "days": days,
        "planted": planted(),
        "counts": {**dict(sorted(recorder.counts.items())), "records": len(recorder.records)},
        "events_by_type": dict(sorted(recorder.by_type.items())),
        "people": [
            {
                "person": person.number,
                "persona": person.persona.name,
                "arrived_at": recorder.stamp(person.arrives_at),
                "customer_id": person.customer_id if person.is_registered else None,
                "identifiers": sorted(person.used),
                "source": person.source,
                "medium": person.medium,
                "experiment_variant": person.experiment_variant,
                "had_slow_reply": person.slow_reply_at is not None,
                "orders": person.orders,
            }
            for person in people
        ],
    }


def produce(
    url: str,
    *,
    settings: Settings,
    seed: int = 1,
    start: datetime = START,
    days: int = 40,
    customers: int = 6_000,
    truth_path: Path | None = None,
    progress: Tracker[Record] = no_progress,
) -> ProduceReport:
    """Generate the scenario and send it to `url`; sent again, it is the same events under the same ids.

    `progress` sees the records on their way. Raises BrokerError when a record is not delivered.
    """
    scenario = generate(seed=seed, start=start, days=days, customers=customers)
    if truth_path is not None:
        truth_path.parent.mkdir(parents=True, exist_ok=True)
        truth_path.write_text(json.dumps(scenario.truth), encoding="utf-8")
    with Writer(url, settings, name=f"scenario-{seed}-{days}-{customers}") as writer:
        for record in progress(iter(scenario.records), len(scenario.records), "sending"):
            writer.send(record.topic, record.key, record.value)
        writer.flush()
    counts = scenario.truth["counts"]
    return ProduceReport(
        record_count=len(scenario.records),
        event_count=counts["events"],
        copy_count=counts.get("copies", 0),
        malformed_count=counts["malformed"],
        order_count=counts.get("orders", 0),
    )
