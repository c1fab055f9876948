"""The contract of a touchpoint: the vocabulary, the canonical form, and the verdict on bad input, literally."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from schemas.events import EVENT_TYPES, EventBase, Rejection, parse_event, record_key

ID = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
HMAC = "k1:" + "ab" * 32

VOCABULARY = {
    "web": "page_viewed ad_clicked products_searched product_viewed product_added product_removed cart_viewed "
    "checkout_started coupon_applied order_completed order_refunded signed_up signed_in experiment_viewed "
    "product_reviewed product_shared error_encountered identity_linked identity_unlinked account_activated "
    "onboarding_step_completed subscribed custom",
    "email": "email_sent email_delivered mail_sent email_opened email_link_clicked email_bounced email_marked_as_spam "
    "unsubscribed custom",
    "store": "store_entered loyalty_card_scanned coupon_applied order_completed order_refunded custom",
    "support": "ticket_created ticket_replied ticket_solved ticket_reopened call_started chat_started csat_submitted "
    "nps_submitted custom",
}
PAIRS = [(channel, event_type) for channel, types in VOCABULARY.items() for event_type in types.split()]

NEEDED: dict[str, dict[str, Any]] = {
    "ticket_created": {"ticket_id": "t"},
    "ticket_replied": {"ticket_id": "t", "author": "agent"},
    "ticket_solved": {"ticket_id": "t"},
    "ticket_reopened": {"ticket_id": "t"},
    "csat_submitted": {"csat_rating": 4},
    "nps_submitted": {"nps_score": 0},
}


def wire(event_type: str = "page_viewed", channel: str = "web", **fields: Any) -> dict[str, Any]:
    """A valid event as JSON values; a field given as `...` is left out."""
    record = {
        "event_id": ID,
        "schema_version": 1,
        "channel": channel,
        "event_type": event_type,
        "occurred_at": "2026-03-01T12:00:00Z",
        "received_at": "2026-03-01T12:00:01Z",
        "identifiers": {"customer_id": "c1", "device_id": "d1"},
        "properties": NEEDED.get(event_type, {}),
    }
    record |= {"experiment": "e", "variant": "v"} if event_type == "experiment_viewed" else {}
    record |= {"event_name": "n"} if event_type == "custom" else {}
    return {name: value for name, value in {**record, **fields}.items() if value is not ...}


def raw(value: str, place: str = "x", **fields: Any) -> bytes:
    """An order with JSON text `value` as a property, or as the envelope field `place` where it is one."""
    record = wire("order_completed", **fields)
    (record if place in record or place == "consent" else record["properties"])[place] = "@@"
    return json.dumps(record).replace('"@@"', value).encode()


def parsed(record: dict[str, Any] | bytes) -> EventBase:
    event = parse_event(record if isinstance(record, bytes) else json.dumps(record).encode())
    assert isinstance(event, EventBase), event
    return event


@pytest.mark.parametrize(("channel", "event_type"), PAIRS)
def test_every_type_of_the_vocabulary_is_accepted_on_its_channel_and_round_trips(channel: str, event_type: str) -> None:
    event = parsed(wire(event_type, channel))
    assert (event.channel, event.event_type, event.topic) == (channel, event_type, f"journeys.{channel}.v1")
    assert parse_event(event.to_json()) == event
    assert parsed(event.to_json()).to_json() == event.to_json()


def test_the_vocabulary_is_exactly_the_documented_one() -> None:
    assert set(EVENT_TYPES) == {event_type for _, event_type in PAIRS}
    wide = {"experiment_viewed", "identity_linked", "identity_unlinked", "csat_submitted", "nps_submitted", "custom"}
    for event_type, model in EVENT_TYPES.items():
        documented = {channel for channel, name in PAIRS if name == event_type}
        assert set(model.topic_channels) == (set(VOCABULARY) if event_type in wide else documented), event_type


def test_an_event_off_its_channel_is_rejected() -> None:
    verdict = parse_event(json.dumps(wire("store_entered", "web")).encode())
    assert verdict == Rejection("Input should be 'store'", "channel", "web")


def test_the_canonical_form_has_utc_lists_text_amounts_and_no_nulls() -> None:
    record = wire(
        "order_completed",
        source=None,
        occurred_at="2026-03-01T14:00:00.5+02:00",
        properties={"amount": 12.5, "currency": "EUR", "order_id": None, "colour": "blé", "none": None},
    )
    assert parsed(record).to_json().decode() == (
        f'{{"event_id":"{ID}","schema_version":1,"channel":"web","event_type":"order_completed",'
        '"occurred_at":"2026-03-01T12:00:00.500000Z","received_at":"2026-03-01T12:00:01.000000Z",'
        '"identifiers":{"customer_id":["c1"],"device_id":["d1"]},'
        '"properties":{"amount":"12.5","currency":"EUR","colour":"blé"}}'
    )


def test_the_record_key_is_the_strongest_identifier() -> None:
    identifiers = {"anonymous_id": "a", "loyalty_id": ["l", "m"], "email_hmac": HMAC}
    assert record_key(parsed(wire(identifiers=identifiers))) == f"email_hmac:{HMAC}".encode()
    assert record_key(parsed(wire(identifiers={}))) is None


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        *(("12", "12"), ("12.34", "12.34"), ("1.10", "1.1"), ("1e2", "100"), ("-0", "0")),
        ("0.1000000000000000055", "0.1"),
        *(('"12.34"', "12.34"), ('"+5"', "5"), ('".5"', "0.5"), ('"5."', "5"), ('"1.000"', "1"), ('"007"', "7")),
        *(('"9999999999999999.99"', "9999999999999999.99"), ("9999999999999999", "9999999999999999")),
        ("9999999999999.99", "9999999999999.99"),
    ],
)  # fmt: skip
def test_money_is_exact_as_number_and_as_text(text: str, amount: str) -> None:
    event = parsed(raw(text, "amount", properties={"currency": "EUR"}))
    assert event.properties.amount == Decimal(amount)  # type: ignore[attr-defined]


MONEY = "must be a decimal amount, a number or text like 12.50"
CENTS = "is too large for a JSON number to hold its cents; send it as text"
STAMP = "must be RFC 3339 with a zone and at most microseconds, like 2026-03-01T12:00:00.5Z"
LINK = "identifiers: a link event needs at least two different identifiers"
CLEAR = "holds a clear e-mail address; send email_hmac instead"


@pytest.mark.parametrize(
    ("text", "reason", "excerpt"),
    [
        ("12.345", "Decimal input should have no more than 2 decimal places", "12.345"),
        ("-0.01", "Input should be greater than or equal to 0", "-0.01"),
        ('"-1"', "Input should be greater than or equal to 0", "-1"),
        ("99999999999999.99", CENTS, "99999999999999.98"),
        ("9007199254740993.25", CENTS, "9007199254740994.0"),
        ("99999999999999999", "Decimal input should have no more than 16 digits before the decimal point", "9" * 17),
        *((text, MONEY, text) for text in ("true", "[]", "{}")),
        *(
            (f'"{text}"', MONEY, text)
            for text in ("", " 12", "1_000", "1e2", "1,5", "NaN", "Infinity", "٣", "0x1", ".")
        ),
    ],
)
def test_money_that_is_none_is_rejected(text: str, reason: str, excerpt: str) -> None:
    verdict = parse_event(raw(text, "amount", properties={"currency": "EUR"}))
    assert verdict == Rejection(reason, "properties.amount", excerpt)


def _case(reason: str, field: str | None, excerpt: str | None, record: bytes | dict[str, Any]) -> Any:
    data = record if isinstance(record, bytes) else json.dumps(record).encode()
    return pytest.param(data, Rejection(reason, field, excerpt), id=f"{reason[:40]}-{field}-{(excerpt or '')[:20]}")


START = json.dumps(wire("order_completed"))[:40]


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        _case("record larger than 524288 bytes", None, "1048576 bytes", b"x" * 2**20),
        _case("record larger than 524288 bytes", None, "524289 bytes", b"{" + b" " * (512 * 1024)),
        _case("invalid UTF-8 at byte 2", None, "b'{\"\\xff\":1}'", b'{"\xff":1}'),
        _case("invalid JSON: Expecting value: line 1 column 1 (char 0)", None, "not json", b"not json"),
        _case("invalid JSON: Expecting value: line 1 column 1 (char 0)", None, "\\u0000\\u0000", b"\0\0"),
        _case("invalid JSON: Extra data: line 1 column 3 (char 2)", None, "{} {}"[:2] + "{}", b"{}{}"),
        _case("invalid JSON: NaN is not JSON", None, '{"a":NaN}', b'{"a":NaN}'),
        _case("invalid JSON: -Infinity is not JSON", None, '{"a":-Infinity}', b'{"a":-Infinity}'),
        _case("invalid JSON: number out of range", None, '{"a":1e400}', b'{"a":1e400}'),
        _case("JSON nested deeper than 200 levels", None, "[" * 200, b"[" * 100_000),
        _case("a record must be one JSON object", None, "[1]", b"[1]"),
        _case("a record must be one JSON object", None, "null", b"null"),
        _case("a record must be one JSON object", None, '"x"', b'"x"'),
        _case("a key stands twice in one object", "a", None, b'{"a":1,"a":1}'),
        _case("a key stands twice in one object", "\\ud800", None, rb'{"\ud800":1,"\ud800":1}'),
        _case("a key stands twice in one object", "k", None, b'{"properties":{"k":1,"k":2}}'),
        _case("a key stands twice in one object", "analytics", None,
              b'{"consent":{"analytics":true,"analytics":false}}'),
        _case("NUL character in a string", None, '{"a":"\\u0000"}', rb'{"a":"\u0000"}'),
        _case("event_type is missing", "event_type", None, b"{}"),
        _case("unknown event_type", "event_type", "page_seen", wire("page_seen")),
        _case("unknown event_type", "event_type", "5", wire(event_type=5)),
        _case("unknown event_type", "event_type", "null", wire(event_type=None)),
        _case("Input should be 1", "schema_version", "2", wire(schema_version=2)),
        *(_case("must be an integer", "schema_version", text, raw(text, "schema_version")) for text in ("true", "1.0")),
        _case("must be an integer", "schema_version", "1", wire(schema_version="1")),
        _case("Extra inputs are not permitted", "session", "x", wire(session="x")),
        _case("Extra inputs are not permitted", "k" * 200, "1", wire(**{"k" * 1000: 1})),
        _case("Extra inputs are not permitted", "identifiers.custom", "x", wire(identifiers={"custom": "x"})),
        _case("Extra inputs are not permitted", "consent.other", "true", wire(consent={"other": True})),
        _case("Input should be a valid boolean", "consent.analytics", "1", wire(consent={"analytics": 1})),
        _case("Field required", "properties.ticket_id", "{}", wire("ticket_created", "support", properties={})),
        _case("Field required", "properties", None, wire("csat_submitted", "web", properties=...)),
        _case("Field required", "variant", None, wire("experiment_viewed", variant=...)),
        _case("Input should be an object", "properties", "[]", wire(properties=[])),
        _case("Input should be an object", "properties", "null", wire(properties=None)),
        _case("Input should be an object", "identifiers", "c1", wire(identifiers="c1")),
        _case(CLEAR, "identifiers.customer_id.0", "Ana <a@b.co>", wire(identifiers={"customer_id": "Ana <a@b.co>"})),
        _case(CLEAR, "identifiers.device_id.1", "a@b.co", wire(identifiers={"device_id": ["x", "a@b.co"]})),
        _case("must be <key id>:<64 hex digits of HMAC-SHA256>", "identifiers.email_hmac.0", "a@b.co",
              wire(identifiers={"email_hmac": "a@b.co"})),
        _case("Input should be a valid string", "identifiers.customer_id.0", "7",
              wire(identifiers={"customer_id": [7]})),
        _case("Input should be a valid array", "identifiers.customer_id", "7", wire(identifiers={"customer_id": 7})),
        _case("String should have at most 512 characters", "identifiers.customer_id.0", "x" * 200,
              wire(identifiers={"customer_id": "x" * 513})),
        _case("String should have at least 1 character", "source", "", wire(source="")),
        _case("String should have at most 1024 characters", "source", "é" * 200, wire(source="é" * 1025)),
        _case(LINK, None, None, wire("identity_linked", identifiers={"customer_id": ["a", "a"]})),
        _case("amount needs a currency (ISO 4217, for example EUR)", "properties", '{"amount": 5}',
              wire("order_completed", properties={"amount": 5})),
        _case("String should match pattern '^[A-Z]{3}$'", "properties.currency", "eur",
              wire("order_completed", properties={"amount": 5, "currency": "eur"})),
        *(_case("Input should be a valid integer", "properties.csat_rating", json.dumps(value),
                wire("csat_submitted", properties={"csat_rating": value})) for value in (True, 4.5)),
        _case("Input should be less than or equal to 5", "properties.csat_rating", "6",
              wire("csat_submitted", properties={"csat_rating": 6})),
        _case("Input should be greater than or equal to 0", "properties.nps_score", "-1",
              wire("nps_submitted", properties={"nps_score": -1})),
        _case("Input should be 'customer' or 'agent'", "properties.author", "bot",
              wire("ticket_replied", "support", properties={"ticket_id": "t", "author": "bot"})),
        _case("Input should be a valid boolean", "properties.is_machine_open", "yes",
              wire("email_opened", "email", properties={"is_machine_open": "yes"})),
        *(_case(STAMP, "occurred_at", text, wire(occurred_at=text)) for text in (
            "2026-03-01T12:00:00", "2026-03-01 12:00:00Z", "2026-03-01T12:00:00.123456789Z", "2026-03-01",
            "12026-03-01T12:00:00Z", "2026-03-01T12:00Z", "now")),
        _case("must be an RFC 3339 string, not a number", "occurred_at", "1772366400", wire(occurred_at=1772366400)),
        *(_case("lies outside the years 1 to 9999", "occurred_at", text, wire(occurred_at=text)) for text in (
            "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00")),
        *(_case("occurred_at before 1990-01-01", "occurred_at", shown, wire(occurred_at=text)) for text, shown in (
            ("1989-12-31T23:59:59.999999Z", "1989-12-31T23:59:59.999999+00:00"),
            ("1990-01-01T00:30:00+01:00", "1989-12-31T23:30:00+00:00"))),
        _case("received_at before 1990-01-01", "received_at", "1970-01-01T00:00:00+00:00",
              wire(received_at="1970-01-01T00:00:00Z")),
    ],
)  # fmt: skip
def test_bad_input_gets_its_reason_field_and_excerpt(record: bytes, verdict: Rejection) -> None:
    found = parse_event(record)
    assert isinstance(found, Rejection)
    if verdict.value_excerpt is None and verdict.field != "a":  # the excerpt is the whole record or object
        found = Rejection(found.reason, found.field, None)
    assert found == verdict


@pytest.mark.parametrize("record", [None, b""])
def test_a_tombstone_and_an_empty_record_are_rejected(record: bytes | None) -> None:
    assert parse_event(record) == Rejection("empty record", None, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"\\ud800"', "invalid JSON: unexpected end of hex escape"),
        ("[" * 250 + "]" * 250, "JSON nested deeper than 200 levels"),
        ("9" * 5000, "invalid JSON: number out of range"),
        ("[" * 190 + '"\\u0000"' + "]" * 190, "NUL character in a string"),
    ],
)
def test_what_only_one_json_reader_refuses_is_rejected_with_the_records_start(text: str, reason: str) -> None:
    verdict = parse_event(raw(text))
    assert isinstance(verdict, Rejection) and verdict.reason.startswith(reason)
    assert verdict.value_excerpt is not None and verdict.value_excerpt.startswith(START)
    assert len(verdict.value_excerpt) == 200


def test_an_identifier_type_holds_at_most_fifty_values() -> None:
    values = [str(number) for number in range(50)]
    assert len(parsed(wire(identifiers={"device_id": values})).identifiers.pairs()) == 50
    verdict = parse_event(json.dumps(wire(identifiers={"device_id": [*values, "51"]})).encode())
    assert isinstance(verdict, Rejection) and verdict.field == "identifiers.device_id"
    assert verdict.reason == "List should have at most 50 items after validation, not 51"
    assert isinstance(parse_event(json.dumps(wire(identifiers={"device_id": values * 1000})).encode()), Rejection)


@pytest.mark.parametrize(
    "text", ['"\\\\u0000"', '"\\ud83d\\ude00"', "9" * 30, "[" * 150 + "]" * 150, '{"a":null}', "[null]"]
)
def test_unknown_properties_are_kept_whatever_they_hold(text: str) -> None:
    event = parsed(raw(text))
    assert event.properties.model_extra == {"x": json.loads(text)}
    assert json.loads(event.to_json())["properties"]["x"] == json.loads(text)


def test_the_earliest_time_is_an_instant_whatever_its_zone() -> None:
    record = json.dumps(wire(occurred_at="2026-01-01T04:59:59.999999Z")).encode()
    new_york = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-5)))
    assert isinstance(parse_event(record, earliest=new_york), Rejection)
    assert isinstance(parse_event(record, earliest=datetime(2026, 1, 1, 4, 59, 59, 999999, UTC)), EventBase)
