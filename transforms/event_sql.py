"""The event contract as DuckDB SQL: one vectorised verdict and the typed columns, built from `schemas.contracts`.

`from_json` splits a record once into *leaves*: the JSON text of each known field (a string keeps its quotes, so
its JSON type shows in its first character). The checks below accept a record only where pydantic is certain to
accept it with the same values; whatever they do not accept, pydantic decides (`transforms.bronze`). They may thus
be stricter than the models, never laxer.
"""

from __future__ import annotations

import json
from datetime import datetime

from schemas.contracts import CHANNEL_EVENT_TYPES, ENVELOPE_FIELDS, PROPERTY_FIELDS, EventField
from schemas.events import LINK_EVENT_TYPES, MAX_EVENT_BYTES
from schemas.identifiers import HMAC_TYPES, IDENTIFIER_TYPES, MAX_IDENTIFIER_LENGTH

LEAVES = json.dumps(
    {
        **{name: "JSON" for name in ENVELOPE_FIELDS if name not in ("identifiers", "properties")},
        "identifiers": dict.fromkeys(IDENTIFIER_TYPES, "JSON"),
        "properties": dict.fromkeys(PROPERTY_FIELDS, "JSON"),
    }
)
"""Structure for `from_json`: every known field as its JSON text."""

OBJECTS = json.dumps({"identifiers": "JSON", "properties": "JSON"})
"""Structure for the two objects as sent."""

_UUID = '"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"'
_TIMESTAMP = (
    r'"20\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?'
    r'(Z|[+-](0\d|1[0-3]):[0-5]\d)"'
)
_MONEY = r'\d{1,12}(\.\d{1,2})?|"\d{1,15}(\.\d{1,2})?"'
_CONSENT = r'\{("analytics":(true|false),?)?("marketing":(true|false))?\}'


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _in(values: list[str]) -> str:
    return "(" + ", ".join(quoted(value) for value in sorted(values)) + ")"


def _matches(leaf: str, pattern: str) -> str:
    return f"regexp_full_match({leaf}, {quoted(pattern)})"


def _text_holds(leaf: str, limit: int) -> str:
    # An escape makes the leaf longer than the text, so a length that fits here fits there too.
    return f"(starts_with({leaf}, '\"') and length({leaf}) between 3 and {limit + 2})"


def _holds(field: EventField, leaf: str) -> str:
    """Condition under which a non-NULL leaf is certainly valid."""
    match field.kind:
        case "text":
            return _text_holds(leaf, field.max_length or 0)
        case "pattern":
            return _matches(leaf, f'"{(field.pattern or "").strip("^$")}"')
        case "enum":
            return f"{leaf} in {_in([json.dumps(value) for value in field.values])}"
        case "integer":
            digits = _matches(leaf, "0|[1-9][0-9]{0,8}")
            return f"({digits} and try_cast({leaf} as integer) between {field.minimum} and {field.maximum})"
        case "boolean":
            return f"{leaf} in ('true', 'false')"
        case "money":
            return _matches(leaf, _MONEY)
        case "uuid":
            return _matches(leaf, _UUID)
        case "timestamp":
            return f"({_matches(leaf, _TIMESTAMP)} and try_cast({leaf}[2:-2] as timestamptz) is not null)"
        case "object":
            raise AssertionError(f"{field.name}: objects are checked apart")


def _unescaped(leaf: str) -> str:
    return rf"case when contains({leaf}, '\') then json_extract_string({leaf}, '$') else {leaf}[2:-2] end"


def _event_type_in(event_types: frozenset[str]) -> str:
    return f"e.event_type in {_in([json.dumps(event_type) for event_type in event_types])}"


def _field_conditions(field: EventField, leaf: str) -> list[str]:
    conditions = []
    if field.is_universal and len(field.required_by) == len(field.declared_by):
        conditions.append(f"coalesce({_holds(field, leaf)}, false)")
    else:
        applies = "" if field.is_universal else f" or not {_event_type_in(field.declared_by)}"
        conditions.append(f"({leaf} is null or {_holds(field, leaf)}{applies})")
        if field.required_by:
            conditions.append(f"({leaf} is not null or not {_event_type_in(field.required_by)})")
    return conditions


def _identifier_holds(name: str) -> str:
    leaf = f"e.identifiers.{name}"
    one = r"[A-Za-z0-9_.-]{1,32}:[0-9a-f]{64}" if name in HMAC_TYPES else r'[^"\\@]{1,500}'
    many = rf'\["{one}"(,"{one}")*\]'
    few = f"length({leaf}) - length(replace({leaf}, ',', '')) < 40"
    if name in HMAC_TYPES:
        single = _matches(leaf, '"' + one + '"')
        return f"({leaf} is null or {single} or ({_matches(leaf, many)} and {few}))"
    single = f"({_text_holds(leaf, MAX_IDENTIFIER_LENGTH)} and not contains({leaf}, '@'))"
    return f"({leaf} is null or {single} or (starts_with({leaf}, '[') and {_matches(leaf, many)} and {few}))"


