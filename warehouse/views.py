"""What a publication's database holds: a view per table on the run's Parquet, with comments.

Written into the published `journeys.duckdb` with the path readers see, and into `journeys query`'s own in-memory
database with the path they have here: whatever readers may use is made by `create_views`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from transforms.event_sql import quoted


def create_views(con: duckdb.DuckDBPyConnection, folder: Path, tables: Mapping[str, Any]) -> None:
    """A view per table of the manifest's `tables`, on the Parquet in `folder`.

    DuckDB opens the files to bind the views: they must be there. Their footers hold the comments.
    """
    for table, content in tables.items():
        names = [column["name"] for column in content["columns"]]
        paths = [folder / item["path"] for item in content["files"]]
        columns = ", ".join(f'"{name}"' for name in names)
        files = ", ".join(quoted(str(path)) for path in paths)
        con.execute(
            f'create view "{table}" as select {columns} from read_parquet([{files}], hive_partitioning = false)'
        )
        _comment(con, table, paths[0], names)


def _comment(con: duckdb.DuckDBPyConnection, table: str, file: Path, names: Collection[str]) -> None:
    described = json.loads((pq.read_metadata(file).metadata or {}).get(b"journeys", b"{}"))
    con.execute(f'comment on view "{table}" is {quoted(described.get("description", ""))}')
    for name, meaning in described.get("columns", {}).items():
        if name in names:
            con.execute(f'comment on column "{table}"."{name}" is {quoted(meaning)}')
