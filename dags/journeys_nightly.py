"""### One night: land → silver → gold → publish

Every night (`JOURNEYS_SCHEDULE`, 02:00 UTC) the touchpoints of four channels are landed from Kafka or a drop folder,
resolved to customers, sessionized and built into journeys; models compute stage conversion, drop-off and retention;
gates check them; and a new publication is swapped in atomically. Readers only ever see whole publications.

| Task | What it does | When it fails |
|---|---|---|
| `land` (one per topic) | reads each topic to its end offsets into Parquet | the retry goes on after what has landed |
| `silver` | bronze to customers in one transaction; rejected records go to the dead-letter topic | nothing changed |
| `gold` | every SQL model, then the gates | a failed gate stops here: yesterday's publication stays |
| `publish` | Parquet and `journeys.duckdb`; updates the asset `journeys_published` | readers keep the one before |
| `confirm_landing` | nothing, or fails: a log could not be landed | the night is published without that log's news; its message says what to do |

| Parameter | Meaning |
|---|---|
| `window_end` | Build as of this instant. Empty: the end of the data interval of a scheduled or backfilled run; else the newest touchpoint |
| `window_start` | Start of the night, for the record; must lie before `window_end`. It cuts nothing off: a late touchpoint belongs to its own day |
| `source` | `kafka://host:port` or `file:///folder`. Empty: the setting `JOURNEYS_SOURCE` |
| `full` | Load bronze anew from landing; the only way `window_end` may move back |

**Safe to retry and to re-run.** A step is recorded under its run's id and skipped when it is done already. Broken
systems are retried; a failed gate, a wrong model and wrong settings or parameters are not, because they would fail again.

**Backfill** rebuilds the past, so it needs `full` and one run at a time:
`airflow backfill create --dag-id journeys_nightly --from-date … --to-date … --dag-run-conf '{"full": true}' --max-active-runs 1`

Settings are environment variables `JOURNEYS_*` of the workers. The tasks that write the warehouse share the pool
`journeys_warehouse`, which must have one slot: `airflow pools set journeys_warehouse 1 "one writer"`.
"""  # noqa: E501 (a table row is one line)

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import (
    Asset,
    CronDataIntervalTimetable,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    dag,
    get_current_context,
    task,
)

from schemas.errors import ConfigurationError, GateFailedError, ModelError, UnlandedError, UsageError
from schemas.settings import Settings, load_settings
from schemas.topics import SOURCE_TOPICS

logger = logging.getLogger(__name__)

WAREHOUSE_POOL = "journeys_warehouse"
PUBLISHED = Asset("journeys_published", uri="journeys://published/current")
UNSCHEDULED_RUNS = ("manual", "asset_triggered", "operator_triggered")

LAND_DOC = """Lands what is new in one topic: takes the end offsets, reads to them, stops. The landed files are where
offsets live, so a retry goes on after them and nothing is lost or doubled."""
SILVER_DOC = """Loads bronze, resolves identities and rebuilds silver in one transaction. Rejected records stay in the
table `quarantine` and go to the dead-letter topic with their reason."""
GOLD_DOC = """Builds every SQL model, then checks the gates. A failed one names check, table, observed and expected
value; `journeys check` shows them all. Mend the cause, then clear this task or `silver`."""
CONFIRM_DOC = """Fails when a topic or file could not be landed (its offsets expired, it was recreated, cut or cannot be
read). All others were landed, built and published: one broken log must not keep their news back. The check
`landing_problem_count` in `data_quality` tells readers; `quality.landing_problem_count: {fail: 0}` in journey.yml stops
such a night before it publishes."""
PUBLISH_DOC = """Writes the tables as Parquet and `journeys.duckdb`, then swaps `published/current` to them in one
rename. The asset event carries run id, path and `data_as_of`."""


def _schedule() -> CronDataIntervalTimetable | None:
    cron = load_settings().schedule
    return None if cron == "none" else CronDataIntervalTimetable(cron, timezone="UTC")


def _instant(name: str, text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            "not an instant", where=f"parameter {name}", value=text, remedy="Write it like 2026-03-01T00:00:00Z"
        ) from None
    try:
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except OverflowError:
        raise UsageError("lies outside the years 1 to 9999", where=f"parameter {name}", value=text) from None


