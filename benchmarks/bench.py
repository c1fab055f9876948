"""`make bench`: every step of a night on a million events, next to floors measured in the same run.

Each stage runs in a process of its own, in interleaved rounds; printed are the median and the range over the rounds,
events per second, peak memory and the ratio to the stage's floor:

- landing next to a bare kafka-python loop that polls the same records with the same options and drops them;
- bronze next to one pydantic parse per record, and to the whole verdict in Python that it stands in for;
- silver and gold next to one DuckDB sort of the touchpoints by (customer, time).

`--record` writes what was seen to docs/measurements/bench.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measurements import PROJECT_DIR, markdown_table, write_page
from examples.local_transport import load_script
from schemas.settings import Settings, load_settings
from schemas.topics import SOURCE_TOPICS

STAGES = (
    "produce", "poll_floor", "land", "parse_floor", "bronze", "verdict_floor", "silver", "gold", "sort_floor",
)  # fmt: skip
PAIRS = (("poll_floor", "land"), ("parse_floor", "bronze"))
"""Measured back to back, the first one changing from round to round."""

# (stage, floor, slower by at most this or faster by at least this; None: only told)
GOALS = (
    ("land", "poll_floor", "at most", 1.3),
    ("bronze", "parse_floor", "at least", 8.0),
    ("bronze", "verdict_floor", "at least", None),
)


# --- the stages, each run alone in a process ---


def make_records(work: Path, customers: int) -> None:
    """Write the scenario's records to a file once, so that no round pays for inventing them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ingest.scenario.run import generate

    records = generate(customers=customers).records
    table = pa.table(
        {
            "topic": [record.topic for record in records],
            "key": pa.array([record.key for record in records], pa.binary()),
            "value": pa.array([record.value for record in records], pa.binary()),
        }
    )
    pq.write_table(table, work / "records.parquet")


def produce(work: Path, url: str, settings: Settings) -> float:
    """Send every record and wait for the acknowledgements."""
    import pyarrow.parquet as pq

    from ingest.writer import Writer

    table = pq.read_table(work / "records.parquet")
    rows = list(zip(*(table.column(name).to_pylist() for name in ("topic", "key", "value")), strict=True))
    started = time.perf_counter()
    with Writer(url, settings) as writer:
        for topic, key, value in rows:
            writer.send(topic, key, value)
        writer.flush()
    return time.perf_counter() - started


def poll_floor(work: Path, url: str, settings: Settings) -> float:
    """A bare consumer with landing's fetch options; every record is dropped."""
    from kafka import KafkaConsumer, TopicPartition

    from ingest.kafka_reader import POLL_RECORDS, POLL_SECONDS

    started = time.perf_counter()
    consumer = KafkaConsumer(
        bootstrap_servers=[url.removeprefix("kafka://")],
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * 2**20,
        metrics_enabled=False,
    )
    places = [TopicPartition(topic, part) for topic in SOURCE_TOPICS for part in consumer.partitions_for_topic(topic)]
    ends = consumer.end_offsets(places)
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    remaining = sum(ends.values())
    while remaining > 0:
        polled = consumer.poll(timeout_ms=int(POLL_SECONDS * 1000), max_records=POLL_RECORDS)
        remaining -= sum(map(len, polled.values()))
    seconds = time.perf_counter() - started
    consumer.close(autocommit=False)
    return seconds


def land(work: Path, url: str, settings: Settings) -> float:
    """Land all topics into an empty home."""
    from ingest.landing import land as run

    started = time.perf_counter()
    run(url, settings=settings)
    return time.perf_counter() - started


def parse_floor(work: Path, url: str, settings: Settings) -> float:
    """One pydantic parse per landed record; nothing is kept."""
    from schemas.events import EVENT_ADAPTER

    return _judge_each(settings, lambda value: EVENT_ADAPTER.validate_json(value or b""))


def verdict_floor(work: Path, url: str, settings: Settings) -> float:
    """The whole verdict per landed record: pydantic and what a warehouse needs beyond it; nothing is kept."""
    from schemas.events import parse_event

    return _judge_each(settings, parse_event)


def _judge_each(settings: Settings, judge: Callable[[bytes | None], object]) -> float:
    import pyarrow.parquet as pq
    from pydantic import ValidationError

    from schemas.landing import live_segments

    seconds = 0.0
    for segment in live_segments(settings.landing_dir):
        values = pq.read_table(segment.path(settings.landing_dir), columns=["value"]).column(0).to_pylist()
        started = time.perf_counter()
        for value in values:
            try:
                judge(value)
            except ValidationError:
                continue
        seconds += time.perf_counter() - started
    return seconds


def bronze(work: Path, url: str, settings: Settings) -> float:
    """Load everything that landed into a new warehouse."""
    from schemas.config import load_config
    from transforms import bronze as step
    from warehouse.database import connect

    config = load_config(settings.config)
    settings.warehouse_path.unlink(missing_ok=True)
    with connect(settings) as con:
        started = time.perf_counter()
        step.load(
            con,
            landing_dir=settings.landing_dir,
            earliest_occurred_at=config.earliest_occurred_at,
            clock_skew_tolerance=config.clock_skew_tolerance,
        )
        con.execute("checkpoint")
        return time.perf_counter() - started


def silver(work: Path, url: str, settings: Settings) -> float:
    """The silver step of a night; bronze is loaded already."""
    from warehouse.night import build_silver

    started = time.perf_counter()
    build_silver(settings, run_id="bench")
    return time.perf_counter() - started


def gold(work: Path, url: str, settings: Settings) -> float:
    """The gold step of a night, gates included."""
    import great_expectations  # noqa: F401 (its import takes seconds and is no work of ours)

    from warehouse.night import build_gold

    started = time.perf_counter()
    build_gold(settings, run_id="bench")
    return time.perf_counter() - started


