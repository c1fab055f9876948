"""Bronze: landed records become typed touchpoints or quarantine rows.

Columns in: the landing contract (`schemas.landing`). Tables out:

- `bronze_touchpoints`, grain one landed record that is a valid event (copies included): record coordinates, typed
  columns, `identifiers` and `properties` as JSON text, `direction`, clock repair (SEMANTICS: docs/semantics.md, 1).
- `quarantine`, grain one rejected record: coordinates, reason, field, value excerpt, raw bytes.
- `bronze_progress`, grain one partition: the greatest offset loaded.

Each batch is one transaction, so a kill leaves whole batches only and the next run goes on after them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from schemas.contracts import ENVELOPE_FIELDS, PROPERTY_FIELDS
from schemas.errors import BuildError
from schemas.events import EventBase, Rejection, parse_event
from schemas.landing import Segment, live_segments
from schemas.paths import literal_path
from transforms.event_sql import instant, leaves_sql, quoted, typed_value, validity

logger = logging.getLogger(__name__)

BATCH_RECORDS = 1_000_000
_MODEL_PAGE = 20_000
COORDINATES = ("_cluster", "_topic", "_partition", "_offset")

OUTBOUND_EVENT_TYPES = (
    "email_sent",
    "email_delivered",
    "email_bounced",
    "mail_sent",
    "ticket_solved",
    "order_refunded",
    "experiment_viewed",
)
"""What the brand does, besides an agent's ticket_replied and a machine's email_opened."""

_TEXT_COLUMNS = (
    "channel",
    "event_type",
    "event_name",
    "source",
    "medium",
    "campaign",
    "experiment",
    "variant",
)


@dataclass(frozen=True)
class BronzeSummary:
    """What one load did, in records."""

    read_count: int = 0
    accepted_count: int = 0
    rejected_count: int = 0

    def __add__(self, other: BronzeSummary) -> BronzeSummary:
        return BronzeSummary(
            self.read_count + other.read_count,
            self.accepted_count + other.accepted_count,
            self.rejected_count + other.rejected_count,
        )


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Make bronze's tables where they are missing."""
    properties = ", ".join(f"{name} {_sql_type(name)}" for name in PROPERTY_FIELDS)
    text = ", ".join(f"{name} varchar" for name in _TEXT_COLUMNS)
    con.execute(f"""
        create table if not exists bronze_touchpoints (
            _cluster varchar, _topic varchar, _partition integer, _offset bigint, landed_at timestamp,
            payload_hash ubigint, event_id uuid, {text},
            occurred_at timestamp, received_at timestamp, source_occurred_at timestamp, is_clock_skewed boolean,
            direction varchar, is_analytics_allowed boolean, identifiers varchar, {properties}, properties varchar
        )""")
    con.execute("""
        create table if not exists quarantine (
            _cluster varchar, _topic varchar, _partition integer, _offset bigint, received_at timestamp,
            reason varchar, field varchar, value_excerpt varchar, raw blob
        )""")
    con.execute("""
        create table if not exists bronze_progress (
            _cluster varchar, _topic varchar, _partition integer, loaded_to bigint,
            primary key (_cluster, _topic, _partition)
        )""")


def reset(con: duckdb.DuckDBPyConnection) -> None:
    """Forget everything loaded, so that the next `load` reads landing from its start."""
    create_tables(con)
    con.execute("begin")
    for table in ("bronze_touchpoints", "quarantine", "bronze_progress"):
        con.execute(f"drop table {table}")
    con.execute("commit")
    create_tables(con)


def _sql_type(name: str) -> str:
    kinds = {"integer": "integer", "boolean": "boolean", "money": "decimal(18, 2)"}
    return kinds.get(PROPERTY_FIELDS[name].kind, "varchar")


def load(
    con: duckdb.DuckDBPyConnection,
    *,
    landing_dir: Path,
    earliest_occurred_at: datetime,
    clock_skew_tolerance: timedelta,
    batch_records: int = BATCH_RECORDS,
) -> BronzeSummary:
    """Load every landed record after the loaded offsets; answers what was read, accepted and rejected.

    Raises BuildError naming a landed file that cannot be read.
    """
    create_tables(con)
    total = BronzeSummary()
    for batch in _batches(con, landing_dir, batch_records):
        started = time.monotonic()
        con.execute("begin")
        try:
            summary = _load_batch(con, landing_dir, batch, earliest_occurred_at, clock_skew_tolerance)
            con.execute("commit")
        except BaseException as error:
            con.execute("rollback")
            if isinstance(error, duckdb.Error) and not isinstance(error, duckdb.OutOfMemoryException):
                _raise_for_damage(con, landing_dir, batch)
            raise
        logger.info(
            "bronze: %d records in %d files, %d accepted, %d rejected, %.2f s",
            summary.read_count,
            len(batch),
            summary.accepted_count,
            summary.rejected_count,
            time.monotonic() - started,
        )
        total += summary
    return total


