"""`python -m benchmarks.gold`: the gold models on five million touchpoints, next to floors and to what others need.

Silver is made once (see `benchmarks.synthetic_silver`). Then each stage runs in a process of its own, in interleaved
rounds; printed are the median and the range over the rounds, peak memory, and the ratios taken within a round:

- the table `retention` and its intermediate models next to one scan of the columns they read;
- all gold models next to one DuckDB sort of the touchpoints by (customer, time);
- weekly retention and the changes of channel next to polars, which must come to the same numbers;
- transitions and path steps of a sample next to retentioneering, which must come to the same numbers.

`--record` writes what was seen to docs/measurements/gold.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table

from benchmarks.measurements import PROJECT_DIR, markdown_table, write_page
from benchmarks.synthetic_silver import DATA_AS_OF, fill
from schemas.config import load_config
from schemas.settings import Settings, load_settings
from transforms.parameters import PATH_STEP_LIMIT, WEEK_INTERVALS
from warehouse.database import connect
from warehouse.models import Model, build_models, load_models
from warehouse.night import SQL_DIR

MEMORY_LIMIT = "4GB"
SAMPLE_TOUCHPOINTS = 200_000
SLOWEST = 10
"""How many models the page names."""

PAIRS = (
    ("sort_floor", "gold"),
    ("scan_floor", "retention"),
    ("orders_polars", "orders"),
    ("visits_polars", "visits"),
    ("channels_polars", "channels"),
    ("paths_retentioneering", "paths"),
)
"""(floor or peer, ours): measured back to back, the first one changing from round to round."""

GOLD_EVERY = 3
"""All models together take a minute, so they are built in every third round only."""

RETENTION_GOAL = 3.0
"""The table `retention` takes at most so many scans of the columns it reads."""


@dataclass(frozen=True)
class Seen:
    """What a stage's process says: its seconds, and for gold those of each model."""

    seconds: float
    models: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    peak_mib: float = 0


# --- the stages, each run alone in a process ---


def prepare(work: Path, touchpoints: int) -> None:
    """Silver, the Parquet files that polars reads, and a sample of whole journeys in a warehouse of its own."""
    settings, sample = _settings(work), _sample_settings(work)
    sample.home.mkdir()
    with connect(settings) as con:
        fill(con, touchpoints=touchpoints, config=load_config(settings.config))
        for table, columns in (
            ("touchpoints", "customer_key, journey_id, event_id, occurred_at, direction, channel"),
            ("orders", "customer_key, ordered_at"),
            ("journeys", "journey_id, status"),
        ):
            path = work / f"{table}.parquet"
            con.execute(f"copy (select {columns} from {table}) to '{path}' (format parquet, compression zstd)")
        con.execute(f"attach '{sample.warehouse_path}' as sample")
        con.execute(f"""
            create temp table sampled as
            select journey_id
            from (select journey_id, sum(touchpoint_count) over (order by journey_id) as events_so_far from journeys)
            where events_so_far <= {SAMPLE_TOUCHPOINTS}""")
        models = _models("transitions", "path_steps")
        for table in sorted({table for model in models for table in model.depends_on} - {item.name for item in models}):
            names = {row[0] for row in con.execute(f"describe {table}").fetchall()}
            kept = "semi join sampled using (journey_id)" if "journey_id" in names else ""
            con.execute(f"create table sample.{table} as from {table} {kept}")
        con.execute(f"""
            copy (
                select journey_id::varchar as journey_id, occurred_at, event_type, channel, stage
                from sample.touchpoints where direction = 'inbound' order by journey_id, occurred_at, event_id
            ) to '{work / "sample.parquet"}' (format parquet)""")


def sort_floor(work: Path) -> Seen:
    """Sort the touchpoints, all columns, by customer and time into another table."""
    with connect(_settings(work)) as con:
        con.execute("set preserve_insertion_order = true")
        return _timed(
            lambda: con.execute(
                "create or replace temp table sorted as from touchpoints order by customer_key, occurred_at"
            )
        )


def scan_floor(work: Path) -> Seen:
    """Read every value of the four columns of `touchpoints` from which retention is made."""
    with connect(_settings(work)) as con:
        scan = "select max(customer_key), max(occurred_at), max(direction), max(event_id) from touchpoints"
        return _timed(lambda: con.execute(scan).fetchall())


