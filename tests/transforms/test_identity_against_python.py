"""Identity on random graphs, next to a plain reading of docs/semantics.md, section 3, in dicts and sets.

The reference shares nothing with `transforms.identity`: no arrays, no SQL, one graph at a time. Graphs are dense on
purpose (few values, many events), so that ambiguity, sharing, links and unlinks happen in most of them. Many go
through one build, told apart by a prefix of their values.
"""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from schemas.config import Config, parse_config
from transforms import identity

TYPES = ("customer_id", "email_hmac", "phone_hmac", "loyalty_id", "device_id", "anonymous_id")
START = datetime(2026, 1, 5, 10)
Identifier = tuple[int, str]
"""(strength, value)"""


@dataclass(frozen=True)
class Event:
    """What identity sees of an event."""

    event_id: uuid.UUID
    occurred_at: datetime
    event_type: str
    identifiers: tuple[Identifier, ...]

    @property
    def is_link(self) -> bool:
        return self.event_type in ("identity_linked", "identity_unlinked")


@dataclass(frozen=True)
class Graph:
    """One random history and the configuration's words about it."""

    events: tuple[Event, ...]
    blocked: frozenset[Identifier]


# The reference ------------------------------------------------------------------------------------------------


def joined_pairs(events: Sequence[Event]) -> set[frozenset[Identifier]]:
    """The pairs whose last statement joins them."""
    statements: dict[frozenset[Identifier], list[tuple[datetime, str, bool]]] = defaultdict(list)
    for event in events:
        for one, other in combinations(sorted(set(event.identifiers)), 2):
            if not event.is_link and one[0] == other[0] == 0:
                continue
            joins = event.event_type != "identity_unlinked"
            statements[frozenset((one, other))].append((event.occurred_at, str(event.event_id), joins))
    return {pair for pair, said in statements.items() if max(said)[2]}


def components(members: set[Identifier], neighbours: dict[Identifier, set[Identifier]]) -> dict[Identifier, Identifier]:
    """Per member the smallest of those it is connected with."""
    smallest: dict[Identifier, Identifier] = {}
    for start in sorted(members):
        waiting = [] if start in smallest else [start]
        while waiting:
            node = waiting.pop()
            if node not in smallest:
                smallest[node] = start
                waiting.extend(neighbours[node] & members)
    return smallest


def customer(kind: Identifier, *, is_known: bool) -> str:
    text = f"{TYPES[kind[0]]}:{kind[1]}"
    return f"c:{kind[1]}" if is_known else "a:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def reference(graph: Graph, max_links: int) -> tuple[dict[Identifier, tuple[str | None, bool, bool]], dict[Any, Any]]:
    """(identifier → customer_key, is_shared, is_ambiguous), (event_id → customer_key)."""
    everything = {one for event in graph.events for one in event.identifiers}
    absent = {one for one in everything & graph.blocked if one[0] == 0}
    neighbours: dict[Identifier, set[Identifier]] = defaultdict(set)
    for pair in joined_pairs(graph.events):
        one, other = pair
        if not pair & absent:
            neighbours[one].add(other)
            neighbours[other].add(one)
    stronger = {one: {other for other in neighbours[one] if other[0] < one[0]} for one in everything}
    shared = {one for one in everything if one[0] > 0 and (one in graph.blocked or len(stronger[one]) > max_links)}
    usable = everything - absent - shared
    owner = components({one for one in usable if one[0] == 0}, neighbours)
    ambiguous: set[Identifier] = set()
    level = set(owner)
    while level:
        reached: dict[Identifier, set[Identifier]] = defaultdict(set)
        for one in level:
            for other in neighbours[one] & usable - set(owner) - ambiguous:
                reached[other].add(owner[one])
        ambiguous |= {one for one, owners in reached.items() if len(owners) > 1}
        level = {one for one, owners in reached.items() if len(owners) == 1}
        owner |= {one: min(reached[one]) for one in level}
    free = components(usable - set(owner) - ambiguous, neighbours)
    keys: dict[Identifier, str | None] = dict.fromkeys(absent | shared)
    keys |= {one: customer(name, is_known=True) for one, name in owner.items()}
    keys |= {one: customer(name, is_known=False) for one, name in free.items()}
    keys |= {one: customer(one, is_known=False) for one in ambiguous}
    belongs = {}
    for event in graph.events:
        for group in (set(owner), set(free), ambiguous):
            if not event.is_link and (chosen := group & set(event.identifiers)):
                belongs[event.event_id] = keys[min(chosen)]
                break
    return {one: (keys[one], one in absent | shared, one in ambiguous) for one in everything}, belongs