def _window(context: Any) -> tuple[datetime | None, datetime | None]:
    """The parameters, else the data interval of a scheduled or backfilled run, else None: the data decide."""
    start, end = (_instant(name, context["params"].get(name)) for name in ("window_start", "window_end"))
    # The interval of a run by hand says when it was asked for, not what the data cover.
    if end is None and context["dag_run"].run_type not in UNSCHEDULED_RUNS:
        start, end = start or context.get("data_interval_start"), context.get("data_interval_end")
    if start and end and start >= end:
        raise UsageError(
            f"window_start must lie before window_end, {end.isoformat()}",
            where="parameter window_start",
            value=start.isoformat(),
            remedy="Leave both empty for the data interval",
        )
    return start, end


def _run_id(context: Any) -> str:
    """The DAG run's id as a folder name: the same for every attempt of every task of the run."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", context["run_id"]).lstrip("._-") or "run"


def _settings_and_source(context: Any) -> tuple[Settings, str]:
    settings = load_settings()
    return settings, context["params"].get("source") or settings.source


@dag(
    dag_id="journeys_nightly",
    schedule=_schedule(),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 4,
        "retry_delay": timedelta(seconds=15),
        "retry_exponential_backoff": 2,  # a broker may be away for about four minutes
        "max_retry_delay": timedelta(minutes=10),
        "retry_policy": ExceptionRetryPolicy(
            rules=[
                RetryRule(
                    exception=[UsageError, ConfigurationError, GateFailedError, ModelError, UnlandedError],
                    action=RetryAction.FAIL,
                    reason="It would fail again: the message says what to mend",
                )
            ]
        ),
        "execution_timeout": timedelta(hours=12),  # a task that hangs must not stop every night after it
        "weight_rule": "upstream",  # a run that has begun to write goes before one that has not
    },
    params={
        "window_start": Param(
            None, type=["null", "string"], format="date-time", description="Start of the night, for the record"
        ),
        "window_end": Param(None, type=["null", "string"], format="date-time", description="Build as of this instant"),
        "source": Param(
            None,
            type=["null", "string"],
            pattern="^(kafka|file)://.+",
            description="kafka://host:port[,host:port] or file:///folder",
        ),
        "full": Param(False, type="boolean", description="Load bronze anew from landing"),
    },
    doc_md=__doc__,
    tags=["journeys"],
)
def journeys_nightly() -> None:
    """Land per topic, then silver, gold and publish, one after the other."""

    @task(doc_md=LAND_DOC, map_index_template="{{ topic }}")
    def land(topic: str) -> dict[str, Any]:
        from dags import steps

        context = get_current_context()
        context["topic"] = topic  # what the UI calls this mapped task
        settings, source = _settings_and_source(context)
        return steps.land([topic], source, settings)

    @task(pool=WAREHOUSE_POOL, doc_md=SILVER_DOC)
    def silver(landed: Any) -> dict[str, Any]:
        from dags import steps

        context = get_current_context()
        settings, source = _settings_and_source(context)
        start, end = _window(context)
        logger.info("window from %s to %s", start or "the beginning", end or "the newest touchpoint")
        full = bool(context["params"].get("full"))
        return steps.silver(
            settings,
            run_id=_run_id(context),
            source=source,
            data_as_of=end,
            full=full,
            landing_problem_count=len(steps.problems(landed)),
        )

    @task(pool=WAREHOUSE_POOL, doc_md=GOLD_DOC)
    def gold() -> dict[str, Any]:
        from dags import steps

        context = get_current_context()
        return steps.gold(_settings_and_source(context)[0], run_id=_run_id(context))

    @task(pool=WAREHOUSE_POOL, outlets=[PUBLISHED], doc_md=PUBLISH_DOC)
    def publish() -> dict[str, Any]:
        from dags import steps

        context = get_current_context()
        result = steps.publish(_settings_and_source(context)[0], run_id=_run_id(context))
        context["outlet_events"][PUBLISHED].extra.update(
            {name: result[name] for name in ("run_id", "data_as_of", "path")}
        )
        return result

    @task(retries=0, doc_md=CONFIRM_DOC)
    def confirm_landing(landed: Any) -> None:
        from dags import steps

        steps.confirm_landing(landed)

    landed = land.expand(topic=list(SOURCE_TOPICS))
    silver(landed) >> gold() >> publish() >> confirm_landing(landed)


journeys_nightly()
