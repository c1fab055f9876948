"""What a publication's database holds: a view per table on the run's Parquet, with comments.

Written into the published `journeys.duckdb` with the path readers see, and into `journeys query`'s own in-memory
database with the path they have here: whatever readers may use is made by `create_views`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from schemas.paths import literal_path
from transforms.event_sql import quoted
from warehouse import macros


def create_views(
    con: duckdb.DuckDBPyConnection, folder: Path, tables: Mapping[str, Any], *, seen_as: Path | None = None
) -> None:
    """A view per table of the manifest's `tables`, on the Parquet in `folder`, whose footers hold the comments.

    `seen_as`: the path that the views shall hold for `folder`, where readers see it under another one. It need not
    be there.
    """
    for table, content in tables.items():
        names = [column["name"] for column in content["columns"]]
        paths = [folder / item["path"] for item in content["files"]]
        columns = ", ".join(f'"{name}"' for name in names)
        with _bound_here(con, paths) if seen_as else nullcontext():
            con.execute(
                f'create view "{table}" as select {columns} from '
                f"{_scan([(seen_as or folder) / item['path'] for item in content['files']])}"
            )
        _comment(con, table, paths[0], names)
    macros.create(con, tables)


def _scan(paths: Sequence[Path]) -> str:
    files = ", ".join(quoted(literal_path(path)) for path in paths)
    return f"read_parquet([{files}], hive_partitioning = false)"


@contextmanager
def _bound_here(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> Iterator[None]:
    """While it lasts, `read_parquet` reads `paths`, whatever it is called with.

    DuckDB opens a view's files to learn its columns, yet keeps the words: read later, they mean the real function.
    """
    con.execute(f"create temp view _here as select * from system.main.{_scan(paths)}")
    con.execute(
        "create temp macro read_parquet(files, hive_partitioning := false) as table select * from temp.main._here"
    )
    try:
        yield
    finally:
        con.execute("drop macro table temp.main.read_parquet")
        con.execute("drop view temp.main._here")


def _comment(con: duckdb.DuckDBPyConnection, table: str, file: Path, names: Collection[str]) -> None:
    described = json.loads((pq.read_metadata(file).metadata or {}).get(b"journeys", b"{}"))
    con.execute(f'comment on view "{table}" is {quoted(described.get("description", ""))}')
    for name, meaning in described.get("columns", {}).items():
        if name in names:
            con.execute(f'comment on column "{table}"."{name}" is {quoted(meaning)}')
