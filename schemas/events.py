"""Event models: the contract of a touchpoint on the wire, one model per event type.

A record is one JSON object: the envelope below plus `properties` typed by `event_type`. Everything else in the
project that knows the shape of an event (JSON Schema, Arrow schema, the vectorised check in `transforms.bronze`)
is derived from these models.

Strict types: a string is a string, an integer an integer. Unknown properties are kept; an unknown envelope field,
event type or schema version is rejected. Vocabulary after Segment's event spec where it has a name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Union, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from schemas.identifiers import (
    CLEAR_EMAIL_PATTERN,
    HMAC_PATTERN,
    IDENTIFIER_TYPES,
    MAX_IDENTIFIER_LENGTH,
    MAX_IDENTIFIERS_PER_TYPE,
)
from schemas.topics import CHANNEL_TOPICS

SCHEMA_VERSION = 1
MAX_EVENT_BYTES = 512 * 1024
MAX_JSON_DEPTH = 200
EARLIEST_OCCURRED_AT = datetime(1990, 1, 1, tzinfo=UTC)

TIMESTAMP_PATTERN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)"
_TIMESTAMP = re.compile(TIMESTAMP_PATTERN, re.ASCII)
AMOUNT_PATTERN = r"[+-]?(\d+\.?\d*|\.\d+)"
_AMOUNT = re.compile(AMOUNT_PATTERN, re.ASCII)
_EXACT_AMOUNT = 1e13  # from here on a double has no room for two more decimals
_BRACKETS = re.compile(r"[\[{\]}]")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NUL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def _timestamp_text(value: Any) -> Any:
    if isinstance(value, str) and not _TIMESTAMP.fullmatch(value):
        raise ValueError("must be RFC 3339 with a zone and at most microseconds, like 2026-03-01T12:00:00.5Z")
    if not isinstance(value, str | datetime):
        raise ValueError("must be an RFC 3339 string, not a number")
    return value


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999") from None


def _amount(value: Any) -> Any:
    if isinstance(value, str) and _AMOUNT.fullmatch(value):
        return Decimal(value)
    if isinstance(value, float) and abs(value) >= _EXACT_AMOUNT:
        raise ValueError("is too large for a JSON number to hold its cents; send it as text")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a decimal amount, a number or text like 12.50")
    return Decimal(str(value))


def _integer(value: Any) -> Any:
    if type(value) is not int:  # Literal compares by value, and True == 1.0 == 1
        raise ValueError("must be an integer")
    return value


def _to_text(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z" if value.year >= 1000 else value.isoformat()


Timestamp = Annotated[
    datetime,
    Field(strict=False),
    BeforeValidator(_timestamp_text),
    AfterValidator(_to_utc),
    PlainSerializer(_to_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": f"^{TIMESTAMP_PATTERN}$"}),
]
Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)]
Path = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=8192)]
Currency = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Z]{3}$")]
Money = Annotated[
    Decimal,
    Field(strict=True, ge=0, max_digits=18, decimal_places=2, allow_inf_nan=False),
    BeforeValidator(_amount),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{AMOUNT_PATTERN}$"}]}),
    PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json"),
]


def _identifier(value: str) -> str:
    if CLEAR_EMAIL_PATTERN.search(value):
        raise ValueError("holds a clear e-mail address; send email_hmac instead")
    return value


def _hmac(value: str) -> str:
    if not HMAC_PATTERN.fullmatch(value):
        raise ValueError("must be <key id>:<64 hex digits of HMAC-SHA256>")
    return value


_Plain = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_IDENTIFIER_LENGTH),
    AfterValidator(_identifier),
]
_Hmac = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_IDENTIFIER_LENGTH),
    AfterValidator(_hmac),
    WithJsonSchema({"type": "string", "pattern": f"^{HMAC_PATTERN.pattern}$"}),
]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_PlainList = Annotated[list[_Plain], Field(max_length=MAX_IDENTIFIERS_PER_TYPE)]
_HmacList = Annotated[list[_Hmac], Field(max_length=MAX_IDENTIFIERS_PER_TYPE)]
Plain = Annotated[_PlainList, BeforeValidator(_as_list, json_schema_input_type=_Plain | _PlainList)]
Hmac = Annotated[_HmacList, BeforeValidator(_as_list, json_schema_input_type=_Hmac | _HmacList)]


class Model(BaseModel):
    """Strict, frozen, nothing unknown."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Identifiers(Model):
    """What names the person: a type maps to one value or a list of values."""

    customer_id: Plain | None = Field(None, description="The business's own customer number (hard)")
    email_hmac: Hmac | None = Field(None, description="HMAC of the e-mail address (soft)")
    phone_hmac: Hmac | None = Field(None, description="HMAC of the phone number (soft)")
    loyalty_id: Plain | None = Field(None, description="Loyalty card number (soft)")
    device_id: Plain | None = Field(None, description="Device or installation id (soft)")
    anonymous_id: Plain | None = Field(None, description="First-party cookie (soft)")

    def pairs(self) -> list[tuple[str, str]]:
        """Every (type, value), strongest type first."""
        return [(kind, value) for kind in IDENTIFIER_TYPES for value in getattr(self, kind) or ()]


