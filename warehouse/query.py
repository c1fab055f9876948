"""`journeys query`: SQL on the published tables, read-only and confined to them."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from schemas.errors import PublishError, UsageError
from schemas.paths import literal_path
from schemas.settings import Settings
from transforms.event_sql import quoted
from warehouse.answer_file import replacing, require_free
from warehouse.exchange import csv_value, distinct_names, json_value
from warehouse.publish import CURRENT, read_manifest
from warehouse.views import create_views

SHOWN_ROWS = 200
SHOWN_DECIMALS = 4
_INFINITE_TYPES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")


@contextmanager
def open_published(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """The current publication, resolved once; nothing outside the published folder can be read or written.

    The views of `journeys.duckdb` hold the path its readers see, which may not be there for us (`--root`): they are
    made anew in memory, on the same Parquet. Raises UsageError when nothing is published yet.
    """
    current = settings.published_dir / CURRENT
    if not current.exists():
        raise UsageError(
            "nothing is published yet", where=str(settings.published_dir), remedy="Run `journeys night` or `make demo`"
        )
    folder = current.resolve()
    with tempfile.TemporaryDirectory(prefix="journeys-") as spill, _connect(settings, spill) as con:
        # By the published file's name, so that `journeys.main.orders` is the same table here and there.
        con.execute("attach ':memory:' as journeys; use journeys; set TimeZone = 'UTC'")
        try:
            create_views(con, folder, read_manifest(folder)["tables"])
        except (OSError, LookupError, duckdb.Error) as error:
            raise PublishError(
                f"the publication cannot be opened: {str(error).splitlines()[0]}",
                where=str(folder),
                remedy="Delete its folder and run `journeys publish` to make it anew",
            ) from None
        root = f"{settings.published_dir.resolve()}/"  # as a view names it, and as the file is found
        con.execute(f"set allowed_directories = [{quoted(literal_path(root))}, {quoted(root)}]")
        con.execute("set enable_external_access = false")
        con.execute("set lock_configuration = true")
        yield con


def _connect(settings: Settings, spill: str) -> duckdb.DuckDBPyConnection:
    config = {
        "memory_limit": settings.duckdb_memory_limit,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",  # a table that is not there is no variable of ours
        "temp_directory": spill,  # private, and not the folder somebody happens to stand in
    }
    if settings.duckdb_threads:
        config["threads"] = str(settings.duckdb_threads)
    return duckdb.connect(config=config)


def query(
    settings: Settings, sql: str, *, format: str = "table", out: Path | None = None, macros: Sequence[str] = ()
) -> None:
    """Run one SELECT on the published tables and write its rows as table, csv, json or parquet.

    `macros`: statements that make what the SELECT calls beside the published macros.
    Raises UsageError for SQL that is wrong, not a query, or reaches outside the publication, and for an `out` among
    the files that the pipeline keeps.
    """
    if format == "parquet" and out is None:
        raise UsageError("parquet needs a file", value="--format parquet", remedy="Add --out FILE")
    if out is not None:
        require_free(settings, out)
    with open_published(settings) as con:
        try:
            for macro in macros:
                con.execute(macro)
            statement = _one_select(con, sql)
            if out is None:
                _write(_rows(con, statement), format, sys.stdout)
                return
            answer = con.sql(statement) if format == "parquet" else _rows(con, statement)
            with replacing(out) as path:
                if isinstance(answer, duckdb.DuckDBPyRelation):
                    _write_parquet(answer, path)
                else:
                    with path.open("w", encoding="utf-8", newline="") as stream:
                        _write(answer, format, stream)
        except duckdb.Error as error:
            raise _explain(con, error) from None


def _write_parquet(answer: duckdb.DuckDBPyRelation, out: Path) -> None:
    names = distinct_names(answer.columns)
    with answer.to_arrow_reader() as batches:
        schema = pa.schema([column.with_name(name) for column, name in zip(batches.schema, names, strict=True)])
        _require_parquet_types(schema, answer.types)
        with pq.ParquetWriter(out, schema) as writer:
            for batch in _read(batches):
                writer.write_batch(batch.rename_columns(names))


def _require_parquet_types(schema: pa.Schema, kinds: Sequence[Any]) -> None:
    for column, kind in zip(schema, kinds, strict=True):
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([column])).close()
        except pa.ArrowException:
            raise UsageError(
                f"Parquet cannot hold the column {column.name!r}",
                where="query",
                value=str(kind),
                remedy=f'Cast it, like "{column.name}"::varchar, or use --format json',
            ) from None


def _read(batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches; an error of the query, which Arrow makes one of a file, is DuckDB's again."""
    while True:
        try:
            batch = batches.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            raise duckdb.Error(str(error)) from None
        yield batch


def _rows(con: duckdb.DuckDBPyConnection, statement: Any) -> duckdb.DuckDBPyConnection:
    """The answer to fetch from. Python's times end with the year 9999: an infinite one becomes its word."""
    answer = con.sql(statement)
    kinds = [str(kind) for kind in answer.types]
    if not set(kinds) & set(_INFINITE_TYPES):
        return con.execute(statement)
    columns = []
    for number, (name, kind) in enumerate(zip(answer.columns, kinds, strict=True), start=1):
        column = f"#{number}"
        if kind in _INFINITE_TYPES:
            either = f"::union(word varchar, instant {kind})"
            column = f"if(isinf({column}), {column}::varchar{either}, {column}{either})"
        columns.append(f'{column} as "{name.replace(chr(34), chr(34) * 2)}"')
    return con.execute(answer.project(", ".join(columns)).sql_query())


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
        writer.writerow(distinct_names(names))
        for row in iter(rows.fetchone, None):
            writer.writerow([csv_value(value) for value in row])
    elif format == "json":
        names = distinct_names(names)
        for row in iter(rows.fetchone, None):
            values = {name: json_value(value) for name, value in zip(names, row, strict=True)}
            stream.write(json.dumps(values, allow_nan=False) + "\n")
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
