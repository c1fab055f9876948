"""Stages and friction (docs/semantics.md, section 5): event types and rules in, both readings out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from schemas.events import EVENT_TYPES, LINK_EVENT_TYPES

FIELDS: dict[str, dict[str, Any]] = {
    "ticket_created": {"ticket_id": "t1"},
    "ticket_reopened": {"ticket_id": "t1"},
    "ticket_solved": {"ticket_id": "t1"},
    "ticket_replied": {"ticket_id": "t1", "author": "customer"},
    "experiment_viewed": {"experiment": "e", "variant": "v"},
    "csat_submitted": {"csat_rating": 3},
    "nps_submitted": {"nps_score": 8},
    "custom": {"event_name": "anything"},
    "order_refunded": {"order_id": "o1"},
}
A, C, P, N, R, V = "awareness", "consideration", "purchase", "onboarding", "retention", "advocacy"

# event type: stage before any order, within 30 days after the first order, later
BY_TIME: dict[str, tuple[str | None, str | None, str | None]] = {
    "product_reviewed": (V, V, V),
    "product_shared": (V, V, V),
    "products_searched": (C, C, C),
    "product_viewed": (C, C, C),
    "product_added": (C, C, C),
    "product_removed": (C, C, C),
    "cart_viewed": (C, C, C),
    "checkout_started": (C, C, C),
    "coupon_applied": (C, C, C),
    "email_link_clicked": (C, C, C),
    "account_activated": (N, N, N),
    "onboarding_step_completed": (N, N, N),
    "signed_in": (A, N, R),
    "ticket_created": (None, N, R),
    "ticket_replied": (None, N, R),
    "ticket_reopened": (None, N, R),
    "call_started": (None, N, R),
    "chat_started": (None, N, R),
    "csat_submitted": (None, N, R),
    "nps_submitted": (None, N, R),
    "loyalty_card_scanned": (R, R, R),
    "page_viewed": (A, A, A),
    "ad_clicked": (A, A, A),
    "signed_up": (A, A, A),
    "subscribed": (A, A, A),
    "error_encountered": (A, A, A),
    "email_opened": (A, A, A),
    "email_marked_as_spam": (A, A, A),
    "unsubscribed": (A, A, A),
    "store_entered": (A, A, A),
    "custom": (A, A, A),
    "email_sent": (None, None, None),
    "email_delivered": (None, None, None),
    "email_bounced": (None, None, None),
    "mail_sent": (None, None, None),
    "experiment_viewed": (None, None, None),
    "ticket_solved": (None, None, None),
    "order_refunded": (None, None, None),
}
BY_VALUE = {
    "nps_of_9_is_advocacy": ("nps_submitted", {"nps_score": 9}, V),
    "nps_of_8_on_the_web_is_not": ("nps_submitted", {"nps_score": 8, "channel": "web"}, A),
    "an_agents_reply_has_no_stage": ("ticket_replied", {"author": "agent"}, None),
    "nor_has_a_machines_open": ("email_opened", {"is_machine_open": True}, None),
    "a_custom_event_on_support_before_any_order": ("custom", {"channel": "support"}, None),
    "a_coupon_in_the_store": ("coupon_applied", {"channel": "store"}, C),
}
SIGNALS = {
    "error_encountered": ("error_encountered", {}, ["error_encountered"]),
    "product_removed": ("product_removed", {}, ["product_removed"]),
    "ticket_created": ("ticket_created", {}, ["ticket_created"]),
    "order_refunded_though_outbound": ("order_refunded", {}, ["order_refunded"]),
    "email_marked_as_spam": ("email_marked_as_spam", {}, ["email_marked_as_spam"]),
    "unsubscribed": ("unsubscribed", {}, ["unsubscribed"]),
    "csat_of_2": ("csat_submitted", {"csat_rating": 2}, ["low_csat"]),
    "csat_of_3": ("csat_submitted", {"csat_rating": 3}, []),
    "nothing_wrong": ("page_viewed", {}, []),
}


def one(event_type: str, when: str, fields: dict[str, Any] | None = None) -> tuple[Any, ...]:
    return (when, event_type, FIELDS.get(event_type, {}) | (fields or {}))


@pytest.fixture(scope="module")
def built(histories: Callable[..., Any]) -> Any:
    by_time = {
        kind: [
            one(kind, "2026-01-01 10:00"),
            ("2026-01-05 10:00", "order_completed"),
            one(kind, "2026-02-04 09:59:59.999999"),
            one(kind, "2026-02-04 10:00"),
        ]
        for kind in BY_TIME
    }
    values = {name: [one(kind, "2026-01-01 10:00", fields)] for name, (kind, fields, _) in (BY_VALUE | SIGNALS).items()}
    return histories(by_time | {f"value {name}": steps for name, steps in values.items()}, as_of="2026-03-01 00:00")


@pytest.mark.parametrize("kind", BY_TIME)
def test_stage_before_within_30_days_of_and_long_after_the_first_order(built: Any, kind: str) -> None:
    rows = built.rows(f"""
        select stage, stage = lifecycle_stage or (stage is null and lifecycle_stage is null)
        from touchpoints where customer_key = 'c:{kind}' and event_type = '{kind}' order by occurred_at""")
    assert rows == [(stage, True) for stage in BY_TIME[kind]]


def test_every_event_type_is_in_the_table() -> None:
    assert set(BY_TIME) | {"order_completed"} == set(EVENT_TYPES) - set(LINK_EVENT_TYPES)


@pytest.mark.parametrize("name", BY_VALUE)
def test_stage_by_value(built: Any, name: str) -> None:
    rows = built.rows(f"select stage, lifecycle_stage from touchpoints where customer_key = 'c:value {name}'")
    assert rows == [(BY_VALUE[name][2],) * 2]


@pytest.mark.parametrize("name", SIGNALS)
def test_friction(built: Any, name: str) -> None:
    rows = built.rows(f"select friction_signals, is_friction from touchpoints where customer_key = 'c:value {name}'")
    assert rows == [(SIGNALS[name][2], bool(SIGNALS[name][2]))]


def test_an_order_is_a_purchase_of_the_cycle_and_after_the_first_retention_of_the_life(
    histories: Callable[..., Any],
) -> None:
    orders = [(f"2026-01-0{day} 10:00", "order_completed", {"order_id": str(day)}) for day in (1, 2, 3)]
    built = histories({"c1": orders})
    assert built.rows("""
        select stage, stage_index, lifecycle_stage, lifecycle_stage_index from touchpoints order by occurred_at""") == [
        (P, 3, P, 3),
        (P, 3, R, 5),
        (P, 3, R, 5),
    ]


RULES = """
stage_rules:
  - {stage: awareness, when: "campaign = 'x'"}                          # NULL does not hold
  - {stage: consideration, when: "channel = 'web' and campaign is null"}
  - {stage: advocacy, scope: customer, when: "event_type = 'page_viewed' and campaign = 'z'"}
  - {stage: purchase, when: "campaign in ('x', 'y')"}
  - {stage: retention, scope: customer, when: "campaign = 'x'"}         # skipped in the cycle, first in the life
