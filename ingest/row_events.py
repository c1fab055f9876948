"""The rows of a file as wire events: a mapping's expressions, evaluated by DuckDB.

Rows are evaluated in a database of their own that can reach nothing but what was loaded: external access off,
configuration locked, deterministic functions only, limits on memory and time. The same file gives the same events.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid5

import duckdb

from ingest.mapping import INPUT, TEXT_FIELDS
from ingest.mapping import Mapping as MappingOfRows
from schemas import uuid5 as uuid5_macro
from schemas.contracts import PROPERTY_FIELDS
from schemas.errors import ConfigurationError
from schemas.paths import literal_path
from schemas.settings import Settings

TIME_LIMIT_SECONDS = 900.0
REPLAY_NAMESPACE = uuid5(uuid5_macro.NIL, "journeys.replay")
_FETCH_ROWS = 10_000
_TIMES = (("occurred_at",), ("received_at",))
_TIME_KINDS = ("TIMESTAMP", "DATE", "VARCHAR", "JSON", '"NULL"')
_STAMP = r"\s*([^:]*\d:\d+(?::\d+(?:\.\d*)?)?)\s*(.*?)\s*"
"""A stamp with a time of day, and what follows it: nothing, or its zone (a zone's own colons come later)."""
_OFFSET = r"[zZ]|[+-]\d\d(:?\d\d(:\d\d)?)?"
_ZONE_NAME = r"UTC|GMT|UCT|WET|CET|MET|EET|EST|MST|HST|[A-Za-z][A-Za-z0-9_+/-]{3,}"
"""Names of the IANA list; DuckDB knows which of the long ones exist. Its other short ones are guesses: BST is Dhaka."""
_BLANK = r"[\s\pZ]*"
_UTC_ZONES = ("UTC", "Etc/UTC")


def evaluate(file: Path, mapping: MappingOfRows, *, settings: Settings, tables: Mapping[str, Path]) -> Iterator[str]:
    """The wire events of one file, as JSON texts: entry by entry, each in order of (occurred_at, event_id)."""
    with duckdb.connect(config={"memory_limit": settings.duckdb_memory_limit}) as con:
        # one thread: a sum of doubles, a list or any_value must come out the same in every replay, or ids would change
        con.execute("set threads = 1; set autoinstall_known_extensions = false")
        uuid5_macro.create_macro(con)
        con.execute("create macro uuid5(namespace, name) as uuid5_of(namespace, name)::varchar")
        # while reading: where stamps with and without a zone stand in one column, the reader judges the latter by it
        zone = mapping.content.input.timezone
        con.execute(f"set TimeZone = '{zone}'")
        _load(con, INPUT, file, mapping, zone)
        for name, path in tables.items():
            _load(con, name, path, None, zone)
        con.execute("set TimeZone = 'UTC'; set enable_external_access = false; set lock_configuration = true")
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
            f"the rows cannot be evaluated: {str(error).splitlines()[0]}",
            where=where,
            remedy="Correct the expression; try_cast(…) gives NULL where a value does not cast",
        ) from None
    finally:
        timer.cancel()


def _load(con: duckdb.DuckDBPyConnection, name: str, path: Path, mapping: MappingOfRows | None, zone: str) -> None:
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
    pattern = literal_path(path)
    try:
        con.execute(f'create table "{name}" as from {reader}', [pattern])
        if kind == "csv" and (kinds := _kinds_with_zones(con, name, options, pattern, zone)):
            types = ", ".join(f"{_text(column)}: {_text(kind)}" for column, kind in kinds.items())
            reader = f"read_csv({options}, sample_size = -1, types = {{{types}}})"
            con.execute(f'create or replace table "{name}" as from {reader}', [pattern])
    except duckdb.Error as error:
        raise ConfigurationError(
            f"the file cannot be read as {kind}: {str(error).splitlines()[0]}",
            where=str(path),
            remedy="Correct the file, or `input` in the mapping",
        ) from None


