"""`journeys query`: any SELECT on what is published, nothing else on this machine, answers that read well."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import yaml

from schemas.errors import PublishError, UsageError
from schemas.settings import PROJECT_DIR
from warehouse.night import publish_run
from warehouse.query import SHOWN_ROWS, print_table, query


def printed(rows: list[tuple[Any, ...]], names: str) -> list[str]:
    stream = io.StringIO()
    print_table(names.split(), rows, stream)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "sql",
    [
        "from read_csv('/etc/passwd')",
        "from '/etc/passwd'",
        "from read_text('/etc/passwd')",
        "from glob('/etc/*')",
        "from sniff_csv('/etc/passwd')",
        "from read_blob('{home}/warehouse.duckdb')",
        "from read_parquet('{home}/landing/*/*/*/*.parquet')",
        "from parquet_metadata('{home}/landing/*/*/*/*.parquet')",
        "select getenv('HOME')",
        "select * from query('copy orders to ''{home}/out.csv''')",
        "attach '{home}/warehouse.duckdb'",
        "copy orders to '{home}/out.csv'",
        "export database '{home}/out'",
        "install httpfs",
        "load json",
        "set enable_external_access = true",
        "pragma database_list",
        "call pragma_version()",
        "create temp table x as select 1",
        "drop view orders",
        "delete from orders",
        "select 1; select 2",
        "",
        "explain analyze select 1",
    ],
)
def test_what_reaches_outside_the_publication_is_refused(shared: Any, sql: str) -> None:
    home = shared.settings.home
    with pytest.raises(UsageError, match=r"one SELECT is expected|Permission Error|does not exist|Parser Error"):
        query(shared.settings, sql.format(home=home))
    assert not (home / "out.csv").exists()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select nothing from orders", r'"nothing" not found.* Published tables: attribution, build_parameters'),
        ("selec", r'syntax error at or near "selec"\. Published tables'),
        ("from settings", r"Table with name settings does not exist"),  # nor is a variable of ours a table
        ("from quarantine", r"Table with name quarantine does not exist"),
    ],
)
def test_wrong_sql_is_told_on_one_line_with_the_tables_there_are(shared: Any, sql: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        query(shared.settings, sql)
    assert "\n" not in str(caught.value)


ANSWER = (
    "select order_id, ordered_at, amount, null as nothing, 1.5::double as ratio, true as yes "
    "from orders order by order_id limit 2"
)


def test_every_format_holds_the_same_rows(shared: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query(shared.settings, ANSWER, format="json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(row) for row in rows] == [["order_id", "ordered_at", "amount", "nothing", "ratio", "yes"]] * 2
    first = rows[0]
    assert (first["nothing"], first["ratio"], first["yes"]) == (None, 1.5, True)

    query(shared.settings, ANSWER, format="csv", out=tmp_path / "a.csv")
    line = (tmp_path / "a.csv").read_text().splitlines()[1]
    assert line == f"{first['order_id']},{first['ordered_at']},{first['amount']},,1.5,True"

    query(shared.settings, ANSWER, format="parquet", out=tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert str(table.schema.field("ordered_at").type) == "timestamp[us, tz=UTC]"
    assert [str(value) for value in table["amount"].to_pylist()] == [row["amount"] for row in rows]
    assert capsys.readouterr() == ("", "")

    query(shared.settings, ANSWER)
    assert f"{first['order_id']}" in capsys.readouterr().out


def test_parquet_needs_a_file_and_a_folder_for_it(shared: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"parquet needs a file.*Add --out FILE"):
        query(shared.settings, "select 1", format="parquet")
    for kind in ("csv", "parquet"):
        with pytest.raises(UsageError, match=r"cannot be written.*Give --out a file in a folder that exists"):
            query(shared.settings, "select 1", format=kind, out=tmp_path / "none" / "x")


def test_before_the_first_night_and_with_a_broken_publication_the_remedy_is_told(built: Any) -> None:
    with pytest.raises(UsageError, match=r"nothing is published yet.*journeys night"):
        query(built.settings, "select 1")
    built.publish()
    (built.current / "orders" / "orders.parquet").unlink()
    with pytest.raises(PublishError, match=r"cannot be opened: .*orders.*journeys publish"):
        query(built.settings, "select 1")
    (built.current / "manifest.json").write_text("{")
    with pytest.raises(PublishError, match=r"manifest\.json: the publication cannot be read.*journeys publish"):
        query(built.settings, "select 1")


def test_a_publication_for_another_path_is_asked_here(
    built: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_run(built.settings, run_id="r2", root=tmp_path / "reader's" / "mount")
    query(built.settings, "select count(*) as n from journeys.main.orders", format="json")
    assert json.loads(capsys.readouterr().out) == {"n": built.manifest()["tables"]["orders"]["row_count"]}
    query(built.settings, "select comment from duckdb_views() where view_name = 'orders'", format="csv")
    described = yaml.safe_load((PROJECT_DIR / "sql" / "silver" / "orders.yml").read_text())["description"]
    assert next(csv.reader(capsys.readouterr().out.splitlines()[1:])) == [" ".join(described.split())]


TAKEN = [
    "published/current/manifest.json",
    "published/r1/new.csv",
    "published/new.csv",
    "landing/new.csv",
    "quality/r1.json",
    ".duckdb_tmp/x",
    "warehouse.duckdb",
    "warehouse.duckdb.wal",
    "landing/../link/current/journeys.duckdb",
]


@pytest.mark.parametrize("name", TAKEN)
def test_an_answer_overwrites_nothing_that_the_pipeline_keeps(built: Any, name: str) -> None:
    home = built.settings.home
    built.publish()
    (home / "link").symlink_to(home / "published")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    for kind in ("csv", "parquet"):
        with pytest.raises(UsageError, match=r"--out: the pipeline keeps its own files there \(got .*Give --out"):
            query(built.settings, "select 1", format=kind, out=home / name)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    query(built.settings, "select 1", format="csv", out=home / "mine.csv")


def json_row(settings: Any, sql: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    query(settings, sql, format="json")

    def _refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    row: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=_refuse)
    return row


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("'nan'::double", None),
        ("'-infinity'::float", None),
        ("[1.5, 'inf'::double]", [1.5, None]),
        ("'\\x00\\xFF'::blob", "AP8="),
        ("1.50::decimal(10, 2)", "1.50"),
        ("0::decimal(38, 20)", "0.00000000000000000000"),
        ("170141183460469231731687303715884105727::hugeint", 2**127 - 1),
        ("timestamptz '2026-01-05 10:00:00.000001+02'", "2026-01-05T08:00:00.000001+00:00"),
        ("timestamp '2026-01-05 10:00:00'", "2026-01-05T10:00:00"),
        ("date '2026-01-05'", "2026-01-05"),
        ("time '10:00:00.5'", "10:00:00.500000"),
        ("interval '2 days 90 seconds 500 milliseconds'", "P2DT90.5S"),
        ("interval '-1 minute'", "-P0DT60S"),
        ("{'when': [date '2026-01-05'], 'price': 1.50::decimal(10, 2)}", {"when": ["2026-01-05"], "price": "1.50"}),
        ("map {date '2026-01-05': 'x'::blob}", {"2026-01-05": "eA=="}),
        ("map {7: true}", {"7": True}),
        ("uuid '0b0f3a52-6a0e-4d5c-9a3c-0f6b6f1c2d3e'", "0b0f3a52-6a0e-4d5c-9a3c-0f6b6f1c2d3e"),
        ("'[1]'::json", "[1]"),
    ],
)
def test_every_type_is_written_as_json_that_any_program_reads(
    shared: Any, capsys: pytest.CaptureFixture[str], sql: str, value: Any
) -> None:
    assert json_row(shared.settings, f"select {sql} as a", capsys) == {"a": value}


def test_columns_of_one_name_are_all_there_named_as_a_subquery_names_them(
    shared: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = "select 1 as a, 2 as a, 3 as A, 4 as a_1"
    row = {"a": 1, "a_1": 2, "A_2": 3, "a_1_1": 4}
    assert json_row(shared.settings, sql, capsys) == row
    assert json_row(shared.settings, f"from ({sql})", capsys) == row
    for kind in ("csv", "parquet"):
        query(shared.settings, sql, format=kind, out=tmp_path / kind)
    assert (tmp_path / "csv").read_text() == "a,a_1,A_2,a_1_1\n1,2,3,4\n"
    assert pq.read_table(tmp_path / "parquet").to_pylist() == [row]


def test_a_csv_cell_holds_what_json_holds(shared: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select 'x'::blob as a, [date '2026-01-05'] as b, {'c': null} as c, timestamptz '2026-01-05 10:00+00' as d"
    query(shared.settings, sql, format="csv")
    assert list(csv.reader(capsys.readouterr().out.splitlines())) == [
        ["a", "b", "c", "d"],
        ["eA==", '["2026-01-05"]', '{"c": null}', "2026-01-05T10:00:00+00:00"],
    ]


def test_numbers_stand_aligned_with_the_places_that_the_column_needs() -> None:
    rows = [
        ("consideration", 11179, 84.9, Decimal("4596039.58"), True),
        ("onboarding", 4, 58.0, None, False),
        ("[bold]x", None, 0.123456, Decimal("0.10"), None),
    ]
    assert printed(rows, "stage count ratio revenue ok")[2:] == [
        "consideration  11,179  84.9000  4,596,039.58  true",
        "onboarding          4  58.0000                false",
        "[bold]x                 0.1235          0.10",
    ]


def test_no_word_is_folded_where_no_terminal_limits_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    long = "onboarding_step_completed_" * 8
    lines = printed([(long, long)], "a b")
    assert len(lines) == 3
    assert lines[2] == f"{long}  {long}"


def test_a_narrow_terminal_shows_every_column_without_lines_between() -> None:
    """A real terminal of 80 columns: what fits is not folded."""
    ask = (
        "import sys; from warehouse.query import print_table; "
        "print_table(['stage', 'exit', 'last seen', 'dropped', 'share %', 'next', 'days'], "
        "[('consideration', 'web', 'email_marked_as_spam', 340, 32.4, 'never back', None)], sys.stdout)"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-c", ask], stdout=slave, env=environment, check=True)
    os.close(slave)
    shown = os.read(master, 10_000).decode()
    assert "consideration  web   email_marked_as_spam      340     32.4  never back" in shown
    assert "│" not in shown


def test_a_long_answer_says_that_it_was_cut(shared: Any, capsys: pytest.CaptureFixture[str]) -> None:
    query(shared.settings, f"select range as number from range({SHOWN_ROWS + 1})")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"the first {SHOWN_ROWS} rows; use --format csv for all"
    query(shared.settings, f"select range as number from range({SHOWN_ROWS})")
    assert "the first" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("interval 1 day", "INTERVAL"),
        ("[interval 1 day]", r"INTERVAL\[\]"),
        ("union_value(x := 1)", r"UNION\(x INTEGER\)"),
    ],
)
def test_what_parquet_cannot_hold_is_told_with_its_column(shared: Any, tmp_path: Path, sql: str, kind: str) -> None:
    with pytest.raises(UsageError, match=rf"column 'a' \(got '{kind}'\)\. Cast it, like \"a\"::varchar"):
        query(shared.settings, f"select 1 as b, {sql} as a", format="parquet", out=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    query(shared.settings, f"select 1 as b, ({sql})::varchar as a", format="parquet", out=tmp_path / "x")
    assert pq.read_table(tmp_path / "x").num_rows == 1


@pytest.mark.parametrize("kind", ["csv", "json", "parquet", "table"])
def test_a_query_that_fails_midway_leaves_the_file_as_it_was(shared: Any, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "answer"
    out.write_text("before")
    limit = 50 if kind == "table" else 900_000
    sql = f"select case when i = {limit} then error('boom at ' || i) else i::varchar end as a from range(1000000) t(i)"
    with pytest.raises(UsageError, match=rf"^query: Invalid Input Error: boom at {limit}\. Published tables"):
        query(shared.settings, sql, format=kind, out=out)
    assert (out.read_text(), list(tmp_path.iterdir())) == ("before", [out])


def test_a_written_file_keeps_its_link_and_mode_and_a_pipe_is_written_itself(shared: Any, tmp_path: Path) -> None:
    file, link, pipe = (tmp_path / name for name in ("file", "link", "pipe"))
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(file)
    query(shared.settings, "select 1 as a", format="csv", out=link)
    assert (link.is_symlink(), file.read_text(), oct(file.stat().st_mode & 0o777)) == (True, "a\n1\n", "0o640")
    query(shared.settings, "select 1 as a", format="csv", out=tmp_path / "new")
    umask = os.umask(0o022)
    os.umask(umask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~umask
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        query(shared.settings, "select 1 as a", format="csv", out=pipe)
        assert reader.communicate(timeout=30)[0] == "a\n1\n"
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["warehouse.duckdb", "published/r1/manifest.json", "landing"])
def test_a_hard_link_of_what_the_pipeline_keeps_is_not_overwritten(built: Any, tmp_path: Path, name: str) -> None:
    built.publish()
    kept = built.settings.home / name
    if kept.is_dir():
        kept = next(kept.rglob("*.parquet"))
    (tmp_path / "link").hardlink_to(kept)
    with pytest.raises(UsageError, match="--out: the pipeline keeps its own files there"):
        query(built.settings, "select 1", format="csv", out=tmp_path / "link")
    assert kept.samefile(tmp_path / "link")


def test_infinite_times_are_told_from_the_last_day_that_python_knows(
    shared: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = (
        "select 'infinity'::timestamp as a, '-infinity'::timestamptz as b, 'infinity'::date as c, "
        "date '9999-12-31' as d, timestamp '0001-01-01' as e, null::date as f, timestamptz '2026-01-05 10:00+00' as g"
    )
    values = ["infinity", "-infinity", "infinity", "9999-12-31", "0001-01-01T00:00:00"]
    row = dict(zip("abcde", values, strict=True)) | {"f": None, "g": "2026-01-05T10:00:00+00:00"}
    assert json_row(shared.settings, sql, capsys) == row
    query(shared.settings, sql, format="csv")
    assert capsys.readouterr().out.splitlines()[1] == ",".join([*values, "", row["g"] or ""])


@pytest.mark.parametrize("sql", ["describe orders", "summarize orders", "show tables", "values (1)", "from orders"])
def test_every_kind_of_question_is_answered(shared: Any, sql: str, capsys: pytest.CaptureFixture[str]) -> None:
    query(shared.settings, sql, format="csv")
    assert len(capsys.readouterr().out.splitlines()) > 1


def test_a_home_named_like_a_pattern_is_asked_and_not_its_neighbour(
    shared: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, neighbour = shared.copy_to(tmp_path / "hg[1]"), shared.copy_to(tmp_path / "hg1")
    for home in (one, neighbour):
        home.publish()
    for file in neighbour.current.resolve().rglob("orders.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.slice(0, 1), file)
    expected = one.manifest()["tables"]["orders"]["row_count"]
    query(one.settings, "select count(*) as n from orders", format="json")
    assert json.loads(capsys.readouterr().out) == {"n": expected}
    with pytest.raises(UsageError, match="Permission Error"):
        query(one.settings, f"from read_parquet('{one.current.resolve()}/orders/orders.parquet')")
    with duckdb.connect(str(one.current.resolve() / "journeys.duckdb"), read_only=True) as con:
        assert con.execute("select count(*) from orders").fetchone() == (expected,)
