"""The one DuckDB file: who may open it, and with which limits."""

from __future__ import annotations

import os
import re
from pathlib import Path

import duckdb

from schemas.errors import BuildError
from schemas.settings import Settings


def connect(settings: Settings, *, read_only: bool = False, path: Path | None = None) -> duckdb.DuckDBPyConnection:
    """Open the warehouse (or `path`) with UTC, the configured limits, and no extension from anywhere.

    The file and everything DuckDB writes beside it are private (0600, 0700). Raises BuildError when another process
    is writing, or when the file is not one DuckDB can read.
    """
    file = path or settings.warehouse_path
    spill = file.parent / ".duckdb_tmp"
    if not read_only:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            spill.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise _explain(error, file) from None
        # DuckDB makes its WAL and spill files itself: only the process's umask can keep them private.
        os.umask(0o077)
    config = {
        "memory_limit": settings.duckdb_memory_limit,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "temp_directory": str(spill),
        "preserve_insertion_order": "false",
    }
    if settings.duckdb_threads:
        config["threads"] = str(settings.duckdb_threads)
    try:
        con = duckdb.connect(str(file), read_only=read_only, config=config)
    except duckdb.IOException as error:
        raise _explain(error, file) from None
    except duckdb.Error as error:
        raise BuildError(
            f"the warehouse cannot be opened: {str(error).splitlines()[0]}",
            where=str(file),
            remedy="Move the file away and run `journeys build --full`: everything in it is made from landing",
        ) from None
    con.execute("set TimeZone = 'UTC'")
    if not read_only:
        file.chmod(0o600)
    return con


def _explain(error: Exception, file: Path) -> BuildError:
    text = str(error)
    if "lock" in text.lower():
        holder = re.search(r"PID (\d+)", text)
        return BuildError(
            "another process is writing the warehouse",
            where=str(file),
            value=f"process {holder[1]}" if holder else None,
            remedy="Wait until it ends; one night runs at a time",
        )
    return BuildError(
        f"the warehouse cannot be opened: {text.splitlines()[0]}",
        where=str(file),
        remedy="Check that the folder exists and is yours, and that the disk is not full",
    )
