"""Who is who: literal sets of identifiers in, customers out.

A case is a story, one event a minute, written as words: `c1 k1` is an event carrying customer_id c1 and cookie k1;
`link c1 c2` and `unlink c1 c2` are link events. Letters: c customer_id, e email_hmac, p phone_hmac, l loyalty_id,
d device_id, k anonymous_id (cookie). Expected: `c1` the known customer c1, `~k1` the anonymous customer named by k1,
`none` no customer.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pytest

from schemas.config import Config, parse_config
from transforms import identity

TYPES = {
    "c": "customer_id",
    "e": "email_hmac",
    "p": "phone_hmac",
    "l": "loyalty_id",
    "d": "device_id",
    "k": "anonymous_id",
}
START = datetime(2026, 1, 5, 10, tzinfo=UTC)


@cache
def configured(text: str) -> Config:
    return parse_config(text, source="journey.yml")


def value(word: str) -> str:
    """`e1` and `p1` as pseudonyms, all else as it stands; pseudonyms sort like their words."""
    return f"k1:{int(word[1:]):064x}" if word[0] in "ep" else word


def anonymous(word: str) -> str:
    text = f"{TYPES[word[0]]}:{value(word)}"
    return "a:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def named(key: str | None, words: set[str]) -> str:
    """A customer_key in the words of the story."""
    if key is None:
        return "none"
    return key[2:] if key.startswith("c:") else next((f"~{word}" for word in words if anonymous(word) == key), key)


class Story:
    """Kept events in, `identity_map` and the events' customers out."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con

    def tell(self, *events: str, config: str = "{}") -> Story:
        self.con.execute(
            "create or replace temp table kept_events "
            "(event_id uuid, occurred_at timestamp, event_type varchar, identifiers varchar)"
        )
        self.words = {word for event in events for word in event.split() if "link" not in word}
        self.value_words = {(TYPES[word[0]], value(word)): word for word in self.words}
        for number, event in enumerate(events):
            kind, *words = event.split() if "link" in event else ["page_viewed", *event.split()]
            kind = {"link": "identity_linked", "unlink": "identity_unlinked"}.get(kind, kind)
            identifiers: dict[str, Any] = {}
            for word in words:
                identifiers.setdefault(TYPES[word[0]], []).append(value(word))
            identifiers = {key: values if len(values) > 1 else values[0] for key, values in identifiers.items()}
            moment = (START + timedelta(minutes=number)).replace(tzinfo=None)
            row = [uuid.UUID(int=number), moment, kind, json.dumps(identifiers)]
            self.con.execute("insert into kept_events values (?, ?, ?, ?)", row)
        identity.build(self.con, config=configured(config))
        return self

    @property
    def customers(self) -> str:
        """Per event that becomes a touchpoint its customer, in the order told."""
        rows = self.con.execute(
            "select customer_key from kept_events join event_bundles using (identifiers) "
            "where event_type = 'page_viewed' order by event_id"
        ).fetchall()
        return " ".join(named(key, self.words) for (key,) in rows)

    @property
    def owners(self) -> dict[str, str]:
        """Per identifier its customer; `(shared)` and `(ambiguous)` where it is."""
        rows = self.con.execute(
            "select identifier_type, identifier, customer_key, is_shared, is_ambiguous from identity_map"
        ).fetchall()
        marks = {(False, False): "", (True, False): " (shared)", (False, True): " (ambiguous)"}
        return {
            self.value_words[kind, text]: named(key, self.words) + marks[is_shared, is_ambiguous]
            for kind, text, key, is_shared, is_ambiguous in rows
        }

    def resolved(self, *words: str) -> str:
        return " ".join(self.owners[word] for word in words)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; set preserve_insertion_order = false")
        yield Story(con)


