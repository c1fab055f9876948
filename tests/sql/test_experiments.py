"""Experiments: who is assigned to what, what counts as a conversion, and how lift and p-value are reckoned."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from scipy import stats


def view(warehouse: Any, customer: str, variant: str, at: str, *, experiment: str = "layout", **columns: Any) -> None:
    row = {"customer_key": customer, "event_type": "experiment_viewed", "direction": "outbound", "occurred_at": at}
    warehouse.add("touchpoints", {**row, "experiment": experiment, "variant": variant, **columns})


def order(warehouse: Any, customer: str, at: str, **columns: Any) -> None:
    warehouse.add("orders", {"customer_key": customer, "ordered_at": at, "order_id": f"{customer} {at}", **columns})


def results(warehouse: Any, *columns: str, experiment: str = "layout") -> dict[str, tuple[Any, ...]]:
    rows = warehouse.rows(f"select variant, {', '.join(columns)} from experiments where experiment = '{experiment}'")
    return {row[0]: row[1:] for row in rows}


def crowd(warehouse: Any, experiment: str, groups: dict[str, tuple[int, int]]) -> None:
    """Customers with an assignment, of whom the first so many ordered; variant to (converted, customers)."""
    customers = [
        (variant, f"c:{experiment}/{variant}/{number}", number < converted)
        for variant, (converted, size) in groups.items()
        for number in range(size)
    ]
    ids = [warehouse.event_id(warehouse.event_count + number) for number in range(1, 2 * len(customers) + 1)]
    warehouse.event_count += len(ids)
    assigned_at = np.datetime64("2026-01-01", "us")
    assign(warehouse, [experiment] * len(customers), [row[0] for row in customers], [row[1] for row in customers], ids)
    bought = [(key, event_id) for (_, key, has), event_id in zip(customers, ids[len(customers) :], strict=True) if has]
    if bought:
        buy(warehouse, bought, assigned_at + np.timedelta64(1, "D"))


def assign(
    warehouse: Any, experiments: Sequence[str], variants: Sequence[str], customers: Sequence[str], ids: Sequence[str]
) -> None:
    size = len(customers)
    warehouse.add_columns(
        "touchpoints",
        {
            "event_id": ids[:size],
            "customer_key": customers,
            "channel": ["web"] * size,
            "event_type": ["experiment_viewed"] * size,
            "direction": ["outbound"] * size,
            "occurred_at": np.full(size, np.datetime64("2026-01-01", "us")),
            "experiment": experiments,
            "variant": variants,
        },
    )


def buy(warehouse: Any, bought: Sequence[tuple[str, str]], at: np.datetime64) -> None:
    warehouse.add_columns(
        "orders",
        {
            "order_id": [event_id for _, event_id in bought],
            "event_id": [event_id for _, event_id in bought],
            "customer_key": [key for key, _ in bought],
            "channel": ["web"] * len(bought),
            "ordered_at": np.full(len(bought), at),
            "order_index": [1] * len(bought),
            "revenue": [Decimal("10.00")] * len(bought),
        },
    )


def test_a_conversion_is_an_order_after_the_assignment_and_within_the_window(warehouse: Any) -> None:
    event_id = warehouse.event_id
    cases = {
        "before": ("2025-12-31", 1, 0),
        "tied_before": ("2026-01-01 10:00", 1, 0),
        "tied_after": ("2026-01-01 10:00", 3, 1),
        "at_the_window_end": ("2026-01-31 10:00", 1, 1),
        "after_the_window": ("2026-01-31 10:00:00.000001", 3, 0),
    }
    for number, (variant, (at, place, _)) in enumerate(cases.items(), 1):
        view(warehouse, f"c:{variant}", variant, "2026-01-01 10:00", event_id=event_id(10 * number + 2))
        order(warehouse, f"c:{variant}", at, event_id=event_id(10 * number + place), revenue=5)
    order(warehouse, "c:somebody_else", "2026-01-02")
    warehouse.build("2026-06-01")
    assert results(warehouse, "customer_count", "converted_count", "revenue") == {
        variant: (1, converted, Decimal(5 * converted)) for variant, (_, _, converted) in cases.items()
    }


def test_the_first_view_assigns_and_who_saw_another_variant_is_excluded(warehouse: Any) -> None:
    view(warehouse, "c:1", "control", "2026-01-05")
    view(warehouse, "c:1", "control", "2026-03-01")
    order(warehouse, "c:1", "2026-03-02")  # after the second view's window had it been the assignment
    view(warehouse, "c:2", "control", "2026-01-05")
    view(warehouse, "c:2", "one_page", "2026-03-01")
    order(warehouse, "c:2", "2026-01-06")
    view(warehouse, "c:3", "one_page", "2026-01-05", event_id=warehouse.event_id(91))
    view(warehouse, "c:3", "control", "2026-01-05", event_id=warehouse.event_id(90))
    view(warehouse, "c:4", "control", "2026-01-05", experiment="colour")
    view(warehouse, "c:4", "one_page", "2026-01-05")
    warehouse.add("touchpoints", {"customer_key": "c:5", "occurred_at": "2026-01-05", "experiment": "layout",
        "variant": "control", "event_type": "page_viewed"})  # names the experiment, and is no assignment  # fmt: skip
    view(warehouse, None, "control", "2026-01-05")  # type: ignore[arg-type]  # nobody
    warehouse.build("2026-06-01")
    columns = ("customer_count", "converted_count", "excluded_count", "pending_count")
    assert results(warehouse, *columns) == {"control": (1, 0, 2, 0), "one_page": (1, 0, 0, 0)}
    assert results(warehouse, *columns, experiment="colour") == {"control": (1, 0, 0, 0)}


def test_a_variant_that_nobody_saw_first_has_a_row_of_nothing(warehouse: Any) -> None:
    view(warehouse, "c:1", "control", "2026-01-05")
    view(warehouse, "c:1", "one_page", "2026-01-06")
    warehouse.build("2026-06-01")
    columns = ("customer_count", "excluded_count", "conversion_ratio", "lift", "p_value", "revenue_per_customer")
    assert results(warehouse, *columns) == {
        "control": (0, 1, None, None, None, None),
        "one_page": (0, 0, None, None, None, None),
    }


def test_customers_whose_window_has_not_passed_are_pending_even_if_they_converted(warehouse: Any) -> None:
    for customer, at in (("c:over", "2026-05-01 23:59:59.999999"), ("c:open", "2026-05-02"), ("c:new", "2026-05-31")):
        view(warehouse, customer, "control", at)
        order(warehouse, customer, "2026-05-31 12:00", revenue=7)
    for variant in ("control", "one_page"):
        view(warehouse, "c:both", variant, "2026-05-31")  # saw both: excluded now and later
    warehouse.build("2026-06-01")  # 30 days after 2 May
    columns = ("customer_count", "converted_count", "pending_count", "excluded_count", "revenue")
    assert results(warehouse, *columns)["control"] == (1, 1, 2, 1, Decimal(7))


def test_lift_is_the_difference_from_the_control_with_newcombes_published_interval(warehouse: Any) -> None:
    crowd(warehouse, "layout", {"control": (48, 80), "one_page": (56, 70), "empty": (0, 5)})
    warehouse.build("2026-06-01")
    found = results(warehouse, "is_control", "conversion_ratio", "lift", "lift_low", "lift_high", "p_value")
    assert found["control"] == (True, 0.6, None, None, None, None)
    # pooled 104/150; z = 0.2 / sqrt(0.69333 * 0.30667 * (1/70 + 1/80)) = 2.6500
    assert found["one_page"] == (
        False, 0.8, pytest.approx(0.2), pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5),
        pytest.approx(0.00805, abs=5e-6),
    )  # fmt: skip
    assert found["empty"][:3] == (False, 0.0, -0.6)


def test_the_control_is_the_configured_variant_where_there_is_one(warehouse: Any) -> None:
    crowd(warehouse, "layout", {"control": (2, 4), "two_pages": (1, 4)})
    crowd(warehouse, "colour", {"control": (2, 4), "red": (1, 4)})
    crowd(warehouse, "font", {"small": (2, 4), "large": (1, 4)})
    crowd(warehouse, "logo", {"control": (2, 4), "new": (1, 4)})
    warehouse.build("2026-06-01", config="{experiment_controls: {layout: two_pages, logo: never_shown}}")
    columns = ("is_control", "lift")
    assert results(warehouse, *columns) == {"control": (False, 0.25), "two_pages": (True, None)}
    assert results(warehouse, *columns, experiment="colour") == {"control": (True, None), "red": (False, -0.25)}
    assert results(warehouse, *columns, experiment="font") == {"small": (False, None), "large": (False, None)}
    assert results(warehouse, *columns, experiment="logo") == {"control": (False, None), "new": (False, None)}


def test_p_values_are_those_of_pearsons_chi_square_and_null_where_nothing_varies(warehouse: Any) -> None:
    tables = [((1, 3), (2, 3)), ((0, 9), (4, 9)), ((40, 50), (10, 60)), ((5, 10), (5, 10)), ((7, 7), (3, 8))]
    for number, (control, variant) in enumerate(tables):
        crowd(warehouse, f"e{number}", {"control": control, "variant": variant})
    crowd(warehouse, "nobody", {"control": (0, 5), "variant": (0, 6)})
    crowd(warehouse, "everybody", {"control": (5, 5), "variant": (6, 6)})
    warehouse.build("2026-06-01")
    for number, groups in enumerate(tables):
        observed = [[converted, size - converted] for converted, size in groups]
        expected = stats.chi2_contingency(observed, correction=False).pvalue
        assert results(warehouse, "p_value", experiment=f"e{number}")["variant"] == (pytest.approx(expected),)
    for name in ("nobody", "everybody"):
        assert results(warehouse, "lift", "p_value", experiment=name)["variant"] == (0.0, None)


def test_revenue_is_that_of_all_orders_within_the_window_shared_by_all_customers(warehouse: Any) -> None:
    for number in (1, 2, 3):
        view(warehouse, f"c:{number}", "control", "2026-01-01")
    orders = [("2026-01-02", "10.00"), ("2026-01-03", None), ("2026-01-30", "5.01"), ("2026-02-01", "99.00")]
    for index, (at, revenue) in enumerate(orders, 1):
        order(warehouse, "c:1", at, revenue=revenue, order_index=index)
    order(warehouse, "c:2", "2026-01-02", revenue=None)  # an amount without a rate
    warehouse.build("2026-06-01")
    columns = ("customer_count", "converted_count", "revenue", "revenue_per_customer")
    assert results(warehouse, *columns) == {"control": (3, 2, Decimal("15.01"), Decimal("5.00"))}


def test_without_experiments_there_is_no_row(warehouse: Any) -> None:
    warehouse.build("2026-06-01")
    assert warehouse.rows("from experiments") == []


def random_experiments(warehouse: Any, *, experiment_count: int, customer_count: int, seed: int) -> list[Any]:
    """A/A: the same customers, some of whom buy, parted anew by a coin for every experiment; what came of each."""
    generator = np.random.default_rng(seed)
    customers = [f"c:{number}" for number in range(customer_count)]
    size = experiment_count * customer_count
    ids = [warehouse.event_id(number) for number in range(1, size + customer_count + 1)]
    names = np.repeat([f"e{number}" for number in range(experiment_count)], customer_count)
    variants = np.where(generator.random(size) < 0.5, "control", "same_again")
    assign(warehouse, names.tolist(), variants.tolist(), customers * experiment_count, ids)
    buyers = [key for key, has in zip(customers, generator.random(customer_count) < 0.3, strict=True) if has]
    buy(warehouse, list(zip(buyers, ids[size:], strict=False)), np.datetime64("2026-01-10", "us"))
    warehouse.build("2026-06-01")
    rows: list[Any] = warehouse.rows("select p_value, lift_low, lift_high from experiments where not is_control")
    assert len(rows) == experiment_count
    return rows


def assert_not_more_often_than_chance(rows: list[Any]) -> None:
    most = stats.binom.ppf(0.999, len(rows), 0.05)
    assert sum(p_value < 0.05 for p_value, _, _ in rows) <= most
    assert sum(low > 0 or high < 0 for _, low, high in rows) <= most


def test_two_equal_variants_differ_not_more_often_than_chance(warehouse: Any) -> None:
    assert_not_more_often_than_chance(random_experiments(warehouse, experiment_count=100, customer_count=150, seed=1))


@pytest.mark.campaign
def test_two_equal_variants_differ_not_more_often_than_chance_in_thousands_of_experiments(
    warehouse: Any, figures: Any
) -> None:
    rows = random_experiments(warehouse, experiment_count=4000, customer_count=300, seed=2)
    assert_not_more_often_than_chance(rows)
    p_values = np.array([row[0] for row in rows])
    for level in (0.01, 0.1, 0.5):
        assert (p_values < level).sum() <= stats.binom.ppf(0.999, len(rows), level * 1.1)
    figures(experiments=len(rows), significant=int((p_values < 0.05).sum()))
