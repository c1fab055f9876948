"""The funnel against ClickHouse itself (chdb runs it in this process): windowFunnel in every mode, on random histories.

The histories are made to be hard: few distinct times, so that most touchpoints tie; repeats; touchpoints that serve no
step or several; NULL conditions; gaps that end on the window, and a microsecond past it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.local_transport import load_script
from warehouse.funnel import Funnel

reference: ModuleType = load_script("tests/macros/funnel_reference.py")
fixtures: ModuleType = load_script("tests/macros/conftest.py")

START_US = 1_767_225_600_000_000
"""2026-01-01 in microseconds."""
MINUTE_US = 60_000_000
WINDOW_MINUTES = 5
STEP_COUNT = 4

# Ours and ClickHouse's names. strict_increase is compared with the combination that keeps every chain: see below.
MODES = {
    "default": [],
    "strict_order": ["strict_order"],
    "strict_deduplication": ["strict_deduplication"],
    "strict_increase": ["strict_increase", "strict_once"],
    "strict_once": ["strict_once"],
}


@pytest.fixture(scope="module")
def chdb(oracle: Any) -> ModuleType:
    """The package, or a skip."""
    module: ModuleType = oracle("chdb")
    return module


@pytest.fixture(scope="module")
def publication() -> Any:
    return fixtures.Publication()


class Histories:
    """Random histories as rows: customer, microseconds, and per row the steps it serves as bits (None: unknown)."""

    def __init__(self, seed: int, count: int, *, several: bool) -> None:
        random = Random(f"{seed} {several}")
        self.count = count
        self.rows: list[tuple[int, int, int | None]] = []
        for customer in range(count):
            for _ in range(random.randint(1, 9)):
                moment = START_US + random.randint(0, 11) * MINUTE_US + random.choice([0, 0, 0, 1])
                bits: list[int | None] = [0, None, 1, 1, 2, 2, 4, 8]
                if several:
                    bits += [random.randrange(1 << STEP_COUNT)] * 4
                self.rows.append((customer, moment, random.choice(bits)))

    def write(self, path: Path) -> None:
        """A row per touchpoint for ClickHouse; its conditions are bytes, and a NULL one does not hold."""
        customers, moments, bits = zip(*self.rows, strict=True)
        columns: dict[str, Any] = {
            "customer": pa.array(customers, pa.uint32()),
            "moment": pa.array(moments, pa.uint64()),
        }
        for step in range(STEP_COUNT):
            columns[f"step_{step + 1}"] = pa.array([(mask or 0) >> step & 1 for mask in bits], pa.uint8())
        pq.write_table(pa.table(columns), path)

    def publish(self, publication: Any) -> None:
        publication.empty("touchpoints")
        customers, moments, bits = zip(*self.rows, strict=True)
        publication.add_columns(
            "touchpoints",
            {
                "event_id": [publication.event_id(number) for number in range(len(self.rows))],
                "customer_key": [f"c:{customer}" for customer in customers],
                "direction": ["inbound"] * len(self.rows),
                "event_type": ["page_viewed"] * len(self.rows),
                "occurred_at": pa.array(moments, pa.timestamp("us", "UTC")),
                "nps_score": bits,
            },
        )

    def touches(self, customer: int) -> list[Any]:
        return [
            reference.Touch(
                number, moment, frozenset(step + 1 for step in range(STEP_COUNT) if (mask or 0) >> step & 1)
            )
            for number, (owner, moment, mask) in enumerate(self.rows)
            if owner == customer
        ]


def levels_of_clickhouse(chdb: ModuleType, path: Path, modes: list[str]) -> dict[int, int]:
    options = "".join(f", '{mode}'" for mode in modes)
    steps = ", ".join(f"step_{step}" for step in range(1, STEP_COUNT + 1))
    answer = chdb.query(f"""
        select customer, windowFunnel({WINDOW_MINUTES * MINUTE_US}{options})(moment, {steps})
        from file('{path}', Parquet) group by customer""")
    return {int(customer): int(level) for customer, level in (line.split(",") for line in str(answer).split())}


def levels_of_ours(publication: Any, mode: str, counting: str = "unique") -> dict[int, int]:
    asked = Funnel(
        steps=[f"(nps_score & {1 << step}) > 0" for step in range(STEP_COUNT)],
        within=f"{WINDOW_MINUTES} minutes",
        mode=mode,
        counting=counting,
    )
    for macro in asked.macros():
        publication.con.execute(macro)
    rows = publication.rows(
        f"select customer_key, max(step) from ({asked.select(attempts=True)}) group by customer_key"
    )
    return {int(customer.removeprefix("c:")): level for customer, level in rows}


@pytest.mark.parametrize("several", [False, True], ids=["one step each", "several steps each"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_reaches_what_clickhouse_reaches(
    chdb: ModuleType, publication: Any, tmp_path: Path, mode: str, several: bool
) -> None:
    histories = Histories(1, 6000, several=several)
    histories.write(tmp_path / "rows.parquet")
    histories.publish(publication)
    theirs = levels_of_clickhouse(chdb, tmp_path / "rows.parquet", MODES[mode])
    ours = levels_of_ours(publication, mode)
    assert {customer: ours.get(customer, 0) for customer in theirs} == theirs
    assert len(set(theirs.values())) == STEP_COUNT + 1  # every level is there


def test_strict_increase_alone_loses_chains_in_clickhouse_and_only_where_a_step_ties_with_the_next(
    chdb: ModuleType, publication: Any, tmp_path: Path, figures: Any
) -> None:
    """ClickHouse keeps one chain per step: a repeat at the time of the next step replaces the chain before it.

    Ours is what the mode says, t1 < t2 < …: equal to trying every chain, and to ClickHouse where it keeps every chain.
    """
    histories = Histories(2, 6000, several=False)
    histories.write(tmp_path / "rows.parquet")
    histories.publish(publication)
    alone = levels_of_clickhouse(chdb, tmp_path / "rows.parquet", ["strict_increase"])
    ours = levels_of_ours(publication, "strict_increase")
    lost = [customer for customer, level in alone.items() if level != ours.get(customer, 0)]
    assert all(alone[customer] < ours[customer] for customer in lost)
    assert 0.01 < len(lost) / histories.count < 0.06
    options = reference.Options(STEP_COUNT, WINDOW_MINUTES * MINUTE_US, mode="strict_increase")
    for customer in lost:
        touches = histories.touches(customer)
        [outcome] = reference.outcomes(touches, options)
        assert outcome.level == ours[customer]
        entries = Counter((touch.time, step) for touch in touches for step in touch.steps)
        assert any((time, step + 1) in entries for time, step in entries)
    figures(histories=histories.count, lost_by_clickhouse=len(lost))


def test_the_latest_attempt_that_counts_is_clickhouses_too(chdb: ModuleType, publication: Any, tmp_path: Path) -> None:
    """The furthest of all attempts is what windowFunnel gives, which knows attempts by their furthest only."""
    histories = Histories(3, 3000, several=True)
    histories.write(tmp_path / "rows.parquet")
    histories.publish(publication)
    theirs = levels_of_clickhouse(chdb, tmp_path / "rows.parquet", [])
    ours = levels_of_ours(publication, "default", counting="total")
    assert {customer: ours.get(customer, 0) for customer in theirs} == theirs


def test_ordered_count_is_window_funnel_over_the_stages(chdb: ModuleType, tmp_path: Path) -> None:
    """stage_conversion's ordered_count, for journeys and customers, with stages from the gold models themselves."""
    warehouse = load_script("tests/sql/conftest.py").Warehouse()
    random = Random(4)
    count = 3000
    owners = [owner for owner in range(count) for _ in range(random.randint(1, 30))]
    moments = [START_US + random.randint(0, 15) * MINUTE_US + random.choice([0, 0, 0, 1]) for _ in owners]
    stages: dict[str, list[int | None]] = {
        "stage": [random.choice([None, 1, 1, 2, 2, 3, 3, 4, 5, 6]) for _ in owners],
        "lifecycle_stage": [random.choice([None, 1, 2, 3, 4, 5, 6]) for _ in owners],
    }
    names = [None, "awareness", "consideration", "purchase", "onboarding", "retention", "advocacy"]
    journeys = [warehouse.journey_id(str(owner)) for owner in range(count)]
    warehouse.add_columns(
        "touchpoints",
        {
            "event_id": [warehouse.event_id(number) for number in range(len(owners))],
            "customer_key": [f"c:{owner}" for owner in owners],
            "journey_id": [journeys[owner] for owner in owners],
            "channel": ["web"] * len(owners),
            "event_type": ["page_viewed"] * len(owners),
            "direction": ["inbound"] * len(owners),
            "occurred_at": pa.array(moments, pa.timestamp("us")),
            **{column: [names[stage or 0] for stage in values] for column, values in stages.items()},
            **{f"{column}_index": values for column, values in stages.items()},
        },
    )
    keys = [f"c:{owner}" for owner in range(count)]
    started_at = pa.array([START_US] * count, pa.timestamp("us"))
    warehouse.add_columns(
        "journeys",
        {
            "journey_id": journeys,
            "customer_key": keys,
            "started_at": started_at,
            "status": ["abandoned"] * count,
            "revenue": [0] * count,
        },
    )
    warehouse.add_columns("customers", {"customer_key": keys, "first_touch_at": started_at, "revenue": [0] * count})
    window = f"{2 * WINDOW_MINUTES} minutes"
    warehouse.build("2026-06-01", config=f"{{conversion_window: {window}, customer_conversion_window: {window}}}")
    for scope, column in (("journey", "stage"), ("customer", "lifecycle_stage")):
        path = tmp_path / f"{scope}.parquet"
        kept = [number for number, stage in enumerate(stages[column]) if stage]
        pq.write_table(
            pa.table(
                {
                    "owner": pa.array([owners[number] for number in kept], pa.uint32()),
                    "moment": pa.array([moments[number] for number in kept], pa.uint64()),
                    "stage": pa.array([stages[column][number] for number in kept], pa.uint8()),
                }
            ),
            path,
        )
        steps = ", ".join(f"stage = {index}" for index in range(1, 7))
        answer = chdb.query(f"""
            select step, countIf(level >= step)
            from (
                select windowFunnel({2 * WINDOW_MINUTES * MINUTE_US})(moment, {steps}) as level
                from file('{path}', Parquet) group by owner
            ) as levels
            cross join (select arrayJoin(range(1, 7)) as step) as steps
            group by step order by step""")
        theirs = {int(step): int(reached) for step, reached in (line.split(",") for line in str(answer).split())}
        ours = dict(
            warehouse.rows(f"""
                select stage_index, ordered_count from stage_conversion
                where scope = '{scope}' and period = 'all' and breakdown = 'none'""")
        )
        assert ours == theirs
        assert theirs[6] > 0
