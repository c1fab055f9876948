"""The event contract as DuckDB SQL: one vectorised verdict and the typed columns, built from `schemas.contracts`.

`from_json` splits a record into *leaves* (the envelope's `e`, the identifiers' `i`, the properties' `p`): the JSON
text of each known field (a string keeps its quotes, so its JSON type shows in its first character). The checks below
accept a record only where pydantic is certain to accept it with the same values; whatever they do not accept, pydantic
decides (`transforms.bronze`). They may thus be stricter than the models, never laxer.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from schemas.contracts import CHANNEL_EVENT_TYPES, ENVELOPE_FIELDS, PROPERTY_FIELDS, EventField
from schemas.events import LINK_EVENT_TYPES, MAX_EVENT_BYTES
from schemas.identifiers import HMAC_TYPES, IDENTIFIER_TYPES, MAX_IDENTIFIER_LENGTH

_ENVELOPE = json.dumps(dict.fromkeys(ENVELOPE_FIELDS, "JSON"))
_IDENTIFIERS = json.dumps(dict.fromkeys(IDENTIFIER_TYPES, "JSON"))
_PROPERTIES = json.dumps(dict.fromkeys(PROPERTY_FIELDS, "JSON"))
"""Structures for `from_json`: every known field as its JSON text."""

_UUID = '"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"'
_TIMESTAMP = (
    r'"20\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?'
    r'(Z|[+-](0\d|1[0-3]):[0-5]\d)"'
)
_MONEY = r'\d{1,12}(\.\d{1,2})?|"\d{1,15}(\.\d{1,2})?"'
_ODD_VALUE = r"[:\[,] *-?([nNiI]|[0-9.]{30}|[0-9.]+[eE][+-]?[0-9]{3})"  # NaN, inf, what may not fit a double
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


def _plain(leaf: str) -> str:
    """A value that every JSON reader takes, whatever its field: DuckDB's takes NaN, and nests deeper."""
    return f"(starts_with({leaf}, '\"') or {_matches(leaf, '-?(0|[1-9][0-9]{0,14})|true|false')})"


def _field_conditions(field: EventField, leaf: str) -> list[str]:
    conditions = []
    if field.is_universal and len(field.required_by) == len(field.declared_by):
        conditions.append(f"coalesce({_holds(field, leaf)}, false)")
    else:
        applies = "" if field.is_universal else f" or ({_plain(leaf)} and not {_event_type_in(field.declared_by)})"
        conditions.append(f"({leaf} is null or {_holds(field, leaf)}{applies})")
        if field.required_by:
            conditions.append(f"({leaf} is not null or not {_event_type_in(field.required_by)})")
    return conditions


def _identifier_holds(name: str) -> str:
    leaf = f"i.{name}"
    one = r"[A-Za-z0-9_.-]{1,32}:[0-9a-f]{64}" if name in HMAC_TYPES else r'[^"\\@]{1,500}'
    many = rf'\["{one}"(,"{one}")*\]'
    few = f"strlen({leaf}) - strlen(replace({leaf}, ',', '')) < 40"
    if name in HMAC_TYPES:
        single = _matches(leaf, '"' + one + '"')
        return f"({leaf} is null or {single} or ({_matches(leaf, many)} and {few}))"
    single = f"({_text_holds(leaf, MAX_IDENTIFIER_LENGTH)} and not contains({leaf}, '@'))"
    return f"({leaf} is null or {single} or (starts_with({leaf}, '[') and {_matches(leaf, many)} and {few}))"


def _keys(text: str) -> str:
    """How many times `":` stands in a JSON text: its keys, and at most more."""
    return f"(strlen({text}) - strlen(replace({text}, '\":', ''))) // 2"


def _present(leaves: list[str]) -> str:
    return " + ".join(f"({leaf} is not null)::int" for leaf in leaves)


