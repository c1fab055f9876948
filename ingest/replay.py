"""`journeys replay`: the rows of files become touchpoints, by a mapping, and are sent like any other.

Rows are evaluated in a DuckDB of their own that can reach nothing but what was loaded: external access off,
configuration locked, deterministic functions only, limits on memory and time. The same file gives the same events.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid5

import duckdb

from ingest.mapping import INPUT, TEXT_FIELDS, load_mapping
from ingest.mapping import Mapping as MappingOfRows
from ingest.progress import Tracker, no_progress
from ingest.writer import Writer
from schemas import uuid5 as uuid5_macro
from schemas.contracts import PROPERTY_FIELDS
from schemas.errors import ConfigurationError, UsageError
from schemas.events import Rejection, parse_event, record_key
from schemas.landing import live_segments
from schemas.settings import Settings
from schemas.topics import CHANNEL_TOPICS

TIME_LIMIT_SECONDS = 900.0
REPLAY_NAMESPACE = uuid5(uuid5_macro.NIL, "journeys.replay")
SHOWN_REJECTS = 10
TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FETCH_ROWS = 10_000


@dataclass
class ReplayReport:
    """What became of the rows: events sent, rows rejected (with the first reasons), ids that had landed before."""

    sent_count: int = 0
    rejected_count: int = 0
    landed_before_count: int = 0
    rejects: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report for `--json`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [f"sent {self.sent_count:,} touchpoints; {self.landed_before_count:,} of their ids had landed before"]
        if self.rejected_count:
            lines.append(f"rejected {self.rejected_count:,} rows, nothing of them was sent:")
            lines += [f"  {reject}" for reject in self.rejects]
        return lines


def replay(
    files: Sequence[Path],
    mapping_path: Path,
    url: str,
    *,
    settings: Settings,
    tables: Mapping[str, Path] | None = None,
    progress: Tracker[str] = no_progress,
) -> ReplayReport:
    """Send the rows of each file to `url` as touchpoints, in order of time within a file.

    Raises UsageError for a missing file, ConfigurationError for a mapping or file that cannot be used (nothing of that
    file has been sent; files before it may have), BrokerError for a record that is not delivered. Rows that make no
    valid event are counted and reported, the others are sent. `progress` sees the events on their way.
    """
    mapping = load_mapping(mapping_path)
    further = {**mapping.table_paths(), **(tables or {})}
    for name in further:
        if not TABLE_NAME.fullmatch(name) or name == INPUT:
            raise UsageError("not a name for a further table", value=name, remedy="Use lower-case letters, 0-9 and _")
    for path in (*files, *further.values()):
        if not path.is_file():
            raise UsageError("there is no such file", value=str(path), remedy="Check the path")
    report = ReplayReport()
    landed = _LandedIds(settings)
    with Writer(url, settings, name=f"replay-{mapping.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}") as writer:
        for file in files:
            events = evaluate(file, mapping, settings=settings, tables=further)
            for text in progress(events, None, f"sending {file.name}"):
                _send(text, writer, report, landed)
        writer.flush()
    report.landed_before_count = landed.count()
    return report


def _send(text: str, writer: Writer, report: ReplayReport, landed: _LandedIds) -> None:
    event = parse_event(text.encode())
    if isinstance(event, Rejection):
        report.rejected_count += 1
        if len(report.rejects) < SHOWN_REJECTS:
            report.rejects.append(
                f"{event.field or 'event'}: {event.reason} (got {event.value_excerpt}) in {text[:300]}"
            )
        return
    landed.add(str(event.event_id))
    writer.send(CHANNEL_TOPICS[event.channel], record_key(event), text.encode())
    report.sent_count += 1


def evaluate(file: Path, mapping: MappingOfRows, *, settings: Settings, tables: Mapping[str, Path]) -> Iterator[str]:
    """The wire events of one file, as JSON texts: entry by entry, each in order of (occurred_at, event_id)."""
    with duckdb.connect(config={"memory_limit": settings.duckdb_memory_limit}) as con:
        # one thread: a sum of doubles, a list or any_value must come out the same in every replay, or ids would change
        con.execute("set TimeZone = 'UTC'; set threads = 1; set autoinstall_known_extensions = false")
        uuid5_macro.create_macro(con)
        con.execute("create macro uuid5(namespace, name) as uuid5_of(namespace, name)::varchar")
        _load(con, INPUT, file, mapping)
        for name, path in tables.items():
            _load(con, name, path, None)
        con.execute("set enable_external_access = false; set lock_configuration = true")
        loaded = {INPUT, *tables}
        prepared = [_prepare(con, mapping, index, loaded) for index in range(len(mapping.content.touchpoints))]
        for index, sql in enumerate(prepared):
            with _time_limit(con, mapping.place(index)):
                rows = con.execute(sql)
                while batch := rows.fetchmany(_FETCH_ROWS):
                    yield from (text for (text,) in batch)


@contextmanager
def _time_limit(con: duckdb.DuckDBPyConnection, where: str) -> Iterator[None]:
    timer = threading.Timer(TIME_LIMIT_SECONDS, con.interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException:
        raise ConfigurationError(
            f"the rows took longer than {TIME_LIMIT_SECONDS:g} s",
            where=where,
            remedy="Split the file or simplify `from`",
        ) from None
    except duckdb.Error as error:
        raise ConfigurationError(
            f"the rows cannot be evaluated: {str(error).splitlines()[0]}", where=where, remedy="Correct the expression"
        ) from None
    finally:
        timer.cancel()


def _load(con: duckdb.DuckDBPyConnection, name: str, path: Path, mapping: MappingOfRows | None) -> None:
    """Load a file as a table; its format by the mapping for the input, by its suffix for further tables."""
    suffixes = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".ndjson": "ndjson", ".jsonl": "ndjson"}
    kind = mapping.content.input.format if mapping else suffixes.get(path.suffix, "csv")
    options = "[?]"
    if kind == "csv" and mapping:
        options += f", header = {str(mapping.content.input.has_header).lower()}"
        if mapping.content.input.delimiter:
            options += f", delim = {_text(mapping.content.input.delimiter)}"
    reader = {
        "csv": f"read_csv({options}, sample_size = -1)",
        "parquet": "read_parquet([?])",
        "ndjson": "read_json([?], format = 'newline_delimited')",
    }[kind]
    try:
        con.execute(f'create table "{name}" as from {reader}', [str(path)])
    except duckdb.Error as error:
        raise ConfigurationError(
            f"the file cannot be read as {kind}: {str(error).splitlines()[0]}",
            where=str(path),
            remedy="Correct the file, or `input` in the mapping",
        ) from None


def _prepare(con: duckdb.DuckDBPyConnection, mapping: MappingOfRows, index: int, tables: set[str]) -> str:
    """Check one entry and answer the SQL of its events."""
    rows = mapping.rows_sql(index, tables)
    try:
        columns = [row[0] for row in con.execute(f"describe {rows}").fetchall()]
    except duckdb.Error as error:
        raise ConfigurationError(
            f"the SELECT does not fit the data: {str(error).splitlines()[0]}",
            where=mapping.place(index, "from"),
            remedy="Correct it",
        ) from None
    checked = mapping.check_entry(index, columns)
    types: dict[tuple[str, ...], str] = {}
    for place, sql in checked.items():
        try:
            types[place] = con.execute(f"describe select {sql} as value from ({rows})").fetchall()[0][1]
        except duckdb.Error as error:
            raise ConfigurationError(
                f"does not fit the data: {str(error).splitlines()[0]}",
                where=mapping.place(index, *place),
                value=sql,
                remedy=f"Columns: {', '.join(columns)}",
            ) from None
    return _events_sql(mapping, index, rows, checked, types)


def _events_sql(
    mapping: MappingOfRows,
    index: int,
    rows: str,
    checked: dict[tuple[str, ...], str],
    types: dict[tuple[str, ...], str],
) -> str:
    zone = mapping.content.input.timezone
    values = {place: _wire_value(place, sql, types[place], zone) for place, sql in checked.items()}
    values.setdefault(("received_at",), values["occurred_at",])
    envelope = {name: values[name,] for name in TEXT_FIELDS if (name,) in values and name != "event_id"}
    parts = [f"'{name}', {sql}" for name, sql in envelope.items()]
    for group in ("identifiers", "properties"):
        # sorted: the order of keys in the mapping must not change the ids
        inner = [f"{_text(place[1])}, {sql}" for place, sql in sorted(values.items()) if place[0] == group]
        parts.append(f"'{group}', json_object({', '.join(inner)})")
    where = f"where {checked['where',]}" if ("where",) in checked else ""
    given_id = f"({checked['event_id',]})::varchar" if ("event_id",) in checked else "null"
    named = f"{_text(mapping.name)} || chr(31) || '{index}' || chr(31) || payload || chr(31) || ordinal"
    return f"""
        with payloads as (
            select {given_id} as given_id, json_object({", ".join(parts)})::varchar as payload
            from ({rows}) {where}
        ),
        numbered as (
            select *, row_number() over (partition by payload) as ordinal from payloads
        ),
        events as (
            select json_merge_patch(
                json_object(
                    'event_id', coalesce(given_id, uuid5_of('{REPLAY_NAMESPACE}', {named})::varchar),
                    'schema_version', 1
                ),
                payload
            ) as event
            from numbered
        )
        select event::varchar from events
        order by event ->> 'occurred_at', event ->> 'event_id'"""


def _text(value: str) -> str:
    """An SQL text literal."""
    return "'" + value.replace("'", "''") + "'"


def _wire_value(place: tuple[str, ...], sql: str, kind: str, zone: str) -> str:
    """SQL of a value as it goes on the wire: times in UTC, identifiers as text, money exact to the cent."""
    if place in (("occurred_at",), ("received_at",)):
        return f"strftime({_instant(sql, kind, zone)}, '%Y-%m-%dT%H:%M:%S.%fZ')"
    if place[0] == "identifiers":
        return f"({sql})::varchar[]" if kind.endswith("[]") else f"({sql})::varchar"
    if place[0] == "properties" and place[1] in PROPERTY_FIELDS:
        declared = PROPERTY_FIELDS[place[1]].kind
        if declared == "money":
            return f"({sql})::decimal(18, 2)::varchar"
        return sql if declared in ("integer", "boolean") else f"({sql})::varchar"
    return sql if place[0] == "properties" else f"({sql})::varchar"


def _instant(sql: str, kind: str, zone: str) -> str:
    """SQL of a UTC timestamp: a stamp without zone belongs to the mapping's, one with a zone is taken as it is."""
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"timezone('UTC', {sql})"
    if kind == "VARCHAR":
        # a zone follows a time of day: the "-05" of 2026-01-05 is none
        has_zone = f"regexp_matches({sql}, ':\\d\\d(\\.\\d+)?\\s*([zZ]|[+-]\\d\\d(:?\\d\\d)?)$')"
        naive = f"timezone('UTC', timezone('{zone}', ({sql})::timestamp))"
        return f"case when {has_zone} then timezone('UTC', ({sql})::timestamptz) else {naive} end"
    return f"timezone('UTC', timezone('{zone}', ({sql})::timestamp))"


class _LandedIds:
    """Counts which of the ids sent had landed before the replay began."""

    def __init__(self, settings: Settings) -> None:
        self._files = [str(segment.path(settings.landing_dir)) for segment in live_segments(settings.landing_dir)]
        self._ids: list[str] = []

    def add(self, event_id: str) -> None:
        """Remember an id that is being sent."""
        if self._files:
            self._ids.append(event_id)

    def count(self) -> int:
        """How many of them stand in the files that had landed."""
        if not self._files:
            return 0
        import pyarrow as pa

        with duckdb.connect() as con:
            con.register("sent", pa.table({"event_id": pa.array(self._ids, pa.string())}))
            row = con.execute(
                """
                with landed as (
                    select try(json_extract_string(try(decode(value)), '$.event_id')) as event_id
                    from read_parquet(?, hive_partitioning = false)
                )
                select count(distinct event_id) from sent semi join landed using (event_id)""",
                [self._files],
            ).fetchone()
        return int(row[0]) if row else 0
