"""`make demo`: a month of web, email, store and support touchpoints through Kafka, Airflow and DuckDB."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.local_transport import PROJECT_DIR, load_script, open_transport
from ingest.progress import show_progress
from ingest.scenario.run import ProduceReport, produce
from schemas.errors import JourneysError
from schemas.settings import load_settings
from warehouse.query import query

WINDOW_END = "2026-02-10T00:00:00+00:00"
TABLES = {
    "Stage conversion (all journeys)": """
        select stage, entered_count as entered, advanced_count as advanced, dropped_count as dropped,
            active_count as active, round(100 * conversion_ratio, 1) as "conversion %",
            round(median_seconds_to_advance / 3600, 1) as "median hours"
        from stage_conversion
        where scope = 'journey' and period = 'all' and breakdown = 'none' order by stage_index""",
    "Where journeys drop out, and where people go next (top 8)": """
        select stage, exit_channel as "exit", exit_event_type as "last seen", dropped_count as dropped,
            round(100 * share_of_stage_drop, 1) as "share %", coalesce(next_channel, 'never back') as "next",
            round(median_days_to_next, 1) as "days"
        from stage_drop_off where scope = 'journey' and period = 'all'
        order by dropped_count desc, stage, exit_event_type, next_event_type limit 8""",
    "Retention: weekly cohorts of first orders that order again (%)": """
        select cohort_start_date as cohort, any_value(cohort_size) as size,
            round(100 * max(case when interval_index = 1 then bounded_ratio end), 1) as "week 1",
            round(100 * max(case when interval_index = 2 then bounded_ratio end), 1) as "week 2",
            round(100 * max(case when interval_index = 3 then bounded_ratio end), 1) as "week 3",
            round(100 * max(case when interval_index = 4 then bounded_ratio end), 1) as "week 4"
        from retention
        where period = 'week' and mode = 'calendar' and breakdown = 'none'
            and start_event = 'first_order' and return_event = 'order'
        group by cohort_start_date order by cohort_start_date""",
}


def _send(url: str, home: Path) -> ProduceReport:
    started = time.monotonic()
    report = produce(url, settings=load_settings(home=home), truth_path=home / "truth.json", progress=show_progress)
    print(
        f"Sent       {report.record_count:,} records of 40 days: {report.event_count:,} events, {report.copy_count:,} "
        f"copies, {report.malformed_count} malformed ({time.monotonic() - started:.0f} s)",
        flush=True,
    )
    return report


def _night(url: str, home: Path) -> None:
    local = load_script("deploy/airflow/local.py")
    print("Airflow    starting (local, project-owned) ...", flush=True)
    environment = {
        "JOURNEYS_HOME": str(home.absolute()),
        "JOURNEYS_SOURCE": url,
        "JOURNEYS_SCHEDULE": "none",
    }
    with local.LocalAirflow(PROJECT_DIR / ".airflow" / "demo", env=environment) as airflow:
        run_id = airflow.trigger({"window_end": WINDOW_END})
        print(f"           run {run_id} of journeys_nightly", flush=True)
        state = airflow.wait(run_id, 600)
        for item in airflow.tasks(run_id):
            mapped = f"[{item['map_index']}]" if item["map_index"] >= 0 else ""
            print(f"           {item['task_id'] + mapped:<10} {item['state']:<10} {item['duration'] or 0:5.1f} s")
            if item["state"] == "failed":
                print(airflow.task_log(run_id, item["task_id"], item["try_number"], item["map_index"])[-3000:])
    if state != "success":
        raise SystemExit(f"the night ended as {state}; logs in {PROJECT_DIR / '.airflow' / 'demo' / 'logs'}")


def main() -> None:
    """Send, run the night, show the tables."""
    started = time.monotonic()
    home = Path(os.environ.get("JOURNEYS_HOME", PROJECT_DIR / "data")).absolute()
    settings = load_settings(home=home)
    with open_transport(home) as url:
        _send(url, home)
        _night(url, home)
    for title, sql in TABLES.items():
        print(f"\n{title}")
        query(settings, sql)
    published = settings.published_dir / "current"
    shown = os.path.relpath(published)
    print(f"""
Done in {time.monotonic() - started:.0f} s. Published: {shown}/<table>/*.parquet and {shown}/journeys.duckdb
Try next:
  .venv/bin/journeys query "select status, count(*), avg(touchpoint_count) from journeys group by all"
  .venv/bin/journeys query "select * from stage_conversion where breakdown = 'channel' and period = 'all'"
  .venv/bin/journeys check              what the quality gates saw
  .venv/bin/journeys status             what landed, was built, is published
  make airflow                          the DAG in Airflow's own UI
  README.md                             your own Kafka, your own files""")


if __name__ == "__main__":
    try:
        main()
    except JourneysError as error:
        raise SystemExit(f"error: {error}") from None
