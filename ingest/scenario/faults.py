"""What goes wrong on the way: copies, late and early arrivals, broken clocks, broken records, odd identities."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ingest.scenario.people import DAY, HOUR, MINUTE, Person, Record, Recorder

EXACT_COPY, ALTERED_COPY, LATE, JITTER, SKEWED = 0.015, 0.002, 0.01, 0.05, 0.004


def disturb(recorder: Recorder, rng: random.Random) -> None:
    """Copy, delay and skew records of the stream, and count what was done."""
    counts = recorder.counts
    disturbed: list[Record] = []
    for record in recorder.records:
        chance = rng.random()
        if chance < SKEWED:
            record = _skewed(record, rng)  # noqa: PLW2901
            counts["skewed"] += 1
        elif chance < SKEWED + LATE:
            record = replace(record, deliver_at=record.deliver_at + rng.random() * 4 * DAY)  # noqa: PLW2901
            counts["late"] += 1
        elif chance < SKEWED + LATE + JITTER:
            record = replace(record, deliver_at=record.deliver_at + rng.random() * 10 * MINUTE)  # noqa: PLW2901
        disturbed.append(record)
        chance = rng.random()
        if chance < EXACT_COPY:
            disturbed.append(replace(record, deliver_at=record.deliver_at + rng.random() * HOUR))
            counts["copies"] += 1
        elif chance < EXACT_COPY + ALTERED_COPY:
            disturbed.append(_altered(record, rng))
            counts["copies"] += 1
            counts["altered_copies"] += 1
    recorder.records[:] = disturbed


def _skewed(record: Record, rng: random.Random) -> Record:
    """The source's clock runs ahead: occurred_at lies 10 to 90 minutes after received_at."""
    event = json.loads(record.value)
    minutes = 10 + rng.randrange(80)
    event["occurred_at"] = _shifted(event["received_at"], minutes)
    return replace(record, value=json.dumps(event, separators=(",", ":")).encode())


def _altered(record: Record, rng: random.Random) -> Record:
    """The same event resent with another payload, received later: the first copy is kept."""
    event = json.loads(record.value)
    event["received_at"] = _shifted(event["received_at"], 1 + rng.randrange(120))
    event["properties"]["resent"] = True
    value = json.dumps(event, separators=(",", ":")).encode()
    return replace(record, value=value, deliver_at=record.deliver_at + HOUR)


def _shifted(stamp: str, minutes: int) -> str:
    return (datetime.fromisoformat(stamp) + timedelta(minutes=minutes)).isoformat(timespec="microseconds")


def odd_identities(recorder: Recorder, rng: random.Random, people: Sequence[Person], days: int) -> None:
    """Family tablets, accounts joined and parted, staff tests, and one clock in the far future."""
    registered = [person for person in people if person.is_registered]
    for index in range(0, min(len(registered) - 1, len(registered) // 40), 2):
        one, other = registered[index], registered[index + 1]
        tablet = {"device_id": f"tablet-{index:04d}"}
        for person in (one, other):
            at = (person.arrives_at + days * DAY) / 2 + rng.random() * DAY
            if at < days * DAY:
                who = {"customer_id": person.customer_id, **tablet}
                recorder.event("signed_in", at, "web", who, person=person)
        recorder.counts["family_tablets"] += 1
    for person in registered[len(registered) // 2 :: 150]:
        second = f"{person.customer_id}-old"
        pair = {"customer_id": [person.customer_id, second]}
        recorder.event("identity_linked", days * DAY * 0.8, "support", pair, person=person)
        recorder.counts["linked_accounts"] += 1
        if rng.random() < 0.3:
            recorder.event("identity_unlinked", days * DAY * 0.9, "support", pair)
            recorder.counts["unlinked_accounts"] += 1
    for _ in range(max(1, len(people) // 400)):
        who = {"anonymous_id": f"staff-{rng.randrange(5)}"}
        recorder.event("page_viewed", rng.random() * days * DAY, "web", who, campaign="internal-test")
        recorder.counts["staff"] += 1
    years = 73 * 365.25 * DAY
    for number in range(5):
        who = {"anonymous_id": "clock-2099"}
        recorder.event("page_viewed", years + number * HOUR, "web", who, delivered_after=days * DAY * 0.5 - years)
        recorder.counts["future"] += 1


def malformed(recorder: Recorder, rng: random.Random, days: int, every: int) -> None:
    """Records that no contract allows, about one in `every`."""
    good: dict[str, Any] = json.loads(recorder.records[0].value)

    def spoiled(**changes: Any) -> bytes:
        return json.dumps({**good, "event_id": f"{rng.getrandbits(128):032x}", **changes}).encode()

    makers: tuple[Callable[[], bytes], ...] = (
        lambda: b'{"event_id": "truncated',
        lambda: b"",
        lambda: b"\xff\xfe not text",
        lambda: b"[1, 2, 3]",
        lambda: spoiled(event_type="teleported"),
        lambda: spoiled(schema_version=9),
        lambda: spoiled(occurred_at="yesterday"),
        lambda: spoiled(occurred_at="1970-01-01T00:00:00Z"),
        lambda: spoiled(identifiers={"customer_id": "clear@example.com"}),
        lambda: spoiled(event_type="order_completed", properties={"amount": "12.345", "currency": "USD"}),
        lambda: spoiled(event_type="csat_submitted", channel="support", properties={"csat_rating": "five"}),
        lambda: spoiled(properties={"note": "nul \x00 byte"}),
        lambda: spoiled(properties={"blob": "x" * 600_000}) if rng.random() < 0.05 else spoiled(channel="fax"),
    )
    for _ in range(max(len(makers), len(recorder.records) // every)):
        maker = makers[recorder.counts["malformed"] % len(makers)]
        recorder.send_raw(rng.choice(("web", "email", "store", "support")), maker(), rng.random() * days * DAY)
        recorder.counts["malformed"] += 1