@pytest.mark.parametrize(
    ("events", "customers"),
    [
        pytest.param("k1 | k1 | k2", "~k1 ~k1 ~k2", id="cookies_alone_are_anonymous"),
        pytest.param("k1 | c1 k1 | k1 | k2 | c1 k2 | k2", "c1 c1 c1 c1 c1 c1", id="login_stitches_two_devices_back"),
        pytest.param("k1 | k1 d1 | d1 e1", "~e1 ~e1 ~e1", id="anonymous_component_is_named_by_its_strongest"),
        pytest.param("k3 k1 | k2 k3", "~k1 ~k1", id="then_by_its_smallest_value"),
        pytest.param("c1 e1 | e1 l1 | l1 k1 | k1", "c1 c1 c1 c1", id="login_email_loyalty_cookie_is_one_chain"),
        pytest.param("k1 d1 | d1 p1 | p1 e1 | e1 c1", "c1 c1 c1 c1", id="the_chain_may_be_told_backwards"),
        pytest.param("c1 e1 | c1 p1 | c1 l1 | c1 d1 | c1 k1 | k1 l1", "c1 c1 c1 c1 c1 c1", id="every_type_is_an_edge"),
        pytest.param("c1 d1 | c2 d1 | d1", "c1 c2 ~d1", id="family_tablet_stands_alone"),
        pytest.param("c1 d1 | c2 d1 | d1 k1 | k1 | d1", "c1 c2 ~k1 ~k1 ~d1", id="and_conducts_nothing"),
        pytest.param("c1 d1 | c2 d1 | c3 k1 | k1 d1", "c1 c2 c3 c3", id="but_an_event_has_other_identifiers"),
        pytest.param("c1 d1 | c2 d1 | c1 d2 | c2 d2 | d2 d1", "c1 c2 c1 c2 ~d1", id="two_ambiguous_on_one_event"),
        pytest.param("c1 d1 | c2 d1 | c1 l1 | c2 l1 | d1 l1", "c1 c2 c1 c2 ~l1", id="the_strongest_ambiguous_names_it"),
        pytest.param("c1 e1 | e1 k1 | c2 k1 | k1", "c1 c1 c2 c2", id="the_nearer_owner_wins"),
        pytest.param("c1 e1 | e1 k1 | c2 e2 | e2 k1 | k1", "c1 c1 c2 c2 ~k1", id="at_equal_distance_ambiguous"),
        pytest.param(
            "c1 e1 | e1 d1 | c2 e2 | e2 d1 | d1 k1 | c3 e3 | e3 p3 | p3 l3 | l3 k1 | k1",
            "c1 c1 c2 c2 c3 c3 c3 c3 c3 c3",
            id="an_ambiguous_node_does_not_block_the_way_round",
        ),
        pytest.param("k1 e1 | c1 k1 | e1 k2 | c2 k2 | e1", "c1 c1 c2 c2 ~e1", id="a_strong_one_can_be_ambiguous_too"),
        pytest.param("c1 k1 | c2 k2 | k1 k2", "c1 c2 c1", id="a_soft_edge_never_joins_two_known"),
        pytest.param("c1 e1 | c2 e1 | c1 k1 | c2 k1", "c1 c2 c1 c2", id="nor_do_many_soft_identifiers"),
        pytest.param("c2 c1 | c1 | c2", "c1 c1 c2", id="two_customer_ids_on_one_event_do_not_merge"),
        pytest.param("c2 c1 k1 | k1", "c1 ~k1", id="and_make_its_cookie_ambiguous"),
        pytest.param("c1 | c2 k1 | link c1 c2 | k1", "c1 c1 c1", id="a_link_joins"),
        pytest.param("c2 | link c3 c2 | c3 | link c1 c3 | c1", "c1 c1 c1", id="links_are_transitive"),
        pytest.param("c1 k1 | c2 k1 | k1 | link c1 c2", "c1 c1 c1", id="linked_owners_share_a_tablet_clearly"),
        pytest.param("c1 | link c1 c2 | c2 | unlink c2 c1", "c1 c2", id="an_unlink_parts"),
        pytest.param("c1 | link c1 c2 | unlink c1 c2 | link c2 c1 | c2", "c1 c1", id="a_relink_joins_again"),
        pytest.param("unlink c1 c2 | link c1 c2 | c2", "c1", id="the_last_statement_decides"),
        pytest.param("link c1 c2 c3 | c3 | unlink c1 c3 | c1", "c1 c1", id="a_link_speaks_for_every_pair"),
        pytest.param("link c1 c2 c3 | unlink c1 c3 | unlink c2 c3 | c3 | c2", "c3 c1", id="an_unlink_for_its_own_pair"),
        pytest.param("link c1 c2 | link c2 c3 | unlink c1 c3 | c3", "c1", id="parting_a_pair_leaves_the_way_round"),
        pytest.param("link c1 k1 | k1", "c1", id="a_link_makes_soft_edges"),
        pytest.param("link k1 k2 | k2 | k1", "~k1 ~k1", id="also_between_soft_ones"),
        pytest.param("c1 k1 | k1 | unlink c1 k1", "c1 ~k1", id="an_unlinked_soft_edge_is_gone"),
        pytest.param("c1 k1 | unlink c1 k1 | k1 | c1 k1", "c1 c1 c1", id="and_proven_again_by_a_later_event"),
        pytest.param("unlink c1 k1 | c1 k1 | k1", "c1 c1", id="an_unlink_before_the_proof_parts_nothing"),
        pytest.param(
            "c1 k1 | k1 d1 | k1 | d1 | unlink c1 k1 d1", "c1 ~d1 ~k1 ~d1", id="an_unlink_speaks_for_every_pair"
        ),
        pytest.param("c1 c2 k1 | unlink c1 c2 k1 | k1 | link c1 c2", "c1 ~k1", id="pairs_are_judged_one_by_one"),
        pytest.param("e1 e2 | c1 e2 | e1", "c1 c1 c1", id="two_keys_while_one_rotates_make_an_edge"),
        pytest.param("k1 k2 k3 | c1 k3 | k1", "c1 c1 c1", id="a_list_is_every_pair"),
        pytest.param("k2 e2 e1", "~e1", id="a_list_names_by_its_smallest"),
        pytest.param("c10 k1 | link c10 c9 | k1", "c10 c10", id="smallest_means_as_text"),
    ],
)
def test_events_belong_to(story: Story, events: str, customers: str) -> None:
    assert story.tell(*events.split(" | ")).customers == customers


