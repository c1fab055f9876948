"""A real, small warehouse: literal events in, silver tables out, by the pipeline's own steps."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.config import Config, parse_config
from schemas.landing import LANDING_SCHEMA, Segment
from transforms import bronze, silver

LANDED_AT = datetime(2027, 1, 1, tzinfo=UTC)
CHANNELS = {
    "email_": "email",
    "mail_": "email",
    "unsubscribed": "email",
    "store_": "store",
    "loyalty_": "store",
    "ticket_": "support",
    "call_": "support",
    "chat_": "support",
    "csat_": "support",
    "nps_": "support",
}


def event_id(name: str) -> str:
    """A readable event name as a UUID; equal names are equal ids."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def at(text: str) -> datetime:
    """`2026-01-05 10:00` as UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def event(
    event_type: str, when: str | datetime, who: str | dict[str, Any] | None = "c1", **fields: Any
) -> dict[str, Any]:
    """One wire event. `who`: a customer_id or identifiers; `name` gives the event id; the rest by field name."""
    occurred_at = at(when) if isinstance(when, str) else when
    name = fields.pop("name", f"{event_type} {occurred_at.isoformat()} {who} {sorted(fields.items())}")
    received_at = fields.pop("received_at", occurred_at)
    envelope = {"source", "medium", "campaign", "experiment", "variant", "event_name", "consent", "channel"}
    channel = next((c for start, c in CHANNELS.items() if event_type.startswith(start)), "web")
    record = {
        "event_id": event_id(name),
        "schema_version": 1,
        "channel": channel,
        "event_type": event_type,
        "occurred_at": occurred_at.isoformat(),
        "received_at": (at(received_at) if isinstance(received_at, str) else received_at).isoformat(),
        "identifiers": {"customer_id": who} if isinstance(who, str) else (who or {}),
        **{key: value for key, value in fields.items() if key in envelope},
        "properties": {key: value for key, value in fields.items() if key not in envelope},
    }
    return {key: value for key, value in record.items() if value is not None}


class Pipeline:
    """Lands records, loads bronze and builds silver in one DuckDB file."""

    def __init__(self, folder: Path) -> None:
        self.landing_dir = folder / "landing"
        self.con = duckdb.connect(str(folder / "warehouse.duckdb"))
        self.con.execute("set timezone = 'UTC'; set preserve_insertion_order = false")
        self.next_offset = 0

    def land(
        self,
        records: Iterable[dict[str, Any] | bytes | None],
        *,
        landed_at: datetime = LANDED_AT,
        partition: int = 0,
    ) -> None:
        values = [json.dumps(record).encode() if isinstance(record, dict) else record for record in records]
        count = len(values)
        segment = Segment("test", "journeys.web.v1", partition, self.next_offset, self.next_offset + count - 1)
        path = segment.path(self.landing_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {
            "_cluster": ["test"] * count,
            "_topic": ["journeys.web.v1"] * count,
            "_partition": [partition] * count,
            "_offset": list(range(self.next_offset, self.next_offset + count)),
            "kafka_at": [landed_at] * count,
            "key": [None] * count,
            "value": values,
            "headers": [None] * count,
            "landed_at": [landed_at] * count,
        }
        pq.write_table(pa.table(columns, schema=LANDING_SCHEMA), path)
        self.next_offset += count

    def build(self, *, as_of: str | datetime | None = None, config: Config | None = None) -> datetime:
        config = config or parse_config("{}", source="journey.yml")
        bronze.load(
            self.con,
            landing_dir=self.landing_dir,
            earliest_occurred_at=config.earliest_occurred_at,
            clock_skew_tolerance=timedelta(minutes=5),
        )
        return silver.build(self.con, config=config, data_as_of=at(as_of) if isinstance(as_of, str) else as_of)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.con.execute(sql).fetchall()

    def tables(self, names: Sequence[str] = silver.TABLES) -> dict[str, list[tuple[Any, ...]]]:
        """Every table's rows, sorted, so that two builds can be compared."""
        return {
            name: sorted(self.rows(f"from {name}"), key=lambda row: [(v is None, str(v)) for v in row])
            for name in names
        }


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


@pytest.fixture(scope="session")
def new_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Pipeline]:
    return lambda: Pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def run(pipeline: Pipeline) -> Callable[..., Pipeline]:
    """Events in one call: land, load, build."""

    def _run(*records: dict[str, Any] | bytes | None, as_of: str | None = None, config: str = "{}") -> Pipeline:
        pipeline.land(records)
        pipeline.build(as_of=as_of, config=parse_config(config, source="journey.yml"))
        return pipeline

    return _run


@pytest.fixture(scope="session", name="event")
def event_fixture() -> Callable[..., dict[str, Any]]:
    return event


class Histories:
    """Literal histories, one customer each, built together: a case costs a customer, not a build.

    A step is `(when, event_type)` or `(when, event_type, {field: value})`. A customer's events are named a, b, c …
    in the order given, and their ids are in that order too, unless `id` gives the first eight digits.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.names: dict[str, str] = {}

    def land(self, cases: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        records = [record for customer, steps in cases.items() for record in self._events(customer, steps)]
        self.pipeline.land(reversed(records))  # arrival says nothing about order

    def _events(self, customer: str, steps: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        suffix = hashlib.sha256(customer.encode()).hexdigest()[:24]
        records = []
        for index, (when, event_type, *given) in enumerate(steps):
            fields = {"who": customer, **(given[0] if given else {})}
            prefix = fields.pop("id", f"{index * 0x01000000:08x}")
            record = event(event_type, when, **fields)
            record["event_id"] = str(uuid.UUID(prefix + suffix))
            self.names[record["event_id"]] = chr(ord("a") + index) if index < 26 else "+"
            records.append(record)
        return records

    def groups(self, customer: str, column: str) -> str:
        """Who shares a value of `column`: `ab|c -d` are two groups, and d has none."""
        groups: dict[Any, str] = {}
        for event_id, value in self.rows(
            f"""select event_id, {column} from touchpoints
                where customer_key = 'c:{customer}' order by occurred_at, event_id"""
        ):
            groups[value] = groups.get(value, "") + self.names[str(event_id)]
        without = groups.pop(None, "")
        return "|".join(groups.values()) + (f" -{without}" if without else "")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.pipeline.rows(sql)


@pytest.fixture(scope="session")
def histories(new_pipeline: Callable[[], Pipeline]) -> Callable[..., Histories]:
    """`histories({"customer": [step, …]}, as_of=…, config=…)`: land, load and build."""

    def _histories(
        cases: Mapping[str, Sequence[Sequence[Any]]], *, as_of: str | None = None, config: str = "{}"
    ) -> Histories:
        built = Histories(new_pipeline())
        built.land(cases)
        built.pipeline.build(as_of=as_of, config=parse_config(config, source="journey.yml"))
        return built

    return _histories