"""


def test_the_first_rule_wins_and_rules_of_scope_customer_come_first_in_the_life(histories: Callable[..., Any]) -> None:
    campaigns = ["x", None, "y", "z", "other"]
    views = [(f"2026-01-01 10:0{n}", "page_viewed", {"campaign": c} if c else {}) for n, c in enumerate(campaigns)]
    views += [("2026-01-01 10:09", "email_sent", {"campaign": "x"}), ("2026-01-01 10:09", "page_viewed", {"who": None})]
    built = histories({"c1": views}, config=RULES)
    assert built.rows("""
        select campaign, stage, lifecycle_stage from touchpoints where customer_key is not null
        order by occurred_at, event_id""") == [
        ("x", A, R),
        (None, C, C),
        ("y", P, P),
        ("z", None, V),
        ("other", None, None),
        ("x", None, None),
    ]
    # of all inbound touchpoints, whoever's
    counted = "select numerator, denominator from build_counts where check_name = 'unstaged_ratio'"
    assert built.rows(counted) == [(2, 6)]


def test_rules_of_one_scope_only_leave_the_other_reading_what_it_is(histories: Callable[..., Any]) -> None:
    rules = "stage_rules: [{stage: retention, scope: customer, when: 'true'}]"
    built = histories({"c1": [("2026-01-01 10:00", "page_viewed")]}, config=rules)
    assert built.rows("select stage, stage_index, lifecycle_stage from touchpoints") == [(None, None, R)]
    assert built.rows("select status, path from journeys") == [("active", None)]
