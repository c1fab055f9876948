"""`journeys query`: SQL on the published tables, read-only and confined to them."""

from __future__ import annotations

import csv
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from schemas.errors import UsageError
from schemas.settings import Settings

SHOWN_ROWS = 200


def open_published(settings: Settings) -> duckdb.DuckDBPyConnection:
    """The current publication, resolved once; nothing outside the published folder can be read or written.

    Raises UsageError when nothing is published yet.
    """
    current = settings.published_dir / "current"
    if not current.exists():
        raise UsageError(
            "nothing is published yet", where=str(settings.published_dir), remedy="Run `journeys night` or `make demo`"
        )
    con = duckdb.connect(
        str(current.resolve() / "journeys.duckdb"),
        read_only=True,
        config={
            "memory_limit": settings.duckdb_memory_limit,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    con.execute("set TimeZone = 'UTC'")
    con.execute(f"set allowed_directories = ['{settings.published_dir.resolve()}/']")
    con.execute("set enable_external_access = false")
    con.execute("set lock_configuration = true")
    return con


def query(settings: Settings, sql: str, *, format: str = "table", out: Path | None = None) -> None:
    """Run one SELECT on the published tables and write its rows as table, csv, json or parquet.

    Raises UsageError for SQL that is wrong, not a query, or reaches outside the publication.
    """
    if format == "parquet" and out is None:
        raise UsageError("parquet needs a file", value="--format parquet", remedy="Add --out FILE")
    with open_published(settings) as con:
        rows = _run(con, sql)
        try:
            if format == "parquet":
                pq.write_table(rows.to_arrow_table(), out)
            elif out is None:
                _write(rows, format, sys.stdout)
            else:
                with out.open("w", encoding="utf-8", newline="") as stream:
                    _write(rows, format, stream)
        except duckdb.Error as error:
            raise _explain(con, error) from None


def _run(con: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection:
    try:
        statements = con.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UsageError("one SELECT is expected", value=sql, remedy="Publications are read-only")
        return con.execute(statements[0])
    except duckdb.Error as error:
        raise _explain(con, error) from None


def _explain(con: duckdb.DuckDBPyConnection, error: duckdb.Error) -> UsageError:
    views = con.execute("select view_name from duckdb_views() where not internal order by view_name").fetchall()
    tables = ", ".join(row[0] for row in views)
    return UsageError(str(error).strip(), where="query", remedy=f"Published tables: {tables}")


def _write(rows: duckdb.DuckDBPyConnection, format: str, stream: IO[str]) -> None:
    names = [column[0] for column in rows.description or ()]
    if format == "csv":
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        for row in iter(rows.fetchone, None):
            writer.writerow(["" if value is None else value for value in row])
    elif format == "json":
        for row in iter(rows.fetchone, None):
            stream.write(json.dumps(dict(zip(names, row, strict=True)), default=str) + "\n")
    else:
        _write_table(rows, names, stream)


def _write_table(rows: duckdb.DuckDBPyConnection, names: list[str], stream: IO[str]) -> None:
    shown = rows.fetchmany(SHOWN_ROWS + 1)
    table = Table(header_style="bold")
    for index, name in enumerate(names):
        is_number = any(isinstance(row[index], int | float | Decimal) for row in shown)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in shown[:SHOWN_ROWS]:
        table.add_row(*(_text(value) for value in row))
    console = Console(file=stream)
    console.print(table)
    if len(shown) > SHOWN_ROWS:
        console.print(f"the first {SHOWN_ROWS} rows; use --format csv for all")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return str(value)
