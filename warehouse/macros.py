"""What the published database offers beside its views: table macros for what analysts ask ad hoc, and the functions
that the models are written with (`wilson_low`, `local_date`, …), so that their own SQL counts as the tables do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from schemas.settings import PROJECT_DIR
from transforms.event_sql import quoted
from warehouse import funnel

SQL_DIR = PROJECT_DIR / "sql"
NEEDED = frozenset({"touchpoints", "orders", "customers", "journeys", "build_parameters"})
"""Views that the macros read. A publication of an earlier version that lacks one has no macros."""


def create(con: duckdb.DuckDBPyConnection, tables: Mapping[str, Any], sql_dir: Path = SQL_DIR) -> None:
    """Make the macros on the views of the manifest's `tables`.

    DuckDB tries a macro when it is made. The views' files need not be there: it is shown tables of the same columns.
    """
    if not set(tables) >= NEEDED:
        return
    con.execute((sql_dir / "prelude" / "duckdb.sql").read_text(encoding="utf-8"))
    for table in NEEDED:
        columns = ", ".join(f'"{column["name"]}" {column["type"]}' for column in tables[table]["columns"])
        con.execute(f'create temp table "{table}" ({columns})')
    try:
        for statement in statements(sql_dir):
            con.execute(statement)
            name, comment = _described(statement)
            con.execute(f"comment on macro table {name} is {quoted(comment)}")
    finally:
        for table in NEEDED:
            con.execute(f'drop table temp.main."{table}"')


def statements(sql_dir: Path = SQL_DIR) -> list[str]:
    """A `create macro` for each, ready to run in this order."""
    others = ("retention_of", "paths_from", "journey_of")
    texts = [(sql_dir / "macros" / f"{name}.sql").read_text(encoding="utf-8") for name in others]
    return [*funnel.macros(sql_dir), *texts]


def _described(statement: str) -> tuple[str, str]:
    """The macro's name, and the first paragraph of the comment above it."""
    lines = statement.splitlines()
    comment = []
    for line in lines:
        if not line.startswith("-- "):
            break
        comment.append(line.removeprefix("-- "))
    made = next(line for line in lines if line.startswith("create or replace macro "))
    return made.removeprefix("create or replace macro ").partition("(")[0], " ".join(comment)
