"""Orders (docs/semantics.md, section 5): literal events in, `orders` and the touchpoints' order columns out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from schemas.config import parse_config

ORDER, REFUND, VIEW, SENT = "order_completed", "order_refunded", "page_viewed", "email_sent"
DAY = "2026-01-05 "
EMAIL = f"k1:{'a' * 64}"
RATES = "currency_rates: {EUR: 1.10, JPY: 0.00670, GBP: 1.25}"


def paid(
    order_id: str | None, amount: str | None = None, currency: str | None = "USD", **fields: Any
) -> dict[str, Any]:
    order = {"order_id": order_id} if order_id else {}
    return order | ({"amount": amount, "currency": currency} if amount else {}) | fields


# Each order's events as (when, type, who, fields), then what `orders` says of it:
# customer, ordered at, channel, index, amount, refunds, currency, events, revenue.
ORDERS: dict[str, tuple[list[tuple[Any, ...]], tuple[Any, ...] | None]] = {
    "pixel under a cookie and shop": (
        [
            ("10:00", ORDER, {"anonymous_id": "stray"}, paid("pixel under a cookie and shop", "20.00")),
            ("10:05", ORDER, "pixel", paid("pixel under a cookie and shop", "20.00", channel="store")),
            ("10:06", ORDER, "pixel", paid("pixel under a cookie and shop", "20.00")),
        ],
        ("c:pixel", "10:05", "store", 1, "20.00", "0.00", "USD", 3, "20.00"),
    ),
    "the stronger identifier owns": (
        [
            ("10:00", ORDER, {"anonymous_id": "weak"}, paid("the stronger identifier owns", "1.00")),
            ("10:05", ORDER, {"email_hmac": EMAIL}, paid("the stronger identifier owns", "1.00")),
        ],
        (f"a:email_hmac:{EMAIL}", "10:05", "web", 1, "1.00", "0.00", "USD", 2, "1.00"),
    ),
    "a known customer by cookie before an anonymous e-mail": (
        [
            ("09:00", "signed_in", {"customer_id": "known", "anonymous_id": "home"}, {}),
            ("10:00", ORDER, {"anonymous_id": "home"}, paid("a known customer by cookie before an anonymous e-mail")),
            (
                "09:30",
                ORDER,
                {"email_hmac": f"k1:{'b' * 64}"},
                paid("a known customer by cookie before an anonymous e-mail"),
            ),
        ],
        ("c:known", "10:00", "web", 1, None, "0.00", None, 2, None),
    ),
    "of two equally strong the earlier": (
        [
            ("10:05", ORDER, "first by name", paid("of two equally strong the earlier", "2.00")),
            ("10:00", ORDER, "second by name", paid("of two equally strong the earlier", "3.00")),
        ],
        ("c:second by name", "10:00", "web", 1, "3.00", "0.00", "USD", 2, "3.00"),
    ),
    "a copy knows the price": (
        [
            ("10:00", ORDER, "pricy", paid("a copy knows the price")),
            ("10:09", ORDER, "pricy", paid("a copy knows the price", "9.00")),
            ("10:05", ORDER, {"anonymous_id": "pricy"}, paid("a copy knows the price", "8.00", "EUR")),
        ],
        ("c:pricy", "10:00", "web", 1, "8.00", "0.00", "EUR", 3, "8.80"),
    ),
    "without any customer": ([("10:00", ORDER, None, paid("without any customer", "5.00"))], None),
    "in the reporting currency": (
        [("10:00", ORDER, "c usd", paid("in the reporting currency", "10.00"))],
        ("c:c usd", "10:00", "web", 1, "10.00", "0.00", "USD", 1, "10.00"),
    ),
    "in another currency": (
        [("10:00", ORDER, "c eur", paid("in another currency", "9.99", "EUR"))],
        ("c:c eur", "10:00", "web", 1, "9.99", "0.00", "EUR", 1, "10.99"),
    ),
    "half a cent is rounded up": (
        [("10:00", ORDER, "c jpy", paid("half a cent is rounded up", "150.00", "JPY"))],
        ("c:c jpy", "10:00", "web", 1, "150.00", "0.00", "JPY", 1, "1.01"),
    ),
    "without a rate": (
        [("10:00", ORDER, "c sek", paid("without a rate", "9.00", "SEK"))],
        ("c:c sek", "10:00", "web", 1, "9.00", "0.00", "SEK", 1, None),
    ),
    "refunded twice": (
        [
            ("10:00", ORDER, "r two", paid("refunded twice", "30.00", "EUR")),
            ("11:00", REFUND, "r two", paid("refunded twice", "10.00", "EUR")),
            ("12:00", REFUND, {"anonymous_id": "clerk"}, paid("refunded twice", "5.50", "EUR", channel="store")),
        ],
        ("c:r two", "10:00", "web", 1, "30.00", "15.50", "EUR", 1, "33.00"),
    ),
    "refunded in another currency": (
        [
            ("10:00", ORDER, "r usd", paid("refunded in another currency", "30.00", "EUR")),
            ("11:00", REFUND, "r usd", paid("refunded in another currency", "11.00", "USD")),
            ("11:00", REFUND, "r usd", paid("refunded in another currency", "1.00", "EUR")),
            ("12:00", REFUND, "r usd", paid("refunded in another currency", "4.40", "GBP")),
        ],
        ("c:r usd", "10:00", "web", 1, "30.00", "16.00", "EUR", 1, "33.00"),
    ),
    "refunded without a rate": (
        [
            ("10:00", ORDER, "r sek", paid("refunded without a rate", "30.00")),
            ("11:00", REFUND, "r sek", paid("refunded without a rate", "11.00", "SEK")),
            ("11:30", REFUND, "r sek", paid("refunded without a rate", "2.00", "EUR")),
            ("11:30", REFUND, "r sek", paid("refunded without a rate")),
        ],
        ("c:r sek", "10:00", "web", 1, "30.00", "2.20", "USD", 1, "30.00"),
    ),
    "both without a rate": (
        [
            ("10:00", ORDER, "r nok", paid("both without a rate", "30.00", "SEK")),
            ("11:00", REFUND, "r nok", paid("both without a rate", "11.00", "SEK")),
        ],
        ("c:r nok", "10:00", "web", 1, "30.00", "11.00", "SEK", 1, None),
    ),
    "tied copies": (
        [
            ("10:00", ORDER, "tied", paid("tied copies", "2.00", id="80000000-0000-0000-0000-000000000001")),
            ("10:00", ORDER, "tied", paid("tied copies", "1.00", id="7fffffff-0000-0000-0000-000000000001")),
        ],
        ("c:tied", "10:00", "web", 1, "1.00", "0.00", "USD", 2, "1.00"),
    ),
}


@pytest.fixture(scope="module")
def built(new_pipeline: Callable[[], Any], event: Callable[..., dict[str, Any]]) -> Any:
    pipeline = new_pipeline()
    records = []
    for events, _ in ORDERS.values():
        for time, kind, who, given in events:
            fields = dict(given)
            given_id = fields.pop("id", None)
            record = event(kind, DAY + time, who, **fields)
            records.append(record | ({"event_id": given_id} if given_id else {}))
    records.append(event(ORDER, DAY + "10:00", "no number", amount="7.00", currency="USD", name="x"))
    records.append(event(ORDER, DAY + "10:00", "no number", amount="7.00", currency="USD", name="y"))
    pipeline.land(reversed(records))
    pipeline.build(as_of="2026-02-01 00:00", config=parse_config(RATES, source="journey.yml"))
    return pipeline


ROW = """
    select customer_key, strftime(ordered_at, '%H:%M'), channel, order_index, amount::varchar, refund_amount::varchar,
        currency, source_event_count, revenue::varchar
    from orders where order_id = '{}'"""


@pytest.mark.parametrize("order_id", ORDERS)
def test_what_an_order_says(built: Any, order_id: str) -> None:
    expected = ORDERS[order_id][1]
    if expected and expected[0].startswith("a:"):
        ((anonymous,),) = built.rows(f"select 'a:' || sha256('{expected[0][2:]}')[:16]")
        expected = (anonymous, *expected[1:])
    assert built.rows(ROW.format(order_id)) == ([expected] if expected else [])


def test_without_a_number_each_event_is_an_order(built: Any) -> None:
    rows = built.rows(
        "select order_id = event_id::varchar, order_index, revenue from orders where customer_key = 'c:no number'"
    )
    assert sorted(rows) == [(True, 1, 7), (True, 2, 7)]


def test_only_the_conversion_converts_and_its_copies_stay_touchpoints(built: Any) -> None:
    touchpoints = built.rows("""
        select
            strftime(occurred_at, '%H:%M'), customer_key like 'c:%', is_order_conversion, customer_order_index, stage,
            journey_id is not null
        from touchpoints where order_id = 'pixel under a cookie and shop' order by occurred_at""")
    assert touchpoints == [
        ("10:00", False, False, 0, "purchase", True),
        ("10:05", True, True, 1, "purchase", True),
        ("10:06", True, False, 1, "purchase", True),
    ]
    places = """
        select orders.journey_id = touchpoints.journey_id, orders.session_id = touchpoints.session_id
        from orders join touchpoints using (event_id)"""
    assert set(built.rows(places)) == {(True, True)}


def test_what_was_left_out_is_counted(built: Any) -> None:
    counts = built.rows("select check_name, numerator, denominator from build_counts where table_name = 'orders'")
    assert {name: (numerator, denominator) for name, numerator, denominator in counts} == {
        # two orders and one order's refund; an order and its refund count once
        "unconverted_currency_ratio": (3, 16),
        "order_copy_count": (8, 16),
        "order_without_customer_count": (1, 17),
    }


# One customer's life: when, what, then the orders so far and the whole days since the first.
LIFE = [
    ("2026-01-01 10:00:00", VIEW, {}, 0, None),
    ("2026-01-05 10:00:00", SENT, {"id": "00000010"}, 0, None),  # before the order, by its id
    ("2026-01-05 10:00:00", ORDER, {"id": "7fffffff", "order_id": "one"}, 1, 0),
    ("2026-01-05 10:00:00", SENT, {"id": "80000000"}, 1, 0),
    ("2026-01-06 09:59:59.999999", "signed_in", {}, 1, 0),
    ("2026-01-06 10:00:00", "signed_in", {}, 1, 1),
    ("2026-01-20 00:00:00", ORDER, {"order_id": "two"}, 2, 14),
    ("2026-01-20 00:00:00.000001", ORDER, {"order_id": "one"}, 2, 14),  # a late copy is no third
    ("2026-02-04 09:59:59.999999", "signed_in", {}, 2, 29),
    ("2026-02-04 10:00:00", "signed_in", {}, 2, 30),
    ("2026-02-05 00:00:00", ORDER, {"order_id": "three"}, 3, 30),
    ("2027-01-05 10:00:00", "email_opened", {"is_machine_open": True}, 3, 365),
]


def test_orders_so_far_and_whole_days_since_the_first(histories: Callable[..., Any]) -> None:
    life = [(when, kind, fields) for when, kind, fields, *_ in LIFE]
    built = histories({"life": life, "nobody": [(DAY + "10:00", ORDER, {"who": None})]}, as_of="2027-01-06 00:00")
    walk = """
        select customer_order_index, days_since_first_order from touchpoints
        where customer_key = 'c:life' order by occurred_at, event_id"""
    assert built.rows(walk) == [(index, days) for *_, index, days in LIFE]
    boundary = (
        "select days_since_first_order, stage from touchpoints where event_type = 'signed_in' order by occurred_at"
    )
    assert built.rows(boundary) == [(0, "onboarding"), (1, "onboarding"), (29, "onboarding"), (30, "retention")]
    assert built.rows("select order_id, order_index, source_event_count from orders order by order_index") == [
        ("one", 1, 2),
        ("two", 2, 1),
        ("three", 3, 1),
    ]
    nobody = "select customer_order_index, days_since_first_order, is_order_conversion, is_conversion from touchpoints"
    assert built.rows(f"{nobody} where customer_key is null") == [(None, None, False, False)]


def test_tied_orders_are_numbered_by_event_id(histories: Callable[..., Any]) -> None:
    tied = [
        (DAY + "10:00", ORDER, {"order_id": "b", "id": "80000000"}),
        (DAY + "10:00", ORDER, {"order_id": "a", "id": "7fffffff"}),
    ]
    assert histories({"c1": tied}).rows("select order_id, order_index from orders order by order_index") == [
        ("a", 1),
        ("b", 2),
    ]


def test_a_refund_that_precedes_its_order_still_fills_it(histories: Callable[..., Any]) -> None:
    steps = [(DAY + "09:00", REFUND, paid("o1", "1.00")), (DAY + "10:00", ORDER, paid("o1", "5.00"))]
    steps.append((DAY + "11:00", REFUND, paid("unknown", "1.00")))
    assert histories({"c1": steps}, as_of="2026-01-06 00:00").rows(
        "select order_id, refund_amount, revenue from orders"
    ) == [("o1", 1, 5)]
