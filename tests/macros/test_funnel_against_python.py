"""The funnel against funnel_reference.py, which tries every chain: random histories full of ties, repeats and edges."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from types import ModuleType
from typing import Any

import pytest

from examples.local_transport import load_script
from warehouse.funnel import Funnel

reference: ModuleType = load_script("tests/macros/funnel_reference.py")

START = datetime(2026, 1, 1, tzinfo=UTC)
MODES = ("default", "strict_order", "strict_deduplication", "strict_increase", "strict_once", "unordered")
STEPS = (
    ["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"], ["a", "a", "b"], ["a", "b", "a"], ["a", "b", "b", "c"],
    ["a", "a", "a"],
)  # fmt: skip
LAST_MINUTE = 12


def random_options(random: Random, step_count: int, mode: str, counting: str) -> Any:
    options = reference.Options(
        step_count,
        window=random.choice([0, 3, 5, 20]),
        mode=mode,
        counting=counting,
        since=random.choice([None, None, 3]),
        until=random.choice([None, None, 7]),
        as_of=random.randint(LAST_MINUTE, 2 * LAST_MINUTE),
    )
    if step_count > 1 and mode != "unordered":
        after = random.randint(1, step_count - 1)
        options = replace(
            options, exclude_after=after, exclude_before=random.choice([None, random.randint(after + 1, step_count)])
        )
    return options


def fill(publication: Any, histories: dict[str, list[Any]], columns: dict[str, list[Any]]) -> None:
    """One row per touch, in the order of `histories`; `columns` adds to the usual ones."""
    touches = [(customer, touch) for customer, history in histories.items() for touch in history]
    publication.empty("touchpoints")
    publication.add_columns(
        "touchpoints",
        {
            "event_id": [publication.event_id(touch.id) for _, touch in touches],
            "customer_key": [customer for customer, _ in touches],
            "direction": ["inbound"] * len(touches),
            "occurred_at": [START + timedelta(minutes=touch.time) for _, touch in touches],
            **columns,
        },
    )


def counted(publication: Any, sql: str) -> Counter[Any]:
    """The attempts as (customer, level, minutes, is_open, held value)."""
    return Counter(
        (customer, len(times), tuple((time - START) // timedelta(minutes=1) for time in times), is_open, held)
        for customer, times, is_open, held in publication.rows(f"""
            select customer_key, list(occurred_at order by step), bool_or(is_open), coalesce(held_value, '')
            from ({sql}) group by customer_key, held_value, started_at""")
    )


def expected(histories: dict[str, list[Any]], options: Any) -> Counter[Any]:
    return Counter(
        (customer, outcome.level, outcome.times, outcome.is_open, outcome.held)
        for customer, history in histories.items()
        for outcome in reference.outcomes(history, options)
    )


def check_event_types(publication: Any, seed: int, mode: str, counting: str, customers: int) -> None:
    """Steps by event type, which may repeat among the steps; exclusions, a held property and a period now and then."""
    random = Random(f"{seed} {mode} {counting}")
    steps = random.choice(STEPS)
    excluded = random.choice([[], ["x"], ["x", "b"]]) if len(steps) > 1 else []
    holds = random.random() < 0.3
    options = random_options(random, len(steps), mode, counting)
    histories: dict[str, list[Any]] = {}
    event_types: list[str] = []
    for customer in range(customers):
        history = histories.setdefault(f"c:{customer}", [])
        for _ in range(random.randint(0, 9)):
            event_types.append(random.choice([*steps, *steps, "x", "other"]))
            history.append(
                reference.Touch(
                    id=len(event_types),
                    time=random.randint(0, LAST_MINUTE),
                    steps=frozenset(step for step, name in enumerate(steps, 1) if name == event_types[-1]),
                    is_excluded=event_types[-1] in excluded,
                    held=random.choice(["p", "q", None]) if holds else "",
                )
            )
    held = [touch.held for history in histories.values() for touch in history]
    fill(publication, histories, {"event_type": event_types, "product_id": held})
    publication.describe((START + timedelta(minutes=options.as_of)).replace(tzinfo=None).isoformat())
    arguments = [
        str(steps), f"within := interval {options.window} minutes", f"mode := '{mode}'", f"counting := '{counting}'",
        f"exclude := {excluded}", f"exclude_after := {options.exclude_after}",
        f"exclude_before := {options.exclude_before or 'null'}", *(["hold := 'product_id'"] if holds else []),
        *(f"{name} := timestamp '{START + timedelta(minutes=minute):%Y-%m-%d %H:%M}'"
          for name, minute in (("since", options.since), ("until", options.until)) if minute is not None),
    ]  # fmt: skip
    sql = f"from funnel_attempts({', '.join(arguments)})"
    assert counted(publication, sql) == expected(histories, options), sql


def check_expressions(publication: Any, seed: int, mode: str, counting: str, customers: int) -> None:
    """Steps by conditions that one touchpoint may meet several of: the command's own macros."""
    random = Random(f"{seed} {mode} {counting} conditions")
    count = random.randint(1, 4)
    options = random_options(random, count, mode, counting)
    histories: dict[str, list[Any]] = {}
    masks: list[int | None] = []
    for customer in range(customers):
        history = histories.setdefault(f"c:{customer}", [])
        for _ in range(random.randint(0, 7)):
            masks.append(random.choice([None, 0, *(1 << step for step in range(count)), random.randrange(1 << count)]))
            history.append(
                reference.Touch(
                    id=len(masks),
                    time=random.randint(0, LAST_MINUTE),
                    steps=frozenset(step for step in range(1, count + 1) if (masks[-1] or 0) >> (step - 1) & 1),
                    is_excluded=random.random() < 0.1,
                    held=random.choice(["P", "Q", None]),
                )
            )
    touches = [touch for history in histories.values() for touch in history]
    fill(
        publication,
        histories,
        {
            "event_type": ["page_viewed"] * len(touches),
            "nps_score": masks,
            "is_friction": [touch.is_excluded or None for touch in touches],
            "product_id": [touch.held and touch.held.lower() for touch in touches],
        },
    )
    publication.describe((START + timedelta(minutes=options.as_of)).replace(tzinfo=None).isoformat())
    minutes = {
        name: None if minute is None else f"{START + timedelta(minutes=minute):%Y-%m-%d %H:%M}"
        for name, minute in (("since", options.since), ("until", options.until))
    }
    asked = Funnel(
        steps=[f"step {step}: (nps_score & {1 << (step - 1)}) > 0" for step in range(1, count + 1)],
        within=f"{options.window} minutes",
        mode=mode,
        counting=counting,
        hold="upper(product_id)",
        exclude=["is_friction"] if count > 1 else [],
        exclude_after=options.exclude_after,
        exclude_before=options.exclude_before,
        **minutes,
    )
    for macro in asked.macros():
        publication.con.execute(macro)
    sql = asked.select(attempts=True)
    assert counted(publication, sql.partition("\norder by")[0]) == expected(histories, options), sql


