"""Published views over literal rows, with the macros on top, as an analyst opens them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from schemas.config import parse_config
from schemas.settings import PROJECT_DIR
from transforms import parameters
from warehouse import macros
from warehouse.models import create_prelude, load_silver

SQL_DIR = PROJECT_DIR / "sql"
PUBLISHED_TYPES = {"timestamp": "timestamptz", "uuid": "varchar", "varchar[]": "varchar"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "touchpoints": {"customer_key": "c:1", "channel": "web", "event_type": "page_viewed", "direction": "inbound"},
    "journeys": {"customer_key": "c:1", "status": "abandoned"},
    "orders": {"customer_key": "c:1", "channel": "web", "order_index": 1},
}


def tables_of(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What the manifest says of the tables that macros read."""
    return {
        table: {"columns": [{"name": row[0], "type": row[1]} for row in con.execute(f"describe {table}").fetchall()]}
        for table in macros.NEEDED
    }


class Publication:
    """Tables to fill, the views that a publication has, and its macros."""

    def __init__(self, as_of: str = "2026-06-01", config: str = "{}") -> None:
        self.con = duckdb.connect()
        self.con.execute("set TimeZone = 'UTC'")
        self.event_count = 0
        for table in load_silver(SQL_DIR):
            columns = ", ".join(
                f'"{column.name}" {PUBLISHED_TYPES.get(column.type, column.type)}'
                for column in table.description.columns
            )
            self.con.execute(f"create table rows_of_{table.name} ({columns})")
            # As published: the view names every column, which a macro's parameter must not be taken for.
            names = ", ".join(f'"{column.name}"' for column in table.description.columns)
            self.con.execute(f"create view {table.name} as select {names} from rows_of_{table.name}")
        self.describe(as_of, config)
        macros.create(self.con, tables_of(self.con))

    def describe(self, as_of: str, config: str = "{}") -> None:
        """Set what the build says of itself: `build_parameters`."""
        instant = datetime.fromisoformat(as_of).replace(tzinfo=UTC)
        with duckdb.connect() as build:
            parameters.build(build, config=parse_config(config, source="journey.yml"), data_as_of=instant)
            create_prelude(build, SQL_DIR)
            model = (SQL_DIR / "gold" / "build_parameters.sql").read_text(encoding="utf-8")
            made = build.sql(f"select * replace (timezone('UTC', data_as_of) as data_as_of) from ({model})")
            rows = made.to_arrow_table()  # DuckDB finds it by its name here
        assert rows.num_rows == 1
        self.con.execute("create or replace table build_parameters as from rows")

    @staticmethod
    def event_id(number: int) -> str:
        """An event id; ids are in the order of their numbers."""
        return str(uuid.UUID(int=number))

    def add(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Insert rows; columns left out take the table's default here, else NULL. Times without a zone are UTC."""
        for given in rows:
            row = {**DEFAULTS.get(table, {}), **given}
            if table in ("touchpoints", "orders") and "event_id" not in row:
                self.event_count += 1
                row["event_id"] = self.event_id(self.event_count)
            names = ", ".join(row)
            self.con.execute(
                f"insert into rows_of_{table} ({names}) values ({', '.join('?' * len(row))})", list(row.values())
            )

    def walk(self, customer: str, *steps: tuple[Any, ...], **columns: Any) -> None:
        """Add touchpoints by (time, event type) or (time, event type, columns)."""
        for at, event_type, *more in steps:
            own = more[0] if more else {}
            self.add(
                "touchpoints",
                {"customer_key": customer, "occurred_at": at, "event_type": event_type, **columns, **own},
            )

    def order(self, customer: str, at: str, revenue: float, **columns: Any) -> None:
        """Add an order and the touchpoint that converted it."""
        event_id = self.event_id(self.event_count + 1)
        self.walk(customer, (at, "order_completed", {"is_order_conversion": True}), **columns)
        self.add(
            "orders",
            {
                "customer_key": customer,
                "order_id": event_id,
                "ordered_at": at,
                "revenue": revenue,
                "event_id": event_id,
            },
        )

    def add_columns(self, table: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Insert many rows at once, columns by name."""
        many = pa.table(dict(columns))  # DuckDB finds it by its name here
        assert many.num_rows
        self.con.execute(f"insert into rows_of_{table} by name from many")

    def empty(self, *tables: str) -> None:
        for table in tables:
            self.con.execute(f"delete from rows_of_{table}")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.con.execute(sql).fetchall()


@pytest.fixture
def publication() -> Publication:
    return Publication()


@pytest.fixture(scope="module")
def shared_publication() -> Publication:
    """One for tests that empty and fill it many times."""
    return Publication()
