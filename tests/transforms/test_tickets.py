"""Tickets (docs/semantics.md, sections 5 and 11): literal events in, rows of `tickets` out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CREATED, SOLVED, REOPENED, REPLY, CSAT, CALL = (
    "ticket_created", "ticket_solved", "ticket_reopened", "ticket_replied", "csat_submitted", "call_started",
)  # fmt: skip
CUSTOMER, AGENT = {"author": "customer"}, {"author": "agent"}

# Turns of a ticket, an hour apart: s solved, r reopened, c a customer's and a an agent's reply, k a call.
TURNS = {"c": (REPLY, CUSTOMER), "a": (REPLY, AGENT), "s": (SOLVED, {}), "r": (REOPENED, {}), "k": (CALL, {})}
REOPENINGS = {  # turns: reopened_count
    "": 0,
    "ca": 0,
    "cr": 0,  # nothing was solved yet
    "s": 0,
    "sc": 1,
    "sr": 1,
    "scr": 1,  # the second return follows without another solve
    "srcc": 1,
    "sas": 0,  # an agent's word reopens nothing
    "sac": 1,  # nor hides the solve
    "skc": 1,
    "ssc": 1,
    "scsc": 2,
    "csrsascs": 2,
}


def ticket(name: str, *steps: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Steps `(when in 2026, type, fields)` of one ticket."""
    return [(f"2026-{when}", kind, {"ticket_id": name, **(given[0] if given else {})}) for when, kind, *given in steps]


TICKETS: dict[str, tuple[list[tuple[Any, ...]], tuple[Any, ...]]] = {
    # customer, created, first reply, solved, reopened, replies, answer
    "weeks": (
        ticket(
            "weeks",
            ("01-05 10:00", CREATED),
            ("01-05 10:30", REPLY, CUSTOMER),
            ("01-06 10:00", REPLY, AGENT),
            ("01-07 10:00", REPLY, AGENT),
            ("01-08 10:00", SOLVED),
            ("01-09 10:00", CSAT, {"csat_rating": 1}),
            ("02-20 10:00", REOPENED),
            ("03-20 10:00", SOLVED),
            ("03-21 10:00", CSAT, {"csat_rating": 5}),
            ("03-22 10:00", CALL),
        ),
        ("c:weeks", "01-05 10:00", "01-06 10:00", "03-20 10:00", 1, 3, 5),
    ),
    "of whoever created it": (
        ticket(
            "of whoever created it",
            ("01-05 09:00", CALL, {"who": "colleague"}),
            ("01-05 10:00", CREATED, {"who": "creator"}),
            ("01-05 11:00", REPLY, CUSTOMER | {"who": "colleague"}),
        ),
        ("c:creator", "01-05 10:00", None, None, 0, 1, None),
    ),
    "created twice": (
        ticket("created twice", ("01-05 11:00", CREATED, {"who": "late"}), ("01-05 10:00", CREATED, {"who": "early"})),
        ("c:early", "01-05 10:00", None, None, 0, 0, None),
    ),
    "creation never seen": (
        ticket("creation never seen", ("01-05 10:00", REPLY, AGENT), ("01-05 11:00", SOLVED)),
        ("c:creation never seen", None, "01-05 10:00", "01-05 11:00", 0, 1, None),
    ),
    "of nobody": (
        ticket("of nobody", ("01-05 10:00", CREATED, {"who": None}), ("01-05 10:30", SOLVED, {"who": "somebody"})),
        (None, "01-05 10:00", None, "01-05 10:30", 0, 0, None),
    ),
    "tied answers": (
        ticket(
            "tied answers",
            ("01-05 10:00", CSAT, {"csat_rating": 2, "id": "80000000"}),
            ("01-05 10:00", CSAT, {"csat_rating": 4, "id": "7fffffff"}),
        ),
        ("c:tied answers", None, None, None, 0, 0, 2),
    ),
}


@pytest.fixture(scope="module")
def built(histories: Callable[..., Any]) -> Any:
    turns = {
        f"turns {turns}": ticket(
            f"turns {turns}",
            ("01-05 09:00", CREATED),
            *[(f"01-05 {hour}:00", *TURNS[turn]) for hour, turn in enumerate(turns, 10)],
        )
        for turns in REOPENINGS
    }
    return histories({name: steps for name, (steps, _) in TICKETS.items()} | turns)


@pytest.mark.parametrize("turns", REOPENINGS)
def test_a_return_after_a_solve_reopens_once(built: Any, turns: str) -> None:
    rows = built.rows(f"select reopened_count from tickets where ticket_id = 'turns {turns}'")
    assert rows == [(REOPENINGS[turns],)]


@pytest.mark.parametrize("name", TICKETS)
def test_what_a_ticket_says(built: Any, name: str) -> None:
    moments = ", ".join(
        f"strftime({column}, '%m-%d %H:%M')" for column in ("created_at", "first_reply_at", "solved_at")
    )
    rows = built.rows(f"""
        select customer_key, {moments}, reopened_count, reply_count, csat_rating
        from tickets where ticket_id = '{name}'""")
    assert rows == [TICKETS[name][1]]


def test_a_ticket_belongs_to_the_journey_of_its_creation(built: Any) -> None:
    # January's reply and March's solve lie in two journeys, for nothing inbound came for over 30 days.
    assert built.groups("weeks", "journey_id") == "abcdef|ghij"
    assert built.rows("""
        select touchpoints.event_type, tickets.journey_id = touchpoints.journey_id
        from tickets join touchpoints using (ticket_id)
        where ticket_id = 'weeks' and touchpoints.event_type in ('ticket_created', 'ticket_reopened')
        order by occurred_at""") == [(CREATED, True), (REOPENED, False)]
    counts = (
        "select journey_index, ticket_count, longest_resolution_seconds from journeys where customer_key = 'c:weeks'"
    )
    assert built.rows(f"{counts} order by 1") == [(1, 1, 74 * 86400.0), (2, 0, None)]
    assert built.rows("select count(*) from tickets") == [(len(TICKETS) + len(REOPENINGS),)]
