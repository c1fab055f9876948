"""Journeys (docs/semantics.md, section 6): a case is one customer's touchpoints a, b, c … and who shares a journey."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

AS_OF = "2026-06-01"
VIEW, CLICK, STORE, ORDER = "product_viewed", "email_link_clicked", "store_entered", "order_completed"
EXPERIMENT = {"experiment": "e", "variant": "v"}
T1 = {"ticket_id": "t1"}


def steps(*lines: str | tuple[str, Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """`"01-05 10:00 page_viewed"`, fields beside it in a tuple; all of 2026."""
    pairs = [(line, {}) if isinstance(line, str) else line for line in lines]
    return [(f"2026-{day} {time}", kind, fields) for line, fields in pairs for day, time, kind in [line.split()]]


GAPS = {
    "a_gap_of_exactly_30_days_keeps_the_journey": (steps("01-01 10:00 page_viewed", "01-31 10:00 page_viewed"), "ab"),
    "one_microsecond_more_starts_one": (steps("01-01 10:00 page_viewed", "01-31 10:00:00.000001 page_viewed"), "a|b"),
    "the_gap_is_over_all_channels": (
        steps("01-01 10:00 page_viewed", "01-25 10:00 store_entered", "02-20 10:00 call_started"),
        "abc",
    ),
    "what_the_brand_sends_bridges_nothing": (
        steps("01-01 10:00 page_viewed", "01-20 10:00 email_sent", "02-10 10:00 page_viewed"),
        "ab|c",
    ),
    "a_ticket_of_months_spans_journeys": (
        steps(("01-01 10:00 ticket_created", T1), ("03-01 10:00 ticket_reopened", T1)),
        "a|b",
    ),
}
CONVERSIONS = {
    "browsing_on_in_the_orders_session_stays": (
        steps(f"01-05 10:00 {VIEW}", f"01-05 10:05 {ORDER}", f"01-05 10:10 {VIEW}", f"01-05 10:40 {VIEW}"),
        "abcd",
    ),
    "browsing_in_the_next_session_starts_one": (
        steps(f"01-05 10:05 {ORDER}", f"01-05 10:35 {VIEW}", f"01-05 11:05:01 {VIEW}", f"01-05 11:06 {VIEW}"),
        "ab|cd",
    ),
    "another_channel_is_another_session": (steps(f"01-05 10:05 {ORDER}", f"01-05 10:06 {STORE}"), "a|b"),
    "so_is_another_campaign": (
        steps((f"01-05 10:05 {ORDER}", {"campaign": "x"}), (f"01-05 10:06 {VIEW}", {"campaign": "y"})),
        "a|b",
    ),
    "what_is_not_pre_conversion_stays": (
        steps(
            f"01-05 10:05 {ORDER}",
            "01-06 10:00 account_activated",
            "01-07 10:00 signed_in",
            ("01-08 10:00 ticket_created", T1),
            "01-20 10:00 loyalty_card_scanned",
            "01-21 10:00 product_reviewed",
            ("02-10 10:00 ticket_reopened", T1),
        ),
        "abcdefg",
    ),
    "and_browsing_after_that_starts_one": (
        steps(f"01-05 10:05 {ORDER}", "01-07 10:00 signed_in", "01-07 10:01 page_viewed", "01-07 10:02 signed_in"),
        "ab|cd",
    ),
    "a_second_order_in_the_session_starts_one": (
        steps(f"01-05 10:00 {VIEW}", f"01-05 10:05 {ORDER}", f"01-05 10:06 {ORDER}", f"01-05 10:07 {VIEW}"),
        "ab|cd",
    ),
    "browsing_on_between_two_orders_of_a_session_stays_with_the_first": (
        steps(f"01-05 10:05 {ORDER}", f"01-05 10:06 {VIEW}", f"01-05 10:07 {ORDER}", f"01-05 10:08 {ORDER}"),
        "ab|c|d",
    ),
    "an_order_after_new_browsing_is_that_journeys": (
        steps(f"01-05 10:05 {ORDER}", f"01-06 10:00 {VIEW}", f"01-07 10:00 {ORDER}", f"01-07 10:01 {VIEW}"),
        "a|bcd",
    ),
    "an_order_out_of_the_blue_starts_one": (steps(f"01-05 10:05 {ORDER}", f"01-06 10:00 {ORDER}"), "a|b"),
    "the_session_that_counts_is_the_last_orders": (
        steps(f"01-05 10:00 {ORDER}", f"01-05 10:10 {STORE}", (f"01-05 10:12 {ORDER}", {"channel": "store"}))
        + steps(f"01-05 10:20 {VIEW}", f"01-05 10:21 {STORE}"),
        "a|bc|de",
    ),
    "a_copy_of_the_order_converts_nothing": (
        steps((f"01-05 10:05 {ORDER}", {"order_id": "copied"}), (f"01-06 10:00 {ORDER}", {"order_id": "copied"})),
        "ab",
    ),
    "an_order_after_a_gap_is_its_own_journey": (steps(f"01-05 10:05 {ORDER}", f"03-05 10:00 {ORDER}"), "a|b"),
    # A gap's journey has not converted: what follows stays with it until it has.
    "browsing_after_a_gaps_support_stays_with_it": (
        steps(f"01-05 10:05 {ORDER}", "03-05 10:00 call_started", f"03-06 10:00 {VIEW}", f"03-07 10:00 {ORDER}")
        + steps(f"03-08 10:00 {VIEW}"),
        "a|bcd|e",
    ),
    "at_equal_times_the_event_id_decides_browsing_first": (
        steps((f"01-05 10:00 {ORDER}", {"id": "80000000"}), (f"01-05 10:00 {STORE}", {"id": "7fffffff"})),
        "ba",
    ),
    "at_equal_times_the_event_id_decides_order_first": (
        steps((f"01-05 10:00 {ORDER}", {"id": "7fffffff"}), (f"01-05 10:00 {STORE}", {"id": "80000000"})),
        "a|b",
    ),
}
OUTBOUND = {
    "before_any_inbound_it_is_in_none": (steps("01-01 10:00 email_sent", f"01-01 11:00 {CLICK}"), "b -a"),
    "up_to_30_days_after_it_belongs": (steps("01-01 10:00 page_viewed", "01-31 10:00 email_sent"), "ab"),
    "a_microsecond_later_it_does_not": (steps("01-01 10:00 page_viewed", "01-31 10:00:00.000001 email_sent"), "a -b"),
    "it_extends_nothing_for_the_next": (
        steps("01-01 10:00 page_viewed", "01-20 10:00 email_sent", "02-10 10:00 email_sent", "02-11 10:00 page_viewed"),
        "ab|d -c",
    ),
    "it_belongs_to_the_latest_journey_started_before": (
        steps(f"01-05 10:00 {ORDER}", "01-05 12:00 email_sent", f"01-06 10:00 {VIEW}", "01-06 11:00 email_sent"),
        "ab|cd",
    ),
    "at_equal_times_the_event_id_says_what_is_before": (
        steps(("01-05 10:00 experiment_viewed", EXPERIMENT), "01-05 10:00 page_viewed")
        + steps(("01-05 10:00 experiment_viewed", EXPERIMENT)),
        "bc -a",
    ),
    "no_outbound_starts_one_after_an_order": (
        steps(f"01-05 10:00 {ORDER}", ("01-06 10:00 experiment_viewed", EXPERIMENT), "01-07 10:00 account_activated"),
        "abc",
    ),
}
CASES = GAPS | CONVERSIONS | OUTBOUND

STATUSES = {
    "converted_however_long_ago": (steps(f"01-01 10:00 {VIEW}", f"01-01 10:05 {ORDER}"), ["converted"]),
    "converted_though_recent": (steps(f"05-31 10:05 {ORDER}"), ["converted"]),
    "service_long_after_the_purchase": (
        steps(f"01-01 10:05 {ORDER}", "03-05 10:00 call_started", "04-20 10:00 loyalty_card_scanned"),
        ["converted", "service", "service"],
    ),
    "service_though_recent": (steps("05-31 10:00 loyalty_card_scanned"), ["service"]),
    "a_copy_of_anothers_order_is_no_conversion": (
        steps((f"01-01 10:05 {ORDER}", {"order_id": "another's"}))
        + steps((f"03-01 10:05 {ORDER}", {"order_id": "another's"})),
        ["converted", "service"],
    ),
    "one_pre_conversion_touch_makes_it_no_service": (
        steps("01-01 10:00 loyalty_card_scanned", "01-01 10:05 store_entered"),
        ["abandoned"],
    ),
    "nothing_staged_is_no_service": (steps("01-01 10:00 call_started"), ["abandoned"]),
    "active_with_nothing_staged": (steps("05-31 10:00 call_started"), ["active"]),
    "active_when_exactly_30_days_old": (steps("05-02 00:00 page_viewed"), ["active"]),
    "abandoned_a_microsecond_earlier": (steps("05-01 23:59:59.999999 page_viewed"), ["abandoned"]),
    "what_the_brand_sends_keeps_nothing_active": (
        steps("05-01 10:00 page_viewed", "05-30 10:00 email_sent", ("05-30 11:00 experiment_viewed", EXPERIMENT)),
        ["abandoned"],
    ),
}


@pytest.fixture(scope="module")
def built(histories: Callable[..., Any]) -> Any:
    everything = {case: given for case, (given, _) in (CASES | STATUSES).items()}
    return histories(everything | {"rich": RICH, "spanning": SPANNING, "sent only": SENT_ONLY}, as_of=AS_OF)


@pytest.mark.parametrize("case", CASES)
def test_who_shares_a_journey(built: Any, case: str) -> None:
    assert built.groups(case, "journey_id") == CASES[case][1]


@pytest.mark.parametrize("case", STATUSES)
def test_status_at_data_as_of(built: Any, case: str) -> None:
    rows = built.rows(f"select status from journeys where customer_key = $${'c:' + case}$$ order by journey_index")
    assert [status for (status,) in rows] == STATUSES[case][1]


RICH = steps(
    ("01-01 08:00 email_sent", {"campaign": "outbound"}),
    ("01-01 10:00 page_viewed", {"source": "google", "medium": "cpc", "campaign": "x"}),
    ("01-01 10:01 experiment_viewed", {"experiment": "button", "variant": "red"}),
    ("01-01 10:02 experiment_viewed", {"experiment": "button", "variant": "blue"}),
    f"01-01 10:05 {VIEW}",
    "01-01 10:06 product_removed",
    "01-03 10:00 page_viewed",
    ("01-03 10:05 order_completed", {"order_id": "rich", "amount": "30.00", "currency": "USD"}),
    ("01-04 10:00 order_refunded", {"order_id": "rich", "amount": "1.00", "currency": "USD"}),
    ("01-05 10:00 ticket_created", {"ticket_id": "rich 1"}),
    ("01-05 11:00 ticket_solved", {"ticket_id": "rich 1"}),
    ("01-05 12:00 csat_submitted", {"ticket_id": "rich 1", "csat_rating": 2}),
    ("01-06 10:00 ticket_created", {"ticket_id": "rich 2"}),
    ("01-06 10:30 ticket_solved", {"ticket_id": "rich 2"}),
    ("01-06 12:00 csat_submitted", {"ticket_id": "rich 2", "csat_rating": 5}),
    ("01-07 10:00 nps_submitted", {"nps_score": 3}),
    ("01-08 10:00 nps_submitted", {"nps_score": 9, "channel": "web"}),
    ("01-09 10:00 email_sent", {"campaign": "outbound"}),
)
SPANNING = steps(f"01-05 10:00 {ORDER}", f"01-05 10:05 {ORDER}", f"01-05 10:10 {ORDER}", f"01-05 10:15 {VIEW}")
SENT_ONLY = steps("01-05 10:00 email_sent", "01-06 10:00 email_sent")


def test_what_a_journey_says(built: Any) -> None:
    names = """
        journey_index, started_at::varchar, ended_at::varchar, status, entry_stage, furthest_stage, first_channel,
        last_channel, channel_count, is_omnichannel, session_count, touchpoint_count, friction_count, ticket_count,
        longest_resolution_seconds, csat_average, nps_last, converted_at::varchar, time_to_convert_seconds,
        revenue::varchar, path, first_source, first_medium, first_campaign, segment, experiment_variant"""
    (row,) = built.rows(f"select {names} from journeys where customer_key = 'c:rich'")
    assert dict(zip([name.split("::")[0].strip() for name in names.split(",")], row, strict=True)) == {
        "journey_index": 1,
        "started_at": "2026-01-01 10:00:00",
        "ended_at": "2026-01-08 10:00:00",
        "status": "converted",
        "entry_stage": "awareness",
        "furthest_stage": "advocacy",
        "first_channel": "web",
        "last_channel": "web",
        "channel_count": 2,
        "is_omnichannel": True,
        "session_count": 6,  # two visits, two tickets, one contact, one answer on the web
        "touchpoint_count": 11,
        "friction_count": 5,  # removed, refunded (outbound), two tickets, a low answer
        "ticket_count": 2,
        "longest_resolution_seconds": 3600.0,
        "csat_average": 3.5,
        "nps_last": 9,
        "converted_at": "2026-01-03 10:05:00",
        "time_to_convert_seconds": 2 * 86400 + 300.0,
        "revenue": "30.00",
        "path": "awareness > consideration > awareness > purchase > onboarding > advocacy",
        "first_source": "google",
        "first_medium": "cpc",
        "first_campaign": "x",
        "segment": "paid",
        "experiment_variant": "button / red",
    }


def test_a_session_over_three_journeys_counts_in_each(built: Any) -> None:
    assert built.groups("spanning", "session_id") == "abcd"
    assert built.groups("spanning", "journey_id") == "a|b|cd"
    per_journey = (
        "select journey_index, session_count, touchpoint_count from journeys where customer_key = 'c:spanning'"
    )
    assert built.rows(f"{per_journey} order by 1") == [(1, 1, 1), (2, 1, 1), (3, 1, 2)]
    assert built.rows("select journey_count from sessions where customer_key = 'c:spanning'") == [(3,)]


def test_who_was_only_ever_contacted_has_no_journey(built: Any) -> None:
    assert built.groups("sent only", "journey_id") == " -ab"
    assert built.rows("select count(*) from journeys where customer_key = 'c:sent only'") == [(0,)]


def test_another_conversion_and_timeout_by_configuration(histories: Callable[..., Any]) -> None:
    given = steps(
        "01-01 10:00 page_viewed",
        "01-01 10:01 signed_up",
        "01-01 10:02 page_viewed",
        f"01-02 10:00 {ORDER}",
        "01-02 10:01 page_viewed",
        "01-02 10:02 signed_up",
        "01-05 10:02:00.000001 signed_up",
    )
    config = "{conversion: \"event_type = 'signed_up'\", journey_timeout: 3 days}"
    # The sign-up is of a pre-conversion stage itself; it converts the journey it is in.
    built = histories({"c1": given}, config=config)
    assert built.groups("c1", "journey_id") == "abcd|ef|g"
    assert built.rows("select status, converted_at::varchar, revenue from journeys order by journey_index") == [
        ("converted", "2026-01-01 10:01:00", 0),
        ("converted", "2026-01-02 10:02:00", 0),
        ("converted", "2026-01-05 10:02:00.000001", 0),
    ]
    converting = "select strftime(occurred_at, '%d %H:%M') from touchpoints where is_conversion order by occurred_at"
    assert built.rows(converting) == [("01 10:01",), ("02 10:02",), ("05 10:02",)]
