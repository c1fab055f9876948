"""The ordered chain against ClickHouse's windowFunnel, written again in Python, on random histories full of ties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW_MINUTES = 6


def window_funnel(history: Iterable[tuple[int, int]], window: int, step_count: int = 6) -> int:
    """The level that ClickHouse's windowFunnel (default mode) gives (time, step) pairs; steps count from 1.

    It sorts by time, then step, and remembers for each step the start of the latest chain that reached it.
    """
    chain_starts: list[int | None] = [None] * (step_count + 1)
    for time, step in sorted(history):
        if step == 1:
            chain_starts[1] = time
            continue
        chain_start = chain_starts[step - 1]
        if chain_start is not None and time <= chain_start + window:
            chain_starts[step] = chain_start
    return max((step for step in range(1, step_count + 1) if chain_starts[step] is not None), default=0)


@pytest.mark.parametrize(
    ("history", "level"),
    [
        ([(0, 1), (1, 2), (2, 3)], 3),
        ([(0, 1), (7, 2)], 1),
        ([(0, 1), (6, 2)], 2),
        ([(0, 1), (5, 1), (7, 2)], 2),
        ([(0, 2), (0, 1)], 2),
        ([(0, 2), (1, 1)], 1),
        ([(0, 2), (1, 3)], 0),
        ([(0, 1), (3, 2), (5, 1), (8, 3)], 2),
        ([(0, 1), (3, 2), (5, 1), (6, 2), (8, 3)], 3),
    ],
)
def test_the_python_oracle_gives_the_known_levels(history: list[tuple[int, int]], level: int) -> None:
    assert window_funnel(history, WINDOW_MINUTES) == level


@pytest.mark.parametrize("seed", range(3))
def test_ordered_count_is_clickhouses_window_funnel(warehouse: Any, seed: int) -> None:
    generator = np.random.default_rng(seed)
    histories = 4000
    lengths = generator.integers(1, 14, histories)
    owners = np.repeat(np.arange(histories), lengths)
    count = len(owners)
    # Few distinct minutes make ties of equal and of different stages; a microsecond off tests the window's edge.
    minutes = generator.integers(0, 16, count)
    microseconds = minutes * 60_000_000 + generator.choice([0, 0, 0, 1], count)
    stages = np.minimum(generator.integers(1, 8, count), 6)
    lifecycle_stages = np.where(generator.random(count) < 0.1, 0, np.maximum(generator.integers(-1, 7, count), 1))
    _add_histories(warehouse, owners, microseconds, stages, lifecycle_stages, generator)
    window = f"{WINDOW_MINUTES} minutes"
    warehouse.build("2026-06-01", config=f"{{conversion_window: {window}, customer_conversion_window: {window}}}")
    for scope, steps in (("journey", stages), ("customer", lifecycle_stages)):
        levels = _levels(owners, microseconds, steps)
        expected = {step: sum(level >= step for level in levels) for step in range(1, 7)}
        ordered = dict(
            warehouse.rows(f"""
                select stage_index, ordered_count from stage_conversion
                where scope = '{scope}' and period = 'all' and breakdown = 'none'""")
        )
        assert ordered == expected
        reached = Counter(
            dict(
                warehouse.rows(f"""
                    select ordered_stage_index, count(*) from stage_chains where scope = '{scope}' group by all""")
            )
        )
        assert reached == Counter(level for level in levels if level)


def _levels(owners: Any, microseconds: Any, steps: Any) -> list[int]:
    histories: dict[int, list[tuple[int, int]]] = {int(owner): [] for owner in owners}
    for owner, time, step in zip(owners.tolist(), microseconds.tolist(), steps.tolist(), strict=True):
        if step:
            histories[owner].append((time, step))
    return [window_funnel(history, WINDOW_MINUTES * 60_000_000) for history in histories.values()]


def _add_histories(
    warehouse: Any, owners: Any, microseconds: Any, stages: Any, lifecycle_stages: Any, generator: Any
) -> None:
    names: Callable[[Any], list[str | None]] = lambda steps: [STAGES[step] for step in steps.tolist()]  # noqa: E731
    journeys = [warehouse.journey_id(str(owner)) for owner in range(int(owners.max()) + 1)]
    warehouse.add_columns(
        "touchpoints",
        {
            "event_id": [warehouse.event_id(int(value)) for value in generator.permutation(len(owners))],
            "customer_key": [f"c:{owner}" for owner in owners],
            "journey_id": [journeys[owner] for owner in owners],
            "channel": ["web"] * len(owners),
            "event_type": ["page_viewed"] * len(owners),
            "direction": ["inbound"] * len(owners),
            "occurred_at": [(START + timedelta(microseconds=int(us))).replace(tzinfo=None) for us in microseconds],
            "stage": names(stages),
            "stage_index": stages.tolist(),
            "lifecycle_stage": names(lifecycle_stages),
            "lifecycle_stage_index": [step or None for step in lifecycle_stages.tolist()],
        },
    )
    started_at = [START.replace(tzinfo=None)] * len(journeys)
    keys = [f"c:{owner}" for owner in range(len(journeys))]
    warehouse.add_columns(
        "journeys",
        {
            "journey_id": journeys,
            "customer_key": keys,
            "started_at": started_at,
            "status": ["abandoned"] * len(keys),
            "revenue": [0] * len(keys),
        },
    )
    warehouse.add_columns("customers", {"customer_key": keys, "first_touch_at": started_at, "revenue": [0] * len(keys)})


STAGES = [None, "awareness", "consideration", "purchase", "onboarding", "retention", "advocacy"]
