"""Drop-off drivers: which journeys met a friction signal in a stage, and whether they advanced less often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Walk = Callable[..., None]


def met(warehouse: Any, name: str, at: str, *signals: str, **columns: Any) -> None:
    """A touchpoint of a journey, unstaged unless `stage` says otherwise, that shows friction signals."""
    row = {"customer_key": f"c:{name}", "journey_id": warehouse.journey_id(name), "occurred_at": at}
    warehouse.add("touchpoints", {**row, "is_friction": bool(signals), "friction_signals": list(signals), **columns})


def named(*signals: str) -> str:
    """A configuration with these signals; the rows say themselves where they hold."""
    return f"{{friction: [{', '.join(f'{{signal: {signal}, when: is_clock_skewed}}' for signal in signals)}]}}"


def counts(warehouse: Any, stage: str = "awareness") -> dict[str, tuple[int, ...]]:
    """By signal: advanced and dropped with it, advanced and dropped without."""
    rows = warehouse.rows(f"""
        select signal, with_signal_advanced, with_signal_dropped, without_signal_advanced, without_signal_dropped
        from drop_off_drivers where stage = '{stage}'""")
    return {row[0]: row[1:] for row in rows}


def test_a_drop_meets_signals_from_the_first_entry_to_the_exit(warehouse: Any, walk: Walk) -> None:
    walk("j", ("2026-01-01 10:00", "consideration"), ("2026-01-05", "consideration"), ("2026-02-20", "retention"))
    event_id = warehouse.event_id  # the walk's entry has the id 1
    met(warehouse, "j", "2026-01-01 09:59", "before", stage="awareness")
    met(warehouse, "j", "2026-01-01 10:00", "tied_before", event_id=event_id(0))
    met(warehouse, "j", "2026-01-01 10:00", "tied_after")
    met(warehouse, "j", "2026-01-31 09:00", "outbound_before_the_exit", direction="outbound")
    met(warehouse, "j", "2026-01-31 10:00", "at_the_window_end")  # the exit
    met(warehouse, "j", "2026-01-31 10:00", "tied_after_the_exit", direction="outbound")
    met(warehouse, "j", "2026-01-31 10:00:00.000001", "after_the_window")
    signals = ["before", "tied_before", "tied_after", "outbound_before_the_exit", "at_the_window_end"]
    signals += ["tied_after_the_exit", "after_the_window"]
    warehouse.build("2026-06-01", config=named(*signals))
    within, outside = (0, 1, 0, 0), (0, 0, 0, 1)
    assert counts(warehouse, "consideration") == {
        "before": outside,
        "tied_before": outside,
        "tied_after": within,
        "outbound_before_the_exit": within,
        "at_the_window_end": within,
        "tied_after_the_exit": outside,
        "after_the_window": outside,
    }


def test_an_advance_meets_signals_from_the_first_entry_to_the_touchpoint_before_it(warehouse: Any, walk: Walk) -> None:
    event_id = warehouse.event_id
    warehouse.event_count = 10
    met(warehouse, "j", "2026-01-01", "at_the_entry", stage="awareness", stage_index=1)
    walk("j", ("2026-01-01 10:00", "awareness"))
    met(warehouse, "j", "2026-01-02", "tied_before", event_id=event_id(5))
    met(warehouse, "j", "2026-01-02", "at_the_advance", stage="onboarding", stage_index=4)
    met(warehouse, "j", "2026-01-02", "tied_after")
    met(warehouse, "j", "2026-01-03", "back_in_the_stage", stage="awareness", stage_index=1)
    signals = ["at_the_entry", "tied_before", "at_the_advance", "tied_after", "back_in_the_stage"]
    warehouse.build("2026-06-01", config=named(*signals))
    within, outside = (1, 0, 0, 0), (0, 0, 1, 0)
    assert counts(warehouse) == {
        "at_the_entry": within,
        "tied_before": within,
        "at_the_advance": outside,
        "tied_after": outside,
        "back_in_the_stage": outside,
    }
    assert counts(warehouse, "onboarding")["at_the_advance"] == (0, 1, 0, 0)  # it is the entry there


def test_an_advance_at_the_very_instant_of_the_entry_leaves_only_what_lies_between(warehouse: Any, walk: Walk) -> None:
    event_id = warehouse.event_id
    walk("j", ("2026-01-01", "awareness"))  # id 1
    met(warehouse, "j", "2026-01-01", "purchase_before", stage="purchase", stage_index=3, event_id=event_id(0))
    met(warehouse, "j", "2026-01-01", "between", event_id=event_id(2))
    met(warehouse, "j", "2026-01-01", "advance", stage="purchase", stage_index=3, event_id=event_id(3))
    warehouse.build("2026-06-01", config=named("purchase_before", "between", "advance"))
    assert counts(warehouse) == {"purchase_before": (0, 0, 1, 0), "between": (1, 0, 0, 0), "advance": (0, 0, 1, 0)}


def test_a_touchpoint_that_is_entry_and_exit_at_once_counts(warehouse: Any, walk: Walk) -> None:
    walk("j", ("2026-03-01", "awareness"))
    met(warehouse, "k", "2026-01-01", "only_touchpoint", stage="awareness")
    own = {"customer_key": "c:k", "journey_id": warehouse.journey_id("k")}
    warehouse.add("journeys", {**own, "started_at": "2026-01-01"})
    warehouse.build("2026-06-01", config=named("only_touchpoint"))
    assert counts(warehouse) == {"only_touchpoint": (0, 1, 0, 1)}


def test_an_advance_after_the_window_is_a_drop_and_no_exit(warehouse: Any, walk: Walk) -> None:
    walk("j", ("2026-01-01", "awareness"), ("2026-02-01", "purchase"))
    met(warehouse, "j", "2026-01-20", "inside")
    met(warehouse, "j", "2026-01-25", "refund_after_the_exit", direction="outbound")
    warehouse.build("2026-06-01", config=named("inside", "refund_after_the_exit"))
    assert counts(warehouse) == {"inside": (0, 1, 0, 0), "refund_after_the_exit": (0, 0, 0, 1)}


def test_a_journey_counts_once_per_signal_and_its_other_journeys_do_not_count(warehouse: Any, walk: Walk) -> None:
    walk("j", ("2026-01-01", "awareness"))
    walk("k", ("2026-01-01", "awareness"), customer="c:j")
    for at in ("2026-01-02", "2026-01-03"):
        met(warehouse, "j", at, "twice", "beside")
    met(warehouse, "j", "2026-01-02", "of_no_journey", journey_id=None, direction="outbound")
    warehouse.build("2026-06-01", config=named("twice", "beside", "of_no_journey"))
    assert counts(warehouse) == {"twice": (0, 1, 0, 1), "beside": (0, 1, 0, 1), "of_no_journey": (0, 0, 0, 2)}


def test_the_active_and_service_journeys_are_left_out_and_every_decided_stage_has_every_signal(
    warehouse: Any, walk: Walk
) -> None:
    for name, day, stages, status in (
        ("done", "2026-01-01", ("consideration", "purchase"), "converted"),
        ("active", "2026-05-31", ("awareness", "advocacy"), "active"),
        ("service", "2026-01-01", ("retention",), "service"),
        ("waiting", "2026-05-20", ("onboarding",), "active"),
    ):
        walk(name, *((f"{day} 1{hour}:00", stage) for hour, stage in enumerate(stages)), status=status)
        met(warehouse, name, f"{day} 10:30", "error")
    warehouse.build("2026-06-01", config=named("error", "never_seen"))
    rows = warehouse.rows("""
        select stage, signal, with_signal_advanced, with_signal_dropped, without_signal_advanced,
            without_signal_dropped, odds_ratio, with_signal_conversion_ratio, without_signal_conversion_ratio
        from drop_off_drivers order by stage_index, signal""")
    assert rows == [  # nobody is decided in the last stage and in onboarding
        ("awareness", "error", 1, 0, 0, 0, None, 1.0, None),
        ("awareness", "never_seen", 0, 0, 1, 0, None, None, 1.0),
        ("consideration", "error", 1, 0, 0, 0, None, 1.0, None),
        ("consideration", "never_seen", 0, 0, 1, 0, None, None, 1.0),
        ("purchase", "error", 0, 0, 0, 1, None, None, 0.0),
        ("purchase", "never_seen", 0, 0, 0, 1, None, None, 0.0),
    ]


def test_the_odds_ratio_and_its_interval_are_those_worked_by_hand(warehouse: Any, walk: Walk) -> None:
    with_signal, without_signal = {"advanced": 15, "dropped": 9}, {"advanced": 30, "dropped": 40}
    number = 0
    for group in (with_signal, without_signal):
        for outcome, size in group.items():
            for _ in range(size):
                number += 1
                later = (("2026-01-03", "consideration"),) if outcome == "advanced" else ()
                walk(str(number), ("2026-01-01", "awareness"), *later)
                if number <= 24:
                    met(warehouse, str(number), "2026-01-02", "of_24", "of_25")
    met(warehouse, "25", "2026-01-02", "of_25")
    warehouse.build("2026-06-01", config=named("of_24", "of_25"))
    rows = warehouse.rows("""
        select signal, odds_ratio, odds_ratio_low, odds_ratio_high, is_small_sample
        from drop_off_drivers where stage = 'awareness' order by signal""")
    # (15.5 * 40.5) / (9.5 * 30.5) = 2.1665; exp(ln 2.1665 -+ 1.96 * sqrt(1/15.5 + 1/9.5 + 1/30.5 + 1/40.5))
    assert rows[0] == ("of_24", *(pytest.approx(number, abs=5e-4) for number in (2.1665, 0.8511, 5.5150)), True)
    assert rows[1][0] == "of_25"
    assert rows[1][1] == pytest.approx((16.5 * 40.5) / (9.5 * 29.5))
    assert rows[1][4] is False


def test_without_journeys_there_is_no_row(warehouse: Any) -> None:
    warehouse.build("2026-06-01")
    assert warehouse.rows("from drop_off_drivers") == []