@pytest.mark.parametrize("counting", ["unique", "total"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_counting_agrees_with_trying_every_chain(
    shared_publication: Any, mode: str, counting: str
) -> None:
    for seed in range(3):
        check_event_types(shared_publication, seed, mode, counting, customers=120)
    check_expressions(shared_publication, 0, mode, counting, customers=120)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("strict_order", "strict_deduplication")])
def test_a_customers_furthest_attempt_is_what_unique_counts(shared_publication: Any, mode: str) -> None:
    check_event_types(shared_publication, 7, mode, "total", customers=300)
    steps = "['a', 'b', 'c'], within := interval 4 minutes"
    furthest = f"""
        select customer_key, max(step) from funnel_attempts({steps}, mode := '{mode}', counting := '{{}}')
        group by customer_key order by all"""
    assert shared_publication.rows(furthest.format("total")) == shared_publication.rows(furthest.format("unique")) != []


@pytest.mark.campaign
@pytest.mark.parametrize("counting", ["unique", "total"])
@pytest.mark.parametrize("mode", MODES)
def test_thousands_of_histories_agree_with_trying_every_chain(
    shared_publication: Any, figures: Any, mode: str, counting: str
) -> None:
    seeds, customers = 25, 200
    for seed in range(100, 100 + seeds):
        check_event_types(shared_publication, seed, mode, counting, customers)
        check_expressions(shared_publication, seed, mode, counting, customers)
    figures(histories=2 * seeds * customers, mode=mode, counting=counting)