def test_identity_map_says_what_each_identifier_is(story: Story) -> None:
    events = "c1 d1 | c2 d1 | c1 e1 | e1 k1 | k2 l2 | d9 k3 | c3 | link c3 c1"
    assert story.tell(*events.split(" | "), config="blocked_identifiers: {device_id: [d9]}").owners == {
        "c1": "c1",
        "c2": "c2",
        "c3": "c1",
        "d1": "~d1 (ambiguous)",
        "e1": "c1",
        "k1": "c1",
        "k2": "~l2",
        "l2": "~l2",
        "d9": "none (shared)",
        "k3": "~k3",
    }


def test_identity_map_says_when_an_identifier_was_seen(story: Story) -> None:
    story.tell("c1 k1", "k1", "k2", "link c1 k2", "k1 k1")
    rows = story.con.execute(
        "select identifier, first_event_id, first_seen_at, last_seen_at from identity_map order by identifier"
    ).fetchall()

    def minute(number: int) -> datetime:
        return datetime(2026, 1, 5, 10, number)

    assert rows == [
        ("c1", uuid.UUID(int=0), minute(0), minute(3)),
        ("k1", uuid.UUID(int=0), minute(0), minute(4)),
        ("k2", uuid.UUID(int=2), minute(2), minute(3)),
    ]


