"""The model of `journey.yml`: what every number means, in the words of docs/semantics.md.

`load_config` reads a file and answers a frozen `Config`; a mistake is a ConfigurationError that names file, line,
rule, value and remedy. A rule is an SQL expression over a touchpoint's columns (schemas.expressions).
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from schemas.errors import ConfigurationError
from schemas.expressions import check_expression
from schemas.identifiers import IDENTIFIER_TYPES
from schemas.rules import Rule, try_rules
from schemas.topics import CHANNELS
from schemas.yaml_document import Lines, read_yaml

STAGES = ("awareness", "consideration", "purchase", "onboarding", "retention", "advocacy")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

TOUCHPOINT_COLUMNS = (
    "event_id", "channel", "event_type", "event_name", "direction", "occurred_at", "received_at",
    "source_occurred_at", "is_clock_skewed", "source", "medium", "campaign", "experiment", "variant", "page_path",
    "product_id", "store_id", "order_id", "ticket_id", "amount", "currency", "csat_rating", "nps_score", "author",
    "coupon_code", "error_code", "is_machine_open", "properties",
)  # fmt: skip
"""Columns that exclude, friction and segment rules may use."""

ORDER_COLUMNS = ("customer_key", "customer_order_index", "days_since_first_order", "is_order_conversion")
"""What is known once orders are: stage rules and `conversion` may use these too."""

_UNITS = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+) (second|minute|hour|day|week)s?", str(value).strip())
    if not match:
        raise ValueError("must be a number and a unit, like '30 minutes', '24 hours' or '30 days'")
    try:
        return int(match[1]) * _UNITS[match[2]]
    except OverflowError:
        raise ValueError("is longer than anything can last") from None


def _positive(value: timedelta) -> timedelta:
    if not timedelta(0) < value <= timedelta(days=36_500):
        raise ValueError("must be longer than nothing and at most 100 years")
    return value


def is_time_zone(value: str) -> str:
    """The value, when it names a zone; raises ValueError else."""
    if value not in available_timezones() or value == "localtime":  # which is another one on every machine
        raise ValueError("is not an IANA time zone, like UTC or America/New_York")
    return value


def _start_of_day(value: Any) -> Any:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return datetime(value.year, value.month, value.day, tzinfo=UTC) if isinstance(value, date) else value


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)  # a quoted time may come without zone


Duration = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_positive)]
Instant = Annotated[datetime, BeforeValidator(_start_of_day), AfterValidator(_in_utc)]
_SMALLEST_RATE, _GREATEST_RATE = Decimal("0.00000001"), Decimal("9999999999.99999999")


def _rate(value: Decimal) -> Decimal:
    # the tables keep a rate as decimal(18, 8): a smaller one would count as 0
    if not _SMALLEST_RATE <= value <= _GREATEST_RATE:
        raise ValueError(f"must be a rate from {_SMALLEST_RATE:f} to {_GREATEST_RATE:f}")
    return value


def _ascending(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError("must be thresholds in ascending order, each greater than the one before")
    return values


Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Part(BaseModel):
    """Frozen, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SessionTimeouts(Part):
    """The gap after which a channel's session ends; only a strictly longer one starts a new session."""

    web: Duration
    email: Duration
    store: Duration
    support: Duration


class Stage(Part):
    """One of the six stages, in order."""

    stage: Literal["awareness", "consideration", "purchase", "onboarding", "retention", "advocacy"]
    is_pre_conversion: bool = False


class StageRule(Part):
    """A stage and when a touchpoint belongs to it."""

    stage: Literal["awareness", "consideration", "purchase", "onboarding", "retention", "advocacy"]
    when: str
    scope: Literal["journey", "customer"] = "journey"


class Signal(Part):
    """A friction signal."""

    signal: Name
    when: str


class Segment(Part):
    """A segment by the first touch."""

    segment: Name
    when: str


class Exclusion(Part):
    """Touchpoints to leave out of silver."""

    name: Name
    when: str


class RetentionDefinition(Part):
    """Which retention table to compute: who is in the cohort and what counts as coming back."""

    start_event: Literal["first_order", "first_touch"]
    return_event: Literal["order", "any"]


class Rfm(Part):
    """Four ascending thresholds each, giving scores 1 to 5."""

    recency_days: Annotated[tuple[int, int, int, int], AfterValidator(_ascending)]
    frequency: Annotated[tuple[int, int, int, int], AfterValidator(_ascending)]
    monetary: Annotated[tuple[Decimal, Decimal, Decimal, Decimal], AfterValidator(_ascending)]


class Limit(Part):
    """Above `warn` a check tells, above `fail` it stops the night before publishing."""

    warn: float | None = Field(None, ge=0, le=1)
    fail: float | None = Field(None, ge=0, le=1)


class Quality(Part):
    """Limits of the ratios that `data_quality` watches."""

    quarantined_ratio: Limit = Limit(warn=0.01, fail=0.2)
    duplicate_ratio: Limit = Limit(warn=0.2)
    future_ratio: Limit = Limit(warn=0.01)
    clock_skewed_ratio: Limit = Limit(warn=0.05)
    unattributed_ratio: Limit = Limit(warn=0.05, fail=0.5)
    unstaged_ratio: Limit = Limit(warn=0.2)
    unconverted_currency_ratio: Limit = Limit(warn=0.0)
    landing_problem_count: Limit = Limit(warn=0)