class Consent(Model):
    """What the person allowed at the time; absent means not asked."""

    analytics: bool | None = Field(None, description="False keeps the event out of silver and counts it")
    marketing: bool | None = Field(None, description="Kept for the sender's use")


class Properties(BaseModel):
    """Typed properties common to every event; unknown ones are kept as sent."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    page_path: Path | None = Field(None, description="Path of the page or screen")
    product_id: Text | None = Field(None, description="Product the event is about")
    store_id: Text | None = Field(None, description="Store where it happened")


class OrderProperties(Properties):
    """An order or its refund. Without `order_id` the event itself is the order."""

    order_id: Text | None = Field(None, description="Order number, unique in the data set")
    amount: Money | None = Field(None, description="Gross amount; needs `currency`")
    currency: Currency | None = Field(None, description="ISO 4217 code of `amount`")

    @model_validator(mode="after")
    def _amount_needs_currency(self) -> OrderProperties:
        if self.amount is not None and self.currency is None:
            raise ValueError("amount needs a currency (ISO 4217, for example EUR)")
        return self


class CouponProperties(Properties):
    """A coupon put on a cart or receipt."""

    coupon_code: Text | None = Field(None, description="The coupon")


class ErrorProperties(Properties):
    """Something broke in front of the customer."""

    error_code: Text | None = Field(None, description="The error, in the sender's words")


class EmailOpenProperties(Properties):
    """An opened e-mail."""

    is_machine_open: bool | None = Field(None, description="A proxy prefetched it; counts as outbound")


class TicketProperties(Properties):
    """A support ticket."""

    ticket_id: Text = Field(description="Ticket number, unique in the data set")


class ReplyProperties(TicketProperties):
    """A reply on a ticket."""

    author: Literal["customer", "agent"] = Field(description="Who wrote it; an agent's reply is outbound")


class ContactProperties(Properties):
    """A call or chat, possibly about a ticket."""

    ticket_id: Text | None = Field(None, description="Ticket number, where there is one")


class CsatProperties(ContactProperties):
    """An answer to "how satisfied are you"."""

    csat_rating: Annotated[int, Field(strict=True, ge=1, le=5)] = Field(description="1 (worst) to 5")


class NpsProperties(ContactProperties):
    """An answer to "would you recommend us"."""

    nps_score: Annotated[int, Field(strict=True, ge=0, le=10)] = Field(description="0 to 10")


class EventBase(Model):
    """The envelope: fields every event has."""

    topic_channels: ClassVar[tuple[str, ...]] = ()

    event_id: Annotated[UUID, Field(strict=False)] = Field(description="Unique id; the deduplication key")
    schema_version: Annotated[Literal[1], BeforeValidator(_integer)] = Field(description="Version of this contract")
    channel: str = Field(description="web, email, store or support")
    event_type: str = Field(description="What happened, object and past-tense verb")
    event_name: Text | None = Field(None, description="Name of a custom event")
    occurred_at: Timestamp = Field(description="When it happened, by the source's clock")
    received_at: Timestamp = Field(description="When the producer or collector received it")
    identifiers: Identifiers = Field(description="Who it was, as far as known")
    source: Text | None = Field(None, description="Traffic source, for example google")
    medium: Text | None = Field(None, description="Traffic medium, for example cpc")
    campaign: Text | None = Field(None, description="Campaign name or number")
    experiment: Text | None = Field(None, description="Experiment the event is part of")
    variant: Text | None = Field(None, description="Variant of that experiment")
    consent: Consent | None = Field(None, description="What the person allowed")
    properties: Properties = Field(description="Typed by event type; unknown properties are kept")

    @property
    def topic(self) -> str:
        """The Kafka topic of the event's channel."""
        return CHANNEL_TOPICS[self.channel]

    def to_json(self) -> bytes:
        """The canonical wire form: no nulls, UTC, the models' field order."""
        return self.model_dump_json(exclude_none=True).encode()


