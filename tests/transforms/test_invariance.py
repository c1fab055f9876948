"""Silver and gold are a pure function of what landed: order, copies, files and nights change no table.

Two sources of streams: the scenario of `journeys produce` with a few customers, and a generator that is nasty on
purpose (a handful of people, orders, tickets and instants, so that ties, shared devices, links and copies meet).
Left out of comparisons, and nothing else: `_run_id`; where records move to other offsets, their coordinates; where
records are doubled, the counts of records and copies.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.scenario.run import generate
from schemas.config import Config, parse_config
from schemas.landing import LANDING_SCHEMA, Segment
from schemas.settings import PROJECT_DIR
from schemas.topics import CHANNEL_TOPICS
from transforms import bronze, silver, touchpoints
from warehouse.models import build_models, load_models, load_silver

SQL_DIR = PROJECT_DIR / "sql"
MODELS = load_models(SQL_DIR)
COORDINATES = frozenset({"_cluster", "_topic", "_partition", "_offset"})
COUNTS_OF_RECORDS = ("quarantined_ratio", "duplicate_ratio", "different_copy_count", "clock_skewed_ratio")
LANDED_AT = datetime(2026, 6, 1, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = """
reporting_timezone: America/New_York
max_links_per_identifier: 3
blocked_identifiers: {device_id: [d0], customer_id: [blocked]}
currency_rates: {EUR: 1.1}
exclude: [{name: staff, when: "campaign = 'internal-test'"}]
quality: {quarantined_ratio: {warn: 1.0}, unattributed_ratio: {warn: 1.0}, future_ratio: {warn: 1.0}}
"""


@dataclass(frozen=True)
class Sent:
    """One record of a stream."""

    topic: str
    value: bytes


# Streams ------------------------------------------------------------------------------------------------------


def scenario(seed: int, customers: int = 25) -> list[Sent]:
    """The shop of `journeys produce`, its faults included, in the order of delivery."""
    records = generate(seed=seed, days=75, customers=customers).records
    return [Sent(record.topic, record.value) for record in records]


NASTY_TYPES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("web", "page_viewed", ()),
    ("web", "product_viewed", ("product_id",)),
    ("web", "product_removed", ("product_id",)),
    ("web", "signed_in", ()),
    ("web", "experiment_viewed", ()),
    ("web", "order_completed", ("order_id", "amount", "currency")),
    ("web", "order_refunded", ("order_id", "amount", "currency")),
    ("store", "order_completed", ("order_id", "amount", "currency")),
    ("store", "loyalty_card_scanned", ()),
    ("email", "email_sent", ()),
    ("email", "email_opened", ("is_machine_open",)),
    ("email", "email_link_clicked", ()),
    ("support", "ticket_created", ("ticket_id",)),
    ("support", "ticket_replied", ("ticket_id", "author")),
    ("support", "ticket_solved", ("ticket_id",)),
    ("support", "csat_submitted", ("ticket_id", "csat_rating")),
    ("support", "nps_submitted", ("nps_score",)),
    ("web", "identity_linked", ()),
    ("web", "identity_unlinked", ()),
)
ORDERS = tuple(entry for entry in NASTY_TYPES if entry[1] == "order_completed") * 3
PROPERTIES: dict[str, Callable[[random.Random], Any]] = {
    "product_id": lambda rng: rng.choice("xyz"),
    "order_id": lambda rng: rng.choice(("o1", "o2", "o3", "o4", None)),
    "amount": lambda rng: rng.choice(("10.00", "0.05", "33.33", None)),
    "currency": lambda rng: rng.choice(("USD", "EUR", "GBP")),
    "ticket_id": lambda rng: rng.choice(("t1", "t2", "t3")),
    "author": lambda rng: rng.choice(("agent", "customer")),
    "csat_rating": lambda rng: rng.randint(1, 5),
    "nps_score": lambda rng: rng.randint(0, 10),
    "is_machine_open": lambda rng: rng.choice((True, False)),
}
DAYS = (0, 0, 1, 29, 30, 31, 61, 75)
IDENTIFIERS = {
    "customer_id": ("c1", "c2", "c3", "blocked"),
    "loyalty_id": ("l1", "l2"),
    "device_id": ("d0", "d1", "d2"),
    "anonymous_id": ("k1", "k2", "k3", "k4"),
}


def nasty(seed: int, count: int = 120) -> list[Sent]:
    """Few people on a coarse clock: ties everywhere, copies, skew, refusals, future clocks, rubbish."""
    rng = random.Random(f"nasty {seed}")
    sent: list[Sent] = []
    for _ in range(count):
        channel, event_type, names = rng.choice(NASTY_TYPES + ORDERS)
        occurred_at = START + timedelta(
            days=rng.choice(DAYS), minutes=rng.choice((0, 0, 0, 30, 31, rng.randrange(1440)))
        )
        if rng.random() < 0.02:
            occurred_at = occurred_at.replace(year=2099)
        who: dict[str, Any] = {}
        for kind in rng.sample(sorted(IDENTIFIERS), rng.choice((0, 1, 1, 1, 2, 2, 3))):
            who[kind] = rng.choice(IDENTIFIERS[kind])
        if event_type.startswith("identity"):
            who = {"customer_id": rng.sample(IDENTIFIERS["customer_id"], 2), **who}
        event = {
            "event_id": str(uuid.UUID(int=rng.getrandbits(128))),
            "schema_version": 1,
            "channel": channel,
            "event_type": event_type,
            "occurred_at": (occurred_at + timedelta(hours=rng.choice((0,) * 20 + (1,)))).isoformat(),
            "received_at": occurred_at.isoformat(),
            "identifiers": who,
            "properties": {name: value for name in names if (value := PROPERTIES[name](rng)) is not None},
            "source": rng.choice(("s1", "s2", None)),
            "campaign": rng.choice(("one", "two", "internal-test", None, None, None)),
            "consent": rng.choice(({"analytics": False}, *[None] * 15)),
        }
        if event_type == "experiment_viewed":
            event |= {"experiment": "e1", "variant": rng.choice(("control", "treatment"))}
        record = Sent(CHANNEL_TOPICS[channel], json.dumps(event).encode())
        sent += [record] * rng.choice((1, 1, 1, 1, 2))
        if rng.random() < 0.3:  # a twin of somebody else: the same in all but its id, so that ids alone break the tie
            number = uuid.UUID(int=rng.getrandbits(128))
            other_who = {kind: rng.choice(IDENTIFIERS[kind]) for kind in who}
            twin = {**event, "event_id": str(number), "identifiers": other_who}
            if not event_type.startswith("identity"):
                sent.append(Sent(record.topic, json.dumps(twin).encode()))
        if rng.random() < 0.1:  # a copy with another payload, received later: coordinates decide nothing
            later = (occurred_at + timedelta(minutes=rng.randint(1, 9))).isoformat()
            other = {**event, "received_at": later, "identifiers": {"anonymous_id": "k1", "customer_id": "c3"}}
            sent.append(Sent(record.topic, json.dumps(other).encode()))
        if rng.random() < 0.03:
            sent.append(Sent(record.topic, rng.choice((b"", b"{", record.value.replace(b"20", b"x")))))
    return sent


STREAMS: dict[str, Callable[[int], list[Sent]]] = {"scenario": scenario, "nasty": nasty}


# Landing and building -----------------------------------------------------------------------------------------


class Home:
    """A landing zone and the next offset of each of its logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.landing_dir = folder / "landing"
        self.next_offset: dict[tuple[str, int], int] = defaultdict(int)

    def land(
        self, records: Sequence[Sent], *, rng: random.Random | None = None, landed_at: datetime = LANDED_AT
    ) -> None:
        """In order into one partition and file per topic; with `rng` into partitions and files at random."""
        logs: dict[tuple[str, int], list[bytes]] = defaultdict(list)
        for record in records:
            logs[record.topic, rng.randrange(3) if rng else 0].append(record.value)
        for (topic, partition), values in logs.items():
            cuts = sorted(rng.sample(range(len(values)), min(2, len(values)))) if rng else []
            for start, end in zip([0, *cuts], [*cuts, len(values)], strict=True):
                self._write(topic, partition, values[start:end], landed_at)

    def _write(self, topic: str, partition: int, values: list[bytes], landed_at: datetime) -> None:
        if not values:
            return
        first = self.next_offset[topic, partition]
        self.next_offset[topic, partition] = first + len(values)
        rows = [
            {
                **dict.fromkeys(LANDING_SCHEMA.names),
                **{"_cluster": "test", "_topic": topic, "_partition": partition, "_offset": first + index},
                **{"value": value, "landed_at": landed_at},
            }
            for index, value in enumerate(values)
        ]
        path = Segment("test", topic, partition, first, first + len(values) - 1).path(self.landing_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=LANDING_SCHEMA), path)


