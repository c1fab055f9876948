"""The synthetic scenario: the same seed is the same bytes, and the truth file tells what is in the records."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from ingest.scenario.faults import EXACT_COPY, LATE, SKEWED
from ingest.scenario.people import Record
from ingest.scenario.personas import ACQUISITION, PERSONAS
from ingest.scenario.run import START, Scenario, generate, produce
from schemas.events import Rejection, parse_event
from schemas.topics import CHANNEL_TOPICS


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return generate(seed=7, days=20, customers=400)


@pytest.fixture(scope="module")
def events(scenario: Scenario) -> list[tuple[Record, Any]]:
    """Every record that is a valid event, with it as a dict, in the order of sending."""
    return [
        (record, json.loads(record.value))
        for record in scenario.records
        if not isinstance(parse_event(record.value), Rejection)
    ]


@pytest.fixture(scope="module")
def distinct(events) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _, event in events:
        found.setdefault(event["event_id"], event)
    return found


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(scenario):
    assert generate(seed=7, days=20, customers=400) == scenario
    other = generate(seed=8, days=20, customers=400)
    assert other.records != scenario.records
    ids = [
        {json.loads(r.value)["event_id"] for r in s.records if b'"page_viewed"' in r.value} for s in (scenario, other)
    ]
    assert not ids[0] & ids[1]


def test_the_counts_of_the_truth_are_those_of_the_records(scenario, events, distinct):
    counts = scenario.truth["counts"]
    assert counts["records"] == len(scenario.records) == counts["events"] + counts["copies"] + counts["malformed"]
    assert len(distinct) == counts["events"]
    assert len(events) - len(distinct) == counts["copies"]
    assert len(scenario.records) - len(events) == counts["malformed"] > 10
    by_type = Counter(event["event_type"] for event in distinct.values())
    assert dict(by_type) == scenario.truth["events_by_type"]
    orders = {
        event["properties"]["order_id"] for event in distinct.values() if event["event_type"] == "order_completed"
    }
    planted = [order["order_id"] for person in scenario.truth["people"] for order in person["orders"]]
    assert len(planted) == len(set(planted)) == counts["orders"] and orders == set(planted)
    tickets = [
        event["properties"]["ticket_id"] for event in distinct.values() if event["event_type"] == "ticket_created"
    ]
    assert len(tickets) == len(set(tickets)) == counts["tickets"] > 0
    assert by_type["order_refunded"] == counts["refunds"]


def test_every_channel_and_the_same_order_from_pixel_and_shop_are_there(events, distinct):
    assert {record.topic for record, _ in events} == set(CHANNEL_TOPICS.values())
    assert all(record.topic == CHANNEL_TOPICS[event["channel"]] for record, event in events)
    told = Counter(e["properties"]["order_id"] for e in distinct.values() if e["event_type"] == "order_completed")
    web = [count for order, count in told.items() if order.startswith("W")]
    assert 0.8 < web.count(2) / len(web) < 1


def test_a_record_is_keyed_by_its_best_identifier(events):
    for record, event in events:
        kinds = list(event["identifiers"])
        assert (record.key is None) == (not kinds)
        if record.key is not None:
            assert record.key.decode().split(":")[0] == kinds[0]


def test_copies_are_exact_or_resent_later_under_the_same_id(scenario, events):
    texts: dict[str, set[bytes]] = {}
    for record, event in events:
        texts.setdefault(event["event_id"], set()).add(record.value)
    altered = sum(len(values) - 1 for values in texts.values())
    assert altered == scenario.truth["counts"]["altered_copies"] > 0
    assert scenario.truth["counts"]["copies"] > altered
    assert 0.5 * EXACT_COPY < scenario.truth["counts"]["copies"] / len(texts) < 1.6 * EXACT_COPY


def test_late_out_of_order_skewed_and_far_future_events_are_planted(scenario, events, distinct):
    def at(text: str) -> datetime:
        return datetime.fromisoformat(text)

    counts = scenario.truth["counts"]
    skewed = [e for e in distinct.values() if at(e["occurred_at"]) - at(e["received_at"]) > timedelta(minutes=5)]
    assert counts["skewed"] * 0.9 <= len(skewed) <= counts["skewed"]
    assert 0.5 * SKEWED < len(skewed) / len(distinct) < 2 * SKEWED
    future = [e for e in distinct.values() if at(e["occurred_at"]).year == 2099]
    assert len(future) == counts["future"] == 5 and {e["identifiers"]["anonymous_id"] for e in future} == {"clock-2099"}
    newest, late, behind = START, 0, 0
    for record, event in events:
        received = at(event["received_at"])
        sent = START + timedelta(seconds=record.deliver_at)
        if received.year < 2099:
            late += sent - received > timedelta(hours=6)
            behind += received < newest
            newest = max(newest, received)
    assert late > 0.6 * counts["late"] > 0.3 * LATE * len(distinct)
    assert behind > 0.05 * len(events)


def test_people_come_in_the_planted_shares(scenario):
    people = generate(seed=3, days=3, customers=4000).truth["people"]
    shares = Counter(person["persona"] for person in people)
    for persona in PERSONAS:
        assert abs(shares[persona.name] / 4000 - persona.weight) < 0.03, persona.name
    sources = Counter((person["source"], person["medium"]) for person in people)
    for source, medium, _, weight, _ in ACQUISITION:
        assert abs(sources[source, medium] / 4000 - weight) < 0.03, source
    assert scenario.truth["planted"]["personas"][0]["name"] == PERSONAS[0].name


def test_the_truth_names_each_persons_identifiers(scenario, distinct):
    known = {tuple(pair) for person in scenario.truth["people"] for pair in person["identifiers"]}
    seen = {
        (kind, value)
        for event in distinct.values()
        for kind, values in event["identifiers"].items()
        for value in (values if isinstance(values, list) else [values])
    }
    assert known <= seen
    strangers = {value for kind, value in seen - known}
    assert all(value.startswith(("staff-", "clock-2099")) for value in strangers), strangers
    assert not any("@" in value for _, value in seen)


def test_producing_twice_sends_the_same_events_and_writes_the_truth(tmp_path, settings):
    options: dict[str, Any] = {"settings": settings, "seed": 7, "days": 5, "customers": 20}
    seen: list[int | None] = []

    def track(records: Any, total: int | None, what: str) -> Any:
        seen.append(total)
        return records

    (tmp_path / "drop").mkdir()
    truth = tmp_path / "new" / "truth.json"
    first = produce(f"file://{tmp_path}/drop", truth_path=truth, progress=track, **options)
    again = produce(f"file://{tmp_path}/drop", **options)
    assert first == again and seen == [first.record_count]
    assert json.loads(truth.read_text())["counts"]["records"] == first.record_count
    for topic in CHANNEL_TOPICS.values():
        one, other = (tmp_path / "drop" / topic).glob("*.ndjson")
        assert one.read_bytes() == other.read_bytes()