@pytest.mark.parametrize(
    ("link", "unlink", "customer"),
    [
        pytest.param("1", "2", "c2", id="same_instant_greater_event_id_unlinks"),
        pytest.param("2", "1", "c1", id="same_instant_greater_event_id_links"),
        pytest.param("0a", "10", "c2", id="ids_compare_as_numbers_not_by_arrival"),
        pytest.param("f0000000-0000-0000-0000-000000000000", "1", "c1", id="the_first_bit_is_no_sign"),
    ],
)
def test_statements_of_one_instant_are_in_the_order_of_their_event_ids(
    story: Story, link: str, unlink: str, customer: str
) -> None:
    story.tell("c2", "link c1 c2", "unlink c1 c2")
    for kind, text in (("identity_linked", link), ("identity_unlinked", unlink)):
        number = uuid.UUID(f"{text:0>32}" if "-" not in text else text)
        story.con.execute(
            "update kept_events set event_id = ?, occurred_at = timestamp '2026-01-05 12:00' where event_type = ?",
            [number, kind],
        )
    identity.build(story.con, config=configured("{}"))
    assert story.customers == customer


@pytest.mark.parametrize(
    ("neighbours", "cookie"),
    [(50, "~k1 (ambiguous)"), (51, "none (shared)")],
    ids=["exactly_max_links_is_not_shared", "one_more_is"],
)
def test_a_kiosk_is_shared_above_max_links(story: Story, neighbours: int, cookie: str) -> None:
    # Seen together often, with weaker and equal neighbours too: only distinct stronger ones count.
    logins = [f"c{number} k1" for number in range(100, 100 + neighbours)] * 2
    story.tell(*logins, "k1 k2", "k2 k3", "k1")
    assert story.owners["k1"] == cookie
    assert story.resolved("k2", "k3") == "~k2 ~k2"
    assert story.customers.split()[-3:] == ["~k2", "~k2", cookie.split(maxsplit=1)[0]]


SMALL = "max_links_per_identifier: 2"


@pytest.mark.parametrize(
    ("events", "config", "word", "expected"),
    [
        pytest.param("l1 k1 | l2 k1", SMALL, "k1", "~l1", id="at_the_limit"),
        pytest.param("l1 k1 | l2 k1 | l3 k1", SMALL, "k1", "none (shared)", id="soft_neighbours_count"),
        pytest.param("c1 k1 | e1 k1 | d1 k1", SMALL, "k1", "none (shared)", id="all_stronger_types_count_together"),
        pytest.param("k1 k2 k3 k4 k5", SMALL, "k5", "~k1", id="equal_types_do_not"),
        pytest.param("l1 k1 k2 k3", SMALL, "l1", "~l1", id="weaker_types_do_not"),
        pytest.param("e1 c1 c2 c3 | e1", SMALL, "e1", "none (shared)", id="customer_ids_of_one_event_do"),
        pytest.param("c1 e1 | c1 e2 | c1 e3", SMALL, "c1", "c1", id="a_customer_id_is_never_shared_by_count"),
        pytest.param("link c1 c2 c3 c4 | c4", SMALL, "c4", "c1", id="nor_by_links"),
        pytest.param("l1 k1 | l2 k1 | l3 k1 | unlink l3 k1", SMALL, "k1", "~l1", id="unlinked_ones_do_not"),
        pytest.param("l1 k1 | l2 k1 | link l3 k1", SMALL, "k1", "none (shared)", id="linked_ones_do"),
        pytest.param("e1 d1 | e1 k1 | l2 k1 | p1 k1", SMALL, "k1", "none (shared)", id="on_the_whole_graph"),
        pytest.param(
            "l1 k1 | l2 k1 | l3 k1",
            SMALL + "\nblocked_identifiers: {loyalty_id: [l3]}",
            "k1",
            "none (shared)",
            id="a_blocked_soft_neighbour_still_counts",
        ),
        pytest.param(
            "c1 k1 | l2 k1 | c3 k1",
            SMALL + "\nblocked_identifiers: {customer_id: [c3]}",
            "k1",
            "c1",
            id="an_absent_customer_id_does_not",
        ),
        pytest.param(
            "l1 d1 | l2 d1 | l3 d1 | d1 k1 | l1 k1 | l2 k1", SMALL, "k1", "none (shared)", id="a_shared_one_counts"
        ),
    ],
)
def test_shared_by_count(story: Story, events: str, config: str, word: str, expected: str) -> None:
    assert story.tell(*events.split(" | "), config=config).owners[word] == expected


