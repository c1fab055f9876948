"""What is derived from the event models: JSON Schemas, the Arrow schema and the flat fields say the same."""

from __future__ import annotations

import json
import random
from typing import Any

import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator

from examples.local_transport import load_script
from schemas.contracts import (
    CHANNEL_EVENT_TYPES,
    ENVELOPE_FIELDS,
    PROPERTY_FIELDS,
    TOUCHPOINT_SCHEMA,
    json_schema,
)
from schemas.events import EVENT_TYPES, EventBase, parse_event
from schemas.settings import PROJECT_DIR

wire_records = load_script("tests/transforms/wire_records.py")


@pytest.fixture(scope="module")
def validators() -> dict[str, Draft202012Validator]:
    return {event_type: Draft202012Validator(json_schema(event_type)) for event_type in EVENT_TYPES}


def test_every_json_schema_is_one(validators: dict[str, Draft202012Validator]) -> None:
    for validator in validators.values():
        Draft202012Validator.check_schema(validator.schema)


def test_what_pydantic_accepts_holds_the_json_schema(validators: dict[str, Draft202012Validator]) -> None:
    accepted = 0
    for seed in range(1_500):
        raw = wire_records.a_record(random.Random(seed))
        event = parse_event(raw)
        if isinstance(event, EventBase):
            for spelling in (raw, event.to_json()):
                document = json.loads(spelling)
                errors = list(validators[event.event_type].iter_errors(document))
                assert not errors, f"{errors[0].message}: {spelling!r}"
            accepted += 1
    assert accepted > 450


@pytest.mark.parametrize(
    ("event_type", "place", "value"),
    [
        ("page_viewed", "channel", "store"),
        ("page_viewed", "occurred_at", "2026-03-01"),
        ("page_viewed", "schema_version", 2),
        ("page_viewed", "schema_version", True),
        ("page_viewed", "session", "x"),
        ("page_viewed", "identifiers", {"cookie": "x"}),
        ("page_viewed", "identifiers", {"email_hmac": "a@b.co"}),
        ("page_viewed", "identifiers", {"device_id": [str(number) for number in range(51)]}),
        ("page_viewed", "source", "x" * 1025),
        ("order_completed", "properties", {"amount": "abc", "currency": "EUR"}),
        ("order_completed", "properties", {"amount": -1, "currency": "EUR"}),
        ("order_completed", "properties", {"amount": 1, "currency": "eur"}),
        ("csat_submitted", "properties", {"csat_rating": 6}),
        ("csat_submitted", "properties", None),
        ("ticket_created", "properties", {}),
    ],
)
def test_a_producer_sees_the_common_mistakes_in_the_json_schema(event_type: str, place: str, value: Any) -> None:
    record: dict[str, Any] = {
        "event_id": "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "schema_version": 1,
        "channel": "support" if event_type.startswith("ticket") else "web",
        "event_type": event_type,
        "occurred_at": "2026-03-01T12:00:00Z",
        "received_at": "2026-03-01T12:00:00Z",
        "identifiers": {},
        "properties": {"csat_rating": 1, "ticket_id": "t"},
    }
    validator = Draft202012Validator(json_schema(event_type))
    assert validator.is_valid(record) and isinstance(parse_event(json.dumps(record).encode()), EventBase)
    record[place] = value
    assert not validator.is_valid(record)
    assert not isinstance(parse_event(json.dumps(record).encode()), EventBase)


def test_the_arrow_schema_has_a_typed_column_per_field() -> None:
    types = {field.name: field.type for field in TOUCHPOINT_SCHEMA}
    assert list(types) == [*EventBase.model_fields, *PROPERTY_FIELDS]
    assert types["occurred_at"] == types["received_at"] == pa.timestamp("us", tz="UTC")
    assert types["amount"] == pa.decimal128(18, 2)
    assert (types["csat_rating"], types["nps_score"], types["is_machine_open"]) == (pa.int32(), pa.int32(), pa.bool_())
    rest = {"schema_version", "occurred_at", "received_at", "amount", "csat_rating", "nps_score", "is_machine_open"}
    assert {str(kind) for name, kind in types.items() if name not in rest} == {"string"}
    assert all(field.metadata[b"doc"] for field in TOUCHPOINT_SCHEMA)


def test_fields_know_who_declares_and_who_needs_them() -> None:
    everyone = frozenset(EVENT_TYPES)
    assert {name for name, field in ENVELOPE_FIELDS.items() if field.required_by == everyone} == {
        *("event_id", "schema_version", "channel", "event_type", "occurred_at", "received_at", "identifiers")
    }
    assert ENVELOPE_FIELDS["variant"].required_by == {"experiment_viewed"}
    assert PROPERTY_FIELDS["author"].required_by == PROPERTY_FIELDS["author"].declared_by == {"ticket_replied"}
    assert PROPERTY_FIELDS["amount"].declared_by == {"order_completed", "order_refunded"}
    assert (PROPERTY_FIELDS["nps_score"].minimum, PROPERTY_FIELDS["nps_score"].maximum) == (0, 10)
    assert PROPERTY_FIELDS["author"].values == ("customer", "agent")
    assert ENVELOPE_FIELDS["source"].max_length == 1024 and PROPERTY_FIELDS["page_path"].max_length == 8192


def test_every_event_type_is_in_the_reference() -> None:
    page = (PROJECT_DIR / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
    for event_type in EVENT_TYPES:
        channels = ", ".join(channel for channel, name in CHANNEL_EVENT_TYPES if name == event_type)
        assert f"| `{event_type}` | {channels} |" in page, "run `make docs`"
        assert EVENT_TYPES[event_type].__doc__ == f"`{event_type}`"
