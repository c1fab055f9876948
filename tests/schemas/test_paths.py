"""A path given to DuckDB's readers reads its file and no other."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from schemas.paths import literal_path

NAMES = ("v[1]", "v1", "v?", "vx", "v*", "vxx", "[[]", "[", "{a,b}", "a", "v]")


@pytest.mark.parametrize(
    ("reader", "kind"),
    [("read_parquet", "parquet"), ("read_csv", "csv"), ("read_json", "json")],
)
def test_each_file_is_read_alone_and_in_a_list(tmp_path: Path, reader: str, kind: str):
    paths = [tmp_path / folder / name for folder in NAMES for name in NAMES]
    with duckdb.connect() as con:
        for number, path in enumerate(paths):
            path.parent.mkdir(exist_ok=True)
            con.execute(f"copy (select {number} as n) to '{tmp_path}/new' (format {kind})")
            (tmp_path / "new").rename(path)
        for number, path in enumerate(paths):
            assert con.execute(f"from {reader}(?)", [literal_path(path)]).fetchall() == [(number,)]
        rows = con.execute(f"from {reader}(?)", [[literal_path(path) for path in paths]]).fetchall()
    assert rows == [(number,) for number in range(len(paths))]


def test_a_plain_path_stays_as_it_is():
    assert literal_path("/data/é {a,b}!.csv") == "/data/é {a,b}!.csv"
