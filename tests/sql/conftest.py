"""Literal silver rows in, gold rows out: silver tables as sql/silver/*.yml describes them, the real models on top."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from schemas.config import STAGES, parse_config
from schemas.settings import PROJECT_DIR
from transforms import parameters, touchpoints
from warehouse.models import build_models, load_models, load_silver

SQL_DIR = PROJECT_DIR / "sql"
STAGE_INDEX = {stage: index for index, stage in enumerate(STAGES, 1)}
DEFAULTS: dict[str, dict[str, Any]] = {
    "touchpoints": {"customer_key": "c:1", "channel": "web", "event_type": "page_viewed", "direction": "inbound"},
    "journeys": {"customer_key": "c:1", "status": "abandoned", "first_channel": "web", "revenue": 0},
    "customers": {"customer_key": "c:1", "first_channel": "web", "revenue": 0, "order_count": 0},
    "orders": {"customer_key": "c:1", "channel": "web", "order_index": 1, "revenue": 0},
}


class Warehouse:
    """Silver tables to fill, and the gold models to build from them."""

    def __init__(self) -> None:
        self.con = duckdb.connect()
        self.con.execute("set timezone = 'UTC'; set preserve_insertion_order = false")
        self.event_count = 0
        for table in load_silver(SQL_DIR):
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

    def build(self, as_of: str, config: str = "{}") -> None:
        """Build every model; whatever its .yml says must hold, holds."""
        instant = datetime.fromisoformat(as_of).replace(tzinfo=UTC)
        parameters.build(self.con, config=parse_config(config, source="journey.yml"), data_as_of=instant)
        touchpoints.list_frictions(self.con)
        models = load_models(SQL_DIR)
        build_models(self.con, models, sql_dir=SQL_DIR, run_id="test", definition_hash="test", data_as_of=instant)
        broken = [
            (model.name, check.name, rows)
            for model in models
            for check in model.description.checks
            if (rows := self.rows(f"select * from ({check.bad_rows_sql(model.name)}) limit 3"))
        ]
        assert broken == []

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