def sort_floor(work: Path, url: str, settings: Settings) -> float:
    """Sort the touchpoints, all columns, by customer and time into another table."""
    from warehouse.database import connect

    with connect(settings) as con:
        con.execute("set preserve_insertion_order = true")
        started = time.perf_counter()
        con.execute("create or replace temp table sorted as from touchpoints order by customer_key, occurred_at")
        return time.perf_counter() - started


# --- the rounds ---


def _run_stage(stage: str, work: Path, url: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.bench", "--stage", stage, "--work", str(work), "--url", url]
    done = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{stage} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _order(round_number: int) -> list[str]:
    order = list(STAGES)
    if round_number % 2:
        for first, second in PAIRS:
            here, there = order.index(first), order.index(second)
            order[here], order[there] = order[there], order[here]
    # The parse reads what landed, so landing goes before it in any order.
    return order


def _round(number: int, work: Path, broker: Any, seen: dict[str, list[dict[str, float]]]) -> None:
    from tests.conftest import empty_broker

    empty_broker(broker.bootstrap)
    shutil.rmtree(work / "home", ignore_errors=True)
    for stage in _order(number):
        result = _run_stage(stage, work, f"kafka://{broker.bootstrap}")
        seen.setdefault(stage, []).append(result)
        print(f"round {number + 1}: {stage:<12} {result['seconds']:7.2f} s", file=sys.stderr, flush=True)


def _spread(values: list[float], pattern: str = "{:.2f}") -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{pattern.format(middle)} ({pattern.format(low)}–{pattern.format(high)})"


def _ratios(seen: dict[str, list[dict[str, float]]], stages: tuple[str, ...], floor: str) -> list[float]:
    """Per round: the stages' seconds as a multiple of the floor's."""
    sums = [sum(seen[stage][number]["seconds"] for stage in stages) for number in range(len(seen[floor]))]
    return [total / item["seconds"] for total, item in zip(sums, seen[floor], strict=True)]


def report(seen: dict[str, list[dict[str, float]]], records: int) -> tuple[list[list[str]], list[str]]:
    """(rows of the table, lines about goals)."""
    rows = []
    for stage in STAGES:
        seconds = [item["seconds"] for item in seen[stage]]
        memory = max(item["peak_mib"] for item in seen[stage])
        rate = f"{records / statistics.median(seconds):,.0f}"
        rows.append([stage, _spread(seconds), rate, f"{memory:,.0f}"])
    lines = []
    for stage, floor, word, limit in GOALS:
        ratios = _ratios(seen, (stage,), floor)
        if word == "at least":
            ratios = [1 / ratio for ratio in ratios]
        verb = "times as long as" if word == "at most" else "times as fast as"
        line = f"{stage}: {_spread(ratios)} {verb} {floor}"
        if limit is not None:
            middle = statistics.median(ratios)
            is_met = middle <= limit if word == "at most" else middle >= limit
            line += f"; goal {word} {limit:g}: {'met' if is_met else 'NOT MET'}"
        lines.append(line)
    lines.append(f"silver + gold: {_spread(_ratios(seen, ('silver', 'gold'), 'sort_floor'))} times sort_floor")
    return rows, lines


def _row_count(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _measure(customers: int, rounds: int, record: bool) -> None:
    kafka = load_script("deploy/kafka/broker.py")
    seen: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="journeys-bench-") as folder:
        work = Path(folder)
        # In a process of its own: a child's peak memory starts at what its parent held.
        script = f"from benchmarks.bench import *; make_records(Path({str(work)!r}), {customers})"
        subprocess.run([sys.executable, "-c", script], cwd=PROJECT_DIR, check=True)
        records = _row_count(work / "records.parquet")
        print(f"{records:,} records of {customers:,} customers", file=sys.stderr, flush=True)
        with kafka.Broker(work / "kafka", tied=True) as broker:
            for number in range(rounds):
                _round(number, work, broker, seen)
    rows, lines = report(seen, records)
    head = ["stage", f"seconds: median of {rounds} (range)", "records/s", "peak MiB"]
    table = Table(*head, title=f"{records:,} records", title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print("\n".join(lines))
    if record:
        body = (
            f"`make bench`: {records:,} records, {rounds} interleaved rounds, each stage in a process of its own.\n\n"
        )
        body += markdown_table(head, rows) + "\n" + "".join(f"- {line}\n" for line in lines) + _EXPLAINED
        print(f"wrote {write_page('bench', 'Throughput and memory', body)}")


_EXPLAINED = """
- `poll_floor`: a bare kafka-python loop with landing's own fetch options that drops every record.
- `parse_floor`: one pydantic parse per landed record, on one core as Python does it; nothing is kept.
- `verdict_floor`: the whole verdict in Python (pydantic, and what a warehouse needs beyond it: double keys, NUL, limits
  of time and size), which is what bronze's SQL stands in for. Bronze also types and stores.
- `sort_floor`: one DuckDB sort of all columns of `touchpoints` by (customer_key, occurred_at) into another table.
- `gold` includes the quality gates. Ratios are taken within a round.
"""


def _stage_main(stage: str, work: Path, url: str) -> None:
    functions: dict[str, Callable[[Path, str, Settings], float]] = {name: globals()[name] for name in STAGES}
    settings = load_settings(home=work / "home")
    seconds = functions[stage](work, url, settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


def main() -> None:
    """Measure and print; goals are told, not enforced."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--customers", type=int, default=28_000, help="true customers (28,000: over a million records)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write docs/measurements/bench.md")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        _stage_main(given.stage, given.work, given.url)
        return
    os.environ.pop("JOURNEYS_HOME", None)
    _measure(given.customers, given.rounds, given.record)


if __name__ == "__main__":
    main()