# Random histories ---------------------------------------------------------------------------------------------


def random_graph(rng: random.Random, number: int) -> Graph:
    """Up to 24 events over one to four values of each type."""

    def value(strength: int) -> str:
        index = rng.randrange(sizes[strength])
        return f"k1:{number:060x}{index:04x}" if strength in (1, 2) else f"{number:06d}/{index}"

    sizes = [rng.randint(1, 4) for _ in TYPES]
    kinds = [*rng.choices((0,), k=rng.randint(0, 2)), *rng.sample(range(len(TYPES)), rng.randint(2, len(TYPES)))]
    link_share = rng.choice((0.0, 0.2, 0.5))
    events = []
    for _ in range(rng.randint(1, 24)):
        chosen = {(strength, value(strength)) for strength in rng.choices(kinds, k=rng.choice((0, 1, 1, 2, 2, 3, 4)))}
        event_type = "page_viewed"
        if len(chosen) > 1 and rng.random() < link_share:
            event_type = rng.choice(("identity_linked", "identity_linked", "identity_unlinked"))
        moment = START + timedelta(seconds=rng.randrange(6))  # few instants: ties are decided by event_id
        events.append(Event(uuid.UUID(int=rng.getrandbits(128)), moment, event_type, tuple(chosen)))
    everything = sorted({one for event in events for one in event.identifiers})
    blocked = frozenset(one for one in everything if rng.random() < rng.choice((0, 0, 0.1)))
    return Graph(tuple(events), blocked)


def as_json(event: Event, rng: random.Random) -> dict[str, Any]:
    """The identifiers as a sender may spell them: in any order, one value bare or in a list, some twice."""
    identifiers: dict[str, Any] = {}
    for strength, value in rng.sample(event.identifiers, len(event.identifiers)):
        identifiers.setdefault(TYPES[strength], []).append(value)
    return {
        kind: values[0] if len(values) == 1 and rng.random() < 0.7 else values + values[: rng.randint(0, 1)]
        for kind, values in identifiers.items()
    }


def configuration(graphs: Sequence[Graph], max_links: int) -> Config:
    blocked: dict[str, list[str]] = defaultdict(list)
    for graph in graphs:
        for strength, value in sorted(graph.blocked):
            blocked[TYPES[strength]].append(value)
    return parse_config(
        json.dumps({"max_links_per_identifier": max_links, "blocked_identifiers": blocked}), source="journey.yml"
    )


def solved(con: duckdb.DuckDBPyConnection, graphs: Sequence[Graph], max_links: int, rng: random.Random) -> None:
    """Put the events into `kept_events`, in any order, and build."""
    events = [event for graph in graphs for event in graph.events]
    rng.shuffle(events)
    rows = pa.table(
        {
            "event_id": [str(event.event_id) for event in events],
            "occurred_at": [event.occurred_at for event in events],
            "event_type": [event.event_type for event in events],
            "identifiers": [json.dumps(as_json(event, rng)) for event in events],
        }
    )
    assert rows.num_rows  # DuckDB finds it by its name
    con.execute("create or replace temp table kept_events as select * replace (event_id::uuid as event_id) from rows")
    identity.build(con, config=configuration(graphs, max_links))