def _batches(con: duckdb.DuckDBPyConnection, landing_dir: Path, batch_records: int) -> Iterator[list[Segment]]:
    progress = {
        (cluster, topic, partition): loaded_to
        for cluster, topic, partition, loaded_to in con.execute("from bronze_progress").fetchall()
    }
    batch: list[Segment] = []
    for segment in live_segments(landing_dir):
        if segment.end <= progress.get((segment.cluster, segment.topic, segment.partition), -1):
            continue
        batch.append(segment)
        if sum(part.end - part.start + 1 for part in batch) >= batch_records:
            yield batch
            batch = []
    if batch:
        yield batch


def _raise_for_damage(con: duckdb.DuckDBPyConnection, landing_dir: Path, batch: list[Segment]) -> None:
    """Name the landed file that broke the batch: DuckDB's own message often does not. Reads each one again, whole."""
    for segment in batch:
        path = segment.path(landing_dir)
        try:
            con.execute(
                "select bit_xor(hash(_cluster, _topic, _partition, _offset, landed_at, value)) "
                f"from read_parquet({quoted(literal_path(path))}, hive_partitioning = false)"
            ).fetchall()
        except duckdb.Error as error:
            raise BuildError(
                f"the landed file cannot be read: {' '.join(str(error).split())[:200]}",
                where=str(path),
                remedy="Restore it from a backup; if it is the last of its partition and the source still has these "
                "offsets, delete it and run `journeys land` instead. Nothing of this batch was loaded",
            ) from error


def _load_batch(
    con: duckdb.DuckDBPyConnection,
    landing_dir: Path,
    batch: list[Segment],
    earliest: datetime,
    tolerance: timedelta,
) -> BronzeSummary:
    files = "[" + ", ".join(quoted(literal_path(segment.path(landing_dir))) for segment in batch) + "]"
    records = f"""
        (select record.*, record.value as payload from read_parquet({files}, hive_partitioning = false) as record
         left join bronze_progress as progress using (_cluster, _topic, _partition)
         where record._offset > coalesce(progress.loaded_to, -1))"""
    con.execute(_stage(records, validity(earliest), tolerance, target="staged"))
    read = int(con.execute("select count(*) from staged").fetchone()[0])
    con.execute("insert into bronze_touchpoints select * exclude (is_valid, raw) from staged where is_valid")
    rejected = _decide_by_model(con, earliest, tolerance)
    for segment in batch:
        con.execute(
            "insert or replace into bronze_progress values (?, ?, ?, ?)",
            [segment.cluster, segment.topic, segment.partition, segment.end],
        )
    con.execute("drop table staged")
    return BronzeSummary(read, read - rejected, rejected)


def _stage(records: str, verdict: str, tolerance: timedelta, *, target: str) -> str:
    """SQL that types every record of `records` into the temporary table `target`, with `verdict` as `is_valid`."""
    envelope = {name: typed_value(field, f"e.{name}") for name, field in ENVELOPE_FIELDS.items()}
    text = ",\n    ".join(f"{envelope[name]} as {name}" for name in _TEXT_COLUMNS)
    properties = ",\n    ".join(
        f"{typed_value(field, f'p.{name}')} as {name}" for name, field in PROPERTY_FIELDS.items()
    )
    outbound = ", ".join(quoted(f'"{event_type}"') for event_type in OUTBOUND_EVENT_TYPES)
    skew = f"occurred_at > received_at + interval {int(tolerance.total_seconds() * 1e6)} microseconds"
    return f"""
create or replace temp table {target} as
with texts as (
    select _cluster, _topic, _partition, _offset, landed_at, value, payload, try(decode(value)) as text
    from {records}
),
leaves as ({leaves_sql("texts")}),
typed as (
    select
    _cluster, _topic, _partition, _offset, landed_at::timestamp as landed_at, hash(payload) as payload_hash,
    {envelope["event_id"]} as event_id,
    {text},
    {instant("e.occurred_at")} as occurred_at,
    {instant("e.received_at")} as received_at,
    case
        when e.event_type in ({outbound}) then 'outbound'
        when e.event_type = '"ticket_replied"' and p.author = '"agent"' then 'outbound'
        when e.event_type = '"email_opened"' and p.is_machine_open = 'true' then 'outbound'
        else 'inbound'
    end as direction,
    not coalesce(contains(e.consent, '"analytics":false'), false) as is_analytics_allowed,
    e.identifiers as identifiers,
    {properties},
    coalesce(e.properties, '{{}}') as properties,
    {verdict} as is_valid,
    payload
    from leaves
)
select
    _cluster, _topic, _partition, _offset, landed_at, payload_hash, event_id, {", ".join(_TEXT_COLUMNS)},
    case when {skew} then received_at else occurred_at end as occurred_at,
    received_at,
    case when {skew} then occurred_at end as source_occurred_at,
    {skew} as is_clock_skewed,
    direction, is_analytics_allowed, identifiers, {", ".join(PROPERTY_FIELDS)}, properties,
    is_valid,
    case when not is_valid then payload end as raw
from typed
"""