def gold(work: Path) -> Seen:
    """Every model, in one transaction, as the night builds them; without the gates."""
    return _build(_settings(work), load_models(SQL_DIR))


def retention(work: Path) -> Seen:
    """The table `retention` and the intermediate models behind it; `breakdown_values` serves others and is there."""
    return _build(_settings(work), [model for model in _models("retention") if model.name != "breakdown_values"])


def orders(work: Path) -> Seen:
    """Weekly retention of buyers: the rows of one question, by the models' own SQL from silver."""
    return _weekly(work, "first_order", "order")


def orders_polars(work: Path) -> Seen:
    """The same from `orders` in polars."""
    import polars as pl

    events = pl.scan_parquet(work / "orders.parquet").rename({"ordered_at": "moment"})
    return _weekly_polars(work, "first_order", "order", events)


def visits(work: Path) -> Seen:
    """Weekly retention of visitors, which reads all touchpoints."""
    return _weekly(work, "first_touch", "any")


def visits_polars(work: Path) -> Seen:
    """The same from `touchpoints` in polars."""
    import polars as pl

    events = (
        pl.scan_parquet(work / "touchpoints.parquet")
        .filter((pl.col("direction") == "inbound") & pl.col("customer_key").is_not_null())
        .select("customer_key", moment="occurred_at")
    )
    return _weekly_polars(work, "first_touch", "any", events)


def channels(work: Path) -> Seen:
    """How often which channel follows which in a journey, by the models' own SQL from silver."""
    return _narrow(work, "transitions", _CHANNELS)


def channels_polars(work: Path) -> Seen:
    """The same in polars: one sort, runs of one channel collapsed, pairs counted."""
    import polars as pl

    is_same_journey = pl.col("journey_id").eq_missing(pl.col("journey_id").shift())
    is_same_channel = pl.col("channel").eq_missing(pl.col("channel").shift())
    runs = (
        pl.scan_parquet(work / "touchpoints.parquet")
        .filter((pl.col("direction") == "inbound") & pl.col("journey_id").is_not_null())
        .select("journey_id", "occurred_at", "event_id", "channel")
        .sort("journey_id", "occurred_at", "event_id")
        .filter(~(is_same_journey & is_same_channel))
        .select(
            "journey_id",
            "channel",
            previous=pl.when(is_same_journey).then(pl.col("channel").shift()).otherwise(pl.lit("(start)")),
            is_last=pl.col("journey_id").ne_missing(pl.col("journey_id").shift(-1)),
        )
    )
    ends = (
        runs.filter("is_last")
        .join(pl.scan_parquet(work / "journeys.parquet"), on="journey_id")
        .select(previous="channel", channel=pl.format("({})", "status"))
    )
    counts = pl.concat([runs.select("previous", "channel"), ends]).group_by("previous", "channel").len()
    seen, frame = _answered(counts.collect)
    _hold_equal("transitions", _ask(work, _CHANNELS), set(frame.rows()))
    return seen


def paths(work: Path) -> Seen:
    """The tables `transitions` and `path_steps` of the sample, with the intermediate models behind them."""
    return _build(_sample_settings(work), _models("transitions", "path_steps"))


def paths_retentioneering(work: Path) -> Seen:
    """The same counts, shares, medians and steps on the three levels, from the same touchpoints in a frame."""
    os.environ["RETENTIONEERING_NO_TRACK"] = "1"  # it would report each call to its makers
    import pandas as pd
    import retentioneering

    frame = pd.read_parquet(work / "sample.parquet").rename(columns={"occurred_at": "timestamp"})

    def _compute() -> dict[str, tuple[Any, ...]]:
        found = {}
        for level in ("event_type", "channel", "stage"):
            events = frame[["journey_id", "timestamp"]].assign(event=frame[level])
            stream = retentioneering.Eventstream(events[events["event"].notna()], {"path_cols": ["journey_id"]})
            stream = stream if level == "event_type" else stream.collapse_events(loops=True)
            graphs = [stream.transition_graph_data(weight) for weight in ("count", "proba_out", "time_median")]
            found[level] = (*graphs, stream.step_matrix_data(max_steps=PATH_STEP_LIMIT))
        return found

    seen, found = _answered(_compute)
    with connect(_sample_settings(work), read_only=True) as con:
        for level, answers in found.items():
            _compare_paths(con, level, frame.loc[frame[level].notna(), "journey_id"].nunique(), *answers)
    return seen