class Config(Part):
    """The whole of journey.yml. `definition_hash` changes whenever a number could."""

    reporting_timezone: Annotated[str, AfterValidator(is_time_zone)]
    week_starts_on: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    reporting_currency: Currency
    currency_rates: dict[Currency, Annotated[Decimal, AfterValidator(_rate)]]
    earliest_occurred_at: Instant
    clock_skew_tolerance: Duration
    max_links_per_identifier: Annotated[int, Field(ge=1)]
    blocked_identifiers: dict[str, list[str]]
    session_timeouts: SessionTimeouts
    web_session_limit: Duration
    journey_timeout: Duration
    conversion: str
    conversion_window: Duration
    customer_conversion_window: Duration
    stages: tuple[Stage, ...]
    stage_rules: tuple[StageRule, ...]
    friction: tuple[Signal, ...]
    segments: tuple[Segment, ...]
    exclude: tuple[Exclusion, ...]
    retention: Annotated[tuple[RetentionDefinition, ...], Field(min_length=1)]
    churn_days: Annotated[int, Field(ge=1)]
    attribution_lookback: Duration
    attribution_half_life: Duration
    experiment_controls: dict[str, str]
    rfm: Rfm
    quality: Quality = Quality()
    _rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if tuple(stage.stage for stage in self.stages) != STAGES:
            raise ValueError(f"stages must be these six in order: {', '.join(STAGES)}")
        if not any(stage.is_pre_conversion for stage in self.stages):
            raise ValueError("stages: at least one must be pre-conversion")
        if unknown := set(self.blocked_identifiers) - set(IDENTIFIER_TYPES):
            raise ValueError(f"blocked_identifiers: unknown type {sorted(unknown)[0]!r}")
        return self

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every expression with its place, as `parse_config` found it."""
        return self._rules

    @property
    def week_start(self) -> int:
        """ISO number of the day weeks start on (monday = 1)."""
        return WEEKDAYS.index(self.week_starts_on) + 1

    @property
    def session_timeout(self) -> dict[str, timedelta]:
        """Timeout by channel."""
        return {channel: getattr(self.session_timeouts, channel) for channel in CHANNELS}

    @property
    def definition_hash(self) -> str:
        """First 16 hex digits of SHA-256 over the canonical configuration."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


# section -> (key that names a rule, columns its expressions may use)
_EXPRESSIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "stage_rules": ("stage", TOUCHPOINT_COLUMNS + ORDER_COLUMNS),
    "friction": ("signal", TOUCHPOINT_COLUMNS),
    "segments": ("segment", TOUCHPOINT_COLUMNS),
    "exclude": ("name", TOUCHPOINT_COLUMNS),
}


def load_config(path: Path) -> Config:
    """Read and check a journey.yml. Raises ConfigurationError naming file:line, rule, value and remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot be read: {error}",
            where=str(path),
            remedy="Give --config or JOURNEYS_CONFIG a journey.yml",
        ) from None
    return parse_config(text, source=str(path))


def parse_config(text: str, *, source: str) -> Config:
    """A configuration from YAML text; keys that are left out take the shipped file's values."""
    document, lines = read_yaml(text, source=source)
    document = document or {}
    if not isinstance(document, dict):
        raise ConfigurationError("must hold keys and values", where=source, remedy="See the shipped journey.yml")
    try:
        config = Config.model_validate({**_defaults(), **document})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(
            f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}",
            where=lines.at(*first["loc"]),
            value=first["input"] if not isinstance(first["input"], dict) else None,
            remedy="See docs/configuration.md",
        ) from None
    _refuse_repeated(config, lines)
    return _check_rules(config, lines)


def _refuse_repeated(config: Config, lines: Lines) -> None:
    """A signal or a retention table that stands twice would be counted twice; a segment's name may: the first holds."""
    named = [("friction", index, rule.signal) for index, rule in enumerate(config.friction)]
    named += [
        ("retention", index, f"{definition.start_event}, {definition.return_event}")
        for index, definition in enumerate(config.retention)
    ]
    known: set[tuple[str, str]] = set()
    for section, index, name in named:
        if (section, name) in known:
            raise ConfigurationError(
                "stands twice",
                where=f"{lines.at(section, index)} ({section})",
                value=name,
                remedy="Remove one, or join the two rules with OR" if section == "friction" else "Remove one",
            )
        known.add((section, name))


def _defaults() -> dict[str, Any]:
    shipped = Path(__file__).resolve().parent.parent / "journey.yml"
    defaults: dict[str, Any] = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    return defaults


def _check_rules(config: Config, lines: Lines) -> Config:
    checked: dict[str, Any] = {}
    found: list[Rule] = []
    for section, (key, columns) in _EXPRESSIONS.items():
        rules = []
        for index, rule in enumerate(getattr(config, section)):
            where = f"{lines.at(section, index, 'when')} ({section}: {getattr(rule, key)})"
            sql = check_expression(rule.when, columns=columns, where=where)
            rules.append(rule.model_copy(update={"when": sql}))
            found.append(Rule(section, index, sql, where))
        checked[section] = tuple(rules)
    where = f"{lines.at('conversion')} (conversion)"
    every_column = TOUCHPOINT_COLUMNS + ORDER_COLUMNS
    checked["conversion"] = check_expression(config.conversion, columns=every_column, where=where)
    found.append(Rule("conversion", 0, checked["conversion"], where))
    try_rules(found, every_column)
    config = config.model_copy(update=checked)
    config._rules = tuple(found)
    return config
