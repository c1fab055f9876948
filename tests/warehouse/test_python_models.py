"""Python models: what they read is read from their text, what they answer takes the types of their .yml."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from schemas.errors import BuildError, ConfigurationError, ModelError
from schemas.settings import PROJECT_DIR
from warehouse.models import build_models, load_models

DOUBLED = """
import pyarrow as pa

READS = ("numbers",)

def model(tables):
    return pa.table({"doubled": [2 * number for number in sorted(tables["numbers"]["number"].to_pylist())]})
"""


def a_folder(tmp_path: Path, code: str) -> Path:
    for folder in ("silver", "intermediate", "gold"):
        (tmp_path / folder).mkdir()
    (tmp_path / "prelude").symlink_to(PROJECT_DIR / "sql" / "prelude")
    (tmp_path / "silver" / "numbers.yml").write_text(
        "description: n\ngrain: [number]\ncolumns: [{name: number, type: bigint, meaning: n}]"
    )
    (tmp_path / "intermediate" / "twice.py").write_text(code)
    (tmp_path / "intermediate" / "twice.yml").write_text(
        "description: n\ngrain: [doubled]\ncolumns: [{name: doubled, type: integer, meaning: n}]"
    )
    (tmp_path / "gold" / "total.sql").write_text("select sum(doubled) as total from twice")
    (tmp_path / "gold" / "total.yml").write_text(
        "description: n\ngrain: [total]\ncolumns: [{name: total, type: bigint, meaning: n}]"
    )
    return tmp_path


def build(sql_dir: Path) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("create table numbers as select unnest([3, 1])::bigint as number")
    as_of = datetime(2026, 1, 1, tzinfo=UTC)
    models = load_models(sql_dir)
    build_models(con, models, sql_dir=sql_dir, run_id="r", definition_hash="d", data_as_of=as_of)
    return con


def test_a_python_model_is_built_between_the_sql_it_reads_and_the_sql_that_reads_it(tmp_path: Path) -> None:
    con = build(a_folder(tmp_path, DOUBLED))
    assert con.execute("select doubled, typeof(doubled), _run_id from twice order by 1").fetchall() == [
        (2, "INTEGER", "r"),
        (6, "INTEGER", "r"),
    ]
    assert con.execute("select total from total").fetchall() == [(8,)]


def test_a_changed_python_model_changes_its_hash_and_that_of_what_reads_it(tmp_path: Path) -> None:
    sql = "select (select any_value(_definition_hash) from twice), (select _definition_hash from total)"
    before = build(a_folder(tmp_path, DOUBLED)).execute(sql).fetchall()[0]
    (tmp_path / "intermediate" / "twice.py").write_text(DOUBLED + "# another\n")
    after = build(tmp_path).execute(sql).fetchall()[0]
    assert before[0] != after[0] and before[1] != after[1]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def model(tables:", "not valid Python"),
        ("def model(tables): ...", "needs READS and model"),
        ("READS = ('numbers',)", "needs READS and model"),
        (DOUBLED.replace('"numbers",', '"nobody",'), "reads a table nobody makes: nobody"),
    ],
)
def test_a_python_model_that_cannot_be_used_is_told_with_its_file(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_models(a_folder(tmp_path, code))
    assert "twice.py" in str(caught.value)


def test_a_python_model_that_fails_is_a_build_error_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"twice\.py: the model failed: KeyError: 'other'"):
        build(a_folder(tmp_path, DOUBLED.replace('tables["numbers"]', 'tables["other"]')))


def test_a_column_that_the_python_model_does_not_answer_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"twice\.py"):
        build(a_folder(tmp_path, DOUBLED.replace('"doubled":', '"tripled":')))


def test_a_model_that_is_wrong_by_itself_is_not_retried_and_a_full_disk_is(tmp_path: Path) -> None:
    sql_dir = a_folder(tmp_path, DOUBLED)
    (sql_dir / "gold" / "total.sql").write_text("select cast('x' as bigint) as total from twice")
    with pytest.raises(ModelError, match=r"total\.sql: the model failed: Conversion Error"):
        build(sql_dir)
    (sql_dir / "gold" / "total.sql").write_text(
        "select max(place) as total from "
        "(select row_number() over (order by number % 1009, number) as place from numbers)"
    )
    con = duckdb.connect()
    con.execute("create table numbers as select range as number from range(1000000)")
    con.execute("set memory_limit = '24MB'; set threads = 1; set temp_directory = ''")
    as_of = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(BuildError, match="Free the disk or memory") as caught:
        build_models(con, load_models(sql_dir), sql_dir=sql_dir, run_id="r", definition_hash="d", data_as_of=as_of)
    assert not isinstance(caught.value, ModelError)
