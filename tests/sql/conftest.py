"""Literal silver rows in, gold rows out: silver tables as sql/silver/*.yml describes them, the real models on top."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from schemas.config import STAGES, parse_config
from schemas.settings import PROJECT_DIR
from transforms import parameters, stage_visits, touchpoints
from warehouse.models import build_models, load_models, load_silver

SQL_DIR = PROJECT_DIR / "sql"
every_model, every_silver_table = cache(load_models), cache(load_silver)  # reading them takes as long as a build
STAGE_INDEX = {stage: index for index, stage in enumerate(STAGES, 1)}
DEFAULTS: dict[str, dict[str, Any]] = {
    "touchpoints": {"customer_key": "c:1", "channel": "web", "event_type": "page_viewed", "direction": "inbound"},
    "journeys": {"customer_key": "c:1", "status": "abandoned", "first_channel": "web", "revenue": 0},
    "customers": {"customer_key": "c:1", "first_channel": "web", "revenue": 0, "order_count": 0},
    "orders": {"customer_key": "c:1", "channel": "web", "order_index": 1, "revenue": 0},
    "tickets": {"customer_key": "c:1", "reopened_count": 0, "reply_count": 0},
}


class Warehouse:
    """Silver tables to fill, and the gold models to build from them."""

    def __init__(self) -> None:
        self.con = duckdb.connect()
        self.con.execute("set timezone = 'UTC'; set preserve_insertion_order = false")
        self.event_count = 0
        for table in every_silver_table(SQL_DIR):
            columns = ", ".join(f'"{column.name}" {column.type}' for column in table.description.columns)
            self.con.execute(f"create table {table.name} ({columns})")

    @staticmethod
    def event_id(number: int) -> str:
        """An event id; ids are in the order of their numbers."""
        return str(uuid.UUID(int=number))

    @staticmethod
    def journey_id(name: str) -> str:
        """The id of a journey with a readable name."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, name))

    def add(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Insert rows; columns left out take the table's default here, else NULL. `stage` brings its index."""
        complete = []
        for given in rows:
            row = {**DEFAULTS.get(table, {}), **given}
            if table in ("touchpoints", "orders") and "event_id" not in row:
                self.event_count += 1
                row["event_id"] = self.event_id(self.event_count)
            for column in ("stage", "lifecycle_stage"):
                if table == "touchpoints" and row.get(column):
                    row[f"{column}_index"] = STAGE_INDEX[row[column]]
            complete.append(row)
        for row in complete:
            names = ", ".join(row)
            self.con.execute(f"insert into {table} ({names}) values ({', '.join('?' * len(row))})", list(row.values()))

    def add_columns(self, table: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Insert many rows at once, columns by name."""
        many = pa.table(dict(columns))  # DuckDB finds it by its name here
        assert many.num_rows
        self.con.execute(f"insert into {table} by name from many")

    def visit(self, customer: str, *times: str, **columns: Any) -> None:
        """Inbound touchpoints of one customer."""
        self.add("touchpoints", *({"customer_key": customer, "occurred_at": at, **columns} for at in times))

    def buy(self, customer: str, *purchases: str | tuple[str, Any]) -> None:
        """Orders of one customer with their touchpoints, the earliest first: a time each, or time and revenue."""
        [(earlier,)] = self.rows(f"select count(*) from orders where customer_key = '{customer}'")
        for index, purchase in enumerate(purchases, earlier + 1):
            at, revenue = purchase if isinstance(purchase, tuple) else (purchase, 0)
            self.event_count += 1
            own = {"customer_key": customer, "event_id": self.event_id(self.event_count)}
            self.add("touchpoints", {**own, "occurred_at": at, "event_type": "order_completed"})
            placed = {"order_id": own["event_id"], "ordered_at": at, "order_index": index, "revenue": revenue}
            self.add("orders", {**own, **placed})

    def build(self, as_of: str, config: str = "{}", warns: Collection[str] = ()) -> None:
        """Build every model; whatever its .yml says must hold, holds, but for the checks named in `warns`."""
        self._complete_customers()
        self._complete_sessions()
        instant = datetime.fromisoformat(as_of).replace(tzinfo=UTC)
        parameters.build(self.con, config=parse_config(config, source="journey.yml"), data_as_of=instant)
        touchpoints.list_frictions(self.con)
        models = every_model(SQL_DIR)
        build_models(self.con, models, sql_dir=SQL_DIR, run_id="test", definition_hash="test", data_as_of=instant)
        broken = [
            (model.name, check.name, rows)
            for model in models
            for check in model.description.checks
            if (rows := self.rows(f"select * from ({check.bad_rows_sql(model.name)}) limit 3"))
        ]
        assert [found for found in broken if found[1] not in warns] == []
        assert {check for _, check, _ in broken} == set(warns)

    def _complete_customers(self) -> None:
        """What silver promises: every touchpoint's customer has a row, and every customer an RFM label."""
        self.con.execute("""
            insert into customers (customer_key, order_count, revenue)
            select distinct customer_key, 0, 0 from touchpoints
            where customer_key is not null and customer_key not in (select customer_key from customers)""")
        self.con.execute("update customers set segment = 'no_orders' where segment is null")

    def _complete_sessions(self) -> None:
        """What silver promises: every order was placed in a session."""
        self.con.execute("update orders set session_id = event_id where session_id is null")
        self.con.execute("""
            insert into sessions (session_id, customer_key, channel, started_at)
            select session_id, any_value(customer_key), coalesce(any_value(channel), 'web'), min(ordered_at) from orders
            where session_id not in (select session_id from sessions) group by session_id""")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.con.execute(sql).fetchall()


@pytest.fixture
def warehouse() -> Warehouse:
    return Warehouse()


@pytest.fixture
def walk(warehouse: Warehouse) -> Callable[..., None]:
    """Add one journey's staged touchpoints: `walk("j1", ("2026-01-01 10:00", "awareness"), ...)`.

    The journey and its customer (one each, named alike unless `customer` says otherwise) start at the first of them.
    """

    def _walk(name: str, *steps: tuple[str, str | None], customer: str | None = None, **columns: Any) -> None:
        customer_key = customer or f"c:{name}"
        started_at = min((at for at, _ in steps), key=datetime.fromisoformat)
        for at, stage in steps:
            warehouse.add(
                "touchpoints",
                {
                    "customer_key": customer_key,
                    "journey_id": warehouse.journey_id(name),
                    "occurred_at": at,
                    "stage": stage,
                    "lifecycle_stage": stage,
                },
            )
        own = {"customer_key": customer_key, **columns}
        warehouse.add("journeys", {"journey_id": warehouse.journey_id(name), "started_at": started_at, **own})
        if customer is None:
            own.pop("status", None)
            segment = {"rule_segment": own.pop("segment")} if "segment" in own else {}
            warehouse.add("customers", {"first_touch_at": started_at, **own, **segment})

    return _walk


@pytest.fixture
def tour(warehouse: Warehouse) -> Callable[..., None]:
    """Add one journey, its touchpoints as words: `tour("j1", "10:00 web page_viewed awareness", "11:00 …")`.

    A time may be a whole timestamp (`2026-01-02T10:00`), else it is of 1 January; without a stage there is none;
    a `!` after the event type marks the conversion. Its stage visits are the pipeline's own.
    """

    def _tour(name: str, *touches: str, status: str = "abandoned", **columns: Any) -> None:
        times = []
        for touch in touches:
            at, channel, event_type, *stage = touch.split()
            times.append(at if "T" in at else f"2026-01-01T{at}")
            warehouse.add(
                "touchpoints",
                {
                    "customer_key": f"c:{name}",
                    "journey_id": warehouse.journey_id(name),
                    "occurred_at": times[-1],
                    "channel": channel,
                    "event_type": event_type.removesuffix("!"),
                    "is_conversion": event_type.endswith("!"),
                    "stage": stage[0] if stage else None,
                },
            )
        limits = {"started_at": min(times, default=None), "ended_at": max(times, default=None)}
        own = {"customer_key": f"c:{name}", "journey_id": warehouse.journey_id(name), "status": status}
        warehouse.add("journeys", {**own, **limits, **columns})
        stage_visits.build(warehouse.con)

    return _tour
