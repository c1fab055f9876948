"""The macros in a real publication, and `journeys funnel`, which is made of the same SQL."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from schemas.errors import ConfigurationError, UsageError
from warehouse import macros
from warehouse.funnel import COLUMNS, Funnel
from warehouse.night import publish_run
from warehouse.query import query

MADE = ("funnel", "funnel_attempts", "journey_of", "paths_from", "retention_of")
STEPS = ("page_viewed", "product_added", "order_completed")
FUNNEL = f"funnel({list(STEPS)}, within := interval 7 days)"


def opened(home: Any) -> duckdb.DuckDBPyConnection:
    """As any DuckDB client opens the published file."""
    return duckdb.connect(str(home.current.resolve() / "journeys.duckdb"), read_only=True)


def asked(capsys: pytest.CaptureFixture[str], home: Any, sql: str, **options: Any) -> list[dict[str, Any]]:
    query(home.settings, sql, format="json", **options)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_published_file_holds_the_macros_with_comments_and_needs_nothing_else(shared: Any) -> None:
    with opened(shared) as con:
        found = con.execute("""
            select function_name, comment from duckdb_functions()
            where function_type = 'table_macro' and not internal order by function_name""").fetchall()
        assert [name for name, _ in found] == list(MADE)
        assert all(comment and "\n" not in comment for _, comment in found)
        assert con.execute(f"select sum(reached_count) from {FUNNEL}").fetchall()[0][0] > 10
        assert con.execute("select count(*) from retention_of('first_touch', 'any')").fetchall()[0][0] > 1
        assert con.execute("select count(*) from paths_from('page_viewed')").fetchall()[0][0] > 3
        [(customer, count)] = con.execute(
            "select customer_key, count(*) from touchpoints where customer_key is not null group by all limit 1"
        ).fetchall()
        assert con.execute("select count(*) from journey_of(?)", [customer]).fetchall() == [(count,)]
        assert con.execute("select wilson_low(1, 2) < 0.5, safe_ratio(1, 0) is null").fetchall() == [(True, True)]


def test_a_client_that_attaches_the_file_uses_it_and_has_the_same_numbers_in_any_time_zone(shared: Any) -> None:
    with opened(shared) as con:
        con.execute("set TimeZone = 'UTC'")
        sql = f"select * from {FUNNEL}; from retention_of('first_touch', 'any', period := 'day')"
        expected = [con.execute(part).fetchall() for part in sql.split("; ")]
    with duckdb.connect() as con:
        con.execute(f"attach '{shared.current.resolve() / 'journeys.duckdb'}' as here (read_only); use here")
        con.execute("set TimeZone = 'Asia/Kathmandu'")
        assert [con.execute(part).fetchall() for part in sql.split("; ")] == expected


def test_macros_are_there_for_readers_who_see_the_publication_under_another_path(built: Any, tmp_path: Path) -> None:
    root = tmp_path / "mounted"
    publish_run(built.settings, run_id="r9", root=root)  # nothing is there yet
    root.symlink_to(built.settings.published_dir)
    with duckdb.connect(str(root / "current" / "journeys.duckdb"), read_only=True) as con:
        assert con.execute(f"select max(reached_count) from {FUNNEL}").fetchall()[0][0] > 10


def test_a_query_answers_what_a_client_of_the_file_is_answered(shared: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answer = asked(capsys, shared, f"select step, name, reached_count, open_count from {FUNNEL}")
    with opened(shared) as con:
        rows = con.execute(f"select step, name, reached_count, open_count from {FUNNEL}").fetchall()
    assert [tuple(row.values()) for row in answer] == rows
    assert rows[0][2] > rows[2][2] > 0


def test_retention_of_gives_the_published_tables_numbers(shared: Any) -> None:
    columns = (
        "cohort_start_date, interval_index, cohort_size, bounded_count, unbounded_count, bounded_ratio, is_complete"
    )
    with opened(shared) as con:
        for mode in ("calendar", "rolling"):
            for period in ("day", "week", "month"):
                table = con.execute(f"""
                    select {columns} from retention
                    where start_event = 'first_order' and return_event = 'any' and breakdown = 'none'
                        and mode = '{mode}' and period = '{period}' order by all""").fetchall()
                macro = f"retention_of('first_order', 'any', mode := '{mode}', period := '{period}')"
                assert con.execute(f"select {columns} from {macro} order by all").fetchall() == table != []


@pytest.mark.parametrize(
    ("scope", "stage", "hold"), [("journey", "stage", "journey_id"), ("customer", "lifecycle_stage", None)]
)
def test_a_funnel_over_stages_is_the_ordered_count_of_stage_conversion(
    shared: Any, scope: str, stage: str, hold: str | None
) -> None:
    stages = ["awareness", "consideration", "purchase", "onboarding", "retention", "advocacy"]
    within = "30 days" if scope == "journey" else "365 days"
    funnel = Funnel([f"{name}: {stage} = '{name}'" for name in stages], within, counting="unique", hold=hold)
    entity = "held_value" if hold else "customer_key"
    with opened(shared) as con:
        if hold:  # the best of each journey, not of each customer
            con.execute(
                "create temp view touchpoints as "
                "select * replace (journey_id as customer_key) from journeys.main.touchpoints "
                "where journey_id not in (select journey_id from journeys where status = 'service')"
            )
        for macro in funnel.macros():
            con.execute(macro)
        reached = con.execute(f"""
            select step, count(distinct {entity}) from ({funnel.select(attempts=True)}) group by step order by step
            """).fetchall()
        expected = con.execute(f"""
            select stage_index, ordered_count from stage_conversion
            where scope = '{scope}' and period = 'all' and breakdown = 'none' and ordered_count > 0
            order by stage_index""").fetchall()
    assert reached == expected
    assert len(reached) >= 3


def test_the_commands_funnel_of_names_calls_the_published_macro() -> None:
    plain = Funnel(STEPS, within="7 days", hold="product_id", exclude=["ticket_created"], breakdown="channel")
    assert plain.macros() == []
    assert plain.select() == (
        "select *\nfrom funnel(\n    ['page_viewed', 'product_added', 'order_completed'],\n"
        "    within := cast('7 days' as interval),\n    hold := 'product_id',\n    exclude := ['ticket_created'],\n"
        "    breakdown := 'channel'\n)"
    )
    assert "funnel_attempts(" in plain.select(attempts=True)


def test_conditions_count_as_the_event_types_they_say(shared: Any) -> None:
    conditions = Funnel([f"event_type = '{name}'" for name in STEPS], within="7 days")
    with opened(shared) as con:
        for macro in conditions.macros():
            con.execute(macro)
        rows = con.execute(conditions.select()).fetchall()
        expected = con.execute(f"from {FUNNEL}").fetchall()
    assert [row[3:] for row in rows] == [row[3:] for row in expected]
    assert [row[2] for row in rows] == [f"event_type = '{name}'" for name in STEPS]


def test_the_sql_the_command_shows_runs_in_any_client(shared: Any, run: Any) -> None:
    answer = run("funnel", "--step", "web: channel = 'web'", "--step", "order_completed", "--sql")
    with opened(shared) as con:
        rows = con.execute(answer).fetchall()
    assert [row[2] for row in rows] == ["web", "order_completed"]
    assert rows[0][3] > rows[1][3] > 0


def test_the_command_answers_in_every_format(shared: Any, run: Any, tmp_path: Path) -> None:
    steps = [part for name in STEPS for part in ("--step", name)]
    table = run("funnel", *steps, "--within", "7 days")
    assert table.splitlines()[0].split()[:3] == ["step", "name", "reached_count"]
    rows = list(csv.DictReader(io.StringIO(run("funnel", *steps, "--within", "7 days", "--format", "csv"))))
    objects = [
        json.loads(line) for line in run("funnel", *steps, "--within", "7 days", "--format", "json").splitlines()
    ]
    assert [int(row["reached_count"]) for row in rows] == [row["reached_count"] for row in objects]
    assert set(objects[0]) > {"conversion_from_first_low", "p90_seconds_from_previous", "breakdown_value"}
    run("funnel", *steps, "--attempts", "--format", "parquet", "--out", tmp_path / "who.parquet")
    who = pq.read_table(tmp_path / "who.parquet")
    assert who.num_rows > 10 and {"customer_key", "started_at", "step", "is_last_step"} <= set(who.column_names)


def test_every_option_of_the_command_reaches_the_macro(shared: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (
        {"mode": "strict_order"}, {"counting": "total"}, {"hold": "lower(product_id)"}, {"exclude": ["is_friction"]},
        {"exclude": ["ticket_created"], "exclude_after": 2, "exclude_before": 3}, {"breakdown": "upper(medium)"},
        {"breakdown": "channel", "breakdown_at": "step_2"}, {"since": "2026-01-10"}, {"until": "2026-01-20 12:00"},
        {"touches": "any"},
    ):  # fmt: skip
        funnel = Funnel(STEPS, within="7 days", **option)  # type: ignore[arg-type]
        rows = asked(capsys, shared, funnel.select(), macros=funnel.macros())
        assert {row["step"] for row in rows} == {1, 2, 3}, option


@pytest.mark.parametrize(
    ("funnel", "message"),
    [
        (Funnel(["page_seen"]), r"--step: neither an event type nor a column \(got 'page_seen'\)"),
        (Funnel(["page_viewed", "count(*) > 1"]), r"--step: "),
        (Funnel(["page_viewed"], exclude=["amount > (select 1)"]), r"--exclude: "),
        (Funnel(["page_viewed"], hold="colour"), r"--hold: unknown column 'colour'"),
        (Funnel(["page_viewed"], breakdown="now()"), r"--breakdown: function 'now' is not allowed"),
        (Funnel([f"amount > {number}" for number in range(33)]), r"a funnel has 1 to 32 steps"),
    ],
)
def test_what_no_funnel_may_hold_is_refused_before_anything_runs(funnel: Funnel, message: str) -> None:
    with pytest.raises((ConfigurationError, UsageError), match=message):
        funnel.macros()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"within": "soon"}, "Could not convert string 'soon' to INTERVAL"),
        ({"since": "someday"}, "someday"),
        ({"breakdown": "channel", "breakdown_at": "step_9"}, "breakdown_at is first_touch"),
        ({"exclude_before": 9}, "exclude_after and exclude_before are steps"),
    ],
)
def test_wrong_options_are_told_in_one_line(shared: Any, option: dict[str, Any], message: str) -> None:
    funnel = Funnel(STEPS, **option)
    with pytest.raises(UsageError, match=message) as caught:
        query(shared.settings, funnel.select(), macros=funnel.macros())
    assert "\n" not in str(caught.value)


def test_hold_and_breakdown_name_published_columns(shared: Any) -> None:
    with opened(shared) as con:
        names = {row[0] for row in con.execute("describe touchpoints").fetchall()}
    assert set(COLUMNS) <= names


def test_an_older_publication_has_no_macros_and_still_opens() -> None:
    with duckdb.connect() as con:
        macros.create(con, {"touchpoints": {}, "orders": {}})
        assert con.execute("select count(*) from duckdb_functions() where not internal").fetchall() == [(0,)]


@pytest.fixture
def run(shared: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`journeys …` on the shared night; answers what it printed."""
    import journeys

    def _run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["journeys", "--home", str(shared.settings.home), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            journeys.main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0, err) == (0, "")
        return out

    return _run