class Built:
    """A warehouse over a landing zone: nights, and the tables they come to."""

    def __init__(self, home: Home, config: Config) -> None:
        self.home, self.config = home, config
        self.con = duckdb.connect()
        self.con.execute("set timezone = 'UTC'; set preserve_insertion_order = false")
        self.as_of: datetime | None = None

    def night(self, as_of: datetime | None = None, *, batch_records: int = 1_000_000) -> Built:
        """Load what landed, build silver and gold."""
        bronze.load(
            self.con,
            landing_dir=self.home.landing_dir,
            earliest_occurred_at=self.config.earliest_occurred_at,
            clock_skew_tolerance=self.config.clock_skew_tolerance,
            batch_records=batch_records,
        )
        self.as_of = silver.build(self.con, config=self.config, data_as_of=as_of, not_before=self.as_of)
        lineage: dict[str, Any] = {"run_id": str(uuid.uuid4()), "definition_hash": "test", "data_as_of": self.as_of}
        build_models(self.con, MODELS, sql_dir=SQL_DIR, **lineage)
        return self

    def tables(self, *, without: frozenset[str] = frozenset()) -> dict[str, list[str]]:
        return tables(self.con, without=without)


def all_rows(con: duckdb.DuckDBPyConnection, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Every table of silver and gold: its columns but `_run_id` and `without`, and its rows."""
    found = {}
    for name in (*silver.TABLES, *(model.name for model in MODELS), "build_counts"):
        columns = [row[0] for row in con.execute(f"describe {name}").fetchall() if row[0] not in {"_run_id", *without}]
        found[name] = (columns, con.execute(f"select {', '.join(columns)} from {name}").fetchall())
    return found


def tables(con: duckdb.DuckDBPyConnection, *, without: frozenset[str] = frozenset()) -> dict[str, list[str]]:
    """Every table as sorted lines; values are compared as they are, floats to the last bit."""
    return {name: sorted(map(repr, rows)) for name, (_, rows) in all_rows(con, without).items()}


def differences(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, list[str]]:
    """Per table that differs the first rows that only one side has."""
    different = {name: sorted(set(one[name]) ^ set(other[name]))[:4] for name in one if one[name] != other[name]}
    return {name: rows or [f"{len(one[name])} rows, then {len(other[name])}"] for name, rows in different.items()}


@contextmanager
def walked_in_buckets() -> Iterator[None]:
    """The walk over customers as it goes with millions of rows."""
    limit, touchpoints.ROWS_AT_ONCE = touchpoints.ROWS_AT_ONCE, 0
    try:
        yield
    finally:
        touchpoints.ROWS_AT_ONCE = limit


# What must not matter -----------------------------------------------------------------------------------------


class Play:
    """One stream, its plain build, and the ways to build it that must come to the same."""

    def __init__(
        self, source: str, seed: int, new_folder: Callable[[], Path], *, records: list[Sent] | None = None
    ) -> None:
        self.new_folder = new_folder
        self.rng = random.Random(f"{source} {seed}")
        self.config = parse_config(CONFIG, source="journey.yml")
        self.records = records or STREAMS[source](seed)
        self.as_of = START + timedelta(days=self.rng.randrange(50, 80)) if self.rng.random() < 0.5 else None
        self.plain = self.built(self.home(self.records))
        self.moved = self.plain.tables(without=COORDINATES)

    def home(self, records: Sequence[Sent], rng: random.Random | None = None) -> Home:
        home = Home(self.new_folder())
        home.land(records, rng=rng)
        return home

    def built(self, home: Home, **options: Any) -> Built:
        return Built(home, self.config).night(self.as_of, **options)

    def permuted(self) -> dict[str, list[str]]:
        """The records in any order over offsets, partitions and files, loaded in small batches."""
        shuffled = self.rng.sample(self.records, len(self.records))
        built = self.built(self.home(shuffled, self.rng), batch_records=max(1, len(shuffled) // self.rng.randint(1, 9)))
        return differences(self.moved, built.tables(without=COORDINATES))

    def doubled(self) -> dict[str, list[str]]:
        """Some records once or twice more, anywhere: only the counts of records and copies may change."""
        more = self.records + self.rng.choices(self.records, k=len(self.records) // 3)
        built = self.built(self.home(self.rng.sample(more, len(more)), self.rng))
        found = built.tables(without=COORDINATES)
        ours, theirs = (
            {**side, "build_counts": [row for row in side["build_counts"] if not row[2:].startswith(COUNTS_OF_RECORDS)]}
            for side in (self.moved, found)
        )
        return differences(ours, theirs)

    def in_nights(self) -> dict[str, list[str]]:
        """The same landing zone, filled and built night by night: equal to one build over it, coordinates and all."""
        home = Home(self.new_folder())
        nightly = Built(home, self.config)
        cuts = sorted(self.rng.sample(range(1, len(self.records)), 3))
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(self.records)], strict=True)):
            home.land(self.records[start:end], rng=self.rng, landed_at=LANDED_AT + timedelta(days=number))
            nightly.night(self.as_of and self.as_of - timedelta(days=7 * (3 - number)))
        at_once = self.built(home)
        assert at_once.as_of == nightly.as_of
        return differences(at_once.tables(), nightly.tables())

    def in_buckets(self) -> dict[str, list[str]]:
        """The walk bucket by bucket, as with millions of rows."""
        with walked_in_buckets():
            return differences(self.plain.tables(), self.built(self.plain.home).tables())

    def renamed(self) -> dict[str, list[str]]:
        """Other names for the same identifiers: only they and the keys made of them change."""
        names = renaming(self.records, self.rng, shuffle_customers=b"cust-" in b"".join(r.value for r in self.records))
        blocked = {
            kind: [names[kind].get(value, value) for value in values]
            for kind, values in self.config.blocked_identifiers.items()
        }
        config = self.config.model_copy(update={"blocked_identifiers": blocked})
        records = [Sent(record.topic, with_names(record.value, names)) for record in self.records]
        built = Built(self.home(records), config).night(self.as_of)
        return differences(with_people(self.plain.con, names), with_people(built.con, {}))


def renaming(records: Sequence[Sent], rng: random.Random, *, shuffle_customers: bool) -> dict[str, dict[str, str]]:
    """A new name per identifier; in their old order, as the smallest value breaks ties on one event.

    The scenario has no event with two values of a type that could tie: there customers change their order too.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for kind, found in identifiers_of(record.value).items():
            values[kind].update([found] if isinstance(found, str) else found)
    names: dict[str, dict[str, str]] = defaultdict(dict)
    for kind, found in values.items():
        ordered = sorted(found)
        targets = [f"{number:05d}" for number in range(len(ordered))]
        if kind == "customer_id" and shuffle_customers:
            rng.shuffle(targets)
        pattern = "k9:{:0>64}" if kind.endswith("_hmac") else "new {}"
        names[kind] = {old: pattern.format(target) for old, target in zip(ordered, targets, strict=True)}
    return names


def identifiers_of(value: bytes) -> dict[str, Any]:
    try:
        found = json.loads(value)
        who = found["identifiers"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {} if "@" in str(who) else dict(who)


def with_names(value: bytes, names: dict[str, dict[str, str]]) -> bytes:
    who = identifiers_of(value)
    if not who:
        return value
    new = {
        kind: names[kind][found] if isinstance(found, str) else [names[kind][one] for one in found]
        for kind, found in who.items()
    }
    return json.dumps({**json.loads(value), "identifiers": new}).encode()


def with_people(con: duckdb.DuckDBPyConnection, names: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """The tables with identifiers renamed, and each customer called by all its identifiers instead of its key."""
    members: dict[str, list[str]] = defaultdict(list)
    for kind, identifier, key in con.execute(
        "select identifier_type, identifier, customer_key from identity_map where customer_key is not null"
    ).fetchall():
        members[key].append(f"{kind}:{names.get(kind, {}).get(identifier, identifier)}")
    people = {key: " ".join(sorted(owned)) for key, owned in members.items()}
    assert len(set(people.values())) == len(people)
    found = {}
    # member_number counts customers in the order of their keys; no published table has it.
    for name, (columns, rows) in all_rows(con, frozenset({"member_number"})).items():
        lines = [[people.get(cell, cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        if name == "identity_map":
            kind, identifier = columns.index("identifier_type"), columns.index("identifier")
            for line in lines:
                line[identifier] = names.get(line[kind], {}).get(line[identifier], line[identifier])
        found[name] = sorted(map(repr, lines))
    return found


WAYS = ("permuted", "doubled", "in_nights", "in_buckets", "renamed")


@pytest.fixture
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    return lambda: tmp_path_factory.mktemp("home")


def broken_promises(con: duckdb.DuckDBPyConnection) -> list[Any]:
    """Checks of severity fail in the tables' .yml that do not hold."""
    return [
        (model.name, check.name, rows)
        for model in (*load_silver(SQL_DIR), *MODELS)
        for check in model.description.checks
        if check.severity == "fail"
        and (rows := con.execute(f"select * from ({check.bad_rows_sql(model.name)}) limit 3").fetchall())
    ]


def play(source: str, seed: int, new_folder: Callable[[], Path], ways: Sequence[str] = WAYS) -> Play:
    """Every way of landing and building one stream; answers it for what a campaign counts."""
    played = Play(source, seed, new_folder)
    assert broken_promises(played.plain.con) == []
    found = {way: different for way in ways if (different := getattr(played, way)())}
    assert found == {}, (source, seed, found)
    return played


def test_order_copies_and_names_change_no_table(new_folder: Callable[[], Path]) -> None:
    played = play("nasty", 1, new_folder, ("permuted", "doubled", "renamed"))
    assert [name for name, rows in played.moved.items() if not rows] == []  # nothing is equal for being empty


@pytest.mark.slow
@pytest.mark.parametrize(("source", "seed"), [("scenario", 1), ("scenario", 2), ("nasty", 4), ("nasty", 10)])
def test_no_way_of_landing_building_or_naming_changes_a_table(
    source: str, seed: int, new_folder: Callable[[], Path]
) -> None:
    play(source, seed, new_folder)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_many_histories_come_to_the_same_tables(new_folder: Callable[[], Path], figures: Any) -> None:
    count = {"nasty": 50, "scenario": 10}
    records = sum(
        len(play(source, seed, new_folder).records) for source in count for seed in range(100, 100 + count[source])
    )
    figures(histories=sum(count.values()), records=records, builds=sum(count.values()) * 10, differences=0)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_a_stream_that_fills_every_thread_comes_to_the_same_tables(
    new_folder: Callable[[], Path], figures: Any
) -> None:
    # DuckDB gives a thread 122,880 rows: smaller streams never meet another's work in another order.
    played = Play("scenario", 1, new_folder, records=scenario(1, customers=9_000))
    assert len(played.records) > 4 * 122_880
    assert {way: found for way in ("permuted", "in_buckets") if (found := getattr(played, way)())} == {}
    figures(records=len(played.records), differences=0)