Web = Literal["web"]
Email = Literal["email"]
Store = Literal["store"]
Support = Literal["support"]
WebOrStore = Literal["web", "store"]
AnyChannel = Literal["web", "email", "store", "support"]

# event type -> (channels it may come from, model of its properties)
_VOCABULARY: dict[str, tuple[Any, type[Properties]]] = {
    "page_viewed": (Web, Properties),
    "ad_clicked": (Web, Properties),
    "products_searched": (Web, Properties),
    "product_viewed": (Web, Properties),
    "product_added": (Web, Properties),
    "product_removed": (Web, Properties),
    "cart_viewed": (Web, Properties),
    "checkout_started": (Web, Properties),
    "coupon_applied": (WebOrStore, CouponProperties),
    "order_completed": (WebOrStore, OrderProperties),
    "order_refunded": (WebOrStore, OrderProperties),
    "signed_up": (Web, Properties),
    "signed_in": (Web, Properties),
    "account_activated": (Web, Properties),
    "onboarding_step_completed": (Web, Properties),
    "subscribed": (Web, Properties),
    "experiment_viewed": (AnyChannel, Properties),
    "product_reviewed": (Web, Properties),
    "product_shared": (Web, Properties),
    "error_encountered": (Web, ErrorProperties),
    "identity_linked": (AnyChannel, Properties),
    "identity_unlinked": (AnyChannel, Properties),
    "email_sent": (Email, Properties),
    "email_delivered": (Email, Properties),
    "mail_sent": (Email, Properties),
    "email_opened": (Email, EmailOpenProperties),
    "email_link_clicked": (Email, Properties),
    "email_bounced": (Email, Properties),
    "email_marked_as_spam": (Email, Properties),
    "unsubscribed": (Email, Properties),
    "store_entered": (Store, Properties),
    "loyalty_card_scanned": (Store, Properties),
    "ticket_created": (Support, TicketProperties),
    "ticket_replied": (Support, ReplyProperties),
    "ticket_solved": (Support, TicketProperties),
    "ticket_reopened": (Support, TicketProperties),
    "call_started": (Support, ContactProperties),
    "chat_started": (Support, ContactProperties),
    "csat_submitted": (AnyChannel, CsatProperties),
    "nps_submitted": (AnyChannel, NpsProperties),
    "custom": (AnyChannel, Properties),
}

LINK_EVENT_TYPES = ("identity_linked", "identity_unlinked")


class _Experiment(EventBase):
    """Assignment to a variant: both names are needed."""

    experiment: Text = Field(description="The experiment")
    variant: Text = Field(description="The variant shown")


class _Custom(EventBase):
    """An event of the sender's own; rules and funnels may use its name."""

    event_name: Text = Field(description="The sender's name for it")


class _Link(EventBase):
    """A statement about identifiers: every pair of them is one person, or is not."""

    @model_validator(mode="after")
    def _two_identifiers(self) -> _Link:
        if len(set(self.identifiers.pairs())) < 2:
            raise ValueError("identifiers: a link event needs at least two different identifiers")
        return self


_BASES: dict[str, type[EventBase]] = {
    "experiment_viewed": _Experiment,
    "custom": _Custom,
    "identity_linked": _Link,
    "identity_unlinked": _Link,
}


def _model(event_type: str, channels: Any, properties: type[Properties]) -> Any:
    base = _BASES.get(event_type, EventBase)
    name = "".join(part.capitalize() for part in event_type.split("_"))
    required = any(field.is_required() for field in properties.model_fields.values())
    default: Any = ... if required else properties.model_construct()
    namespace = {
        "__doc__": f"`{event_type}`",
        "__module__": __name__,
        "__annotations__": {
            "topic_channels": ClassVar[tuple[str, ...]],
            "channel": channels,
            "event_type": Literal[event_type],
            "properties": properties,
        },
        "topic_channels": get_args(channels),
        "channel": Field(description="Channel it happened on"),
        "event_type": Field(description="What happened"),
        "properties": Field(default, description="Typed by event type; unknown properties are kept"),
    }
    return type(base)(name, (base,), namespace)  # type: ignore[misc]


