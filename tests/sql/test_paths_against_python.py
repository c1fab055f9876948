"""Transitions, path steps, top paths and conversion propensity against plain Python, in exact fractions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import groupby, pairwise
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pytest

from transforms import stage_visits

START = datetime(2026, 1, 1)
STAGES = [None, "awareness", "consideration", "purchase", "onboarding", "retention", "advocacy"]
CHANNELS = ["web", "email", "store"]
EVENT_TYPES = ["page_viewed", "cart_viewed", "nps_submitted"]
END = {"converted": "(converted)", "abandoned": "(abandoned)", "active": "(active)", "service": "(service)"}
STEP_LIMIT = 20


class Touch(NamedTuple):
    """An inbound touchpoint; tuples sort by time, then event id."""

    at: datetime
    event_id: str
    channel: str
    event_type: str
    stage: str | None
    is_conversion: bool


class Journey(NamedTuple):
    """A journey and its touchpoints in order."""

    status: str
    touches: list[Touch]

    @property
    def path(self) -> str | None:
        return " > ".join(value for value, _ in self.steps("stage")) or None

    def steps(self, level: str) -> list[tuple[str, datetime]]:
        """Value and beginning of each step."""
        if level == "event_type":
            return [(touch.event_type, touch.at) for touch in self.touches]
        seen = [(touch.channel if level == "channel" else touch.stage, touch.at) for touch in self.touches]
        runs = groupby(((value, at) for value, at in seen if value), key=lambda step: step[0])
        return [next(run) for _, run in runs]

    def chain(self) -> list[tuple[str | None, str, str]]:
        """The states before the conversion."""
        states = []
        for touch in self.touches:
            if touch.is_conversion:
                break
            states.append((touch.stage or "(none)", touch.channel, touch.event_type))
        return states


def random_journeys(warehouse: Any, seed: int, count: int) -> list[Journey]:
    generator = np.random.default_rng(seed)
    journeys = []
    for _ in range(count):
        status = list(END)[generator.choice(4, p=[0.35, 0.45, 0.1, 0.1])]
        length = int(generator.integers(1, 9)) if generator.random() < 0.95 else 25
        touches = sorted(
            Touch(
                START + timedelta(seconds=int(generator.integers(0, 8))),  # ties abound
                warehouse.event_id(int(generator.integers(1, 2**62))),
                CHANNELS[generator.choice(3, p=[0.7, 0.2, 0.1])],
                EVENT_TYPES[generator.integers(0, 3)],
                STAGES[min(int(generator.geometric(0.4)) - 1, 6)],
                is_conversion=False,
            )
            for _ in range(length)
        )
        if status == "converted":
            place = int(generator.integers(0, length))
            touches[place] = touches[place]._replace(is_conversion=True)
        journeys.append(Journey(status, touches))
    return journeys


def fill(warehouse: Any, journeys: list[Journey], seed: int) -> None:
    rows = [(number, touch) for number, journey in enumerate(journeys) for touch in journey.touches]
    np.random.default_rng(seed).shuffle(rows)  # type: ignore[arg-type]
    warehouse.add_columns(
        "touchpoints",
        {
            "event_id": [touch.event_id for _, touch in rows],
            "journey_id": [warehouse.journey_id(str(number)) for number, _ in rows],
            "customer_key": [f"c:{number // 3}" for number, _ in rows],
            "direction": ["inbound"] * len(rows),
            "occurred_at": [touch.at for _, touch in rows],
            "channel": [touch.channel for _, touch in rows],
            "event_type": [touch.event_type for _, touch in rows],
            "stage": [touch.stage for _, touch in rows],
            "is_conversion": [touch.is_conversion for _, touch in rows],
        },
    )
    converted_at = [next((t.at for t in journey.touches if t.is_conversion), None) for journey in journeys]
    warehouse.add_columns(
        "journeys",
        {
            "journey_id": [warehouse.journey_id(str(number)) for number in range(len(journeys))],
            "customer_key": [f"c:{number // 3}" for number in range(len(journeys))],
            "status": [journey.status for journey in journeys],
            "path": [journey.path for journey in journeys],
            "started_at": [journey.touches[0].at for journey in journeys],
            "ended_at": [journey.touches[-1].at for journey in journeys],
            "converted_at": converted_at,
            "time_to_convert_seconds": [
                (at - journey.touches[0].at).total_seconds() if at else None
                for at, journey in zip(converted_at, journeys, strict=True)
            ],
        },
    )
    stage_visits.build(warehouse.con)


@pytest.mark.parametrize("seed", range(2))
def test_hundreds_of_journeys_are_what_plain_loops_count(warehouse: Any, seed: int) -> None:
    check(warehouse, random_journeys(warehouse, seed, 300), seed)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 130))
def test_thousands_of_journeys_are_what_plain_loops_count(warehouse: Any, seed: int) -> None:
    check(warehouse, random_journeys(warehouse, seed, 1000), seed)


def check(warehouse: Any, journeys: list[Journey], seed: int) -> None:
    fill(warehouse, journeys, seed)
    warehouse.build("2026-06-01")
    check_transitions(warehouse, journeys)
    check_path_steps(warehouse, journeys)
    check_top_paths(warehouse, journeys)
    check_propensity(warehouse, journeys)


def check_transitions(warehouse: Any, journeys: list[Journey]) -> None:
    counts: Counter[tuple[str, str, str]] = Counter()
    seconds: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    leaving: Counter[tuple[str, str]] = Counter()
    for level in ("event_type", "channel", "stage"):
        for journey in journeys:
            steps = journey.steps(level)
            values = ["(start)", *(value for value, _ in steps), END[journey.status]]
            counts.update((level, *pair) for pair in pairwise(values))
            leaving.update((level, value) for value in values[:-1])
            for (value, at), (following, later) in pairwise(steps):
                seconds[level, value, following].append((later - at).total_seconds())
    rows = warehouse.rows(
        "select level, from_value, to_value, transition_count, share, median_seconds from transitions"
    )
    assert {row[:3]: row[3] for row in rows} == counts
    for row in rows:
        assert row[4] == pytest.approx(row[3] / leaving[row[:2]], abs=1e-12)
        assert row[5] == (median(seconds[row[:3]]) if row[:3] in seconds else None)


def check_path_steps(warehouse: Any, journeys: list[Journey]) -> None:
    here: Counter[tuple[str, int, str]] = Counter()
    following: Counter[tuple[str, int, str, str]] = Counter()
    for level in ("event_type", "channel", "stage"):
        for journey in journeys:
            values = [*(value for value, _ in journey.steps(level)), END[journey.status]]
            for index, (value, after) in enumerate(pairwise(values[: STEP_LIMIT + 1]), 1):
                here[level, index, value] += 1
                following[level, index, value, after] += 1
    rows = warehouse.rows("select level, step_index, value, next_value, journey_count, next_count from path_steps")
    assert {row[:4]: row[4:] for row in rows} == {
        (*key, after): (here[key], count) for (*key, after), count in following.items() for key in [tuple(key)]
    }


def check_top_paths(warehouse: Any, journeys: list[Journey]) -> None:
    expected = {}
    for path in {journey.path for journey in journeys}:
        group = [journey for journey in journeys if journey.path == path]
        counts = Counter(journey.status for journey in group)
        seconds = [(journey.touches[-1].at - journey.touches[0].at).total_seconds() for journey in group]
        decided = counts["converted"] + counts["abandoned"]
        ratio = counts["converted"] / decided if decided else None
        expected[path or "(none)"] = (len(group), counts["converted"], ratio, median(seconds), decided)
    rows = warehouse.rows("""
        select path, journey_count, converted_count, conversion_ratio, median_seconds, decided_count from top_paths""")
    assert {row[0]: row[1:] for row in rows} == expected


def check_propensity(warehouse: Any, journeys: list[Journey]) -> None:
    decided = [journey for journey in journeys if journey.status in ("converted", "abandoned")]
    solution = solve([[*journey.chain(), END[journey.status]] for journey in decided])
    expected = {}
    for state, (probability, steps) in solution.items():
        visitors = [journey for journey in decided if state in journey.chain()]
        converted = sum(journey.status == "converted" for journey in visitors)
        mean = None if steps is None else pytest.approx(float(steps), rel=1e-11)
        expected[state] = (len(visitors), pytest.approx(float(probability), abs=1e-12), mean, converted)
    rows = warehouse.rows("""
        select stage, channel, event_type, journey_count, conversion_probability, mean_steps_to_conversion,
            converted_count
        from conversion_propensity""")
    assert {row[:3]: row[3:] for row in rows} == expected
    assert {row[4] for row in rows if row[5] is None} <= {0.0}


State = Any


def solve(walks: list[list[State]]) -> dict[State, tuple[Fraction, Fraction | None]]:
    """Probability of conversion and, in the chain conditioned on it, the mean number of steps; all in fractions."""
    counts: dict[State, Counter[State]] = defaultdict(Counter)
    for walk in walks:
        for state, following in pairwise(walk):
            counts[state][following] += 1
    chain = {
        state: {following: Fraction(number, after.total()) for following, number in after.items()}
        for state, after in counts.items()
    }
    probability = linear(chain, {state: after.get("(converted)", Fraction(0)) for state, after in chain.items()})
    possible = {state for state, value in probability.items() if value}
    conditioned = {
        state: {
            following: share * (1 if following == "(converted)" else probability[following]) / probability[state]
            for following, share in chain[state].items()
            if following == "(converted)" or following in possible
        }
        for state in possible
    }
    assert all(sum(after.values()) == 1 for after in conditioned.values())
    steps = linear(conditioned, dict.fromkeys(conditioned, Fraction(1)))
    return {state: (probability[state], steps.get(state)) for state in chain}


def linear(chain: dict[State, dict[State, Fraction]], constant: dict[State, Fraction]) -> dict[State, Fraction]:
    """The x with x(s) = constant(s) + sum of chain(s, t) x(t), by eliminating one state after the other."""
    states = list(chain)
    rows = {state: {key: share for key, share in chain[state].items() if key in chain} for state in states}
    values = dict(constant)
    for place, state in enumerate(states):
        loop = 1 / (1 - rows[state].pop(state, Fraction(0)))
        rows[state] = {key: share * loop for key, share in rows[state].items()}
        values[state] *= loop
        for other in _others(rows, states[place + 1 :], state):
            share = rows[other].pop(state)
            values[other] += share * values[state]
            for key, further in rows[state].items():
                rows[other][key] = rows[other].get(key, Fraction(0)) + share * further
    for state in reversed(states):
        values[state] += sum((share * values[key] for key, share in rows[state].items()), Fraction(0))
    return values


def _others(rows: dict[State, dict[State, Fraction]], states: list[State], state: State) -> Iterator[State]:
    return (other for other in states if state in rows[other])
