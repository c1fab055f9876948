"""What other formats say of an event, derived from the models in `schemas.events` (the one source).

- `json_schema(event_type)`: JSON Schema of one event type, for producers.
- `FIELDS`: one flat description per envelope field and typed property, from which `transforms.bronze` builds its
  vectorised check and its typed columns.
- `TOUCHPOINT_SCHEMA`: the Arrow schema of those typed columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from schemas.events import EVENT_TYPES

Kind = Literal["text", "pattern", "enum", "integer", "boolean", "money", "uuid", "timestamp", "object"]


@dataclass(frozen=True)
class EventField:
    """One field of the wire format: its JSON kind, its limits, and the event types that declare and need it."""

    name: str
    kind: Kind
    description: str
    declared_by: frozenset[str]
    required_by: frozenset[str]
    max_length: int | None = None
    pattern: str | None = None
    values: tuple[Any, ...] = ()
    minimum: int | None = None
    maximum: int | None = None

    @property
    def is_universal(self) -> bool:
        """Every event type declares it."""
        return len(self.declared_by) == len(EVENT_TYPES)

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type of the typed column."""
        return _ARROW[self.kind]


_ARROW: dict[str, pa.DataType] = {
    "text": pa.string(),
    "pattern": pa.string(),
    "enum": pa.string(),
    "integer": pa.int32(),
    "boolean": pa.bool_(),
    "money": pa.decimal128(18, 2),
    "uuid": pa.string(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "object": pa.string(),
}


def json_schema(event_type: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of one event type. Raises KeyError for an unknown type."""
    return EVENT_TYPES[event_type].model_json_schema(mode="validation")


def _limits(spec: dict[str, Any]) -> dict[str, Any]:
    """Kind and limits of one property of a JSON Schema."""
    options = [option for option in spec.get("anyOf", [spec]) if option.get("type") != "null"]
    option = options[0]
    if {"number", "string"} <= {item.get("type") for item in options}:
        return {"kind": "money"}
    if "enum" in option or "const" in option:
        return {"kind": "enum", "values": tuple(option.get("enum", [option.get("const")]))}
    if "$ref" in option or option.get("type") == "object":
        return {"kind": "object"}
    if option["type"] in ("integer", "boolean"):
        return {"kind": option["type"], "minimum": option.get("minimum"), "maximum": option.get("maximum")}
    if option.get("format") in ("uuid", "date-time"):
        return {"kind": "uuid" if option["format"] == "uuid" else "timestamp"}
    if "pattern" in option:
        return {"kind": "pattern", "pattern": option["pattern"]}
    return {"kind": "text", "max_length": option["maxLength"]}


def _described(name: str, owners: dict[str, tuple[dict[str, Any], bool]]) -> EventField:
    """One field from the schema property (and whether it is required) of each event type that declares it."""
    spec = next(iter(owners.values()))[0]
    limits = _limits(spec)
    for event_type, (other, _) in owners.items():
        if name not in _BY_EVENT_TYPE and _limits(other) != limits:
            raise AssertionError(f"{name} of {event_type} is typed unlike elsewhere: one name, one type")
    return EventField(
        name=name,
        description=spec.get("description", ""),
        declared_by=frozenset(owners),
        required_by=frozenset(event_type for event_type, (_, required) in owners.items() if required),
        **limits,
    )


# Fields whose allowed values differ per event type: checked as pairs, not as one list.
_BY_EVENT_TYPE = ("channel", "event_type", "properties")


def _collect() -> tuple[dict[str, EventField], dict[str, EventField]]:
    envelope: dict[str, dict[str, tuple[dict[str, Any], bool]]] = {}
    typed: dict[str, dict[str, tuple[dict[str, Any], bool]]] = {}
    for event_type, model in EVENT_TYPES.items():
        schema = json_schema(event_type)
        _declare(envelope, event_type, schema)
        _declare(typed, event_type, schema["$defs"][model.model_fields["properties"].annotation.__name__])  # type: ignore[union-attr]
    return (
        {name: _described(name, owners) for name, owners in envelope.items()},
        {name: _described(name, owners) for name, owners in typed.items()},
    )


def _declare(
    fields: dict[str, dict[str, tuple[dict[str, Any], bool]]], event_type: str, schema: dict[str, Any]
) -> None:
    for name, spec in schema["properties"].items():
        fields.setdefault(name, {})[event_type] = (spec, name in schema.get("required", ()))


ENVELOPE_FIELDS, PROPERTY_FIELDS = _collect()
"""Envelope fields and typed properties by name, in the models' order."""

CHANNEL_EVENT_TYPES: tuple[tuple[str, str], ...] = tuple(
    (channel, event_type) for event_type, model in EVENT_TYPES.items() for channel in model.topic_channels
)
"""Every (channel, event_type) the vocabulary allows."""

TOUCHPOINT_SCHEMA = pa.schema(
    [
        pa.field(field.name, field.arrow_type, nullable=not field.required_by, metadata={"doc": field.description})
        for field in (*ENVELOPE_FIELDS.values(), *PROPERTY_FIELDS.values())
    ]
)
"""Arrow schema of an accepted event's typed fields; grain: one event. Objects are JSON text."""