def test_shared_identifiers_conduct_nothing_and_give_no_customer(story: Story) -> None:
    told = story.tell(
        *("c1 k0", "k0", "k0 d1", "d1 e1", "k0 e2", "c2 k0"), config="blocked_identifiers: {anonymous_id: [k0]}"
    )
    assert told.customers == "c1 none ~e1 ~e1 ~e2 c2"
    assert told.owners["k0"] == "none (shared)"


def test_a_blocked_customer_id_counts_as_absent(story: Story) -> None:
    told = story.tell(
        *("c0 k1", "k1", "c0", "c0 k2", "link c1 c0", "link c0 c2", "c1", "c2", "c0 c1"),
        config="blocked_identifiers: {customer_id: [c0]}",
    )
    assert told.customers == "~k1 ~k1 none ~k2 c1 c2 c1"
    assert told.owners["c0"] == "none (shared)"


@pytest.mark.parametrize("kind", sorted(TYPES.values()))
def test_blocking_a_value_blocks_it_in_its_own_type_only(story: Story, kind: str) -> None:
    blocked = f"blocked_identifiers: {{{kind}: [x1]}}"
    story.con.execute("create or replace temp table kept_events as select * from kept_events limit 0")
    for number, other in enumerate(TYPES.values()):
        row = [uuid.UUID(int=number), datetime(2026, 1, 1), "page_viewed", json.dumps({other: "x1"})]
        story.con.execute("insert into kept_events values (?, ?, ?, ?)", row)
    identity.build(story.con, config=configured(blocked))
    shared = "select identifier_type from identity_map where is_shared and customer_key is null"
    assert story.con.execute(shared).fetchall() == [(kind,)]


def test_events_without_identifiers_have_no_customer(run: Any) -> None:
    from_nobody = {"identifiers": {}, "schema_version": 1, "channel": "web", "event_type": "page_viewed"}
    stamps = {"occurred_at": "2026-01-05T10:00:00Z", "received_at": "2026-01-05T10:00:00Z"}
    empty = [{}, {"anonymous_id": []}, {"anonymous_id": None}]
    records = [
        {**from_nobody, **stamps, "event_id": str(uuid.UUID(int=number)), "identifiers": identifiers}
        for number, identifiers in enumerate(empty)
    ]
    built = run(*records)
    assert built.rows("select customer_key, session_id, journey_id from touchpoints") == [(None, None, None)] * 3
    assert built.rows("from identity_map") == built.rows("from customers") == built.rows("from journeys") == []
    unattributed = "select numerator, denominator from build_counts where check_name = 'unattributed_ratio'"
    assert built.rows(unattributed) == [(3, 3)]


ODD_VALUES = (
    "it's; drop table nodes --",
    'say "hello"',
    'a":b',
    "back\\slash",
    "a:b:c",
    "c:1",
    "[1, 2]",
    '["x"]',
    '{"customer_id": "x"}',
    "null",
    " leading and trailing ",
    "tab\tnew\nline",
    "é composed",
    "e\u0301 decomposed",
    "日本語",
    "😀",
    "\u200b",
    "%_$1",
    "0",
    "00",
    "x" * 512,
    "😀" * 512,
)