def _decide_by_model(con: duckdb.DuckDBPyConnection, earliest: datetime, tolerance: timedelta) -> int:
    """Let pydantic decide what the vectorised check did not accept; answers the number of rejected records.

    An accepted event goes through the same SQL in its canonical spelling, so that one code path types it.
    """
    last: list[object] = ["", "", -1, -1]
    rejected = 0
    while rows := con.execute(
        f"select {', '.join(COORDINATES)}, landed_at, raw from staged where not is_valid "
        f"and ({', '.join(COORDINATES)}) > (?, ?, ?, ?) order by all limit {_MODEL_PAGE}",
        last,
    ).fetchall():
        verdicts = [(row, parse_event(row[-1], earliest=earliest)) for row in rows]
        rejects = [(row, verdict) for row, verdict in verdicts if isinstance(verdict, Rejection)]
        events = [(row, verdict) for row, verdict in verdicts if isinstance(verdict, EventBase)]
        if rejects:
            _insert_rejects(con, rejects)
        if events:
            _insert_events(con, events, earliest, tolerance)
        rejected += len(rejects)
        last = list(rows[-1][:4])
    return rejected


def judge_again(
    con: duckdb.DuckDBPyConnection, *, earliest_occurred_at: datetime, clock_skew_tolerance: timedelta
) -> tuple[int, int]:
    """Judge every quarantined record anew; answers how many were accepted now and how many stay.

    Accepted ones move to `bronze_touchpoints`; the others get the reason of today's contract.
    """
    create_tables(con)
    con.execute("begin")
    try:
        con.execute(
            f"create or replace temp table staged as select {', '.join(COORDINATES)}, received_at as landed_at, raw, "
            "false as is_valid from quarantine"
        )
        con.execute("delete from quarantine")
        judged = con.execute("select count(*) from staged").fetchone()
        remaining = _decide_by_model(con, earliest_occurred_at, clock_skew_tolerance)
        con.execute("drop table staged")
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    return (judged[0] if judged else 0) - remaining, remaining


def _columns(rows: list[tuple[Any, ...]]) -> dict[str, pa.Array]:
    cluster, topic, partition, offset, landed_at, raw = zip(*rows, strict=True)
    return {
        "_cluster": pa.array(cluster, pa.string()),
        "_topic": pa.array(topic, pa.string()),
        "_partition": pa.array(partition, pa.int32()),
        "_offset": pa.array(offset, pa.int64()),
        "landed_at": pa.array(landed_at, pa.timestamp("us")),
        "payload": pa.array(raw, pa.binary()),
    }


def _insert_rejects(con: duckdb.DuckDBPyConnection, rejects: list[tuple[tuple[Any, ...], Rejection]]) -> None:
    columns = _columns([row for row, _ in rejects])
    for name in ("reason", "field", "value_excerpt"):
        columns[name] = pa.array([getattr(verdict, name) for _, verdict in rejects], pa.string())
    con.register("model_rejects", pa.table(columns))
    # received_at of a record that cannot be read: when it landed.
    con.execute(
        "insert into quarantine by name select _cluster, _topic, _partition, _offset, landed_at as received_at, "
        "reason, field, value_excerpt, payload as raw from model_rejects"
    )
    con.unregister("model_rejects")


def _insert_events(
    con: duckdb.DuckDBPyConnection,
    events: list[tuple[tuple[Any, ...], EventBase]],
    earliest: datetime,
    tolerance: timedelta,
) -> None:
    columns = _columns([row for row, _ in events])
    columns["value"] = pa.array([event.to_json() for _, event in events], pa.binary())
    con.register("model_events", pa.table(columns))
    con.execute(_stage("model_events", "true", tolerance, target="staged_events"))
    con.execute("insert into bronze_touchpoints select * exclude (is_valid, raw) from staged_events")
    con.execute("drop table staged_events")
    con.unregister("model_events")
