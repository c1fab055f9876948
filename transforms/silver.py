"""Silver: from bronze to touchpoints, identity map, orders, tickets, stage visits, journeys, sessions, customers.

One call rebuilds all of it from `bronze_touchpoints`: the result is a pure function of the landed records, the
configuration and `data_as_of`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import duckdb

from schemas import uuid5
from schemas.config import Config
from transforms import (
    customers,
    identity,
    journeys,
    kept_events,
    orders,
    parameters,
    sessions,
    stage_visits,
    tickets,
    touchpoints,
)

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

TABLES = (
    "touchpoints",
    "identity_map",
    "customers",
    "sessions",
    "journeys",
    "stage_visits",
    "orders",
    "tickets",
)
NOTHING_YET = datetime(1970, 1, 1, tzinfo=UTC)
"""`data_as_of` of a build over no events at all."""


def build(
    con: duckdb.DuckDBPyConnection,
    *,
    config: Config,
    data_as_of: datetime | None,
    not_before: datetime | None = None,
) -> datetime:
    """Rebuild every silver table in the caller's transaction; answers the `data_as_of` in force (UTC).

    Without `data_as_of` it is derived from the data, but never lies before `not_before` (the last build's).
    """
    uuid5.create_macro(con)
    data_as_of = _to_utc(data_as_of) if data_as_of else None
    not_before = _to_utc(not_before) if not_before else None
    as_of = _timed(
        "kept_events",
        lambda: kept_events.build(con, config=config, data_as_of=data_as_of, not_before=not_before),
    )
    as_of = as_of or NOTHING_YET
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("parameters", lambda: parameters.build(con, config=config, data_as_of=as_of)),
        ("identity", lambda: identity.build(con, config=config)),
        ("customer_events", lambda: touchpoints.prepare(con)),
        ("order_facts", lambda: orders.find(con, config=config)),
        ("touchpoints", lambda: touchpoints.build(con, config=config)),
        ("orders", lambda: orders.build(con)),
        ("tickets", lambda: tickets.build(con)),
        ("stage_visits", lambda: stage_visits.build(con)),
        ("journeys", lambda: journeys.build(con, config=config, data_as_of=as_of)),
        ("sessions", lambda: sessions.build(con)),
        ("customers", lambda: customers.build(con, config=config, data_as_of=as_of)),
    )
    for name, step in steps:
        _timed(name, step)
    return as_of


def _to_utc(instant: datetime) -> datetime:
    """The instant in UTC; one without a zone is UTC."""
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


def _timed(name: str, step: Callable[[], Result]) -> Result:
    started = time.monotonic()
    result = step()
    logger.info("silver: %s, %.2f s", name, time.monotonic() - started)
    return result
