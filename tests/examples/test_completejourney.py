"""Published facts about completejourney (84.51°, CC0), met by its way through replay, Kafka and a night."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dags import steps
from examples.completejourney import run
from schemas.settings import Settings, load_settings
from warehouse.query import open_published

pytestmark = [pytest.mark.broker, pytest.mark.slow]


def ask(settings: Settings, name: str) -> list[tuple[Any, ...]]:
    """The answer of one of the example's own queries, on the published tables."""
    with open_published(settings) as con:
        return con.execute((run.HERE / "queries" / f"{name}.sql").read_text(encoding="utf-8")).fetchall()


@pytest.fixture
def published(kafka_url: str, tmp_path: Path) -> Settings:
    """The example's own steps, on the shared broker and a new home."""
    settings = load_settings(home=tmp_path, config=run.HERE / "journey.yml")
    run.send(kafka_url, settings)
    run.run_night(kafka_url, settings)
    return settings


def test_a_grocers_year_gives_the_published_numbers(published: Settings, tmp_path: Path) -> None:
    assert pq.read_metadata(run.data_dir() / "transactions.parquet").num_rows == 1_469_307
    assert ask(published, "totals") == [(155_848, 2_469, Decimal("4596039.58"))]
    assert ask(published, "campaign_funnel") == [
        ("Type A", 3647, 3558, 604),
        ("Type B", 2368, 2279, 154),
        ("Type C", 574, 567, 34),
    ]
    with open_published(published) as con:  # 2,438 households have two baskets; 3 of them on one day only
        columns = "sum(customer_count), sum(repeat_customer_count), sum(repeat_by_order_count)"
        repeated = con.execute(f"select {columns} from repeat_purchase where period = 'month'").fetchall()
    assert repeated == [(2469, 2435, 2438)]
    in_new_york = [row[2] for row in ask(published, "january_cohort")]
    assert in_new_york[:4] == [1983, 1763, 1786, 1776]

    # The same landed records by another calendar: a receipt of the evening falls into another month.
    journey = tmp_path / "utc.yml"
    journey.write_text("reporting_timezone: UTC\n", encoding="utf-8")
    by_utc = load_settings(home=tmp_path, config=journey)
    steps.silver(by_utc, run_id="utc", source=f"file://{tmp_path}")
    steps.gold(by_utc, run_id="utc")
    steps.publish(by_utc, run_id="utc")
    assert [row[2] for row in ask(by_utc, "january_cohort")][:4] == [1982, 1761, 1784, 1775]
    assert ask(by_utc, "totals") == [(155_848, 2_469, Decimal("4596039.58"))]