def mismatches(con: duckdb.DuckDBPyConnection, graphs: Sequence[Graph], max_links: int, belongs_sql: str) -> list[Any]:
    """The graphs on which the tables and the reference differ, with both readings."""
    found_nodes = {
        (TYPES.index(kind), value): (key, is_shared, is_ambiguous)
        for kind, value, key, is_shared, is_ambiguous in con.execute(
            "select identifier_type, identifier, customer_key, is_shared, is_ambiguous from identity_map"
        ).fetchall()
    }
    found_events = dict(con.execute(belongs_sql).fetchall())
    different = []
    expected_count = 0
    for graph in graphs:
        nodes, belongs = reference(graph, max_links)
        expected_count += len(nodes)
        here = {one: found_nodes.get(one) for one in nodes}
        events = {event.event_id: found_events.get(event.event_id) for event in graph.events if not event.is_link}
        if here != nodes or events != {event_id: belongs.get(event_id) for event_id in events}:
            different.append((graph, here, nodes, events, belongs))
    assert len(found_nodes) == expected_count
    return different


BELONGS = "select event_id, customer_key from kept_events join event_bundles using (identifiers)"


def play(con: duckdb.DuckDBPyConnection, *, rounds: range, graphs_each: int) -> Counter[str]:
    """Solve and compare; answers what the graphs held, so that a test can tell that every state was met."""
    seen: Counter[str] = Counter()
    for seed in rounds:
        rng = random.Random(seed)
        max_links = rng.choice((1, 2, 3, 50))
        graphs = [random_graph(rng, number) for number in range(graphs_each)]
        solved(con, graphs, max_links, rng)
        different = mismatches(con, graphs, max_links, BELONGS)
        assert not different, (seed, max_links, different[0])
        seen["graphs"] += len(graphs)
        for name, condition in {
            "known": "starts_with(customer_key, 'c:')",
            "anonymous": "starts_with(customer_key, 'a:') and not is_ambiguous",
            "ambiguous": "is_ambiguous",
            "shared": "is_shared",
            "merged": "identifier_type = 'customer_id' and customer_key <> 'c:' || identifier",
        }.items():
            row = con.execute(f"select count(*) from identity_map where {condition}").fetchone()
            seen[name] += row[0] if row else 0
    return seen


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'; set preserve_insertion_order = false")
    return con


def test_random_graphs_resolve_as_the_text_says(con: duckdb.DuckDBPyConnection) -> None:
    seen = play(con, rounds=range(6), graphs_each=250)
    # Every state was met often, so that agreement means something.
    assert min(seen[state] for state in ("known", "anonymous", "ambiguous", "shared", "merged")) > 100, seen


def test_random_graphs_resolve_the_same_through_the_pipeline(new_pipeline: Callable[[], Any]) -> None:
    rng = random.Random(99)
    graphs = [random_graph(rng, number) for number in range(250)]
    events = [(event, index) for graph in graphs for index, event in enumerate(graph.events)]
    rng.shuffle(events)
    pipeline = new_pipeline()
    pipeline.land(
        [
            {
                "event_id": str(event.event_id),
                "schema_version": 1,
                "channel": rng.choice(("web", "support")) if event.is_link else "web",
                "event_type": event.event_type,
                "occurred_at": event.occurred_at.replace(tzinfo=UTC).isoformat(),
                "received_at": event.occurred_at.replace(tzinfo=UTC).isoformat(),
                "identifiers": as_json(event, rng),
            }
            for event, _ in events
        ]
    )
    pipeline.build(as_of=START.replace(tzinfo=UTC) + timedelta(hours=1), config=configuration(graphs, 2))
    assert pipeline.rows("from quarantine") == []
    different = mismatches(pipeline.con, graphs, 2, "select event_id, customer_key from touchpoints")
    assert not different, different[0]


@pytest.mark.campaign
def test_many_random_graphs_resolve_as_the_text_says(con: duckdb.DuckDBPyConnection, figures: Any) -> None:
    seen = play(con, rounds=range(1000, 1200), graphs_each=500)
    figures(**seen, mismatches=0)
