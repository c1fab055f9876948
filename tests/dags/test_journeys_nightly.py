"""`journeys_nightly` on a real scheduler: its shape, whole nights over real Kafka, kills, wrong parameters."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ingest.scenario.run import produce
from schemas.settings import load_settings
from schemas.topics import SOURCE_TOPICS
from warehouse.query import open_published

pytestmark = [pytest.mark.scheduler, pytest.mark.slow]

DAG = "/api/v2/dags/journeys_nightly"
WINDOW_END = "2026-01-25T00:00:00+00:00"
REMEDY = "see dags/journeys_nightly.py; `make airflow` shows the DAG"


def current(home: Path) -> dict[str, Any]:
    """The manifest of the current publication."""
    manifest: dict[str, Any] = json.loads((home / "published" / "current" / "manifest.json").read_text())
    return manifest


def published_rows(home: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every published table, sorted, without what names the run."""
    with open_published(load_settings(home=home)) as con:
        tables = [row[0] for row in con.execute("select view_name from duckdb_views() where not internal").fetchall()]
        found = {}
        for table in set(tables) - {"data_quality"}:
            names = {row[0] for row in con.execute(f"describe {table}").fetchall()} - {"_run_id"}
            columns = ", ".join(f'"{name}"' for name in sorted(names))
            found[table] = con.execute(f"select {columns} from {table} order by all").fetchall()
        return found


def test_the_dag_has_the_shape_operators_rely_on(airflow: Any) -> None:
    assert airflow.call("GET", "/api/v2/importErrors")["import_errors"] == [], REMEDY
    details = airflow.call("GET", f"{DAG}/details")
    assert details["max_active_runs"] == 1 and details["catchup"] is False, REMEDY
    assert "land" in details["doc_md"] and "window_end" in details["doc_md"], f"no doc_md: {REMEDY}"
    assert set(details["params"]) == {"window_start", "window_end", "source", "full"}
    tasks = {task["task_id"]: task for task in airflow.call("GET", f"{DAG}/tasks")["tasks"]}
    assert {name: sorted(task["downstream_task_ids"]) for name, task in tasks.items()} == {
        "land": ["confirm_landing", "silver"],
        "silver": ["gold"],
        "gold": ["publish"],
        "publish": ["confirm_landing"],
        "confirm_landing": [],
    }
    assert tasks["land"]["is_mapped"] and not tasks["silver"]["is_mapped"]
    for name, task in tasks.items():
        assert task["doc_md"], f"{name} has no doc_md: {REMEDY}"
        assert task["retries"] >= 2 or name == "confirm_landing", f"{name} is not retried: {REMEDY}"
    writers = {name for name, task in tasks.items() if task["pool"] == "journeys_warehouse"}
    assert writers == {"silver", "gold", "publish"}, f"who writes the warehouse takes its pool: {REMEDY}"
    assert airflow.call("GET", "/api/v2/pools/journeys_warehouse")["slots"] == 1


def test_it_listens_on_loopback_alone(airflow: Any, airflow_processes: Callable[[], list[psutil.Process]]) -> None:
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in airflow_processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert ("127.0.0.1", airflow.port) in listening
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::1"}


@pytest.mark.broker
def test_nights_over_kafka_survive_a_killed_task_and_equal_an_undisturbed_run(
    airflow: Any, journeys_home: Path, kafka_url: str
) -> None:
    settings = load_settings(home=journeys_home)
    sent = produce(kafka_url, settings=settings, customers=400, days=20)
    conf = {"source": kafka_url, "window_end": WINDOW_END}

    first = airflow.trigger(conf, run_id="first")
    assert airflow.wait(first, 240) == "success", airflow.report(first)
    land = [task for task in airflow.tasks(first) if task["task_id"] == "land"]
    assert sorted(task["rendered_map_index"] for task in land) == sorted(SOURCE_TOPICS)
    manifest = current(journeys_home)
    assert (manifest["run_id"], manifest["data_as_of"]) == ("first", WINDOW_END)
    rows = published_rows(journeys_home)
    # 2099's clock waits; the rest of the events, once each, are touchpoints but for link events.
    links = sum(count for name, count in sent_types(settings, kafka_url).items() if name.startswith("identity_"))
    assert len(rows["touchpoints"]) == sent.event_count - links - 5
    assert len(rows["orders"]) == sent.order_count

    event = airflow.call("GET", "/api/v2/assets/events?order_by=-timestamp")["asset_events"][0]
    assert event["extra"]["run_id"] == "first" and event["extra"]["data_as_of"] == WINDOW_END

    second = airflow.trigger(conf, run_id="second")
    kill_when_running(airflow, second, "silver")
    assert current(journeys_home)["run_id"] == "first"
    assert published_rows(journeys_home) == rows
    assert airflow.wait(second, 240) == "success", airflow.report(second)
    tries = {task["task_id"]: task["try_number"] for task in airflow.tasks(second)}
    assert tries["silver"] == 2, airflow.report(second)
    assert current(journeys_home)["run_id"] == "second"
    assert published_rows(journeys_home) == rows


def sent_types(settings: Any, url: str) -> dict[str, int]:
    """Events of the scenario by type, as its truth counts them."""
    from ingest.scenario.run import generate

    counts: dict[str, int] = generate(customers=400, days=20).truth["events_by_type"]
    return counts


def kill_when_running(airflow: Any, run_id: str, task_id: str) -> None:
    """SIGKILL the task's process while it writes the warehouse."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        task = next((item for item in airflow.tasks(run_id) if item["task_id"] == task_id), None)
        if task and task["state"] == "running" and task["pid"]:
            process = psutil.Process(task["pid"])
            if any("warehouse.duckdb" in file.path for file in process.open_files()):
                os.kill(process.pid, signal.SIGKILL)
                return
        time.sleep(0.02)
    pytest.fail(f"{task_id} never wrote the warehouse:\n{airflow.report(run_id)}")


def test_wrong_parameters_fail_at_once_and_say_why(airflow: Any, journeys_home: Path, tmp_path: Path) -> None:
    conf = {
        "source": f"file://{tmp_path}",
        "window_start": "2026-02-02T00:00:00Z",
        "window_end": "2026-02-01T00:00:00Z",
    }
    run_id = airflow.trigger(conf)
    assert airflow.wait(run_id, 120) == "failed"
    silver = next(task for task in airflow.tasks(run_id) if task["task_id"] == "silver")
    assert (silver["state"], silver["try_number"]) == ("failed", 1), "what would fail again is not retried"
    assert "window_start must lie before window_end" in airflow.task_log(run_id, "silver", 1)


def test_a_log_that_cannot_be_landed_fails_the_run_after_the_others_were_published(
    airflow: Any, journeys_home: Path, tmp_path: Path
) -> None:
    drop = tmp_path / "drop"
    produce(f"file://{drop}", settings=load_settings(home=journeys_home), customers=20, days=20)
    (drop / "journeys.web.v1" / "cut.parquet").write_bytes(b"PAR1 and no more")
    run_id = airflow.trigger({"source": f"file://{drop}", "full": True, "window_end": WINDOW_END}, run_id="cut-file")
    assert airflow.wait(run_id, 240) == "failed"
    states = {(task["task_id"], task["state"], task["try_number"]) for task in airflow.tasks(run_id)}
    assert ("publish", "success", 1) in states and ("confirm_landing", "failed", 1) in states, airflow.report(run_id)
    assert current(journeys_home)["run_id"] == run_id
    said = airflow.task_log(run_id, "confirm_landing", 1)
    assert "cut.parquet" in said and "All other logs were landed, built and published" in said
