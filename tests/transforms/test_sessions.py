"""Sessions (docs/semantics.md, section 4): a case is one customer's touchpoints a, b, c … and who shares a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid5

import pytest

DAY = "2026-01-05 "
X, Y = {"campaign": "x"}, {"campaign": "y"}
T1, T2 = {"ticket_id": "t1"}, {"ticket_id": "t2"}
VIEW, CLICK, STORE, CALL = "page_viewed", "email_link_clicked", "store_entered", "call_started"


def web(*moments: Any) -> list[tuple[Any, ...]]:
    """Page views of one day; `("10:00", fields)` or `"10:00"`."""
    pairs = [(moment, {}) if isinstance(moment, str) else moment for moment in moments]
    return [(DAY + time, VIEW, fields) for time, fields in pairs]


GAPS = {
    "web_gap_of_exactly_the_timeout_keeps_the_session": (web("10:00", "10:30"), "ab"),
    "web_gap_of_one_microsecond_more_starts_one": (web("10:00", "10:30:00.000001"), "a|b"),
    "the_gap_is_to_the_previous_touchpoint_not_to_the_start": (web("10:00", "10:25", "10:50"), "abc"),
    "midnight_ends_nothing": ([(DAY + "23:50", VIEW), ("2026-01-06 00:10", VIEW)], "ab"),
    "email_gap_of_exactly_24_hours": ([(DAY + "10:00", CLICK), ("2026-01-06 10:00", CLICK)], "ab"),
    "email_gap_longer_than_24_hours": ([(DAY + "10:00", CLICK), ("2026-01-06 10:00:00.000001", CLICK)], "a|b"),
    "store_gap_of_exactly_4_hours": ([(DAY + "10:00", STORE), (DAY + "14:00", STORE)], "ab"),
    "store_gap_longer_than_4_hours": ([(DAY + "10:00", STORE), (DAY + "14:00:00.000001", STORE)], "a|b"),
    "contact_gap_of_exactly_72_hours": ([(DAY + "10:00", CALL), ("2026-01-08 10:00", "chat_started")], "ab"),
    "contact_gap_longer_than_72_hours": ([(DAY + "10:00", CALL), ("2026-01-08 10:00:00.000001", CALL)], "a|b"),
    "channels_run_apart": ([(DAY + "10:00", VIEW), (DAY + "10:05", STORE), (DAY + "10:10", VIEW)], "ac|b"),
    "another_channel_bridges_no_gap": ([(DAY + "10:00", VIEW), (DAY + "10:20", STORE), (DAY + "10:40", VIEW)], "a|b|c"),
    "equal_times_are_one_session": (web("10:00", "10:00", "10:00"), "abc"),
}
CAMPAIGNS = {
    "another_campaign_cuts": (web(("10:00", X), ("10:05", Y)), "a|b"),
    "the_same_campaign_does_not": (web(("10:00", X), ("10:05", X)), "ab"),
    "back_to_the_first_campaign_cuts_again": (web(("10:00", X), ("10:05", Y), ("10:10", X)), "a|b|c"),
    "a_first_campaign_cuts_nothing": (web("10:00", ("10:05", X)), "ab"),
    "no_campaign_cuts_nothing": (web(("10:00", X), "10:05"), "ab"),
    "over_no_campaign_the_last_one_is_remembered": (web(("10:00", X), "10:05", ("10:10", Y)), "ab|c"),
    "and_the_same_one_recognised": (web(("10:00", X), "10:05", ("10:10", X)), "abc"),
    "the_previous_runs_campaign_does_not_count": (web(("10:00", X), "11:00", ("11:05", Y)), "a|bc"),
    "at_equal_times_the_event_id_orders_campaigns": (
        web(("10:00", X | {"id": "80000000"}), ("10:00", Y | {"id": "7fffffff"}), ("10:05", X)),
        "b|ac",
    ),
    "campaigns_cut_web_only": (
        [(DAY + "10:00", CLICK, X), (DAY + "10:05", CLICK, Y), (DAY + "11:00", STORE, X), (DAY + "11:05", STORE, Y)],
        "ab|cd",
    ),
    "an_emails_campaign_is_no_web_runs": (
        [(DAY + "10:00", VIEW, X), (DAY + "10:05", CLICK, Y), (DAY + "10:10", VIEW, X)],
        "ac|b",
    ),
    "nor_is_an_outbound_ones": (
        [
            (DAY + "10:00", VIEW, X),
            (DAY + "10:05", "experiment_viewed", Y | {"experiment": "e", "variant": "v"}),
            (DAY + "10:10", VIEW, X),
        ],
        "ac -b",
    ),
}
TICKETS = {
    "a_ticket_is_one_session_over_weeks": (
        [
            (DAY + "10:00", "ticket_created", T1),
            ("2026-02-20 10:00", "ticket_replied", T1 | {"author": "customer"}),
            ("2026-04-20 10:00", "csat_submitted", T1 | {"csat_rating": 4}),
        ],
        "abc",
    ),
    "tickets_interleave": (
        [
            (DAY + "10:00", "ticket_created", T1),
            (DAY + "10:01", "ticket_created", T2),
            (DAY + "10:02", "ticket_reopened", T1),
            (DAY + "10:03", "ticket_reopened", T2),
        ],
        "ac|bd",
    ),
    "contacts_without_ticket_are_apart": (
        [
            (DAY + "10:00", CALL),
            (DAY + "10:01", "ticket_created", T1),
            (DAY + "10:02", CALL),
            (DAY + "10:03", CALL, T1),
        ],
        "ac|bd",
    ),
}
OUTBOUND = {
    "an_email_sent_starts_nothing": ([(DAY + "10:00", "email_sent"), (DAY + "10:05", CLICK)], "b -a"),
    "nor_extends_anything": (
        [(DAY + "10:00", CLICK), ("2026-01-06 06:00", "email_sent"), ("2026-01-07 02:00", CLICK)],
        "a|c -b",
    ),
    "an_agents_reply_is_outbound_a_customers_is_not": (
        [
            (DAY + "10:00", "ticket_created", T1),
            (DAY + "11:00", "ticket_replied", T1 | {"author": "agent"}),
            (DAY + "12:00", "ticket_replied", T1 | {"author": "customer"}),
        ],
        "ac -b",
    ),
    "a_machine_open_is_outbound_a_persons_is_not": (
        [
            (DAY + "10:00", "email_opened", {"is_machine_open": True}),
            (DAY + "11:00", "email_opened", {"is_machine_open": False}),
            (DAY + "12:00", "email_opened"),
        ],
        "bc -a",
    ),
    "what_the_brand_does": (
        [
            (DAY + "10:00", kind, fields)
            for kind, fields in (
                ("email_sent", {}),
                ("email_delivered", {}),
                ("email_bounced", {}),
                ("mail_sent", {}),
                ("ticket_solved", T1),
                ("order_refunded", {"order_id": "o1"}),
                ("experiment_viewed", {"experiment": "e", "variant": "v"}),
            )
        ],
        " -abcdefg",
    ),
    "spam_marks_and_unsubscriptions_are_the_customers": (
        [(DAY + "10:00", "email_marked_as_spam"), (DAY + "10:01", "unsubscribed")],
        "ab",
    ),
}
ONE_HOUR = {  # web_session_limit of one hour, to keep the cases short
    "the_instant_of_the_limit_belongs_to_the_later_session": (web("10:00", "10:30", "11:00"), "ab|c"),
    "the_microsecond_before_to_the_earlier": (web("10:00", "10:30", "10:59:59.999999"), "abc"),
    "the_cut_does_not_restart_the_run": (web("10:00", "10:25", "10:50", "11:15", "11:40", "12:05"), "abc|de|f"),
    "a_gap_does": (web("10:00", "10:50", "11:05", "11:30"), "a|bcd"),
    "a_campaign_does_not": (web(("10:00", X), ("10:25", Y), ("10:50", Y), ("11:00", Y)), "a|bc|d"),
    "the_limit_does_not_forget_the_campaign": (web(("10:00", X), "10:30", "11:00", ("11:20", X)), "ab|cd"),
    "nor_that_another_one_differs": (web(("10:00", X), "10:30", "11:00", ("11:20", Y)), "ab|c|d"),
    "the_limit_is_for_web_only": (
        [(DAY + "10:00", CLICK), (DAY + "11:30", CLICK), (DAY + "10:00", STORE), (DAY + "12:00", STORE)],
        "ab|cd",
    ),
}
CASES = GAPS | CAMPAIGNS | TICKETS | OUTBOUND


def cases(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("case", table)


@pytest.fixture(scope="module")
def built(histories: Callable[..., Any]) -> Any:
    return histories({case: steps for case, (steps, _) in CASES.items()})


@pytest.fixture(scope="module")
def built_with_an_hours_limit(histories: Callable[..., Any]) -> Any:
    steps = {case: steps for case, (steps, _) in ONE_HOUR.items()}
    return histories(steps, config="web_session_limit: 1 hour")


@cases(CASES)
def test_who_shares_a_session(built: Any, case: str) -> None:
    assert built.groups(case, "session_id") == CASES[case][1]


@cases(ONE_HOUR)
def test_the_limit_of_a_web_session(built_with_an_hours_limit: Any, case: str) -> None:
    assert built_with_an_hours_limit.groups(case, "session_id") == ONE_HOUR[case][1]


def test_a_web_run_of_days_is_cut_every_24_hours_from_its_start(histories: Callable[..., Any]) -> None:
    half_hours = [
        (f"2026-01-{5 + n // 48:02} {n % 48 // 2:02}:{n % 2 * 30 + 7:02}:09.000001", VIEW) for n in range(101)
    ]
    built = histories({"c1": half_hours})
    assert built.rows("select started_at::varchar, ended_at::varchar, touchpoint_count from sessions order by 1") == [
        ("2026-01-05 00:07:09.000001", "2026-01-05 23:37:09.000001", 48),
        ("2026-01-06 00:07:09.000001", "2026-01-06 23:37:09.000001", 48),
        ("2026-01-07 00:07:09.000001", "2026-01-07 02:07:09.000001", 5),
    ]


def test_timeouts_are_those_of_the_configuration(histories: Callable[..., Any]) -> None:
    steps = [(DAY + "10:00", VIEW), (DAY + "10:10", VIEW), (DAY + "10:20:01", VIEW), (DAY + "10:00", CLICK)]
    timeouts = "session_timeouts: {web: 10 minutes, email: 1 second, store: 1 second, support: 1 second}"
    assert histories({"c1": steps}, config=timeouts).groups("c1", "session_id") == "ab|d|c"


# One session whose every column says something, with an outbound touchpoint in the middle that no column may show.
RICH = [
    (DAY + "10:00", VIEW, {"medium": "cpc"}),
    (DAY + "10:05", "product_viewed", {"source": "google", "medium": "organic"}),
    (DAY + "10:06", "experiment_viewed", {"experiment": "e", "variant": "v", "source": "outbound"}),
    (DAY + "10:10", "order_completed", {"order_id": "o1", "amount": "20.50", "currency": "USD", "campaign": "x"}),
    (DAY + "10:12:30.5", "order_completed", {"order_id": "o2", "amount": "9.50", "currency": "USD", "source": "bing"}),
]
SESSION = """
    select journey_count, channel, started_at::varchar, ended_at::varchar, duration_seconds, touchpoint_count,
        entry_event_type, exit_event_type, source, medium, campaign, is_bounce, is_converted, revenue::varchar
    from sessions where customer_key = 'c:{}'"""


def test_what_a_session_says(histories: Callable[..., Any]) -> None:
    tied = [(DAY + "10:00", VIEW, {"id": "80000000", "source": "second"})]
    tied += [(DAY + "10:00", "product_viewed", {"id": "7fffffff", "source": "first"})]
    bounce = [(DAY + "10:00", VIEW), (DAY + "10:01", "experiment_viewed", {"experiment": "e", "variant": "v"})]
    priceless = [(DAY + "10:00", "order_completed", {"order_id": "o3"})]
    built = histories({"rich": RICH, "tied": tied, "bounce": bounce, "priceless": priceless})
    start = "2026-01-05 10:00:00"
    rows = {name: built.rows(SESSION.format(name)) for name in ("rich", "tied", "bounce", "priceless")}
    assert rows == {
        "rich": [
            (
                *(2, "web", start, "2026-01-05 10:12:30.5", 750.5, 4, VIEW, "order_completed"),
                *("google", "cpc", "x", False, True, "30.00"),
            ),
        ],
        "tied": [
            (1, "web", start, start, 0.0, 2, "product_viewed", VIEW, "first", None, None, False, False, "0.00"),
        ],
        "bounce": [(1, "web", start, start, 0.0, 1, VIEW, VIEW, None, None, None, True, False, "0.00")],
        "priceless": [
            (
                *(1, "web", start, start, 0.0, 1, "order_completed", "order_completed"),
                *(None, None, None, True, True, "0.00"),
            ),
        ],
    }
    ((session_journey, first_journey, last_journey),) = built.rows("""
        select
            any_value(sessions.journey_id), arg_min(touchpoints.journey_id, occurred_at),
            arg_max(touchpoints.journey_id, occurred_at)
        from sessions join touchpoints using (session_id) where sessions.customer_key = 'c:rich'""")
    assert session_journey == first_journey != last_journey


def test_a_sessions_id_is_a_uuid5_over_its_first_event(histories: Callable[..., Any]) -> None:
    built = histories({"c1": web(("10:00", {"id": "80000000"}), ("10:00", {"id": "7fffffff"}))})
    ((session_id, journey_id),) = built.rows("select session_id, journey_id from sessions")
    ((first_event,),) = built.rows("select event_id::varchar from touchpoints where event_id::varchar like '7fffffff%'")
    assert session_id == uuid5(uuid5(UUID(int=0), "journeys.session"), first_event)
    assert journey_id == uuid5(uuid5(UUID(int=0), "journeys.journey"), first_event)


def test_without_a_customer_there_is_no_session(histories: Callable[..., Any]) -> None:
    built = histories({"c1": [(DAY + "10:00", VIEW, {"who": None})]})
    assert built.rows("select session_id, journey_id, (select count(*) from sessions) from touchpoints") == [
        (None, None, 0)
    ]
