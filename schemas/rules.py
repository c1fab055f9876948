"""Rules of journey.yml as they are tried: on one touchpoint, before a night has to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import duckdb

from schemas.errors import ConfigurationError

_COLUMN_TYPES = {
    **dict.fromkeys(("occurred_at", "received_at", "source_occurred_at"), "timestamp"),
    **dict.fromkeys(("is_clock_skewed", "is_machine_open", "is_order_conversion"), "boolean"),
    **dict.fromkeys(("csat_rating", "nps_score"), "integer"),
    **dict.fromkeys(("customer_order_index", "days_since_first_order"), "bigint"),
    "event_id": "uuid",
    "amount": "decimal(18, 2)",
}
"""Types of the columns that rules may use; the others are text."""

_ALWAYS_THERE = {
    "event_id": "'00000000-0000-4000-8000-000000000000'",
    "channel": "'web'",
    "event_type": "'signed_in'",
    "direction": "'inbound'",
    "occurred_at": "'2026-01-01'",
    "received_at": "'2026-01-01'",
    "is_clock_skewed": "false",
    "properties": "'{}'",
    "is_order_conversion": "false",
}
"""A touchpoint that may well come: every other column of it is NULL."""


@dataclass(frozen=True)
class Rule:
    """An expression of journey.yml; `where` it stands (file, line, name) is for messages and tells no rules apart."""

    section: str
    index: int
    sql: str
    where: str = field(compare=False)


def try_rules(rules: Sequence[Rule], columns: Sequence[str]) -> None:
    """Let DuckDB evaluate every rule once: a wrong type or literal is told with its line, not in the night.

    Raises ConfigurationError. A value of real data may still break a rule (transforms.failing_rule).
    """
    row = ", ".join(
        f"{_ALWAYS_THERE.get(name, 'null')}::{_COLUMN_TYPES.get(name, 'varchar')} as {name}" for name in columns
    )
    with duckdb.connect() as con:
        con.execute("pragma disable_optimizer")  # which leaves out a comparison with NULL, and its literal
        con.execute(f"create table touchpoints as select {row}")
        for rule in rules:
            try:
                con.execute(f"select {rule.sql} as holds from touchpoints").fetchall()
                kind = con.execute(f"describe select {rule.sql} as holds from touchpoints").fetchall()[0][1]
            except duckdb.Error as error:
                message = " ".join(str(error).split("LINE")[0].split())
                raise ConfigurationError(
                    f"does not fit the columns: {message}",
                    where=rule.where,
                    value=rule.sql,
                    remedy="Correct the expression",
                ) from None
            if kind not in ("BOOLEAN", '"NULL"', "NULL"):
                raise ConfigurationError(
                    f"must be true or false, not {kind}",
                    where=rule.where,
                    value=rule.sql,
                    remedy="Compare it with something",
                )