STAGES: dict[str, Callable[[Path], Seen]] = {
    function.__name__: function
    for function in (
        sort_floor, gold, scan_floor, retention, orders, orders_polars, visits, visits_polars, channels,
        channels_polars, paths, paths_retentioneering,
    )
}  # fmt: skip
"""In the order of the first round, in which nothing is compared with a table that is not there yet."""


# --- what the stages share ---


def _settings(work: Path) -> Settings:
    return load_settings(home=work / "home", duckdb_memory_limit=MEMORY_LIMIT)


def _sample_settings(work: Path) -> Settings:
    return load_settings(home=work / "sample", duckdb_memory_limit=MEMORY_LIMIT)


def _models(*names: str) -> list[Model]:
    """These models and all they are made from, in build order."""
    models = {model.name: model for model in load_models(SQL_DIR)}
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in models and name not in found:
            found.add(name)
            waiting += models[name].depends_on
    return [model for model in models.values() if model.name in found]


def _timed(work: Callable[[], object]) -> Seen:
    return _answered(work)[0]


def _answered(work: Callable[[], Any]) -> tuple[Seen, Any]:
    started = time.perf_counter()
    answer = work()
    return Seen(time.perf_counter() - started), answer


def _build(settings: Settings, models: Collection[Model]) -> Seen:
    """Build models in one transaction. A call per model tells each one's time; it makes the prelude anew, in 5 ms."""
    seconds: dict[str, float] = {}
    with connect(settings) as con:
        started = time.perf_counter()
        con.execute("begin")
        for model in models:
            began = time.perf_counter()
            build_models(con, [model], sql_dir=SQL_DIR, run_id="bench", definition_hash="bench", data_as_of=DATA_AS_OF)
            seconds[model.name] = time.perf_counter() - began
        con.execute("commit")
        total = time.perf_counter() - started
        rows = {model.name: con.execute(f"select count(*) from {model.name}").fetchall()[0][0] for model in models}
    return Seen(total, seconds, rows)


_CHANNELS = "select from_value, to_value, transition_count from transitions where level = 'channel'"


def _weekly_sql(start_event: str, return_event: str) -> str:
    return f"""
        select cohort_start_date, interval_index, bounded_count
        from retention
        where period = 'week' and mode = 'calendar' and breakdown = 'none' and start_event = '{start_event}'
            and return_event = '{return_event}' and bounded_count > 0"""


def _ask(work: Path, question: str) -> set[tuple[Any, ...]]:
    """What the table in the warehouse says."""
    with connect(_settings(work), read_only=True) as con:
        return set(con.execute(question).fetchall())


def _narrow(work: Path, table: str, question: str) -> Seen:
    """Answer a question about a model from silver: the models' SQL as views, of which DuckDB computes what it needs."""
    with connect(_settings(work)) as con:
        for model in _models(table):
            con.execute(f"create temp view {model.name} as {model.code}")
        seen, rows = _answered(lambda: con.execute(question).fetchall())
    _hold_equal(table, _ask(work, question), set(rows))
    return seen


def _weekly(work: Path, start_event: str, return_event: str) -> Seen:
    return _narrow(work, "retention", _weekly_sql(start_event, return_event))


