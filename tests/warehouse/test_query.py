"""`journeys query`: any SELECT on what is published, nothing else on this machine, answers that read well."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.errors import PublishError, UsageError
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
        ("select nothing from orders", r'"nothing" not found.* Published tables: customers, data_quality, journeys'),
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
    (built.current / "journeys.duckdb").write_bytes(b"no database" * 1000)
    with pytest.raises(PublishError, match=r"cannot be opened.*journeys publish"):
        query(built.settings, "select 1")


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
