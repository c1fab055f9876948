"""Ten wholesale customers of a real shop: their invoices of 1 to 5 December 2010, of which only the day is known.

From the data set "Online Retail" (D. Chen, 2012, UCI Machine Learning Repository, CC BY 4.0). The expected figures were
worked out by hand.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

INVOICES = {
    "c:12841": [(3, "294.25"), (5, "211.74")],
    "c:13047": [(1, "278.73"), (1, "70.05"), (1, "17.85")],
    "c:13408": [(1, "1024.68"), (3, "534.00")],
    "c:13418": [(2, "610.64"), (2, "12.60")],
    "c:13448": [(1, "426.56"), (1, "17.40")],
    "c:13767": [(1, "507.88"), (2, "322.80"), (5, "806.28")],
    "c:14911": [(1, "540.38"), (1, "15.00"), (2, "22.50"), (3, "1705.65")],
    "c:15311": [(1, "449.98"), (5, "650.64")],
    "c:16029": [(1, "508.20"), (1, "3193.92"), (2, "569.40")],
    "c:17809": [(1, "34.80"), (3, "425.00"), (3, "791.70")],
}


@pytest.fixture
def shop(warehouse: Any) -> Any:
    for customer, invoices in INVOICES.items():
        warehouse.buy(customer, *((f"2010-12-{day:02}", amount) for day, amount in invoices))
        revenue = sum(Decimal(amount) for _, amount in invoices)
        first_day, _ = invoices[0]
        own = {"revenue": revenue, "order_count": len(invoices), "first_touch_at": f"2010-12-{first_day:02}"}
        warehouse.add("customers", {"customer_key": customer, **own})
    warehouse.build("2011-01-01")
    return warehouse


def test_seven_of_ten_came_back_on_another_day_though_all_have_two_invoices(shop: Any) -> None:
    columns = "customer_count, repeat_customer_count, repeat_by_order_count, order_count, median_days_between_orders"
    assert shop.rows(f"select {columns} from repeat_purchase where period = 'month'") == [(10, 7, 10, 26, 1.0)]


def test_who_started_on_the_first_comes_back_day_by_day(shop: Any) -> None:
    bounded = shop.rows("""
        select bounded_count from retention
        where period = 'day' and mode = 'calendar' and breakdown = 'none' and cohort_start_date = '2010-12-01'
            and start_event = 'first_order' and return_event = 'order'
        order by interval_index limit 5""")
    assert bounded == [(8,), (3,), (3,), (0,), (2,)]


def test_their_value_and_states(shop: Any) -> None:
    value = "select cumulative_revenue, cumulative_revenue_per_customer from customer_value"
    assert shop.rows(f"{value} where period = 'month' and is_complete") == [(Decimal("14042.63"), Decimal("1404.26"))]
    states = "select state, customer_count from lifecycle where period = 'day'"
    assert shop.rows(f"{states} and period_start_date = '2010-12-03' order by state") == [
        ("dormant", 3),  # 13418, 13767 and 16029 bought the day before
        ("inactive", 3),  # 13047, 13448 and 15311
        ("new", 1),  # 12841
        ("resurrected", 2),  # 13408 and 17809
        ("returning", 1),  # 14911
    ]
    sticky = "select active_days, customer_count from stickiness where period = 'month' order by active_days"
    assert shop.rows(sticky) == [(1, 3), (2, 5), (3, 2)]
    assert shop.rows("select period_start_date, active_customer_count from churn where period = 'month'") == [
        (date(2011, 1, 1), 10)
    ]