EVENT_TYPES: dict[str, type[EventBase]] = {
    event_type: _model(event_type, channels, properties) for event_type, (channels, properties) in _VOCABULARY.items()
}
"""Every event type and its model."""

Event = EventBase

_UNION: Any = Annotated[Union[tuple(EVENT_TYPES.values())], Field(discriminator="event_type")]  # noqa: UP007
EVENT_ADAPTER: TypeAdapter[EventBase] = TypeAdapter(_UNION)


@dataclass(frozen=True)
class Rejection:
    """Why a record is not an event: the rule, the field and what stood there (an excerpt of 200 characters)."""

    reason: str
    field: str | None
    value_excerpt: str | None


class _Object(dict[str, Any]):
    """A JSON object that remembers a key it held twice."""

    double_key: str | None = None


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) != len(pairs):
        found.double_key = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError("number out of range")
    return value


def _excerpt(value: object) -> str:
    """200 characters of a value that any store takes: no NUL, no half of a surrogate pair."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    elif isinstance(value, Decimal):
        value = str(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text[:200].replace("\x00", "\\u0000").encode("utf-8", "backslashreplace").decode()[:200]


def _is_too_deep(text: str) -> bool:
    """Whether brackets nest deeper than allowed: a limit of ours, because a parser's depends on the caller's stack."""
    if text.count("[") + text.count("{") <= MAX_JSON_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_JSON_DEPTH:
            return True
    return False


def _check_json(raw: bytes) -> Rejection | None:
    """What pydantic's parser lets through and a warehouse must not: double keys, NaN, NUL characters."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Rejection(f"invalid UTF-8 at byte {error.start}", None, repr(raw[max(0, error.start - 20) :][:60]))
    if _is_too_deep(text):
        return Rejection(f"JSON nested deeper than {MAX_JSON_DEPTH} levels", None, _excerpt(text))
    try:
        document = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite, parse_int=str
        )
    except ValueError as error:
        return Rejection(f"invalid JSON: {error}", None, _excerpt(text))
    if not isinstance(document, _Object):
        return Rejection("a record must be one JSON object", None, _excerpt(text))
    for part in (document, *(document.get(name) for name in ("identifiers", "consent", "properties"))):
        if isinstance(part, _Object) and part.double_key is not None:
            return Rejection("a key stands twice in one object", _excerpt(part.double_key), None)
    if _NUL_ESCAPE.search(text):
        return Rejection("NUL character in a string", None, _excerpt(text))
    return None


def parse_event(raw: bytes | None, *, earliest: datetime = EARLIEST_OCCURRED_AT) -> EventBase | Rejection:
    """The verdict on one record: the typed event, or why it is rejected. Never raises on data.

    `earliest`: a time stamp before it is rejected (`earliest_occurred_at` of journey.yml).
    """
    if not raw:
        return Rejection("empty record", None, None)
    if len(raw) > MAX_EVENT_BYTES:
        return Rejection(f"record larger than {MAX_EVENT_BYTES} bytes", None, f"{len(raw)} bytes")
    if (rejection := _check_json(raw)) is not None:
        return rejection
    try:
        event = EVENT_ADAPTER.validate_json(raw)
    except ValidationError as error:
        return explain(error)
    for name in ("occurred_at", "received_at"):
        if getattr(event, name) < earliest:
            return Rejection(f"{name} before {earliest:%Y-%m-%d}", name, getattr(event, name).isoformat())
    return event


def explain(error: ValidationError) -> Rejection:
    """pydantic's first finding in our words: rule, field, value."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"][1:]]  # the first is the tag of the union
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        value = first["input"].get("event_type") if isinstance(first["input"], dict) else first["input"]
        reason = "unknown event_type" if first["type"] == "union_tag_invalid" else "event_type is missing"
        return Rejection(reason, "event_type", _excerpt(value))
    reason = first["msg"].removeprefix("Value error, ").replace("Invalid JSON", "invalid JSON")
    return Rejection(reason, _excerpt(".".join(location)) or None, _excerpt(first["input"]))


def record_key(event: EventBase) -> bytes | None:
    """Kafka record key: the best known identifier, so that one customer's events keep their order."""
    pairs = event.identifiers.pairs()
    return f"{pairs[0][0]}:{pairs[0][1]}".encode() if pairs else None