def _keys(text: str) -> str:
    """How many times `":` stands in a JSON text: its keys, and at most more."""
    return f"(length({text}) - length(replace({text}, '\":', ''))) // 2"


def _present(leaves: list[str]) -> str:
    return " + ".join(f"({leaf} is not null)::int" for leaf in leaves)


def _plain_text() -> list[str]:
    """Spellings that DuckDB's and pydantic's JSON readers take differently go to pydantic."""
    suspicious = [
        "\\u0000",
        "\\u0022",
        '" :',
        ",}",
        ",]",
        ", }",
        ", ]",
        ",  ",
        ":null",
        ": null",
        "/*",
        "//*",
    ]
    conditions = [f"not contains(text, {quoted(part)})" for part in suspicious]
    conditions += [f"not contains(text, chr({code}))" for code in (9, 10, 13)]
    return [*conditions, f"strlen(text) <= {MAX_EVENT_BYTES}"]


def _structure() -> list[str]:
    """No unknown envelope field, no key twice, nothing nested without end."""
    envelope = [f"e.{name}" for name in ENVELOPE_FIELDS if name not in ("identifiers", "properties")]
    identifiers = [f"e.identifiers.{name}" for name in IDENTIFIER_TYPES]
    properties = [f"e.properties.{name}" for name in PROPERTY_FIELDS]
    objects = _present([*envelope, "o.identifiers", "o.properties"])
    inner = f"{_keys('o.identifiers')} + coalesce({_keys('o.properties')}, 0) + coalesce({_keys('e.consent')}, 0)"
    known = f"{_keys('o.properties')} = {_present(properties)}"
    names = "json_keys(o.properties)"
    brackets = "length(o.properties) - length(replace(replace(o.properties, '{', ''), '[', '')) < 50"
    other = (
        f"(len(list_distinct({names})) = len({names}) and {brackets} "
        r"and not regexp_matches(o.properties, '[0-9]{300}') "
        "and not contains(o.properties, 'NaN') and not contains(o.properties, 'Infinity'))"
    )
    return [
        "starts_with(o.identifiers, '{')",
        "(o.properties is null or starts_with(o.properties, '{'))",
        f"{_keys('text')} = {objects} + {inner}",
        f"{_keys('o.identifiers')} = {_present(identifiers)}",
        f"(o.properties is null or case when {known} then true else {other} end)",
        f"(e.consent is null or {_matches('e.consent', _CONSENT)})",
    ]


def validity(earliest: datetime) -> str:
    """Condition over (text, e, o) that holds only for records pydantic accepts."""
    conditions = [*_plain_text(), "e is not null", *_structure()]
    for name, field in ENVELOPE_FIELDS.items():
        if field.kind == "object" or name in ("channel", "event_type"):
            continue
        conditions += _field_conditions(field, f"e.{name}")
    pairs = [f'"{channel}""{event_type}"' for channel, event_type in CHANNEL_EVENT_TYPES]
    conditions.append(f"coalesce(e.channel || e.event_type in {_in(pairs)}, false)")
    conditions.append(f"not {_event_type_in(frozenset(LINK_EVENT_TYPES))}")
    conditions += [_identifier_holds(name) for name in IDENTIFIER_TYPES]
    for name, field in PROPERTY_FIELDS.items():
        conditions += _field_conditions(field, f"e.properties.{name}")
    money = PROPERTY_FIELDS["amount"].declared_by
    conditions.append(
        f"(e.properties.amount is null or e.properties.currency is not null or not {_event_type_in(money)})"
    )
    for name in ("occurred_at", "received_at"):
        conditions.append(f"coalesce({instant(f'e.{name}')} >= timestamp '{earliest:%Y-%m-%d %H:%M:%S}', false)")
    return "coalesce(" + "\n    and ".join(conditions) + ", false)"


def instant(leaf: str) -> str:
    """A leaf's time as UTC TIMESTAMP (the session's time zone must be UTC); NULL where it is none."""
    return f"try_cast({leaf}[2:-2] as timestamptz)::timestamp"


def typed_value(field: EventField, leaf: str) -> str:
    """The typed value of a leaf that is certainly valid; NULL where the event type does not declare the field."""
    match field.kind:
        case "text" | "pattern" | "enum":
            value = _unescaped(leaf)
        case "integer":
            value = f"try_cast({leaf} as integer)"
        case "boolean":
            value = f"{leaf} = 'true'"
        case "money":
            value = f"try_cast(trim({leaf}, '\"') as decimal(18, 2))"
        case "uuid":
            value = f"try_cast({leaf}[2:-2] as uuid)"
        case "timestamp":
            value = instant(leaf)
        case "object":
            value = leaf
    return value if field.is_universal else f"case when {_event_type_in(field.declared_by)} then {value} end"