def _plain_text() -> list[str]:
    """Spellings that DuckDB's and pydantic's JSON readers take differently go to pydantic."""
    suspicious = [
        "\\u0000",
        "\\u0022",
        '" :',
        '"  ',
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
    return conditions


def leaves_sql(texts: str) -> str:
    """SQL that adds the leaves `e`, `i` and `p` to the rows of `texts` (column `text`); NULL where it is no JSON."""
    # try(from_json(…)) would go row by row through every vector that holds one broken record.
    envelope = f"case when json_valid(text) then from_json(text, {quoted(_ENVELOPE)}) end"
    return f"""
    select
        *, from_json(e.identifiers, {quoted(_IDENTIFIERS)}) as i, from_json(e.properties, {quoted(_PROPERTIES)}) as p
    from (select *, {envelope} as e from {texts})"""


def _compact_length(leaves: dict[str, str]) -> str:
    """Bytes of a JSON object that holds just the present ones of `leaves` (by name), once, without white space."""
    members = " + ".join(f"coalesce(strlen({leaf}) + {len(name) + 4}, 0)" for name, leaf in leaves.items())
    # A member brings two quotes, a colon and a comma; the last has no comma, and the object has two braces.
    return f"greatest({members} + 1, 2)"


def _is_compact() -> str:
    """Condition: the text is exactly the known fields, each once, with nothing between or beside them.

    It reads no byte of the text, and most senders write this way. Leaves are as DuckDB spells them anew: without a
    backslash only a number with an exponent gets longer by that (5e1 becomes 50.0), and such money is not compact
    here. So equal lengths leave no room for a stray comma, a second or unknown key, white space or a null.
    """
    lengths = {
        "text": {name: f"e.{name}" for name in ENVELOPE_FIELDS},
        "e.identifiers": {name: f"i.{name}" for name in IDENTIFIER_TYPES},
        "e.properties": {name: f"p.{name}" for name in PROPERTY_FIELDS},
    }
    conditions = [f"coalesce(strlen({whole}) = {_compact_length(leaves)}, true)" for whole, leaves in lengths.items()]
    conditions += [r"not contains(text, '\')", "not coalesce(ends_with(p.amount, '.0'), false)"]
    return " and ".join(conditions)


def _structure() -> list[str]:
    """No unknown envelope field, no key twice, nothing nested without end."""
    envelope = [f"e.{name}" for name in ENVELOPE_FIELDS if name not in ("identifiers", "properties")]
    identifiers = [f"i.{name}" for name in IDENTIFIER_TYPES]
    properties = [f"p.{name}" for name in PROPERTY_FIELDS]
    objects = _present([*envelope, "e.identifiers", "e.properties"])
    inner = f"{_keys('e.identifiers')} + coalesce({_keys('e.properties')}, 0) + coalesce({_keys('e.consent')}, 0)"
    known = f"{_keys('e.properties')} = {_present(properties)}"
    names = "json_keys(e.properties)"
    brackets = "strlen(e.properties) - strlen(replace(replace(e.properties, '{', ''), '[', '')) < 50"
    other = (
        f"(len(list_distinct({names})) = len({names}) and {brackets} "
        f"and not regexp_matches(e.properties, {quoted(_ODD_VALUE)}))"
    )
    return [
        f"{_keys('text')} = {objects} + {inner}",
        f"{_keys('e.identifiers')} = {_present(identifiers)}",
        f"(e.properties is null or case when {known} then true else {other} end)",
    ]


def validity(earliest: datetime) -> str:
    """Condition over (text, e, i, p) that holds only for records pydantic accepts."""
    conditions = [
        "e is not null",
        f"strlen(text) <= {MAX_EVENT_BYTES}",
        "starts_with(e.identifiers, '{')",
        "(e.properties is null or starts_with(e.properties, '{'))",
        f"case when {_is_compact()} then true else {' and '.join([*_plain_text(), *_structure()])} end",
        f"(e.consent is null or {_matches('e.consent', _CONSENT)})",
    ]
    for name, field in ENVELOPE_FIELDS.items():
        if field.kind == "object" or name in ("channel", "event_type"):
            continue
        conditions += _field_conditions(field, f"e.{name}")
    pairs = [f'"{channel}""{event_type}"' for channel, event_type in CHANNEL_EVENT_TYPES]
    conditions.append(f"coalesce(e.channel || e.event_type in {_in(pairs)}, false)")
    conditions.append(f"not {_event_type_in(frozenset(LINK_EVENT_TYPES))}")
    conditions += [_identifier_holds(name) for name in IDENTIFIER_TYPES]
    for name, field in PROPERTY_FIELDS.items():
        conditions += _field_conditions(field, f"p.{name}")
    money = PROPERTY_FIELDS["amount"].declared_by
    conditions.append(f"(p.amount is null or p.currency is not null or not {_event_type_in(money)})")
    for name in ("occurred_at", "received_at"):
        conditions.append(f"coalesce({instant(f'e.{name}')} >= {moment(earliest)}, false)")
    return "coalesce(" + "\n    and ".join(conditions) + ", false)"


def moment(value: datetime) -> str:
    """A point in time as a UTC TIMESTAMP literal."""
    return f"timestamp {quoted(value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' '))}"


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
