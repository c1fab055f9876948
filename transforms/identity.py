"""Identity: which identifiers are one customer. From `kept_events` to `identity_map` and `event_bundles`.

Source of the definition: docs/semantics.md, section 3. The result is a pure function of the kept events: the
order in which they arrive, and how nights cut them, change nothing.

Events are many, sets of identifiers few: each distinct set is one *bundle*, and everything after works on
bundles. The graph itself (edges, owners, ambiguity, components) is solved in memory on integer node numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from schemas.config import Config
from schemas.identifiers import IDENTIFIER_TYPES

NodeNumbers = NDArray[np.int64]

FREE, AMBIGUOUS, SHARED, ABSENT = -1, -2, -3, -4
"""Marks in `Graph.owners` for nodes without an owner."""


def build(con: duckdb.DuckDBPyConnection, *, config: Config) -> None:
    """Make `identity_map` (grain: identifier) and the temporary `event_bundles`.

    `event_bundles`, grain one distinct `identifiers` text: identifiers, customer_key (NULL where only shared or
    blocked identifiers are there), resolved_strength (0 = by customer_id … 5 = by cookie; NULL with the key).
    """
    _find_nodes(con)
    _find_edges(con, config)
    graph = _solve(con, config)
    _write_nodes(con, graph)
    _write_bundles(con)
    _write_identity_map(con)


def _find_nodes(con: duckdb.DuckDBPyConnection) -> None:
    """`bundles` (one distinct identifiers text), `nodes` (one identifier, numbered by strength and value)."""
    con.execute("""
        create or replace temp table bundles as
        select
            identifiers,
            row_number() over (order by identifiers) as bundle_number,
            min({'moment': occurred_at, 'event': event_id}) as first_seen,
            max({'moment': occurred_at, 'event': event_id}) as last_seen
        from kept_events
        where event_type not in ('identity_linked', 'identity_unlinked')
        group by identifiers""")
    con.execute("""
        create or replace temp table link_events as
        select
            event_id, occurred_at, event_type = 'identity_linked' as is_link, identifiers,
            -row_number() over (order by event_id) as bundle_number
        from kept_events
        where event_type in ('identity_linked', 'identity_unlinked')""")
    parts = " union all by name ".join(
        f"select bundle_number, {strength} as strength, json_extract(identifiers, '$.{kind}') as leaf from texts"
        for strength, kind in enumerate(IDENTIFIER_TYPES)
    )
    con.execute(f"""
        create or replace temp table memberships as
        with texts as (
            select bundle_number, identifiers from bundles
            union all select bundle_number, identifiers from link_events
        ),
        leaves as ({parts})
        select distinct
            bundle_number, strength,
            unnest(case
                when json_type(leaf) = 'ARRAY' then from_json(leaf, '["VARCHAR"]')
                else [json_extract_string(leaf, '$')]
            end) as identifier
        from leaves where leaf is not null and json_type(leaf) <> 'NULL'""")
    con.execute("""
        create or replace temp table nodes as
        select row_number() over (order by strength, identifier) - 1 as node, strength, identifier
        from (select distinct strength, identifier from memberships)""")
    con.execute("""
        create or replace temp table bundle_nodes as
        select bundle_number, node, strength from memberships join nodes using (strength, identifier)""")


def _find_edges(con: duckdb.DuckDBPyConnection, config: Config) -> None:
    """`edges`: unordered pairs (a < b) whose last statement joins them.

    On one event every pair is a statement that joins, except two customer_ids, which only link events join or
    part. The last statement by (occurred_at, event_id) decides, so an unlinked soft edge comes back with a later
    co-occurrence.
    """
    con.execute("""
        create or replace temp table edges as
        with pairs as (
            select one.bundle_number, one.node as a, other.node as b, other.strength as weaker_strength
            from bundle_nodes as one
            join bundle_nodes as other on one.bundle_number = other.bundle_number and one.node < other.node
        ),
        statements as (
            select a, b, true as is_join, last_seen as stated
            from pairs join bundles using (bundle_number)
            where weaker_strength > 0
            union all
            select a, b, is_link, {'moment': occurred_at, 'event': event_id}
            from pairs join link_events using (bundle_number)
        )
        select a, b from statements group by a, b having arg_max(is_join, stated)""")


@dataclass(frozen=True)
class Graph:
    """The solved graph. `owners`: per node the component number, or a negative mark."""

    owners: NodeNumbers
    is_owned: NDArray[np.bool_]


def _solve(con: duckdb.DuckDBPyConnection, config: Config) -> Graph:
    strengths = con.execute("select strength from nodes order by node").fetchnumpy()["strength"]
    edges = con.execute("select a, b from edges").fetchnumpy()
    blocked = [
        (IDENTIFIER_TYPES.index(kind), value) for kind, values in config.blocked_identifiers.items() for value in values
    ]
    is_blocked = np.zeros(len(strengths), dtype=bool)
    for strength, value in blocked:
        found = con.execute("select node from nodes where strength = ? and identifier = ?", [strength, value])
        for (node,) in found.fetchall():
            is_blocked[node] = True
    return solve(
        strengths=np.asarray(strengths, dtype=np.int64),
        edges=np.column_stack([edges["a"], edges["b"]]).astype(np.int64).reshape(-1, 2),
        is_blocked=is_blocked,
        max_links=config.max_links_per_identifier,
    )


def solve(*, strengths: NodeNumbers, edges: NodeNumbers, is_blocked: NDArray[np.bool_], max_links: int) -> Graph:
    """Owners of every node, from the strength of each node and the joined pairs (n × 2, any order).

    A component's number is that of its smallest node; nodes are numbered by (strength, value), so this is the
    identifier that names the customer.
    """
    count = len(strengths)
    owners = np.full(count, FREE, dtype=np.int64)
    owners[is_blocked & (strengths == 0)] = ABSENT
    owners[is_blocked & (strengths > 0)] = SHARED
    edges = edges[(owners[edges] != ABSENT).all(axis=1)]
    if len(edges):
        weaker = np.where(strengths[edges[:, 0]] > strengths[edges[:, 1]], edges[:, 0], edges[:, 1])
        unequal = strengths[edges[:, 0]] != strengths[edges[:, 1]]
        links = np.bincount(weaker[unequal], minlength=count)
        owners[(links > max_links) & (strengths > 0) & (owners == FREE)] = SHARED
    conducting = edges[(owners[edges] == FREE).all(axis=1)]
    hard = (strengths == 0) & (owners == FREE)
    _join(owners, conducting[hard[conducting].all(axis=1)], hard)
    is_owned = hard.copy()
    _spread(owners, is_owned, conducting)
    free = owners == FREE
    _join(owners, conducting[free[conducting].all(axis=1)], free)
    return Graph(owners, is_owned)


def _join(owners: NodeNumbers, edges: NodeNumbers, members: NDArray[np.bool_]) -> None:
    """Give every member the smallest node of its connected component."""
    nodes = np.flatnonzero(members)
    if not len(nodes):
        return
    position = np.full(len(owners), -1, dtype=np.int64)
    position[nodes] = np.arange(len(nodes))
    ends = position[edges]
    adjacency = coo_matrix((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(len(nodes),) * 2)
    _, labels = connected_components(adjacency, directed=False)
    smallest = np.full(labels.max() + 1, len(owners), dtype=np.int64)
    np.minimum.at(smallest, labels, nodes)
    owners[nodes] = smallest[labels]


def _spread(owners: NodeNumbers, is_owned: NDArray[np.bool_], edges: NodeNumbers) -> None:
    """Spread owners level by level; a node that two owners reach at one level is ambiguous and conducts nothing."""
    both = np.concatenate([edges, edges[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], np.arange(len(owners) + 1))
    frontier = np.flatnonzero(is_owned)
    while len(frontier):
        lengths = starts[frontier + 1] - starts[frontier]
        offsets = np.repeat(starts[frontier] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        reached = both[offsets + np.arange(lengths.sum()), 1]
        by_owner = np.repeat(owners[frontier], lengths)
        new = owners[reached] == FREE
        reached, by_owner = reached[new], by_owner[new]
        pairs = np.unique(np.column_stack([reached, by_owner]), axis=0)
        nodes, first, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
        owners[nodes] = np.where(counts == 1, pairs[first, 1], AMBIGUOUS)
        frontier = nodes[counts == 1]
        is_owned[frontier] = True


def _write_nodes(con: duckdb.DuckDBPyConnection, graph: Graph) -> None:
    """`resolved_nodes`: per identifier its customer_key (its own where it stands alone) and its state.

    A key is `c:<customer_id>` where one is known, else `a:` and 16 hex digits of SHA-256 over "type:value".
    """
    count = len(graph.owners)
    representative = np.where(graph.owners >= 0, graph.owners, np.arange(count))
    solved = pa.table(
        {
            "node": pa.array(np.arange(count)),
            "representative": pa.array(representative),
            "is_owned": pa.array(graph.is_owned),
            "is_ambiguous": pa.array(graph.owners == AMBIGUOUS),
            "is_shared": pa.array(graph.owners == SHARED),
            "is_absent": pa.array(graph.owners == ABSENT),
        }
    )
    con.register("solved_nodes", solved)
    kinds = "[" + ", ".join(f"'{kind}'" for kind in IDENTIFIER_TYPES) + "]"
    con.execute(f"""
        create or replace temp table resolved_nodes as
        select
            nodes.node, nodes.strength, {kinds}[nodes.strength + 1] as identifier_type, nodes.identifier,
            is_owned, is_ambiguous, is_shared, is_absent,
            case
                when is_shared or is_absent then null
                when is_owned then 'c:' || named.identifier
                else 'a:' || sha256({kinds}[named.strength + 1] || ':' || named.identifier)[:16]
            end as customer_key
        from solved_nodes
        join nodes on nodes.node = solved_nodes.node
        join nodes as named on named.node = solved_nodes.representative""")
    con.unregister("solved_nodes")


def _write_bundles(con: duckdb.DuckDBPyConnection) -> None:
    # Owned first, then free, then ambiguous; within each the strongest, then the smallest value (the node's number).
    con.execute("""
        create or replace temp table event_bundles as
        with chosen as (
            select
                bundle_number,
                arg_min(
                    {'customer_key': customer_key, 'strength': resolved.strength},
                    {'state': case when is_owned then 0 when is_ambiguous then 2 else 1 end, 'node': resolved.node}
                ) as choice
            from bundle_nodes
            join resolved_nodes as resolved using (node)
            where not is_shared and not is_absent
            group by bundle_number
        )
        select identifiers, choice.customer_key as customer_key, choice.strength as resolved_strength
        from bundles left join chosen using (bundle_number)""")


def _write_identity_map(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("""
        create or replace table identity_map as
        with seen as (
            select node, first_seen, last_seen from bundle_nodes join bundles using (bundle_number)
            union all
            select node, {'moment': occurred_at, 'event': event_id}, {'moment': occurred_at, 'event': event_id}
            from bundle_nodes join link_events using (bundle_number)
        ),
        spans as (select node, min(first_seen) as first_seen, max(last_seen) as last_seen from seen group by node)
        select
            identifier_type, identifier, customer_key, is_shared or is_absent as is_shared, is_ambiguous,
            first_seen.event as first_event_id, first_seen.moment as first_seen_at, last_seen.moment as last_seen_at
        from resolved_nodes join spans using (node)
        order by strength, identifier""")
