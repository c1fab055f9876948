"""The one DuckDB file: one writer, private, and an error that says who and what."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.errors import BuildError
from warehouse.database import connect

HOLD = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
con.execute("create table x (a int)")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_is_told_which_process_writes(home: Any) -> None:
    file = home.settings.warehouse_path
    file.parent.mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for read_only in (False, True):
            with pytest.raises(
                BuildError, match=rf"another process is writing the warehouse \(got 'process {holder.pid}'\)\. Wait"
            ):
                connect(home.settings, read_only=read_only)
        with pytest.raises(BuildError, match="another process"):
            home.silver()
        holder.communicate("")
    with connect(home.settings) as con:
        assert con.execute("select count(*) from x").fetchone() == (0,)


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"x"], ids=["text", "one byte"])
def test_a_broken_file_is_told_with_the_way_back(home: Any, content: bytes) -> None:
    home.settings.home.mkdir()
    home.settings.warehouse_path.write_bytes(content)
    with pytest.raises(BuildError, match=r"warehouse\.duckdb: the warehouse cannot be opened: .*"):
        connect(home.settings)


def test_a_folder_that_is_a_file_is_a_clear_error(home: Any) -> None:
    home.settings.home.write_text("a file")
    with pytest.raises(BuildError, match=r"cannot be opened"):
        connect(home.settings)


def test_what_lies_beside_the_file_is_private_and_no_extension_comes_from_anywhere(home: Any) -> None:
    with connect(home.settings) as con:
        con.execute("create table x as select range as a from range(100000)")
        beside = list(home.settings.home.rglob("*"))
        assert {oct(path.stat().st_mode & 0o777) for path in beside if path.is_file()} == {"0o600"}
        assert {oct(path.stat().st_mode & 0o777) for path in beside if path.is_dir()} == {"0o700"}
        assert con.execute("select current_setting('TimeZone')").fetchone() == ("UTC",)
        with pytest.raises(duckdb.Error, match="httpfs"):
            con.execute("select * from read_parquet('https://127.0.0.1:9/x.parquet')")


def test_the_configured_limits_hold(home: Any) -> None:
    settings = home.with_settings(duckdb_memory_limit="123MB", duckdb_threads=1)
    with connect(settings) as con:
        row = con.execute("select current_setting('memory_limit'), current_setting('threads')").fetchone()
        where = con.execute("select current_setting('temp_directory')").fetchone()
    assert row is not None and where is not None
    assert (row[0].split(".")[0], row[1]) == ("117", 1)  # in MiB
    assert Path(where[0]).parent == home.settings.home