def _weekly_polars(work: Path, start_event: str, return_event: str, events: Any) -> Seen:
    """Start and return are the same event, so a customer's weeks, each once, hold cohort and returns."""
    import polars as pl

    weeks = events.select("customer_key", week=pl.col("moment").dt.truncate("1w").dt.date()).unique()
    counts = (
        weeks.join(weeks.group_by("customer_key").agg(cohort=pl.col("week").min()), on="customer_key")
        .group_by("cohort", interval=(pl.col("week") - pl.col("cohort")).dt.total_days() // 7)
        .len()
        .filter(pl.col("interval") < WEEK_INTERVALS)
    )
    seen, frame = _answered(counts.collect)
    _hold_equal("retention", _ask(work, _weekly_sql(start_event, return_event)), set(frame.rows()))
    return seen


def _compare_paths(
    con: duckdb.DuckDBPyConnection, level: str, journeys: int, count: Any, share: Any, seconds: Any, steps: Any
) -> None:
    """Hold the peer's frames to our tables; it knows one end of a path, and no journey without a step."""
    cells = {
        (source.replace("path_start", "(start)"), target.replace("path_end", "(end)")): (source, target)
        for source in count.index
        for target in count.columns
        if count.loc[source, target]
    }
    rows = con.execute(
        """
        select from_value, case when starts_with(to_value, '(') then '(end)' else to_value end as target,
            sum(transition_count)::bigint, sum(share), any_value(median_seconds)
        from transitions where level = ? and not (from_value = '(start)' and starts_with(to_value, '('))
        group by from_value, target""",
        [level],
    ).fetchall()
    theirs = {names: int(count.loc[cell]) for names, cell in cells.items()}
    _hold_equal(f"transitions by {level}", {row[:2]: row[2] for row in rows}, theirs)
    for source, target, _, our_share, our_seconds in rows:
        cell = cells[source, target]
        if source != "(start)" and abs(our_share - share.loc[cell]) > 1e-9:
            raise SystemExit(f"transitions by {level}, {source} > {target}: share {our_share}, not {share.loc[cell]}")
        # It counts the seconds' boundaries that lie between two events.
        if our_seconds is not None and abs(our_seconds - seconds.loc[cell].total_seconds()) >= 1:
            raise SystemExit(f"transitions by {level}, {source} > {target}: {our_seconds} s, not {seconds.loc[cell]}")
    expected = {
        (step, value): round(steps.loc[value, step] * journeys)
        for step in range(1, PATH_STEP_LIMIT + 1)
        for value in steps.index.drop(["path_start", "path_end"], errors="ignore")
        if round(steps.loc[value, step] * journeys)
    }
    ours = con.execute(
        "select distinct step_index, value, journey_count from path_steps where level = ?", [level]
    ).fetchall()
    _hold_equal(f"path_steps by {level}", {row[:2]: row[2] for row in ours}, expected)


def _hold_equal(what: str, ours: Any, theirs: Any) -> None:
    if ours != theirs:
        raise SystemExit(f"{what}: {len(ours)} and {len(theirs)} numbers, which differ")
    if not ours:
        raise SystemExit(f"{what}: there is nothing to compare; take more touchpoints")


# --- the rounds ---

Rounds = dict[str, dict[int, Seen]]
"""Stage, then the number of the round."""


def _run(work: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.gold", "--work", str(work), *arguments]
    done = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def _order(round_number: int) -> list[str]:
    order = list(STAGES)
    if round_number % GOLD_EVERY:
        order.remove("gold")
    if round_number % 2:
        for pair in PAIRS:
            if set(pair) <= set(order):
                here, there = map(order.index, pair)
                order[here], order[there] = order[there], order[here]
    return order


def _spread(values: list[float], pattern: str = "{:.2f}") -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{pattern.format(middle)} ({pattern.format(low)}–{pattern.format(high)})"


def _ratios(seen: Rounds, stage: str, by: str) -> list[float]:
    """Of the rounds in which both ran."""
    both = sorted(set(seen[stage]) & set(seen[by]))
    return [seen[stage][number].seconds / seen[by][number].seconds for number in both]


def _lines(seen: Rounds) -> list[str]:
    """Ratios, and the goal."""
    scans = _ratios(seen, "retention", "scan_floor")
    verdict = "met" if statistics.median(scans) <= RETENTION_GOAL else "NOT MET"
    lines = [f"retention: {_spread(scans)} times scan_floor; goal at most {RETENTION_GOAL:g}: {verdict}"]
    for stage, floor in (("visits", "scan_floor"), ("retention", "sort_floor"), ("gold", "sort_floor")):
        lines.append(f"{stage}: {_spread(_ratios(seen, stage, floor))} times {floor}")
    for theirs, ours in PAIRS[2:]:
        lines.append(f"{ours}: {_spread(_ratios(seen, theirs, ours))} times as fast as {theirs}; equal results")
    return lines


def _slowest(found: dict[int, Seen]) -> list[list[str]]:
    """Model, its seconds, its share of the stage, its rows."""
    seen = list(found.values())
    whole = statistics.median(item.seconds for item in seen)
    medians = {name: statistics.median(item.models[name] for item in seen) for name in seen[0].models}
    return [
        [name, _spread([item.models[name] for item in seen]), f"{medians[name] / whole:.0%}", f"{seen[0].rows[name]:,}"]
        for name in sorted(medians, key=lambda name: -medians[name])[:SLOWEST]
    ]


def _measure(touchpoints: int, rounds: int, record: bool) -> None:
    seen: Rounds = {}
    with tempfile.TemporaryDirectory(prefix="journeys-bench-") as folder:
        work = Path(folder)
        started = time.monotonic()
        _run(work, "--touchpoints", str(touchpoints))
        print(f"{touchpoints:,} touchpoints, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        for number in range(rounds):
            for stage in _order(number):
                result = Seen(**json.loads(_run(work, "--stage", stage).splitlines()[-1]))
                seen.setdefault(stage, {})[number] = result
                print(f"round {number + 1}: {stage:<22} {result.seconds:7.2f} s", file=sys.stderr, flush=True)
    stages = [
        [
            stage,
            _spread([item.seconds for item in found.values()]),
            str(len(found)),
            f"{max(item.peak_mib for item in found.values()):,.0f}",
        ]
        for stage, found in seen.items()
    ]
    head = ["stage", "seconds: median (range)", "rounds", "peak MiB"]
    lines = _lines(seen)
    parts = [([f"model of {name}", "seconds", "of it", "rows"], _slowest(seen[name])) for name in ("gold", "retention")]
    _print(head, stages)
    print("\n".join(lines))
    for part_head, rows in parts:
        _print(part_head, rows)
    if record:
        peers = ", ".join(f"{name} {version(name)}" for name in ("polars", "retentioneering", "pandas"))
        body = (
            f"`python -m benchmarks.gold`: {touchpoints:,} touchpoints of a made-up year, {rounds} interleaved rounds, "
            f"each stage in a process of its own, DuckDB within {MEMORY_LIMIT}; {peers}.\n\n"
        )
        body += markdown_table(head, stages) + "\n" + "".join(f"- {line}\n" for line in lines) + "\n"
        body += "\n".join(markdown_table(*part) for part in parts) + _EXPLAINED
        print(f"wrote {write_page('gold', 'Gold models', body)}")


def _print(head: list[str], rows: list[list[str]]) -> None:
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


_EXPLAINED = f"""
- `sort_floor`: one DuckDB sort of all columns of `touchpoints` by (customer_key, occurred_at) into another table.
- `gold`: every model of `sql/`, intermediate ones too, in one transaction as at night; without the gates. A
  table above has the slowest.
- `scan_floor`: the greatest value of each of customer_key, occurred_at, direction and event_id of `touchpoints`: all
  values are read and nothing is kept.
- `retention`: the table and its intermediate models, for every definition, mode, period and breakdown, one row per
  cohort and interval. `breakdown_values`, which serves other models too, is there already.
- `orders`, `visits`: calendar retention by weeks, from first_order to order and from first_touch to any, without
  breakdown. Ours is the models' SQL as views over silver, filtered to these rows: DuckDB computes what they need.
- `channels`: the counts of transitions by channel, in the same way.
- `…_polars`: the same numbers by polars' lazy engine, from Parquet of the columns it needs, ids as 16 bytes.
- `paths`: the tables `transitions` and `path_steps` and their intermediate models, on three levels, of whole journeys
  with {SAMPLE_TOUCHPOINTS:,} inbound touchpoints at most.
- `paths_retentioneering`: counts, shares and medians of its transition graph, and its step matrix, of the same
  touchpoints on the same levels, from a frame in memory. Counts and steps are equal in every cell, shares to 1e-9; it
  counts time in whole seconds, so medians differ by less than one. It has one end of a path where journeys have their
  status, and no journeys without a stage.
- Ratios are taken within a round. A stage's time is that of its work: no start of a process, no import, no check.
"""


def _stage_main(stage: str, work: Path) -> None:
    seen = STAGES[stage](work)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
    print(json.dumps({**vars(seen), "peak_mib": peak}))


def main() -> None:
    """Measure and print; the goal is told, not enforced, but numbers that differ from a peer's are an error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--touchpoints", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--record", action="store_true", help="write docs/measurements/gold.md")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.pop("JOURNEYS_HOME", None)
    if given.stage:
        _stage_main(given.stage, given.work)
    elif given.work:
        prepare(given.work, given.touchpoints)
    else:
        _measure(given.touchpoints, given.rounds, given.record)


if __name__ == "__main__":
    main()