@pytest.mark.parametrize("is_list", [False, True], ids=["one_value", "in_a_list"])
@pytest.mark.parametrize("is_escaped", [False, True], ids=["as_utf8", "as_escapes"])
def test_odd_values_are_told_apart_and_kept_as_they_are(pipeline: Any, is_list: bool, is_escaped: bool) -> None:
    records = []
    for number, text in enumerate(ODD_VALUES):
        for step, kinds in enumerate((("anonymous_id",), ("customer_id", "loyalty_id"))):
            identifiers = {kind: [text, text] if is_list else text for kind in kinds}
            record = {
                "event_id": str(uuid.UUID(int=2 * number + step)),
                "schema_version": 1,
                "channel": "web",
                "event_type": "page_viewed",
                "occurred_at": "2026-01-05T10:00:00Z",
                "received_at": "2026-01-05T10:00:00Z",
                "identifiers": identifiers,
            }
            records.append(json.dumps(record, ensure_ascii=is_escaped).encode())
    pipeline.land(records)
    pipeline.build()
    assert pipeline.rows("select count(*) from quarantine") == [(0,)]
    expected = sorted(
        [(kind, text, f"c:{text}") for text in ODD_VALUES for kind in ("customer_id", "loyalty_id")]
        + [
            ("anonymous_id", text, "a:" + hashlib.sha256(f"anonymous_id:{text}".encode()).hexdigest()[:16])
            for text in ODD_VALUES
        ]
    )
    assert sorted(pipeline.rows("select identifier_type, identifier, customer_key from identity_map")) == expected
    keys = {event_id.int: key for event_id, key in pipeline.rows("select event_id, customer_key from touchpoints")}
    for number, text in enumerate(ODD_VALUES):
        assert keys[2 * number + 1] == f"c:{text}"
        assert keys[2 * number] == "a:" + hashlib.sha256(f"anonymous_id:{text}".encode()).hexdigest()[:16]


def test_a_key_is_the_customer_id_or_a_hash_of_the_identifier(story: Story) -> None:
    story.tell("k1", "c1")
    assert story.customers == "~k1 c1"
    # Worked out apart from the code: printf 'anonymous_id:k1' | sha256sum
    assert anonymous("k1") == "a:834b6cd06a4c54aa"


def test_stitching_reaches_back_and_an_unlink_splits_again(pipeline: Any) -> None:
    def tell(number: int, kind: str, identifiers: dict[str, Any]) -> dict[str, Any]:
        stamp = (START + timedelta(days=number)).isoformat()
        return {
            "event_id": str(uuid.UUID(int=number)),
            "schema_version": 1,
            "channel": "web",
            "event_type": kind,
            "occurred_at": stamp,
            "received_at": stamp,
            "identifiers": identifiers,
        }

    def customers() -> list[str]:
        return [key for (key,) in pipeline.rows("select customer_key from touchpoints order by occurred_at")]

    pair = {"customer_id": "c1", "anonymous_id": "k1"}
    pipeline.land([tell(0, "page_viewed", {"anonymous_id": "k1"}), tell(1, "product_viewed", {"anonymous_id": "k1"})])
    pipeline.build()
    assert customers() == [anonymous("k1")] * 2
    pipeline.land([tell(2, "signed_in", pair), tell(4, "page_viewed", {"customer_id": "c1"})])
    pipeline.build()
    assert customers() == ["c:c1"] * 4
    assert pipeline.rows("select customer_key, touchpoint_count from journeys") == [("c:c1", 4)]
    pipeline.land([tell(6, "identity_unlinked", pair)])  # later than any touchpoint: it waits
    pipeline.build()
    assert customers() == ["c:c1"] * 4
    pipeline.build(as_of=START + timedelta(days=6))
    assert customers() == [anonymous("k1")] * 2 + ["c:c1"] * 2
    assert sorted(pipeline.rows("select customer_key from customers")) == [(anonymous("k1"),), ("c:c1",)]


def test_solve_names_a_component_by_its_smallest_node_whatever_the_order_of_edges() -> None:
    strengths = np.array([0, 0, 0, 1, 5, 5])
    edges = np.array([[5, 4], [3, 2], [2, 1]])
    for turned in (edges, edges[::-1], edges[:, ::-1]):
        graph = identity.solve(strengths=strengths, edges=turned, is_blocked=np.zeros(6, dtype=bool), max_links=50)
        assert graph.owners.tolist() == [0, 1, 1, 1, 4, 4]
        assert graph.is_owned.tolist() == [True, True, True, True, False, False]
