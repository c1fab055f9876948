"""A funnel of five steps on millions of touchpoints, next to ClickHouse's windowFunnel on the same files.

`python -m benchmarks.funnel --record` makes the touchpoints as a publication has them (Parquet by month, in the order
of event ids), asks both engines in interleaved rounds and writes docs/measurements/funnel.md. ClickHouse is chdb, in
this process as DuckDB is, with as many threads. Both must count the same.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console

from benchmarks.measurements import PROJECT_DIR, markdown_table, write_page
from warehouse import macros
from warehouse.models import create_prelude, load_silver

STEPS = ("page_viewed", "product_viewed", "product_added", "checkout_started", "order_completed")
OTHER_TYPES = 20
WINDOW_DAYS = 7
DAYS = 90
EVENTS_PER_CUSTOMER = 20
TYPES = {"timestamp": "timestamptz", "uuid": "varchar", "varchar[]": "varchar"}
MODES = {
    "default": (),
    "strict_order": ("strict_order",),
    "strict_deduplication": ("strict_deduplication",),
    "strict_increase": ("strict_increase", "strict_once"),
    "strict_once": ("strict_once",),
}
"""Ours, and the words ClickHouse has for the same."""


def make(folder: Path, touchpoints: int) -> None:
    """Visits of random depth through the five steps, minutes apart, between touchpoints of other types."""
    with duckdb.connect() as con:
        con.execute(f"set TimeZone = 'UTC'; set threads = 1; set temp_directory = '{folder}'")
        con.execute("select setseed(0.5)")
        con.execute(f"""
            create table visits as
            select
                'c:' || cast(floor(random() * {touchpoints} / {EVENTS_PER_CUSTOMER}) as bigint) as customer_key,
                to_timestamp(1767225600 + random() * {DAYS} * 86400) as started_at,
                range as visit,
                -- Half of those who are at a step go on; one touchpoint of another type for each step.
                cast(least(5, 1 + floor(-log2(1 - random()))) as integer) as depth
            from range({touchpoints} // 4) order by visit""")
        rows = f"""
            select
                cast(md5(visit || ' ' || place) as uuid)::varchar as event_id,
                customer_key, 'web' as channel, 'inbound' as direction,
                case
                    when place % 2 = 1 then {list(STEPS)}[(place + 1) // 2]
                    else 'other_' || hash(visit, place) % {OTHER_TYPES}
                end as event_type,
                started_at + to_seconds(cast(place * 60 as double)) as occurred_at,
                place = 9 as is_order_conversion
            from (select *, unnest(range(1, 2 * depth + 1)) as place from visits)
            limit {touchpoints}"""
        con.execute(f"create table made as {rows}")
        silver = {table.name: table.description.columns for table in load_silver(PROJECT_DIR / "sql")}
        made = {row[0] for row in con.execute("describe made").fetchall()}
        columns = ", ".join(
            f'"{column.name}"' if column.name in made
            else f'cast(null as {TYPES.get(column.type, column.type)}) as "{column.name}"'
            for column in silver["touchpoints"]
        )  # fmt: skip
        for (month,) in con.execute("select distinct strftime(occurred_at, '%Y-%m') from made").fetchall():
            path = folder / f"touchpoints-{month}.parquet"
            con.execute(f"""
                copy (select {columns} from made where strftime(occurred_at, '%Y-%m') = '{month}' order by event_id)
                to '{path}' (format parquet, compression zstd, row_group_size 122880)""")
        con.execute(f"""
            copy (
                select event_id, customer_key, occurred_at as ordered_at,
                    cast(hash(event_id) % 20000 / 100 as decimal(18, 2)) as revenue, 1::bigint as order_index
                from made where is_order_conversion order by event_id
            ) to '{folder / "orders.parquet"}' (format parquet, compression zstd)""")


def connect(folder: Path, threads: int) -> duckdb.DuckDBPyConnection:
    """The views and macros of a publication."""
    con = duckdb.connect()
    con.execute(f"set threads = {threads}; set TimeZone = 'UTC'; set temp_directory = '{folder}'")
    create_prelude(con, PROJECT_DIR / "sql")
    con.execute(f"create view touchpoints as from '{folder}/touchpoints-*.parquet'")
    con.execute(f"create view orders as from '{folder}/orders.parquet'")
    con.execute("create view customers as select distinct customer_key from touchpoints")
    con.execute("create view journeys as select null::varchar as journey_id, 0::bigint as journey_index, '' as status")
    con.execute("""
        create table build_parameters as select
            timestamptz '2026-04-05' as data_as_of, 'UTC' as reporting_timezone, 1 as week_starts_on,
            50 as breakdown_limit, 2592000::bigint as conversion_window_seconds,
            31 as day_intervals, 26 as week_intervals, 24 as month_intervals
        """)
    columns = {table: con.execute(f"describe {table}").fetchall() for table in macros.NEEDED}
    macros.create(
        con,
        {table: {"columns": [{"name": row[0], "type": row[1]} for row in rows]} for table, rows in columns.items()},
    )
    return con


def window_funnel(folder: Path, threads: int, mode: str) -> list[int]:
    """How many reached each step, by ClickHouse."""
    import chdb

    options = "".join(f", '{word}'" for word in MODES[mode])
    names = ", ".join(f"'{step}'" for step in STEPS)
    # Only strict_order looks at touchpoints that are no step.
    only = "" if mode == "strict_order" else f"where event_type in ({names})"
    conditions = ", ".join(f"event_type = '{step}'" for step in STEPS)
    answer = chdb.query(f"""
        select {", ".join(f"countIf(level >= {step})" for step in range(1, len(STEPS) + 1))}
        from (
            select windowFunnel({WINDOW_DAYS * 86_400_000_000}{options})(
                toUInt64(toUnixTimestamp64Micro(assumeNotNull(occurred_at))), {conditions}
            ) as level
            from file('{folder}/touchpoints-*.parquet', Parquet) {only} group by customer_key
        ) settings max_threads = {threads}""")
    return [int(count) for count in str(answer).strip().split(",")]


def bare_chain(folder: Path, con: duckdb.DuckDBPyConnection) -> list[int]:
    """The least SQL that counts the same in default mode: one ASOF join per step, and nothing but the counts."""
    files = f"'{folder}/touchpoints-*.parquet'"
    chains = [
        f"chain_1 as (select customer_key, occurred_at, occurred_at as started_at from {files} "
        f"where event_type = '{STEPS[0]}')"
    ]
    for number, step in enumerate(STEPS[1:], 2):
        chains.append(f"""
            chain_{number} as (
                select entry.customer_key, entry.occurred_at, chain.started_at
                from (select customer_key, occurred_at from {files} where event_type = '{step}') as entry
                asof inner join chain_{number - 1} as chain
                    on chain.customer_key = entry.customer_key and chain.occurred_at <= entry.occurred_at
                where epoch_us(entry.occurred_at) - epoch_us(chain.started_at) <= {WINDOW_DAYS * 86_400_000_000}
            )""")
    counts = ", ".join(
        f"(select count(distinct customer_key) from chain_{number})" for number in range(1, len(STEPS) + 1)
    )
    [row] = con.execute(f"with {', '.join(chains)} select {counts}").fetchall()
    return list(row)


def ours(con: duckdb.DuckDBPyConnection, columns: str, mode: str, **options: str) -> list[tuple[Any, ...]]:
    """The macro's answer."""
    more = "".join(f", {name} := '{value}'" for name, value in options.items())
    sql = f"select {columns} from funnel({list(STEPS)}, within := interval {WINDOW_DAYS} days, mode := '{mode}'{more})"
    return con.execute(sql).fetchall()


def main() -> None:
    """Measure, check that both count the same, print, and record if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--touchpoints", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--record", action="store_true", help="write docs/measurements/funnel.md")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="funnel-") as name:
        folder, threads = Path(name), arguments.threads
        make(folder, arguments.touchpoints)
        con = connect(folder, threads)
        [(rows, customers)] = con.execute("select count(*), count(distinct customer_key) from touchpoints").fetchall()
        console.print(f"{rows:,} touchpoints of {customers:,} customers")
        stages: dict[str, Callable[[], Any]] = {}
        for mode in MODES:
            stages[f"windowFunnel, {mode}"] = lambda mode=mode: window_funnel(folder, threads, mode)
            stages[f"funnel, {mode}"] = lambda mode=mode: ours(con, "reached_count", mode)
        stages["bare ASOF chain, default"] = lambda: bare_chain(folder, con)
        stages["funnel, default, every column"] = lambda: ours(con, "*", "default")
        stages["funnel, unordered"] = lambda: ours(con, "*", "unordered")
        stages["funnel, default, total"] = lambda: ours(con, "*", "default", counting="total")
        for mode in MODES:
            theirs, mine = stages[f"windowFunnel, {mode}"](), [row[0] for row in stages[f"funnel, {mode}"]()]
            assert theirs == mine, (mode, theirs, mine)
        assert stages["bare ASOF chain, default"]() == stages["windowFunnel, default"]()
        reached = [row[0] for row in stages["funnel, default"]()]
        seconds: dict[str, list[float]] = {stage: [] for stage in stages}
        for number in range(arguments.rounds):
            # The order turns from round to round, so that none always follows the same one.
            order = list(stages)[number % len(stages) :] + list(stages)[: number % len(stages)]
            for stage in order:
                started = time.perf_counter()
                stages[stage]()
                seconds[stage].append(time.perf_counter() - started)
            console.print(f"round {number + 1} of {arguments.rounds}")
        con.close()
    table = []
    for stage, times in seconds.items():
        mode = stage.split(", ")[1]
        floor = statistics.median(seconds.get(f"windowFunnel, {mode}", times))
        middle = statistics.median(times)
        ratio = f"{middle / floor:.2f}" if not stage.startswith("windowFunnel") and mode in MODES else ""
        table.append((stage, f"{middle:.2f}", f"{min(times):.2f} to {max(times):.2f}", ratio))
    levels = ", ".join(f"{count:,}" for count in reached)
    body = (
        f"`python -m benchmarks.funnel --touchpoints {arguments.touchpoints} --rounds {arguments.rounds}`: five steps "
        f"within {WINDOW_DAYS} days over {rows:,} touchpoints of {customers:,} customers in Parquet, {threads} "
        f"threads, chdb {version('chdb')}. {levels} customers reach the steps; both engines count the same in every "
        "mode. windowFunnel gives the level of each customer and nothing else; `funnel` finds the whole chain of each, "
        "which its other columns (times, revenue, open windows) come from. The bare chain is the least SQL in DuckDB "
        "that counts the same.\n\n" + markdown_table(("stage", "median seconds", "range", "times windowFunnel"), table)
    )
    print(body)
    if arguments.record:
        console.print(f"wrote {write_page('funnel', 'The funnel next to ClickHouse', body)}")


if __name__ == "__main__":
    main()
