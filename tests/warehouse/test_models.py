"""SQL models: their order comes from the SQL, and what is wrong with one is said with its file and remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from schemas.errors import BuildError, ConfigurationError
from schemas.settings import PROJECT_DIR
from warehouse.models import build_models, load_models

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)
Write = Callable[..., Path]


def yml(*columns: str, checks: str = "") -> str:
    listed = "".join(f"  - {{name: {name}, type: bigint, meaning: m}}\n" for name in columns)
    return f"description: d\ngrain: [{columns[0]}]\ncolumns:\n{listed}{checks}"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("gold/a", "select …", "x", "y")`: a model and its .yml; answers the sql folder."""
    (tmp_path / "silver").mkdir()
    (tmp_path / "silver" / "orders.yml").write_text(yml("x"))
    (tmp_path / "prelude").mkdir()
    (tmp_path / "prelude" / "duckdb.sql").write_text("create or replace macro twice(a) as 2 * a;\n")

    def _write(name: str, sql: str | None, *columns: str, text: str | None = None) -> Path:
        path = tmp_path / f"{name}.sql"
        path.parent.mkdir(exist_ok=True)
        if sql is not None:
            path.write_text(sql)
        if columns or text:
            path.with_suffix(".yml").write_text(text or yml(*columns))
        return tmp_path

    return _write


def build(folder: Path, run_id: str = "r1", definitions: str = "d1") -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("create table orders as select range as x from range(3)")
    build_models(con, load_models(folder), sql_dir=folder, run_id=run_id, definition_hash=definitions, data_as_of=AS_OF)
    return con


def test_the_order_is_that_of_the_sql_whatever_the_names(write: Write) -> None:
    write("gold/a", "select z.x from z", "x")
    write("gold/m", "with base as (select x from orders) select twice(x) as x from base", "x")
    write("gold/y", "select a.x from a inner join m on m.x = a.x where exists (select 1 from z)", "x")
    folder = write("intermediate/z", "select m.x from m union all select x from orders", "x")
    names = [model.name for model in load_models(folder)]
    assert [names.index(name) for name in ("m", "z", "a", "y")] == [0, 1, 2, 3]
    assert [model.is_published for model in load_models(folder)] == [True, False, True, True]
    assert build(folder).execute("select count(*) from y").fetchone() is not None


def test_a_cte_named_like_the_table_it_reads_does_not_hide_it(write: Write) -> None:
    write("gold/a", "with z as (select x from z where x > 0) select x from z", "x")
    folder = write("gold/z", "select x from orders", "x")
    assert [model.name for model in load_models(folder)] == ["z", "a"]
    assert build(folder).execute("select x from a order by x").fetchall() == [(1,), (2,)]


@pytest.mark.parametrize(
    ("sql", "columns", "message"),
    [
        ("select x from nowhere", ["x"], r"gold/a\.sql: reads a table nobody makes: nowhere\. Known are silver"),
        ("select x from a", ["x"], r"models depend on each other: a -> a\. Break the cycle"),
        ("select x from orders", [], r"gold/a\.yml: cannot be read: .*Every table needs a \.yml"),
        ("select x, x as y from orders", ["x"], r"gold/a\.sql: columns differ from a\.yml: y\. Make both lists equal"),
        ("select x, x as y from orders", ["y", "x"], r"columns differ from a\.yml: their order"),
        ("select * from orders", ["x"], r"columns differ from a\.yml: \*, x"),
        ("select from where", ["x"], r"gold/a\.sql: not valid SQL"),
        ("create table b as select 1 as x", ["x"], r"a model is one bare SELECT"),
        ("select 1 as x; select 2 as x", ["x"], r"a model is one bare SELECT"),
    ],
)
def test_what_is_wrong_with_a_model_is_said(write: Write, sql: str, columns: list[str], message: str) -> None:
    folder = write("gold/a", sql, *columns)
    with pytest.raises(ConfigurationError, match=message):
        load_models(folder)


def test_a_cycle_of_two_names_both(write: Write) -> None:
    write("gold/a", "select x from b", "x")
    with pytest.raises(ConfigurationError, match=r"models depend on each other: (a -> b -> a|b -> a -> b)"):
        load_models(write("gold/b", "select x from a", "x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description: d\n", r"a\.yml: grain: Field required"),
        (yml("x") + "colour: red\n", r"a\.yml: colour: Extra inputs"),
        ("description: [", r"a\.yml: cannot be read"),
        (yml("x", checks="checks:\n  - {name: c, unique: [x], holds: 'x > 0'}\n"), r"a check needs exactly one of"),
        (yml("x", checks="checks:\n  - {name: c}\n"), r"a\.yml: c: a check needs exactly one of"),
        (yml("x", checks="checks:\n  - {name: c, severity: loud, holds: 'x > 0'}\n"), r"checks\.0\.severity"),
    ],
)
def test_what_is_wrong_with_a_description_is_said(write: Write, text: str, message: str) -> None:
    folder = write("gold/a", "select x from orders", text=text)
    with pytest.raises(ConfigurationError, match=message):
        load_models(folder)


def test_a_description_without_its_model_is_an_error(write: Write) -> None:
    with pytest.raises(ConfigurationError, match=r"a\.yml: describes no model\. Write a\.sql beside it"):
        load_models(write("gold/a", None, "x"))


def test_a_model_that_fails_names_its_file(write: Write) -> None:
    folder = write("gold/a", "select cast('no' as bigint) as x from orders", "x")
    with pytest.raises(BuildError, match=r"gold/a\.sql: the model failed: Conversion Error.*Correct it"):
        build(folder)


def test_every_row_says_its_run_its_definition_and_its_time(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    folder = write("gold/a", "select x from orders;\n", "x")
    with caplog.at_level(logging.INFO, logger="warehouse.models"):
        rows = build(folder, run_id="it's").execute("select * from a order by x").fetchall()
    assert [row[0] for row in rows] == [0, 1, 2]
    assert {(row[1], len(row[2]), row[3]) for row in rows} == {("it's", 16, AS_OF.replace(tzinfo=None))}
    assert [record.getMessage().rsplit(",", 1)[0] for record in caplog.records] == ["gold: a, 3 rows"]


def test_a_definition_hash_follows_the_sql_upstream_and_the_configuration(write: Write) -> None:
    def hashes(definitions: str = "d1") -> dict[str, str]:
        con = build(folder, definitions=definitions)
        return {name: con.execute(f"select any_value(_definition_hash) from {name}").fetchall()[0][0] for name in "abc"}

    write("gold/a", "select x from orders", "x")
    write("gold/b", "select x from a", "x")
    folder = write("gold/c", "select x from orders where x > 0", "x")
    before = hashes()
    assert hashes() == before
    write("gold/a", "select x + 1 as x from orders", "x")
    after = hashes()
    assert [name for name in "abc" if before[name] != after[name]] == ["a", "b"]
    assert not set(hashes("d2").values()) & set(after.values())


def test_the_shipped_models_load_in_an_order_that_works() -> None:
    models = load_models(PROJECT_DIR / "sql")
    made: set[str] = set()
    for model in models:
        assert not {name for name in model.depends_on if name in {m.name for m in models}} - made
        made.add(model.name)