def _kinds_with_zones(
    con: duckdb.DuckDBPyConnection, name: str, options: str, pattern: str, zone: str
) -> dict[str, str]:
    """The CSV columns to read once more, by type: those whose zones the reader dropped or guessed.

    It takes a column of `… UTC` for stamps without a zone, and `BST` for the time of Dhaka. A column with zones it
    knows becomes TIMESTAMPTZ, another stays text, so that each row is judged by itself.
    """
    described = con.execute(f'describe "{name}"').fetchall()
    stamps = {column: kind for column, kind, *_ in described if kind.startswith("TIMESTAMP")}
    if not stamps:
        return {}
    types = ", ".join(f"{_text(column)}: 'VARCHAR'" for column in stamps)
    reader = f"read_csv({options}, sample_size = -1, types = {{{types}}})"
    verdicts = ", ".join(
        f"coalesce(bool_or({after} <> ''), false), "
        f"coalesce(bool_or({after} <> '' and not regexp_full_match({after}, '{_OFFSET}|(?i:{_ZONE_NAME})')), false)"
        for after in (f"regexp_extract({_name(column)}, '^{_STAMP}$', 2)" for column in stamps)
    )
    row = con.execute(f"select {verdicts} from {reader}", [pattern]).fetchall()[0]
    kinds = {}
    for index, (column, kind) in enumerate(stamps.items()):
        has_zones, has_foreign = row[2 * index : 2 * index + 2]
        if kind != "TIMESTAMP" and has_foreign:
            kinds[column] = "VARCHAR"
        # what is foreign in a TIMESTAMP belongs to its format: 01/05/2026 10:00:00 PM
        elif kind == "TIMESTAMP" and has_zones and not has_foreign and zone not in _UTC_ZONES:
            kinds[column] = "TIMESTAMPTZ"
    return kinds


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
        if place in _TIMES and not types[place].startswith(_TIME_KINDS):
            raise ConfigurationError(
                f"must be a time or text, not {types[place]}",
                where=mapping.place(index, *place),
                value=sql,
                remedy="Convert it: to_timestamp(…) takes seconds, strptime(…::varchar, '%Y%m%d') digits",
            )
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


def _name(column: str) -> str:
    """An SQL name."""
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    """An SQL text literal."""
    return "'" + value.replace("'", "''") + "'"


def _wire_value(place: tuple[str, ...], sql: str, kind: str, zone: str) -> str:
    """SQL of a value as it goes on the wire: times in UTC, identifiers as text, money exact to the cent.

    A value that cannot be brought there goes as the text it is, so that the contract rejects this row alone and says
    why. `try` covers only what is added here: `sql` once more outside it still raises where the user's own part fails.
    """
    declared = PROPERTY_FIELDS[place[1]].kind if place[0] == "properties" and place[1] in PROPERTY_FIELDS else None
    if place[0] == "properties" and declared is None:
        return sql
    if kind == "JSON":  # what an NDJSON column is when its values are of several types
        sql, kind = f"json_extract_string({sql}, '$')", "VARCHAR"
    text = f"({sql})::varchar"
    if place in _TIMES:
        return f"coalesce(try(strftime({_instant(sql, kind, zone)}, '%Y-%m-%dT%H:%M:%S.%fZ')), {text})"
    if declared == "money":
        return f"coalesce(try_cast({sql} as decimal(18, 2))::varchar, {text})"
    if declared == "integer":  # one value that is none makes a whole column text, or 5 a 5.0
        is_whole = f"regexp_full_match({text}, '[+-]?\\d{{1,9}}(\\.0*)?')"
        return f"case when {is_whole} then to_json(({sql})::integer) else to_json({sql}) end"
    if declared == "boolean":
        return f"coalesce(to_json(try_cast({sql} as boolean)), to_json({sql}))" if kind == "VARCHAR" else sql
    if place[0] == "identifiers":  # a blank one is none: it would make one customer of all who lack it
        if kind.endswith("[]"):
            texts = f"({sql})::varchar[]"
            return f"list_filter({texts}, lambda one: one is null or not regexp_full_match(one, '{_BLANK}'))"
        return f"case when not regexp_full_match({text}, '{_BLANK}') then {text} end"
    return text


def _instant(sql: str, kind: str, zone: str) -> str:
    """SQL of a UTC timestamp: a stamp without zone belongs to the mapping's, one with a zone is taken as it is.

    NULL where something else follows the time of day: DuckDB would drop it and take the rest.
    """
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"timezone('UTC', {sql})"
    naive = f"timezone('UTC', timezone('{zone}', try_cast({sql} as timestamp)))"
    if kind == "VARCHAR":
        stamp, after = (f"regexp_extract({sql}, '^{_STAMP}$', {group})" for group in (1, 2))
        return f"""case
            when {after} = '' then {naive}
            when regexp_full_match({after}, '{_OFFSET}')
                then timezone('UTC', try_cast({stamp} || upper({after}) as timestamptz))
            when regexp_full_match({after}, '(?i:{_ZONE_NAME})')
                then timezone('UTC', try_cast({stamp} || ' ' || {after} as timestamptz))
            end"""
    return naive
