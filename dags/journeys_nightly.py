"""### One night: land → silver → gold → publish

Every night (`JOURNEYS_SCHEDULE`, 02:00 UTC) the touchpoints of four channels are landed from Kafka (or a drop folder), resolved to
customers, sessionized and built into journeys; models compute stage conversion, drop-off and retention; the gates are
checked; and a new publication is swapped in atomically. Readers only ever see whole publications.

**Safe to retry, re-run and backfill.** Each step is one transaction recorded under the run's id: a retried task finds
what is done. A failed gate leaves yesterday's publication in place.

| Parameter | Meaning |
|---|---|
| `window_end` | Build as of this instant. Empty: the end of the data interval for scheduled and backfilled runs, else the newest touchpoint |
| `source` | `kafka://host:port` or `file:///folder`. Empty: the setting `JOURNEYS_SOURCE` |
| `full` | Load bronze anew from landing; needed to build the past |

Settings are environment variables `JOURNEYS_*` of the worker. The tasks that write the warehouse share the one-slot pool
`journeys_warehouse`: two nights never write at once.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
from airflow.sdk import Asset, CronDataIntervalTimetable, Param, dag, get_current_context, task

from schemas.settings import load_settings
from schemas.topics import SOURCE_TOPICS

WAREHOUSE_POOL = "journeys_warehouse"
PUBLISHED = Asset("journeys_published", uri="journeys://published/current")


def _schedule() -> CronDataIntervalTimetable | None:
    cron = load_settings().schedule
    return None if cron == "none" else CronDataIntervalTimetable(cron, timezone="UTC")


def _window_end(context: Any) -> datetime | None:
    """The instant to build as of: the parameter, else the end of a scheduled interval, else None."""
    if given := context["params"].get("window_end"):
        return datetime.fromisoformat(given).astimezone(UTC)
    if context["dag_run"].run_type == "manual":
        return None  # a manual run's interval is the moment it was asked for, not what the data cover
    end: datetime | None = context.get("data_interval_end")
    return end


def _run_id(context: Any) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", context["run_id"])


def _settings_and_source(context: Any) -> tuple[Any, str]:
    settings = load_settings()
    return settings, context["params"].get("source") or settings.source


@dag(
    dag_id="journeys_nightly",
    schedule=_schedule(),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
    params={
        "window_end": Param(None, type=["null", "string"], format="date-time", description="Build as of this instant"),
        "source": Param(None, type=["null", "string"], description="kafka://host:port or file:///folder"),
        "full": Param(False, type="boolean", description="Load bronze anew from landing"),
    },
    doc_md=__doc__,
    tags=["journeys"],
)
def journeys_nightly() -> None:
    """Land per topic, then silver, gold and publish, one after the other."""

    @task(doc_md="Lands one topic's new records to its end offsets; a retry goes on after the landed files.")
    def land(topic: str) -> dict[str, Any]:
        from dags import steps

        settings, source = _settings_and_source(get_current_context())
        return steps.land(topic, source, settings)

    @task(
        pool=WAREHOUSE_POOL,
        doc_md="Loads bronze, resolves identities and rebuilds silver in one transaction; rejects become dead letters.",
    )
    def silver() -> dict[str, Any]:
        from dags import steps

        context = get_current_context()
        settings, source = _settings_and_source(context)
        return steps.silver(
            settings,
            run_id=_run_id(context),
            source=source,
            data_as_of=_window_end(context),
            full=bool(context["params"].get("full")),
        )

    @task(pool=WAREHOUSE_POOL, doc_md="Builds every model and checks the gates; a failed one stops the night here.")
    def gold() -> dict[str, Any]:
        from dags import steps

        context = get_current_context()
        return steps.gold(_settings_and_source(context)[0], run_id=_run_id(context))

    @task(
        pool=WAREHOUSE_POOL, outlets=[PUBLISHED], doc_md="Writes Parquet and journeys.duckdb and swaps `current` to them."
    )
    def publish() -> dict[str, Any]:
        from dags import steps

        context = get_current_context()
        return steps.publish(_settings_and_source(context)[0], run_id=_run_id(context))

    land.expand(topic=list(SOURCE_TOPICS)) >> silver() >> gold() >> publish()


journeys_nightly()
