"""`journeys query`: SQL on the published tables, read-only and confined to them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from schemas.errors import PublishError, UsageError
from schemas.settings import Settings

SHOWN_ROWS = 200
SHOWN_DECIMALS = 4


def open_published(settings: Settings) -> duckdb.DuckDBPyConnection:
    """The current publication, resolved once; nothing outside the published folder can be read or written.

    Raises UsageError when nothing is published yet.
    """
    current = settings.published_dir / "current"
    if not current.exists():
        raise UsageError(
            "nothing is published yet", where=str(settings.published_dir), remedy="Run `journeys night` or `make demo`"
        )
    file = current.resolve() / "journeys.duckdb"
    config = {
        "memory_limit": settings.duckdb_memory_limit,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",  # a table that is not there is no variable of ours
    }
    try:
        con = duckdb.connect(str(file), read_only=True, config=config)
    except duckdb.Error as error:
        raise PublishError(
            f"the publication cannot be opened: {str(error).splitlines()[0]}",
            where=str(file),
            remedy="Run `journeys publish` to make it anew",
        ) from None
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
        try:
            statement = _one_select(con, sql)
            if format == "parquet":
                with con.sql(statement).to_arrow_reader() as batches, pq.ParquetWriter(out, batches.schema) as writer:
                    for batch in batches:
                        writer.write_batch(batch)
            elif out is None:
                _write(con.execute(statement), format, sys.stdout)
            else:
                rows = con.execute(statement)  # wrong SQL makes no file
                with out.open("w", encoding="utf-8", newline="") as stream:
                    _write(rows, format, stream)
        except duckdb.Error as error:
            raise _explain(con, error) from None
        except OSError as error:
            if out is None:  # a pipe that its reader closed
                raise
            raise UsageError(
                f"cannot be written: {error.strerror or error}",
                where=str(out),
                remedy="Give --out a file in a folder that exists and is yours",
            ) from None


def _one_select(con: duckdb.DuckDBPyConnection, sql: str) -> Any:
    statements = con.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UsageError("one SELECT is expected", value=sql, remedy="Publications are read-only")
    return statements[0]


def _explain(con: duckdb.DuckDBPyConnection, error: duckdb.Error) -> UsageError:
    views = con.execute("select view_name from duckdb_views() where not internal order by view_name").fetchall()
    tables = ", ".join(row[0] for row in views)
    said = " ".join(str(error).partition("\n\nLINE ")[0].split())
    return UsageError(said, where="query", remedy=f"Published tables: {tables}")


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
    print_table(names, shown[:SHOWN_ROWS], stream)
    if len(shown) > SHOWN_ROWS:
        stream.write(f"the first {SHOWN_ROWS} rows; use --format csv for all\n")


def print_table(names: Sequence[str], rows: Sequence[Sequence[Any]], stream: IO[str], *, title: str = "") -> None:
    """Rows in columns. Only a terminal's width folds a cell: whatever else reads this takes any line."""
    table = Table(
        title=title or None,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    columns = [[row[index] for row in rows] for index in range(len(names))]
    for name, values in zip(names, columns, strict=True):
        is_number = any(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in values)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in zip(*(_texts(values) for values in columns), strict=True):
        table.add_row(*row)
    console = Console(file=stream, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=10**6)).maximum)
    console.print(table)


def _texts(values: Sequence[Any]) -> list[str]:
    """A column as text; numbers with a fraction have as many places as the one that needs most."""
    places = max((_places(value) for value in values if isinstance(value, float)), default=0)
    return [_text(value, places) for value in values]


def _places(value: float) -> int:
    return len(f"{value:.{SHOWN_DECIMALS}f}".rstrip("0").partition(".")[2])


def _text(value: Any, places: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:,.{places}f}"
    if isinstance(value, int | Decimal):
        return f"{value:,}"
    return str(value)
